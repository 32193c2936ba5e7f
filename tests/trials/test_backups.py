"""A killed study goes on in the midst of the trial that was under way."""

import shutil
import signal
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.runs.comparison import compare_runs
from tests.checkout import SCRIPTS, run_command

pytestmark = pytest.mark.requires_backend

HAS_SIGKILL = hasattr(signal, "SIGKILL")
BACKUPS = Path("study", "backups")


@pytest.fixture
def script(monkeypatch):
    """The module of a study that can be killed."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import backed_up_study

    yield backed_up_study
    del sys.modules["backed_up_study"]


def start(folder, monkeypatch):
    """Go to a folder of its own, in which nothing was trained."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("trained.txt").write_text("")
    return folder


def assert_equal(results, expected):
    """Scores, weights, and each record of each run."""
    assert results.checksums == expected.checksums
    for name, scores in expected.scores.items():
        assert results.scores[name].tobytes() == scores.tobytes()
    for run, other in zip(results.runs[0], expected.runs[0], strict=True):
        assert compare_runs(run, other).agree
        assert run.history() == other.history()
        assert len(run.records) == len(other.records)


@pytest.mark.skipif(not HAS_SIGKILL, reason="needs SIGKILL")
def test_a_killed_study_goes_on_within_a_trial(script, tmp_path, monkeypatch):
    """To the bits of one that nobody killed; without backups it begins anew."""
    start(tmp_path / "whole", monkeypatch)
    expected = script.run(backup=None)
    assert script.count_trained() == script.BATCHES
    assert expected.scores["rate"][0] < 1e-3  # A callback remembers.

    folder = start(tmp_path / "killed", monkeypatch)
    Path("kill").touch()
    run_command(
        sys.executable,
        SCRIPTS / "backed_up_study.py",
        cwd=folder,
        code=-signal.SIGKILL,
    )
    assert script.count_trained() == script.KILLED
    assert len(list(Path(BACKUPS, "3").iterdir())) == 2
    assert kr.load_trials("study").num_trials == 0
    shutil.copytree(folder, tmp_path / "twin")

    assert_equal(script.run(), expected)
    assert script.count_trained() > script.BATCHES
    assert script.count_trained() <= script.BATCHES + 4
    assert not BACKUPS.exists()
    assert_equal(kr.load_trials("study"), expected)
    assert all(len(one.resumed) == 1 for one in kr.load_trials("study").runs[0])

    monkeypatch.chdir(tmp_path / "twin")
    assert_equal(script.run(backup=None), expected)
    assert script.count_trained() == script.KILLED + script.BATCHES
    assert not BACKUPS.exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SIGKILL, reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["num_workers", "executor"])
def test_a_killed_worker_goes_on_within_a_trial(
    script, tmp_path, monkeypatch, kind
):
    """The next worker takes up what the one that died has backed up."""
    start(tmp_path / "whole", monkeypatch)
    expected = script.run(backup=None)
    start(tmp_path / "killed", monkeypatch)
    Path("kill").touch()
    with ThreadPoolExecutor(1) as threads:
        options = {"num_workers": 1, "executor": threads}
        with pytest.warns(UserWarning, match="died"):
            results = script.run(**{kind: options[kind]})
    assert_equal(results, expected)
    assert script.count_trained() <= script.BATCHES + 4
    assert not BACKUPS.exists()


@pytest.mark.slow
def test_a_trial_that_raised_goes_on(tmp_path, monkeypatch):
    """Its backups stay, and the next call trains what is left of it."""
    monkeypatch.chdir(tmp_path)
    model = kr.ReproducibleModel([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.linspace(0, 1, 8, dtype="float32")[:, None]
    epochs = []

    class Fragile(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append((self.model.seed, epoch))

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2 and Path("broken").exists():
                raise OSError

    def train(model):
        model.fit(x, x, epochs=4, verbose=0, callbacks=[Fragile()])
        return model.evaluate(x, x, verbose=0)

    def run(**options):
        return kr.run_trials(model, train, 2, progress=False, **options)

    expected = run()
    epochs.clear()
    Path("broken").touch()
    with pytest.raises(RuntimeError, match="OSError"):
        run(path="study", backup="epoch")
    assert sorted(one.name for one in BACKUPS.iterdir()) == ["0", "1"]
    Path("broken").unlink()
    assert run(path="study", backup="epoch").checksums == expected.checksums
    tried = [(seed, epoch) for seed in (0, 1) for epoch in range(3)]
    assert epochs[:6] == tried
    assert not {(0, 0), (1, 0)} & {*epochs[6:]}
    assert {(0, 3), (1, 3)} < {*epochs[6:]}
    assert not BACKUPS.exists()


class Elsewhere(Executor):
    """An executor of which nobody knows where its workers are."""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backup": "epoch"}, ValueError, "`backup` must have a `path`"),
        ({"backup": "batch", "path": "s"}, ValueError, "be one of 'epoch'"),
        ({"backup": 0, "path": "s"}, ValueError, "integer from 1 on"),
        ({"backup": True, "path": "s"}, TypeError, "`backup` must"),
        ({"backup": 2.5, "path": "s"}, TypeError, "`backup` must"),
        (
            {"backup": 2, "path": "s", "executor": Elsewhere()},
            ValueError,
            "workers on this machine.*Elsewhere",
        ),
    ],
)
def test_misuse_is_refused(tmp_path, monkeypatch, options, error, message):
    """Before anything is trained or written."""
    monkeypatch.chdir(tmp_path)
    model = kr.ReproducibleModel([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(error, match=message):
        kr.run_trials(model, lambda _: 0.0, 1, progress=False, **options)
    assert not Path("s").exists()
