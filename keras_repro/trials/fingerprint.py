"""What a function is made of: its code, and the values that it takes along.

Results of one study must come from one function. A fingerprint tells whether
it is still the same, and if not, what was changed.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib.util
import itertools
import platform
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from keras_repro.arrays.checksums import combine_checksums
from keras_repro.common.whose_code import is_own_class, is_own_module
from keras_repro.studies.identity import Fingerprint
from keras_repro.trials.bytecode import (
    checksum_code,
    find_module_code,
    list_uses,
)
from keras_repro.trials.values import UNREAD, Values, list_arguments


# From the function on, everything of the person's own is followed that its code
# names: functions, classes, modules, variables. Of libraries only names count.
# It is equal in every process with one version of Python, whatever the hash
# seed; lines, comments, docstrings and the order of a dict do not count. Names
# that are put together while the code runs, for `getattr` or `eval`, cannot be
# seen, nor can files and what is on the network. Nothing is changed, called or
# consumed.
def fingerprint(
    function: Callable[..., Any], *, ignore: Iterable[object] = ()
) -> Fingerprint:
    """Tell what a function is made of; `TypeError` if it cannot be called."""
    walk = Walk(ignore)
    walk.follow(function)
    return Fingerprint(
        code=dict(sorted(walk.code.items())),
        data=dict(sorted(walk.values.data.items())),
        unread=tuple(sorted(walk.values.unread)),
        python=".".join(platform.python_version_tuple()[:2]),
    )


def find_generators(
    function: Callable[..., Any], *, ignore: Iterable[object] = ()
) -> list[tuple[str, object]]:
    """Find the generators of random numbers that a function takes along."""
    walk = Walk(ignore, reads_values=False)
    walk.follow(function)
    return walk.values.generators


_MISSING = type(dataclasses.MISSING)  # It has twins once it was pickled.

Chains = Iterable[tuple[str, ...]]


class Walk:
    """A walk through all that a function is made of."""

    def __init__(
        self, ignore: Iterable[object], *, reads_values: bool = True
    ) -> None:
        self.code: dict[str, str] = {}
        # What values hold takes time to tell.
        self.values = Values(ignore, self._refer, reads_values=reads_values)
        self._home = ""
        self._names: dict[int, str] = {}
        self._taken: dict[str, object] = {}
        self._claimed: dict[str, object] = {}
        self._waiting: deque[tuple[str, Any]] = deque()

    def follow(self, function: Any) -> None:
        """Walk from a function on, until nothing new is to be seen."""
        if not callable(function):
            raise TypeError(
                "`function` must be something that can be called. Received: an "
                f"object of type {type(function).__name__}. Pass the function "
                "itself."
            )
        self._home = _module_of(function)
        self._follow_root(function)
        while self._waiting:
            name, one = self._waiting.popleft()
            if isinstance(one, type):
                self._follow_class(name, one)
            else:
                self._follow_function(name, one)

    def _follow_root(self, function: Any) -> str:
        kind = type(function)
        if issubclass(kind, functools.partial):
            name = self._follow_root(function.func)
            for suffix, value in list_arguments(function):
                self._add(f"{name}{suffix}", value)
            return name
        if kind is types.MethodType:
            self._add("self", function.__self__)
            return self._follow_root(function.__func__)
        if is_own_class(kind):
            self._add("self", function)
            return self.values.describe(kind, "self")
        text = self.values.describe(function, "lambda")
        if text == UNREAD:
            self.values.unread["function"] = None
        elif text not in self._taken:
            self.values.data["function"] = text
        return text

    # --- functions, classes, modules -------------------------------------

    def _refer(self, value: Any, path: str) -> str:
        """Name a function or a class of the person's own; it is followed."""
        name = self._names.get(id(value))
        if name is not None:
            return name
        is_class = isinstance(value, type)
        whole = value.__qualname__ if is_class else value.__code__.co_qualname
        prefix = self._prefix(_module_of(value))
        tail = whole.rpartition("<locals>.")[2]
        name = path if "<lambda>" in tail else f"{prefix}{tail}"
        name = _find_free(name, path, self._taken)
        self._names[id(value)], self._taken[name] = name, value
        self._waiting.append((name, value))
        return name

    def _prefix(self, module: str) -> str:
        return "" if module == self._home else f"{module}."

    def _follow_function(self, name: str, function: Any) -> None:
        code = function.__code__
        self.code[name] = checksum_code(code)
        prefix = self._prefix(_module_of(function))
        for parameter, default in _list_defaults(function):
            self._add(f"{name}({parameter})", default)
        for attribute, value in vars(function).items():
            if not _is_dunder(attribute):
                self._add(f"{name}.{attribute}", value)
        uses = list_uses(code)
        for variable, cell in zip(
            code.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                value = cell.cell_contents
            except ValueError:  # Not filled yet.
                continue
            chains = uses.cells.get(variable, {(): None})
            self._take(variable, value, chains, prefix, name)
        outside = function.__globals__
        for variable, chains in uses.globals.items():
            if variable in outside and not _is_dunder(variable):
                value = outside[variable]
                self._take(variable, value, chains, prefix, name)
        self._follow_imports(uses.imports, outside.get("__package__"))

    def _take(
        self, variable: str, value: Any, chains: Chains, prefix: str, owner: str
    ) -> None:
        """Take up a variable that code names; of modules, what it reads."""
        if variable == "__class__":  # That a method of it uses `super()`.
            self.values.describe(value, variable)
        elif _is_own(value):
            for chain in chains:
                self._follow_module(value, chain)
        else:
            self._add(f"{prefix}{variable}", value, f"{owner}.{variable}")

    def _follow_module(
        self, module: types.ModuleType, chain: tuple[str, ...]
    ) -> None:
        if not chain:
            if not self._follow_source(module.__name__):
                self.values.unread[module.__name__] = None
            return
        attribute, *rest = chain
        if attribute not in vars(module):
            return
        value = vars(module)[attribute]
        if not isinstance(value, types.ModuleType):
            prefix = self._prefix(_clean_module(module.__name__))
            self._add(f"{prefix}{attribute}", value)
        elif _is_own(value):
            self._follow_module(value, tuple(rest))

    def _follow_imports(
        self, imports: Iterable[tuple[str, int]], package: Any
    ) -> None:
        for name, level in imports:
            dotted = "." * level + name
            try:
                whole = importlib.util.resolve_name(dotted, package)
            except (ImportError, AttributeError):  # It fails there too.
                continue
            self._follow_source(whole)

    def _follow_source(self, name: str) -> bool:
        """Take up the whole of a module, and what it imports."""
        if name in self.code:
            return True
        code = find_module_code(name)
        if code is None:
            return False
        self.code[name] = checksum_code(code)
        package = name.rpartition(".")[0]
        if package:
            self._follow_source(package)
        if code.co_filename.endswith("__init__.py"):
            package = name
        self._follow_imports(list_uses(code).imports, package)
        return True

    def _follow_class(self, name: str, cls: type) -> None:
        bases = [
            self.values.describe(base, f"{name}.base")
            for base in (type(cls), *cls.__bases__)
        ]
        own = vars(cls)
        fields = list((own.get("__dataclass_fields__") or {}).values())
        flags = [f"{one.name} {one.init} {one.kw_only}" for one in fields]
        self.code[name] = combine_checksums([*bases, *flags])
        for one in fields:
            if not isinstance(one.default_factory, _MISSING):
                self._add(f"{name}.{one.name}", one.default_factory)
        if issubclass(cls, enum.Enum):
            for member in own.get("_member_map_", {}).values():
                value = vars(member).get("_value_")
                self._add(f"{name}.{vars(member).get('_name_')}", value)
        for attribute, value in own.items():
            for one in _list_functions(value):
                if not _is_generated(cls, one):
                    self.values.describe(one, f"{name}.{attribute}")
            if _is_plain_attribute(cls, attribute, value):
                self._add(f"{name}.{attribute}", value)

    # --- values -----------------------------------------------------------

    def _add(self, name: str, value: Any, other: str = "") -> None:
        """Tell a value under a name that is free."""
        if self.values.is_ignored(value):
            return
        for one in filter(None, (name, other)):
            if one in self._claimed and self._claimed[one] is value:
                return
        name = _find_free(name, other or name, self._claimed)
        self._claimed[name] = value
        self.values.tell(name, value)


def _find_free(name: str, other: str, taken: dict[str, object]) -> str:
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    names = itertools.chain((name, other), numbered)
    return next(one for one in names if one not in taken)


def _is_own(value: object) -> bool:
    """Whether it is a module of the person's own."""
    return isinstance(value, types.ModuleType) and is_own_module(value.__name__)


def _module_of(value: Any) -> str:
    """The module whose globals a function uses, or that a class is from."""
    while not isinstance(value, (types.FunctionType, type)):
        names = ("func", "__func__", "__wrapped__")
        inner = (getattr(value, name, None) for name in names)
        value = next(filter(callable, inner), type(value))
    if isinstance(value, type):
        return _clean_module(str(value.__module__))
    return _clean_module(str(value.__globals__.get("__name__")))


def _clean_module(name: str) -> str:
    """The main program has another name in processes that it starts."""
    return "__main__" if name == "__mp_main__" else name


def _list_defaults(function: Any) -> list[tuple[str, Any]]:
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    listed = zip(names[len(names) - len(defaults) :], defaults, strict=True)
    return [*listed, *(function.__kwdefaults__ or {}).items()]


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _list_functions(value: Any) -> list[Any]:
    """The functions of a class' attribute: a method, or those of a property."""
    kind = type(value)
    if kind in (staticmethod, classmethod):
        return [value.__func__]
    if issubclass(kind, property):
        found = (value.fget, value.fset, value.fdel)
        return [one for one in found if one is not None]
    if issubclass(kind, (functools.cached_property, functools.partialmethod)):
        return [value.func]
    return [value] if kind is types.FunctionType else []


def _is_generated(cls: type, function: Any) -> bool:
    """Whether a dataclass or a named tuple made it, by what is told anyway."""
    while "__wrapped__" in getattr(function, "__dict__", ()):
        function = vars(function)["__wrapped__"]
    if type(function) is not types.FunctionType:
        return False
    name = function.__code__.co_qualname
    if "__dataclass_fields__" in vars(cls):
        return name.startswith("__create_fn__.")
    return "_fields" in vars(cls) and name == "<lambda>"


def _is_plain_attribute(cls: type, name: str, value: Any) -> bool:
    kind = type(value)
    if _is_dunder(name) or name == "_abc_impl" or _list_functions(value):
        return False
    if issubclass(cls, enum.Enum):
        return False
    is_descriptor = hasattr(kind, "__get__") and not is_own_class(kind)
    return not is_descriptor or isinstance(value, type)
