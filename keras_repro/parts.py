"""What values are made of: tables, dicts, objects, generators.

Nothing is consumed or changed, and no code of a person's own class is run.
"""

from __future__ import annotations

import enum
import random
import sys
import types
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_repro.contents import describe_leaf, is_a, shorten
from keras_repro.origins import (
    is_keras_class,
    is_own_class,
    is_python_class,
    package_of,
)

Parts = list[tuple[str, Any]]

MOST_ENTRIES = 64  # More are told together.
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_NAMESPACES = (("types", "SimpleNamespace"), ("argparse", "Namespace"))

# --- tables --------------------------------------------------------------


def open_table(value: Any) -> Parts | None:
    """What a table is made of.

    Args:
        value: A frame, series or index of pandas, or a frame or series of
            Polars; or anything else.

    Returns:
        Values with the suffix that names each, such as `"['price']"`; `None`
        if it is no table.

    Example:
        >>> open_table([1, 2]) is None
        True
    """
    kind = type(value)
    if is_a(kind, "pandas", "DataFrame"):
        columns = [value.iloc[:, index] for index in range(value.shape[1])]
        return [
            *_name_columns(value.columns, map(_read_pandas, columns)),
            (".index", _read_pandas(value.index)),
            (".columns", (value.columns.tolist(), list(value.columns.names))),
        ]
    if is_a(kind, "pandas", "Series"):
        index = (".index", _read_pandas(value.index))
        return [("", _read_pandas(value)), index, (".name", value.name)]
    if is_a(kind, "pandas", "Index"):
        return [("", _read_pandas(value)), (".names", list(value.names))]
    if is_a(kind, "polars", "DataFrame"):
        series = map(_read_polars, value.get_columns())
        named = _name_columns(value.columns, series)
        return [*named, (".columns", value.columns)]
    if is_a(kind, "polars", "Series"):
        return [("", _read_polars(value)), (".name", value.name)]
    return None


def _name_columns(labels: Iterable[Any], columns: Iterable[Any]) -> Parts:
    found: dict[str, Any] = {}
    for number, (label, column) in enumerate(zip(labels, columns, strict=True)):
        name = f"[{describe_leaf(label) or number}]"
        found[f"{name} ({number})" if name in found else name] = column
    return list(found.items())


def _read_pandas(one: Any) -> Any:
    """The values of a series or an index, as arrays as far as possible."""
    dtype = one.dtype
    if getattr(one, "nlevels", 1) > 1:
        levels = range(one.nlevels)
        return [_read_pandas(one.get_level_values(level)) for level in levels]
    if isinstance(dtype, np.dtype):
        return one.to_numpy()
    if hasattr(dtype, "categories"):
        labels = _read_pandas(one.array.categories)
        return (dtype.ordered, one.array.codes, labels)
    if hasattr(dtype, "numpy_dtype"):
        filled = one.array.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
        return (str(dtype), one.isna().to_numpy(), filled)
    if hasattr(dtype, "tz"):
        return (str(dtype), one.array.view("i8"))
    return (str(dtype), one.to_numpy(dtype=object))


def _read_polars(one: Any) -> Any:
    return (str(one.dtype), one.is_null().to_numpy(), one.to_numpy())


# --- attributes and generators --------------------------------------------


def read_attributes(value: Any) -> dict[str, Any]:
    """Read the attributes that an object itself holds, slots included.

    Args:
        value: Anything.

    Returns:
        The attributes by name, in that order. No property is asked, and what
        `functools.cached_property` keeps is left out.

    Example:
        >>> read_attributes(types.SimpleNamespace(b=1, a=2))
        {'a': 2, 'b': 1}
    """
    found: dict[str, Any] = {}
    cached = set()
    for base in type(value).__mro__:
        for name, one in vars(base).items():
            if name == "__dict__" and type(one) in _SLOTS:
                found |= one.__get__(value)
            elif type(one) is types.MemberDescriptorType:
                try:
                    found[name] = one.__get__(value)
                except AttributeError:
                    continue
            elif type(one).__name__ == "cached_property":
                cached.add(name)
    return {name: found[name] for name in sorted(found.keys() - cached)}


def generator_state(value: Any) -> Any:
    """Read the state of a generator of random numbers.

    Args:
        value: Anything.

    Returns:
        Arrays and plain values; `None` if it is no such generator.

    Example:
        >>> generator_state(np.random.default_rng(0))["bit_generator"]
        'PCG64'
    """
    kind = type(value)
    if issubclass(kind, random.Random):
        return value.getstate()
    if issubclass(kind, np.random.Generator):
        return value.bit_generator.state
    if issubclass(kind, np.random.BitGenerator):
        return value.state
    if issubclass(kind, np.random.RandomState):
        return value.get_state(legacy=False)
    if is_a(kind, "torch", "Generator"):
        return value.get_state()
    random_module = getattr(sys.modules.get("keras"), "random", None)
    seeds = getattr(random_module, "SeedGenerator", None)
    if isinstance(seeds, type) and issubclass(kind, seeds):
        return value.state
    return None


def is_global_generator(value: Any) -> bool:
    """Whether a generator is the one that a whole process shares.

    Example:
        >>> is_global_generator(random._inst), is_global_generator(None)
        (True, False)
    """
    torch = sys.modules.get("torch")
    shared = (
        getattr(random, "_inst", None),
        getattr(np.random.mtrand, "_rand", None),
        getattr(torch, "default_generator", None),
    )
    return value is not None and any(value is one for one in shared)


# --- containers and objects -------------------------------------------------


def holds_attributes(kind: type) -> bool:
    """Whether what counts of an object is what its attributes hold."""
    if issubclass(kind, (type, enum.Enum)):
        return False
    is_known = _is_namespace(kind) or _is_torch_module(kind)
    return is_known or is_own_class(kind)


def hides_nothing(kind: type) -> bool:
    """Whether no base written in C may hold more than the attributes."""
    return is_python_class(kind) or _is_namespace(kind)


def holds_only_attributes(value: Any, kind: type) -> bool:
    """Whether an object is its attributes, and not a list or a number too."""
    return (
        holds_attributes(kind)
        and not is_keras_class(kind)
        and hides_nothing(kind)
        and describe_leaf(value) is None
        and generator_state(value) is None
    )


def read_own(value: Any, kind: type) -> dict[str, Any]:
    """The attributes of an object; of PyTorch's own only those in use."""
    found = read_attributes(value)
    if not _is_torch_module(kind):
        return found
    return {
        name: one
        for name, one in found.items()
        if not name.startswith("_") or (isinstance(one, (dict, set)) and one)
    }


def _is_torch_module(kind: type) -> bool:
    return is_a(kind, "torch.nn", "Module")


def _is_namespace(kind: type) -> bool:
    return (package_of(kind), kind.__name__) in _NAMESPACES


def open_dict(value: Any) -> Parts | None:
    """Entries by their keys; `None` if a key has no text of its own."""
    parts: Parts = []
    for key, one in dict.items(value):
        if len(parts) > MOST_ENTRIES:
            return None
        shown = describe_leaf(key)
        if shown is None:
            return None
        parts.append((f"[{shorten(shown)}]", one))
    return parts


def list_items(value: Any) -> list[Any]:
    """The items of a list or the like; a class' own `__iter__` is not run."""
    kinds = (list, tuple, deque, set, frozenset)
    base: Any = next(one for one in kinds if issubclass(type(value), one))
    return [*base.__iter__(value)]
