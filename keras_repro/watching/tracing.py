"""The values that a script's variables take, line by line.

The first difference of two traces is the line at which runs that should be
equal begin to differ: where an order followed from the hash of a string, or
something came in that nobody watches.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from keras_repro.common.whose_code import is_user_code

TRACE = "trace.txt"
_MOST_PER_LINE = 200
_MOST_ENTRIES = 300_000
_MOST_ITEMS = 2000
_MOST_BYTES = 1 << 22
_DEEPEST = 4
_PLAIN = (bool, int, float, complex, str, bytes, type(None))

Tracer = Callable[[FrameType, str, Any], Any]


class Trace:
    """Writes down the values that the person's own variables take."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder) / TRACE
        self._lines: list[str] = []
        self._counts: dict[tuple[CodeType, int, str], int] = {}

    def start(self) -> None:
        """Trace from now on, in this thread."""
        sys.settrace(self._enter)

    def stop(self) -> None:
        """End, and write what was traced."""
        sys.settrace(None)
        text = "\n".join(self._lines)
        self._path.write_text(text, encoding="utf-8", errors="replace")

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Tracer | None:
        del event, arg
        if not is_user_code(frame.f_code.co_filename):
            return None
        known: dict[str, str] = {}
        line = frame.f_lineno

        def follow(frame: FrameType, event: str, arg: Any) -> Tracer:
            nonlocal line
            del arg
            if event in ("line", "return"):
                self._look(frame, line, known)
                line = frame.f_lineno
            return follow

        self._look(frame, line, known)
        return follow

    def _look(self, frame: FrameType, line: int, known: dict[str, str]) -> None:
        """Note which variables have changed since the line before."""
        if len(self._lines) >= _MOST_ENTRIES:
            return
        code = frame.f_code
        for name, value in list(frame.f_locals.items()):
            digest = None if name.startswith("__") else digest_value(value)
            if digest is None or known.get(name) == digest:
                continue
            known[name] = digest
            key = code, line, name
            count = self._counts[key] = self._counts.get(key, 0) + 1
            if count <= _MOST_PER_LINE:
                self._lines.append(
                    f"{code.co_filename}:{line}\t{name}\t{digest}"
                )


def find_first_difference(
    a: str | os.PathLike[str], b: str | os.PathLike[str]
) -> tuple[str, str] | None:
    """The first line at which two traces differ."""
    for one, other in zip_longest(_read(a), _read(b)):
        if one != other:
            place, name, _ = (one or other or "").split("\t", 2)
            return place, name
    return None


def digest_value(value: Any, depth: int = 0) -> str | None:
    """A short text that tells plain values apart; `None` for all others."""
    kind = type(value)
    if kind in _PLAIN:
        text = value.hex() if kind is float else repr(value)
        return text if len(text) < 64 else _hash(text.encode())
    if depth > _DEEPEST:
        return None
    if kind in (list, tuple, set, frozenset, dict):
        return _digest_items(value, kind, depth)
    if kind.__module__ == "numpy":
        return _digest_numpy(value)
    return None  # What has an identity of its own: a layer, a tensor.


def _digest_items(value: Any, kind: type, depth: int) -> str | None:
    if len(value) > _MOST_ITEMS:
        return f"{kind.__name__} of {len(value)}"
    items = value.items() if kind is dict else value
    parts = [digest_value(one, depth + 1) or "?" for one in items]
    if kind in (set, frozenset):
        parts.sort()
    return _hash("|".join([kind.__name__, *parts]).encode())


def _digest_numpy(value: Any) -> str | None:
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.hasobject or value.nbytes > _MOST_BYTES:
        return None
    return _hash(f"{dtype}{value.shape}".encode() + value.tobytes())


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _read(folder: str | os.PathLike[str]) -> Iterator[str]:
    path = Path(folder) / TRACE
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)
