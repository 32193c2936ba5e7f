"""Whose code it is: the person's own, a library's or ours.

Loads no library: it is imported before a watched program loads NumPy.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
import threading
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

_HERE = str(Path(__file__).parents[1]) + os.sep
_PACKAGES = ("site-packages", "dist-packages")
# They hand numbers on; what asked them for some is what draws.
_PROVIDERS = frozenset({"random", "secrets", "uuid", "numpy"})
# Our folder that stands between a program and what it calls.
_BETWEEN = f"{_HERE}watching{os.sep}"
# Our folder that calls a training: who called it has not asked for that.
_CALLER = f"{_HERE}diagnosis{os.sep}"
# And the one that asks the system about itself.
_RECORDING = f"{_HERE}environment{os.sep}"
_MOST_BETWEEN = 12
_OURS, _WATCHING, _CALLING, _IMPORT = range(4)
_STANDARD, _LIBRARY, _USER, _GENERATED = range(4, 8)
_MOST_FRAMES = 400
# Of cloudpickle 3, and of what loky and joblib bring.
_SENT = "<dynamic-code>"


@dataclass(frozen=True, slots=True)
class Site:
    """Where something was done."""

    # Of the person's code; of the library where no code of theirs led to it.
    file: str
    # Counted from 1.
    line: int
    # `"numpy"`, `"keras"`, `"sklearn"`; `""` for the person's own code.
    library: str = ""
    # What the person's line called, such as `Dense.__init__`.
    through: str = ""
    # Where the library did it, as `file:line`; `""` for own code.
    at: str = ""

    @property
    def place(self) -> str:
        """Such as `/home/me/train.py:12`."""
        return f"{self.file}:{self.line}"

    @property
    def is_importing(self) -> bool:
        """Whether a library did it while it was imported."""
        return self.place == self.at


def show_place(place: str, folder: str | os.PathLike[str]) -> str:
    """A place as people type it: relative where it lies below a folder."""
    file, _, line = place.rpartition(":")
    path = Path(file)
    # Jupyter's kernel gives each cell a file that nobody finds, of its process.
    if path.parent.name.startswith("ipykernel_"):
        return f"<cell of a notebook>:{line}"
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    return f"{path}:{line}"


def find_site(frame: FrameType | None = None) -> Site | None:
    """Find where the present call comes from."""
    frame = frame or sys._getframe(1)
    drawing: FrameType | None = None
    inner: FrameType | None = None
    for _ in range(_MOST_FRAMES):
        if frame is None:
            break
        # What is neither in a folder of installed packages, nor Python's own,
        # nor this package, is the person's.
        kind = classify(file_of(frame))
        if kind == _USER:
            return _make_site(frame, drawing, inner)
        if kind == _OURS and drawing is None:
            return None
        # What finds modules draws nothing by itself.
        if kind in (_IMPORT, _CALLING):
            return None if drawing is None else _make_library_site(drawing)
        if kind in (_LIBRARY, _STANDARD):
            if "<" not in frame.f_code.co_qualname:
                inner = frame
            name = library_of(frame)
            if drawing is None and name not in _PROVIDERS:
                drawing = frame
        frame = frame.f_back
    return None if drawing is None else _make_library_site(drawing)


def find_waiting_site() -> Site | None:
    """As `find_site`; behind a library's own thread, who waits for it."""
    found = find_site(sys._getframe(1))
    # A library that draws in a thread of its own, such as one that loads data,
    # does so for the line at which the main thread is.
    main = threading.main_thread()
    if (
        found is None
        or not found.is_importing
        or threading.current_thread() is main
    ):
        return found
    frame = sys._current_frames().get(main.ident or 0)
    waiting = None if frame is None else find_site(frame)
    if waiting is None or waiting.is_importing:
        return found
    return replace(waiting, library=found.library, at=found.at)


def find_maker(made: object) -> Site | None:
    """Find who makes an object, from within its `__init__`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (
        classify(file_of(frame)) in (_OURS, _WATCHING) or _makes(frame, made)
    ):
        frame = frame.f_back
    return None if frame is None else find_site(frame)


def _makes(frame: FrameType, made: object) -> bool:
    code = frame.f_code
    if code.co_name != "__init__" or not code.co_varnames:
        return False
    return frame.f_locals.get(code.co_varnames[0]) is made


def is_user_code(filename: str) -> bool:
    """Whether a file, as a code object names it, is the person's."""
    return classify(filename) == _USER


