"""Arrays to canonical bytes to a checksum.

A checksum is a string such as `kr1:0123...`: the version of this recipe, then
the 128-bit XXH3 of the dtype's name, the shape and the values as little-endian
bytes in C order. It never depends on names, on memory layout or on the
process. It finds accidents, not forgery: XXH3 is not a cryptographic hash.
"""

from __future__ import annotations

import base64
import functools
import json
import marshal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from enum import Enum
from numbers import Number
from types import CodeType
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

PREFIX = "kr1:"

_PROCESS_KEYS = {
    "build_config",
    "build_input_shape",
    "module",
    "shared_object_id",
}
_EXTENDED = {np.longdouble, np.clongdouble}
_SMALL = 1 << 16  # Bytes: copying them costs less than a second call.
_NUMBERS = (bool, int, float, complex)
_KEYS = (str, bytes, Number, Enum, date)


def checksum_array(array: npt.ArrayLike) -> str:
    """Compute the checksum of one array; its bits, shape and dtype count."""
    # So `-0.0` and `0.0` differ, and NaN payloads; the order in memory and that
    # of the bytes does not count.
    values = array if isinstance(array, np.ndarray) else np.asarray(array)
    prefix = _prefix(values.dtype, values.shape)
    values = _to_little_endian(values)
    if values.nbytes <= _SMALL:
        content = prefix + values.tobytes()
        return PREFIX + xxhash.xxh3_128_hexdigest(content)
    digest = xxhash.xxh3_128(prefix)
    flat = np.ascontiguousarray(values).reshape(-1)
    digest.update(flat.view(np.uint8).data)
    return PREFIX + digest.hexdigest()


class ArrayDigest:
    """The checksum of a little-endian array while its blocks go by."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._digest = xxhash.xxh3_128(_prefix(array.dtype, array.shape))

    def add(self, block: npt.NDArray[Any]) -> None:
        """Take up the next block of the array in C order."""
        self._digest.update(block.view(np.uint8).data)

    def checksum(self) -> str:
        """What `checksum_array` gives for the whole array."""
        return PREFIX + self._digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _prefix(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    _check_dtype(dtype)
    sizes = ",".join(str(size) for size in shape)
    return f"array\0{dtype.name}\0{sizes}\0".encode("ascii")


def combine_checksums(checksums: Iterable[str]) -> str:
    """Compute one checksum of several; their order and number count."""
    return _combine("combined", checksums)


def compute_checksum(obj: Any) -> str:
    """Compute the checksum of an array, a model, an optimizer, or a nest.

    The order of a dict's entries does not matter, and a list equals a tuple.
    The names of a DataFrame's columns do not count, their order does.

    Args:
        obj: An array or tensor; nested dicts, lists and tuples of these; a
            Keras model, layer, optimizer or metric. Of a model count its
            `variables`: weights, batch statistics and seed generators. The
            optimizer has a checksum of its own.

    Returns:
        A checksum, a string of 36 characters.

    Raises:
        ValueError: If a Keras object has not been built, or `obj` is nested
            too deep, as what holds itself is.
        TypeError: If a value, or a key of a dict, has no canonical bytes.

    Scope:
        Equal values, shapes and dtypes give equal checksums in every process,
        on every machine and backend, with every version of the libraries.

    Example:
        >>> compute_checksum([1.0, 2.0]) == compute_checksum(np.array([1, 2.0]))
        True
        >>> compute_checksum({"x": np.ones(3)})[:4]
        'kr1:'
    """
    try:
        return _checksum_nest(obj)
    except RecursionError:
        raise ValueError(
            "`obj` must be nested less deep than Python can go. Received: "
            f"{type(obj).__name__}, nested deeper. Take out what holds itself."
        ) from None


def _checksum_nest(obj: Any) -> str:
    if obj is None:
        return _combine("none", ())
    if isinstance(obj, Mapping):
        _check_keys(obj)
        keys = sorted(obj, key=lambda key: (type(key).__name__, str(key)))
        parts = (f"{key!r}={_checksum_nest(obj[key])}" for key in keys)
        return _combine("mapping", parts)
    if isinstance(obj, (list, tuple)):
        if obj and all(isinstance(item, _NUMBERS) for item in obj):
            return checksum_array(obj)
        return _combine("sequence", map(_checksum_nest, obj))
    if _is_keras_object(obj):
        return _checksum_keras(obj)
    if _is_table(obj):
        count = len(obj.columns)
        columns = (obj.iloc[:, index] for index in range(count))
        return _combine("table", map(_checksum_nest, columns))
    try:
        values = view_array(obj)
    except Exception as error:  # Arrays of others raise what they like.
        raise TypeError(
            "`obj` must hold arrays, or what can be made one. Received: "
            f"{type(obj).__name__}. Convert it to an array of NumPy's."
        ) from error
    return checksum_array(values)


def _is_table(obj: Any) -> bool:
    with suppress(Exception):  # What its own attributes raise.
        return hasattr(obj, "iloc") and hasattr(obj, "columns")
    return False


def _check_keys(obj: Mapping[Any, Any]) -> None:
    """Refuse keys that are written otherwise in each process."""
    for key in obj:
        parts = key if isinstance(key, tuple) else (key,)
        for one in parts:
            if not (one is None or isinstance(one, _KEYS)):
                raise TypeError(
                    "`obj` must hold dicts whose keys are texts, numbers or "
                    f"the like. Received: {type(one).__name__} as a key. Use "
                    "names as keys."
                )


def _checksum_keras(obj: Any) -> str:
    """Checksum of a Keras object: of its variables, in Keras' order."""
    layers = getattr(obj, "layers", ())
    # A model that its own step builds is never called itself, and a layer of
    # it may never be.
    if not getattr(obj, "built", True) and not (
        getattr(obj, "weights", ()) or (layers and all(x.built for x in layers))
    ):
        raise ValueError(
            "`compute_checksum` needs an object that has been built. "
            f"Received: {type(obj).__name__}, which has no variables yet. "
            "Call it on a batch, or `build` it, first."
        )
    variables = obj.variables if hasattr(obj, "variables") else [obj.state]
    return combine_checksums(
        checksum_array(view_variable(one)) for one in variables
    )


