"""What a script asked of its models, call by call: written as it goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CALLS, RUNS = "calls.jsonl", "runs.jsonl"
FIT, LOAD, END = "fit", "load_weights", "end"
# The role of what layers keep where Keras does not track it.
HIDDEN = "hidden"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a method of a model, or a model as the script left it.

    Args:
        index: Its position among the calls of the process, counted from 0.
        method: `"fit"`, `"evaluate"` and so on; `"end"` for the end.
        model: The model's name.
        place: The line that called, such as `/home/me/train.py:12`.
        run_id: The run that a `fit` was recorded as.
        state: Checksums of the model's variables before the call, by role
            and place; `None` where they were not read.
        data: Checksum of the arrays it was given, or `None`.
        results: What came out, by name, as text that tells bits apart.
        error: The type of the exception that ended it, or `None`.
        traps: What is wrong with it though it may be repeatable.
    """

    index: int
    method: str
    model: str
    place: str
    run_id: str | None = None
    state: Mapping[str, Mapping[str, str]] | None = None
    data: str | None = None
    results: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    traps: tuple[Mapping[str, str], ...] = ()


class CallFile:
    """The file of a process's calls, written as they end.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(Path(folder) / CALLS, flags, 0o600)

    def write(self, call: Call) -> None:
        """Append a call."""
        line = json.dumps(asdict(call)) + "\n"
        with suppress(OSError):  # A full disk is no matter of the program's.
            os.write(self._descriptor, line.encode())


def load_calls(folder: str | os.PathLike[str]) -> tuple[Call, ...]:
    """Read the calls of a process, in the order in which they began.

    Args:
        folder: Where it wrote them.

    Returns:
        None if it wrote none. A last, torn line is left out.
    """
    calls = _read_calls(Path(folder) / CALLS)
    return tuple(sorted(calls, key=lambda one: one.index))


def _read_calls(path: Path) -> Iterator[Call]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines[:-1]:
        values: dict[str, Any] = json.loads(line)
        yield Call(**{**values, "traps": tuple(values["traps"])})
