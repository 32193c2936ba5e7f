"""Values of the command's arguments: read, or told what they must be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_repro.experiments import Budget

_MAX_SEED = 2**32 - 1


class MisuseError(Exception):
    """What was asked for cannot be done; the message says what to do."""


def to_seed(text: str) -> int:
    """A seed, or what must hold."""
    if text.isascii() and text.isdecimal() and int(text) <= _MAX_SEED:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"must be an integer from 0 to {_MAX_SEED}. Received: {text!r}"
    )


def at_least(low: int) -> Callable[[str], int]:
    """Make a reader of integers from `low` on."""

    def check(text: str) -> int:
        if text.isascii() and text.isdecimal() and int(text) >= low:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"must be an integer from {low} on. Received: {text!r}"
        )

    return check


def _to_number(text: str, must: str, holds: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if holds(value):
        return value
    raise argparse.ArgumentTypeError(f"must be {must}. Received: {text!r}")


def to_positive(text: str) -> float:
    """A finite number above 0."""
    return _to_number(text, "a finite number above 0", _is_positive)


def to_seconds(text: str) -> float:
    """A number of seconds above 0."""
    return _to_number(text, "a number of seconds above 0", _is_positive)


def _is_positive(value: float) -> bool:
    return 0 < value < float("inf")


def to_share(text: str) -> float:
    """A share from 0 to 1."""
    return _to_number(text, "a share from 0 to 1", lambda one: 0 <= one <= 1)


def to_tolerance(text: str) -> float:
    """A finite number, 0 or more."""
    return _to_number(
        text,
        "a finite number, 0 or more",
        lambda one: 0 <= one < float("inf"),
    )


def to_budget(text: str) -> Budget:
    """A number of runs, or of seconds as `300s`."""
    from keras_repro.experiments import Budget  # No other command needs it.

    if text.endswith("s"):
        return Budget(seconds=to_seconds(text.removesuffix("s")))
    return Budget(num_runs=at_least(0)(text))


def to_every(text: str) -> str | int:
    """`epoch`, `batch` or a number of batches."""
    if text in ("epoch", "batch"):
        return text
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(
        "must be `epoch`, `batch` or a positive number of batches. Received: "
        f"{text!r}"
    )
