"""Rewind a Keras model to its start, bit for bit, and watch that it holds.

Importing this package loads neither Keras nor a backend: each public name is
resolved when it is first used, so that a program can still choose
`KERAS_BACKEND` and the like. Start with `ReproducibleModel` and `reset()`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_repro.arrays.checksums import (
        compute_checksum as compute_checksum,
    )
    from keras_repro.backends.random_streams import isolate_rng as isolate_rng
    from keras_repro.backends.random_streams import (
        seed_everything as seed_everything,
    )
    from keras_repro.diagnosis.diagnose import (
        assert_reproducible as assert_reproducible,
    )
    from keras_repro.diagnosis.diagnose import diagnose as diagnose
    from keras_repro.diagnosis.result import Diagnosis as Diagnosis
    from keras_repro.diagnosis.result import Verification as Verification
    from keras_repro.diagnosis.verify import verify as verify
    from keras_repro.environment.capture import (
        capture_environment as capture_environment,
    )
    from keras_repro.model.model import ReproducibleModel as ReproducibleModel
    from keras_repro.model.model import make_reproducible as make_reproducible
    from keras_repro.model.sample_rng import sample_rng as sample_rng
    from keras_repro.recording.callback import (
        ChecksumCallback as ChecksumCallback,
    )
    from keras_repro.recording.callback import DriftError as DriftError
    from keras_repro.recording.callback import DriftWarning as DriftWarning
    from keras_repro.resuming.backup import BackupAndRestore as BackupAndRestore
    from keras_repro.runs.comparison import Comparison as Comparison
    from keras_repro.runs.comparison import compare_runs as compare_runs
    from keras_repro.runs.comparison import group_runs as group_runs
    from keras_repro.runs.environments import (
        compare_environments as compare_environments,
    )
    from keras_repro.runs.file import load_run as load_run
    from keras_repro.runs.file import load_runs as load_runs
    from keras_repro.runs.run import Run as Run
    from keras_repro.studies.comparison import (
        TrialComparison as TrialComparison,
    )
    from keras_repro.studies.comparison import compare_trials as compare_trials
    from keras_repro.studies.files import load_trials as load_trials
    from keras_repro.studies.results import TrialResults as TrialResults
    from keras_repro.studies.stopping import HalfWidth as HalfWidth
    from keras_repro.studies.stopping import Settled as Settled
    from keras_repro.trials.run import TrialWarning as TrialWarning
    from keras_repro.trials.run import run_trials as run_trials
    from keras_repro.trials.spread import spread as spread

    __version__: str

# Where each public name lives.
_HOMES = {
    "BackupAndRestore": "resuming.backup",
    "ChecksumCallback": "recording.callback",
    "Comparison": "runs.comparison",
    "Diagnosis": "diagnosis.result",
    "DriftError": "recording.callback",
    "DriftWarning": "recording.callback",
    "HalfWidth": "studies.stopping",
    "ReproducibleModel": "model.model",
    "Run": "runs.run",
    "Settled": "studies.stopping",
    "TrialComparison": "studies.comparison",
    "TrialResults": "studies.results",
    "TrialWarning": "trials.run",
    "Verification": "diagnosis.result",
    "assert_reproducible": "diagnosis.diagnose",
    "capture_environment": "environment.capture",
    "compare_environments": "runs.environments",
    "compare_runs": "runs.comparison",
    "compare_trials": "studies.comparison",
    "compute_checksum": "arrays.checksums",
    "diagnose": "diagnosis.diagnose",
    "group_runs": "runs.comparison",
    "isolate_rng": "backends.random_streams",
    "load_ipython_extension": "integrations.notebook",
    "load_run": "runs.file",
    "load_runs": "runs.file",
    "load_trials": "studies.files",
    "make_reproducible": "model.model",
    "run_trials": "trials.run",
    "sample_rng": "model.sample_rng",
    "seed_everything": "backends.random_streams",
    "spread": "trials.spread",
    "unload_ipython_extension": "integrations.notebook",
    "verify": "diagnosis.verify",
}

__all__ = [
    "BackupAndRestore",
    "ChecksumCallback",
    "Comparison",
    "Diagnosis",
    "DriftError",
    "DriftWarning",
    "HalfWidth",
    "ReproducibleModel",
    "Run",
    "Settled",
    "TrialComparison",
    "TrialResults",
    "TrialWarning",
    "Verification",
    "__version__",
    "assert_reproducible",
    "capture_environment",
    "compare_environments",
    "compare_runs",
    "compare_trials",
    "compute_checksum",
    "diagnose",
    "group_runs",
    "isolate_rng",
    "load_run",
    "load_runs",
    "load_trials",
    "make_reproducible",
    "run_trials",
    "sample_rng",
    "seed_everything",
    "spread",
    "verify",
]


def __getattr__(name: str) -> object:
    """Load a public name, and what it needs, when it is first used."""
    if name == "__version__":
        return _find_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _find_version() -> str:
    """The version, looked up late: that takes longer than all the rest."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("keras-repro")
    except PackageNotFoundError:  # A checkout that was never installed.
        found = "0.0.0+unknown"
    globals()["__version__"] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
