"""What a process does that could make it differ: noted, and held if asked."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from keras_repro.common.files import LineFile, read_json_lines
from keras_repro.common.whose_code import Site, find_site, find_waiting_site

_MOST_NOTES = 5000
_MOST_SHOWN = 64  # Values of one place, as text.
_MOST_KEPT = 10_000  # Values of one place, to be given again.
_LONGEST = 120
get_process = os.getpid  # Before it is watched.


class Audit:
    """Notes what a process does, each place of its program once."""

    def __init__(
        self,
        file: NoteFile,
        # By kind and place, values to give again instead of those that come.
        replayed: dict[tuple[str, str], list[Any]] | None = None,
    ) -> None:
        self._file: NoteFile | None = file
        self._notes: dict[tuple[str, str, str], Note] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._values: dict[tuple[str, str], list[Any]] = {}
        self._replayed = {k: iter(v) for k, v in (replayed or {}).items()}
        self._seeded: set[str] = set()
        self._unseeded_states: set[int] = set()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._process = get_process()

    # --- notes ---------------------------------------------------------------

    def note(
        self,
        kind: str,
        name: str,
        *,
        site: Site | None = None,
        value: Any = None,
        detail: str = "",
    ) -> None:
        """Note that something was done."""
        if self.is_muted:
            return
        with self.muted():
            site = site or find_site()
            if site is None:
                return
            key = (kind, name, site.place)
            text = "" if value is None else _show(value)
            with self._lock:
                self._add(key, kind, name, site, text, detail)

    def _add(
        self,
        key: tuple[str, str, str],
        kind: str,
        name: str,
        site: Site,
        text: str,
        detail: str,
    ) -> None:
        count = self._counts[key] = self._counts.get(key, 0) + 1
        note = self._notes.get(key)
        if note is None:
            if len(self._notes) >= _MOST_NOTES:
                return
            note = Note(
                kind=kind,
                name=name,
                site=site,
                order=len(self._notes),
                values=(text,) if text else (),
                detail=detail,
            )
        elif text and len(note.values) < _MOST_SHOWN:
            note = replace(note, values=(*note.values, text), count=count)
        else:
            return
        self._notes[key] = note
        if self._file is not None:
            self._file.write([note])

    @property
    def notes(self) -> list[Note]:
        """All notes so far, with their counts."""
        return [
            replace(note, count=self._counts[key])
            for key, note in self._notes.items()
        ]

    def go_on_in_child(self) -> None:
        """In a forked child: what its parent noted is none of its own."""
        self._process = get_process()
        self._file = None
        self._notes, self._counts, self._values = {}, {}, {}
        self._replayed = {}
        self._lock = threading.Lock()  # Another thread may have held it.

    def write_to(self, file: NoteFile) -> None:
        """Write elsewhere from now on, what was noted so far as well."""
        self._file = file
        file.write(self.notes)

    def finish(self) -> None:
        """Write the counts, and the values to be given again."""
        if self._process != get_process() or self._file is None:
            return
        with self.muted():
            self._file.write([one for one in self.notes if one.count > 1])
            self._file.write_values(self._values)

    @property
    def is_muted(self) -> bool:
        """Whether nothing is noted now: in a block, or in a forked child."""
        inside = getattr(self._local, "depth", 0) > 0
        return inside or self._process != get_process()

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Note nothing of this thread in a block."""
        before = getattr(self._local, "depth", 0)
        self._local.depth = before + 1
        try:
            yield
        finally:
            self._local.depth = before

    # --- generators that somebody seeds ----------------------------------

    def is_seeded(self, generator: str) -> bool:
        """Whether the program has seeded a global generator."""
        return generator in self._seeded

    def forget_seeding(self) -> Callable[[], None]:
        """The generators start anew, unseeded; what undoes it is returned."""
        before, self._seeded = self._seeded, set()

        def undo() -> None:
            self._seeded = before

        return undo

    def note_draw(self, generator: str) -> None:
        """A number was drawn from a global generator."""
        if generator not in self._seeded and not self.is_muted:
            with self.muted():
                site = find_waiting_site()
            if site is not None:
                self.note(DRAW, generator, site=site)

    def note_entropy(self, name: str, site: Site | None) -> None:
        """Fresh entropy was drawn."""
        # What the frameworks draw while they are imported is no doing of the
        # program, and what it starts is watched by itself.
        if site is not None:
            self.note(ENTROPY, name, site=site)

    def note_seed(self, generator: str, name: str, value: Any) -> Any:
        """A generator is about to be seeded: the value to seed it with."""
        if self.is_muted:
            return value
        if generator:
            self._seeded.add(generator)
        site = find_site()
        if site is None:
            return value
        value = self.give("seeds", f"{site.place} {name}", value)
        self.note(SEED, name, site=site, value=value, detail=generator)
        return value

    def note_state_read(self, generator: str, state: Any) -> None:
        """Somebody took the state of a global generator aside."""
        if generator not in self._seeded:
            self._unseeded_states.add(hash(state))

    def note_state_put(self, generator: str, state: Any) -> None:
        """Somebody put a state back, perhaps one that nobody had seeded."""
        if hash(state) in self._unseeded_states:
            self._seeded.discard(generator)
        else:
            self._seeded.add(generator)

    # --- values given again --------------------------------------------------

    def give(self, kind: str, place: str, value: Any) -> Any:
        """The value to take: the one that came, or that of another process."""
        if self.is_muted:
            return value
        given = self._replayed.get((kind, place))
        if given is not None:
            value = next(given, value)
        kept = self._values.setdefault((kind, place), [])
        if len(kept) < _MOST_KEPT and _can_be_kept(value):
            kept.append(value)
        return value


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a program's own class may raise anything
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _can_be_kept(value: Any) -> bool:
    if value is None or type(value) in (int, float, str, bytes):
        return True
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - a program's own class may raise anything
        return False
    return True


