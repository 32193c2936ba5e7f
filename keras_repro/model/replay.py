"""Draw a start once more without making its layers.

A start is numbers from Keras' initializers, each with a seed that Keras drew
from Python's `random`. Where that is all that a seed moved, two drawings tell
which of the numbers made which value, and any other seed gives its values by
drawing as many numbers and calling the initializers alone.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.backends import random_streams
from keras_repro.backends.keras_internals import get_global_generator

_MOST_UNUSED = 1000


@dataclasses.dataclass(frozen=True)
class Made:
    """A variable that was made, by what, and its value."""

    variable: Any
    initializer: Any
    value: npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Stream:
    """What was made in one stream."""

    purpose: str  # Empty for the stream of the seed itself.
    seed: int  # Where the stream began.
    made: dict[int, Made]  # By `id` of the variable that it is for.
    # Where the generators stood when all was made.
    end: random_streams.RngState
    # Whether Keras' global generator was used.
    has_generator: bool = dataclasses.field(
        default_factory=lambda: get_global_generator() is not None
    )


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A value that no seed moves, compact."""

    value: npt.NDArray[Any]
    shape: tuple[int, ...]

    def make(self, seeds: list[int]) -> npt.NDArray[Any]:
        del seeds
        return np.full(self.shape, self.value, self.value.dtype)

    def agrees(self, other: Any) -> bool:
        return (
            isinstance(other, _Fixed)
            and self.shape == other.shape
            and self.value.dtype == other.value.dtype
            and self.value.tobytes() == other.value.tobytes()
        )


@dataclasses.dataclass(frozen=True)
class _State:
    """The first state of a generator whose seed was drawn."""

    index: int
    dtype: Any

    def make(self, seeds: list[int]) -> npt.NDArray[Any]:
        return np.array([seeds[self.index], 0], self.dtype)

    def agrees(self, other: Any) -> bool:
        return bool(self == other)


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """A value that an initializer of Keras makes of a drawn seed."""

    index: int
    kind: type
    config: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str

    def make(self, seeds: list[int]) -> npt.NDArray[Any]:
        config = {**self.config, "seed": seeds[self.index]}
        made = self.kind.from_config(config)(self.shape, dtype=self.dtype)  # type: ignore[attr-defined]
        return np.array(keras.ops.convert_to_numpy(made))

    def agrees(self, other: Any) -> bool:
        return bool(self == other)


_Step = _Fixed | _State | _Drawn


@dataclasses.dataclass(frozen=True)
class _StreamRecipe:
    purpose: str
    num_draws: int
    steps: dict[int, _Step]

    def agrees(self, other: _StreamRecipe) -> bool:
        return (
            (self.purpose, self.num_draws) == (other.purpose, other.num_draws)
            and self.steps.keys() == other.steps.keys()
            and all(s.agrees(other.steps[key]) for key, s in self.steps.items())
        )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the values of a start follow from its seed."""

    seed: int
    streams: list[_StreamRecipe]

    def agrees(self, other: Recipe) -> bool:
        """Whether another seed's start was made the same way."""
        return len(self.streams) == len(other.streams) and all(
            a.agrees(b)
            for a, b in zip(self.streams, other.streams, strict=True)
        )

    def replay(
        self, seed: int
    ) -> tuple[dict[int, npt.NDArray[Any]], random_streams.RngState]:
        """The values of a seed, and where its streams then stand."""
        values: dict[int, npt.NDArray[Any]] = {}
        starts = []
        for stream in self.streams:
            own = _own_seed(seed, stream.purpose)
            with random_streams.keep_rng(own):
                seeds = [
                    random_streams.draw_default_seed()
                    for _ in range(stream.num_draws)
                ]
                for key, step in stream.steps.items():
                    values[key] = step.make(seeds)
                starts.append(random_streams.finish_start())
        return values, starts[0]

    def gives(
        self,
        values: dict[int, npt.NDArray[Any]],
        streams: random_streams.RngState,
    ) -> bool:
        """Whether it gives these values and streams for its own seed."""
        replayed, end = self.replay(self.seed)
        return (
            random_streams.is_same(end, streams)
            and replayed.keys() == values.keys()
            and all(
                value.dtype == values[key].dtype
                and value.shape == values[key].shape
                and value.tobytes() == values[key].tobytes()
                for key, value in replayed.items()
            )
        )


def _own_seed(seed: int, purpose: str) -> int:
    return random_streams.derive_seed(seed, purpose) if purpose else seed


def find_recipe(seed: int, streams: list[Stream]) -> Recipe | None:
    """How the values were made, or `None` where that is not certain."""
    found = [_find_stream(stream) for stream in streams]
    complete = [one for one in found if one is not None]
    return Recipe(seed, complete) if len(complete) == len(found) else None


def _find_stream(stream: Stream) -> _StreamRecipe | None:
    seeds = None if stream.has_generator else _find_seeds(stream)
    if seeds is None or len(set(seeds)) < len(seeds):
        return None
    indices = {one: index for index, one in enumerate(seeds)}
    steps = {k: _find_step(one, indices) for k, one in stream.made.items()}
    known = {key: step for key, step in steps.items() if step is not None}
    if len(known) < len(steps):
        return None
    return _StreamRecipe(stream.purpose, len(seeds), known)


def _find_seeds(stream: Stream) -> list[int] | None:
    """The seeds that Keras drew, if nothing else was drawn."""
    seeds: list[int] = []
    with random_streams.keep_rng(stream.seed):
        begun = random_streams.capture_python()
        rest = dataclasses.replace(stream.end, python=begun.python)
        if not random_streams.is_same(begun, rest):
            return None
        most = 4 * len(stream.made) + _MOST_UNUSED
        while random.getstate() != stream.end.python:
            if len(seeds) == most:
                return None
            seeds.append(random_streams.draw_default_seed())
    return seeds


def _find_step(one: Made, indices: dict[int, int]) -> _Step | None:
    """What made a value, if that was Keras' own code."""
    initializer = one.initializer
    is_kind = isinstance(initializer, keras.initializers.Initializer)
    maker = type(initializer) if is_kind else initializer
    if not getattr(maker, "__module__", "").startswith("keras."):
        return None
    value, fixed = one.value, _Fixed(_compact(one.value), one.value.shape)
    if one.variable.name == "seed_generator_state":
        index = indices.get(int(value[0]))
        return fixed if index is None else _State(index, value.dtype)
    seed = getattr(initializer, "seed", None)
    if seed is None:
        return fixed
    if not isinstance(seed, int):
        return None
    if seed not in indices:
        return fixed  # It was given.
    config = {k: v for k, v in initializer.get_config().items() if k != "seed"}
    shape, dtype = tuple(one.variable.shape), str(one.variable.dtype)
    return _Drawn(indices[seed], type(initializer), config, shape, dtype)


def _compact(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One number where all are the same bits."""
    if (
        value.size < 2
        or value.tobytes() != value.flat[:1].tobytes() * value.size
    ):
        return value
    return value.reshape(-1)[:1].reshape(())
