"""What a diagnosis found: rung by rung, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keras_repro.call_mismatches import FirstMismatch
from keras_repro.causes import Cause
from keras_repro.markup import Html, element
from keras_repro.plain import to_plain
from keras_repro.verdicts import list_sections, write_causes, write_mismatch

EQUAL, DIFFERENT, SKIPPED, NOT_REACHED = "equal", "different", "-", ""
_MARKS = {EQUAL: "=", DIFFERENT: "≠", SKIPPED: "·", NOT_REACHED: " "}
_WIDTH = 79


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One question of a diagnosis, from cheap to dear.

    Args:
        name: What is compared.
        status: `"equal"`, `"different"`, `"-"` where it does not apply, or
            empty where the diagnosis stopped before.
        told: More, in words.
        seconds: How long it took.
    """

    name: str
    status: str = NOT_REACHED
    told: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Whether a training is reproducible, and if not, at which rung and why.

    Args:
        reproducible: Whether it is equal on all rungs that apply.
        rungs: The rungs, from cheap to dear; none after the first that
            differs was climbed.
        first_mismatch: Where two calls part first, or `None`.
        causes: What an experiment has shown, the most certain first.
        suspects: What was only seen.
        traps: What is repeatable, and wrong nevertheless.
        seconds: How long the diagnosis took.
    """

    reproducible: bool
    rungs: tuple[Rung, ...]
    first_mismatch: FirstMismatch | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Cause, ...] = ()
    traps: tuple[Cause, ...] = ()
    seconds: float = 0.0

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        seconds = f"({self.seconds:.1f} s)"
        if self.reproducible:
            return f"Reproducible: equal on every rung {seconds}."
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
        from keras_repro.plots import plot_diagnosis

        return plot_diagnosis(self)

    def __str__(self) -> str:
        """What a terminal shows: the verdict first."""
        return "\n".join(_write(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _write_html(self)


def _write(diagnosis: Diagnosis) -> Iterator[str]:
    yield from textwrap.wrap(diagnosis.headline, _WIDTH)
    yield ""
    for one in diagnosis.rungs:
        told = f"  {one.told}" if one.told else ""
        line = f"  {_MARKS[one.status]} {one.name:<16}{told}"
        yield from textwrap.wrap(
            line, _WIDTH, subsequent_indent=" " * 22, drop_whitespace=True
        ) or [line]
    if diagnosis.first_mismatch is not None:
        yield ""
        yield from write_mismatch(diagnosis.first_mismatch)
    yield from write_causes(list_sections(diagnosis))


def _write_html(diagnosis: Diagnosis) -> str:
    from keras_repro.pages import write_fragment

    rows = [
        element(
            "tr",
            element("td", _MARKS[one.status]),
            element("th", one.name, scope="row"),
            element("td", one.told),
        )
        for one in diagnosis.rungs
    ]
    parts: list[Html] = [
        element("p", diagnosis.headline, class_="headline"),
        element("table", element("tbody", rows), class_="facts"),
    ]
    if diagnosis.first_mismatch is not None:
        text = "\n".join(write_mismatch(diagnosis.first_mismatch))
        parts.append(_preformatted(text))
    for heading, causes in list_sections(diagnosis):
        if causes:
            parts.append(element("h2", heading))
            parts.append(element("ul", [_write_cause(one) for one in causes]))
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
        element("p", lines, "Mend: ", one.advice),
    )


def _preformatted(text: str) -> Html:
    """Lines as they are; each is escaped by itself."""
    lines = [
        child
        for line in text.splitlines()
        for child in (line.strip(), element("br"))
    ]
    return element("p", lines)
