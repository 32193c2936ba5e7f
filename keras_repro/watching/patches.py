"""Attributes replaced for a while, and put back."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
_ABSENT = object()


class Patches:
    """Replaces attributes of modules and classes, and puts them back."""

    def __init__(self) -> None:
        self._undoing: list[Callable[[], None]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)

        def put_back() -> None:
            if vars(owner).get(name, _ABSENT) is not value:
                return  # Somebody has replaced it since; theirs stays.
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

        self._undoing.append(put_back)

    def in_place_of(
        self, name: str, *owners: Any
    ) -> Callable[[Function], Function]:
        """Decorates a function that takes the place, and the looks, of one."""

        def put(function: Function) -> Function:
            functools.update_wrapper(function, getattr(owners[0], name))
            for owner in owners:
                self.replace(owner, name, function)
            return function

        return put

    def replace_in_type(self, owner: type, name: str, value: Any) -> bool:
        """Replace an attribute of a class that is written in C."""
        # Such a class refuses `setattr`, and a subclass in its place would not
        # be the same type to anybody who asks.
        attributes = _attributes_of(owner)
        if attributes is None or name not in attributes:
            return False
        before = attributes[name]
        _put(owner, attributes, name, value)
        self._undoing.append(lambda: _put(owner, attributes, name, before))
        return True

    def also_undo(self, action: Callable[[], None]) -> None:
        """Have something else undone, in its turn."""
        self._undoing.append(action)

    def undo(self) -> None:
        """Put everything back, the last first."""
        while self._undoing:
            self._undoing.pop()()


def _attributes_of(owner: type) -> dict[str, Any] | None:
    """The dictionary behind the read-only view that a class shows."""
    if sys.implementation.name != "cpython":
        return None
    found = [
        one for one in gc.get_referents(owner.__dict__) if type(one) is dict
    ]
    return found[0] if len(found) == 1 else None


def _put(
    owner: type, attributes: dict[str, Any], name: str, value: Any
) -> None:
    attributes[name] = value
    # Drops what the interpreter has cached of the class.
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))
