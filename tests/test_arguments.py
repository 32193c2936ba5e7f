"""No public function fails in a bare error, whatever it is given."""

import inspect
from pathlib import Path

import pytest

import keras_repro as kr
from keras_repro.studies.files import StudyFolder
from keras_repro.studies.identity import Fingerprint, StudyIdentity

from .builders import (
    make_model,
    make_record,
    make_results,
    make_run,
    save_run,
)
from .odd_values import Accepted, find_calls, try_all

FREE = ("arrays", "environment", "runs", "studies")
# Named for annotations; functions make them, and their methods are tried there.
RESULTS = {"Comparison", "Diagnosis", "Run", "TrialComparison", "Verification"}


def find_subjects(needs_keras):
    """The public functions and classes; errors are made by us alone."""
    found = {}
    for name in kr.__all__:
        folder = kr._HOMES.get(name, "").partition(".")[0]
        is_subject = folder and name not in RESULTS
        if not is_subject or (folder not in FREE) != needs_keras:
            continue
        one = getattr(kr, name)
        if not (inspect.isclass(one) and issubclass(one, BaseException)):
            found[name] = one
    return found


def check(calls, passed_on=()):
    """Try all; say what is wrong, and of how many calls."""
    tried = [*try_all(calls, passed_on)]
    wrong = [f"{one.where} {one.wrong}" for one in tried if one.wrong]
    assert not wrong, f"{len(wrong)} of {len(tried)}:\n" + "\n".join(wrong)
    return len(tried)


# --- without Keras -----------------------------------------------------------


@pytest.mark.no_backend
def test_what_needs_no_keras(tmp_path, monkeypatch):
    """Files, runs and studies: a result, or an error that tells what to do."""
    monkeypatch.chdir(tmp_path)
    runs = [
        make_run(make_record(one), make_record(one, 1, 0), run_id=one)
        for one in ("r1", "r2")
    ]
    for run in runs:
        save_run(run, "runs.jsonl")
    recorded = kr.capture_environment()
    right = {
        "HalfWidth": lambda: {"half_width": 0.5},
        "HalfWidth.is_met": lambda: {"scores": {"rmse": [1.0, 2.0]}},
        "Settled": lambda: {"baseline": make_results()},
        "Settled.check": lambda: {"seeds": [0, 1], "vary": "all"},
        "Settled.is_met": lambda: {
            "scores": {"rmse": [1.0, 2.0, 3.0]},
            "seeds": [0, 1, 2],
        },
        "TrialResults": lambda: {"seeds": range(3), "scores": {"a": [1, 2, 4]}},
        "TrialResults.rank": lambda: {"seed": 1},
        "TrialResults.select": lambda: {"seeds": [0, 1]},
        "TrialResults.to_csv": lambda: {"path": "trials.csv"},
        "Comparison.to_html": lambda: {"path": "runs.html"},
        "EnvironmentComparison.to_html": lambda: {"path": "found.html"},
        "RunGroups.to_html": lambda: {"path": "runs.html"},
        "TrialComparison.to_html": lambda: {"path": "trials.html"},
        "TrialResults.to_html": lambda: {"path": "trials.html"},
        "TrialSummary.to_html": lambda: {"path": "trials.html"},
        "compare_environments": lambda: {"a": recorded, "b": recorded},
        "compare_runs": lambda: {"a": runs[0], "b": runs[1]},
        "compare_trials": lambda: {
            "a": make_results(),
            "b": make_results([1.0, 2.0, 3.0, 4.0, 5.0]),
        },
        "compute_checksum": lambda: {"obj": [1.0]},
        "group_runs": lambda: {"runs": runs},
        "load_run": lambda: {"path": "runs.jsonl"},
        "load_runs": lambda: {"path": "runs.jsonl"},
        "load_trials": lambda: {"path": "study"},
    }
    identity = StudyIdentity(train=Fingerprint(code={}, data={}))
    StudyFolder(Path("study"), identity, {}).close()
    check(find_calls(find_subjects(needs_keras=False), right))