def is_installed(filename: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    return classify(filename) in (_LIBRARY, _STANDARD)


def show_installed(place: str) -> str:
    """A place in a library, from the folder that all packages lie in."""
    for name in _PACKAGES:
        _, found, rest = place.rpartition(f"{os.sep}{name}{os.sep}")
        if found:
            return rest
    return place


def package_of(filename: str) -> str:
    """The installed package that a file belongs to; `python` for its own."""
    shown = show_installed(filename)
    if shown == filename:
        return "python"
    return Path(shown).parts[0].removesuffix(".py")


def caller_is_user() -> bool:
    """Whether the person's own code called the function that asks."""
    return classify(file_of(sys._getframe(2))) == _USER


def is_recording_environment() -> bool:
    """Whether what runs now is asked by us, to record an environment."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_MOST_BETWEEN):
        if frame is None:
            break
        if frame.f_code.co_filename.startswith(_RECORDING):
            return True
        frame = frame.f_back
    return False


def add_user_folder(folder: str) -> None:
    """Have a folder count as the person's though packages lie there."""
    _user_folders.add(str(Path(folder).resolve()) + os.sep)
    classify.cache_clear()


def file_of(frame: FrameType) -> str:
    """The file of the code that runs in a frame."""
    name = frame.f_code.co_filename
    if name != _SENT:
        return name
    # cloudpickle sends a function to another process under a made-up name,
    # and the name of its module's file beside it.
    file = frame.f_globals.get("__file__")
    return file if isinstance(file, str) else name


def library_of(frame: FrameType) -> str:
    """The top-level package whose code runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_user_folders: set[str] = set()


@functools.cache
def classify(filename: str) -> int:
    """Whose code a file is."""
    if filename.startswith("<frozen importlib"):
        return _IMPORT
    if filename.startswith(_HERE):
        if filename.startswith(_CALLER):
            return _CALLING
        return _WATCHING if filename.startswith(_BETWEEN) else _OURS
    if "__autograph_generated_file" in filename:
        return _GENERATED
    if filename.startswith("<"):
        # Of code without a file only what a person types is the person's.
        is_typed = filename.startswith(("<stdin>", "<ipython-input"))
        return _USER if is_typed else _GENERATED
    path = os.path.realpath(filename)
    for folder in _user_folders:
        if path.startswith(folder):
            # A project's environment may lie inside the project.
            rest = os.sep + path.removeprefix(folder)
            return _LIBRARY if _is_package(rest) else _USER
    if _is_package(path):
        return _LIBRARY
    if path.startswith(_package_folders()):
        return _LIBRARY
    if path.startswith(_standard_folders()):
        return _STANDARD
    return _USER


def _is_package(path: str) -> bool:
    return any(f"{os.sep}{name}{os.sep}" in path for name in _PACKAGES)


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib")
    paths = (sysconfig.get_path(name) for name in names)
    return tuple({os.path.realpath(one) + os.sep for one in paths if one})


@functools.cache
def _package_folders() -> tuple[str, ...]:
    paths = [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({os.path.realpath(one) + os.sep for one in paths})


def _make_site(
    frame: FrameType, drawing: FrameType | None, inner: FrameType | None
) -> Site:
    library, at, through = "", "", ""
    if drawing is not None:
        library, at = library_of(drawing), _place_of(drawing)
    if inner is not None:
        through = _name_call(inner)
        library = library or library_of(inner)
    return Site(file_of(frame), frame.f_lineno, library, through, at)


def _make_library_site(frame: FrameType) -> Site:
    file, line = frame.f_code.co_filename, frame.f_lineno
    return Site(file, line, library_of(frame), "", f"{file}:{line}")


def _place_of(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _name_call(frame: FrameType) -> str:
    """What was called, by the name that a person would use."""
    name = frame.f_code.co_qualname.removesuffix(".__init__")
    return f"{library_of(frame)}.{name}"


# Where extension modules register types; none is a file's.
_MADE_UP = ("_cython", "pybind11", "nanobind")
_IS_HEAP_TYPE = 1 << 9  # `Py_TPFLAGS_HEAPTYPE`: a class made while running.
_MODULE: Any = vars(type)["__module__"]
_OWN_PACKAGE = __name__.partition(".")[0]


def is_own_module(name: object) -> bool:
    """Whether a module of this name is the person's own."""
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
    """Whether the person wrote the code of a function."""
    return is_own_code(function.__code__, function.__globals__)


def is_own_code(code: types.CodeType, namespace: Mapping[str, Any]) -> bool:
    """Whether the person wrote a code object that runs in these globals."""
    file = code.co_filename
    if not file.startswith("<"):
        return is_user_code(file)
    if file.startswith(("<doctest", "<stdin", "<ipython-input")):
        return True
    # Of the code that libraries generate, attrs' has the person's globals.
    is_generated = file.startswith(("<attrs", "<frozen"))
    module = namespace.get("__name__", "__main__")
    return not is_generated and is_own_module(module)


def is_own_class(cls: type) -> bool:
    """Whether a class is the person's own."""
    return "__module__" in vars(cls) and is_own_module(vars(cls)["__module__"])


def package_of_class(kind: type) -> str:
    """The top-level package that a class says it comes from."""
    name = _MODULE.__get__(kind)
    return name.partition(".")[0] if isinstance(name, str) else ""


def is_keras_class(kind: type) -> bool:
    """Whether a class is of Keras or has its base, and tells its settings."""
    is_made = any(package_of_class(base) == "keras" for base in kind.__mro__)
    return is_made and hasattr(kind, "get_config")


def is_python_class(kind: type) -> bool:
    """Whether no base is a class of C, which may hold what is not seen."""
    return all(base.__flags__ & _IS_HEAP_TYPE for base in kind.__mro__[:-1])


def name_library_object(value: Any) -> str | None:
    """The name under which a library offers an object; `None` without one."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    module: Any = getattr(value, "__module__", None)
    name: Any = getattr(value, "__qualname__", getattr(value, "__name__", None))
    numpy: Any = sys.modules.get("numpy")
    if isinstance(value, getattr(numpy, "ufunc", ())):
        module = "numpy"
    if not isinstance(name, str) or is_own_module(module):
        return None
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        return None
    return name if module == "builtins" else f"{module}.{name}"


def warn_user(warning: Warning) -> None:
    """Warn at the line of the program that called `fit`, not at one of ours."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


def _is_inside(frame: FrameType) -> bool:
    """Whether code of Keras, of a backend or of this package runs there."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _INSIDE


# And what stands between a block of ours and who entered it.
_INSIDE = {"keras", "keras_repro", "tensorflow", "jax", "torch", "contextlib"}
