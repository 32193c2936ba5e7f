"""Layers made once more, without values: copied, called, adapted.

What a layer was made of and called with stands in private attributes of Keras
(3.12 to 3.15). Each is guarded: without it a layer cannot be made this way,
and the person is told to give it a `get_config`.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import MethodType
from typing import Any

import keras

from keras_repro.backends.generators import (
    copy_generator_state,
    start_generator,
)
from keras_repro.backends.keras_internals import (
    flatten_layers,
    functional_class,
)

# A call of a layer: positional and keyword arguments. Without one its parts
# are built.
Call = tuple[tuple[Any, ...], dict[str, Any]] | None

_ADAPTER = ("lora_rank", "lora_alpha")
# What Keras puts into a layer, and what TensorFlow and PyTorch add to it.
_OF_A_LAYER = {"build", "quantize", "_auto_config", "_modules", "_torch_params"}
_OF_A_BACKEND = ("_self_", "_tf_", "_obj_reference", "_saved_model_")
# Set for a plain layer too, but with a meaning that its class may change.
_SETTINGS = (
    "_supports_masking",
    "_input_spec",
    "_convert_input_args",
    "_allow_non_tensor_positional_args",
    "supports_jit",
)
_ABSENT = object()


def recorded_arguments(layer: Any) -> dict[str, Any]:
    """The constructor's arguments, which Keras notes if they are plain."""
    recorded = getattr(layer, "_auto_config", None)
    if recorded is None:
        msg = "its constructor was given objects that Keras does not note"
        raise TypeError(msg)
    return dict(recorded.config)


def is_adapted(layer: Any) -> bool:
    """Whether LoRA was enabled in it, or a part of it quantized."""
    return any(_has_lora(p) or _is_quantized(p) for p in flatten_layers(layer))


def _has_lora(layer: Any) -> bool:
    return getattr(layer, "lora_enabled", False) is True


def _is_quantized(layer: Any) -> bool:
    return getattr(layer, "_is_quantized", False) is True


def fresh_config(layer: Any) -> dict[str, Any]:
    """The configuration that the layer had before it was adapted."""
    config: dict[str, Any] = layer.get_config()
    if not is_adapted(layer):
        return config
    recorded = getattr(layer, "_auto_config", None)
    given = {} if recorded is None else recorded.config
    if _has_lora(layer) and not given.get("lora_rank"):
        config = {k: v for k, v in config.items() if k not in _ADAPTER}
    policy = keras.dtype_policies.get(given.get("dtype"))
    if policy.quantization_mode is None:  # Else it was made as what it is.
        config = _without_quantization(config)
    return config


def _without_quantization(config: Any) -> Any:
    if isinstance(config, (list, tuple)):
        return type(config)(map(_without_quantization, config))
    if not isinstance(config, dict):
        return config
    inner = config.get("config")
    if isinstance(inner, dict) and {"mode", "source_name"} <= set(inner):
        name = inner["source_name"]
        return keras.dtype_policies.serialize(keras.DTypePolicy(name))
    return {
        key: None
        if key == "quantization_config"
        else _without_quantization(one)
        for key, one in config.items()
    }


def enable_lora_like(twin: Any, layer: Any) -> None:
    """Enable LoRA where it was enabled in the layer."""
    for part, other in _pair_parts(twin, layer):
        if _has_lora(part) and not _has_lora(other):
            alpha = getattr(part, "lora_alpha", None)
            other.enable_lora(part.lora_rank, lora_alpha=alpha)


def quantize_like(twin: Any, layer: Any) -> None:
    """Quantize what was quantized in the layer."""
    for part, other in _pair_parts(twin, layer):
        if _is_quantized(part) and not _is_quantized(other):
            config = getattr(part, "quantization_config", None)
            more = {} if config is None else {"config": config}
            mode = part.quantization_mode
            other.quantize(mode, type_check=False, **more)


