"""Generators of random numbers: which objects are, which states can be.

No library is loaded.
"""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import numpy as np

_WORDS = 624  # Of a Mersenne twister.


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether it is a whole number from `low` to `high`, and no boolean."""
    return type(value) is int and low <= value <= high


def is_list_of_whole(value: object, count: int, low: int, high: int) -> bool:
    """Whether it is a list of so many whole numbers in a range."""
    return (
        isinstance(value, list)
        and len(value) == count
        and all(is_whole(one, low, high) for one in value)
    )


def is_twister(words: object, place: object) -> bool:
    """Whether a Mersenne twister can stand there, and goes on to draw."""
    return (
        isinstance(words, list)
        and is_list_of_whole(words, _WORDS, 0, 2**32 - 1)
        # Without any bit it gives zeros for ever, for which some draws wait.
        and (words[0] >= 2**31 or any(words[1:]))
        # NumPy takes a place behind the words, and reads there.
        and is_whole(place, 0, _WORDS)
    )


def is_finite(value: object) -> bool:
    """Whether it is a float that can have been drawn."""
    return isinstance(value, float) and math.isfinite(value)


def is_python_state(state: object) -> bool:
    """Whether it is a state of `random.Random` as JSON holds it."""
    if not isinstance(state, list) or len(state) != 3:
        return False
    version, words, kept = state
    return (
        is_whole(version, 3, 3)
        and isinstance(words, list)
        and is_twister(words[:-1], words[-1] if words else None)
        and (kept is None or is_finite(kept))
    )


def is_numpy_state(state: object) -> bool:
    """Whether it is a state of NumPy's global generator as JSON holds it."""
    if not isinstance(state, list) or len(state) != 5:
        return False
    kind, words, place, has_kept, kept = state
    return (
        kind == "MT19937"
        and is_twister(words, place)
        and is_whole(has_kept, 0, 1)
        and is_finite(kept)
    )


def require_generator_state(kind: object, state: Any) -> None:
    """Raise where a generator of a kind could not stand, or read elsewhere."""
    # NumPy takes some places behind its own words. PyTorch and Keras check
    # what they are given.
    try:
        is_right = _CHECKS[kind](state)
    except (KeyError, TypeError, ValueError, AttributeError):
        is_right = False
    if not is_right:
        msg = f"a generator of {kind!a:.80} cannot stand at {state!a:.80}"
        raise ValueError(msg)


def _is_bits_state(state: Any) -> bool:
    inner = state["state"]
    if state["bit_generator"] == "MT19937":
        return is_twister(inner["key"].tolist(), inner["pos"])
    if state["bit_generator"] == "Philox":
        return is_whole(state["buffer_pos"], 0, len(state["buffer"]))
    return True  # It is numbers alone.


_CHECKS: dict[Any, Any] = {
    "python": lambda one: is_python_state([one[0], list(one[1]), one[2]]),
    "numpy": _is_bits_state,
    "numpy_bits": _is_bits_state,
    "numpy_legacy": lambda one: is_numpy_state(
        [one[0], one[1].tolist(), *one[2:]]
    ),
    "torch": lambda one: hasattr(one, "shape"),
    "keras": lambda one: hasattr(one, "shape"),
}


def name_generator(value: object) -> str | None:
    """What kind of generator an object is; `None` if it is none."""
    # Only its type is looked at, so that no code of the object's own runs.
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    keras_random = getattr(keras, "random", None)
    # Looked up at each call: a watch puts other classes in their place.
    known: tuple[tuple[str, Any], ...] = (
        ("python", random.Random),
        ("numpy", np.random.Generator),
        ("numpy_bits", np.random.BitGenerator),
        ("numpy_legacy", np.random.RandomState),
        ("torch", getattr(torch, "Generator", None)),
        ("keras", getattr(keras_random, "SeedGenerator", None)),
    )
    for name, base in known:
        if isinstance(base, type) and issubclass(type(value), base):
            return name
    return None
