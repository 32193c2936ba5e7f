"""Checks of what a person gives: each returns the clean value, or refuses it.

An error says what must hold, what came and what to do. Of a value the wrong
type raises a `TypeError`, all else a `ValueError`. The command reads text by
the same rules.
"""

from __future__ import annotations

import errno
import inspect
import math
import operator
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from keras_repro.common.text import describe

MAX_SEED = 2**32 - 1
LARGEST_INT = 2**63 - 1  # Of a run's file.
MOST_TRIALS = 1_000_000
MOST_WORKERS = 1024  # Processes or threads on one machine.
_MOST_DIGITS = 19  # Python refuses to read very long numbers.


# --- errors ------------------------------------------------------------------


def wrong_type(name: str, must: str, value: object, advice: str) -> TypeError:
    """The error of a value that is of another type."""
    told = describe(value, typed=True)
    return TypeError(f"`{name}` must {must}. Received: {told}. {advice}")


def wrong_value(name: str, must: str, value: object, advice: str) -> ValueError:
    """The error of a value that is of the type, and not one of these."""
    return ValueError(
        f"`{name}` must {must}. Received: {describe(value)}. {advice}"
    )


# --- integers ----------------------------------------------------------------


def say_integers(low: int, high: int | None = None) -> str:
    """Which integers are allowed, in words."""
    return f"an integer from {low} {'on' if high is None else f'to {high}'}"


def check_int(
    name: str,
    value: object,
    low: int,
    high: int | None = None,
    *,
    advice: str = "Pass one of these.",
) -> int:
    """An integer of Python, NumPy or any that can stand for one; no bool."""
    must = f"be {say_integers(low, high)}"
    number = to_int(value)
    if number is None:
        raise wrong_type(name, must, value, advice)
    if number < low or (high is not None and number > high):
        raise wrong_value(name, must, number, advice)
    return number


def to_int(value: object) -> int | None:
    """The integer that a value is; `None` for any other, and for a bool."""
    with suppress(Exception):  # What its own methods raise.
        # A tensor of truth values says that it is an integer, as a bool does,
        # and one that holds a single integer in a row does.
        is_truth = "bool" in str(getattr(value, "dtype", ""))
        is_row = bool(tuple(getattr(value, "shape", ())))
        if not (is_truth or is_row or isinstance(value, bool)):
            return operator.index(value)  # type: ignore[arg-type]
    return None


def check_seed(seed: object) -> int:
    """Return the seed as an `int`, or say what is wrong with it."""
    advice = "Pass one, such as `seed=42`; take a larger one modulo 2**32."
    return check_int("seed", seed, 0, MAX_SEED, advice=advice)


def check_every(every: object) -> str | int:
    """How often a run is recorded: each epoch, each batch, or N batches."""
    text = _to_text(every)
    if text in ("epoch", "batch"):
        return text
    number = to_int(every)
    must = 'be "epoch", "batch" or a positive number of batches'
    advice = "Leave it out to record each epoch."
    if number is not None and 0 < number <= LARGEST_INT:
        return number
    is_kind = number is not None or text is not None
    refuse = wrong_value if is_kind else wrong_type
    raise refuse("every", must, every, advice)


def check_save_freq(name: str, value: object) -> str | int:
    """How often a training is backed up: each epoch, or each N batches."""
    if isinstance(value, str):
        return check_choice(name, value, ("epoch",))
    advice = 'Pass "epoch", or a number of batches such as 500.'
    return check_int(name, value, 1, advice=advice)


def read_whole(text: str) -> int | None:
    """The whole number, 0 or more, that a text is; `None` for any other."""
    is_whole = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if is_whole else None


def read_seed(text: str) -> int | None:
    """The seed that a text is; `None` where it is none."""
    number = read_whole(text)
    return number if number is not None and number <= MAX_SEED else None


# --- other numbers -----------------------------------------------------------


class Range(NamedTuple):
    """Which numbers there may be, in words and as a test; NaN never is one."""

    says: str
    holds: Callable[[float], bool]


