"""Files that the version before wrote load, and say what they said there.

`data/before/make.py` wrote them, with `expected.json`, on JAX, when all modules
lay in one folder.
"""

import importlib.util
import json
import shutil
import sys
import warnings
from pathlib import Path

import pytest

import keras_repro as kr

DATA = Path(__file__).resolve().parent / "data" / "before"
EXPECTED = json.loads((DATA / "expected.json").read_text("utf-8"))


def write_numbers(columns):
    """Numbers as text that also holds NaN and infinities, by name."""
    return {
        name: list(map(repr, map(float, one))) for name, one in columns.items()
    }


def check_run(run, expected):
    """A run is the one that `expected` describes."""
    assert (run.run_id, str(run)) == (expected["run_id"], expected["text"])
    header = run.header
    assert (header.seed, header.name) == (expected["seed"], expected["name"])
    assert header.every == expected["every"]
    assert (run.end and run.end.status) == expected["status"]
    assert (run.end and run.end.exception) == expected["exception"]
    assert [one.moment for one in run.records] == expected["moments"]
    assert [one.model for one in run.records] == expected["checksums"]
    assert write_numbers(run.history()) == expected["history"]
    assert run.torn == expected["torn"]


# --- runs --------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs():
    return kr.load_runs(DATA / "runs.jsonl")


@pytest.mark.parametrize("place", range(len(EXPECTED["runs"])))
def test_runs_load(runs, place):
    """Each run has the records, the metrics and the end that were written."""
    assert len(runs) == len(EXPECTED["runs"])
    expected = EXPECTED["runs"][place]
    check_run(runs[place], expected)
    run_id = expected["run_id"]
    assert kr.load_run(DATA / "runs.jsonl", run_id=run_id[:8]) == runs[place]


def test_a_run_killed_in_mid_line_loads():
    """A torn line is dropped with a warning, and the lines before it count."""
    with pytest.warns(UserWarning, match=r"1 half-written line\(s\)"):
        run = kr.load_run(DATA / "torn.jsonl")
    check_run(run, EXPECTED["torn"])
    assert run.torn


@pytest.mark.parametrize("place", range(len(EXPECTED["comparisons"])))
def test_comparisons_say_the_same(runs, place):
    """Two runs compare as they did, word for word."""
    expected = EXPECTED["comparisons"][place]
    a, b = runs[expected["a"]], runs[expected["b"]]
    found = kr.compare_runs(a, b, expected["rtol"], expected["atol"])
    assert found.status == expected["status"]
    assert str(found).splitlines() == expected["text"]


def test_groups_are_the_same(runs):
    """Runs are sorted into the groups that they were sorted into."""
    found = kr.group_runs(runs[:5])
    assert str(found).splitlines() == EXPECTED["groups"]


def test_snapshots_measure_a_mismatch(runs, tmp_path):
    """With the folder of snapshots a mismatch is counted in units."""
    found = str(kr.compare_runs(runs[1], runs[4]))
    assert "36 ULP" in found
    shutil.copy(DATA / "runs.jsonl", tmp_path)
    alone = kr.load_runs(tmp_path / "runs.jsonl")
    # Without the folder there are only norms.
    assert "ULP" not in str(kr.compare_runs(alone[1], alone[4]))


@pytest.mark.requires_backend
def test_a_file_of_runs_is_continued(study, tmp_path):
    """A new run is appended, and all that was there stays as it was."""
    path = tmp_path / "runs.jsonl"
    before = path.read_bytes()
    model = study.build()
    model.fit(
        study.X, study.Y, verbose=0, callbacks=[kr.ChecksumCallback(path)]
    )
    assert path.read_bytes().startswith(before)
    *old, new = kr.load_runs(path)
    assert new.finished
    assert len(old) == len(EXPECTED["runs"])
    for run, expected in zip(old, EXPECTED["runs"], strict=True):
        check_run(run, expected)


# --- studies -----------------------------------------------------------------


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The script of the studies; copies of all files are in `tmp_path`."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    spec = importlib.util.spec_from_file_location(
        "study", tmp_path / "study.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study", module)
    spec.loader.exec_module(module)
    return module


def run_again(*args, **options):
    """Run a study from its folder, or skip where other versions are installed.

    A study is one of one release of Python, of Keras and of the backend: with
    another one it must be refused.
    """
    with warnings.catch_warnings():
        # Of another processor, say, which is no reason to refuse.
        warnings.simplefilter("ignore", kr.TrialWarning)
        try:
            return kr.run_trials(*args, progress=False, **options)
        except ValueError as error:
            if "`versions." in str(error) or "Python was" in str(error):
                pytest.skip(f"other versions: {error}")
            raise


