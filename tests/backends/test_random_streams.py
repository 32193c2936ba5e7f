"""Global seeding, and blocks that leave every generator as it was."""

import json
import os
import random
import types
import warnings

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends import random_streams
from keras_repro.backends.active import get_backend
from keras_repro.backends.keras_internals import (
    _global_state,
    get_global_generator,
    get_global_seed,
)
from keras_repro.backends.tensorflow import rewind_kernels
from keras_repro.common.checks import check_seed
from keras_repro.environment.determinism import XLA_FLAGS

BACKEND = keras.backend.backend()
# `sys` of an interpreter that salts its hashes, and of one that does not.
SALTED, UNSALTED = (
    types.SimpleNamespace(flags=types.SimpleNamespace(hash_randomization=on))
    for on in (1, 0)
)
# NumPy integers are welcome too; a bool, a float and a string are not.
WRONG_TYPES = [True, 1.0, "1", None, [1], np.array([1, 2])]
WRONG_VALUES = [-1, 2**32, np.int64(-5)]


def program_seed():
    """Where Keras keeps the seed of the program."""
    return _global_state().get_global_attribute("global_random_seed")


def switch_determinism_off():
    """What no backend offers as a public function on TensorFlow."""
    if BACKEND == "tensorflow":
        from tensorflow.python.framework import config

        config.disable_op_determinism()
    if BACKEND == "torch":
        import torch

        torch.use_deterministic_algorithms(mode=False)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Put every switch and generator back after each test."""
    for name in ("XLA_FLAGS", "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(random_streams, "_already_said", set())
    deterministic = get_backend().is_deterministic()
    before = program_seed()
    with kr.isolate_rng():
        yield
    state = _global_state()
    state.set_global_attribute("global_random_seed", before)
    if not deterministic:
        switch_determinism_off()


def draw_python():
    return random.random()


def draw_numpy():
    return float(np.random.random())


def draw_keras():
    return keras.ops.convert_to_numpy(keras.random.uniform((2,))).tolist()


def draw_backend():
    """One number from the backend's own global generator."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return float(tf.random.uniform(()))
    if BACKEND == "torch":
        import torch

        return float(torch.rand(()))
    pytest.skip("JAX has no global generator")


def draw_layer():
    """The start of a layer whose initializer nobody seeded."""
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    return keras.ops.convert_to_numpy(layer.kernel).tolist()


DRAWS = [draw_python, draw_numpy, draw_keras, draw_backend, draw_layer]
each_draw = pytest.mark.parametrize("draw", DRAWS, ids=lambda f: f.__name__)


# --- seed_everything ---------------------------------------------------------


@each_draw
def test_seed_everything_decides_each_draw(draw):
    """The same seed gives the same draws, another seed others."""
    drawn = []
    for seed in (3, 3, 4):
        kr.seed_everything(seed, deterministic=False)
        drawn.append([draw(), draw()])
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0][0] != drawn[0][1] or draw is draw_layer


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, np.int64(7), np.uint32(7)])
def test_seed_everything_returns_the_seed(seed):
    """Every seed in range is taken, and given back as an `int` to log."""
    returned = kr.seed_everything(seed, deterministic=False)
    assert returned == int(seed)
    assert type(returned) is int
    assert get_global_seed() == int(seed)


@pytest.mark.parametrize("use", [kr.seed_everything, check_seed])
@pytest.mark.parametrize("seed", WRONG_TYPES, ids=repr)
def test_wrong_type_of_seed(use, seed):
    """A seed that is no integer is refused before anything is seeded."""
    before = random.getstate()
    with pytest.raises(TypeError, match=r"Received: .*of type") as caught:
        use(seed)
    assert "must be an integer" in str(caught.value)
    assert random.getstate() == before


@pytest.mark.parametrize("use", [kr.seed_everything, check_seed])
@pytest.mark.parametrize("seed", WRONG_VALUES, ids=repr)
def test_seed_out_of_range(use, seed):
    """A seed outside 32 bits is refused, with what to do instead."""
    before = random.getstate()
    with pytest.raises(ValueError, match=rf"Received: {seed}.*modulo"):
        use(seed)
    assert random.getstate() == before


@pytest.mark.parametrize("deterministic", [1, "yes", None])
def test_wrong_type_of_switch(deterministic):
    """`deterministic` must be a bool, and nothing is seeded otherwise."""
    before = random.getstate()
    with pytest.raises(TypeError, match="Received: "):
        kr.seed_everything(1, deterministic=deterministic)
    assert random.getstate() == before


