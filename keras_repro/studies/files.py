"""A study on disk: every finished trial at once, and no other study's.

A folder with `study.json` (what the study is), `trials.jsonl` (a line for each
trial that finished or failed) and `runs.jsonl` (what they recorded, as any
run's file). docs/trials.md tells the format. Beside them `backups/` may hold a
folder for each trial that is under way, which no reader of a study looks at.
"""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.common.checks import MOST_TRIALS, check_path
from keras_repro.common.files import (
    LONGEST_LINE,
    iterate_lines,
    open_regular,
    os_errors_told,
    remove_left_over,
    replace_whole,
)
from keras_repro.common.json import to_plain
from keras_repro.common.lines import (
    LineError,
    LineFormat,
    check_plain,
    convert,
    decode_json,
    decode_utf8,
    show,
)
from keras_repro.common.locks import hold_lock
from keras_repro.common.text import escape, quote, shorten
from keras_repro.environment.differences import find_differences
from keras_repro.runs.file import KeptFile, decode_runs, load_runs
from keras_repro.runs.run import Run
from keras_repro.studies.identity import StudyIdentity, compare_identities
from keras_repro.studies.outcomes import (
    TrialLine,
    TrialOutcome,
    gather_examples,
    gather_scores,
)
from keras_repro.studies.results import TrialFailure, TrialResults

FORMAT = "keras_repro.trials/1"
STUDY, TRIALS, RUNS, LOCK = (
    "study.json",
    "trials.jsonl",
    "runs.jsonl",
    "study.lock",
)
BACKUPS = "backups"
_MUST_BE_EQUAL, _MAY_MATTER = 3, 2
_MUST_BE_WRITTEN = "A study must be written to its folder"
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Which seeds a study was to have when it began, or was gone on with."""

    num_seeds: Annotated[int, Meta(ge=1, le=MOST_TRIALS)]
    checksum: str  # Of these seeds, in rising order.
    # By what it might stop before the last of them: the `width` of an interval,
    # or a `rule` that may look at all; empty if by nothing.
    until: Annotated[str, Meta(pattern=r"\A(|width|rule)\Z")] = ""
    width: str = ""  # The `HalfWidth` in words; empty of all others.

    @classmethod
    def make(
        cls, seeds: Iterable[int], until: str = "", width: str = ""
    ) -> StudyPlan:
        """The plan to run these seeds."""
        ordered = np.array(sorted(seeds), np.int64)
        return cls(
            num_seeds=len(ordered),
            checksum=compute_checksum(ordered),
            until=until,
            width=width,
        )

    def is_watched(self, seeds: Collection[int]) -> bool | None:
        """Whether a study with these seeds is another than was planned."""
        # Stopped by its width, it is neither fixed nor chosen by its scores.
        if self.until == "width" and len(seeds) <= self.num_seeds:
            return None
        # Else one may have looked at it and gone on, or stopped.
        return self != StudyPlan.make(seeds)


def find_watched(
    begun: StudyPlan | None, later: Iterable[StudyPlan], seeds: Collection[int]
) -> bool | None:
    """Whether one may have looked at a study before it had these seeds."""
    if begun is None:  # An earlier version began it.
        # Only what may look at all is sure to be another plan.
        return True if any(one.until == "rule" for one in later) else None
    # A fixed number is told by the seeds; a rule may stop at any of them.
    if any(one != begun and (begun.until or one.until) for one in later):
        return True
    return begun.is_watched(seeds)


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What a study is: the schema of its `study.json` too."""

    format: Annotated[str, Meta(pattern=rf"\A{FORMAT}\Z")]
    identity: StudyIdentity
    environment: Mapping[str, Any]  # As `capture_environment` gives it.
    plan: StudyPlan | None = None  # `None` where an earlier version began it.


@dataclass(frozen=True)
class NoteLine:
    """What else there is to say of a study."""

    text: str


@dataclass(frozen=True)
class WrittenLine:
    """Names of data that the trials themselves change."""

    names: tuple[str, ...]


Line = TrialLine | NoteLine | WrittenLine | StudyPlan


