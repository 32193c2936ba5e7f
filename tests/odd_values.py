"""Calls of public functions with one argument that is odd.

What is public is found, and what an argument may be is read from its
annotation: nothing here lists functions or arguments but how to call one right.
"""

import contextlib
import decimal
import fractions
import inspect
import itertools
import operator
import os
import re
import signal
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from numbers import Real
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

import keras_repro

OURS = str(Path(keras_repro.__file__).parent)
LONGEST = 10.0  # Seconds: whatever takes longer might never return.
ERRORS = (ValueError, TypeError, OSError)


# --- odd values --------------------------------------------------------------


def _raise(self, *args):
    raise ZeroDivisionError


def make_thing(*methods, base=object, value=()):
    """An object of a class of its own, with methods that raise."""
    return type("Thing", (base,), dict.fromkeys(methods, _raise))(*value)


def make_cycle():
    """A list that holds itself."""
    cycle = []
    cycle.append(cycle)
    return cycle


ODD = {
    "None": lambda: None,
    "True": lambda: True,
    "np.False_": lambda: np.False_,
    "0": lambda: 0,
    "1": lambda: 1,
    "-1": lambda: -1,
    "2**31": lambda: 2**31,
    "2**32": lambda: 2**32,
    "10**30": lambda: 10**30,
    "10**5000": lambda: 10**5000,
    "np.int64(2)": lambda: np.int64(2),
    "np.array(2)": lambda: np.array(2),
    "1.5": lambda: 1.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "1e308": lambda: 1e308,
    "np.float32": lambda: np.float32(0.5),
    "1j": lambda: 1j,
    "Decimal": lambda: decimal.Decimal("0.5"),
    "Fraction": lambda: fractions.Fraction(1, 2),
    "empty text": lambda: "",
    "text": lambda: "no",
    "control codes": lambda: "a\x1b[2J\n",
    "NUL": lambda: "a\0b",
    "surrogate": lambda: "\ud800",
    "long text": lambda: "x" * 100_000,
    "bytes": lambda: b"ab",
    "bytearray": lambda: bytearray(b"ab"),
    "empty list": list,
    "list": lambda: [1],
    "nested list": lambda: [[1], [2, 3]],
    "cycle": make_cycle,
    "bools": lambda: (True, False),
    "floats": lambda: [0.5, 1.5],
    "complex numbers": lambda: np.array([1j, 2]),
    "dict": lambda: {"a": 1},
    "odd keys": lambda: {object(): 1},
    "set": lambda: {1, "a"},
    "array": lambda: np.array([1, 2]),
    "empty array": lambda: np.array([]),
    "records": lambda: np.zeros(2, [("a", int)]),
    "objects": lambda: np.array([object(), None]),
    "endless": itertools.count,
    "generator": lambda: (one for one in "ab"),
    "huge range": lambda: range(10**30),
    "a path": lambda: Path("no-such-folder/file"),
    "a folder": Path,
    "class": lambda: int,
    "function": lambda: len,
    "lambda": lambda: lambda: None,
    "module": lambda: os,
    "...": lambda: ...,
    "error": lambda: KeyError("no"),
    "date": lambda: date(2026, 1, 1),
    "object": object,
    "repr raises": lambda: make_thing("__repr__", "__str__"),
    "attributes raise": lambda: make_thing("__getattr__"),
    "truth raises": lambda: make_thing("__bool__", "__eq__", "__hash__"),
    "index raises": lambda: make_thing("__index__", "__float__", "__int__"),
    "path raises": lambda: make_thing("__fspath__"),
    "iteration raises": lambda: make_thing("__iter__", "__len__"),
    "odd text": lambda: make_thing("__repr__", "__str__", base=str, value="n"),
    "odd integer": lambda: make_thing("__repr__", base=int, value="3"),
}


# --- what an annotation takes ------------------------------------------------


def _is_index(value):
    is_truth = isinstance(value, (bool, np.bool_))
    return not is_truth and isinstance(operator.index(value), int)


def _is_text(value):
    return isinstance(value, str) and bool(value)


def _is_path(value):
    text = value if isinstance(value, str) else os.fspath(value)
    return bool(text) and "\0" not in text and len(text) < 256


def _is_real(value):
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and value == value


def _is_row(value):
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


TAKES = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, (bool, np.bool_)),
    "int": _is_index,
    "float": _is_real,
    "str": _is_text,
    "Path": _is_path,
    "os.PathLike": _is_path,
    "Callable": callable,
    "Mapping": lambda value: isinstance(value, Mapping),
    "Iterable": _is_row,
    "Sequence": _is_row,
    "tuple": _is_row,
    "Scores": lambda value: np.asarray(value).dtype.kind in "biuf",
    "BaseException": lambda value: isinstance(value, BaseException),
}


def takes(annotation, value):
    """Whether a value is what an annotation says; `Any` says nothing."""
    flat = re.sub(r"\[[^][]*\]", "", annotation)
    while flat != annotation:
        annotation, flat = flat, re.sub(r"\[[^][]*\]", "", flat)
    for one in map(str.strip, flat.split("|")):
        if one in ("Any", "object", "npt.ArrayLike"):
            return True
        with contextlib.suppress(Exception):
            named = one == type(value).__name__  # Such as `Run`.
            if TAKES[one](value) if one in TAKES else named:
                return True
    return False


