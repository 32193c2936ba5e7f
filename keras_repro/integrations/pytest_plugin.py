"""For test suites: a training that must be repeatable is a test like others.

Loaded by pytest wherever the package is installed, so nothing here loads Keras
before a test needs it. `pytest -p no:keras_repro` turns all of it off.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from keras_repro.common.checks import MAX_SEED, read_seed, say_integers
from keras_repro.common.text import describe

_MARKER = (
    "reproducible(max_runs=24): call the test again and again, and fail where "
    "the training in it is not bitwise reproducible, with the cause"
)
_HOOK = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--keras-seed`."""
    group = parser.getgroup("keras-repro")
    group.addoption(
        "--keras-seed",
        type=_check_seed,
        metavar="N",
        help="seed Python, NumPy, Keras and its backend before each test",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def assert_reproducible() -> Callable[..., None]:
    """Fail if a training is not repeatable, with first mismatch and cause."""
    from keras_repro.diagnosis.diagnose import assert_reproducible

    return assert_reproducible


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed every generator before the test, where `--keras-seed` asks so."""
    seed = item.config.getoption("--keras-seed")
    if seed is not None:
        item.stash[_HOOK] = _seed(seed)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Seed no more what is imported from now on."""
    hook = item.stash.get(_HOOK, None)
    if hook is not None:
        hook.remove()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Have a marked test called by a diagnosis."""
    marker = pyfuncitem.get_closest_marker("reproducible")
    if marker is None:
        return None
    if marker.args or marker.kwargs.keys() - {"max_runs"}:
        given = describe([*marker.args, *marker.kwargs])
        pytest.fail(
            "`reproducible` must be given `max_runs`, by that name, or "
            f"nothing. Received: {given}. Write `reproducible(max_runs=24)`.",
            pytrace=False,
        )
    from keras_repro.diagnosis.diagnose import diagnose, say_failure

    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    def train() -> None:
        pyfuncitem.obj(**arguments)

    found = diagnose(train, fresh_process=False, **marker.kwargs)
    if not found.reproducible:
        pytest.fail(say_failure(found), pytrace=False)
    return True


def _seed(seed: int) -> Any:
    """Seed what is there now, and what the test imports as it comes."""
    import random

    from keras_repro.watching.import_hooks import ImportHook
    from keras_repro.watching.script import seed_actions, seed_keras

    # Its import draws, so that a test that does it first would differ.
    has_keras = importlib.util.find_spec("keras") is not None
    if has_keras:
        from keras_repro.backends.keras_internals import set_global_generator

        # One that an earlier test has used would go on where it stands.
        set_global_generator(None)
    random.seed(seed)
    hook = ImportHook(
        {
            **seed_actions(seed),
            "keras": lambda _: seed_keras(seed, deterministic=False),
        }
    )
    hook.install(also_loaded=True)
    return hook


def _check_seed(text: str) -> int:
    seed = read_seed(text)
    if seed is not None:
        return seed
    raise pytest.UsageError(
        f"--keras-seed must be {say_integers(0, MAX_SEED)}. "
        f"Received: {describe(text)}."
    )
