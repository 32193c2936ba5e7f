"""The file of runs: JSON Lines, appended to and never rewritten.

A header, a record per epoch or batch, an end. docs/run-format.md describes
every field; `lines.py` reads and writes one line.
"""

from __future__ import annotations

import errno
import os
import warnings
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from keras_repro.common.checks import (
    LARGEST_INT,
    check_int,
    check_name,
    check_path,
)
from keras_repro.common.files import (
    NEXT_STEP,
    append_line,
    check_writable,
    iterate_lines,
    open_regular,
    open_to_append,
    read_lines,
)
from keras_repro.common.lines import LineError, NoEntryError, decode_utf8
from keras_repro.common.locks import locked
from keras_repro.common.text import describe, quote, shorten
from keras_repro.runs.lines import (
    Entry,
    VersionError,
    decode_entry,
    encode_entry,
    find_owner,
)
from keras_repro.runs.run import (
    FINISHED,
    Run,
    RunData,
    RunEnd,
    RunHeader,
    RunRecord,
    RunResume,
)

_ADVICE = 'Pass a file name such as "runs.jsonl".'
_RECORD_START = b'{"type":"record","run_id":"'
# So many bytes of the last line written show that the file is still ours.
_MARK = 120


def load_run(
    path: str | os.PathLike[str],
    *,
    run_id: str | None = None,
    index: int | None = None,
) -> Run:
    """Load one run from a run's file.

    Args:
        path: The file.
        run_id: Which run, by its id or the start of it.
        index: Which run, by its position in the file; -1, the default, is
            the last.

    Returns:
        The run; `torn` says if a half-written line was dropped.

    Raises:
        TypeError: If an argument is of the wrong type.
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a run's file, has another version, is
            damaged, or does not have this run.

    Scope:
        Reads only; a file that another process appends to can be read. The
        file is not trusted: whatever its bytes, it gives runs or one of these
        errors, nothing in it is executed, and memory is bounded by a multiple
        of its size.
    """
    if run_id is not None:
        advice = "Leave it out for the last run."
        run_id = check_name("run_id", run_id, advice)
    if index is not None:
        index = check_int("index", index, -LARGEST_INT, LARGEST_INT)
    chosen = f"run_id={describe(run_id)}, index={describe(index)}"
    if run_id is not None and index is not None:
        raise ValueError(
            "At most one of `run_id` and `index` may choose the run. "
            f"Received: {chosen}. Leave one out."
        )
    file = check_path("path", path, _ADVICE)
    runs = _read_runs(file)
    if run_id is not None:
        found = [run for run in runs if run.run_id.startswith(run_id)]
    else:
        position = -1 if index is None else index
        found = runs[position:][:1] if position >= -len(runs) else []
    if len(found) != 1:
        known = shorten((run.run_id[:8] for run in runs), 20) or "none"
        raise ValueError(
            "`run_id` or `index` must name one run of the file. Received: "
            f"{chosen}, with {len(runs)} runs in {quote(file)}: {known}. "
            "Choose one of these."
        )
    return found[0]


def load_runs(path: str | os.PathLike[str]) -> list[Run]:
    """Load all runs of a file, in the order in which they started.

    Args:
        path: The file.

    Returns:
        The runs.

    Raises:
        TypeError: If `path` is not a path.
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a run's file, has another version, or is
            damaged.

    Scope:
        As of `load_run`.
    """
    return _read_runs(check_path("path", path, _ADVICE))


def decode_runs(lines: Iterable[str]) -> list[Run]:
    """Read runs from lines that were never in a file."""
    builders: dict[str, _Builder] = {}
    for line in lines:
        entry = decode_entry(line)
        if entry is not None:
            _add(builders, entry)
    return [one.build() for one in builders.values()]


