"""One backend per process, as Keras has it; none at all is a case too."""

import importlib.util
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections import Counter
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
from .checkout import run_command

ROOT = Path(__file__).resolve().parents[1]
BACKEND = os.environ["KERAS_BACKEND"]


def _find_backend():
    """Whether Keras and the chosen backend are installed."""
    names = ("keras", BACKEND)
    return all(importlib.util.find_spec(name) for name in names)


HAS_BACKEND = _find_backend()


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("free", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _find_free_folders():
    """Folders of the package, and of its tests, that need no Keras."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    names = next(
        one["source_modules"]
        for one in contracts
        if "keras" in one.get("forbidden_modules", ())
    )
    return {name.removeprefix("keras_repro.") for name in names}


FREE_FOLDERS = _find_free_folders()


def needs_backend(item):
    """Whether a test can come out otherwise on another backend."""
    if item.get_closest_marker("requires_backend"):
        return True
    if item.get_closest_marker("no_backend"):
        return False
    folder = item.path.relative_to(ROOT).parts[1]
    module = getattr(item, "module", None)
    return folder not in FREE_FOLDERS or hasattr(module, "keras")


def pytest_addoption(parser):
    """`--needs-backend`, for all runs of the tests but one."""
    parser.addoption(
        "--needs-backend",
        action="store_true",
        help="leave out the tests that come out alike on every backend",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark the slow ones of many cases; leave out what needs to run once."""
    cases = Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled is None:
            continue
        function = item.nodeid.partition("[")[0]
        if cases[function] % sampled.args[0]:
            item.add_marker("slow")
        cases[function] += 1
    if config.option.needs_backend:
        free = [item for item in items if not needs_backend(item)]
        config.hook.pytest_deselected(items=free)
        items[:] = [item for item in items if needs_backend(item)]


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
