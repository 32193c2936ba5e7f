"""Any document as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from keras_repro.common.text import WIDTH, escape, wrap
from keras_repro.reports.document import (
    Document,
    Facts,
    Folded,
    Item,
    Items,
    Note,
    Part,
    Section,
    Sentences,
    Table,
    Verdict,
    Verdicts,
)

_WIDEST_LABEL = 36


def write_text(document: Document) -> str:
    """The parts that a terminal shows, with an empty line between them."""
    blocks = filter(None, map(_list_lines, document.parts))
    lines = [line for block in blocks for line in ("", *block)]
    return "\n".join(map(escape, lines[1:]))


def _list_lines(part: Part, indent: int = 0) -> list[str]:
    """A part, under a heading if there is an indent."""
    match part:
        case Verdict(sentence):
            return wrap(sentence, indent)
        case Verdicts(verdicts):
            told = [wrap(f"- {one.sentence}", hang=2) for one in verdicts]
        case Sentences(texts):
            dash = "- " if indent else ""
            hang = 0 if indent else 2
            told = [wrap(one, indent, hang, start=dash) for one in texts]
        case Items(items, first):
            told = [_list_item(*one, first) for one in enumerate(items)]
        case Section(heading, parts, quiet, is_named):
            title = wrap(f"{heading}: {quiet}") if is_named else []
            inner = 2 if is_named else indent
            told = [title, *(_list_lines(one, inner) for one in parts)]
        case Facts(rows):
            return _list_facts(rows, 1 if indent else 2)
        case Table(head, rows):
            return _list_rows(head, rows)
        case Note(text):
            return wrap(text, indent)
        case Folded(brief=brief):
            return wrap(brief, 2, 4)
        case _:
            return []
    return [line for one in told for line in one]


def _list_item(place: int, item: Item, first: int | None) -> list[str]:
    """Its name, and below it what there is to say."""
    start = "" if first is None else f"{first + place}. "
    below = 6 if first is None else 5
    lines = wrap(item.name, 2, below - 2 - len(start), start=start)
    return [*lines, *(line for one in item.lines for line in wrap(one, below))]


def _list_facts(rows: Sequence[tuple[str, str]], gap: int) -> list[str]:
    longest = max(len(label) for label, _ in rows)
    width = min(longest, _WIDEST_LABEL) + 1 + gap
    return [
        line
        for label, text in rows
        for line in wrap(f"{label + ':':<{width}}{text}", 2, width)
    ]


def _list_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; names above their rows, then paragraphs, if it is too wide."""
    lines = _align([head, *rows], 1, "  ")
    if max(map(len, lines)) <= WIDTH:
        return lines
    for gap in ("  ", " "):
        cells = [row[1:] for row in (head, *rows)]
        title, *lines = [f"  {one}" for one in _align(cells, 0, gap)]
        if max(map(len, [title, *lines])) <= WIDTH:
            named = zip(rows, lines, strict=True)
            return [
                title,
                *(one for row, line in named for one in (row[0], line)),
            ]
    paragraphs: list[str] = []
    for name, *texts in rows:
        pairs = zip(head[1:], texts, strict=True)
        text = ", ".join(f"{title} {one}" for title, one in pairs if one)
        paragraphs += wrap(f"{name}: {text}", hang=2)
    return paragraphs


def _align(rows: Sequence[Sequence[str]], num_left: int, gap: str) -> list[str]:
    """Cells under each other, those of the first columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            one.ljust(width) if place < num_left else one.rjust(width)
            for place, (one, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