def find_first_finished(
    path: str | os.PathLike[str], matches: Callable[[RunHeader], bool]
) -> Run | None:
    """Find the first finished run with a header that matches."""
    path = Path(path)
    if not path.exists():
        return None
    with open_regular(path) as file:
        # Of a file that was read before, only what was appended since is read,
        # and of all runs the records of one alone are parsed.
        outline = _find_outline(path, file)
        outline.warn()
        for run_id, builder in outline.builders.items():
            has_ended = builder.end is not None and (
                builder.end.status == FINISHED
            )
            # These headers are without environment, variables and the like.
            if has_ended and matches(builder.header):
                run = outline.read_run(file, run_id)
                if run.finished:
                    return run
    return None


class KeptFile:
    """A file that only we may cut, replace or remove while it is written."""

    def __init__(
        self, path: Path, whose: str, then: str, *, managed: bool = False
    ) -> None:
        # Opened for each line, so it may be copied to another process and used
        # on both sides of a fork.
        self.path = path
        # What it is of, as in "run's"; what to do once it is gone; whether it
        # lies in a folder of ours, where no link may be.
        self._whose, self._then, self._managed = whose, then, managed
        self._last: tuple[int, int, bytes] | None = None

    def append(
        self, data: bytes, *, create: bool = False, flush: bool = False
    ) -> None:
        """Append lines, all of them or none, if the file is still the same."""
        with self._opened(create=create) as descriptor:
            with locked(descriptor) as held:
                if not create:  # Else it may be another file, or new.
                    self._check_same(descriptor)
                start = append_line(descriptor, data, may_undo=held)
                # Without a lock, others may have moved where it went.
                end = start + len(data)
                self._last = (start, end, data[:_MARK]) if held else None
            if flush:
                os.fsync(descriptor)

    def take_up(self) -> None:
        """Know the file by what stands at its end now."""
        with self._opened() as descriptor:
            end = os.fstat(descriptor).st_size
            start = os.lseek(descriptor, max(0, end - _MARK), os.SEEK_SET)
            self._last = start, end, os.read(descriptor, _MARK)

    def check(self) -> None:
        """Raise if the file is gone, replaced or cut."""
        with self._opened() as descriptor:
            self._check_same(descriptor)

    @contextmanager
    def _opened(self, *, create: bool = False) -> Iterator[int]:
        try:
            descriptor = open_to_append(
                self.path, create=create, managed=self._managed
            )
        except FileNotFoundError:
            raise FileNotFoundError(
                errno.ENOENT,
                f"The {self._whose} file, and its directory, must stay while "
                f"it is written. Received: {quote(self.path)}, which is gone. "
                f"What follows was not written: restore it, or {self._then}",
                str(self.path),
            ) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _check_same(self, descriptor: int) -> None:
        """Raise if the line before is not there: the file was replaced."""
        if self._last is None:
            return
        start, end, mark = self._last
        os.lseek(descriptor, start, os.SEEK_SET)
        if (
            os.read(descriptor, len(mark)) != mark
            or os.fstat(descriptor).st_size < end
        ):
            raise OSError(
                getattr(errno, "ESTALE", errno.EIO),
                f"The {self._whose} file must only be appended to while it is "
                f"written. Received: {quote(self.path)} without the line "
                "written last: another program replaced or cut the file. What "
                f"follows was not written: {self._then}",
                str(self.path),
            )


