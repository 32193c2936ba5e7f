"""One backend per process, as Keras has it; none at all is a case too."""

import importlib.util
import os
import re
import shutil
import sys
import tempfile

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
from .checkout import run_command

BACKEND = os.environ["KERAS_BACKEND"]


def _find_backend():
    """Whether Keras and the chosen backend are installed."""
    names = ("keras", BACKEND)
    return all(importlib.util.find_spec(name) for name in names)


HAS_BACKEND = _find_backend()


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("free", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config):
    """Give Matplotlib a folder of its own."""
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="matplotlib-")
        os.environ["MPLCONFIGDIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Leave out, and say so, the modules that cannot be imported here."""
    report = yield
    missing = f"No module named '({'|'.join(('keras', BACKEND))})"
    if (
        not HAS_BACKEND
        and report.failed
        and isinstance(collector, pytest.Module)
        and re.search(missing, str(report.longrepr))
    ):
        reason = f"Skipped: needs Keras and {BACKEND}"
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), None, reason)
    return report


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

    def run(*args, cwd=tmp_path, **environment):
        return run_command(sys.executable, *args, cwd=cwd, **environment)

    return run