def check_study(results, expected):
    """The results are those that `expected` describes."""
    assert list(results.seeds) == expected["seeds"]
    assert write_numbers(results.scores) == expected["scores"]
    assert list(results.checksums) == expected["checksums"]
    failures = [[one.seed, one.error] for one in results.failures]
    assert failures == expected["failures"]
    run_ids = [[run.run_id for run in one] for one in results.runs]
    assert run_ids == expected["runs"]


@pytest.mark.parametrize("name", EXPECTED["studies"])
def test_studies_load(name):
    """Scores, checksums, failures and words are the same.

    The interval in these is today's, which is Student's.
    """
    results = kr.load_trials(DATA / name)
    expected = EXPECTED["studies"][name]
    check_study(results, expected)
    assert results.vary == expected["vary"]
    assert list(results.notes) == expected["notes"]
    assert str(results).splitlines() == expected["text"]


@pytest.mark.requires_backend("jax")
def test_a_study_goes_on_where_it_was(study, tmp_path):
    """Only the seed that is new is trained; the others are as on disk."""
    path = tmp_path / "plain"
    file = path / "trials.jsonl"
    before = file.read_bytes()
    results = run_again(study.build(), study.train, 5, path=path)
    assert study.CALLS == [4]
    assert results.seeds == (0, 1, 2, 3, 4)
    check_study(results.select(range(4)), EXPECTED["studies"]["plain"])
    assert file.read_bytes().startswith(before)
    loaded = kr.load_trials(path)
    assert loaded.checksums == results.checksums
    assert loaded.runs == results.runs


@pytest.mark.requires_backend("jax")
def test_a_finished_study_trains_nothing(study, tmp_path):
    """With the same seeds as before it only gives its results."""
    path = tmp_path / "plain"
    results = run_again(study.build(), study.train, 4, path=path)
    assert study.CALLS == []
    check_study(results, EXPECTED["studies"]["plain"])


@pytest.mark.requires_backend("jax")
def test_failed_and_killed_trials_are_tried_again(study, tmp_path):
    """The trial that raised and the one with a torn line, and no other."""
    results = run_again(
        study.build_own,
        study.train_oddly,
        [3, 1, 4],
        vary="order",
        path=tmp_path / "odd",
    )
    assert study.CALLS == [1, 4]
    assert results.seeds == (3, 4)
    expected = EXPECTED["studies"]["odd"]
    assert list(results.checksums[:1]) == expected["checksums"]
    failures = [[one.seed, one.error] for one in results.failures]
    assert failures == expected["failures"]


@pytest.mark.requires_backend("jax")
def test_a_study_that_changed_is_refused(study, tmp_path):
    """The twin: with another setting nothing is trained and nothing written."""
    path = tmp_path / "plain"
    study.SETTINGS["scale"] = 0.5
    with pytest.raises(ValueError, match=r"scale.*was 1\.0 and is 0\.5"):
        kr.run_trials(study.build(), study.train, 5, path=path)
    assert study.CALLS == []
    for one in (DATA / "plain").iterdir():
        assert (path / one.name).read_bytes() == one.read_bytes()


@pytest.mark.requires_backend("tensorflow", "torch")
def test_a_study_of_another_backend_is_refused(study, tmp_path):
    """What JAX computed is not continued by another backend."""
    with pytest.raises(ValueError, match="`backend` was jax and is"):
        kr.run_trials(study.build(), study.train, 5, path=tmp_path / "plain")
    assert study.CALLS == []


# --- models ------------------------------------------------------------------
# A Dropout's seed is of another dtype on another backend, so that a start with
# one is loaded where it was saved.


@pytest.mark.requires_backend("jax")
def test_an_initial_state_loads(study):
    """Another model of that shape takes it up, and goes back to it."""
    expected = EXPECTED["start"]
    model = study.build()
    model.reset(seed=expected["seed"] + 1)
    assert kr.compute_checksum(model) != expected["checksum"]
    model.load_initial_state(DATA / "start.h5")
    assert kr.compute_checksum(model) == expected["checksum"]
    assert model.initial_state.checksum == expected["start"]
    assert model.seed == expected["seed"]
    model.fit(study.X, study.Y, verbose=0)
    assert kr.compute_checksum(model) != expected["checksum"]
    model.reset()
    assert kr.compute_checksum(model) == expected["checksum"]


@pytest.mark.requires_backend("jax")
def test_a_saved_model_loads():
    """It is what it was when it was saved, and goes back to its start."""
    import keras

    expected = EXPECTED["model"]
    known = kr.ReproducibleModel  # Looked up, it registers its kinds.
    model = keras.saving.load_model(DATA / "model.keras")
    assert isinstance(model, known)
    assert type(model).__name__ == expected["class"]
    assert model.seed == expected["seed"]
    assert kr.compute_checksum(model) == expected["checksum"]
    model.reset()
    assert kr.compute_checksum(model) == expected["start"]
