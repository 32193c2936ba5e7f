"""The backend that Keras runs on, and the generators that are loaded."""

from __future__ import annotations

import sys
from typing import Any

import keras

from keras_repro.backends.jax import JaxBackend
from keras_repro.backends.protocol import Backend
from keras_repro.backends.tensorflow import (
    TensorFlowBackend,
    TensorFlowGenerator,
)
from keras_repro.backends.torch import TorchBackend, TorchGenerator

GENERATORS: dict[str, type[Any]] = {
    one.name: one for one in (TensorFlowGenerator, TorchGenerator)
}


def active_generators() -> list[Any]:
    """The backend generators that this process has loaded."""
    return [make() for name, make in GENERATORS.items() if name in sys.modules]


_BACKENDS: dict[str, type[Backend]] = {
    "tensorflow": TensorFlowBackend,
    "jax": JaxBackend,
    "torch": TorchBackend,
}


def get_backend() -> Backend:
    """The backend that Keras runs on in this process."""
    return _BACKENDS.get(keras.backend.backend(), Backend)()