class _StudyFormat(LineFormat[Line]):
    def settle(self, content: Any, text: str) -> Any:
        """Show lone surrogates, which earlier versions wrote."""
        if "\\u" not in text or not isinstance(content, dict):
            return content
        check_plain(content)
        return to_plain(content)


_KINDS: dict[str, type[Line]] = {
    "trial": TrialLine,
    "note": NoteLine,
    "written": WrittenLine,
    "plan": StudyPlan,
}
_format = _StudyFormat(
    _KINDS,
    # Earlier versions wrote a blank behind each colon.
    starts=[
        f'{{"type":{blank}"{kind}"' for kind in _KINDS for blank in ("", " ")
    ],
    must="Every line must be one JSON object that `run_trials` wrote.",
)


@dataclass
class StudyContent:
    """What the lines of a study's folder say."""

    # The last one of each seed, in the order of their lines.
    outcomes: dict[int, TrialLine] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # Names of data that the trials themselves change.
    written: set[str] = field(default_factory=set)
    # By which other plans it was gone on with.
    plans: list[StudyPlan] = field(default_factory=list)
    # So many bytes of the file are whole lines: all, if the last is not torn.
    whole: int = 0

    def add(self, line: Line) -> None:
        """Take up a line."""
        if isinstance(line, NoteLine):
            self.notes.append(line.text)
        elif isinstance(line, WrittenLine):
            self.written.update(line.names)
        elif isinstance(line, StudyPlan):
            self.plans.append(line)
        else:
            known = self.outcomes.get(line.seed)
            if known is not None and not known.status:
                raise LineError(
                    "A seed that went well must stand in one line.",
                    f"another one of seed {line.seed}",
                )
            self.outcomes[line.seed] = line


