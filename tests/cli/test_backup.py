"""`keras-repro run --backup`: a killed script goes on, unchanged."""

import shutil
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.cli import main as cli
from keras_repro.runs.comparison import compare_runs
from keras_repro.watching.model_calls import Options, Recorder
from tests.checkout import SCRIPTS, run_command

pytestmark = pytest.mark.requires_backend

SCRIPT = SCRIPTS / "killed_training.py"
BATCHES, KILLED = 9, 8
X = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


def run_script(folder, code=0):
    """What the script printed, where nobody killed it."""
    options = ("--backup", "backups", "--save-freq", 2)
    command = (sys.executable, "-m", "keras_repro", "run", *options, SCRIPT)
    return run_command(*command, cwd=folder, code=code).stdout


def count_trained(folder):
    return len((folder / "trained.txt").read_text().split())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_script_goes_on(tmp_path):
    """To what it would have printed; without its backups it begins anew."""
    folder, twin = tmp_path / "killed", tmp_path / "twin"
    folder.mkdir()
    (folder / "kill").touch()
    run_script(folder, code=-signal.SIGKILL)
    assert count_trained(folder) == KILLED
    shutil.copytree(folder, twin)
    shutil.rmtree(twin / "backups")

    printed = run_script(folder)
    assert count_trained(folder) <= BATCHES + 4
    assert not (folder / "backups").exists()

    assert run_script(twin) == printed
    assert count_trained(twin) == KILLED + BATCHES
    runs, others = (kr.load_runs(one / "runs.jsonl") for one in (folder, twin))
    assert [len(one.resumed) for one in runs] == [1, 1, 1]
    for run, other in zip(runs, others[-3:], strict=True):
        assert run.finished
        assert not other.resumed
        assert compare_runs(run, other).agree


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize(("code", "stays"), [(3, True), (1, True), (0, False)])
def test_backups_stay_where_a_script_fails(tmp_path, code, stays):
    """So that it goes on when what was wrong is mended."""
    backup = tmp_path / "backups" / "000000" / "000" / "000001.h5"
    backup.parent.mkdir(parents=True)
    backup.touch()
    (backup.parents[1] / "backups.lock").touch()
    script = tmp_path / "script.py"
    ends = {0: "import keras", 1: "1 / 0", 3: "raise SystemExit(3)"}
    script.write_text(ends[code])
    command = (sys.executable, "-m", "keras_repro", "run")
    run_command(
        *command, "--backup", "backups", script, cwd=tmp_path, code=code
    )
    assert backup.exists() == stays
    assert (tmp_path / "backups").exists() == stays


@pytest.mark.alike
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--save-freq", "2"), "`--save-freq` must come with `--backup DIR`"),
        (("--backup", "a_file"), "a_file"),
        (("--backup", "b", "--save-freq", "0"), "positive number of batches"),
        (("--backup", "b", "--save-freq", "batch"), "positive number of"),
    ],
)
def test_misuse_is_refused(tmp_path, monkeypatch, capsys, arguments, message):
    """With 2, before the script begins."""
    monkeypatch.chdir(tmp_path)
    for name in ("a_file", "script.py"):
        Path(name).touch()
    try:
        code = cli.main(["run", *arguments, "script.py"])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err


# --- what `fit` does ---------------------------------------------------------


@pytest.fixture
def recorder(tmp_path):
    """Every `fit` of this process is backed up."""
    recorder = Recorder(
        Options(
            seed=0,
            log=str(tmp_path / "runs.jsonl"),
            backup=str(tmp_path / "backups"),
        )
    )
    recorder.wrap(keras.Model)
    yield recorder
    recorder.unwrap()
    assert "_fit" not in repr(keras.Model.fit)


def list_kept(tmp_path):
    """The trainings that have a backup."""
    return sorted(
        path.parents[1].name for path in tmp_path.glob("backups/*/*/start.h5")
    )


class Doubling(keras.Model):
    """A model with a `fit` of its own, and how often it was called."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.num_fits = 0

    def call(self, x):
        return self.dense(x)

    def fit(self, x, y, **options):
        self.num_fits += 1
        return super().fit(2 * x, y, **options)


def test_a_fit_of_the_scripts_own_is_called_once(recorder, tmp_path):
    """In its first training, which makes it reproducible, and in the next."""
    model = Doubling()
    model.compile("sgd", "mse")
    for number in (1, 2):
        model.fit(X, X[:, :1], verbose=0)
        assert model.num_fits == number
        assert len(recorder.run_ids) == number
        model.evaluate(X, X[:, :1], verbose=0)
    assert list_kept(tmp_path) == ["000000", "000001"]
    recorder.remove_backups()
    assert not (tmp_path / "backups").exists()


def make_model():
    model = kr.ReproducibleModel(
        [keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)],
        seed=1,
    )
    model.compile("sgd", "mse")
    return model


def test_a_reproducible_model_trains_as_without(recorder, tmp_path):
    """Nothing else changes for it."""
    backed_up = make_model().fit(X, X[:, :1], epochs=3, verbose=0).history
    assert len(recorder.run_ids) == 1
    assert list_kept(tmp_path) == ["000000"]
    recorder.unwrap()
    assert make_model().fit(X, X[:, :1], epochs=3, verbose=0).history == (
        backed_up
    )
    assert len(recorder.run_ids) == 1


def test_what_the_script_keeps_itself(recorder, tmp_path):
    """Its own backups are enough; those of Keras would be in the way."""
    own = kr.BackupAndRestore(tmp_path / "own")
    make_model().fit(X, X[:, :1], verbose=0, callbacks=[own])
    assert list_kept(tmp_path) == []
    assert len(recorder.run_ids) == 1
    other = keras.callbacks.BackupAndRestore(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="`--backup` must be alone"):
        make_model().fit(X, X[:, :1], verbose=0, callbacks=[other])
    checks = kr.ChecksumCallback(recorder.options.log)
    make_model().fit(X, X[:, :1], verbose=0, callbacks=checks)
    assert list_kept(tmp_path) == ["000000"]
    assert len(recorder.run_ids) == 1


def test_a_training_within_another_is_refused(recorder):
    """It would not be gone on with, and the outer one not exactly."""
    inner = make_model()
    train = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: inner.fit(X, X[:, :1], verbose=0)
    )
    with (
        pytest.warns(UserWarning, match="LambdaCallback"),
        pytest.raises(ValueError, match="must not train another model"),
    ):
        make_model().fit(X, X[:, :1], verbose=0, callbacks=[train])
