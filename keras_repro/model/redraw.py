"""Draw the start that a seed gives, for a model that already exists.

Each layer is made once more from its own configuration, under the seeded
streams of the trial: Keras' own code draws, in the order in which a fresh
process would, and only the values are taken over.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.backends import random_streams
from keras_repro.backends.keras_internals import flatten_layers
from keras_repro.backends.variables import read_variable


@dataclasses.dataclass(frozen=True)
class Draw:
    """What a seed gives a model.

    Attributes:
        values: The drawn values by `id` of the variable.
        streams: Where the streams of the trial stand after the drawing.
        failed: Layers that could not be made from their configuration, as
            `(layer, reason)`.
    """

    values: dict[int, npt.NDArray[Any]]
    streams: random_streams.RngState
    failed: list[tuple[Any, str]]


def drawing_units(model: Any) -> list[Any]:
    """The layers that are drawn as a whole: all but models within models."""
    units: list[Any] = []
    for layer in model.layers:
        inner = (
            drawing_units(layer) if isinstance(layer, keras.Model) else [layer]
        )
        units.extend(
            unit for unit in inner if not any(unit is u for u in units)
        )
    return units


def draw_start(model: Any, seed: int) -> Draw:
    """Draw the weights and generator states that `seed` gives."""
    values: dict[int, npt.NDArray[Any]] = {}
    failed: list[tuple[Any, str]] = []
    with random_streams.keep_rng(seed):
        twins = [(unit, *_make_twin(unit)) for unit in drawing_units(model)]
        for unit, twin, reason in twins:
            problem = reason or _build_twin(unit, twin)
            if problem:
                failed.append((unit, problem))
                continue
            for own, other in zip(unit.variables, twin.variables, strict=True):
                values[id(own)] = read_variable(other)
        streams = random_streams.finish_start()
    return Draw(values, streams, failed)


def _make_twin(layer: Any) -> tuple[Any, str]:
    if isinstance(layer, keras.layers.InputLayer):
        return layer, ""
    try:
        return type(layer).from_config(layer.get_config()), ""
    except Exception as error:  # noqa: BLE001 - a user's class may raise any
        return None, f"{type(error).__name__}: {error}"


def _build_twin(layer: Any, twin: Any) -> str:
    """Build the twin as the layer was built; say why it cannot be."""
    try:
        config = layer.get_build_config()
        if config and not twin.built:
            twin.build_from_config(config)
    except Exception as error:  # noqa: BLE001 - a user's class may raise any
        return f"{type(error).__name__}: {error}"
    own = [(tuple(v.shape), v.dtype) for v in layer.variables]
    made = [(tuple(v.shape), v.dtype) for v in twin.variables]
    if own != made:
        return f"it has variables {own}, but its configuration makes {made}"
    return ""


def classify(
    model: Any,
    start: dict[int, npt.NDArray[Any]],
    draw: Draw,
    foreign: set[int],
) -> dict[int, str]:
    """Tell the starts that were drawn from those that somebody put there.

    A start that one of the layer's own initializers gives was drawn; one
    that none of them gives was put there, and no seed may wipe it out. Where
    a layer keeps no random initializer nothing can be proven: then what
    looks random counts as drawn, but only as likely so if the layer came to
    the model already built.
    """
    found: dict[int, str] = {}
    for unit in drawing_units(model):
        initializers = _initializers(unit)
        for variable in unit.variables:
            key = id(variable)
            if key not in start or key not in draw.values:
                continue
            if initializers:
                if _is_drawn(start[key], variable, initializers):
                    found[key] = "drawn"
            elif _looks_random(draw.values[key]):
                found[key] = "likely" if id(unit) in foreign else "drawn"
    return found


def _looks_random(value: npt.NDArray[Any]) -> bool:
    return value.size == 1 or bool(np.any(value != value.flat[:1]))


def _initializers(layer: Any) -> dict[str, Any]:
    """Random initializers that a layer keeps, by the variable they are for."""
    found: dict[str, Any] = {}
    for number, part in enumerate(flatten_layers(layer)):
        for name, value in vars(part).items():
            if isinstance(value, keras.initializers.Initializer) and isinstance(
                getattr(value, "seed", None), int
            ):
                found[f"{name.removesuffix('_initializer')}#{number}"] = value
    return found


def _is_drawn(
    value: npt.NDArray[Any], variable: Any, initializers: dict[str, Any]
) -> bool:
    if not value.size or not _looks_random(value):
        return False
    likely = [
        initializer
        for name, initializer in initializers.items()
        if name.split("#")[0] == variable.name
    ]
    for initializer in likely or list(initializers.values()):
        try:
            made = initializer(tuple(variable.shape), dtype=variable.dtype)
        except Exception:  # noqa: BLE001 - not for this shape
            continue
        if keras.ops.convert_to_numpy(made).tobytes() == value.tobytes():
            return True
    return False
