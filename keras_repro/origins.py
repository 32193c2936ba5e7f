"""Whose code it is: the person's own or a library's; and a library's names."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np

from keras_repro.sites import is_installed, is_user_code

# Where extension modules register types; none is a file's.
_MADE_UP = ("_cython", "pybind11", "nanobind")
_IS_HEAP_TYPE = 1 << 9  # `Py_TPFLAGS_HEAPTYPE`: a class made while running.
_MODULE: Any = vars(type)["__module__"]
_OWN_PACKAGE = __name__.partition(".")[0]


def is_own_module(name: object) -> bool:
    """Whether a module of this name is the person's own.

    Example:
        >>> is_own_module("__main__"), is_own_module("json")
        (True, False)
    """
    if name in ("__main__", "__mp_main__"):
        return True
    if not isinstance(name, str) or name.startswith(_MADE_UP):
        return False
    package = name.partition(".")[0]
    if package in sys.stdlib_module_names or package == _OWN_PACKAGE:
        return False
    file = vars(sys.modules.get(name, object)).get("__file__")
    return not (isinstance(file, str) and is_installed(file))


def is_own_function(function: types.FunctionType) -> bool:
    """Whether the person wrote the code of a function.

    Example:
        >>> import json
        >>> is_own_function(lambda: 0), is_own_function(json.dumps)
        (True, False)
    """
    file = function.__code__.co_filename
    if not file.startswith("<"):
        return is_user_code(file)
    if file.startswith(("<doctest", "<stdin", "<ipython-input")):
        return True
    # Of the code that libraries generate, attrs' has the person's globals.
    is_generated = file.startswith(("<attrs", "<frozen"))
    module = function.__globals__.get("__name__", "__main__")
    return not is_generated and is_own_module(module)


def is_own_class(cls: type) -> bool:
    """Whether a class is the person's own.

    Example:
        >>> is_own_class(np.ndarray), is_own_class(int)
        (False, False)
    """
    return "__module__" in vars(cls) and is_own_module(vars(cls)["__module__"])


def package_of(kind: type) -> str:
    """The top-level package that a class says it comes from.

    Example:
        >>> package_of(np.random.Generator)
        'numpy'
    """
    name = _MODULE.__get__(kind)
    return name.partition(".")[0] if isinstance(name, str) else ""


def is_keras_class(kind: type) -> bool:
    """Whether Keras made a class or its base, and objects tell their settings.

    Example:
        >>> is_keras_class(dict)
        False
    """
    is_made = any(package_of(base) == "keras" for base in kind.__mro__)
    return is_made and hasattr(kind, "get_config")


def is_python_class(kind: type) -> bool:
    """Whether no base is a class of C, which may hold what is not seen.

    Example:
        >>> is_python_class(types.DynamicClassAttribute), is_python_class(dict)
        (True, False)
    """
    return all(base.__flags__ & _IS_HEAP_TYPE for base in kind.__mro__[:-1])


def name_library_object(value: Any) -> str | None:
    """The name under which a library offers an object; `None` if it does not.

    Example:
        >>> name_library_object(np.mean), name_library_object(np.add)
        ('numpy.mean', 'numpy.add')
        >>> name_library_object(np.random.default_rng(0)) is None
        True
    """
    if isinstance(value, types.ModuleType):
        return value.__name__
    module: Any = getattr(value, "__module__", None)
    name: Any = getattr(value, "__qualname__", getattr(value, "__name__", None))
    if isinstance(value, np.ufunc):
        module = "numpy"
    if not isinstance(name, str) or is_own_module(module):
        return None
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        return None
    return name if module == "builtins" else f"{module}.{name}"
