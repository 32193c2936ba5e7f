"""What a verification found: whether runs agree, where they part, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from keras_repro.call_mismatches import FirstMismatch
from keras_repro.causes import UNKNOWN, Cause
from keras_repro.phrases import clean, count_of, join_words, name_role
from keras_repro.plain import to_plain, wrap
from keras_repro.sites import show_place

_MOST_SHOWN = 8


class Explained(Protocol):
    """What has causes, suspects and traps."""

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
class Verdict:
    """What a verification found.

    Args:
        reproducible: Whether all runs are bitwise equal.
        first_mismatch: Where two of them part first, or `None`.
        causes: What an experiment has shown to make them differ, the most
            certain first; empty where they are equal.
        suspects: What was only seen and could make them differ.
        traps: What is repeatable, and wrong nevertheless.
        harmless: What was held still or let go without any effect.
        num_calls: How many calls each run made of its models.
        num_runs: How many runs there were, experiments among them.
        seconds: How long it took.
        fixes: What was asked to be held still throughout, in words.
    """

    reproducible: bool
    first_mismatch: FirstMismatch | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Cause, ...] = ()
    traps: tuple[Cause, ...] = ()
    harmless: tuple[str, ...] = ()
    num_calls: int = 0
    num_runs: int = 2
    seconds: float = 0.0
    fixes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain values that strict JSON can hold."""
        result: dict[str, Any] = to_plain(self)
        return result

    def __str__(self) -> str:
        """What a terminal shows: the verdict first."""
        return "\n".join(_write(self))


def _write(verdict: Verdict) -> Iterator[str]:
    yield from _wrap(_say_verdict(verdict))
    if verdict.first_mismatch is not None:
        yield ""
        yield from write_mismatch(verdict.first_mismatch)
    yield from write_causes(list_sections(verdict))
    if verdict.harmless:
        yield ""
        shown = ", ".join(clean(one) for one in verdict.harmless[:_MOST_SHOWN])
        yield from _wrap(f"Without effect: {shown}", 0, 2)


def _say_verdict(verdict: Verdict) -> str:
    runs = count_of(verdict.num_runs, "run")
    with_fixes = f" with {join_words(verdict.fixes)}" if verdict.fixes else ""
    if verdict.reproducible:
        calls = count_of(verdict.num_calls, "call")
        return (
            f"Reproducible{with_fixes}: {runs} are bitwise equal in {calls} "
            f"({verdict.seconds:.0f} s)."
        )
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


def write_mismatch(found: FirstMismatch) -> Iterator[str]:
    """A first mismatch in lines for a terminal."""
    told = f"call {found.call}"
    if found.place:
        place = show_place(found.place, Path.cwd())
        told += f", {found.method} at {clean(place)}"
    if found.method == "end":
        told = "what the script leaves"
    yield from _wrap(f"First mismatch: {told}, {clean(found.moment)}")
    roles = join_words(name_role(role) for role in found.roles)
    yield from _wrap(f"parted first: {roles}", 2, 2)
    if found.places:
        more = len(found.places) - _MOST_SHOWN
        shown = ", ".join(clean(one) for one in found.places[:_MOST_SHOWN])
        tail = f" and {more} more" if more > 0 else ""
        yield from _wrap(f"places: {shown}{tail}", 2, 2)
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
        ("Seen, and not shown", found.suspects),
        ("Repeatable, and wrong", found.traps),
    ]


def write_causes(
    sections: Sequence[tuple[str, Sequence[Cause]]],
) -> Iterator[str]:
    """Causes in lines for a terminal, section by section.

    Args:
        sections: A heading and its causes; one without any is left out.
    """
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
        yield from _wrap(f"Mend: {clean(one.advice, 400)}", 5, 6)
    more = len(causes) - _MOST_SHOWN
    if more > 0:
        yield f"  and {more} more"


def _wrap(text: str, indent: int = 0, hang: int = 0) -> list[str]:
    """A paragraph whose paths stay whole, so that they can be clicked."""
    return wrap(text, indent, hang, splits_words=False)
