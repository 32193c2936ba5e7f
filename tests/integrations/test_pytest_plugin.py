"""The pytest plugin, in a pytest of its own."""

import sys

import pytest

from tests.checkout import ROOT, run_command

pytestmark = pytest.mark.no_backend

IN_CI = ("CI", "BUILD_NUMBER")
TESTS = """
import keras
import numpy as np
import pytest

X = np.linspace(-1, 1, 64).reshape(16, 4).astype("float32")


def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def train():
    keras.utils.set_random_seed(1)
    build().fit(X, X[:, :1], verbose=0)


def careless():
    build().fit(X, X[:, :1], verbose=0)


def test_fixture(assert_reproducible):
    assert_reproducible(train)


def test_fixture_fails(assert_reproducible):
    assert_reproducible(careless)


@pytest.mark.reproducible
def test_marker(tmp_path):
    assert tmp_path.exists()
    train()


@pytest.mark.reproducible(max_runs=6)
def test_marker_fails():
    careless()


@pytest.mark.reproducible
def test_own_assertion():
    train()
    assert X is None, "mine"


class TestClass:
    @pytest.mark.reproducible
    @pytest.mark.parametrize("number", [1, 2])
    def test_method(self, number):
        train()
        assert number in (1, 2)
"""
SEEDED = """
import random


def draw():
    import keras
    import numpy as np

    layer = keras.layers.Dense(1)
    layer.build((None, 3))
    return [
        random.random(),
        float(np.random.rand()),
        float(keras.random.uniform((1,))[0]),
        float(layer.get_weights()[0][0, 0]),
    ]


def test_one():
    print("drawn", draw())


def test_other():
    print("drawn", draw())
"""


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest on a file, with the plugin as an installed one is found."""

    def run(text, *options, plugin=True):
        (tmp_path / "test_it.py").write_text(text)
        named = (
            ["-p", "keras_repro.integrations.pytest_plugin"] if plugin else []
        )
        return run_command(
            *(sys.executable, "-m", "pytest", "-q", *named, *options),
            *("-p", "no:cacheprovider", "test_it.py"),
            cwd=tmp_path,
            code=None,
            without=IN_CI,  # There pytest says everything twice.
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        ).stdout

    return run


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.requires_backend
def test_fixture_and_marker(run_pytest):
    """Good trainings pass; the others fail with mismatch, line and cause."""
    output = run_pytest(TESTS)
    assert "3 failed, 4 passed" in output
    for name in ("test_fixture_fails", "test_marker_fails"):
        assert f"FAILED test_it.py::{name}" in output
    assert output.count("The training must be reproducible.") >= 2
    assert output.count("First mismatch: call 1, fit at") == 2
    line = TESTS.splitlines().index(
        "    model = keras.Sequential([keras.Input((4,)), "
        "keras.layers.Dense(1)])"
    )
    assert output.count(f"unseeded at test_it.py:{line + 1} (keras)") == 2
    assert "AssertionError: mine" in output
    # What failed is shown at the test's own line, not inside this package.
    assert "def diagnose" not in output


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_keras_seed(run_pytest):
    """With `--keras-seed` each test draws the same; another seed, others."""

    def drawn(*options):
        output = run_pytest(SEEDED, "-s", *options)
        assert "2 passed" in output, output
        lines = [line.lstrip(".") for line in output.splitlines()]
        return [line for line in lines if line.startswith("drawn")]

    first, second = drawn("--keras-seed", "3")
    assert first == second
    assert drawn("--keras-seed", "3") == [first, second]
    assert drawn("--keras-seed", "4")[0] != first
    one, other = drawn()
    assert one != other


def test_wrong_seed(run_pytest):
    """A seed that is none is a wrong option."""
    for wrong in ("x", "-1", "4294967296"):
        output = run_pytest("def test(): pass\n", "--keras-seed", wrong)
        assert "1 passed" not in output


def test_wrong_marker(run_pytest):
    """What the marker does not know is refused, and not passed over."""
    text = (
        "import pytest\n"
        "@pytest.mark.reproducible(6)\n"
        "def test_number(): pass\n"
        "@pytest.mark.reproducible(runs=6)\n"
        "def test_name(): pass\n"
    )
    output = run_pytest(text)
    assert "2 failed" in output
    assert "`max_runs`, by that name, or nothing. Received: [6]. W" in output
    assert "Received: ['runs']. Write" in output


def test_without_the_plugin(run_pytest):
    """Without it there is no fixture, no marker, no option, no import."""
    text = (
        "import sys\n"
        "def test_nothing():\n"
        "    assert 'keras_repro' not in sys.modules\n"
        "def test_fixture(assert_reproducible):\n"
        "    pass\n"
    )
    output = run_pytest(text, plugin=False)
    assert "1 passed, 1 error" in output
    assert "fixture 'assert_reproducible' not found" in output
    assert "reproducible(" not in run_pytest(text, "--markers", plugin=False)
    assert "keras-seed" not in run_pytest(text, "--help", plugin=False)
    assert "keras-seed" in run_pytest(text, "--help")


@pytest.mark.alike
@pytest.mark.requires_backend
def test_the_plugin_loads_nothing(run_pytest):
    """A suite that does not use it pays nothing: Keras is not loaded."""
    text = (
        "import sys\n"
        "def test_nothing():\n"
        "    loaded = {'keras', 'numpy', 'tensorflow', 'torch', 'jax'}\n"
        "    assert not loaded & set(sys.modules)\n"
    )
    assert "1 passed" in run_pytest(text)


def test_it_is_found_by_its_name():
    """An installed package offers the plugin as `keras_repro`."""
    from importlib.metadata import entry_points

    found = entry_points(group="pytest11", name="keras_repro")
    assert [one.value for one in found][:1] in (
        [],
        ["keras_repro.integrations.pytest_plugin"],
    )
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'keras_repro = "keras_repro.integrations.pytest_plugin"' in text
