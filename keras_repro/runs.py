"""The `Run` record; its file, read and written.

A run's file is JSON Lines: a header, a record per epoch or batch, an end. It
is only ever appended to. docs/run-format.md describes every field.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT = "keras_repro.run/1"
FINISHED = "finished"
INTERRUPTED = "interrupted"
DRIFTED = "drifted"

_FAMILY = "keras_repro.run/"
_LINE_START = '{"type":"'
_RECORD_START = '{"type":"record","run_id":"'
_LOCKED_BYTE = 2**31 - 2
_NEXT_STEP = "Pass the path of a file that a ChecksumCallback wrote."


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """What a run is: written before the first step.

    Args:
        run_id: Names the run; unique in every file.
        started: Time of the start, ISO 8601, UTC.
        identity: What makes two runs comparable: `seed`, `model`, `compile`,
            `data`, `continues`.
        every: How often it records: `"epoch"`, `"batch"`, or a number.
        name: The name that the person gave, or `None`.
        environment: As `capture_environment` gives it.
        model: Class and checksum of the configuration.
        variables: Role, place, shape and dtype of each variable at the start.
        notes: What of this run cannot be rewound.
        format: The version of the file's format.
    """

    run_id: str
    started: str
    identity: Mapping[str, Any]
    every: str | int = "epoch"
    name: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    variables: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    format: str = FORMAT

    @property
    def seed(self) -> int | None:
        """The seed of the trial, or `None` if nobody set one."""
        seed = self.identity.get("seed")
        return None if seed is None else int(seed)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The state of a run at one moment.

    Args:
        run_id: The run it belongs to.
        index: 0 for the initial state, then 1, 2, 3.
        epoch: The epoch, counted from 0; `None` for the initial state.
        batch: The last batch trained; `None` at the end of an epoch.
        model: Checksum of the model, as `compute_checksum(model)`.
        roles: Checksum of each role.
        variables: By role, the checksum of each variable by its place.
        streams: Checksum of the trial's random streams, or `None`.
        metrics: The metrics that Keras reported.
    """

    run_id: str
    index: int
    epoch: int | None
    batch: int | None
    model: str
    roles: Mapping[str, str]
    variables: Mapping[str, Mapping[str, str]]
    streams: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def moment(self) -> str:
        """When it was taken, in words; epochs counted from 1 as Keras does."""
        if self.epoch is None:
            return "initial state"
        if self.batch is None:
            return f"epoch {self.epoch + 1}"
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}"


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended.

    Args:
        run_id: The run it belongs to.
        status: `"finished"`, `"interrupted"` or `"drifted"` (stopped or
            refused because of drift).
        ended: Time of the end, ISO 8601, UTC.
        num_records: How many records were written.
    """

    run_id: str
    status: str
    ended: str
    num_records: int


@dataclass(frozen=True)
class Run:
    """One trial as recorded.

    Args:
        header: What the run is.
        records: Its records in order, the initial state first.
        end: How it ended, or `None` if it runs still or was killed.
        torn: Whether a half-written line of it was dropped on reading.
    """

    header: RunHeader
    records: tuple[RunRecord, ...] = ()
    end: RunEnd | None = None
    torn: bool = False

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.header.run_id

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.end is not None and self.end.status == FINISHED

    @property
    def checksum(self) -> str | None:
        """The model's checksum in the last record."""
        return self.records[-1].model if self.records else None

    def history(self) -> dict[str, list[float]]:
        """The metrics of each epoch, as `History.history` has them."""
        result: dict[str, list[float]] = {}
        for record in self.records:
            if record.epoch is not None and record.batch is None:
                for name, value in record.metrics.items():
                    result.setdefault(name, []).append(value)
        return result

    def __str__(self) -> str:
        """One line for a terminal."""
        status = "not ended" if self.end is None else self.end.status
        return (
            f"run {self.run_id[:8]}, seed {self.header.seed}, "
            f"{len(self.records)} records, {status}"
        )


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
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a run's file, has another version, or does
            not have this run.

    Scope:
        Reads only; a file that another process appends to can be read.
    """
    if run_id is not None and index is not None:
        raise ValueError(
            "At most one of `run_id` and `index` may choose the run. "
            f"Received: run_id={run_id!r}, index={index!r}. Leave one out."
        )
    runs = load_runs(path)
    if run_id is not None:
        found = [run for run in runs if run.run_id.startswith(run_id)]
    else:
        position = -1 if index is None else index
        found = runs[position:][:1] if position >= -len(runs) else []
    if len(found) != 1:
        known = ", ".join(run.run_id[:8] for run in runs) or "none"
        raise ValueError(
            "`run_id` or `index` must name one run of the file. Received: "
            f"run_id={run_id!r}, index={index!r}, with {len(runs)} runs in "
            f"'{path}': {known}. Choose one of these."
        )
    return found[0]


def load_runs(path: str | os.PathLike[str]) -> list[Run]:
    """Load all runs of a file, in the order in which they started.

    Args:
        path: The file.

    Returns:
        The runs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a run's file or has another version.
    """
    return _read_runs(path, lambda _: True)


def find_first_finished(
    path: str | os.PathLike[str], matches: Callable[[RunHeader], bool]
) -> Run | None:
    """Find the first finished run with a header that matches.

    Reads the records of that run alone, so that it is quick in a long file.

    Args:
        path: A run's file; none need exist.
        matches: Says of a header whether it will do.

    Returns:
        The run, or `None`.
    """
    if not Path(path).exists():
        return None
    for run in _read_runs(path, lambda _: False):
        if run.finished and matches(run.header):
            return _read_one(path, run.run_id)
    return None


class RunWriter:
    """Appends lines to a run's file, whole lines only.

    Several runs, and several processes, may write to one file at a time. The
    file is opened for each line, so a writer may be copied to another process.

    Args:
        path: The file; created at the first line if there is none.

    Raises:
        TypeError: If `path` is not a path.
        ValueError: If the file exists and is not a run's file of this version.
        OSError: If it cannot be written (`FileNotFoundError`,
            `IsADirectoryError`, `PermissionError`).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                "`path` must be a str or an os.PathLike. Received: "
                f"{path!r} (of type {type(path).__name__}). Pass a file name "
                'such as "runs.jsonl".'
            )
        self.path = Path(path)
        _check_writable(self.path)
        if self.path.exists():
            _check_start(self.path)

    def write(self, entry: RunHeader | RunRecord | RunEnd) -> None:
        """Append one entry.

        Args:
            entry: A header, a record or an end.
        """
        data = (_to_line(entry) + "\n").encode()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        # Windows would translate line ends without this flag.
        flags |= getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            with _locked(descriptor):
                if _ends_torn(descriptor):
                    data = b"\n" + data
                while data:
                    data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)


