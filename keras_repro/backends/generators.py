"""Generators of random numbers that somebody keeps: read and put back."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np

from keras_repro.backends.active import get_backend
from keras_repro.common.generators import name_generator


def copy_generator_state(generator: Any) -> tuple[str, Any] | None:
    """State of a generator that somebody keeps; `None` of other objects."""
    kind = name_generator(generator)
    if kind == "python" and not isinstance(generator, random.SystemRandom):
        return kind, generator.getstate()
    if kind == "numpy":
        return kind, copy.deepcopy(generator.bit_generator.state)
    if kind == "numpy_bits":
        return kind, copy.deepcopy(generator.state)
    if kind == "numpy_legacy":
        return kind, generator.get_state()
    if kind == "keras":
        return kind, np.array(generator.state)
    if kind == "torch":
        return kind, generator.get_state().clone()
    return None


def put_generator_state(generator: Any, state: tuple[str, Any]) -> None:
    """Write what `copy_generator_state` gave back into the same object."""
    kind, value = state
    if kind == "python":
        generator.setstate(value)
    elif kind == "numpy":
        generator.bit_generator.state = copy.deepcopy(value)
    elif kind == "numpy_bits":
        generator.state = copy.deepcopy(value)
    elif kind == "keras":
        get_backend().assign(generator.state, value)
    else:
        generator.set_state(value)


def start_variable(variable: Any, seed: int) -> None:
    """Begin a `SeedGenerator` anew by the variable that is its state."""
    dtype = np.array(get_backend().view(variable)).dtype
    get_backend().assign(variable, np.array([seed, 0], dtype))


def start_generator(generator: Any, seed: int) -> None:
    """Begin anew, from a seed, one that `copy_generator_state` knows."""
    # The seed is from 0 to `2**31 - 1`, which each dtype of a state can hold.
    kind = name_generator(generator)
    if kind == "keras":
        start_variable(generator.state, seed)
    elif kind == "numpy":
        start_generator(generator.bit_generator, seed)
    elif kind == "numpy_bits":
        generator.state = type(generator)(seed).state
    elif kind in ("python", "numpy_legacy"):
        generator.seed(seed)
    else:
        generator.manual_seed(seed)
