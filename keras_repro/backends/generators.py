"""Generators of random numbers that somebody keeps: read and put back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_repro.backends.active import get_backend
from keras_repro.common.generators import name_generator


def copy_generator_state(generator: Any) -> tuple[str, Any] | None:
    """State of a generator object that somebody keeps, or `None`.

    Knows `random.Random`, NumPy's `Generator` and `RandomState`,
    `torch.Generator` and Keras' `SeedGenerator`.
    """
    kind = name_generator(generator)
    if kind == "python":
        return kind, generator.getstate()
    if kind == "numpy":
        return kind, copy.deepcopy(generator.bit_generator.state)
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
    elif kind == "keras":
        get_backend().assign(generator.state, value)
    else:
        generator.set_state(value)
