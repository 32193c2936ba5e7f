"""Evaluation goes on, is rewound, and moves no training."""

from __future__ import annotations

import random
from collections.abc import Callable
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


@keras.saving.register_keras_serializable("tests")
class AlwaysDropout(L.Dropout):  # type: ignore[misc]
    """Dropout for Monte Carlo predictions."""

    def call(self, x: Any, training: Any = None) -> Any:
        """Drop, whether it trains or not."""
        del training
        return super().call(x, training=True)


@keras.saving.register_keras_serializable("tests")
class GlobalNoise(L.Layer):  # type: ignore[misc]
    """Draws from Keras' global generator."""

    def call(self, x: Any) -> Any:
        """Add noise."""
        return x + keras.random.normal(ops.shape(x))


class UntrackedNoise(L.Layer):  # type: ignore[misc]
    """Draws from a NumPy generator of its own, on the host."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(5)

    def call(self, x: Any) -> Any:
        """Scale by a number that is drawn at each call."""
        return x * (1 + float(self.rng.normal()))


LAYERS = {
    # Without a seed PyTorch draws from its global generator.
    "dropout": lambda: AlwaysDropout(0.4, seed=2),
    "global": GlobalNoise,
    "untracked": UntrackedNoise,
}
NAMES = [
    "dropout",
    # JAX refuses to trace it.
    pytest.param(
        "global", marks=pytest.mark.requires_backend("tensorflow", "torch")
    ),
    "untracked",
]


def make(name: str = "dropout", **kwargs: Any) -> Any:
    """A model whose evaluation draws."""
    if name == "untracked":  # Elsewhere its draw is a constant of the trace.
        kwargs = {"run_eagerly": True, **kwargs}
    return make_model(L.Dense(4), LAYERS[name](), optimizer="adam", **kwargs)


def predict(model: Any) -> bytes:
    """One prediction."""
    drawn: bytes = model.predict(X, verbose=0).tobytes()
    return drawn


CALLS: dict[str, Callable[[Any], Any]] = {
    "predict": predict,
    "predict_on_batch": lambda model: model.predict_on_batch(X).tobytes(),
    "evaluate": lambda model: model.evaluate(X, Y, verbose=0),
    "test_on_batch": lambda model: float(model.test_on_batch(X, Y)),
    "call": lambda model: ops.convert_to_numpy(model(X)).tobytes(),
}


@pytest.mark.sampled(15)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", CALLS)
def test_evaluations_are_distinct_and_rewound(name: str, call: str) -> None:
    """Five calls draw five times; after a reset they draw the same five."""
    if (name, call) == ("global", "call"):
        pytest.skip("the model itself, called, draws from the program's")
    model, evaluate = make(name, seed=1), CALLS[call]
    model.fit(X, Y, verbose=0)
    model.reset()
    first = [evaluate(model) for _ in range(5)]
    assert len(set(first)) == 5
    model.reset()
    assert [evaluate(model) for _ in range(5)] == first
    # The twin: it is the reset that takes them back.
    assert evaluate(model) not in first


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_kind_moves_another(name: str) -> None:
    """Each call draws the same, whatever was called between."""

    def run(*between: str) -> list[Any]:
        model, results = make(name, seed=1), []
        for _ in range(2):
            for other in between:
                CALLS[other](model)
            results.append(model.fit(X, Y, verbose=0).history["loss"])
        return [*results, predict(model) if "predict" not in between else None]

    alone = run()
    assert run("evaluate")[:2] == alone[:2]
    assert run("evaluate", "predict")[:2] == alone[:2]
    assert run("evaluate")[2] == alone[2]
    # The twin: the model itself, called, draws as the training does.
    assert name == "global" or run("call")[:2] != alone[:2]


def test_validation_has_a_position_of_its_own() -> None:
    """Validation in `fit` moves neither the training nor `evaluate`."""

    def run(**kwargs: Any) -> tuple[Any, Any]:
        model = make(seed=1)
        history = model.fit(X, Y, epochs=2, verbose=0, **kwargs).history
        return history, model.evaluate(X, Y, verbose=0)

    without, evaluated = run()
    history, evaluated_too = run(validation_data=(X, Y))
    assert history["loss"] == without["loss"]
    assert evaluated_too == evaluated
    # It goes on from epoch to epoch, and `evaluate` draws otherwise.
    assert history["val_loss"][1] != evaluated


@pytest.mark.slow
def test_predict_in_a_callback_swaps_once() -> None:
    """A call within a training leaves the training alone."""

    class Predicts(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.drawn: list[bytes] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.drawn.append(predict(self.model))

    model, predicts = make(seed=1), Predicts()
    expected = model.fit(X, Y, epochs=3, verbose=0).history
    after = kr.compute_checksum(model)
    model.reset()
    fit = model.fit(X, Y, epochs=3, verbose=0, callbacks=[predicts])
    assert fit.history == expected
    assert kr.compute_checksum(model) == after
    assert len(set(predicts.drawn)) == 3


@pytest.mark.slow
def test_seeds_have_evaluations_of_their_own() -> None:
    """A seed's predictions are a function of the seed."""
    model, other = make(seed=1), make(seed=2)
    first = predict(model)
    assert predict(other) != first
    other.reset(seed=1)
    assert predict(other) == first


@pytest.mark.slow
def test_copies_go_on(tmp_path: Any) -> None:
    """A clone and a saved model evaluate as the model would have."""
    model = make(seed=1)
    model.fit(X, Y, verbose=0)
    predict(model), CALLS["evaluate"](model)
    model.save(tmp_path / "model.keras")
    models = [
        model.clone(),
        keras.saving.load_model(tmp_path / "model.keras"),
        model,
    ]
    drawn = [
        [predict(one), predict(one), CALLS["evaluate"](one)] for one in models
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0][0] != drawn[0][1]


def test_the_program_draws_on() -> None:
    """Evaluations leave the program's generators where they are."""
    model = make(seed=1)
    state = random.getstate(), np.random.get_state()[1].tobytes()
    predict(model), CALLS["evaluate"](model)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == state
