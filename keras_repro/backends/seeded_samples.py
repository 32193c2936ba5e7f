"""Whether a `PyDataset` seeds its draws anew, alike in every epoch."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FrameType, FunctionType
from typing import Any

import keras

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.backends.data_state import DataState
from keras_repro.backends.keras_internals import list_leaves
from keras_repro.backends.random_streams import kept_python
from keras_repro.common.whose_code import is_own_code, is_own_function

# What begins a stream of random numbers: by its own name, or behind `random`.
_MAKERS = frozenset(
    {
        *("default_rng", "RandomState", "SeedSequence", "Random"),
        *("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"),
        *("SeedGenerator", "PRNGKey", "manual_seed"),
    }
)
_MAKERS_OF_RANDOM = frozenset({"seed", "key", "set_seed"})
_HOOKS = frozenset({"on_epoch_begin", "on_epoch_end"})


def seeds_alike(x: keras.utils.PyDataset) -> bool:
    """Whether its first batch is drawn, and is drawn alike, in two epochs.

    It is read as it stands and behind its own `on_epoch_end`, and put back.
    One whose code names an epoch may be told it from elsewhere, and one that
    holds no samples makes them up, alike on purpose: both are let be.
    """
    codes = list(_list_code(type(x)))
    names = {name for one in codes for name in one.co_names} - _HOOKS
    if any("epoch" in name for name in names):
        return False
    if not any(map(_list_making_lines, codes)):
        return False
    start = DataState(x)
    if start.consumed or start.too_large:
        return False
    try:
        with kept_python():
            lines = _Lines(x)
            first = lines.read()
            x.on_epoch_end()
            x.on_epoch_begin()
            is_drawn = lines.made and lines.reads_samples
            return is_drawn and first == _read(x)
    finally:
        start.restore()


def _read(x: keras.utils.PyDataset) -> str:
    return compute_checksum(
        [keras.ops.convert_to_numpy(leaf) for leaf in list_leaves(x[0])]
    )


def _list_code(kind: type) -> Iterator[CodeType]:
    """The code below Keras' class, and of the person's functions it names."""
    bases = kind.__mro__[: kind.__mro__.index(keras.utils.PyDataset)]
    todo = [
        one
        for base in bases
        for one in vars(base).values()
        if isinstance(one, FunctionType)
    ]
    seen: set[CodeType] = set()
    while todo:
        function = inspect.unwrap(todo.pop())
        if not isinstance(function, FunctionType):
            continue
        code = function.__code__
        if code in seen or not is_own_function(function):
            continue
        seen.add(code)
        yield code
        named = map(function.__globals__.get, code.co_names)
        todo += [one for one in named if isinstance(one, FunctionType)]


class _Lines:
    """What the person's lines do while a batch is read."""

    def __init__(self, x: keras.utils.PyDataset) -> None:
        self._x = x
        # Whether they begin a stream, and name what may hold the samples.
        self.made = self.reads_samples = False

    def read(self) -> str:
        """Read the first batch, and look on."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            return _read(self._x)
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        del event, arg
        code = frame.f_code
        if not is_own_code(code, frame.f_globals):
            return None
        named = [vars(self._x).get(name) for name in code.co_names]
        named += [frame.f_globals.get(name) for name in code.co_names]
        named += [frame.f_locals.get(name) for name in code.co_freevars]
        self.reads_samples = self.reads_samples or any(map(_holds_many, named))
        making = _list_making_lines(code)

        def note(frame: FrameType, event: str, arg: Any) -> Any:
            del event, arg
            self.made = self.made or frame.f_lineno in making
            return note

        return note if making else None


def _holds_many(value: Any) -> bool:
    """Whether it is an array, a table or a collection of several things."""
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return False
    if not hasattr(value, "__getitem__"):
        return False
    with suppress(TypeError):  # An array of no dimensions.
        return len(value) > 1
    return False


def _list_making_lines(code: CodeType) -> set[int | None]:
    """The lines that name what begins a stream of random numbers."""
    lines, before = set(), ""
    for one in dis.get_instructions(code):
        name = one.argval if isinstance(one.argval, str) else ""
        is_behind = name in _MAKERS_OF_RANDOM and before == "random"
        if (name in _MAKERS or is_behind) and one.positions is not None:
            lines.add(one.positions.lineno)
        before = name
    return lines
