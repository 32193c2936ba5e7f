"""One backend per process, as Keras has it; none at all is a case too."""

import ast
import functools
import gc
import importlib.util
import os
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
settings.register_profile("quick", settings.get_profile("ci"), max_examples=25)
settings.register_profile("free", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


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
# Examples of files that load no Keras, of scripts that do.
STARTS_KERAS = {"keras_repro.diagnosis.verify.verify"}


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
        if item.name in STARTS_KERAS:
            item.add_marker("requires_backend")
            item.add_marker("alike")
            item.add_marker("slow")
        skip_on_other_backends(item)
        sampled = item.get_closest_marker("sampled")
        if sampled is None:
            continue
        function = item.nodeid.partition("[")[0]
        if cases[function] % sampled.args[0]:
            item.add_marker("slow")
            if sampled.kwargs.get("alike"):  # Of all, one backend is enough.
                item.add_marker("alike")
        cases[function] += 1
    if config.option.needs_backend:
        parted = {True: [], False: []}
        for item in items:
            parted[needs_backend(item)].append(item)
        config.hook.pytest_deselected(items=parted[False])
        items[:] = parted[True]


def skip_on_other_backends(item):
    """Skip what is marked for other backends; examples in the package too."""
    for marker in item.iter_markers("requires_backend"):
        if not HAS_BACKEND:
            reason = f"{BACKEND} or Keras is not installed"
            item.add_marker(pytest.mark.skip(reason=reason))
        elif marker.args and BACKEND not in marker.args:
            reason = f"needs {' or '.join(marker.args)}, not {BACKEND}"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """Spare the collector what was imported: it took half of the time."""
    gc.collect()
    gc.freeze()


FRAMEWORKS = "keras tensorflow jax torch".split()  # noqa: SIM905 - packages


@functools.cache
def loads_keras(path):
    """Whether to import a file of ours loads Keras, by what it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = path.relative_to(ROOT).parts[: -node.level or None]
            within = folder if node.level else ()
            module = ".".join([*within, *filter(None, [node.module])])
            names |= {f"{module}.{one.name}" for one in node.names}
            names.add(module)
    files = [ROOT / f"{name.replace('.', '/')}.py" for name in names]
    return any(name.partition(".")[0] in FRAMEWORKS for name in names) or any(
        loads_keras(file) for file in files if file.is_file()
    )


def pytest_configure(config):
    """Leave out what needs Keras if there is none; give libraries folders."""
    if not HAS_BACKEND:
        files = [*ROOT.glob("keras_repro/**/*.py"), *ROOT.glob("tests/**/*.py")]
        ignored = map(str, filter(loads_keras, files))
        config.option.ignore = [*(config.option.ignore or []), *ignored]
    make_folder(config, "MPLCONFIGDIR")
    # JAX compiles equal programs once, in all processes; each is still traced.
    make_folder(config, "JAX_COMPILATION_CACHE_DIR")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def make_folder(config, variable):
    """A folder for what a library keeps, until the tests have ended."""
    if variable not in os.environ:
        folder = os.environ[variable] = tempfile.mkdtemp(prefix="tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture
def run_python(tmp_path):
    """Run Python in a process of its own, on this checkout; it must succeed."""

    def run(*args, cwd=tmp_path, **environment):
        return run_command(sys.executable, *args, cwd=cwd, **environment)

    return run


@pytest.fixture
def no_global_seed():
    """A test begins without a global seed, and leaves none behind."""
    import keras_repro as kr
    from keras_repro.backends.keras_internals import _global_state

    state = _global_state()
    before = state.get_global_attribute("global_random_seed")
    state.set_global_attribute("global_random_seed", None)
    with kr.isolate_rng():
        yield
    state.set_global_attribute("global_random_seed", before)
