"""What a workload is, the two kinds of model it is made of, and its data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_repro as kr

ALL = ("tensorflow", "jax", "torch")
BACKEND = keras.backend.backend()
L = keras.layers
RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Keras' own classes, or ours, as a program names them."""

    name: str
    sequential: Any
    model: Any


STOCK = Kind("stock", keras.Sequential, keras.Model)
OURS = Kind("ours", kr.ReproducibleModel, kr.ReproducibleModel)


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """One row of the table.

    Attributes:
        name: What it is.
        make: Makes the model of a kind, not yet compiled.
        compile: Compiles it.
        train: Trains it, with callbacks, and returns the history.
        x: What it predicts from, or `None` if it has no `call`.
        y: What it is evaluated against, or `None` if it cannot be.
        backends: Where it makes sense.
        draws_in_trace: Whether the draws of a traced step are constants.
        own_compile: Whether Keras leaves compiling a loaded model to the user.
        cannot_load: Why Keras cannot load the stock model.
    """

    name: str
    make: Callable[[Kind], Any]
    compile: Callable[[Any], None]
    train: Callable[..., Any]
    x: Any = None
    y: Any = None
    backends: tuple[str, ...] = ALL
    draws_in_trace: bool = False
    own_compile: bool = False
    cannot_load: str = ""

    def build(self, kind: Kind) -> Any:
        """A compiled model."""
        model = self.make(kind)
        self.compile(model)
        return model


class _Passes:
    """Counts how often the Python body of a model's call or step runs."""

    count = 0


def note_pass() -> None:
    """Called from the body that is counted."""
    _Passes.count += 1


def count_passes() -> int:
    """How many there were since the process began."""
    return _Passes.count


def register(cls: Any) -> Any:
    """Let Keras load a class; those of the two kinds have names apart."""
    ours = kr.ReproducibleModel in getattr(cls, "__mro__", ())
    package = "workloads_ours" if ours else "workloads"
    return keras.saving.register_keras_serializable(package)(cls)


@register
class Counted(L.Layer):
    """Passes its inputs on, and counts."""

    def call(self, inputs: Any) -> Any:
        """Nothing else happens here."""
        note_pass()
        return inputs


def compiling(*args: Any, **kwargs: Any) -> Callable[[Any], None]:
    """Compile with an optimizer that is made anew for each model."""
    make, *rest = args

    def compile_model(model: Any) -> None:
        optimizer = make if isinstance(make, str) else make()
        model.compile(optimizer, *rest, **kwargs)

    return compile_model


def fitting(x: Any, y: Any = None, **options: Any) -> Callable[..., Any]:
    """Two epochs on arrays, in batches of four."""
    options = {"epochs": 2, "batch_size": 4, "verbose": 0, **options}

    def train(model: Any, callbacks: Any = ()) -> Any:
        return model.fit(x, y, callbacks=list(callbacks), **options).history

    return train


def observe(workload: Workload, model: Any) -> dict[str, str]:
    """Train a model, and return what must be equal."""
    return {
        # Keras numbers metrics of one name in each process.
        "history": re.sub(r"_\d+'", "'", repr(workload.train(model))),
        "model": kr.compute_checksum(model),
        "optimizer": kr.compute_checksum(model.optimizer),
    }


def observe_under(workload: Workload, model: Any, seed: int) -> dict[str, str]:
    """Train a model under a seed."""
    model.reset(seed=seed)
    return observe(workload, model)


def values_of(model: Any, state: Any) -> dict[int, Any]:
    """The values that a step on JAX is given, by `id` of their variable."""
    groups = _groups(model)
    return {
        id(variable): value
        for group, values in zip(groups, state, strict=True)
        for variable, value in zip(group, values, strict=True)
    }


def state_of(model: Any, values: dict[int, Any]) -> tuple[list[Any], ...]:
    """The state that a step on JAX returns."""
    return tuple(
        [values[id(variable)] for variable in group] for group in _groups(model)
    )


def _groups(model: Any) -> tuple[Any, ...]:
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
