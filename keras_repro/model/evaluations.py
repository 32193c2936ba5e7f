"""Where the layers' generators stand in each kind of evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_repro.backends.active import get_backend
from keras_repro.backends.generators import (
    copy_generator_state,
    put_generator_state,
    start_generator,
    start_variable,
)
from keras_repro.backends.variables import read_variable
from keras_repro.common.generators import require_generator_state
from keras_repro.model.initial_state import VARIABLE, InitialState
from keras_repro.model.stored_trial import States


class Evaluations:
    """A position of each generator for each kind of evaluation."""

    # A kind begins at a function of the generator's own start, goes on from
    # one call to the next, and moves neither the training nor another kind.

    def __init__(self) -> None:
        self._positions: dict[str, dict[int, Any]] = {}
        self._kind = ""
        self._outside: dict[int, tuple[Any, Any]] = {}

    def rewind(self) -> None:
        """Begin every kind anew."""
        self._positions.clear()

    def write(self, variables: list[Any]) -> dict[str, States]:
        """The positions of these generators, in a form that JSON can hold."""
        return {
            kind: [one and one[1].tolist() for one in positions]
            for kind, positions in self._list(variables).items()
        }

    def take(self, variables: list[Any], states: dict[str, States]) -> None:
        """Stand where `write` was called: a state or none of each of these."""
        positions = {
            kind: [None if one is None else (VARIABLE, one) for one in values]
            for kind, values in states.items()
        }
        self._stand_at(variables, positions)

    def write_all(self, state: InitialState) -> dict[str, list[Any]]:
        """The positions of all generators, in the order of a state."""
        return self._list([generator for generator, _ in state.generators()])

    def take_all(
        self, state: InitialState, written: dict[str, list[Any]]
    ) -> None:
        """Stand where `write_all` was called."""
        for positions in written.values():
            for kind, value in filter(None, positions):
                if kind != VARIABLE:
                    require_generator_state(kind, value)
        self._stand_at(
            [generator for generator, _ in state.generators()], written
        )

    def _list(self, generators: list[Any]) -> dict[str, list[Any]]:
        """A position or none of each of these, for each kind."""
        return {
            kind: [positions.get(id(one)) for one in generators]
            for kind, positions in self._positions.items()
        }

    def _stand_at(
        self, generators: list[Any], listed: dict[str, list[Any]]
    ) -> None:
        """Stand where `_list` told."""
        self._positions = {
            kind: {
                id(one): position
                for one, position in zip(generators, positions, strict=True)
                if position is not None
            }
            for kind, positions in listed.items()
        }

    @contextmanager
    def evaluating(
        self, state: InitialState | None, kind: str
    ) -> Iterator[None]:
        """Swap the generators to the position of a kind, and back again."""
        self._kind, self._outside = kind, {}
        self.take_up(state)
        try:
            yield
        finally:
            positions = self._positions.setdefault(kind, {})
            for key, (generator, outside) in self._outside.items():
                position = _read(generator, outside[0])
                if position is not None:  # A step that failed can lose it.
                    positions[key] = position
                _put(generator, outside)
            self._outside = {}

    def take_up(
        self,
        state: InitialState | None,
        again: set[int] | frozenset[int] = frozenset(),
    ) -> None:
        """Swap those that are known by now; again when a model is built."""
        # `again`: `id`s of those that were put back since, all the same.
        positions = self._positions.setdefault(self._kind, {})
        for generator, start in () if state is None else state.generators():
            key = id(generator)
            outside = _read(generator, start[0])
            if outside is None or (key in self._outside and key not in again):
                continue
            self._outside[key] = generator, outside
            if key in positions:
                _put(generator, positions[key])
            elif start[0] == VARIABLE:
                start_variable(generator, _derive(start, self._kind))
            else:
                start_generator(generator, _derive(start, self._kind))


def _read(generator: Any, kind: str) -> tuple[str, Any] | None:
    if kind != VARIABLE:
        return copy_generator_state(generator)
    if not get_backend().is_readable(generator):
        return None
    return VARIABLE, read_variable(generator)


def _put(generator: Any, state: tuple[str, Any]) -> None:
    if state[0] == VARIABLE:
        get_backend().assign(generator, state[1])
    else:
        put_generator_state(generator, state)


def _derive(start: tuple[str, Any], kind: str) -> int:
    """A seed from 0 to `2**31 - 1`, which each dtype of a state can hold."""
    value = start[1]
    if hasattr(value, "numpy"):
        value = value.numpy()
    # As lists, since arrays show their ends alone.
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    digest = hashlib.sha256(f"{kind}/{text}".encode())
    return int.from_bytes(digest.digest()[:4], "little") & 0x7FFFFFFF