# --- one line ------------------------------------------------------------

_TYPES: dict[str, type[RunHeader | RunRecord | RunEnd]] = {
    "header": RunHeader,
    "record": RunRecord,
    "end": RunEnd,
}


def _to_line(entry: RunHeader | RunRecord | RunEnd) -> str:
    kind = next(name for name, cls in _TYPES.items() if type(entry) is cls)
    # The type and the run's id come first, so that a reader can skip a line.
    content = {"type": kind, "run_id": entry.run_id, **asdict(entry)}
    if "metrics" in content:
        metrics = content["metrics"].items()
        content["metrics"] = {name: _encode(value) for name, value in metrics}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _from_content(content: dict[str, Any]) -> RunHeader | RunRecord | RunEnd:
    cls = _TYPES[content["type"]]
    known = {entry.name for entry in fields(cls)}
    values = {key: value for key, value in content.items() if key in known}
    for name in ("variables", "notes"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    if "metrics" in values:
        metrics = values["metrics"].items()
        values["metrics"] = {name: float(value) for name, value in metrics}
    return cls(**values)


def _encode(value: float) -> float | str:
    """JSON has no NaN and no infinity: these become strings."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


# --- reading -------------------------------------------------------------


def _read_runs(
    path: str | os.PathLike[str], wants: Callable[[str], bool]
) -> list[Run]:
    """Read all headers and ends, and the records of the wanted runs."""
    if not Path(path).exists():
        raise FileNotFoundError(
            "The run's file must exist. Received: "
            f"'{path}', where there is none. {_NEXT_STEP}"
        )
    builders: dict[str, dict[str, Any]] = {}
    owners_of_torn: list[str | None] = []
    for text in _read_lines(Path(path)):
        if text.startswith(_RECORD_START):
            start = len(_RECORD_START)
            if not wants(text[start : text.find('"', start)]):
                continue
        entry = _parse(text, path)
        if entry is None:
            owners_of_torn.append(_owner(text))
        elif isinstance(entry, RunHeader):
            builders[entry.run_id] = {"header": entry, "records": []}
        elif entry.run_id in builders:
            _add(builders[entry.run_id], entry)
    if owners_of_torn:
        warnings.warn(
            f"{len(owners_of_torn)} half-written line(s) in '{path}' dropped: "
            "a training was killed while it wrote. The other lines are whole.",
            stacklevel=4,
        )
    return [
        Run(
            builder["header"],
            tuple(builder["records"]),
            builder.get("end"),
            run_id in owners_of_torn,
        )
        for run_id, builder in builders.items()
    ]


def _read_one(path: str | os.PathLike[str], run_id: str) -> Run:
    with warnings.catch_warnings():
        # The caller has been told already.
        warnings.simplefilter("ignore")
        runs = _read_runs(path, lambda other: other == run_id)
    return next(run for run in runs if run.run_id == run_id)


def _add(builder: dict[str, Any], entry: RunRecord | RunEnd) -> None:
    if isinstance(entry, RunEnd):
        builder["end"] = entry
    else:
        builder["records"].append(entry)


def _read_lines(path: Path) -> Iterator[str]:
    _check_start(path)
    with path.open("rb") as file:
        for line in file:
            text = _decode(line)
            if text:
                yield text


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def _parse(
    text: str, path: str | os.PathLike[str]
) -> RunHeader | RunRecord | RunEnd | None:
    """Read one line; `None` if it is torn."""
    try:
        content = json.loads(text)
        return _from_content(content)
    except json.JSONDecodeError:
        if _may_be_torn(text):
            return None
        raise _not_a_run_file(text, path) from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _not_a_run_file(text, path) from None


def _may_be_torn(text: str) -> bool:
    return text.startswith(_LINE_START) or _LINE_START.startswith(text)


def _owner(text: str) -> str | None:
    """The run's id in a torn line, if it got that far."""
    _, found, rest = text.partition('"run_id":"')
    run_id, closed, _ = rest.partition('"')
    return run_id if found and closed else None


def _check_start(path: Path) -> None:
    """Refuse a file that is not ours, or of another version."""
    with path.open("rb") as file:
        for line in file:
            version = _read_version(_decode(line), path)
            if version == FORMAT:
                return
            if version is not None:
                raise ValueError(
                    f"The run's file must have the format {FORMAT!r}. "
                    f"Received: '{path}' with the format {version!r}. Read it "
                    "with the version of keras_repro that wrote it, or choose "
                    "another file."
                )


def _read_version(text: str, path: Path) -> str | None:
    """The format that a header names; `None` if the line is torn."""
    try:
        version = str(json.loads(text)["format"])
    except (ValueError, KeyError, TypeError):
        if _may_be_torn(text):
            return None
        raise _not_a_run_file(text, path) from None
    if not version.startswith(_FAMILY):
        raise _not_a_run_file(text, path)
    return version


def _not_a_run_file(text: str, path: str | os.PathLike[str]) -> ValueError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ValueError(
        "The file must be a run's file: one JSON object a line, a header with "
        f"format {FORMAT!r} first. Received: '{path}' with the line {shown!r}. "
        f"The file was left as it is. {_NEXT_STEP}"
    )


# --- writing -------------------------------------------------------------


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must name a file. Received: '{path}', a directory. Add a "
            'file name, such as "runs.jsonl".'
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "`path` must lie in a directory that exists. Received: "
            f"'{path}'. Create '{path.parent}' first."
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(
            f"`path` must be writable. Received: '{path}', which is not. "
            "Choose another place or change its permissions."
        )


def _ends_torn(descriptor: int) -> bool:
    """Whether the last line was cut off before its line break."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size == 0:
        return False
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) != b"\n"


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Hold the file for one line; other processes wait."""
    try:
        import fcntl
    except ImportError:  # Windows
        with _locked_on_windows(descriptor):
            yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held = True
    except OSError:  # Some network file systems have no locks.
        held = False
    try:
        yield
    finally:
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def _locked_on_windows(descriptor: int) -> Iterator[None]:
    import msvcrt

    windows: Any = msvcrt  # Typed as empty on other systems.
    lock = windows.locking
    # A locked byte cannot be read there: take one that no file reaches.
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    lock(descriptor, windows.LK_LOCK, 1)
    try:
        yield
    finally:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        lock(descriptor, windows.LK_UNLCK, 1)