class RunWriter:
    """Appends whole lines to a run's file, as others may at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_path("path", path, _ADVICE)
        self._file = KeptFile(self.path, "run's", "start a new run")
        check_writable(self.path)
        if self.path.exists():
            _check_start(self.path)

    def write(self, *entries: Entry) -> None:
        """Append entries, all of them or none."""
        # When this returns, the operating system has the whole lines: a killed
        # process loses none, a machine that loses power may.
        data = "".join(f"{encode_entry(one)}\n" for one in entries).encode()
        starts = any(isinstance(one, RunHeader) for one in entries)
        self._file.append(data, create=starts)


# --- reading -------------------------------------------------------------


@dataclass
class _Builder:
    """A run while its lines are read."""

    header: RunHeader
    records: list[RunRecord] = field(default_factory=list)
    data: RunData | None = None
    end: RunEnd | None = None
    resumed: list[RunResume] = field(default_factory=list)

    def build(self, *, torn: bool = False, path: Path | None = None) -> Run:
        return Run(
            self.header,
            tuple(self.records),
            self.end,
            torn and not self.resumed,
            path,
            tuple(self.resumed),
        )

    def add(self, entry: RunData | RunRecord | RunResume | RunEnd) -> None:
        if isinstance(entry, RunData):
            self._add_data(entry)
            return
        if isinstance(entry, RunResume):
            self.records = self.records[: entry.num_records]
            self.resumed.append(entry)
            self.end = None
            return
        if self.end is not None:
            raise LineError(
                "The end of a run must be its last line.",
                f"another line of run {entry.run_id!r}",
            )
        if isinstance(entry, RunEnd):
            self.end = entry
            return
        if self.records and entry.index <= self.records[-1].index:
            raise LineError(
                "Each record's `index` must be larger than the one before.",
                f"{entry.index} after {self.records[-1].index}",
            )
        self.records.append(entry)

    def _add_data(self, entry: RunData) -> None:
        """The data's checksum belongs to the header; it only came later."""
        known = self.header.identity.get("data")
        if known not in (None, entry.checksum):
            raise LineError(
                "A run must have one checksum of its data.",
                f"{entry.checksum!r} after {known!r}",
            )
        identity = {**self.header.identity, "data": entry.checksum}
        self.header = replace(self.header, identity=identity)


def _read_runs(path: Path) -> list[Run]:
    builders: dict[str, _Builder] = {}
    num_torn = 0
    torn: set[str] = set()
    started = False
    for number, line in read_lines(path):
        text = ""
        try:
            text = decode_utf8(line)
            entry = decode_entry(text)
            if entry is None:
                num_torn += 1
                torn.add(find_owner(text) or "")
                continue
            started = _check_first(entry, text, started=started)
            _add(builders, entry)
        except LineError as error:
            raise _explain(error, path, number, started=started) from None
    if num_torn:  # Warns in the name of the caller's caller.
        _warn_of_torn(num_torn, path, stacklevel=4)
    return [
        one.build(torn=run_id in torn, path=path)
        for run_id, one in builders.items()
    ]


class _Outline:
    """Headers and ends of a file's runs, and where each run's lines are."""

    def __init__(self, path: Path) -> None:
        self.builders: dict[str, _Builder] = {}
        self.is_whole = True
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._places: dict[str, array[int]] = {}
        self._torn: dict[str, int] = {}
        self._number = self._end = 0
        self._mark = b""

    def is_of(self, file: BinaryIO) -> bool:
        """Whether the file is the one that was read, with more behind it."""
        found = os.fstat(file.fileno())
        if self._identity != (found.st_dev, found.st_ino):
            return False
        file.seek(self._end - len(self._mark))
        return self.is_whole and file.read(len(self._mark)) == self._mark

    def follow(self, file: BinaryIO) -> None:
        """Read what is behind what was read before."""
        found = os.fstat(file.fileno())
        self._identity = found.st_dev, found.st_ino
        for offset, raw in iterate_lines(file, self._end):
            self._number += 1
            # A line that may still be written is read again with the rest.
            self.is_whole = raw.endswith(b"\n")
            self._end, self._mark = offset + len(raw), raw[-_MARK:]
            line = raw.rstrip(b"\r\n")
            if line:
                self._add(offset, line)

    def warn(self) -> None:
        """Tell of half-written lines."""
        if self._torn:
            _warn_of_torn(sum(self._torn.values()), self._path, stacklevel=4)

    def read_run(self, file: BinaryIO, run_id: str) -> Run:
        """One run with its records."""
        builders: dict[str, _Builder] = {}
        is_torn = run_id in self._torn
        for offset in self._places[run_id]:
            file.seek(offset)
            line = file.readline().rstrip(b"\r\n")
            try:
                entry = decode_entry(decode_utf8(line))
                if entry is None:
                    is_torn = True
                else:
                    _add(builders, entry)
            except LineError as error:
                number = self._find_number(file, offset)
                raise _explain(
                    error, self._path, number, started=True
                ) from None
        return builders[run_id].build(torn=is_torn, path=self._path)

    def _add(self, offset: int, line: bytes) -> None:
        owner = None if not self.builders else _find_record_owner(line)
        if owner is None:
            owner = self._parse(line)
        self._places.setdefault(owner, array("Q")).append(offset)

    def _parse(self, line: bytes) -> str:
        text = ""
        try:
            text = decode_utf8(line)
            entry = decode_entry(text)
            if entry is None:
                owner = find_owner(text) or ""
                self._torn[owner] = self._torn.get(owner, 0) + 1
                return owner
            _check_first(entry, text, started=bool(self.builders))
            if isinstance(entry, RunHeader):
                entry = replace(entry, **_LEFT_OUT)
            _add(self.builders, entry)
        except LineError as error:
            raise _explain(
                error,
                self._path,
                self._number,
                started=bool(self.builders),
            ) from None
        return entry.run_id

    def _find_number(self, file: BinaryIO, offset: int) -> int:
        return 1 + sum(place < offset for place, _ in iterate_lines(file))


