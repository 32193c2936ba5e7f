"""What a verification or a diagnosis found: whether runs agree, and why not."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from keras_repro.common.json import to_plain
from keras_repro.common.text import (
    clean,
    count_of,
    join_words,
    list_more,
    shorten,
    wrap,
)
from keras_repro.common.whose_code import show_place
from keras_repro.diagnosis.causes import UNKNOWN, Cause
from keras_repro.diagnosis.first_mismatch import FirstMismatch
from keras_repro.reports.figures import new_figure
from keras_repro.reports.html import Html, element, make_list, write_fragment
from keras_repro.runs.wording import say_first

EQUAL, DIFFERENT, SKIPPED, NOT_REACHED = "equal", "different", "-", ""
_MARKS = {EQUAL: "=", DIFFERENT: "≠", SKIPPED: "·", NOT_REACHED: " "}


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One question of a diagnosis, from cheap to dear."""

    name: str  # What is compared.
    # `"equal"`, `"different"`, `"-"` where it does not apply, or empty where
    # the diagnosis stopped before.
    status: str = NOT_REACHED
    told: str = ""  # More, in words.
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Whether a training is reproducible, and if not, at which rung and why.

    Args:
        reproducible: Whether it is equal on all rungs that apply.
        rungs: The rungs, from cheap to dear; none after the first that
            differs was climbed.
        first_mismatch: Where two calls first differ, or `None`.
        causes: What an experiment has shown, the most certain first.
        suspects: What was only seen.
        traps: What is repeatable, and wrong nevertheless.
        unwatched: What `train` started in other processes that may have
            trained there, which was not compared.
        num_calls: How many calls of models were compared.
        num_epochs: How many epochs were recorded in them.
        seconds: How long the diagnosis took.
    """

    reproducible: bool
    rungs: tuple[Rung, ...]
    first_mismatch: FirstMismatch | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Cause, ...] = ()
    traps: tuple[Cause, ...] = ()
    unwatched: tuple[str, ...] = ()
    num_calls: int = 0
    num_epochs: int = 0
    seconds: float = 0.0

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        seconds = f"({self.seconds:.1f} s)"
        if self.first_mismatch is None and (
            self.reproducible or self.unwatched
        ):
            equal = f"equal on every rung, in {_say_amounts(self)}"
            if not self.unwatched:
                return f"Reproducible: {equal} {seconds}."
            return (
                f"Equal as far as was watched: {equal} {seconds}; "
                f"{_say_unwatched(self.unwatched)}."
            )
        rung = next(
            (one.name for one in self.rungs if one.status == DIFFERENT), ""
        )
        if not self.causes:
            return f"Not reproducible: {rung} differs {seconds}."
        kinds = ", ".join(dict.fromkeys(one.kind for one in self.causes))
        return f"Not reproducible: {rung} differs, by {kinds} {seconds}."

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as plain values that strict JSON can hold."""
        result: dict[str, Any] = to_plain(self)
        return result

    def plot(self) -> Any:
        """Draw the rungs as a ladder, with what was found beside it.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        return plot_diagnosis(self)

    def __str__(self) -> str:
        """What a terminal shows: the verdict first."""
        return "\n".join(_write_diagnosis(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rungs = [
            element(
                "tr",
                element("td", _MARKS[one.status]),
                element("th", one.name, scope="row"),
                element("td", one.told),
            )
            for one in self.rungs
        ]
        others = [("Not watched", self.unwatched)]
        return _write_html(self.headline, rungs, self, others)


def _write_diagnosis(diagnosis: Diagnosis) -> Iterator[str]:
    yield from wrap(diagnosis.headline)
    yield ""
    for one in diagnosis.rungs:
        told = f"  {one.told}" if one.told else ""
        line = f"  {_MARKS[one.status]} {one.name:<16}{told}"
        yield from wrap(line, hang=22)
    if diagnosis.first_mismatch is not None:
        yield ""
        yield from write_mismatch(diagnosis.first_mismatch)
    yield from write_causes(list_sections(diagnosis))
    yield from _list_told([("Not watched", diagnosis.unwatched)])


def _write_html(
    headline: str,
    rungs: Sequence[Html],
    found: Explained,
    others: Sequence[tuple[str, Sequence[str]]],
) -> str:
    parts: list[Html] = [element("p", headline, class_="headline")]
    if rungs:
        parts.append(element("table", element("tbody", rungs), class_="facts"))
    if found.first_mismatch is not None:
        text = "\n".join(write_mismatch(found.first_mismatch))
        parts.append(_preformatted(text))
    for heading, causes in list_sections(found):
        if causes:
            parts.append(element("h2", heading))
            parts.append(element("ul", [_write_cause(one) for one in causes]))
    for heading, told in others:
        if told:
            parts.append(element("h2", heading))
            parts.append(make_list(told))
    return write_fragment(*parts)


def _write_cause(one: Cause) -> Html:
    where = [" at ", element("code", one.location)] if one.location else []
    library = f" ({one.library})" if one.library else ""
    lines = [
        child
        for line in one.evidence.splitlines()
        for child in (line, element("br"))
    ]
    return element(
        "li",
        element("b", one.kind),
        where,
        library,
        element("p", lines, "Fix: ", one.advice),
    )


def _preformatted(text: str) -> Html:
    """Lines as they are; each is escaped by itself."""
    lines = [
        child
        for line in text.splitlines()
        for child in (line.strip(), element("br"))
    ]
    return element("p", lines)


_MOST_SHOWN = 8


class Explained(Protocol):
    """What has a first mismatch, causes, suspects and traps."""

    @property
    def first_mismatch(self) -> FirstMismatch | None:
        """Where two trainings first differ."""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What was shown to make two trainings differ."""

    @property
    def suspects(self) -> tuple[Cause, ...]:
        """What was only seen and could make them differ."""

    @property
    def traps(self) -> tuple[Cause, ...]:
        """What is repeatable, and wrong nevertheless."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a verification found.

    Args:
        reproducible: Whether all runs are bitwise equal, and all that may
            have trained was watched.
        first_mismatch: Where two of them first differ, or `None`.
        causes: What an experiment has shown to make them differ, the most
            certain first; empty where they are equal.
        suspects: What was only seen and could make them differ.
        traps: What is repeatable, and wrong nevertheless.
        harmless: What was kept fixed, or left free again, without any effect.
        unwatched: The processes that may have trained and were not watched:
            what they trained was not compared.
        unseen: What else the script used that cannot be seen.
        left: What the script left running, and was ended.
        num_calls: How many calls each run made of its models.
        num_epochs: How many epochs were recorded in them.
        num_processes: In how many processes they were made.
        num_runs: How many runs there were, experiments among them.
        seconds: How long it took.
        fixes: What was asked to be kept fixed in every run, in words.
    """

    reproducible: bool
    first_mismatch: FirstMismatch | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Cause, ...] = ()
    traps: tuple[Cause, ...] = ()
    harmless: tuple[str, ...] = ()
    unwatched: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    num_calls: int = 0
    num_epochs: int = 0
    num_processes: int = 1
    num_runs: int = 2
    seconds: float = 0.0
    fixes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain values that strict JSON can hold."""
        result: dict[str, Any] = to_plain(self)
        return result

    def __str__(self) -> str:
        """What a terminal shows: the verdict first."""
        return "\n".join(_write_verdict(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        others = [("Without effect", self.harmless), *_list_others(self)]
        return _write_html(_say_verdict(self), [], self, others)


def _write_verdict(verdict: Verification) -> Iterator[str]:
    yield from _wrap(_say_verdict(verdict))
    if verdict.first_mismatch is not None:
        yield ""
        yield from write_mismatch(verdict.first_mismatch)
    yield from write_causes(list_sections(verdict))
    if verdict.harmless:
        yield ""
        shown = shorten(map(clean, verdict.harmless), _MOST_SHOWN)
        yield from _wrap(f"Without effect: {shown}", 0, 2)
    yield from _list_told(_list_others(verdict))


def _list_others(verdict: Verification) -> list[tuple[str, Sequence[str]]]:
    """What is no cause, by its heading."""
    return [
        ("Not watched", verdict.unwatched),
        ("Used, but not watched", verdict.unseen),
        ("Left running by the script, and ended", verdict.left),
    ]


def _say_verdict(verdict: Verification) -> str:
    runs = count_of(verdict.num_runs, "run")
    with_fixes = f" with {join_words(verdict.fixes)}" if verdict.fixes else ""
    if verdict.first_mismatch is None:
        return _say_equal(verdict, runs, with_fixes)
    if not verdict.causes:
        why = "the cause was not found"
    elif len(verdict.causes) == 1:
        why = f"the cause is {verdict.causes[0].kind}"
    else:
        kinds = dict.fromkeys(one.kind for one in verdict.causes)
        why = f"{len(verdict.causes)} causes: {join_words(kinds)}"
    return (
        f"Not reproducible{with_fixes}; {why} ({runs}, "
        f"{verdict.seconds:.0f} s)."
    )


def _say_equal(verdict: Verification, runs: str, with_fixes: str) -> str:
    """What was compared, how much that was, and what was not."""
    seconds = f"({verdict.seconds:.0f} s)"
    processes = count_of(verdict.num_processes, "process")
    equal = (
        f"{runs} are bitwise equal in {_say_amounts(verdict)} of {processes}"
    )
    if not verdict.unwatched:
        return f"Reproducible{with_fixes}: {equal} {seconds}."
    left_out = _say_unwatched(verdict.unwatched)
    if not verdict.num_processes:
        return f"Nothing could be compared: {left_out} {seconds}."
    return (
        f"Equal{with_fixes} as far as was watched: {equal} {seconds}; "
        f"{left_out}."
    )


def _say_amounts(found: Diagnosis | Verification) -> str:
    amounts = {"call": found.num_calls, "epoch": found.num_epochs}
    parts = [count_of(n, noun) for noun, n in amounts.items() if n]
    return join_words(parts) or "the final models"


def _say_unwatched(unwatched: Sequence[str]) -> str:
    number = len(unwatched)
    were, they = ("was", "it") if number == 1 else ("were", "they")
    return (
        f"{count_of(number, 'process')} {were} not watched: what {they} "
        "trained was not compared"
    )


def _list_told(
    sections: Sequence[tuple[str, Sequence[str]]],
) -> Iterator[str]:
    """What is no cause, under its heading."""
    for heading, told in sections:
        if told:
            yield from ("", f"{heading}:")
            for one in told[:_MOST_SHOWN]:
                yield from _wrap(clean(one, 400), 2, 4)
            yield from list_more(len(told) - _MOST_SHOWN, 2)


def write_mismatch(found: FirstMismatch) -> Iterator[str]:
    """A first mismatch in lines for a terminal."""
    told = f"call {found.call}"
    if found.place:
        place = show_place(found.place, Path.cwd())
        told += f", {found.method} at {clean(place)}"
    if found.method == "end":
        told = "the final models of the script"
    if found.process:
        told += f", in process {found.process} of those that the script starts"
    yield from _wrap(f"First mismatch: {told}, {clean(found.moment)}")
    yield from _wrap(f"first difference: {say_first(found.roles)}", 2, 2)
    if found.places:
        places = shorten(map(clean, found.places), _MOST_SHOWN)
        yield from _wrap(f"places: {places}", 2, 2)
    for one in found.details[:3]:
        yield from _wrap(clean(one), 2, 2)


def list_sections(
    found: Explained,
) -> list[tuple[str, Sequence[Cause]]]:
    """What was found under the heading that says how it is known."""
    shown = [one for one in found.causes if one.kind != UNKNOWN]
    unknown = [one for one in found.causes if one.kind == UNKNOWN]
    return [
        ("Shown by experiment", shown),
        ("Not explained by any experiment", unknown),
        ("Seen, but not confirmed by experiment", found.suspects),
        ("Repeatable, and wrong", found.traps),
    ]


def write_causes(
    sections: Sequence[tuple[str, Sequence[Cause]]],
) -> Iterator[str]:
    """Causes in lines for a terminal, section by section."""
    for heading, causes in sections:
        if causes:
            yield from ("", f"{heading}:")
            yield from _list_causes(causes)


def _list_causes(causes: Sequence[Cause]) -> Iterator[str]:
    for number, one in enumerate(causes[:_MOST_SHOWN], 1):
        where = f" at {clean(one.location)}" if one.location else ""
        library = f" ({clean(one.library)})" if one.library else ""
        yield from _wrap(f"{number}. {one.kind}{where}{library}", 2, 3)
        for line in one.evidence.splitlines():
            yield from _wrap(clean(line, 400), 5)
        yield from _wrap(f"Fix: {clean(one.advice, 400)}", 5, 5)
    yield from list_more(len(causes) - _MOST_SHOWN, 2)


# A paragraph whose paths stay whole, so that they can be clicked.
_wrap = functools.partial(wrap, splits_words=False)


# Shape and word say it too, for those who do not see the colour.
_RUNG_LOOKS = {
    "equal": ("#1b7837", "equal ="),
    "different": ("#b2182b", "differs ≠"),
    "-": ("0.7", "skipped"),
    "": ("0.88", "not reached"),
}


def plot_diagnosis(diagnosis: Diagnosis) -> Any:
    """Draw the rungs of a diagnosis as a ladder, with what was found."""
    rungs = diagnosis.rungs
    figure = new_figure(8.0, 0.62 * len(rungs) + 1.6)
    axes = figure.add_subplot()
    for number, rung in enumerate(rungs):
        height = len(rungs) - 1 - number
        color, mark = _RUNG_LOOKS.get(rung.status, _RUNG_LOOKS[""])
        axes.plot([0, 1], [height, height], color=color, linewidth=6)
        axes.text(0.5, height + 0.16, rung.name, ha="center", va="bottom")
        axes.text(-0.06, height, mark, ha="right", va="center", color=color)
        told = textwrap.fill(clean(rung.told, 90), 52)
        axes.text(1.06, height, told, ha="left", va="center", fontsize="small")
    top, bottom = len(rungs) - 0.4, -0.5
    for side in (0, 1):
        axes.plot([side, side], [bottom, top], color="0.4", linewidth=3)
    axes.set(xlim=(-0.4, 4.2), ylim=(bottom - 0.1, top + 0.3))
    axes.axis("off")
    figure.suptitle(textwrap.fill(diagnosis.headline, 70))
    if diagnosis.causes:
        first = diagnosis.causes[0]
        where = f" at {clean(first.location)}" if first.location else ""
        text = textwrap.fill(f"{first.kind}{where}: {first.advice}", 92)
        figure.text(0.03, 0.02, text, fontsize="small", va="bottom")
    return figure
