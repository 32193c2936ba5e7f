"""Something done right after the program has imported a module."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class ImportHook:
    """Calls a function with a module right after that was imported."""

    def __init__(self, actions: dict[str, Callable[[Any], None]]) -> None:
        self._actions = actions

    def install(self, *, also_loaded: bool = False) -> None:
        """Wait from now on."""
        for name, action in self._actions.items():
            module = sys.modules.get(name) if also_loaded else None
            if module is not None:
                action(module)
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Wait no longer."""
        with suppress(ValueError):  # The program may have removed it.
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module that is waited for; `None` for any other."""
        if name not in self._actions or self not in sys.meta_path:
            return None
        # Finds nothing itself: it asks the finders behind it, and the loader
        # that one of them gives forgets about us once it has run.
        # Not those before us: they may be asking us just now.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            if find is None:
                continue
            spec: importlib.machinery.ModuleSpec | None = find(
                name, path, target
            )
            if spec is not None:
                self._follow(spec.loader, self._actions[name])
                return spec
        return None

    def _follow(self, loader: Any, action: Callable[[Any], None]) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            # The class has its own; another hook may have gone back to it.
            with suppress(AttributeError):
                del loader.exec_module
            execute(module)
            action(module)

        # A loader that takes no attributes is none of Python's own.
        with suppress(AttributeError):
            loader.exec_module = exec_module
