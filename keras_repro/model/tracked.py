"""What a person hands over: it belongs to the model's start from then on.

Optimizers, metrics and variables of Keras are found by `iterate_variables`
then, and captured with the rest. All else is captured and put back here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import keras

from keras_repro.arrays.checksums import combine_checksums, compute_checksum
from keras_repro.backends.data_adapters import is_pipeline, is_stateful
from keras_repro.backends.data_state import DataState
from keras_repro.backends.generators import (
    copy_generator_state,
    put_generator_state,
)
from keras_repro.backends.keras_internals import optimized_variables
from keras_repro.backends.untracked_state import AttributeState
from keras_repro.backends.variables import (
    KERAS_KINDS,
    TRACKED,
    handed_over,
    read_variable,
    set_handed_over,
)
from keras_repro.common.checks import wrong_type
from keras_repro.common.generators import require_generator_state

_METHODS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
_MUST = (
    "be optimizers, metrics, variables, generators, pipelines, loaders, "
    "iterators, callbacks, or objects with `get_state` and `set_state` or "
    "with `state_dict` and `load_state_dict`"
)


def hand_over(model: Any, objects: tuple[Any, ...]) -> None:
    """Have objects belong to a model, all or none, beside those that do."""
    for one in objects:
        if not _is_known(one):
            advice = "Give it these methods, or hand over what it holds."
            raise wrong_type("objects", _MUST, one, advice)
    known = list(handed_over(model))
    for one in objects:
        if not any(one is other for other in known):
            known.append(one)
    set_handed_over(model, tuple(known))


class HandedOver:
    """How objects that are no variables of Keras stood at the start."""

    def __init__(self) -> None:
        self._starts: list[tuple[Any, Any]] = []

    def follow(self, objects: tuple[Any, ...]) -> None:
        """Take up those that are new, as they stand."""
        known = [one for one, _ in self._starts]
        for one in objects:
            if not any(one is other for other in known):
                self._starts.append((one, _read(one)))

    def restore(self) -> None:
        """Put each back to its start."""
        for one, start in self._starts:
            if start is not None:
                _put(one, start)

    def write(self) -> list[Any]:
        """How each stands now, as plain values where its state is one."""
        return [_write(_read(one), start) for one, start in self._starts]

    def put(self, written: list[Any]) -> None:
        """Have each stand as `write` told."""
        for (one, start), state in zip(self._starts, written, strict=True):
            if isinstance(start, AttributeState):
                _put(one, start.with_values(state))
            elif isinstance(start, DataState):
                _put(one, start.moved_to(state))
            elif start is not None:
                if copy_generator_state(one) is not None:
                    require_generator_state(*state)
                _put(one, state)


def checksum_objects(model: Any) -> Iterator[tuple[str, str]]:
    """The place of each generator and the like, and its state's checksum."""
    for number, one in enumerate(handed_over(model)):
        state = _read(one)
        # Data tell by what they feed where they stand.
        if state is not None and not isinstance(state, DataState):
            yield f"{TRACKED}{number}", _checksum(state)


def knows_an_optimizer(model: Any) -> bool:
    """Whether some other library's optimizer may have been handed over."""
    return any(
        callable(getattr(one, "step", None)) and _methods(one) is not None
        for one in handed_over(model)
    )


def copy_objects(model: Any, other: Any) -> list[str]:
    """Hand copies over to a copy of the model; the types that have none."""
    pairs = zip(model.variables, other.variables, strict=True)
    variables = {id(mine): its for mine, its in pairs}
    copies: list[Any] = []
    left: list[str] = []
    for one in handed_over(model):
        try:
            copies.append(_copy(one, variables))
        except Exception:  # noqa: BLE001 - a user's class may raise any
            left.append(type(one).__name__)
    hand_over(other, tuple(copies))
    return left


def _methods(one: Any) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    for names in _METHODS:
        read, write = (getattr(one, name, None) for name in names)
        if callable(read) and callable(write):
            return read, write
    return None


def _is_known(one: Any) -> bool:
    if isinstance(one, type):
        return False
    with suppress(Exception):  # What its own attributes raise.
        return (
            isinstance(one, (*KERAS_KINDS, keras.callbacks.Callback))
            or copy_generator_state(one) is not None
            or is_pipeline(one)
            or is_stateful(one)
            or _methods(one) is not None
        )
    return False


def _read(one: Any) -> Any:
    """The state of an object that is no variable of Keras, or `None`."""
    if isinstance(one, KERAS_KINDS):
        return None
    generator = copy_generator_state(one)
    if generator is not None:
        return generator
    if isinstance(one, keras.callbacks.Callback):
        return AttributeState([one], all_values=True)
    if is_pipeline(one):
        return None  # A block of `trial()` goes over another one.
    if is_stateful(one):
        return DataState(one)
    methods = _methods(one)
    return None if methods is None else copy.deepcopy(methods[0]())


def _write(state: Any, start: Any) -> Any:
    if isinstance(state, AttributeState):
        return state.values()
    if isinstance(state, DataState):
        return start.moves_to(state)
    return state


def _put(one: Any, state: Any) -> None:
    if isinstance(state, (AttributeState, DataState)):
        state.restore()
    elif copy_generator_state(one) is not None:
        put_generator_state(one, state)
    else:
        methods = _methods(one)
        if methods is not None:
            methods[1](copy.deepcopy(state))


def _checksum(state: Any) -> str:
    if isinstance(state, AttributeState):
        return compute_checksum(repr(state.describe()))
    arrays, rest = [], []
    for leaf in _leaves(state):
        if hasattr(leaf, "shape"):
            arrays.append(compute_checksum(leaf))
        else:
            rest.append(repr(leaf))
    return combine_checksums([*arrays, compute_checksum(repr(rest))])


def _leaves(state: Any) -> Iterator[Any]:
    """Keys and values in the order in which they are held."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield repr(key)
            yield from _leaves(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _leaves(value)
    else:
        yield state


def _copy(one: Any, variables: dict[int, Any]) -> Any:
    if not isinstance(one, KERAS_KINDS):
        if (
            isinstance(one, keras.callbacks.Callback)
            or is_pipeline(one)
            or is_stateful(one)
        ):
            raise TypeError(one)
        return copy.deepcopy(one)
    twin = type(one).from_config(one.get_config())
    if isinstance(one, keras.optimizers.Optimizer) and one.built:
        twin.build([variables[id(v)] for v in optimized_variables(one)])
    for own, its in zip(_variables(one), _variables(twin), strict=True):
        its.assign(read_variable(own))
    return twin


def _variables(one: Any) -> list[Any]:
    return [one.state] if hasattr(one, "state") else list(one.variables)
