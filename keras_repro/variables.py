"""Every variable of a model, by role and place.

Keras numbers names per process (`dense_7`), so a variable is known by where it
stands: `layers.2.kernel`, `optimizer.0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro import _backends
from keras_repro.checksums import compute_checksum

__all__ = [
    "VariablePlace",
    "compute_checksum",
    "find_optimizers",
    "iterate_variables",
    "read_variable",
]

_SEED_STATE = "seed_generator_state"
_AUTO_NUMBERED = re.compile(r"variable(_\d+)?")


@dataclass(frozen=True)
class VariablePlace:
    """A variable, and how it is known.

    Args:
        role: `"weights"`, `"random"`, `"optimizer"` or `"metrics"`.
        place: Its position, such as `layers.2.kernel`; unique in the model.
        variable: The `keras.Variable` itself.
    """

    role: str
    place: str
    variable: Any


def iterate_variables(model: Any) -> list[VariablePlace]:
    """List every variable of a model, each exactly once.

    Args:
        model: Any `keras.Model`, compiled or not, built or not.

    Returns:
        The entries of `model.variables` in Keras' order, then the states of
        stateful recurrent layers, the optimizers' variables, and the
        metrics'.
    """
    places = _name_layer_variables(model)
    listed = list(model.variables)
    known = {id(variable) for variable in listed}
    listed += [v for v in _recurrent_states(model) if id(v) not in known]
    result = [_describe(v, places[id(v)]) for v in _unique(listed)]
    seen = {id(entry.variable) for entry in result}
    for role, name, variables in _flat_groups(model):
        for index, variable in enumerate(variables):
            if id(variable) not in seen:
                seen.add(id(variable))
                place = f"{name}.{index}"
                result.append(VariablePlace(role, place, variable))
    return result


def find_optimizers(model: Any) -> dict[str, Any]:
    """Find the compiled optimizer and any kept as attributes of the model.

    Args:
        model: Any `keras.Model`.

    Returns:
        Optimizers by the name of their attribute, `optimizer` first.
    """
    found: dict[str, Any] = {}
    compiled = getattr(model, "optimizer", None)
    if isinstance(compiled, keras.optimizers.Optimizer):
        found["optimizer"] = compiled
    seen = {id(compiled), id(getattr(compiled, "inner_optimizer", None))}
    for name, value in sorted(vars(model).items()):
        if isinstance(value, keras.optimizers.Optimizer):
            if id(value) not in seen:
                found[name] = value
            seen.add(id(value))
    return found


def read_variable(variable: Any) -> npt.NDArray[Any]:
    """Copy a variable's values to the host.

    Args:
        variable: A `keras.Variable`.

    Returns:
        An array of its own, never an alias of the live buffer; bfloat16 and
        its like keep their dtype.
    """
    return np.array(keras.ops.convert_to_numpy(variable.value), copy=True)


def _flat_groups(model: Any) -> Iterator[tuple[str, str, list[Any]]]:
    for name, optimizer in find_optimizers(model).items():
        yield "optimizer", name, list(optimizer.variables)
    yield "metrics", "metrics", list(model.metrics_variables)


def _describe(variable: Any, place: str) -> VariablePlace:
    role = "random" if variable.name == _SEED_STATE else "weights"
    return VariablePlace(role, place, variable)


def _name_layer_variables(model: Any) -> dict[int, str]:
    """The place of each variable by id; the first place of a shared one."""
    places: dict[int, str] = {}
    _name_into(places, model, "")
    return places


def _name_into(places: dict[int, str], model: Any, prefix: str) -> None:
    for index, layer in enumerate(model.layers):
        inner = f"{prefix}layers.{index}."
        if isinstance(layer, keras.Model):
            _name_into(places, layer, inner)
        else:
            _name_own(places, layer, inner)
    _name_own(places, model, prefix)


def _name_own(places: dict[int, str], layer: Any, prefix: str) -> None:
    """Name what has no place yet; a repeated name gets a number."""
    taken: dict[str, int] = {}
    for variable in _unique([*layer.variables, *_recurrent_states(layer)]):
        if id(variable) in places:
            continue
        name = variable.name
        if _AUTO_NUMBERED.fullmatch(name):
            name = "variable"
        repeats = taken.get(name, 0)
        taken[name] = repeats + 1
        suffix = f".{repeats}" if repeats else ""
        places[id(variable)] = f"{prefix}{name}{suffix}"


def _recurrent_states(layer: Any) -> list[Any]:
    """States of stateful recurrent layers, which Keras does not track."""
    states: list[Any] = []
    for inner in _backends.flatten_layers(layer):
        if isinstance(inner, keras.layers.RNN) and inner.stateful:
            states.extend(_flat_variables(inner.states))
    return states


def _flat_variables(nested: Any) -> Iterator[Any]:
    if isinstance(nested, keras.Variable):
        yield nested
    elif isinstance(nested, (list, tuple)):
        for item in nested:
            yield from _flat_variables(item)


def _unique(variables: Iterable[Any]) -> list[Any]:
    return list({id(variable): variable for variable in variables}.values())
