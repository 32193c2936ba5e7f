"""What an audit noted of a process: written by it, read by the command."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_repro.sites import Site

NOTES, VALUES = "notes.jsonl", "values.pickle"

DRAW = "draw"  # From a global generator that nobody has seeded.
ENTROPY = "entropy"  # From the operating system, or a generator without seed.
SEED = "seed"  # A generator was seeded.
CLOCK = "clock"  # The person's own code read a clock.
PROCESS = "process"  # The person's own code asked for the process id.
READ, WRITE, LISTING = "read", "write", "listing"  # A file, a folder.
NETWORK = "network"  # A connection was made.
PARALLEL = "parallel"  # Data are loaded by several workers.
THREADS = "threads"  # The number of computing threads was set.
OP = "op"  # An op was called whose kernels may race.


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that was done, at one place, once or many times.

    Args:
        kind: What was done: one of the kinds above.
        name: The generator, the function or the file.
        site: Where.
        order: Its position among all that was noted in the process.
        count: How often.
        values: What was given, as text, the first few.
        detail: More, in words.
    """

    kind: str
    name: str
    site: Site
    order: int
    count: int = 1
    values: tuple[str, ...] = ()
    detail: str = ""

    @property
    def place(self) -> str:
        """Where, such as `/home/me/train.py:12`."""
        return self.site.place


def note_to_json(note: Note) -> dict[str, Any]:
    """A note as plain values."""
    return asdict(note)


def note_from_json(values: Mapping[str, Any]) -> Note:
    """The note that `note_to_json` wrote."""
    return Note(
        **{
            **values,
            "site": Site(**values["site"]),
            "values": tuple(values["values"]),
        }
    )


class NoteFile:
    """The file of a process's notes, written as they come.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(self._folder / NOTES, flags, 0o600)

    def write(self, notes: Sequence[Note]) -> None:
        """Append notes; one of the same order replaces an earlier one."""
        lines = [json.dumps(note_to_json(one)) + "\n" for one in notes]
        with suppress(OSError):  # A full disk is no matter of the program's.
            os.write(self._descriptor, "".join(lines).encode())

    def write_values(self, values: Mapping[tuple[str, str], Any]) -> None:
        """Keep values themselves, to be given again by another process."""
        with (self._folder / VALUES).open("wb") as file:
            pickle.dump(dict(values), file)


def load_notes(folder: str | os.PathLike[str]) -> tuple[Note, ...]:
    """Read the notes of a process, in order.

    Args:
        folder: Where it wrote them.

    Returns:
        None if it wrote none. A last, torn line is left out.
    """
    notes = {one.order: one for one in _read_notes(Path(folder) / NOTES)}
    return tuple(notes[order] for order in sorted(notes))


def load_values(
    folder: str | os.PathLike[str],
) -> dict[tuple[str, str], list[Any]]:
    """Read the values that a process of ours kept; none if it kept none.

    Only for a folder of our own: they are pickled.
    """
    try:
        with (Path(folder) / VALUES).open("rb") as file:
            values: dict[tuple[str, str], list[Any]] = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return {}
    return values


def _read_notes(path: Path) -> Iterator[Note]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines[:-1]:
        yield note_from_json(json.loads(line))