NUMBER = Range("a number", lambda one: not math.isnan(one))
FINITE = Range("a finite number", math.isfinite)
POSITIVE = Range("a finite number above 0", lambda one: 0 < one < math.inf)
NOT_NEGATIVE = Range(
    "a finite number, 0 or more", lambda one: 0 <= one < math.inf
)
SECONDS = Range(
    "a number of seconds above 0 that a thread can wait",
    lambda one: 0 < one <= threading.TIMEOUT_MAX,
)
SHARE = Range("a share from 0 to 1", lambda one: 0 <= one <= 1)
INNER_SHARE = Range(
    "a number strictly between 0 and 1", lambda one: 0 < one < 1
)


def check_number(name: str, value: object, among: Range, advice: str) -> float:
    """A real number of Python or NumPy, as a `float`; no bool."""
    must = f"be {among.says}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(name, must, value, advice)
    try:
        number = float(value)
    except OverflowError:  # An integer that no float holds.
        number = math.inf
    except Exception as error:  # What its own methods raise.
        raise wrong_type(name, must, value, advice) from error
    if not among.holds(number):
        raise wrong_value(name, must, value, advice)
    return number


# --- words -------------------------------------------------------------------


def check_flag(name: str, value: object) -> bool:
    """True or False, of Python or NumPy."""
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(value)
    if not isinstance(value, bool):
        must = "be True or False"
        raise wrong_type(name, must, value, "Pass one of the two.")
    return value


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of a few words; the first is what there is without the argument."""
    must = f"be one of {', '.join(map(repr, choices))}"
    advice = f"Leave it out for {choices[0]!r}."
    text = _to_text(value)
    if text is None:
        raise wrong_type(name, must, value, advice)
    if text not in choices:
        raise wrong_value(name, must, value, advice)
    return text


def check_name(name: str, value: object, advice: str) -> str:
    """A text that is not empty."""
    must = "be a str that is not empty"
    text = _to_text(value)
    if text is None:
        raise wrong_type(name, must, value, advice)
    if not text:
        raise wrong_value(name, must, value, advice)
    return text


def _to_text(value: object) -> str | None:
    """What a text holds, also one that is of a class of its own."""
    return str.__str__(value) if isinstance(value, str) else None


# --- files, objects, functions -----------------------------------------------


def check_path(name: str, value: object, advice: str) -> Path:
    """A path that the system can look up, whether there is something or not."""
    text: object = None
    with suppress(Exception):  # What its own methods raise.
        text = os.fspath(value)  # type: ignore[call-overload]
    if not isinstance(text, str):
        must = "be a str or an os.PathLike"
        raise wrong_type(name, must, value, advice)
    if not is_place(text):
        must = "be a path that files of this system can have"
        raise wrong_value(name, must, value, advice)
    return Path(str.__str__(text))


def is_place(text: str) -> bool:
    """Whether the system could have a file there: no empty text, no NUL."""
    try:
        os.lstat(text or "\0")
    except ValueError:
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def check_kind(
    name: str, value: Any, kind: type[Any], advice: str, *, must: str = ""
) -> Any:
    """An object of a class."""
    if not isinstance(value, kind):
        raise wrong_type(name, must or f"be a {kind.__name__}", value, advice)
    return value


def check_items(
    name: str, value: Any, kind: type[Any], advice: str
) -> list[Any]:
    """Objects of a class, however many; the first other one is refused."""
    must = f"hold objects of the class {kind.__name__}"
    return [
        check_kind(name, one, kind, advice, must=must)
        for one in iterate(name, value, must, advice)
    ]


def iterate(name: str, value: Any, must: str, advice: str) -> Iterable[Any]:
    """Go through what a person gave; text is no row of things."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        raise wrong_type(name, must, value, advice)
    try:
        found: Iterable[Any] = iter(value)
    except Exception as error:  # What its own methods raise.
        raise wrong_type(name, must, value, advice) from error
    return found


def check_function(
    name: str, value: Any, arguments: tuple[Any, ...], must: str, advice: str
) -> Any:
    """A function that can be called with these arguments, as far as it says."""
    if not callable(value):
        raise wrong_type(name, must, value, advice)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return value  # One that is written in C may say nothing of itself.
    try:
        signature.bind(*arguments)
    except TypeError as error:
        advice = f"It cannot be called so: {error}. {advice}"
        raise wrong_type(name, must, value, advice) from error
    return value
