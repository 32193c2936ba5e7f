"""What a result says of itself: plain parts that say nothing of their looks.

`text.py`, `page.py` and `figures.py` render them. A text need not be safe to
print: each of these makes it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_repro.common.text import say_more


@dataclass(frozen=True)
class Verdict:
    """What there is to say first, in a sentence."""

    sentence: str
    kind: str = "neutral"  # Its colour: `equal`, `within` or `different` too.
    mark: str = "∑"


@dataclass(frozen=True)
class Verdicts:
    """A verdict for each of several things."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Facts:
    """Values by their names, one below the other."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell names its row. Two need no head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sentences:
    """A list of sentences that stand for themselves."""

    texts: tuple[str, ...]
    hang: int = 2  # Of a text, where the later lines of each begin.


@dataclass(frozen=True)
class Item:
    """A thing by its name, and what there is to say of it."""

    name: str
    lines: tuple[str, ...] = ()
    number: int | None = None
    fix: str = ""  # What to do about it.


@dataclass(frozen=True)
class Items:
    """A list of such things, all of them numbered or none."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Note:
    """A paragraph of small print."""

    text: str


@dataclass(frozen=True)
class Lines:
    """Lines of code, or of a traceback."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A picture; a terminal shows none."""

    # Draws on a Matplotlib figure of this size, all but the title; what it
    # writes there goes through `figures.make_safe`.
    draw: Callable[[Any], None]
    title: str  # What the picture shows, in a sentence.
    caption: str  # How it is read.
    size: tuple[float, float]  # Width and height in inches.


@dataclass(frozen=True)
class Cell:
    """One place of a matrix: a sign, and what it stands for."""

    sign: str
    kind: str  # Its colour: `e`, `w`, `d1`, `d2` or `d3`.
    told: str = ""


@dataclass(frozen=True)
class Row:
    """The cells of a row, `None` where there is nothing to tell."""

    name: str
    cells: tuple[Cell | None, ...]
    is_marked: bool = False


@dataclass(frozen=True)
class Cells:
    """What is shown of a matrix."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""  # What was left out.


@dataclass(frozen=True)
class Matrix:
    """A table of many small cells, which a terminal does not show."""

    heading: str
    key: tuple[tuple[str, str], ...]  # Each kind of cell, and what it means.
    choose: Callable[[int, int], Cells]  # At most so many rows and columns.


@dataclass(frozen=True)
class Section:
    """Parts that belong together."""

    heading: str  # What a page writes above them.
    parts: tuple[Part, ...]
    quiet: str = ""  # What stands in small beside the heading.
    is_named: bool = False  # Whether a terminal shows both too.


@dataclass(frozen=True)
class Folded:
    """Parts that show on a page when their summary is clicked on."""

    summary: str
    parts: tuple[Part, ...]
    brief: str = ""  # What a terminal says in their place.


Part = (
    Verdict
    | Verdicts
    | Facts
    | Table
    | Sentences
    | Items
    | Note
    | Lines
    | Figure
    | Matrix
    | Section
    | Folded
)


@dataclass(frozen=True)
class Document:
    """All that a result says of itself, in its order."""

    title: str  # That of a page.
    parts: tuple[Part, ...]
    appendix: tuple[Part, ...] = ()  # What a page shows besides.
    footer: str = ""  # The last line of a page.
    # Whether a terminal breaks no word, however long it is, so that a path can
    # be clicked on.
    keeps_words: bool = False


def cut(
    make: Callable[[Any], Part], entries: Sequence[Any], shown: int, most: int
) -> Iterator[Part]:
    """The first few entries as a part, the next ones folded behind it."""
    yield make(tuple(entries[:shown]))
    more = say_more(len(entries) - shown)
    if more:
        rest: list[Part] = [make(tuple(entries[shown:most]))]
        if len(entries) > most:
            rest.append(Note(say_more(len(entries) - most)))
        yield Folded(more, tuple(rest), more)