def checksum_config(config: Any, context: Any = None) -> str:
    """Compute the checksum of a configuration, blind to names."""
    # Keras numbers the names of layers per process, so a name counts only as
    # the position at which it first appears. Where a class was imported from,
    # shapes that come with building, and a lambda's place in its file do not
    # count.
    pruned, names = _prune(config), _Names()
    names.collect(_prune(context))
    names.collect(pruned)
    text = json.dumps(names.replace(pruned), sort_keys=True)
    return _combine("config", [text])


def describe_config(config: Any) -> Any:
    """A configuration as plain values that a person can read."""
    return _describe(_prune(config))


def _describe(value: Any) -> Any:
    if isinstance(value, list):
        return [_describe(item) for item in value]
    if not isinstance(value, dict):
        return value
    settings = value.get("config")
    if "class_name" in value and isinstance(settings, dict):
        kept = {key: item for key, item in settings.items() if key != "name"}
        return {"class": value["class_name"], **_describe(kept)}
    return {key: _describe(item) for key, item in value.items()}


class _Names:
    """Names in the order in which they first appear."""

    def __init__(self) -> None:
        self._positions: dict[str, str] = {}

    def collect(self, value: Any) -> None:
        if isinstance(value, dict):
            name = value.get("name")
            if isinstance(name, str):
                position = f"name {len(self._positions)}"
                self._positions.setdefault(name, position)
            for item in value.values():
                self.collect(item)
        elif isinstance(value, list):
            for item in value:
                self.collect(item)

    def replace(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                self._positions.get(key, key): self.replace(item)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.replace(item) for item in value]
        if isinstance(value, str):
            return self._positions.get(value, value)
        return value