# What is not kept of the header of each run in a long file.
_LEFT_OUT: dict[str, Any] = {
    "environment": {},
    "model": {},
    "compile": {},
    "data": {},
    "variables": (),
}
_MOST_OUTLINES = 8
_outlines: OrderedDict[str, _Outline] = OrderedDict()


def _find_outline(path: Path, file: BinaryIO) -> _Outline:
    """What this process knows of a file, brought up to date."""
    name = str(path.resolve())
    outline = _outlines.pop(name, None)
    if outline is None or not outline.is_of(file):
        outline = _Outline(path)
    outline.follow(file)  # If that fails, nothing is kept.
    _outlines[name] = outline
    while len(_outlines) > _MOST_OUTLINES:
        _outlines.popitem(last=False)
    return outline


def _find_record_owner(line: bytes) -> str | None:
    """The run of a record, without parsing it; `None` of other lines."""
    if not line.startswith(_RECORD_START):
        return None
    start = len(_RECORD_START)
    run_id = line[start : line.find(b'"', start)]
    return run_id.decode("utf-8", "replace")


def _warn_of_torn(number: int, path: Path, stacklevel: int) -> None:
    warnings.warn(
        f"{number} half-written line(s) in {quote(path)} dropped: "
        "a training was killed while it wrote. The other lines are whole.",
        stacklevel=stacklevel,
    )


def _check_first(entry: Entry, text: str, *, started: bool) -> bool:
    if not started and not isinstance(entry, RunHeader):
        raise NoEntryError("A header must come first.", ascii(text[:60]))
    return True


def _add(builders: dict[str, _Builder], entry: Entry) -> None:
    if isinstance(entry, RunHeader):
        if entry.run_id in builders:
            raise LineError(
                "Each run must have one header.",
                f"a second one of run {entry.run_id!r}",
            )
        builders[entry.run_id] = _Builder(entry)
    elif entry.run_id in builders:
        # The others lost their header: it was torn.
        builders[entry.run_id].add(entry)


def _explain(
    error: LineError, path: Path, number: int, *, started: bool
) -> ValueError:
    where = f"Received: {quote(path)} with {error.received} in line {number}."
    if isinstance(error, VersionError):
        return ValueError(
            f"{error.must} {where} Read it with the version of keras_repro "
            "that wrote it, or choose another file."
        )
    if isinstance(error, NoEntryError) and not started:
        return ValueError(
            "The file must be a run's file: one JSON object a line, a header "
            f"first. {error.must} {where} The file was left as it is. "
            f"{NEXT_STEP}"
        )
    return ValueError(
        f"{error.must} {where} The file was changed or damaged, and was left "
        "as it is. Restore it, or remove that line in a copy."
    )


def _check_start(path: Path) -> None:
    """Refuse a file that is not ours, or of another version."""
    for number, line in read_lines(path):
        try:
            text = decode_utf8(line)
            entry = decode_entry(text)
            if entry is not None:
                _check_first(entry, text, started=False)
                return
        except LineError as error:
            raise _explain(error, path, number, started=False) from None
