"""What a result says of itself: plain parts that say nothing of their looks.

`text.py`, `page.py` and `figures.py` render them. A text need not be safe to
print: each of these makes it so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
    """Rows of cells; the first cell names its row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sentences:
    """A list of sentences that stand for themselves."""

    texts: tuple[str, ...]


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
    """A picture; a terminal shows none.

    Args:
        draw: Draws on a Matplotlib figure of this size, all but the title;
            what it writes there goes through `figures.make_safe`.
        title: What the picture shows, in a sentence.
        caption: How it is read.
        size: Width and height in inches.
    """

    draw: Callable[[Any], None]
    title: str
    caption: str
    size: tuple[float, float]


@dataclass(frozen=True)
class Section:
    """Parts that belong together; their heading shows on a page alone."""

    heading: str
    parts: tuple[Part, ...]
    quiet: str = ""  # What stands in small beside the heading.


@dataclass(frozen=True)
class Folded:
    """Parts that show on a page when their summary is clicked on."""

    summary: str
    parts: tuple[Part, ...]


Part = (
    Verdict
    | Verdicts
    | Facts
    | Table
    | Sentences
    | Note
    | Lines
    | Figure
    | Section
    | Folded
)


@dataclass(frozen=True)
class Document:
    """All that a result says of itself, in its order.

    Args:
        title: That of a page.
        parts: What each renderer shows of them.
        appendix: What a page shows besides.
        footer: The last line of a page.
    """

    title: str
    parts: tuple[Part, ...]
    appendix: tuple[Part, ...] = ()
    footer: str = ""
