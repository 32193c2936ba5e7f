"""Checks that several folders make of what a person gives."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import TypeGuard

MAX_SEED = 2**32 - 1
LARGEST_INT = 2**63 - 1  # Of a run's file.
_MOST_DIGITS = 19  # Python refuses to read very long numbers.


def read_whole(text: str) -> int | None:
    """The whole number, 0 or more, that a text is; `None` for any other.

    Example:
        >>> read_whole("007"), read_whole("-1"), read_whole("")
        (7, None, None)
    """
    is_whole = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if is_whole else None


def read_seed(text: str) -> int | None:
    """The seed that a text is; `None` where it is none."""
    number = read_whole(text)
    return number if number is not None and number <= MAX_SEED else None


def check_seed(seed: object) -> int:
    """Return the seed as an `int`, or say what is wrong with it."""
    # NumPy's integers are of this kind, without NumPy being loaded.
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(
            f"`seed` must be an integer from 0 to {MAX_SEED}. "
            f"Received: {seed!r} (of type {type(seed).__name__}). "
            "Pass an integer, for example `seed=42`."
        )
    if not 0 <= int(seed) <= MAX_SEED:
        raise ValueError(
            f"`seed` must be an integer from 0 to {MAX_SEED}. "
            f"Received: {seed}. Take it modulo 2**32."
        )
    return int(seed)


def is_every(value: object) -> TypeGuard[str | int]:
    """Whether a run can be recorded so often: epochs, batches, or N batches."""
    if isinstance(value, str):
        return value in ("epoch", "batch")
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return 0 < value <= LARGEST_INT


def check_path(path: object, advice: str) -> Path:
    """Return a path that a person gave, or say what is wrong with it."""
    if isinstance(path, (str, os.PathLike)):
        return Path(path)
    raise TypeError(
        "`path` must be a str or an os.PathLike. Received: "
        f"{path!r} (of type {type(path).__name__}). Pass {advice}."
    )
