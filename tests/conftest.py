"""One backend per process, as Keras has it; none at all is a case too."""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# On busy cores threads that spin while they wait for each other take minutes
# for what takes seconds. It changes neither their number nor any result.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import settings

# Fixtures, for all tests.
from .browsing import browse, measure  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
BACKEND = os.environ["KERAS_BACKEND"]


def _find_backend():
    """Whether Keras and the chosen backend are installed."""
    names = ("keras", BACKEND)
    return all(importlib.util.find_spec(name) for name in names)


HAS_BACKEND = _find_backend()
# The modules that need Keras, and the tests of what does. They are not even
# collected where there is none.
NEEDS_KERAS = {
    "_backends",
    "attributes",
    "callbacks",
    "bridges",
    "cases",
    "climbing",
    "conformance",
    "data",
    "diagnosis",
    "drawing",
    "drop_in",
    "environment",
    "examples",
    "fresh_calls",
    "fresh_process",
    "function_runs",
    "headers",
    "models",
    "pickling",
    "planted_drift",
    "process_settings",
    "reading",
    "recording",
    "same_elsewhere",
    "scripts",
    "seeding",
    "state",
    "training",
    "trial",
    "trial_checks",
    "trial_engines",
    "trial_workers",
    "trials",
    "trials_killed",
    "trials_spread",
    "variables",
    "verify",
    "watched_scripts",
}


def _needs_keras(path):
    """Whether a module, or a test of it, cannot be imported without Keras."""
    return path.stem.removeprefix("test_") in NEEDS_KERAS


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("free", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config):
    """Leave out what needs Keras if there is none; give Matplotlib a folder."""
    if not HAS_BACKEND:
        config.option.ignore = [
            *(config.option.ignore or []),
            *map(str, filter(_needs_keras, ROOT.glob("keras_repro/*.py"))),
            *map(str, filter(_needs_keras, ROOT.glob("tests/**/*.py"))),
        ]
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="matplotlib-")
        os.environ["MPLCONFIGDIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_runtest_setup(item):
    """Skip a test that is marked for other backends, with the reason."""
    for marker in item.iter_markers("requires_backend"):
        if not HAS_BACKEND:
            pytest.skip(f"{BACKEND} or Keras is not installed")
        if marker.args and BACKEND not in marker.args:
            pytest.skip(f"needs {' or '.join(marker.args)}, not {BACKEND}")


@pytest.fixture
def run_python(tmp_path):
    """Run Python in a process of its own, on this checkout; it must succeed."""
    import subprocess

    def run(*args, cwd=tmp_path, **environment):
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        result = subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    return run
