"""A study on disk: every finished trial at once, and no other study's.

A folder with `study.json` (what the study is), `trials.jsonl` (a line for each
trial that finished or failed) and `runs.jsonl` (what they recorded, as any
run's file). docs/trials.md tells the format.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_repro.common.files import (
    append_line,
    open_regular,
    open_to_append,
    os_errors_told,
    read_lines,
    remove_left_over,
    replace_whole,
)
from keras_repro.common.json import to_plain
from keras_repro.common.locks import hold_lock, locked
from keras_repro.environment.differences import compare_environments
from keras_repro.runs.file import decode_runs, load_runs
from keras_repro.runs.run import Run
from keras_repro.studies.identity import compare_identities
from keras_repro.studies.outcomes import TrialOutcome, gather_scores
from keras_repro.studies.results import TrialFailure, TrialResults

FORMAT = "keras_repro.trials/1"
STUDY, TRIALS, RUNS, LOCK = (
    "study.json",
    "trials.jsonl",
    "runs.jsonl",
    "study.lock",
)
_TRIAL, _NOTE, _WRITTEN = "trial", "note", "written"
_MUST_BE_EQUAL, _MAY_MATTER = 3, 2
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass
class StudyContent:
    """What the lines of a study's folder say.

    Args:
        outcomes: The last outcome of each seed, in the order of their lines;
            one that went well is never replaced.
        notes: What else was written down.
        written: Names of data that the trials themselves change.
    """

    outcomes: dict[int, TrialOutcome] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)

    def add(self, outcome: TrialOutcome) -> None:
        """Take up an outcome."""
        known = self.outcomes.get(outcome.seed)
        if known is None or known.status:
            self.outcomes[outcome.seed] = outcome


class StudyFolder:
    """The folder of a study that is being run: this process alone writes.

    Args:
        path: The folder; made if there is none.
        identity: What the study is, as plain values.
        environment: Of this process.

    Raises:
        ValueError: If the folder holds another study, or something else.
        OSError: If it cannot be made or written, or another process is
            running the study.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        environment: Mapping[str, Any],
    ) -> None:
        self.path = path
        _check_folder(path)
        with os_errors_told(path, "The study's folder must be writable"):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = _hold(path)
        try:
            self.content = read_content(path)
            self.warnings = self._settle(identity, environment)
        except BaseException:
            self.close()
            raise

    def _settle(
        self, identity: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> list[str]:
        """Begin a study, or check that this is the one that was begun."""
        file = self.path / STUDY
        if not file.exists():
            text = json.dumps(
                to_plain(
                    {
                        "format": FORMAT,
                        "identity": identity,
                        "environment": environment,
                    }
                ),
                indent=1,
            )
            with os_errors_told(file, "A study must be written to its folder"):
                replace_whole(file, f"{text}\n".encode())
            return []
        before = read_study(self.path)
        changes = compare_identities(
            before["identity"], to_plain(identity), self.content.written
        )
        found = compare_environments(before["environment"], environment)
        changes += [
            f"`{one.key}` was {one.a} and is {one.b}. {one.sentence}"
            for one in found
            if one.weight >= _MUST_BE_EQUAL
        ]
        if changes:
            listed = "".join(f"\n  - {one}" for one in changes)
            raise ValueError(
                "`path` must hold trials of this very study, or none. "
                f"Received: '{self.path}', whose trials were computed "
                f"otherwise:{listed}\nGo on with what it was, or give the "
                "changed study a folder of its own. Nothing was changed."
            )
        return [
            f"the trials of '{self.path}' were begun where `{one.key}` was "
            f"{one.a}, and go on where it is {one.b}. {one.sentence}"
            for one in found
            if one.weight == _MAY_MATTER
        ]

    def keep(self, outcome: TrialOutcome) -> None:
        """Write what a trial gave, so that it is on disk when this returns."""
        if outcome.lines:
            # First the runs: one without its trial does no harm.
            _append(self.path / RUNS, outcome.lines)
        line = {
            "type": _TRIAL,
            "seed": outcome.seed,
            "scores": to_plain(dict(outcome.scores)),
            "checksum": outcome.checksum,
            "seconds": outcome.seconds,
            "worker": outcome.worker,
            "runs": list(outcome.run_ids),
            "status": outcome.status,
            "error": outcome.error,
            "traceback": outcome.traceback,
        }
        _append(self.path / TRIALS, [json.dumps(line)])

    def note(self, text: str) -> None:
        """Write down what else there is to say of the study."""
        _append(self.path / TRIALS, [json.dumps({"type": _NOTE, "text": text})])

    def note_written(self, names: Iterable[str]) -> None:
        """Write down which data the trials themselves change."""
        new = sorted(set(names) - self.content.written)
        if new:
            line = {"type": _WRITTEN, "names": new}
            _append(self.path / TRIALS, [json.dumps(line)])

    @property
    def is_writable(self) -> bool:
        """Whether trials can be added; what is there can be read anyway."""
        return self._lock is not None

    def close(self) -> None:
        """Let other processes run the study."""
        if self._lock is not None:
            self._lock.release()


def load_trials(path: str | os.PathLike[str]) -> TrialResults:
    """Load a study from its folder, finished or not.

    Args:
        path: The folder that `run_trials(path=...)` was given.

    Returns:
        Its results, the trials sorted by their seeds; its name is that of the
        folder.

    Raises:
        FileNotFoundError: If there is no such study.
        ValueError: If a file of it is damaged or of another version.

    Scope:
        Needs neither Keras nor a backend. The recorded runs are read when
        they are asked for.

    Example:
        >>> load_trials("no_such_study")
        Traceback (most recent call last):
        FileNotFoundError: `path` must be the folder of a study. Received: ...
    """
    folder = Path(path)
    study = read_study(folder)
    content = read_content(folder)
    vary = study["identity"].get("vary", "all")
    return make_results(
        sorted(content.outcomes.values(), key=lambda one: one.seed),
        notes=content.notes,
        vary=str(vary),
        path=folder,
    )


def make_results(
    outcomes: Iterable[TrialOutcome],
    *,
    notes: Iterable[str],
    vary: str,
    path: Path | None,
) -> TrialResults:
    """Put outcomes together."""
    listed = list(outcomes)
    done = [one for one in listed if not one.status]
    return TrialResults(
        seeds=tuple(one.seed for one in done),
        scores=gather_scores(done),
        checksums=tuple(one.checksum for one in done),
        seconds=np.array([one.seconds for one in done]),
        workers=tuple(one.worker for one in done),
        failures=tuple(
            TrialFailure(
                seed=one.seed, error=one.error, traceback=one.traceback
            )
            for one in listed
            if one.status
        ),
        notes=tuple(notes),
        name=None if path is None else path.resolve().name,
        vary=vary,
        run_source=_RunSource(tuple(done), path),
    )


@dataclass(frozen=True)
class _RunSource:
    """Reads the runs of trials: from the study's file, or from memory."""

    outcomes: tuple[TrialOutcome, ...]
    path: Path | None

    def __call__(self) -> tuple[tuple[Run, ...], ...]:
        if self.path is not None and (self.path / RUNS).exists():
            open_regular(self.path / RUNS, managed=True).close()
            with warnings.catch_warnings():
                # A torn line is one of a trial that will be run again.
                warnings.simplefilter("ignore")
                loaded = load_runs(self.path / RUNS)
        else:
            loaded = decode_runs(
                line for outcome in self.outcomes for line in outcome.lines
            )
        runs = {run.run_id: run for run in loaded}
        return tuple(
            tuple(runs[one] for one in outcome.run_ids if one in runs)
            for outcome in self.outcomes
        )


# --- reading -----------------------------------------------------------------


def read_study(path: Path) -> dict[str, Any]:
    """Read what a study is.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged or of another version.
    """
    file = path / STUDY
    try:
        with open_regular(file, managed=True) as stream:
            study = json.loads(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            "`path` must be the folder of a study. Received: "
            f"'{path}', without a {STUDY}. Pass the folder that "
            "`run_trials(path=...)` was given."
        ) from None
    except ValueError as error:
        raise _damaged(file, str(error)) from None
    if not isinstance(study, dict) or study.get("format") != FORMAT:
        found = study.get("format") if isinstance(study, dict) else None
        raise _damaged(file, f"format {found!r}, not {FORMAT!r}")
    for name in ("identity", "environment"):
        if not isinstance(study.get(name), dict):
            raise _damaged(file, f"no {name}")
    return study


def read_content(path: Path) -> StudyContent:
    """Read the trials and notes of a study.

    Raises:
        ValueError: If a line is damaged; the last one may be torn, when a
            process was killed while it wrote, and is left out.
    """
    content = StudyContent()
    file = path / TRIALS
    if not file.exists():
        return content
    for number, line in read_lines(file, managed=True):
        try:
            read = json.loads(line)
        except ValueError:
            # Torn by a kill: the trial did not finish, and is run again.
            continue
        try:
            _take(content, read)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(file, f"line {number}: {error!r}") from None
    return content


def _take(content: StudyContent, read: dict[str, Any]) -> None:
    if read["type"] == _NOTE:
        content.notes.append(str(read["text"]))
        return
    if read["type"] == _WRITTEN:
        content.written.update(map(str, read["names"]))
        return
    if read["type"] != _TRIAL:
        raise ValueError(f"a line of type {read['type']!r}")
    content.add(
        TrialOutcome(
            seed=int(read["seed"]),
            worker=str(read["worker"]),
            scores={
                str(name): float(value)
                for name, value in read["scores"].items()
            },
            checksum=str(read["checksum"]),
            seconds=float(read["seconds"]),
            run_ids=tuple(map(str, read["runs"])),
            status=str(read["status"]),
            error=str(read["error"]),
            traceback=str(read["traceback"]),
        )
    )


def _damaged(file: Path, what: str) -> ValueError:
    return ValueError(
        "The files of a study must be as they were written. Received: "
        f"'{file}' with {what}. Restore it, or read it with the version of "
        "keras_repro that wrote it."
    )


# --- writing -----------------------------------------------------------------


def _hold(path: Path) -> Any:
    """Hold the study; `None` if there is one that can only be read."""
    try:
        with os_errors_told(path, "The study's folder must be writable"):
            lock = hold_lock(path / LOCK)
    except OSError as error:
        if error.errno in _READ_ONLY and (path / STUDY).is_file():
            return None
        raise
    remove_left_over(path, age=0)
    return lock


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"`path` must name a folder. Received: '{path}', a file. Choose "
            "another name."
        )
    if not path.exists() or (path / STUDY).exists():
        return
    others = sorted(one.name for one in path.iterdir() if one.name != LOCK)
    others = [one for one in others if not one.startswith(f".{STUDY}")]
    if others:
        raise ValueError(
            "`path` must hold a study, or nothing. Received: "
            f"'{path}' with {', '.join(others[:5])}. Choose an empty folder, "
            "or one that does not exist."
        )


def _append(file: Path, lines: Iterable[str]) -> None:
    """Append lines, whole, and have the disk hold them."""
    data = "".join(f"{one}\n" for one in lines).encode()
    with os_errors_told(file, "A study must be written to its folder"):
        descriptor = open_to_append(file, managed=True)
        try:
            with locked(descriptor) as held:
                append_line(descriptor, data, may_undo=held)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
