"""Data that seed their draws anew, and draw alike in every epoch."""

from __future__ import annotations

import dis
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType, FrameType, FunctionType
from typing import Any

import keras

from keras_repro.backends.data_state import (
    FUNCTIONS,
    DataState,
    held_by_function,
    is_data,
)
from keras_repro.backends.keras_internals import checksum_leaves
from keras_repro.backends.random_streams import kept_python
from keras_repro.common.whose_code import (
    is_own_class,
    is_own_code,
    is_own_function,
)

# What begins a stream of random numbers: by its own name, or behind `random`.
_MAKERS = frozenset(
    {
        *("default_rng", "RandomState", "SeedSequence", "Random"),
        *("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"),
        *("SeedGenerator", "PRNGKey", "manual_seed"),
    }
)
_MAKERS_OF_RANDOM = frozenset({"seed", "key", "set_seed"})
_MOST_OBJECTS = 200
_MOST_ITEMS = 20
_HOOKS = frozenset({"on_epoch_begin", "on_epoch_end"})


def find_seeded_alike(x: Any) -> str | None:
    """The class of data whose first batch is drawn alike in every epoch."""
    # A `PyDataset` is read as it stands and behind its own `on_epoch_end`, what
    # a loader of PyTorch loads twice; both are put back. Data whose code names
    # an epoch may get it from elsewhere, and data that hold no samples make
    # them up, alike on purpose: both are let be.
    is_keras = isinstance(x, keras.utils.PyDataset)
    data = x if is_keras else x.dataset
    codes = list(_list_code(data if is_keras else (data, x.collate_fn)))
    names = {name for one in codes for name in one.co_names} - _HOOKS
    if any("epoch" in name for name in names):
        return None
    if not any(map(_list_making_lines, codes)):
        return None
    start = DataState(x)
    if start.consumed or start.too_large:
        return None
    read = _read_keras if is_keras else _read_torch
    try:
        with kept_python():
            lines = _Lines()
            first = lines.read(lambda: read(x))
            if is_keras:
                x.on_epoch_end()
                x.on_epoch_begin()
            is_drawn = lines.made and lines.reads_samples
            is_alike = is_drawn and first == read(x)
    finally:
        start.restore()
    return type(data).__name__ if is_alike else None


def _read_keras(x: keras.utils.PyDataset) -> str:
    return checksum_leaves(x[0])


def _read_torch(loader: Any) -> str:
    """The first two samples that a loader loads, in one batch."""
    from torch.utils.data import IterableDataset

    data = loader.dataset
    samples = iter(data) if isinstance(data, IterableDataset) else None
    if samples is None:
        samples = (data[index] for index in range(min(2, len(data))))
    if loader.batch_sampler is None:
        return checksum_leaves(loader.collate_fn(next(samples)))
    return checksum_leaves(
        loader.collate_fn(list(itertools.islice(samples, 2)))
    )


def _list_code(root: Any) -> Iterator[CodeType]:
    """The person's code that reads data, in them and in what it names."""
    todo = [root]
    seen: set[int] = set()
    while todo and len(seen) < _MOST_OBJECTS:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (list, tuple, dict)):
            items = one.values() if isinstance(one, dict) else one
            todo += itertools.islice(items, _MOST_ITEMS)
        elif isinstance(one, FUNCTIONS):
            todo += held_by_function(one)
            function = inspect.unwrap(getattr(one, "__func__", one))
            if isinstance(function, FunctionType) and is_own_function(function):
                code = function.__code__
                yield code
                named = map(function.__globals__.get, code.co_names)
                todo += [it for it in named if isinstance(it, FunctionType)]
        elif _has_code(one):
            todo += vars(one).values()
            for base in filter(is_own_class, type(one).__mro__):
                todo += [
                    method
                    for name, method in vars(base).items()
                    if isinstance(method, FunctionType) and name != "__init__"
                ]


def _has_code(value: Any) -> bool:
    """Whether it may be, or hold, code of the person that gives samples."""
    return hasattr(value, "__dict__") and (
        is_own_class(type(value)) or callable(value) or is_data(value)
    )


class _Lines:
    """What the person's lines do while a batch is read."""

    def __init__(self) -> None:
        # Whether they begin a stream, and name what may hold the samples.
        self.made = self.reads_samples = False

    def read(self, read: Callable[[], str]) -> str:
        """Read a batch, and look on."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            return read()
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        del event, arg
        code = frame.f_code
        if not is_own_code(code, frame.f_globals):
            return None
        # What a method is called on comes first.
        first = frame.f_locals.get((*code.co_varnames, "")[0])
        held = getattr(first, "__dict__", {})
        named = [held.get(name) for name in code.co_names]
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
