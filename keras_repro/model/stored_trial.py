"""Where a trial stands, as a file holds it: nothing in it is trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_repro.backends.random_streams import (
    RngState,
    rng_from_json,
    rng_to_json,
)
from keras_repro.common.checks import MAX_SEED
from keras_repro.common.generators import is_whole
from keras_repro.common.json import check_fields
from keras_repro.model.midst import Midst

# What a seed moves; the rest of the trial is then that of `FIXED_SEED`.
ALL, INITIAL, ORDER, RANDOM = "all", "initial", "order", "random"
VARY = (ALL, INITIAL, ORDER, RANDOM)
FIXED_SEED = 0
VALIDATION, TEST, PREDICT = "validation", "test", "predict"
KINDS = (VALIDATION, TEST, PREDICT)  # Of evaluations.
_MOST_EPOCHS = 2**31 - 1

# A state of each generator of the layers, `None` where there is none yet.
States = list[Any]


@dataclasses.dataclass(frozen=True)
class StoredTrial:
    """Where a trial stands."""

    seed: int
    vary: str  # What the seed moves.
    start: RngState  # Where the random streams began.
    position: RngState  # Where they stand.
    epochs_trained: int
    at_start: bool  # Whether it stands at its start.
    has_trained: bool
    starts_apart: bool  # Whether the streams begin at the seed alone.
    random: States  # Where each generator of the layers stands.
    # By kind of evaluation: streams, and generators of the layers.
    evaluations: dict[str, RngState]
    evaluations_random: dict[str, States]
    midst: Midst | None = None  # Where in an epoch, if it is in one.

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        # Files without it are read by versions that know of none.
        midst = plain.pop("midst")
        return {
            **plain,
            **({} if midst is None else {"midst": midst.to_json()}),
            "start": rng_to_json(self.start),
            "position": rng_to_json(self.position),
            "evaluations": {
                kind: rng_to_json(one) for kind, one in self.evaluations.items()
            },
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The trial that `to_json` wrote, which can be gone on with."""
        check_fields(data, _CHECKS, optional=frozenset(_LATER))
        known = {**_LATER, **data}
        positions = {
            name: _read_position(name, known[name])
            for name in ("start", "position")
        }
        evaluations = {
            kind: _read_position(f"evaluations.{kind}", one)
            for kind, one in known["evaluations"].items()
        }
        midst = known["midst"] and Midst.from_json(known["midst"])
        return cls(
            **{
                **known,
                **positions,
                "evaluations": evaluations,
                "midst": midst,
            }
        )


def _read_position(name: str, data: Any) -> RngState:
    try:
        return rng_from_json(data)
    except ValueError as error:
        msg = f"{name}: {error}"
        raise ValueError(msg) from None


def read_states(variables: list[Any], states: States) -> States:
    """The states of generators, each as its variable can be assigned it."""
    if len(states) != len(variables):
        msg = f"states of {len(states)} generators for {len(variables)}"
        raise ValueError(msg)
    return [
        None if state is None else _read_state(variable, state)
        for variable, state in zip(variables, states, strict=True)
    ]


def _read_state(variable: Any, state: Any) -> npt.NDArray[Any]:
    dtype, found = np.dtype(variable.dtype), np.asarray(state)
    if found.shape == tuple(variable.shape) and found.dtype.kind in "iu":
        value: npt.NDArray[Any] = found.astype(dtype)
        if value.tolist() == state:  # It fits.
            return value
    msg = f"a state of {dtype} and shape {tuple(variable.shape)} is {state!a}"
    raise ValueError(f"{msg:.200}")


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _are_states(value: object) -> bool:
    return isinstance(value, list)


def _by_kind(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: object) -> bool:
        return isinstance(value, dict) and all(
            kind in KINDS and is_one(one) for kind, one in value.items()
        )

    return check


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "seed": lambda value: is_whole(value, 0, MAX_SEED),
    "vary": lambda value: value in VARY,
    "start": _is_object,
    "position": _is_object,
    "epochs_trained": lambda value: is_whole(value, 0, _MOST_EPOCHS),
    "at_start": _is_flag,
    "has_trained": _is_flag,
    "starts_apart": _is_flag,
    "random": lambda value: _are_states(value) and None not in value,
    "evaluations": _by_kind(_is_object),
    "evaluations_random": _by_kind(_are_states),
    "midst": lambda value: value is None or _is_object(value),
}
# What the first files did not have.
_LATER: dict[str, Any] = {
    "vary": ALL,
    "starts_apart": False,
    "evaluations": {},
    "evaluations_random": {},
    "midst": None,
}
