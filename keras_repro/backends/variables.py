"""Every variable of a model, by role and place.

Keras numbers names per process (`dense_7`), so a variable is known by where it
stands: `layers.2.kernel`, `optimizer.momentum.layers.2.kernel`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import find_replicas, view_variable
from keras_repro.backends.keras_internals import (
    flatten_layers,
    is_eager,
    optimized_variables,
)

_SEED_STATE = "seed_generator_state"
_HANDED_OVER = "_handed_over"  # An attribute of a model; see `model.track`.
TRACKED = "tracked."  # What a place of what was handed over begins with.
KERAS_KINDS = (
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.Variable,
    keras.random.SeedGenerator,
)
_HAS_DIGIT = re.compile(r"\d")
_AUTO_NUMBERED = re.compile(r"variable(_\d+)?")


@dataclass(frozen=True)
class VariablePlace:
    """A variable, and how it is known."""

    role: str  # "weights", "random", "optimizer" or "metrics".
    place: str  # Such as `layers.2.kernel`; unique in the model.
    variable: Any


def iterate_variables(model: Any) -> list[VariablePlace]:
    """List every variable of a model, each exactly once."""
    places = _name_layer_variables(model)
    listed = list(model.variables)
    known = {id(variable) for variable in listed}
    listed += [v for v in _recurrent_states(model) if id(v) not in known]
    result = [_describe(v, places[id(v)]) for v in _unique(listed)]
    seen = {id(entry.variable) for entry in result}
    for name, optimizer in find_optimizers(model).items():
        for variable, place in _name_slots(optimizer, places):
            if id(variable) not in seen:
                seen.add(id(variable))
                one = VariablePlace("optimizer", f"{name}.{place}", variable)
                result.append(one)
    metrics = [v for metric in list_metrics(model) for v in metric.variables]
    for index, variable in enumerate(metrics):
        if id(variable) not in seen:
            seen.add(id(variable))
            result.append(
                VariablePlace("metrics", f"metrics.{index}", variable)
            )
    result += [
        one
        for one in _handed_over_places(model)
        if id(one.variable) not in seen
    ]
    return result


def handed_over(model: Any) -> tuple[Any, ...]:
    """What a person handed over to a model, in order."""
    found: tuple[Any, ...] = vars(model).get(_HANDED_OVER, ())
    return found


def set_handed_over(model: Any, objects: tuple[Any, ...]) -> None:
    """Have a model hold these objects, outside of what Keras tracks."""
    object.__setattr__(model, _HANDED_OVER, objects)


def is_handed_over(place: str) -> bool:
    """Whether a place is one of what a person handed over."""
    return place.startswith(TRACKED)


def _handed_over_places(model: Any) -> Iterator[VariablePlace]:
    """Variables of what a person handed over, but for optimizers."""
    for number, one in enumerate(handed_over(model)):
        place = f"{TRACKED}{number}"
        if isinstance(one, keras.Variable):
            yield VariablePlace("weights", place, one)
        elif isinstance(one, keras.random.SeedGenerator):
            yield VariablePlace("random", place, one.state)
        elif isinstance(one, keras.metrics.Metric):
            for index, variable in enumerate(one.variables):
                yield VariablePlace("metrics", f"{place}.{index}", variable)


def list_metrics(model: Any) -> list[Any]:
    """None yet where `metrics` reads what `compile` or so is to make."""
    try:
        return list(model.metrics)
    except Exception:  # noqa: BLE001 - a user's property may raise any
        return []


def find_optimizers(model: Any) -> dict[str, Any]:
    """Find the compiled optimizer and any kept as attributes of the model."""
    found: dict[str, Any] = {}
    compiled = getattr(model, "optimizer", None)
    if isinstance(compiled, keras.optimizers.Optimizer):
        found["optimizer"] = compiled
    seen = {id(compiled), id(getattr(compiled, "inner_optimizer", None))}
    handed = enumerate(handed_over(model))
    named = [
        *sorted(vars(model).items()),
        *((f"{TRACKED}{number}", one) for number, one in handed),
    ]
    for name, value in named:
        if isinstance(value, keras.optimizers.Optimizer):
            if id(value) not in seen:
                found[name] = value
            seen.add(id(value))
    return found


def count_steps(optimizer: Any) -> int:
    """How many batches an optimizer was given."""
    # That of a loss scale counts the steps that it did not skip.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # Where gradients are gathered, `iterations` is a quotient of this variable
    # (private in Keras 3.12 to 3.15; without it, a gathered batch is no step).
    variable = getattr(inner, "_iterations", None)
    if variable is None:
        return int(keras.ops.convert_to_numpy(inner.iterations))
    return int(read_variable(variable))


def read_variable(variable: Any) -> npt.NDArray[Any]:
    """Copy a variable's values to the host."""
    if find_replicas(variable):
        return np.array(view_variable(variable), copy=True)
    return np.array(keras.ops.convert_to_numpy(variable.value), copy=True)