class StudyFolder:
    """The folder of a study that is being run: this process alone writes."""

    def __init__(
        self,
        path: Path,
        identity: StudyIdentity,
        environment: Mapping[str, Any],
        plan: StudyPlan | None = None,
    ) -> None:
        self.path = path
        self._begun: StudyPlan | None = plan
        _check_folder(path)
        with os_errors_told(path, "The study's folder must be writable"):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = _hold(path)
        self._kept: dict[str, KeptFile] = {}
        try:
            self.content = read_content(path)
            self.warnings = self._settle(
                StudyRecord(
                    format=FORMAT,
                    identity=identity,
                    environment=environment,
                    plan=plan,
                )
            )
            if self.is_writable:
                self._take_up()
            self._note_plan(plan)
        except BaseException:
            self.close()
            raise

    def _take_up(self) -> None:
        """Cut off a torn end, and know the files by what stands in them."""
        if (self.path / TRIALS).exists():
            os.truncate(self.path / TRIALS, self.content.whole)
        for name in (STUDY, TRIALS, RUNS):
            if os.path.lexists(self.path / name):
                self._keep_file(name).take_up()

    def _keep_file(self, name: str) -> KeptFile:
        self._kept[name] = KeptFile(
            self.path / name, "study's", "begin a new study", managed=True
        )
        return self._kept[name]

    def _settle(self, study: StudyRecord) -> list[str]:
        """Begin a study, or check that this is the one that was begun."""
        text = json.dumps(to_plain(study), indent=1)
        now = _decode_study(text)
        file = self.path / STUDY
        if not file.exists():
            with os_errors_told(file, _MUST_BE_WRITTEN):
                replace_whole(file, f"{text}\n".encode())
            return []
        before = read_study(self.path)
        self._begun = before.plan
        changes = compare_identities(
            before.identity, now.identity, self.content.written
        )
        found = find_differences(before.environment, now.environment)
        changes += [
            f"`{one.key}` was {one.a} and is {one.b}. {one.sentence}"
            for one in found
            if one.weight >= _MUST_BE_EQUAL
        ]
        if changes:
            listed = "".join(f"\n  - {one}" for one in changes)
            raise ValueError(
                "`path` must hold trials of this very study, or none. "
                f"Received: {quote(self.path)}, whose trials were computed "
                f"otherwise:{listed}\nGo on with what it was, or give the "
                "changed study a folder of its own. Nothing was changed."
            )
        return [
            f"the trials of {quote(self.path)} were begun where `{one.key}` "
            f"was {one.a}, and go on where it is {one.b}. {one.sentence}"
            for one in found
            if one.weight == _MAY_MATTER
        ]

    def keep(self, trial: TrialLine, runs: Iterable[str]) -> None:
        """Write what a trial gave, so that it is on disk when this returns."""
        line = _format.encode(trial)
        self._check_kept()
        # First the runs: one without its trial does no harm.
        self._append(RUNS, runs)
        self._append(TRIALS, [line])

    def note(self, text: str) -> None:
        """Write down what else there is to say of the study."""
        self._append(TRIALS, [_format.encode(NoteLine(text))])

    def _note_plan(self, plan: StudyPlan | None) -> None:
        """Write down a plan by which a rule could stop where none is known."""
        content = self.content
        plans = (self._begun, *content.plans)
        if plan is None or plan in plans:
            return
        # Without a rule the seeds tell, and no line needs to.
        if plan.until or any(one.until for one in plans if one):
            content.plans.append(plan)
            if self.is_writable:
                self._append(TRIALS, [_format.encode(plan)])

    def is_watched(self, seeds: Collection[int]) -> bool | None:
        """Whether one may have looked before the study had these seeds."""
        return find_watched(self._begun, self.content.plans, seeds)

    def note_written(self, names: Iterable[str]) -> None:
        """Write down which data the trials themselves change."""
        new = sorted(set(names) - self.content.written)
        if new:
            self._append(TRIALS, [_format.encode(WrittenLine(tuple(new)))])

    def check(self, trials: Iterable[TrialLine]) -> None:
        """Raise if not all of these trials can be read from the disk."""
        self._check_kept()
        found = {
            (one.seed, one.checksum)
            for one in read_content(self.path).outcomes.values()
        }
        lost = [
            one.seed for one in trials if (one.seed, one.checksum) not in found
        ]
        if lost:
            raise OSError(
                errno.EIO,
                "The study's file must hold every trial that ended. Received: "
                f"'{self.path / TRIALS}' without {lost}: another program "
                "changed the file. Run the study again",
                str(self.path / TRIALS),
            )

    def _check_kept(self) -> None:
        for one in self._kept.values():
            with os_errors_told(one.path, _MUST_BE_WRITTEN):
                one.check()

    def _append(self, name: str, lines: Iterable[str]) -> None:
        """Append lines, whole, and have the disk hold them."""
        data = "".join(f"{one}\n" for one in lines).encode()
        if data:
            known = self._kept.get(name)
            file = known or self._keep_file(name)
            with os_errors_told(file.path, _MUST_BE_WRITTEN):
                file.append(data, create=known is None, flush=True)

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
        TypeError: If `path` is not a path.
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
    folder = check_path("path", path, "Pass the name of its folder.")
    study = read_study(folder)
    content = read_content(folder)
    return make_results(
        sorted(content.outcomes.values(), key=lambda one: one.seed),
        notes=content.notes,
        vary=study.identity.vary,
        path=folder,
        watched=find_watched(study.plan, content.plans, content.outcomes),
    )


def make_results(
    outcomes: Iterable[TrialLine],
    *,
    notes: Iterable[str],
    vary: str,
    path: Path | None,
    watched: bool | None = None,
) -> TrialResults:
    """Put outcomes together."""
    listed = list(outcomes)
    done = [one for one in listed if not one.status]
    return TrialResults(
        seeds=tuple(one.seed for one in done),
        scores=gather_scores(done),
        examples=gather_examples(done),
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
        name=None if path is None else path.resolve().name or None,
        vary=vary,
        watched=watched,
        run_source=_RunSource(tuple(done), path),
    )


