"""Values of any kind as text, down to all that they hold."""

from __future__ import annotations

import enum
import functools
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_repro import contents
from keras_repro.checksums import (
    checksum_config,
    combine_checksums,
    compute_checksum,
)
from keras_repro.contents import shorten
from keras_repro.origins import (
    is_keras_class,
    is_own_class,
    is_own_function,
    is_own_module,
    name_library_object,
)
from keras_repro.parts import (
    Parts,
    generator_state,
    hides_nothing,
    holds_attributes,
    holds_only_attributes,
    is_global_generator,
    list_items,
    open_dict,
    open_table,
    read_attributes,
    read_own,
)

UNREAD = "unread"

_IGNORED = "ignored"
_DEEPEST = 50
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


class TooLargeError(Exception):
    """A value holds too much, or is nested too deep, to be told."""


class _UnreadableError(Exception):
    """Nobody can tell what it holds."""


class Values:
    """Tells what values hold.

    Args:
        ignore: Objects that are left out.
        refer: Names a function or a class of the person's own, and has it
            followed; called with it and with the name of the place.
        reads_values: Whether to read arrays and Keras objects.
    """

    def __init__(
        self,
        ignore: Iterable[object],
        refer: Callable[[Any, str], str],
        *,
        reads_values: bool = True,
    ) -> None:
        self.generators: list[tuple[str, object]] = []
        self._refer, self._reads_values = refer, reads_values
        # Held, so that no other object comes to have the `id` of one of them.
        self._held: list[object] = list(ignore)
        self._texts = {id(one): _IGNORED for one in self._held}
        self._ignored = frozenset(self._texts)
        self._path: list[int] = []
        self._left = _MOST_VALUES
        self._has_unread = False

    def is_ignored(self, value: Any) -> bool:
        """Whether others describe it."""
        return id(value) in self._ignored

    def take_unread(self) -> bool:
        """Whether something could not be read since this was last asked."""
        found, self._has_unread = self._has_unread, False
        return found

    @contextmanager
    def within(self, value: Any) -> Iterator[None]:
        """While the parts of a value are told, it is not told again."""
        self._path.append(id(value))
        try:
            yield
        finally:
            self._path.pop()

    def describe(self, value: Any, name: str) -> str:
        """Describe a value as text.

        Args:
            value: Anything.
            name: Where it was found.

        Raises:
            TooLargeError: If it holds too much.
        """
        if type(value) in contents.PLAIN:
            return contents.PLAIN[type(value)](value)
        key = id(value)
        if key in self._texts:
            return self._texts[key]
        if key in self._path:
            return f"cycle {len(self._path) - self._path.index(key)}"
        self._left -= 1
        if self._left < 0 or len(self._path) > _DEEPEST:
            raise TooLargeError
        with self.within(value):
            try:
                text = self._describe(value, name)
            except TooLargeError:
                raise
            except Exception:  # noqa: BLE001 - a class may raise anything
                text, self._has_unread = UNREAD, True
        self._texts[key] = text
        self._held.append(value)
        return text

    def _describe(self, value: Any, name: str) -> str:
        kind = type(value)
        if issubclass(kind, enum.Enum):
            attributes = read_attributes(value)
            shown = attributes["_name_"] or attributes["_value_"]
            return f"{self.describe(kind, name)}.{shown}"
        text = None
        if kind not in _CONTAINERS:
            text = contents.describe_leaf(value)
        if text is None and kind not in _CONTAINERS:
            text = self._describe_callable(value, kind, name)
        if text is None:
            text = self._describe_content(value, kind, name)
        if not holds_attributes(kind) or is_keras_class(kind):
            if text is None:
                raise _UnreadableError
            return text
        if text is None and not hides_nothing(kind):
            self._has_unread = True
        held = self._describe_dict(read_own(value, kind), name)
        parts = [one for one in (text, held) if one]
        return f"{self.describe(kind, name)}({shorten(', '.join(parts))})"

    # --- containers -------------------------------------------------------

    def open(self, value: Any) -> Parts | None:
        """The parts of a value that have names of their own.

        Args:
            value: Anything.

        Returns:
            Parts by the suffix that names them, such as `"['lr']"`; `None`
            if the value is better told as a whole.
        """
        kind = type(value)
        if id(value) in self._path or id(value) in self._ignored:
            return None
        if issubclass(kind, functools.partial):
            listed = enumerate(value.args)
            named = [*listed, *value.keywords.items()]
            names = [*_list_parameters(value.func)]
            return [
                (f"({names[key] if key in range(len(names)) else key})", one)
                for key, one in named
            ]
        if kind is types.MethodType:
            is_shared = is_global_generator(value.__self__)
            return None if is_shared else [(".self", value.__self__)]
        if issubclass(kind, (enum.Enum, type)) or is_keras_class(kind):
            return None
        if issubclass(kind, dict):
            parts = open_dict(value)
        elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
            items = tuple.__iter__(value)
            names = [f".{one}" for one in kind._fields]
            parts = list(zip(names, items, strict=True))
        else:
            parts = open_table(value)
            if parts is None and holds_only_attributes(value, kind):
                parts = []
        if parts is None or not holds_attributes(kind):
            return parts
        attributes = read_own(value, kind).items()
        return [*parts, *((f".{key}", one) for key, one in attributes)]

    def describe_head(self, value: Any, name: str) -> str:
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
            text = self._describe_items(list_items(value), name)
            return f"({text})" if issubclass(kind, tuple) else f"[{text}]"
        state = generator_state(value)
        if state is not None:
            if not any(value is one for _, one in self.generators):
                self.generators.append((name, value))
            return f"{kind.__name__}({shorten(self.describe(state, name))})"
        if is_keras_class(kind):
            return self._describe_keras(value, kind, name)
        array = contents.read_array(value)
        if array is not None:
            return self._describe_array(array, name)
        if issubclass(kind, (set, frozenset)):
            texts = [self.describe(one, name) for one in list_items(value)]
            return f"{{{shorten(', '.join(sorted(map(shorten, texts))))}}}"
        if issubclass(kind, (dict, types.MappingProxyType)):
            return f"{{{self._describe_dict(value, name)}}}"
        if kind is slice:
            parts = [value.start, value.stop, value.step]
            return f"slice({self._describe_items(parts, name)})"
        table = open_table(value)
        if table is None:
            return None
        return f"{kind.__name__}({self._describe_dict(dict(table), name)})"

    def _describe_items(self, items: list[Any], name: str) -> str:
        if len(items) > _FEW:
            plain = contents.describe_plain(items)
            if plain is not None:
                return plain
        texts = (
            self.describe(one, f"{name}[{index}]")
            for index, one in enumerate(items)
        )
        return shorten(", ".join(map(shorten, texts)))

    def _describe_dict(self, values: Any, name: str) -> str:
        is_dict = issubclass(type(values), dict)
        items = [*(dict.items(values) if is_dict else values.items())]
        if len(items) > _FEW:
            keys, entries = zip(*items, strict=True)
            if set(map(type, keys + entries)) <= contents.PLAIN.keys():
                return combine_checksums(sorted(map(repr, items)))
        texts = [
            f"{shorten(self.describe(key, name))}: "
            f"{shorten(self.describe(one, _name_entry(name, key)))}"
            for key, one in items
        ]
        return shorten(", ".join(sorted(texts)))

    def _describe_array(self, array: Any, name: str) -> str:
        if not self._reads_values and not array.dtype.hasobject:
            return "array"
        text = contents.describe_array(array)
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
                raise _UnreadableError
            return str(value.__name__)
        if issubclass(kind, functools.partial):
            inner = self.describe(value.func, name)
            parts = self._describe_items([value.args, value.keywords], name)
            return f"partial({shorten(inner)}, {parts})"
        if kind is types.MethodType:
            return self._describe_bound(value.__func__, value.__self__, name)
        if kind in _DESCRIPTORS:
            return f"{value.__objclass__.__name__}.{value.__name__}"
        if kind in (staticmethod, classmethod):
            return self.describe(value.__func__, name)
        if is_own_class(kind) or is_keras_class(kind):
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
            wrapped = self.describe(vars(value)["__wrapped__"], name)
            return f"{shown} of {wrapped}"
        held: list[Any] = [value.__defaults__, value.__kwdefaults__]
        held += [one.cell_contents for one in value.__closure__ or ()]
        return f"{shown}({self._describe_items(held, name)})"

    def _describe_library_callable(
        self, value: Any, kind: type, name: str
    ) -> str | None:
        if not callable(value):
            return None
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
        is_shared = is_global_generator(bound)
        if is_shared or isinstance(bound, types.ModuleType):
            return shown
        return f"{shown} of {shorten(self.describe(bound, name))}"


def _name_entry(name: str, key: Any) -> str:
    return f"{name}[{key!r}]" if type(key) is str else name


def _list_parameters(function: Any) -> tuple[str, ...]:
    if type(function) is not types.FunctionType:
        return ()
    code = function.__code__
    return code.co_varnames[: code.co_argcount]