@contextmanager
def new_variables_noted(
    note: Callable[[Any, Any], None],
) -> Iterator[None]:
    """Call `note(variable, initializer)` of every variable that is made."""
    make = keras.Variable.__init__

    @functools.wraps(make)
    def noted(self: Any, initializer: Any, *args: Any, **kwargs: Any) -> None:
        make(self, initializer, *args, **kwargs)
        note(self, initializer)

    keras.Variable.__init__ = noted
    try:
        yield
    finally:
        keras.Variable.__init__ = make


@contextmanager
def new_optimizers_noted(note: Callable[[Any], None]) -> Iterator[None]:
    """Call `note(optimizer)` of each that is made, of Keras or PyTorch."""
    torch = sys.modules.get("torch")
    classes: list[Any] = [keras.optimizers.Optimizer]
    if torch is not None:
        classes.append(torch.optim.Optimizer)

    def noted(make: Any) -> Any:
        @functools.wraps(make)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            make(self, *args, **kwargs)
            note(self)

        return init

    before = [vars(one).get("__init__") for one in classes]
    for one in classes:
        one.__init__ = noted(one.__init__)
    try:
        yield
    finally:
        for one, make in zip(classes, before, strict=True):
            if make is None:
                del one.__init__
            else:
                one.__init__ = make


class FirstValues:
    """The first values of the variables that a step makes."""

    def __init__(self) -> None:
        self.values: dict[int, npt.NDArray[Any]] = {}
        self._kept: list[Any] = []

    def note(self, variable: Any, initializer: Any) -> None:
        """Note one that has just been made."""
        del initializer
        if variable._value is not None and is_eager():
            self._kept.append(variable)  # So that no other gets its `id`.
            self.values[id(variable)] = read_variable(variable)


def _name_slots(
    optimizer: Any, places: dict[int, str]
) -> Iterator[tuple[Any, str]]:
    """Name an optimizer's variables by what they belong to."""
    # A slot is known by its kind and the variable that it serves, such as
    # `momentum.layers.0.kernel`; one whose name says neither, by its position.
    served = {
        variable.path.replace("/", "_"): places[id(variable)]
        for variable in optimized_variables(optimizer)
        if id(variable) in places
    }
    variables = list(optimizer.variables)
    names = [_name_slot(variable.name, served) for variable in variables]
    counts = Counter(names)
    for index, variable in enumerate(variables):
        name = names[index]
        is_known = name is not None and counts[name] == 1
        yield variable, str(name) if is_known else str(index)


def _name_slot(name: str, served: dict[str, str]) -> str | None:
    """`momentum.layers.0.kernel`, `learning_rate`, or `None`."""
    served_one, _, kind = name.rpartition("_")
    while served_one:
        if served_one in served:
            return f"{kind}.{served[served_one]}"
        served_one, _, more = served_one.rpartition("_")
        kind = f"{more}_{kind}"
    if _AUTO_NUMBERED.fullmatch(name):
        return "variable"
    # A number in it may be one that Keras counts per process.
    return None if _HAS_DIGIT.search(name) else name


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
    for inner in flatten_layers(layer):
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