NOTES, VALUES = "notes.jsonl", "values.pickle"

DRAW = "draw"  # From a global generator that nobody has seeded.
ENTROPY = "entropy"  # From the operating system, or a generator without seed.
SEED = "seed"  # A generator was seeded.
CLOCK = "clock"  # The person's own code read a clock.
PROCESS = "process"  # The person's own code asked for the process id.
READ, WRITE, LISTING = "read", "write", "listing"  # A file, a folder.
PARALLEL = "parallel"  # Data are loaded by several workers.
THREADS = "threads"  # The number of computing threads was set.
NETWORK = "network"  # Another machine was asked.
NATIVE = "native"  # Compiled code of the person's own was loaded.
OP = "op"  # An op was called whose kernels may race.


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that was done, at one place, once or many times."""

    kind: str  # What was done: one of the kinds above.
    name: str  # The generator, the function or the file.
    site: Site
    order: int  # Its position among all that was noted in the process.
    count: int = 1
    values: tuple[str, ...] = ()  # What was given, as text, the first few.
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
    """The file of a process's notes, written as they come."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._lines = LineFile(self._folder / NOTES)

    def write(self, notes: Sequence[Note]) -> None:
        """Append notes; one of the same order replaces an earlier one."""
        self._lines.write(*map(note_to_json, notes))

    def write_values(self, values: Mapping[tuple[str, str], Any]) -> None:
        """Keep values themselves, to be given again by another process."""
        with (self._folder / VALUES).open("wb") as file:
            pickle.dump(dict(values), file)


def load_notes(folder: str | os.PathLike[str]) -> tuple[Note, ...]:
    """Read the notes of a process, in order."""
    found = map(note_from_json, read_json_lines(Path(folder) / NOTES))
    notes = {one.order: one for one in found}
    return tuple(notes[order] for order in sorted(notes))


def load_values(
    folder: str | os.PathLike[str],
) -> dict[tuple[str, str], list[Any]]:
    """Read the values that a process of ours kept; none if it kept none."""
    try:
        with (Path(folder) / VALUES).open("rb") as file:
            # Only from a folder of our own: they are pickled.
            values: dict[tuple[str, str], list[Any]] = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return {}
    return values
