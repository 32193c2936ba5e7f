"""What was seen and what was shown, as causes that a person can act on."""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_repro.common.text import clean, join_words, shorten
from keras_repro.common.whose_code import (
    is_installed,
    package_of,
    show_installed,
    show_place,
)
from keras_repro.diagnosis import causes, suspects
from keras_repro.diagnosis.causes import Cause, advise
from keras_repro.diagnosis.first_mismatch import FirstMismatch, Process
from keras_repro.diagnosis.leaks import find_leaks, find_shared_starts
from keras_repro.diagnosis.search import Findings, Holds
from keras_repro.diagnosis.suspects import UNLIKELY, Candidate
from keras_repro.watching import traps
from keras_repro.watching.observations import (
    CLOCK,
    LISTING,
    PROCESS,
    WRITE,
    Note,
)

_MOST_PLACES = 4
_NAMES = {
    "python": "Python's `random`",
    "numpy": "NumPy's global generator",
    "torch": "PyTorch's global generator",
    "tensorflow": "TensorFlow's random ops",
}
_SHOWN = {
    "hash": "with one hash seed the runs agree",
    "files": "with the files as they were before the first run they agree",
    "children": "with one start of the generators in all processes that the "
    "script starts, and only then, the runs agree",
    "workers": "with one loading worker the runs agree",
    "deterministic": "with deterministic kernels the runs agree",
    "threads": "with one thread the runs agree, with deterministic kernels "
    "alone they do not",
    "shuffle": "without shuffling the runs agree",
}


class Explainer:
    """Puts what was found into words."""

    def __init__(
        self,
        mismatch: FirstMismatch,
        folder: Path,
        # The line at which a variable of the script first gets another value,
        # and the name of that variable.
        first_line: tuple[str, str] | None = None,
    ) -> None:
        self._mismatch, self._folder = mismatch, folder
        self._first_line = first_line

    def explain(
        self, seen: Sequence[Candidate], findings: Findings
    ) -> tuple[list[Cause], list[Cause]]:
        """The causes and the suspects."""
        known = {one.hold: one for one in seen}
        shown = [
            self._make(known[hold], findings, shown=True)
            for hold in findings.causes
        ]
        settled = {*findings.causes, *findings.harmless}
        open_ones = [
            self._make(one, findings, shown=False)
            for one in seen
            if one.hold not in {*settled, *findings.ruled_out}
            and one.weight > UNLIKELY
        ]
        return shown, open_ones

    def give_up(self, findings: Findings) -> Cause:
        """The unknown cause, where no experiment made the runs agree."""
        ruled_out = ", ".join(dict.fromkeys(map(name_hold, findings.ruled_out)))
        lines = [self._tell_first_line()]
        lines.append(f"ruled out: {ruled_out}" if ruled_out else "")
        place = (
            self._first_line[0] if self._first_line else self._mismatch.place
        )
        return Cause(
            kind=causes.UNKNOWN,
            location=self._show(place),
            library=None,
            evidence="\n".join(line for line in lines if line),
            advice=advise(causes.UNKNOWN),
        )

    def _tell_first_line(self) -> str:
        """The line at which a variable first gets another value."""
        if self._first_line is None:
            return ""
        place, name = self._first_line
        text = _quote(place)
        return f"`{name}` differs from here on\n{text}".rstrip()

    def _make(
        self, one: Candidate, findings: Findings, *, shown: bool
    ) -> Cause:
        note = self._choose(one, findings)
        location = self._mismatch.place if note is None else note.place
        lines = [*self._tell(one, note)]
        if one.hold == suspects.HASH:
            location = self._first_line[0] if self._first_line else None
            lines = [self._tell_first_line()]
        if shown:
            lines.append(self._tell_shown(one))
        elif findings.agreed and one.hold in findings.open:
            lines.append("tried only together with the causes, never alone")
        return Cause(
            kind=one.kind,
            location=self._show(location),
            library=_find_library(one, note),
            evidence="\n".join(line for line in lines if line),
            advice=_advise(one, note),
        )

    def _choose(self, one: Candidate, findings: Findings) -> Note | None:
        """The note that stands for all: the first place that matters."""
        place = findings.places.get(one.hold)
        for note in one.notes:
            if place in (None, note.place):
                return note
        return None

    def _tell(self, one: Candidate, note: Note | None) -> Iterator[str]:
        if note is None:
            return
        times = "once" if note.count == 1 else f"{note.count} times"
        through = f" through {note.site.through}" if note.site.through else ""
        what = _NAMES.get(note.name, note.name)
        if one.values:
            given = ", then ".join(one.values)
            yield f"{note.site.through or what} was given {given}"
        elif one.kind == causes.EXTERNAL_STATE:
            shown = show_place(f"{note.name}:0", self._folder)
            path = shown.removesuffix(":0")
            told = "was left by an earlier run"
            if note.kind == LISTING:
                told = "holds what an earlier run left"
            elif note.kind == WRITE:
                told = "was written by an earlier run; no read of it was seen"
            yield f"{path} {told}"
        else:
            yield f"{what} was used {times}{through}"
        yield _quote(note.place)
        if note.site.at and note.site.at != note.place:
            yield f"in {show_installed(note.site.at)}"
        others = [
            self._show(other.place) or ""
            for other in one.notes
            if other.order > note.order
            and other.place != note.place
            and not is_installed(other.site.file)
        ]
        others = list(dict.fromkeys(others))
        if others:
            yield f"also at {shorten(others, _MOST_PLACES)}"

    def _tell_shown(self, one: Candidate) -> str:
        kind = one.hold.partition(" ")[0]
        return _SHOWN.get(
            kind,
            "with this kept fixed as in the first run, and only then, the "
            "runs agree",
        )

    def _show(self, place: str | None) -> str | None:
        return None if not place else show_place(place, self._folder)


