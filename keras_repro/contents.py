"""What a value holds, as text: the same in every process.

Nothing is consumed or changed, and no code of a person's own class is run.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import logging
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.checksums import (
    PREFIX,
    checksum_array,
    combine_checksums,
    view_array,
)
from keras_repro.origins import package_of

_LONGEST = 60
_CHECKSUM_LENGTH = len(PREFIX) + 32
PLAIN: dict[type, Callable[[Any], str]] = {
    bool: bool.__repr__,
    int: int.__repr__,
    float: float.__repr__,
    complex: complex.__repr__,
    str: str.__repr__,
    bytes: bytes.__repr__,
    type(None): repr,
}
_SHOWN = (
    type(Ellipsis),
    type(NotImplemented),
    range,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    np.dtype,
    types.GenericAlias,
    types.UnionType,
)
_DATES = (datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo)
_DATE_PACKAGES = ("datetime", "zoneinfo", "pandas")
_PANDAS_VALUES = ("NAType", "Period", "Interval")
# Settings of libraries that say all they are.
_SETTINGS = {("torch", "dtype"), ("torch", "device"), ("tensorflow", "DType")}
_TENSORS = ("jax", "jaxlib", "tensorflow", "torch")
_SECRET = re.compile(r"token|secret|passw|credential|api_?key", re.IGNORECASE)


def shorten(text: str, name: str = "") -> str:
    """Short text as it is, so that people can read it; else its checksum.

    Args:
        text: Any text without line breaks.
        name: What it is the content of; that of a password is not shown.

    Example:
        >>> shorten("[1, 2]"), shorten("'abc'", "password")[:4]
        ('[1, 2]', 'kr1:')
    """
    if len(text) == _CHECKSUM_LENGTH and text.startswith(PREFIX):
        return text
    if len(text) > _LONGEST or PREFIX in text or _SECRET.search(name):
        return combine_checksums([text])
    return text


def describe_leaf(value: Any) -> str | None:
    """Describe a value that holds no others.

    Args:
        value: Anything.

    Returns:
        Text; `None` if it is not one of the kinds known here.

    Example:
        >>> describe_leaf(0.4), describe_leaf(np.float32(2)), describe_leaf([])
        ('0.4', 'float32(2.0)', None)
    """
    kind = type(value)
    if kind in PLAIN:
        return PLAIN[kind](value)
    if issubclass(kind, np.generic):
        return f"{kind.__name__}({_describe_scalar(value)})"
    package = package_of(kind)
    if kind in _SHOWN or (package, kind.__name__) in _SETTINGS:
        return f"{kind.__name__}({value})"
    if package == "typing" or issubclass(kind, np.dtype):
        return f"{kind.__name__}({value})"
    if package in _DATE_PACKAGES and issubclass(kind, _DATES):
        return f"{kind.__name__}({value})"
    if package == "pandas" and kind.__name__ in _PANDAS_VALUES:
        return f"{kind.__name__}({value})"
    if kind in (bytearray, memoryview):
        return f"{kind.__name__}({shorten(repr(bytes(value)))})"
    if issubclass(kind, pathlib.PurePath):
        return f"Path({pathlib.PurePath.__str__(value)!r})"
    if issubclass(kind, re.Pattern):
        return f"re.compile({value.pattern!r}, {value.flags})"
    if issubclass(kind, logging.Logger):
        return f"getLogger({value.name!r})"
    for base, show in PLAIN.items():
        if issubclass(kind, base):
            return show(value)
    return None


def _describe_scalar(value: np.generic) -> str:
    if value.dtype.kind in "biufcSUmM" and value.dtype.itemsize <= 16:
        return str(value)
    return str(describe_array(np.asarray(value)))


def describe_plain(items: Sequence[Any]) -> str | None:
    """Describe many numbers or strings at once; `None` if there are others.

    Example:
        >>> describe_plain([0.5] * 1000)[:4], describe_plain([[]])
        ('kr1:', None)
    """
    kinds = set(map(type, items))
    if kinds == {float}:
        return checksum_array(np.array(items, np.float64))
    if kinds == {int} and min(items) >= -1 << 63 and max(items) < 1 << 63:
        return checksum_array(np.array(items, np.int64))
    if len(kinds) == 1 and issubclass(type(items[0]), np.generic):
        return describe_array(np.array(items))
    if kinds <= PLAIN.keys():
        return combine_checksums(map(repr, items))
    return None


# --- arrays --------------------------------------------------------------


def read_array(value: Any) -> npt.NDArray[Any] | None:
    """Read an array, a tensor or a Keras variable.

    Args:
        value: Anything.

    Returns:
        Its values; `None` if it is not one of these.

    Example:
        >>> read_array(np.ones(2)).shape, read_array([1.0])
        ((2,), None)
    """
    kind = type(value)
    if issubclass(kind, np.ndarray):
        array: npt.NDArray[Any] = value
        return array
    if is_a(kind, "keras", "Variable"):
        return view_array(value)
    package = package_of(kind)
    is_tensor = package in _TENSORS and hasattr(kind, "__array__")
    if not is_tensor and not is_a(kind, "torch", "Tensor"):
        return None
    jax = sys.modules.get("jax")
    if package in ("jax", "jaxlib") and jax is not None:
        is_key = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
        value = jax.random.key_data(value) if is_key else value
    return view_array(value)


def is_a(kind: type, module: str, name: str) -> bool:
    """Whether it is a class of a library, which then is there already.

    Example:
        >>> is_a(np.ndarray, "numpy", "ndarray"), is_a(int, "none", "Array")
        (True, False)
    """
    base = vars(sys.modules.get(module, object)).get(name)
    return isinstance(base, type) and issubclass(kind, base)


def describe_array(array: npt.NDArray[Any]) -> str | None:
    """Describe an array by its checksum.

    Args:
        array: An array of any dtype.

    Returns:
        Text; `None` if it holds Python objects.

    Example:
        >>> describe_array(np.zeros(2)) == describe_array(np.zeros(3))
        False
    """
    parts: tuple[str | None, ...]
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        values = np.ma.getdata(array).copy()
        values[mask] = np.zeros((), values.dtype)
        parts = describe_array(values), checksum_array(mask)
    elif array.dtype.names is not None:
        names = array.dtype.names
        parts = (repr(names), *(describe_array(array[name]) for name in names))
    elif array.dtype.kind == "T" or array.dtype.char in "gG":
        # Strings of any width, and floats whose bytes hold padding.
        parts = (str(array.shape), *map(repr, array.flat))
    else:
        return None if array.dtype.hasobject else checksum_array(array)
    return None if None in parts else combine_checksums(map(str, parts))
