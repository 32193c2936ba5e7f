"""Seed s is seed s in any order, also where a trace draws."""

from __future__ import annotations

import random
import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from tests.builders import make_model

pytestmark = pytest.mark.requires_backend()
BACKEND = keras.backend.backend()
L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(1, keepdims=True)
own = random.Random(3)


def draw_tensorflow() -> Any:
    """An op whose seeds TensorFlow gives while it traces."""
    import tensorflow as tf

    return tf.random.uniform(())


DRAWS = {
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),
    "tensorflow": draw_tensorflow,
}
CASES = [
    "python",
    "numpy",
    pytest.param(
        "tensorflow", marks=pytest.mark.requires_backend("tensorflow")
    ),
]


class Jitter(L.Layer):  # type: ignore[misc]
    """Scales by a number that is drawn in Python."""

    def __init__(self, draw: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.draw = draw

    def call(self, x: Any, training: Any = None) -> Any:
        """Draw while training."""
        return x * (1.0 + DRAWS[self.draw]()) if training else x

    def get_config(self) -> dict[str, Any]:
        """What is drawn from."""
        return {**super().get_config(), "draw": self.draw}


def make(draw: str, **kwargs: Any) -> Any:
    """A model that draws in its step."""
    return make_model(
        L.Dense(4),
        Jitter(draw),
        optimizer="adam",
        jit_compile=False if draw == "tensorflow" else "auto",
        **kwargs,
    )


def fit(model: Any) -> Any:
    """Two epochs; the last batch of each is smaller, for a second trace."""
    history = model.fit(X, Y, batch_size=16, epochs=2, verbose=0).history
    return history, kr.compute_checksum(model)


def run(draw: str, seeds: list[int]) -> dict[int, Any]:
    """Train under seeds, in this order, on one model."""
    model, results = make(draw), {}
    for seed in seeds:
        model.reset(seed=seed)
        result = fit(model)
        assert results.setdefault(seed, result) == result
    return results


@pytest.mark.sampled(3)
@pytest.mark.parametrize("draw", CASES)
@pytest.mark.filterwarnings("ignore:A step of:UserWarning")
def test_order_of_the_seeds_changes_nothing(draw: str) -> None:
    """A seed gives the same first, later and again."""
    a, b = run(draw, [1, 2, 3, 1]), run(draw, [3, 1, 2, 2, 3])
    assert a == b
    assert len({repr(one) for one in a.values()}) == 3


@pytest.mark.filterwarnings("ignore:A step of:UserWarning")
def test_a_start_that_is_loaded_brings_its_seed(tmp_path: Any) -> None:
    """What was traced under another one is traced anew."""
    saved, other = make("python"), make("python")
    saved.reset(seed=1)
    saved.save_initial_state(tmp_path / "start.h5")
    other.reset(seed=2)
    assert fit(other) != (wanted := fit(saved))
    other.load_initial_state(tmp_path / "start.h5")
    assert fit(other) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("draw", CASES)
@pytest.mark.filterwarnings("ignore:A step of:UserWarning")
def test_without_new_traces_the_first_seed_stays(
    draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: a function that is kept holds the draws of another seed."""
    if BACKEND == "torch":
        pytest.skip("nothing is traced")
    a = run(draw, [1, 2])
    monkeypatch.setattr(
        "keras_repro.model.traces.Traces.drop", lambda self, model: None
    )
    assert run(draw, [2, 1]) != {2: a[2], 1: a[1]}


@pytest.mark.slow
def test_it_is_said_once() -> None:
    """And only where a trace drew, and not for the same seed."""
    model = make("python")
    model.reset(seed=1)
    fit(model)
    model.reset()
    fit(model)
    model.reset(seed=1)
    fit(model)
    if BACKEND == "torch":
        model.reset(seed=2)
        return
    with pytest.warns(UserWarning, match=r"drew random numbers .* train\."):
        model.reset(seed=2)
    fit(model)
    model.reset(seed=3)


def test_a_step_that_draws_by_keras_is_kept() -> None:
    """A model whose trace draws nothing is traced once for all seeds."""
    calls = []

    class Counts(L.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            calls.append(1)
            return x

    model = make_model(L.Dense(4), Counts(), L.Dropout(0.3))
    model.reset(seed=1)
    model.fit(X, Y, batch_size=8, verbose=0)
    traced = len(calls)
    for seed in (2, 3):
        model.reset(seed=seed)
        model.fit(X, Y, batch_size=8, verbose=0)
    # What is left is what the seeds' draws and fresh processes share.
    assert BACKEND == "torch" or len(calls) == traced


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A step of:UserWarning")
def test_the_trial_streams_stay_where_they_are() -> None:
    """A trace uses none of the trial's positions, so traces may differ."""
    if BACKEND == "torch":
        pytest.skip("nothing is traced")
    model = make("python", seed=1)
    fit(model)
    position = model._repro.draws.position
    model.reset()
    model.train_function = None  # Traced once more.
    fit(model)
    again = model._repro.draws.position
    assert again.python == position.python
    assert (again.numpy[1] == position.numpy[1]).all()


def compile_it(function: Any) -> Any:
    """Compile as a person would, on this backend."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


def scale(x: Any) -> Any:
    """Draw by way of another function."""
    return x * (1.0 + own_draw())


def own_draw() -> float:
    """Draw from a generator of the program."""
    return own.random()


def keep(x: Any) -> Any:
    """Draw nothing."""
    return x


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow", "jax")
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
def test_what_the_program_compiled_is_named(eager: bool) -> None:
    """A function that keeps its draws is named; one that draws nothing not."""
    compiled = {one: compile_it(one) for one in (scale, keep)}
    texts = {}
    for function, call in compiled.items():

        class Calls(L.Layer):  # type: ignore[misc]
            def call(self, x: Any) -> Any:
                return call(x)  # noqa: B023

        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            model = make_model(L.Dense(4), Calls(), run_eagerly=eager)
            fit(model)
        texts[function] = [
            str(one.message) for one in found if "compiled" in str(one.message)
        ]
        notes = model._repro.draws.traces.notes
        assert bool(notes) == bool(texts[function])
    assert len(texts[scale]) == 1
    assert "`scale`" in texts[scale][0]
    assert texts[keep] == []


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
def test_what_xla_compiled_is_named() -> None:
    """Its random ops follow no seed; without XLA nothing is said."""

    class Noise(L.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return x + tf.random.normal(tf.shape(x))

    def make_noisy(jit: bool) -> Any:
        return make_model(L.Dense(4), Noise(), jit_compile=jit, seed=1)

    fit(make_noisy(False))
    with pytest.warns(UserWarning, match="XLA compiled .*RandomStandard"):
        fit(make_noisy(True))
