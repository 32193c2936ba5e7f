"""State that layers keep in plain attributes, where Keras does not see it.

A custom layer may hold a `random.Random`, a NumPy or torch generator, a list
of `SeedGenerator`s, or a counter. A bounded scan finds them, so that `reset()`
can put them back. What it cannot see is said in docs/guarantees.md.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.backends.generators import (
    copy_generator_state,
    put_generator_state,
)
from keras_repro.common.generators import require_generator_state

_MAX_ITEMS = 1000
_COUNTERS = (bool, int, float, str, type(None))


@dataclasses.dataclass(frozen=True)
class _Kept:
    """One thing that was found: how to put it back."""

    owner: Any
    name: str
    value: Any
    is_generator: bool
    place: int = 0

    def put_back(self) -> None:
        if self.is_generator:
            put_generator_state(self.owner, self.value)
            return
        now = getattr(self.owner, self.name, self)
        if isinstance(self.value, np.ndarray):
            # In place, since others may hold the same array; where it became
            # another one, or no array at all, a new one takes its place.
            if isinstance(now, np.ndarray) and _is_alike(now, self.value):
                np.copyto(now, self.value)
            else:
                setattr(self.owner, self.name, self.value.copy())
        elif type(now) is not type(self.value) or now != self.value:
            setattr(self.owner, self.name, self.value)


class AttributeState:
    """What a bounded scan of objects found, and how it stood."""

    def __init__(
        self,
        owners: list[Any],
        # `id`s of variables that Keras tracks and others put back.
        tracked: frozenset[int] | set[int] = frozenset(),
        *,
        # Whether counters count in objects of Keras' classes too.
        all_values: bool = False,
    ) -> None:
        self._kept: list[_Kept] = []
        self._owners = owners
        seen = set(tracked)
        for place, owner in enumerate(owners):
            self._kept.extend(
                dataclasses.replace(kept, place=place)
                for kept in _scan(owner, seen, all_values=all_values)
            )

    def generators(self) -> Iterator[tuple[Any, tuple[str, Any]]]:
        """The generators that were found, each with its state."""
        for kept in self._kept:
            if kept.is_generator:
                yield kept.owner, kept.value

    def describe(self) -> dict[str, str]:
        """What was found, by the name of the attribute, as text."""
        found: dict[str, str] = {}
        for kept in self._kept:
            value = kept.value
            if isinstance(value, np.ndarray):
                value = value.tobytes()
            found.setdefault(kept.name, repr(value))
        return found

    def restore(self) -> None:
        """Put everything that was found back in place."""
        for kept in self._kept:
            kept.put_back()

    def values(self) -> dict[str, Any]:
        """How everything stood, by its place among the objects and its name."""
        return {key: kept.value for key, kept in self._named()}

    def with_values(self, values: dict[str, Any]) -> AttributeState:
        """The same things as they stood when `values` was called."""
        # What has come since stays as it is; what is not there yet comes.
        now = dict(self._named())
        result = AttributeState([])
        for key, value in values.items():
            kept = now.get(key)
            if kept is None:
                place, _, name = key.partition(".")
                if isinstance(value, tuple):
                    msg = f"the generator {name!a:.80} is not there"
                    raise ValueError(msg)
                owner = self._owners[int(place)]
                kept = _Kept(owner, name, value, is_generator=False)
            if kept.is_generator:
                require_generator_state(*value)
            result._kept.append(dataclasses.replace(kept, value=value))
        return result

    def _named(self) -> Iterator[tuple[str, _Kept]]:
        counts: Counter[str] = Counter()
        for kept in self._kept:
            key = f"{kept.place}.{kept.name}"
            counts[key] += 1
            # Several generators may lie in one container.
            number = counts[key] if kept.is_generator else 0
            yield f"{key}#{number}" if number else key, kept


def _is_alike(now: npt.NDArray[Any], value: npt.NDArray[Any]) -> bool:
    return (now.shape, now.dtype) == (
        value.shape,
        value.dtype,
    ) and now.flags.writeable


def _scan(owner: Any, seen: set[int], *, all_values: bool) -> Iterator[_Kept]:
    """Generators of any object; counters of the user's own classes too."""
    is_users = all_values or _is_users(type(owner))
    ordinary: frozenset[str] = frozenset()
    if is_users and isinstance(owner, keras.Layer):
        is_model = isinstance(owner, keras.Model)
        ordinary = _ordinary_names(keras.Model if is_model else keras.Layer)
    for name, value in list(getattr(owner, "__dict__", {}).items()):
        yield from _generators(name, value, seen, depth=2)
        if name in ordinary or not is_users:
            continue
        if type(value) in _COUNTERS:
            yield _Kept(owner, name, value, is_generator=False)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            yield _Kept(owner, name, value.copy(), is_generator=False)


def _generators(
    name: str, value: Any, seen: set[int], depth: int
) -> Iterator[_Kept]:
    if id(value) in seen or id(getattr(value, "state", value)) in seen:
        return
    state = copy_generator_state(value)
    if state is not None:
        seen.add(id(value))
        yield _Kept(value, name, state, is_generator=True)
    elif depth and isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        for item in list(items)[:_MAX_ITEMS]:
            yield from _generators(name, item, seen, depth - 1)


def _is_users(cls: type) -> bool:
    return cls.__module__.split(".")[0] not in {"keras", "keras_repro", "torch"}


@functools.cache
def _ordinary_names(kind: type) -> frozenset[str]:
    """Attribute names that every object of a Keras kind has."""
    # Named, so that Keras' counters of automatic names stay where they are.
    return frozenset(vars(kind(name="ordinary")))
