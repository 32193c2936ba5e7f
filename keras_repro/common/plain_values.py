"""Plain values as JSON and a list of arrays, and back: nothing is executed."""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[Any]]

_KIND = "$"
_PLAIN = (bool, int, float, str, type(None))
_MOST_DEPTH = 32
_CONTAINERS: dict[str, Callable[[Iterable[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}


class UnknownValueError(Exception):
    """A value that is not plain; says of which type it is."""


def encode(value: Any, arrays: Arrays, depth: int = 0) -> Any:
    """A form of a plain value that JSON can hold; its arrays are appended."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > _MOST_DEPTH:
        raise UnknownValueError(kind.__name__)

    def each(items: Iterable[Any]) -> list[Any]:
        return [encode(item, arrays, depth + 1) for item in items]

    if kind is list:
        return each(value)
    if kind in (dict, collections.OrderedDict, collections.defaultdict):
        return {_KIND: "dict", "items": [each(pair) for pair in value.items()]}
    if kind in _CONTAINERS.values():
        if isinstance(value, (set, frozenset)):
            value = sorted(value, key=repr)
        return {_KIND: kind.__name__, "items": each(value)}
    if kind is bytes:
        return {_KIND: "bytes", "hex": value.hex()}
    name, array = _as_array(value)
    arrays.append(array)
    return {_KIND: name, "index": len(arrays) - 1}


def require_plain(value: Any) -> None:
    """Raise an `UnknownValueError` where `encode` would."""
    encode(value, [])


def _as_array(value: Any) -> tuple[str, npt.NDArray[Any]]:
    """An array, a single number of NumPy or a tensor, as a copy."""
    torch = sys.modules.get("torch")
    if torch is not None and type(value) is torch.Tensor:
        try:
            return "tensor", value.detach().cpu().numpy().copy()
        except (TypeError, RuntimeError):  # Of a dtype that NumPy lacks.
            raise UnknownValueError(str(value.dtype)) from None
    is_scalar = isinstance(value, np.generic)
    if type(value) is not np.ndarray and not is_scalar:
        raise UnknownValueError(type(value).__name__)
    array = np.array(value)
    if array.dtype.kind not in "biufcV" or array.dtype.names is not None:
        raise UnknownValueError(f"array of {array.dtype}")
    return "number" if is_scalar else "array", array


def decode(data: Any, arrays: Arrays, depth: int = 0) -> Any:
    """The value that `encode` wrote."""
    if depth > 2 * _MOST_DEPTH:
        msg = "values are nested too deep"
        raise ValueError(msg)

    def each(items: Any) -> list[Any]:
        if not isinstance(items, list):
            msg = f"items cannot be {items!a:.80}"
            raise ValueError(msg)  # noqa: TRY004 - of what a file holds
        return [decode(item, arrays, depth + 1) for item in items]

    if type(data) in _PLAIN:
        return data
    if isinstance(data, list):
        return each(data)
    kind = data.get(_KIND) if isinstance(data, dict) else None
    try:
        if kind == "dict":
            return dict(map(each, data["items"]))
        if kind in _CONTAINERS:
            return _CONTAINERS[kind](each(data["items"]))
        if kind == "bytes":
            return bytes.fromhex(data["hex"])
        if kind in ("array", "number", "tensor"):
            return _from_array(kind, arrays[data["index"]])
    except (KeyError, IndexError, TypeError) as error:
        msg = f"{data!a:.80}: {error}"
        raise ValueError(msg) from None
    msg = f"a value cannot be {data!a:.80}"
    raise ValueError(msg)


def _from_array(kind: str, array: npt.NDArray[Any]) -> Any:
    if kind == "number":
        return array[()]
    if kind == "tensor":
        return import_module("torch").from_numpy(array.copy())
    return array.copy()
