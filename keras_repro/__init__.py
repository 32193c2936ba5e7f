"""Rewind a Keras model to its start, bit for bit, and watch that it holds.

Importing this package loads neither Keras nor a backend: each public name is
resolved when it is first used, so that a program can still choose
`KERAS_BACKEND` and the like. Start with `ReproducibleModel` and `reset()`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_repro.callbacks import ChecksumCallback as ChecksumCallback
    from keras_repro.callbacks import DriftError as DriftError
    from keras_repro.callbacks import DriftWarning as DriftWarning
    from keras_repro.checksums import compute_checksum as compute_checksum
    from keras_repro.comparison import compare_runs as compare_runs
    from keras_repro.comparison import group_runs as group_runs
    from keras_repro.diagnosis import assert_reproducible as assert_reproducible
    from keras_repro.diagnosis import diagnose as diagnose
    from keras_repro.environment import (
        capture_environment as capture_environment,
    )
    from keras_repro.models import ReproducibleModel as ReproducibleModel
    from keras_repro.models import make_reproducible as make_reproducible
    from keras_repro.run_files import load_run as load_run
    from keras_repro.run_files import load_runs as load_runs
    from keras_repro.seeding import isolate_rng as isolate_rng
    from keras_repro.seeding import seed_everything as seed_everything
    from keras_repro.stopping import HalfWidth as HalfWidth
    from keras_repro.trial_comparisons import compare_trials as compare_trials
    from keras_repro.trial_files import load_trials as load_trials
    from keras_repro.trial_results import TrialResults as TrialResults
    from keras_repro.trials import TrialWarning as TrialWarning
    from keras_repro.trials import run_trials as run_trials

    __version__: str

# Where each public name lives.
_HOMES = {
    "ChecksumCallback": "callbacks",
    "DriftError": "callbacks",
    "DriftWarning": "callbacks",
    "HalfWidth": "stopping",
    "ReproducibleModel": "models",
    "TrialResults": "trial_results",
    "TrialWarning": "trials",
    "assert_reproducible": "diagnosis",
    "capture_environment": "environment",
    "compare_runs": "comparison",
    "compare_trials": "trial_comparisons",
    "compute_checksum": "checksums",
    "diagnose": "diagnosis",
    "group_runs": "comparison",
    "isolate_rng": "seeding",
    "load_ipython_extension": "ipython_extension",
    "load_run": "run_files",
    "load_runs": "run_files",
    "load_trials": "trial_files",
    "make_reproducible": "models",
    "run_trials": "trials",
    "seed_everything": "seeding",
    "unload_ipython_extension": "ipython_extension",
}

__all__ = [
    "ChecksumCallback",
    "DriftError",
    "DriftWarning",
    "HalfWidth",
    "ReproducibleModel",
    "TrialResults",
    "TrialWarning",
    "__version__",
    "assert_reproducible",
    "capture_environment",
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
    "seed_everything",
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