@dataclass(frozen=True)
class _RunSource:
    """Reads the runs of trials: from the study's file, or from memory."""

    outcomes: tuple[TrialLine, ...]
    path: Path | None

    def __call__(self) -> tuple[tuple[Run, ...], ...]:
        if self.path is not None and os.path.lexists(self.path / RUNS):
            open_regular(self.path / RUNS, managed=True).close()
            with warnings.catch_warnings():
                # A torn line is one of a trial that will be run again.
                warnings.simplefilter("ignore")
                loaded = load_runs(self.path / RUNS)
        else:
            loaded = decode_runs(
                line
                for outcome in self.outcomes
                if isinstance(outcome, TrialOutcome)
                for line in outcome.lines
            )
        runs = {run.run_id: run for run in loaded}
        for outcome in self.outcomes:
            for lost in {*outcome.runs} - runs.keys():
                raise ValueError(
                    "A study's file must hold the runs of its trials. "
                    f"Received: {quote(self.path)}, in whose {RUNS} run "
                    f"{lost!r} of seed {outcome.seed} is missing. Restore the "
                    "file."
                )
        return tuple(
            tuple(runs[one] for one in outcome.runs)
            for outcome in self.outcomes
        )


# --- reading -----------------------------------------------------------------


def read_study(path: Path) -> StudyRecord:
    """Read what a study is."""
    file = path / STUDY
    if not os.path.lexists(file):
        raise FileNotFoundError(
            "`path` must be the folder of a study. Received: "
            f"{quote(path)}, without a {STUDY}. Pass the folder that "
            "`run_trials(path=...)` was given."
        )
    with open_regular(file, managed=True) as opened:
        # No more than is read of a line, which has at most as many bytes.
        size = min(os.fstat(opened.fileno()).st_size, 4 * LONGEST_LINE)
        content = opened.read(size)
    try:
        return _decode_study(decode_utf8(content))
    except LineError as error:
        raise _damaged(file, error.received, error.must) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from None


def _decode_study(text: str) -> StudyRecord:
    content = decode_json(text)
    if not isinstance(content, dict):
        raise LineError("A study must be one object.", show(text))
    check_plain(content)
    return convert(to_plain(content), StudyRecord)


def read_content(path: Path) -> StudyContent:
    """Read the trials and notes of a study."""
    content = StudyContent()
    file = path / TRIALS
    if not os.path.lexists(file):
        return content
    torn: dict[int | None, int] = {}  # By seed, the number of a line.
    number = 0
    with open_regular(file, managed=True) as opened:
        for number, (start, raw) in enumerate(iterate_lines(opened), 1):
            content.whole = start + len(raw)
            try:
                text = decode_utf8(raw.rstrip(b"\r\n"))
                if not text:
                    continue
                entry = _format.decode(text)
                if entry is None:
                    torn.setdefault(_find_seed(text), number)
                    content.whole = start
                else:
                    content.add(entry)
            except LineError as error:
                what = f"{error.received} in line {number}"
                raise _damaged(file, what, error.must) from None
            if isinstance(entry, TrialLine):
                torn.pop(entry.seed, None)
    # The last line may be torn, when a process was killed while it wrote; so
    # may one that earlier versions left behind, whose trial stands again.
    lost = [one for one in torn.values() if one != number]
    if lost:
        what = f"half of one in line {min(lost)}"
        raise _damaged(file, what, "Only the last line may be torn.")
    return content


def _find_seed(text: str) -> int | None:
    """The seed of a torn line, if it got that far."""
    found = re.match(r'\{"type": ?"trial", ?"seed": ?(\d{1,10}),', text)
    return None if found is None else int(found[1])


def _damaged(
    file: Path,
    what: str,
    must: str = "The files of a study must be as they were written.",
) -> ValueError:
    return ValueError(
        f"{must} Received: {quote(file)} with {what}. The file was changed or "
        "damaged, and was left as it is. Restore it, or read it with the "
        "version of keras_repro that wrote it."
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
            f"`path` must name a folder. Received: {quote(path)}, a file. "
            "Choose another name."
        )
    if not path.exists() or (path / STUDY).exists():
        return
    others = sorted(one.name for one in path.iterdir() if one.name != LOCK)
    others = [one for one in others if not one.startswith(f".{STUDY}")]
    if others:
        raise ValueError(
            "`path` must hold a study, or nothing. Received: "
            f"{quote(path)} with {shorten(map(escape, others), 5)}. Choose an "
            "empty folder, or one that does not exist."
        )