def test_deterministic_mode_on_and_off():
    """The kernels of the backend are switched on, and only if wanted."""
    backend = get_backend()
    switch_determinism_off()
    kr.seed_everything(1, deterministic=False)
    before = backend.is_deterministic()
    kr.seed_everything(1)
    assert backend.is_deterministic() is True
    # JAX on a processor has nothing else to choose from.
    assert before is (BACKEND == "jax")


@pytest.mark.requires_backend("torch")
def test_torch_workspace_variable():
    """CuBLAS gets a workspace, and a setting of the user stays."""
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    kr.seed_everything(1, deterministic=False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    kr.seed_everything(1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    kr.seed_everything(1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.requires_backend("jax")
def test_jax_flag_too_late_says_nothing_on_a_processor(monkeypatch):
    """JAX has started: the flag is left alone, and no processor needs it."""
    keras.ops.convert_to_numpy(keras.ops.ones(()))
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setattr(random_streams, "_say_once", pytest.fail)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(random_streams, "sys", UNSALTED)
    kr.seed_everything(1)
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.requires_backend("jax")
def test_jax_flag_in_time(run_python):
    """Before JAX starts the flag still takes effect, and is set once."""
    code = (
        "import os, keras_repro as kr\n"
        "kr.seed_everything(1, deterministic=False)\n"
        "print(os.environ['XLA_FLAGS'])\n"
        "kr.seed_everything(1)\n"
        "kr.seed_everything(1)\n"
        "print(os.environ['XLA_FLAGS'])\n"
    )
    flags = "--xla_cpu_enable_fast_math=false"
    result = run_python("-c", code, PYTHONHASHSEED="0", XLA_FLAGS=flags)
    before, after = result.stdout.splitlines()
    assert before == flags
    assert after == f"{flags} {XLA_FLAGS[0]}=true"


def salt_warnings():
    """What three calls say about the salt."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            kr.seed_everything(1, deterministic=False)
    return [str(w.message) for w in caught if "PYTHONHASHSEED" in str(w)]


@pytest.mark.parametrize(
    ("interpreter", "at_start", "expected"),
    [
        (SALTED, None, 1),
        (SALTED, "random", 1),
        (SALTED, "123", 0),
        (UNSALTED, "0", 0),
    ],
)
def test_salted_hashes_are_said_once(
    monkeypatch, interpreter, at_start, expected
):
    """What is too late to set is said once, with what to do."""
    monkeypatch.setattr(random_streams, "sys", interpreter)
    monkeypatch.setattr(random_streams, "hash_seed_at_start", lambda: at_start)
    said = salt_warnings()
    assert len(said) == expected
    assert all("Start the program with PYTHONHASHSEED=0" in s for s in said)


def test_hash_seed_set_inside_the_program_is_too_late(monkeypatch):
    """Only what the interpreter was started with counts."""
    monkeypatch.setattr(random_streams, "sys", SALTED)
    before = random_streams.hash_seed_at_start()
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    assert random_streams.hash_seed_at_start() == before


# --- isolate_rng -------------------------------------------------------------


def positions():
    """Where every global generator stands, in a form to compare."""
    return random_streams.rng_to_json(random_streams.capture_rng())


def draw_from_all():
    """Move every generator that this backend has."""
    drawn = [draw_python(), draw_numpy(), draw_keras(), draw_layer()]
    if BACKEND != "jax":
        drawn.append(draw_backend())
    return drawn


@each_draw
def test_isolate_rng_restores_each_generator(draw):
    """What is drawn inside the block is not missed after it."""
    kr.seed_everything(3, deterministic=False)
    draw()
    with kr.isolate_rng():
        inside = draw()
    after = draw()
    assert inside == after
    # The twin: without the block, the next draw is another one.
    assert draw() != after


@pytest.mark.parametrize("seed", [None, 5])
def test_isolate_rng_restores_all(seed):
    """All positions are back, and without the block they are not."""
    kr.seed_everything(3, deterministic=False)
    draw_from_all()
    before = positions()
    with kr.isolate_rng(seed):
        draw_from_all()
        assert positions() != before
    assert positions() == before
    draw_from_all()
    assert positions() != before


class Interruption(BaseException):
    """Not an `Exception`, as an interrupt from the keyboard is not."""


@pytest.mark.parametrize("error", [ValueError, Interruption])
def test_isolate_rng_restores_on_exceptions(error):
    """An error inside the block passes through, and all is restored."""
    kr.seed_everything(3, deterministic=False)
    draw_from_all()
    before = positions()

    def fail():
        draw_from_all()
        raise error

    with pytest.raises(error), kr.isolate_rng(5):
        fail()
    assert positions() == before
    with pytest.raises(error):
        fail()
    assert positions() != before


def test_isolate_rng_without_keras_generator():
    """Where Keras had no global generator, it has none afterwards."""
    kr.seed_everything(3, deterministic=False)
    assert get_global_generator() is None
    with kr.isolate_rng():
        inside = draw_keras()
        assert get_global_generator() is not None
    assert get_global_generator() is None
    assert draw_keras() == inside
    assert get_global_generator() is not None


@pytest.mark.usefixtures("no_global_seed")
def test_isolate_rng_restores_the_global_seed():
    """What Keras calls the seed of the program is the block's, and goes."""
    for outer in (None, 3):
        with kr.isolate_rng():
            kr.seed_everything(5, deterministic=False)
        assert program_seed() == outer
        with kr.isolate_rng(6):
            assert program_seed() == 6
        assert program_seed() == outer
        # The twin: without the block it stays.
        kr.seed_everything(3, deterministic=False)
        assert program_seed() == 3


def test_isolate_rng_keeps_the_generator_object():
    """A traced function holds the object, so the object must stay."""
    kr.seed_everything(3, deterministic=False)
    draw_keras()
    generator = get_global_generator()
    with kr.isolate_rng(seed=5):
        draw_keras()
        assert get_global_generator() is not generator
    assert get_global_generator() is generator


def test_isolate_rng_nests():
    """Each block gives back what it found."""
    kr.seed_everything(3, deterministic=False)
    outer = positions()
    with kr.isolate_rng(5):
        draw_from_all()
        middle = positions()
        with kr.isolate_rng(6):
            draw_from_all()
            assert positions() != middle
        assert positions() == middle
        assert middle != outer
    assert positions() == outer


def test_isolate_rng_seed():
    """The same seed gives the block the same draws, another seed others."""
    drawn = []
    for seed in (5, 5, 6):
        draw_from_all()  # What came before does not matter.
        with kr.isolate_rng(seed):
            drawn.append(draw_from_all())
    assert drawn[0] == drawn[1]
    assert not any(a == b for a, b in zip(drawn[0], drawn[2], strict=True))


def test_isolate_rng_without_seed_goes_on():
    """Without a seed the block draws what the program would have drawn."""
    kr.seed_everything(3, deterministic=False)
    draw_from_all()
    with kr.isolate_rng():
        inside = draw_from_all()
    assert draw_from_all() == inside
    assert draw_from_all() != inside


@pytest.mark.parametrize(
    ("seed", "error"),
    [*((s, TypeError) for s in (True, 1.5, "1")), (-1, ValueError)],
)
def test_isolate_rng_wrong_seed(seed, error):
    """A wrong seed is told before the block begins."""
    before = positions()
    with pytest.raises(error, match="Received: "), kr.isolate_rng(seed):
        pytest.fail("the block ran")
    assert positions() == before


def test_isolate_rng_as_decorator():
    """The context serves as a decorator too, afresh at each call."""
    draw = kr.isolate_rng(seed=5)(draw_from_all)
    before = positions()
    assert draw() == draw()
    assert positions() == before
    assert draw() != draw_from_all()


# --- derived seeds -----------------------------------------------------------


def test_derive_seed():
    """Purpose and seed both count; neighbours are unrelated; all in range."""
    made = {
        (seed, purpose): random_streams.derive_seed(seed, purpose)
        for seed in range(100)
        for purpose in ("order", "evaluation")
    }
    assert len(set(made.values())) == len(made)
    assert all(check_seed(value) == value for value in made.values())
    steps = {made[s + 1, "order"] - made[s, "order"] for s in range(99)}
    assert len(steps) == 99


def test_derive_seed_stays_as_it_is():
    """A recorded seed must mean the same in every later version."""
    assert random_streams.derive_seed(1, "order") == 3542321351
    assert random_streams.derive_seed(1, "evaluation") == 4124838935


def test_seed_from_program():
    """Read from the program's generator, and never drawn from it."""
    random.seed(1)
    first = random_streams.seed_from_program()
    assert random_streams.seed_from_program() == first
    after = random.random()
    assert random_streams.seed_from_program() != first
    random.seed(1)
    assert random.random() == after


def test_positions_travel_as_json():
    """What was written reads back to the very same draws."""
    kr.seed_everything(3, deterministic=False)
    draw_from_all()
    text = json.dumps(positions())
    expected = draw_from_all()
    assert draw_from_all() != expected
    random_streams.restore_rng(random_streams.rng_from_json(json.loads(text)))
    if BACKEND == "tensorflow":
        # Its kernels for these op seeds have already been used above.
        rewind_kernels()
    assert draw_from_all() == expected
