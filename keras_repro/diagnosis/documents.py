"""What verifications and diagnoses say of themselves, as documents."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_repro.common.text import clean, count_of, join_words, shorten
from keras_repro.common.whose_code import show_place
from keras_repro.diagnosis.causes import UNKNOWN, Cause
from keras_repro.reports.document import (
    Document,
    Figure,
    Folded,
    Item,
    Items,
    Note,
    Part,
    Section,
    Sentences,
    Table,
    Verdict,
    cut,
)
from keras_repro.reports.figures import make_safe
from keras_repro.runs.wording import say_first

if TYPE_CHECKING:
    from keras_repro.diagnosis.first_mismatch import FirstMismatch
    from keras_repro.diagnosis.result import Diagnosis, Verification


_FOOTER = (
    "Written by keras-repro. What was watched was compared, and nothing else."
)
_FEW, _MOST = 8, 200
_LONGEST = 400
_MARKS = {"equal": "=", "different": "≠", "-": "·", "": " "}
# Shape and word say it too, for those who do not see the colour.
_LOOKS = {
    "equal": ("#1b7837", "equal ="),
    "different": ("#b2182b", "differs ≠"),
    "-": ("0.7", "skipped"),
    "": ("0.88", "not reached"),
}


# --- documents ---------------------------------------------------------------


def describe_diagnosis(diagnosis: Diagnosis) -> Document:
    """The rungs, and what was found at the one that differs."""
    rows = tuple(
        (f"{_MARKS[one.status]} {one.name}", clean(one.told, _LONGEST))
        for one in diagnosis.rungs
    )
    return _put_together(
        _judge(diagnosis, diagnosis.headline),
        *([Table((), rows)] if rows else []),
        *_list_found(diagnosis),
        *_list_told("Not watched", diagnosis.unwatched),
    )


def describe_verification(verdict: Verification) -> Document:
    """What was compared, and why it differs."""
    return _put_together(
        _judge(verdict, say_verdict(verdict)),
        *_list_found(verdict),
        *_list_harmless(verdict.harmless),
        *_list_told("Not watched", verdict.unwatched),
        *_list_told("Used, but not watched", verdict.unseen),
        *_list_told("Left running by the script, and ended", verdict.left),
    )


def _put_together(verdict: Verdict, *parts: Part) -> Document:
    title = verdict.sentence
    return Document(title, (verdict, *parts), footer=_FOOTER, keeps_words=True)


def _judge(found: Diagnosis | Verification, sentence: str) -> Verdict:
    if found.first_mismatch is None and found.unwatched:
        return Verdict(sentence, "within", "?")
    if found.reproducible:
        return Verdict(sentence, "equal", "=")
    return Verdict(sentence, "different", "≠")


def _list_found(found: Diagnosis | Verification) -> Iterator[Section]:
    """The first mismatch, and each cause by how it is known."""
    if found.first_mismatch is not None:
        yield _tell_mismatch(found.first_mismatch)
    shown = [one for one in found.causes if one.kind != UNKNOWN]
    unknown = [one for one in found.causes if one.kind == UNKNOWN]
    yield from _list_causes("Shown by experiment", shown)
    yield from _list_causes("Not explained by any experiment", unknown)
    heading = "Seen, but not confirmed by experiment"
    yield from _list_causes(heading, found.suspects)
    yield from _list_causes("Repeatable, and wrong", found.traps)


def _tell_mismatch(found: FirstMismatch) -> Section:
    told = f"call {found.call}"
    if found.place:
        place = show_place(found.place, Path.cwd())
        told += f", {found.method} at {clean(place)}"
    if found.method == "end":
        told = "the final models of the script"
    if found.process:
        told += f", in process {found.process} of those that the script starts"
    notes = [f"first difference: {say_first(found.roles)}"]
    if found.places:
        places = shorten(map(clean, found.places), _FEW)
        notes.append(f"places: {places}")
    notes += map(clean, found.details[:3])
    quiet = f"{told}, {clean(found.moment)}"
    return Section(
        "First mismatch", tuple(map(Note, notes)), quiet, is_named=True
    )


def _list_causes(heading: str, causes: Sequence[Cause]) -> Iterator[Section]:
    items = [_tell_cause(*one) for one in enumerate(causes, 1)]
    yield from _list_items(heading, items)


def _tell_cause(number: int, one: Cause) -> Item:
    where = f" at {clean(one.location)}" if one.location else ""
    library = f" ({clean(one.library)})" if one.library else ""
    lines = [clean(line, _LONGEST) for line in one.evidence.splitlines()]
    fix = clean(one.advice, _LONGEST)
    return Item(f"{one.kind}{where}{library}", tuple(lines), number, fix)


def _list_told(heading: str, told: Sequence[str]) -> Iterator[Section]:
    """What is no cause, under its heading."""
    items = [Item(clean(one, _LONGEST)) for one in told]
    yield from _list_items(heading, items)


def _list_items(heading: str, items: Sequence[Item]) -> Iterator[Section]:
    if items:
        parts = tuple(cut(Items, items, _FEW, _MOST))
        yield Section(heading, parts, is_named=True)


def _list_harmless(harmless: Sequence[str]) -> Iterator[Folded]:
    if harmless:
        every = [clean(one) for one in harmless]
        brief = f"Without effect: {shorten(every, _FEW)}"
        parts = tuple(cut(Sentences, every, _MOST, _MOST))
        yield Folded(f"Without effect: {len(every)}", parts, brief)


# --- sentences ---------------------------------------------------------------


def say_verdict(verdict: Verification) -> str:
    """Whether all runs are equal, and if not, why not."""
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
    equal = f"{runs} are bitwise equal in {say_amounts(verdict)} of {processes}"
    if not verdict.unwatched:
        return f"Reproducible{with_fixes}: {equal} {seconds}."
    left_out = say_unwatched(verdict.unwatched)
    if not verdict.num_processes:
        return f"Nothing could be compared: {left_out} {seconds}."
    return (
        f"Equal{with_fixes} as far as was watched: {equal} {seconds}; "
        f"{left_out}."
    )


def say_amounts(found: Diagnosis | Verification) -> str:
    """How much was compared."""
    amounts = {"call": found.num_calls, "epoch": found.num_epochs}
    parts = [count_of(n, noun) for noun, n in amounts.items() if n]
    return join_words(parts) or "the final models"


def say_unwatched(unwatched: Sequence[str]) -> str:
    """How much was not."""
    number = len(unwatched)
    were, they = ("was", "it") if number == 1 else ("were", "they")
    return (
        f"{count_of(number, 'process')} {were} not watched: what {they} "
        "trained was not compared"
    )


# --- the picture -------------------------------------------------------------


def picture_diagnosis(diagnosis: Diagnosis) -> Figure:
    """The rungs as a ladder, with what was found beside them."""
    caption = ""
    if diagnosis.causes:
        first = diagnosis.causes[0]
        where = f" at {first.location}" if first.location else ""
        caption = f"{first.kind}{where}: {first.advice}"
    return Figure(
        partial(_draw_rungs, diagnosis=diagnosis),
        title=diagnosis.headline,
        caption=caption,
        size=(8.0, 0.62 * len(diagnosis.rungs) + 1.6),
    )


def _draw_rungs(figure: Any, diagnosis: Diagnosis) -> None:
    rungs = diagnosis.rungs
    axes = figure.add_subplot()
    for number, rung in enumerate(rungs):
        height = len(rungs) - 1 - number
        color, mark = _LOOKS.get(rung.status, _LOOKS[""])
        axes.plot([0, 1], [height, height], color=color, linewidth=6)
        axes.text(0.5, height + 0.16, rung.name, ha="center", va="bottom")
        axes.text(-0.06, height, mark, ha="right", va="center", color=color)
        told = textwrap.fill(make_safe(rung.told, 90), 52)
        axes.text(1.06, height, told, ha="left", va="center", fontsize="small")
    top, bottom = len(rungs) - 0.4, -0.5
    for side in (0, 1):
        axes.plot([side, side], [bottom, top], color="0.4", linewidth=3)
    axes.set(xlim=(-0.4, 4.2), ylim=(bottom - 0.1, top + 0.3))
    axes.axis("off")