def _prune(value: Any) -> Any:
    """Plain JSON values, without what depends on process or building."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__lambda__":
            return {"class_name": "__lambda__", "config": _read_lambda(value)}
        return {
            str(key): _prune(item)
            for key, item in value.items()
            if key not in _PROCESS_KEYS
        }
    if isinstance(value, (list, tuple)):
        return [_prune(item) for item in value if not _is_added_input(item)]
    if isinstance(value, (np.ndarray, np.generic)):
        return checksum_array(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return type(value).__name__


def _is_added_input(item: Any) -> bool:
    """Whether it is the input layer that building adds to a Sequential."""
    return (
        isinstance(item, Mapping)
        and item.get("class_name") == "InputLayer"
        and "inbound_nodes" not in item
    )


def _read_lambda(config: Mapping[str, Any]) -> list[Any]:
    """What a lambda does and not where it was written."""
    code, defaults, _ = config["config"]["value"]
    try:
        loaded = marshal.loads(base64.b64decode(code))  # Made just now.
    except (ValueError, EOFError, TypeError):
        return [str(code), repr(defaults)]
    return [_describe_code(loaded), repr(defaults)]


def _describe_code(code: CodeType) -> list[Any]:
    constants = [
        _describe_code(constant)
        if isinstance(constant, CodeType)
        else sorted(map(repr, constant))
        if isinstance(constant, frozenset)
        else repr(constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _combine(kind: str, parts: Iterable[str]) -> str:
    listed = list(parts)
    lines = "".join(f"{part}\n" for part in listed)
    text = f"{kind}\0{len(listed)}\0{lines}"
    content = text.encode("utf-8", "surrogatepass")
    return PREFIX + xxhash.xxh3_128_hexdigest(content)


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        reason = "Python objects have no canonical bytes"
        advice = "Convert to numbers or to fixed-width strings"
    elif dtype.type in _EXTENDED:
        reason = "extended precision differs between machines"
        advice = "Convert to float64 or complex128"
    elif dtype.names is not None or dtype.type is np.void:
        reason = "a structured dtype is several arrays in one"
        advice = "Pass its fields as a dict of arrays"
    elif dtype.kind == "T":
        reason = "strings of variable width have no canonical bytes"
        advice = "Convert to fixed-width strings with `astype(str)`"
    else:
        return
    raise TypeError(
        "`compute_checksum` needs numbers, booleans, dates or fixed-width "
        f"strings; {reason}. Received: an array of dtype {dtype}. {advice}."
    )


def _to_little_endian(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    order = values.dtype.byteorder
    native = "<" if sys.byteorder == "little" else ">"
    if (native if order == "=" else order) != ">":
        return values
    # Swapping and relabelling keeps every bit; a cast might quiet a NaN.
    return values.byteswap().view(values.dtype.newbyteorder("<"))


def view_array(leaf: Any) -> npt.NDArray[Any]:
    """Read any array-like, torch tensors included, without keeping it."""
    if isinstance(leaf, (str, bytes)):
        return np.asarray(leaf)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(leaf, torch.Tensor):
        return _read_torch(torch, leaf)
    if _is_variable(leaf):
        return view_variable(leaf)
    return np.asarray(leaf)


def _read_torch(torch: Any, tensor: Any) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.bfloat16:
        return np.asarray(tensor.numpy())
    import ml_dtypes

    bits = np.asarray(tensor.view(torch.int16).numpy())
    return bits.view(ml_dtypes.bfloat16)


def _loaded_keras() -> Any:
    """Keras if the program has imported it, and imported it whole."""
    keras = sys.modules.get("keras")
    return keras if hasattr(keras, "Layer") else None


def _is_variable(obj: Any) -> bool:
    keras = _loaded_keras()
    return keras is not None and isinstance(obj, keras.Variable)


def _is_keras_object(obj: Any) -> bool:
    """Whether it is one of Keras' own; if so, Keras is there already."""
    keras = _loaded_keras()
    if keras is None:
        return False
    kinds = (
        keras.Layer,
        keras.optimizers.Optimizer,
        keras.metrics.Metric,
        keras.random.SeedGenerator,
    )
    return isinstance(obj, kinds)


def find_replicas(variable: Any) -> tuple[Any, ...]:
    """What each device holds of a variable, under a strategy of TensorFlow."""
    value = variable.value
    if not hasattr(value, "read_value"):
        return ()
    replicas = getattr(value, "values", ())
    return replicas if isinstance(replicas, tuple) else ()


def view_variable(variable: Any) -> npt.NDArray[Any]:
    """A variable's values, without a copy where the backend allows it."""
    value = variable.value
    replicas = find_replicas(variable)
    if replicas:
        arrays = [np.asarray(one.read_value()) for one in replicas]
        first = arrays[0].tobytes()
        if all(one.tobytes() == first for one in arrays[1:]):
            return arrays[0]
        # Replicas that differ, in a row: one index more than the variable has.
        return np.stack(arrays)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _read_torch(torch, value)
    if hasattr(value, "read_value"):  # A tf.Variable: its tensor can be seen.
        value = value.read_value()
    return np.asarray(value)