def explain_traps(process: Process, folder: Path) -> list[Cause]:
    """What is wrong with the trainings of a process though it repeats."""
    found = [
        _make_trap(
            causes.STATE_LEAK,
            leak.call.place,
            "the weights were put back to the start of the `fit` at "
            f"{show_place(leak.earlier.place, folder)}, and this was not: "
            f"{shorten(map(clean, leak.places), _MOST_PLACES)}",
            folder,
        )
        for leak in find_leaks(process)
    ]
    found += [
        _make_trap(
            traps.SHARED_START,
            shared.call.place,
            f"{join_words(shared.places)} begin with the same random values",
            folder,
        )
        for shared in find_shared_starts(process)
    ]
    found += [
        _make_trap(trap["kind"], call.place, trap["text"], folder)
        for call in process.calls
        for trap in call.traps
    ]
    # Once for each line, however often it runs.
    return list({(one.kind, one.location): one for one in found}.values())


def _make_trap(kind: str, place: str, told: str, folder: Path) -> Cause:
    return Cause(
        kind=kind,
        location=show_place(place, folder) if place else None,
        library="keras",
        evidence=f"{told}\n{_quote(place)}".rstrip(),
        advice=advise(kind),
    )


def describe_experiment(number: int, holds: Holds) -> str:
    """An experiment in a line: what is kept fixed in which run."""
    names = list(dict.fromkeys(map(name_hold, sorted(holds))))
    return f"run {number}: {shorten(names, 4) or 'nothing'} kept fixed"


def name_hold(hold: str) -> str:
    """A hold in words."""
    kind, _, rest = hold.partition(" ")
    words = {
        **_NAMES,
        "entropy": _name_entropy(rest),
        "seeds": "the values of seeds",
        "thread_counts": "the numbers of threads",
        "clock": "the clock",
        "process": "the process id",
        "hash": "the hash seed",
        "files": "files of earlier runs",
        "children": "what other processes draw",
        "workers": "one loading worker",
        "deterministic": "deterministic kernels",
        "threads": "one thread",
        "shuffle": "no shuffling",
        "environment": rest,
    }
    return words.get(kind, hold)


def _name_entropy(rest: str) -> str:
    """Fresh entropy by what gave it and who asked; many may ask one."""
    name, _, place = rest.partition(" ")
    file = place.rpartition(":")[0]
    if is_installed(file):
        return f"{name} in {package_of(file)}"
    return f"{name} at {show_place(place, Path.cwd())}" if place else name


def _quote(place: str) -> str:
    """The line of the program itself."""
    file, _, line = place.rpartition(":")
    if not line.isdecimal():
        return ""
    text = linecache.getline(file, int(line)).strip()
    return f"`{text}`" if text else ""


def _find_library(one: Candidate, note: Note | None) -> str | None:
    if note is None:
        return "python" if one.hold == suspects.HASH else None
    if note.site.library:
        return note.site.library
    if one.kind == causes.EXTERNAL_STATE:
        return None
    if note.kind in (CLOCK, PROCESS):
        return "python"
    name = note.name.partition(".")[0]
    return {"random": "python", "os": "python"}.get(name, name) or None


def _advise(one: Candidate, note: Note | None) -> str:
    if one.hold == suspects.ONE_THREAD and note is not None:
        return (
            "Compute it with one thread, or by another op: no switch makes "
            "this kernel deterministic."
        )
    if one.hold == suspects.CHILDREN:
        return (
            "Seed in the function that the other process runs, by the task: "
            "`keras_repro.seed_everything(42 + task)`. What this process "
            "seeds reaches no other."
        )
    if one.kind == causes.ENTROPY and note is not None:
        if note.kind == PROCESS:
            return "Do not let the process id decide anything."
        return f"Give {note.name} a seed of its own; no global seed reaches it."
    return advise(one.kind)