# --- with a model ------------------------------------------------------------


def make_layers():
    """The layers of a small model."""
    import keras

    return [keras.Input((2,)), keras.layers.Dense(1)]


def train(model=None):
    """Return a score, and train nothing."""
    return 1.0


def accept(*args, **kwargs):
    """What stands in for the work that begins when all arguments are right."""
    raise Accepted


class KerasHooks:
    """Methods that Keras looks for when it saves or loads a model."""

    save_assets = load_assets = None


# What Keras is given as it comes.
KERAS_CHECKS = ("ReproducibleModel(args)", "make_reproducible(model)")


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.requires_backend
def test_what_needs_a_model(tmp_path, monkeypatch, no_global_seed):
    """Models, callbacks, studies and diagnoses, with all work left out."""
    import keras

    from keras_repro.backends.active import get_backend
    from keras_repro.backends.doors import KerasDoors

    monkeypatch.chdir(tmp_path)
    kr.ReproducibleModel(make_layers()).save_initial_state("start.h5")
    monkeypatch.setattr(type(get_backend()), "enable_determinism", lambda _: "")
    Path("train.py").touch()
    for place in (
        "diagnosis.diagnose.Climb",
        "diagnosis.verify.verify_in_folder",
        "trials.run.TrialBar",
    ):
        monkeypatch.setattr(f"keras_repro.{place}", accept)
    model = make_model(shape=(2,))
    right = {
        "ReproducibleModel": lambda: {"*": [make_layers()]},
        "ReproducibleModel.save_initial_state": lambda: {"path": "new.h5"},
        "ReproducibleModel.load_initial_state": lambda: {"path": "start.h5"},
        "ReproducibleModel.track": lambda: {"*": [keras.optimizers.SGD()]},
        "BackupAndRestore": lambda: {"backup_dir": "backups"},
        "ChecksumCallback.note_data": lambda: {"call": {"x": None}},
        "ChecksumCallback.set_state": lambda: {
            "state": kr.ChecksumCallback().get_state()
        },
        "ChecksumCallback.on_train_abort": lambda: {"exception": OSError()},
        "assert_reproducible": lambda: {"train": train},
        "diagnose": lambda: {"train": train},
        "make_reproducible": lambda: {"model": keras.Sequential(make_layers())},
        "run_trials": lambda: {"model": model, "train": train, "seeds": 1},
        "spread": lambda: {"model": model, "train": train, "seeds": 3},
        "sample_rng": lambda: {"index": 0, "seed": 1, "epoch": 2},
        "seed_everything": lambda: {"seed": 1},
        "verify": lambda: {"script": "train.py"},
    }
    theirs = keras.Sequential, keras.callbacks.Callback, KerasDoors, KerasHooks
    subjects = find_subjects(needs_keras=True)
    own = {"sample_rng": subjects.pop("sample_rng")}
    check(find_calls(subjects, right, theirs), KERAS_CHECKS)
    with model.trial(0):  # What gives a seed and an epoch that are left out.
        check(find_calls(own, right))


# --- twins -------------------------------------------------------------------


class Unchecked:
    """What is public, and takes whatever comes."""

    def wait(self, seconds: float) -> float:
        return seconds


Unchecked.__module__ = "keras_repro.twin"


def make_unchecked(number: int = 1, name: str | None = None) -> Unchecked:
    return Unchecked()


@pytest.mark.no_backend
def test_what_checks_nothing_is_found():
    """A twin: a new argument, and a new method of a result, are tried too."""
    right = {"Unchecked.wait": lambda: {"seconds": 1.0}}
    calls = find_calls({"make_unchecked": make_unchecked}, right)
    with pytest.raises(AssertionError) as caught:
        check(calls)
    for where in (
        "make_unchecked(number: True) accepted",
        "make_unchecked(name: empty text) accepted",
        "Unchecked.wait(seconds: nan) accepted",
    ):
        assert where in str(caught.value)
