"""Settings of Keras that change results, from one process to another."""

from __future__ import annotations

from typing import Any

import keras

from keras_repro import _backends


def read_settings() -> dict[str, Any]:
    """What another process needs set to compute as this one does.

    Returns:
        Plain values by name, for `apply_settings`.
    """
    backend = _backends.get_backend()
    return {
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": keras.config.dtype_policy().name,
        "deterministic": backend.is_deterministic(),
        "threads": backend.read_threads(),
    }


def apply_settings(settings: dict[str, Any]) -> None:
    """Set in this thread and process what `read_settings` read in another.

    Args:
        settings: What it read.
    """
    keras.config.set_floatx(settings["floatx"])
    keras.config.set_epsilon(settings["epsilon"])
    keras.config.set_image_data_format(settings["image_data_format"])
    if keras.config.dtype_policy().name != settings["dtype_policy"]:
        keras.config.set_dtype_policy(settings["dtype_policy"])
    backend = _backends.get_backend()
    if settings["deterministic"] and not backend.is_deterministic():
        backend.enable_determinism()
    backend.set_threads(settings["threads"])
