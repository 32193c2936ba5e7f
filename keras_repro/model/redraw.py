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
from keras_repro.backends.variables import (
    new_variables_noted,
    read_variable,
)


@dataclasses.dataclass(frozen=True)
class Draw:
    """What a seed gives a model.

    Attributes:
        values: The drawn values by `id` of the variable.
        streams: Where the streams of the trial stand after the drawing.
        initializers: What made the layer's own values, so that they can be
            made again; `None` where that cannot be known.
        failed: Layers that could not be made from their configuration, as
            `(layer, reason)`.
    """

    values: dict[int, npt.NDArray[Any]]
    initializers: dict[int, Any]
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
    initializers: dict[int, Any] = {}
    failed: list[tuple[Any, str]] = []
    made: dict[int, Any] = {}

    def note(variable: Any, initializer: Any) -> None:
        made[id(variable)] = initializer

    with random_streams.keep_rng(seed), new_variables_noted(note):
        twins = [(unit, *_make_twin(unit)) for unit in drawing_units(model)]
        for unit, twin, reason in twins:
            problem = reason or _build_twin(unit, twin)
            if problem:
                failed.append((unit, problem))
                continue
            seeds = _pair_seeds(twin, unit)
            for own, other in zip(unit.variables, twin.variables, strict=True):
                values[id(own)] = read_variable(other)
                initializers[id(own)] = _with_seed(made.get(id(other)), seeds)
        streams = random_streams.finish_start()
    return Draw(values, initializers, streams, failed)


def _pair_seeds(twin: Any, layer: Any) -> dict[int, int]:
    """The seeds of a twin's initializers, each with the layer's own."""
    theirs, ours = _kept_seeds(twin), _kept_seeds(layer)
    return {seed: ours[name] for name, seed in theirs.items() if name in ours}


def _kept_seeds(layer: Any) -> dict[tuple[int, str], int]:
    return {
        (number, name): value.seed
        for number, part in enumerate(flatten_layers(layer))
        for name, value in vars(part).items()
        if isinstance(value, keras.initializers.Initializer)
        and isinstance(getattr(value, "seed", None), int)
    }


def _with_seed(initializer: Any, seeds: dict[int, int]) -> Any:
    """The initializer that made the layer's own value, if it can be known."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return None
    seed = getattr(initializer, "seed", None)
    if seed is None:
        return initializer
    if not isinstance(seed, int) or seed not in seeds:
        return None
    config = {**initializer.get_config(), "seed": seeds[seed]}
    return type(initializer).from_config(config)


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
            if not getattr(type(twin).build, "_is_default", False):
                twin.build_from_config(config)
            elif len(twin.variables) < len(layer.variables):
                # Without a `build` of its own its first call builds it.
                _call_symbolically(twin, config)
    except Exception as error:  # noqa: BLE001 - a user's class may raise any
        return f"{type(error).__name__}: {error}"
    own = [(tuple(v.shape), v.dtype) for v in layer.variables]
    made = [(tuple(v.shape), v.dtype) for v in twin.variables]
    if own != made:
        return f"it has variables {own}, but its configuration makes {made}"
    return ""


def _call_symbolically(layer: Any, config: dict[str, Any]) -> None:
    """Call a layer with the shapes of its build, and no values."""

    def symbolic(shapes: Any) -> Any:
        return keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, layer.compute_dtype), shapes
        )

    if "input_shape" in config:
        layer(symbolic(config["input_shape"]))
    elif "shapes_dict" in config:
        shapes = config["shapes_dict"].items()
        layer(**{k.removesuffix("_shape"): symbolic(v) for k, v in shapes})


def classify(
    model: Any,
    start: dict[int, npt.NDArray[Any]],
    draw: Draw,
    foreign: set[int],
) -> dict[int, str]:
    """Tell the starts that were drawn from those that somebody put there.

    A start that the layer's own initializer gives was drawn; another was put
    there, and no seed may wipe it out. Where the layer keeps no initializer
    for it nothing can be proven: then what looks random counts as drawn, but
    only as likely so if the layer came to the model already built.
    """
    found: dict[int, str] = {}
    for unit in drawing_units(model):
        for variable in unit.variables:
            key = id(variable)
            if key not in start or key not in draw.values:
                continue
            initializer = draw.initializers[key]
            if initializer is not None:
                if getattr(initializer, "seed", None) is None:
                    continue  # It draws nothing.
                made = initializer(tuple(variable.shape), dtype=variable.dtype)
                value = keras.ops.convert_to_numpy(made)
                if value.tobytes() == start[key].tobytes():
                    found[key] = "drawn"
            elif _looks_random(draw.values[key]):
                found[key] = "likely" if id(unit) in foreign else "drawn"
    return found


def _looks_random(value: npt.NDArray[Any]) -> bool:
    return value.size == 1 or bool(np.any(value != value.flat[:1]))