def _pair_parts(twin: Any, layer: Any) -> list[tuple[Any, Any]]:
    parts, others = flatten_layers(layer), flatten_layers(twin)
    if [type(one) for one in parts] != [type(one) for one in others]:
        msg = "the parts that LoRA or a quantization changed are not known"
        raise ValueError(msg)
    return list(zip(parts, others, strict=True))


# --- calling -----------------------------------------------------------------


def recorded_calls(layer: Any) -> list[Call]:
    """Symbolic calls that may build a layer as it was, the likeliest first."""
    # A layer in a graph keeps what it was called with; of another one only the
    # shapes of its build are known, and its types are tried. Last comes none.
    nodes = getattr(layer, "_inbound_nodes", None)
    if nodes:
        called = nodes[0].arguments
        fresh = keras.tree.map_structure(_fresh, (called.args, called.kwargs))
        return [fresh, None]
    types = dict.fromkeys((layer.compute_dtype, "int32"))
    # A class of the person's may describe its build in its own way.
    with suppress(Exception):
        config = layer.get_build_config() or {}
        if config.keys() & {"input_shape", "shapes_dict"}:
            calls = [_call_of_shapes(layer, config, dtype) for dtype in types]
            return [*calls, None]
    return [None]


def _fresh(value: Any) -> Any:
    """A tensor of a graph of its own, so that the model's stays as it is."""
    if not isinstance(value, keras.KerasTensor):
        return value
    return keras.KerasTensor(
        value.shape, value.dtype, sparse=getattr(value, "sparse", False)
    )


def _call_of_shapes(layer: Any, config: dict[str, Any], dtype: str) -> Call:
    def symbolic(shapes: Any) -> Any:
        return keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, dtype), shapes
        )

    shapes = config.get("shapes_dict", {}).items()
    named = {k.removesuffix("_shape"): symbolic(v) for k, v in shapes}
    if "input_shape" not in config:
        return (), named
    # Keras notes the first shape alone where a layer has no `build`.
    needed = [
        one
        for one in inspect.signature(layer.call).parameters.values()
        if one.default is one.empty
        and one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}
    ]
    shape = config["input_shape"]
    return tuple(symbolic(shape) for _ in range(len(needed) or 1)), named


def build_like(twin: Any, layer: Any, call: Call) -> None:
    """Build a twin as the layer was built, by a call where that is needed."""
    _build_itself(twin, layer)
    count = len(layer.variables)
    if len(twin.variables) >= count:
        return
    if call is None:
        _build_parts(twin, layer)
        return
    args, kwargs = call
    twin(*args, **kwargs)
    if len(twin.variables) < count:
        # Its output was computed without what it does.
        from keras.src import backend

        backend.compute_output_spec(twin.call, *args, **kwargs)


def _build_itself(twin: Any, layer: Any) -> None:
    config = layer.get_build_config()
    has_build = not getattr(type(twin).build, "_is_default", False)
    if config and has_build and not twin.built:
        twin.build_from_config(config)


def _build_parts(twin: Any, layer: Any) -> None:
    """Build each layer in a layer with the shapes that it was built with."""
    # After each is built: it may have made some of its parts then.
    for other, part in zip(twin._layers, layer._layers, strict=False):
        _build_itself(other, part)
        _build_parts(other, part)


# --- copying -----------------------------------------------------------------


def copy_unbuilt(layer: Any, blank: Any = _ABSENT) -> Any:
    """A copy without variables, whose initializers draw new seeds."""
    # Its class gives it methods and trackers of its own; Keras' initializers
    # and generators are made from their configurations, in which a seed stands
    # only if it was given; layers in it are copied the same way. An attribute
    # that held a variable is `blank`, or absent.
    return _Copier(blank).copy(layer)


