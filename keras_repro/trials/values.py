"""Values of any kind as text, down to all that they hold."""

from __future__ import annotations

import datetime
import enum
import functools
import logging
import pathlib
import random
import re
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import (
    PREFIX,
    checksum_array,
    checksum_config,
    combine_checksums,
    compute_checksum,
    view_array,
)
from keras_repro.common.generators import name_generator
from keras_repro.common.whose_code import (
    is_keras_class,
    is_own_class,
    is_own_function,
    is_own_module,
    is_python_class,
    name_library_object,
    package_of_class,
)

UNREAD = "unread"

_IGNORED = "ignored"
_DEEPEST = 50
_MOST_LEVELS = 3
_MOST_ENTRIES = 64  # More are told together.
_MOST_VALUES = 500_000
_CONTAINERS = (list, tuple, dict)
_FEW = 16
_DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


_LONGEST = 60
_CHECKSUM_LENGTH = len(PREFIX) + 32
_PLAIN = {bool, int, float, complex, str, bytes, type(None)}
# Classes whose text tells all that they hold, by the package they are from.
_SHOWN = {
    "builtins": ("ellipsis", "NotImplementedType", "range"),
    "types": ("GenericAlias", "UnionType"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "pandas": ("NAType", "Period", "Interval"),
    "torch": ("dtype", "device"),
    "tensorflow": ("DType",),
}
_DATES = (datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo)
_DATE_PACKAGES = ("datetime", "zoneinfo", "pandas")
_TENSORS = ("jax", "jaxlib", "tensorflow", "torch")
_SECRET = re.compile(r"token|secret|passw|credential|api_?key", re.IGNORECASE)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_NAMESPACES = (("types", "SimpleNamespace"), ("argparse", "Namespace"))

Parts = list[tuple[str, Any]]


class _TooLargeError(Exception):
    """A value holds too much, or is nested too deep, to be told."""


class Values:
    """Tells what values hold: short text, or a checksum, by name."""

    def __init__(
        self,
        ignore: Iterable[object],
        refer: Callable[[Any, str], str],
        *,
        reads_values: bool = True,
    ) -> None:
        self.data: dict[str, str] = {}
        self.unread: dict[str, None] = {}
        self.generators: list[tuple[str, object]] = []
        # `refer` names a function or a class of the person's own, and has it
        # followed; called with it and with the name of the place. Without
        # `reads_values` arrays and Keras objects are not read.
        self._refer, self._reads_values = refer, reads_values
        # Each with its object, so that no other one comes to have its `id`.
        self._told = {id(one): (_IGNORED, one) for one in ignore}
        self._ignored = frozenset(self._told)
        self._path: list[int] = []
        self._left = _MOST_VALUES
        self._has_unread = False

    def is_ignored(self, value: Any) -> bool:
        """Whether others describe it."""
        return id(value) in self._ignored

    def tell(self, name: str, value: Any, level: int = 0) -> None:
        """Enter a value under a name, or each part under one of its own."""
        try:
            parts = self._open(value) if level < _MOST_LEVELS else None
            if parts and len(parts) <= _MOST_ENTRIES:
                head = self._describe_head(value, name)
                if head:
                    self.data[name] = _shorten(head)
                with self._within(value):
                    for suffix, part in parts:
                        self.tell(f"{name}{suffix}", part, level + 1)
                return
            text = self.describe(value, name)
        except _TooLargeError:
            text = UNREAD
        if self._has_unread or text == UNREAD:
            self.unread[name], self._has_unread = None, False
        if text not in (UNREAD, name):
            self.data[name] = _shorten(text, name)

    def describe(self, value: Any, name: str) -> str:
        """Describe a value as text."""
        kind, key = type(value), id(value)
        if kind in _PLAIN:
            return repr(value)
        if key in self._told:
            return self._told[key][0]
        if key in self._path:
            return f"cycle {len(self._path) - self._path.index(key)}"
        self._left -= 1
        if self._left < 0 or len(self._path) > _DEEPEST:
            raise _TooLargeError
        with self._within(value):
            try:
                text = self._describe(value, kind, name)
            except _TooLargeError:
                raise
            except Exception:  # noqa: BLE001 - a class may raise anything
                text, self._has_unread = UNREAD, True
        self._told[key] = text, value
        return text

    @contextmanager
    def _within(self, value: Any) -> Iterator[None]:
        """While the parts of a value are told, it is not told again."""
        self._path.append(id(value))
        try:
            yield
        finally:
            self._path.pop()

    def _describe(self, value: Any, kind: type, name: str) -> str:
        if issubclass(kind, enum.Enum):
            attributes = _read_attributes(value)
            shown = attributes["_name_"] or attributes["_value_"]
            return f"{self.describe(kind, name)}.{shown}"
        text = None
        if kind not in _CONTAINERS:
            text = _describe_leaf(value)
            if text is None:
                text = self._describe_callable(value, kind, name)
        if text is None:
            text = self._describe_content(value, kind, name)
        if not _holds_attributes(kind) or is_keras_class(kind):
            if text is None:
                raise TypeError(kind)
            return text
        if text is None and not _hides_nothing(kind):
            self._has_unread = True
        held = self._describe_dict(_read_own(value, kind), name)
        parts = ", ".join(one for one in (text, held) if one)
        return f"{self.describe(kind, name)}({_shorten(parts)})"

    # --- containers -------------------------------------------------------

    def _open(self, value: Any) -> Parts | None:
        """The parts of a value that have names of their own."""
        kind = type(value)
        if id(value) in self._path or self.is_ignored(value):
            return None
        if issubclass(kind, functools.partial):
            return list_arguments(value)
        if kind is types.MethodType:
            bound = value.__self__
            return None if _is_global_generator(bound) else [(".self", bound)]
        if issubclass(kind, (enum.Enum, type)) or is_keras_class(kind):
            return None
        if issubclass(kind, dict):
            parts = _open_dict(value)
        elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
            names = [f".{one}" for one in kind._fields]
            parts = [*zip(names, tuple.__iter__(value), strict=True)]
        else:
            parts = _open_table(value)
            if parts is None and _is_its_attributes(value, kind):
                parts = []
        if parts is None or not _holds_attributes(kind):
            return parts
        held = _read_own(value, kind).items()
        return [*parts, *((f".{key}", one) for key, one in held)]

    def _describe_head(self, value: Any, name: str) -> str:
        """What a value is, whose parts are told on their own."""
        kind = type(value)
        if issubclass(kind, functools.partial):
            return self.describe(value.func, name)
        if kind is types.MethodType:
            return self.describe(value.__func__, name)
        return self.describe(kind, name) if is_own_class(kind) else ""

    def _describe_content(
        self, value: Any, kind: type, name: str
    ) -> str | None:
        if issubclass(kind, (list, tuple, deque)):
            text = self._describe_items(_list_items(value), name)
            return f"({text})" if issubclass(kind, tuple) else f"[{text}]"
        state = _generator_state(value)
        if state is not None:
            if not any(value is one for _, one in self.generators):
                self.generators.append((name, value))
            return f"{kind.__name__}({_shorten(self.describe(state, name))})"
        if is_keras_class(kind):
            return self._describe_keras(value, kind, name)
        array = _read_array(value)
        if array is not None:
            return self._describe_array(array, name)
        if issubclass(kind, (set, frozenset)):
            texts = [self.describe(one, name) for one in _list_items(value)]
            return f"{{{_shorten(', '.join(sorted(map(_shorten, texts))))}}}"
        if issubclass(kind, (dict, types.MappingProxyType)):
            return f"{{{self._describe_dict(value, name)}}}"
        if kind is slice:
            parts = [value.start, value.stop, value.step]
            return f"slice({self._describe_items(parts, name)})"
        table = _open_table(value)
        if table is None:
            return None
        return f"{kind.__name__}({self._describe_dict(dict(table), name)})"

    def _describe_items(self, items: list[Any], name: str) -> str:
        if len(items) > _FEW:
            plain = _describe_plain(items)
            if plain is not None:
                return plain
        texts = [
            self.describe(one, f"{name}[{place}]")
            for place, one in enumerate(items)
        ]
        return _shorten(", ".join(map(_shorten, texts)))

    def _describe_dict(self, values: Any, name: str) -> str:
        is_dict = issubclass(type(values), dict)
        items = [*(dict.items(values) if is_dict else values.items())]
        if len(items) > _FEW:
            keys, entries = zip(*items, strict=True)
            if _PLAIN.issuperset(map(type, keys + entries)):
                return combine_checksums(sorted(map(repr, items)))
        texts = [
            f"{_shorten(self.describe(key, name))}: "
            f"{_shorten(self.describe(one, _name_entry(name, key)))}"
            for key, one in items
        ]
        return _shorten(", ".join(sorted(texts)))

    def _describe_array(self, array: Any, name: str) -> str:
        if not self._reads_values and not array.dtype.hasobject:
            return "array"
        text = _describe_array(array)
        if text is not None:
            return text
        items = self._describe_items(list(array.flat), name)
        return combine_checksums([str(array.shape), items])

    def _describe_keras(self, value: Any, kind: type, name: str) -> str:
        """A Keras object by its settings and its variables."""
        if not self._reads_values:
            return "keras"
        found: list[str] = [self.describe(kind, name)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found.append(checksum_config(value.get_config()))
            except Exception:  # noqa: BLE001 - a user's layer may raise anything
                self._has_unread = True
            try:
                found.append(compute_checksum(value))
            except (TypeError, ValueError, AttributeError):
                found.append("not built")
        return combine_checksums(found)

    # --- what can be called -------------------------------------------------

    def _describe_callable(
        self, value: Any, kind: type, name: str
    ) -> str | None:
        if kind is types.FunctionType:
            if is_own_function(value):
                return self._refer(value, name)
            return self._describe_library_function(value, name)
        if issubclass(kind, type):
            if is_own_class(value):
                return self._refer(value, name)
            whole = f"{value.__module__}.{value.__qualname__}"
            return name_library_object(value) or whole
        if issubclass(kind, types.ModuleType):
            if is_own_module(value.__name__):
                raise TypeError(kind)
            return str(value.__name__)
        if issubclass(kind, functools.partial):
            inner = self.describe(value.func, name)
            parts = self._describe_items([value.args, value.keywords], name)
            return f"partial({_shorten(inner)}, {parts})"
        if kind is types.MethodType:
            return self._describe_bound(value.__func__, value.__self__, name)
        if kind in _DESCRIPTORS:
            return f"{value.__objclass__.__name__}.{value.__name__}"
        if kind in (staticmethod, classmethod):
            return self.describe(value.__func__, name)
        if is_own_class(kind) or is_keras_class(kind) or not callable(value):
            return None
        return self._describe_library_callable(value, kind, name)

    def _describe_library_function(self, value: Any, name: str) -> str:
        """By name if it has one; else, as a closure, with what it holds."""
        named = name_library_object(value)
        if named is not None:
            return named
        module = value.__globals__.get("__name__")
        shown = f"{module}.{value.__code__.co_qualname}"
        if "__wrapped__" in vars(value):
            return f"{shown} of {self.describe(value.__wrapped__, name)}"
        held: list[Any] = [value.__defaults__, value.__kwdefaults__]
        held += [one.cell_contents for one in value.__closure__ or ()]
        return f"{shown}({self._describe_items(held, name)})"

    def _describe_library_callable(
        self, value: Any, kind: type, name: str
    ) -> str | None:
        named = name_library_object(value)
        if named is not None:
            return named
        bound = getattr(value, "__self__", None)
        if bound is not None:
            return self._describe_bound(value, bound, name)
        # What `jax.jit`, `tf.function` or `functools.cache` made of it.
        wrapped = getattr(value, "__wrapped__", None)
        if callable(wrapped):
            return f"{kind.__name__} of {self.describe(wrapped, name)}"
        return None

    def _describe_bound(self, function: Any, bound: Any, name: str) -> str:
        if type(function) is types.FunctionType:
            shown = self.describe(function, name)
        else:
            shown = str(function.__qualname__)
        if _is_global_generator(bound) or isinstance(bound, types.ModuleType):
            return shown
        return f"{shown} of {_shorten(self.describe(bound, name))}"


def _name_entry(name: str, key: Any) -> str:
    return f"{name}[{key!r}]" if type(key) is str else name


def list_arguments(value: functools.partial[Any]) -> Parts:
    """What a partial adds, by the names of the parameters where these show."""
    names: Sequence[Any] = ()
    if type(value.func) is types.FunctionType:
        code = value.func.__code__
        names = code.co_varnames[: code.co_argcount]
    names = [*names, *range(len(names), len(value.args))]
    given = [*zip(names, value.args, strict=False), *value.keywords.items()]
    return [(f"({key})", one) for key, one in given]


# --- tables --------------------------------------------------------------


def _open_table(value: Any) -> Parts | None:
    """What a table is made of; `None` if it is none."""
    kind = type(value)
    if _is_a(kind, "pandas", "DataFrame"):
        columns = [value.iloc[:, index] for index in range(value.shape[1])]
        return [
            *_name_columns(value.columns, map(_read_pandas, columns)),
            (".index", _read_pandas(value.index)),
            (".columns", (value.columns.tolist(), list(value.columns.names))),
        ]
    if _is_a(kind, "pandas", "Series"):
        index = (".index", _read_pandas(value.index))
        return [("", _read_pandas(value)), index, (".name", value.name)]
    if _is_a(kind, "pandas", "Index"):
        return [("", _read_pandas(value)), (".names", list(value.names))]
    if _is_a(kind, "polars", "DataFrame"):
        series = map(_read_polars, value.get_columns())
        named = _name_columns(value.columns, series)
        return [*named, (".columns", value.columns)]
    if _is_a(kind, "polars", "Series"):
        return [("", _read_polars(value)), (".name", value.name)]
    return None


def _name_columns(labels: Iterable[Any], columns: Iterable[Any]) -> Parts:
    found: dict[str, Any] = {}
    for number, (label, column) in enumerate(zip(labels, columns, strict=True)):
        name = f"[{_describe_leaf(label) or number}]"
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


def _read_attributes(value: Any) -> dict[str, Any]:
    """Read the attributes that an object itself holds, slots included."""
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


def _generator_state(value: Any) -> Any:
    """Read the state of a generator of random numbers; `None` of others."""
    kind = name_generator(value)
    if kind == "python":
        return value.getstate()
    if kind == "numpy":
        return value.bit_generator.state
    if kind == "numpy_legacy":
        return value.get_state(legacy=False)
    if kind == "torch":
        return value.get_state()
    return value.state if kind in ("numpy_bits", "keras") else None


def _is_global_generator(value: Any) -> bool:
    """Whether a generator is the one that a whole process shares."""
    torch = sys.modules.get("torch")
    shared = (
        getattr(random, "_inst", None),
        getattr(np.random.mtrand, "_rand", None),
        getattr(torch, "default_generator", None),
    )
    return value is not None and any(value is one for one in shared)


# --- containers and objects -------------------------------------------------


def _holds_attributes(kind: type) -> bool:
    """Whether what counts of an object is what its attributes hold."""
    if issubclass(kind, (type, enum.Enum)):
        return False
    is_known = _is_namespace(kind) or _is_a(kind, "torch.nn", "Module")
    return is_known or is_own_class(kind)


def _is_namespace(kind: type) -> bool:
    return (package_of_class(kind), kind.__name__) in _NAMESPACES


def _hides_nothing(kind: type) -> bool:
    """Whether no base written in C may hold more than the attributes."""
    return is_python_class(kind) or _is_namespace(kind)


def _is_its_attributes(value: Any, kind: type) -> bool:
    """Whether an object is its attributes, and not a list or a number too."""
    return (
        _holds_attributes(kind)
        and _hides_nothing(kind)
        and _describe_leaf(value) is None
        and _generator_state(value) is None
    )


def _read_own(value: Any, kind: type) -> dict[str, Any]:
    """The attributes of an object; of PyTorch's own only those in use."""
    found = _read_attributes(value)
    if not _is_a(kind, "torch.nn", "Module"):
        return found
    return {
        name: one
        for name, one in found.items()
        if not name.startswith("_") or (isinstance(one, (dict, set)) and one)
    }


def _open_dict(value: Any) -> Parts | None:
    """Entries by their keys; `None` if a key has no text of its own."""
    parts: Parts = []
    for key, one in dict.items(value):
        shown = _describe_leaf(key)
        if shown is None or len(parts) > _MOST_ENTRIES:
            return None
        parts.append((f"[{_shorten(shown)}]", one))
    return parts


def _list_items(value: Any) -> list[Any]:
    """The items of a list or the like; a class' own `__iter__` is not run."""
    kinds = (list, tuple, deque, set, frozenset)
    base: Any = next(one for one in kinds if issubclass(type(value), one))
    return [*base.__iter__(value)]


# --- leaves --------------------------------------------------------------


def _shorten(text: str, name: str = "") -> str:
    """Short text as it is, so that people can read it; else its checksum."""
    if len(text) == _CHECKSUM_LENGTH and text.startswith(PREFIX):
        return text
    if len(text) > _LONGEST or PREFIX in text or _SECRET.search(name):
        return combine_checksums([text])
    return text


def _describe_leaf(value: Any) -> str | None:
    """Describe a value that holds no others."""
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if issubclass(kind, np.generic):
        return f"{kind.__name__}({_describe_scalar(value)})"
    if _shows_all(kind):
        return f"{kind.__name__}({value})"
    if kind in (bytearray, memoryview):
        return f"{kind.__name__}({_shorten(repr(bytes(value)))})"
    if issubclass(kind, pathlib.PurePath):
        return f"Path({pathlib.PurePath.__str__(value)!r})"
    if issubclass(kind, re.Pattern):
        return f"re.compile({value.pattern!r}, {value.flags})"
    if issubclass(kind, logging.Logger):
        return f"getLogger({value.name!r})"
    for base in (int, float, complex, str, bytes):
        if issubclass(kind, base):
            return base.__repr__(value)
    return None


def _shows_all(kind: type) -> bool:
    package = package_of_class(kind)
    return (
        kind.__name__ in _SHOWN.get(package, ())
        or package == "typing"
        or issubclass(kind, np.dtype)
        or (package in _DATE_PACKAGES and issubclass(kind, _DATES))
    )


def _describe_scalar(value: np.generic) -> str:
    if value.dtype.kind in "biufcSUmM" and value.dtype.itemsize <= 16:
        return str(value)
    return str(_describe_array(np.asarray(value)))


def _describe_plain(items: Sequence[Any]) -> str | None:
    """Describe many numbers or strings at once; `None` if there are others."""
    kinds = set(map(type, items))
    if kinds == {float}:
        return checksum_array(np.array(items, np.float64))
    if kinds == {int} and min(items) >= -1 << 63 and max(items) < 1 << 63:
        return checksum_array(np.array(items, np.int64))
    if len(kinds) == 1 and issubclass(type(items[0]), np.generic):
        return _describe_array(np.array(items))
    if kinds <= _PLAIN:
        return combine_checksums(map(repr, items))
    return None


# --- arrays --------------------------------------------------------------


def _read_array(value: Any) -> npt.NDArray[Any] | None:
    """Read an array, a tensor or a Keras variable."""
    kind = type(value)
    if issubclass(kind, np.ndarray):
        array: npt.NDArray[Any] = value
        return array
    if _is_a(kind, "keras", "Variable"):
        return view_array(value)
    package = package_of_class(kind)
    is_tensor = package in _TENSORS and hasattr(kind, "__array__")
    if not is_tensor and not _is_a(kind, "torch", "Tensor"):
        return None
    jax = sys.modules.get("jax")
    if package in ("jax", "jaxlib") and jax is not None:
        is_key = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
        value = jax.random.key_data(value) if is_key else value
    return view_array(value)


def _is_a(kind: type, module: str, name: str) -> bool:
    """Whether it is a class of a library, which then is there already."""
    base = vars(sys.modules.get(module, object)).get(name)
    return isinstance(base, type) and issubclass(kind, base)


def _describe_array(array: npt.NDArray[Any]) -> str | None:
    """Describe an array by its checksum."""
    parts: tuple[str | None, ...]
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        values = np.ma.getdata(array).copy()
        values[mask] = np.zeros((), values.dtype)
        parts = _describe_array(values), checksum_array(mask)
    elif array.dtype.names is not None:
        names = array.dtype.names
        parts = (repr(names), *(_describe_array(array[name]) for name in names))
    elif array.dtype.kind == "T" or array.dtype.char in "gG":
        # Strings of any width, and floats whose bytes hold padding.
        parts = (str(array.shape), *map(repr, array.flat))
    else:
        return None if array.dtype.hasobject else checksum_array(array)
    return None if None in parts else combine_checksums(map(str, parts))