# --- calls -------------------------------------------------------------------


class Accepted(BaseException):
    """Raised by what stands in for the work behind the checks."""


class TooLong(BaseException):
    """A call that had to be ended."""


@dataclass(frozen=True)
class Call:
    """A public function or method, and how to call it right.

    Args:
        name: What it is called, such as `"TrialResults.rank"`.
        function: It.
        right: Makes right arguments, by name; `"*args"` names those of `*args`.
    """

    name: str
    function: Any
    right: Any = dict

    @property
    def parameters(self):
        """Its arguments, but for those of `**kwargs`."""
        is_class = inspect.isclass(self.function)
        function = self.function.__init__ if is_class else self.function
        found = [*inspect.signature(function).parameters.values()][is_class:]
        return [one for one in found if one.kind is not one.VAR_KEYWORD]

    def run(self, **changes):
        """Call it, with some arguments that are not the right ones."""
        given = {**self.right(), **changes}
        loose = given.pop("*", ())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self.function(*loose, **given)
            if isinstance(result, contextlib.AbstractContextManager):
                with result:
                    pass
        return result

    def run_odd(self, parameter, value):
        """Call it with one argument that is odd."""
        if parameter.kind is parameter.VAR_POSITIONAL:
            return self.run(**{"*": (value,)})
        return self.run(**{parameter.name: value})


def find_calls(subjects, right, inherited=()):
    """All that can be called of public names, and of what these give.

    Args:
        subjects: Public functions and classes by name.
        right: How to call one right, by its name.
        inherited: Classes whose methods are not ours to check.
    """
    left = [
        Call(name, one, right.get(name, dict)) for name, one in subjects.items()
    ]
    seen = set()
    while left:
        call = left.pop(0)
        result = None
        with contextlib.suppress(Accepted):
            result = call.run()  # First, so that imports take no time later.
        yield call
        kind = type(result)
        if kind in seen or not kind.__module__.startswith("keras_repro"):
            continue
        seen.add(kind)
        owner = call.name if inspect.isclass(call.function) else kind.__name__
        for name in list_methods(kind, inherited):
            key = f"{owner}.{name}"
            left.append(Call(key, getattr(result, name), right.get(key, dict)))


METHODS = (FunctionType, classmethod, staticmethod)


def list_methods(kind, inherited=()):
    """The public methods of a class, but for those that it only overrides."""
    return [
        name
        for name in dir(kind)
        if not name.startswith("_")
        and isinstance(inspect.getattr_static(kind, name), METHODS)
        and not any(hasattr(one, name) for one in inherited)
    ]


# --- the verdict -------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    """What came of a call with an odd argument.

    Args:
        where: The function, the argument and the value.
        wrong: What is wrong with the outcome; empty if it is allowed.
    """

    where: str
    wrong: str


def try_all(calls, passed_on=()):
    """Call all with every odd value for every argument, one at a time.

    Args:
        calls: The calls.
        passed_on: Arguments that are somebody else's to check.
    """
    for call in calls:
        for parameter in call.parameters:
            where = f"{call.name}({parameter.name}"
            if f"{where})" in passed_on:
                continue
            for name, make in ODD.items():
                yield Tried(f"{where}: {name})", _try(call, parameter, make()))


def _try(call, parameter, value):
    """What is wrong with the outcome of a call; nothing if it is allowed.

    Allowed is a result, where the value is what the annotation says; and an
    error of ours that names the argument (or the function, if it has one
    argument), says what was received, and moves no cursor. An error of a file
    names the file.
    """
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        annotation = inspect.formatannotation(annotation)
    try:
        with _time_limit():
            call.run_odd(parameter, value)
    except TooLong:
        return "does not return"
    except Accepted:
        pass
    except ERRORS as error:
        return _judge(error, call, parameter.name, annotation)
    except BaseException as error:  # noqa: BLE001 - of whatever kind
        return f"raises {type(error).__name__}: {error}"
    return "" if takes(annotation, value) else f"accepted, as {annotation}"


def _judge(error, call, name, annotation):
    text = str(error)
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    if not last.startswith(OURS):
        return f"{type(error).__name__} is raised in {last}: {text[:200]}"
    if "Received" not in text:
        return f"does not say what was received: {text[:200]}"
    own = call.name.rpartition(".")[2]
    names = {name, own} if len(call.parameters) == 1 else {name}
    is_named = any(re.search(rf"`{one}\b", text) for one in names)
    is_of_file = isinstance(error, OSError) or "Path" in annotation
    if not is_named and not is_of_file:
        return f"does not name the argument: {text[:200]}"
    if not text.replace("\n", "").isprintable() or len(text) > 2000:
        return f"cannot be shown: {text[:200]!r}"
    return ""


@contextlib.contextmanager
def _time_limit():
    """End what takes too long, where the system has such an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(number, frame):
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