class _Copier:
    """Copies one layer, and each part of it once."""

    def __init__(self, blank: Any) -> None:
        self._blank = blank
        self._copies: dict[int, Any] = {}

    def copy(self, value: Any) -> Any:
        """Copy what belongs to a layer; share all else."""
        if isinstance(value, keras.Variable):
            return _ABSENT
        if isinstance(value, MethodType) and isinstance(
            value.__self__, keras.Layer
        ):
            return MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, (dict, list, tuple, set)):
            return self._copy_items(value)
        make = self._maker(value)
        if make is None:
            return value
        if id(value) not in self._copies:
            self._copies[id(value)] = make(value)
        return self._copies[id(value)]

    def _maker(self, value: Any) -> Callable[[Any], Any] | None:
        if isinstance(value, keras.Layer):
            return self._copy_layer
        if isinstance(
            value,
            keras.initializers.Initializer
            | keras.random.SeedGenerator
            | keras.metrics.Metric,
        ):
            return _remake
        if isinstance(value, keras.Operation):
            return _copy_operation
        if copy_generator_state(value) is not None:
            return _copy_generator
        return None

    def _copy_items(self, value: Any) -> Any:
        if isinstance(value, dict):
            items = {key: self.copy(one) for key, one in value.items()}
            return {k: one for k, one in items.items() if one is not _ABSENT}
        kept = [one for one in map(self.copy, value) if one is not _ABSENT]
        if isinstance(value, list):
            return kept
        if hasattr(value, "_fields"):
            return type(value)(*kept)
        return set(kept) if isinstance(value, set) else tuple(kept)

    def _copy_layer(self, layer: Any) -> Any:
        if isinstance(layer, (keras.Sequential, functional_class())):
            return keras.models.clone_model(layer, clone_function=self.copy)
        if all(_is_of_keras(part) for part in flatten_layers(layer)):
            # Not if it holds a function or an object that is not registered.
            with suppress(Exception):
                return type(layer).from_config(fresh_config(layer))
        return self._copy_attributes(layer)

    def _copy_attributes(self, layer: Any) -> Any:
        made: Any = layer.__class__.__new__(layer.__class__)
        self._copies[id(layer)] = made  # For what refers back to it.
        kind = keras.Model if isinstance(layer, keras.Model) else keras.Layer
        kind.__init__(made, name=layer.name, dtype=_fresh_policy(layer))
        ordinary = set(vars(kind(name="ordinary"))) | _OF_A_LAYER
        for name in _SETTINGS:
            if name in vars(layer):
                setattr(made, name, vars(layer)[name])
        made.autocast = layer.autocast
        made.activity_regularizer = layer.activity_regularizer
        for name, value in _attributes(layer):
            if name in ordinary or name.startswith(_OF_A_BACKEND):
                continue
            is_variable = isinstance(value, keras.Variable)
            new = self._blank if is_variable else self.copy(value)
            if new is not _ABSENT:
                setattr(made, name, new)
        if _has_lora(layer):
            made.lora_enabled, made.lora_rank = False, None
        if _is_quantized(layer):
            made._is_quantized, made.quantization_config = False, None
        return made


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    """What a layer holds, its layers in the order in which it got them."""
    # PyTorch keeps the layers in a layer apart from its other attributes.
    found = {**vars(layer), **vars(layer).get("_modules", {})}
    order = {id(one): index for index, one in enumerate(layer._layers)}

    def place(value: Any) -> int:
        if isinstance(value, (dict, list, tuple, set)):
            items = value.values() if isinstance(value, dict) else value
            return min(map(place, items), default=-1)
        return order.get(id(value), -1)

    yield from sorted(found.items(), key=lambda item: place(item[1]))


def _is_of_keras(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] == "keras"


def _fresh_policy(layer: Any) -> Any:
    policy = layer.dtype_policy
    if _is_quantized(layer) and policy.quantization_mode is not None:
        return keras.DTypePolicy(policy.get_config()["source_name"])
    return policy


def _remake(value: Any) -> Any:
    return type(value).from_config(value.get_config())


def _copy_operation(operation: Any) -> Any:
    """An operation of a graph, for another graph."""
    made = copy.copy(operation)
    made._inbound_nodes, made._outbound_nodes = [], []
    return made


def _copy_generator(generator: Any) -> Any:
    """A generator that leaves the layer's own where it stands."""
    made = copy.deepcopy(generator)
    start_generator(made, random.getrandbits(31))
    return made
