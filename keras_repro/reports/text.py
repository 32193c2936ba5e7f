"""Any document as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from keras_repro.common.text import WIDTH, escape, wrap
from keras_repro.reports.document import (
    Document,
    Facts,
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


def _list_lines(part: Part) -> list[str]:
    match part:
        case Verdict(sentence):
            return wrap(sentence)
        case Verdicts(verdicts):
            told = [wrap(f"- {one.sentence}", hang=2) for one in verdicts]
        case Sentences(texts):
            told = [wrap(one, hang=2) for one in texts]
        case Section(parts=parts):
            told = [_list_lines(one) for one in parts]
        case Facts(rows):
            return _list_facts(rows)
        case Table(head, rows):
            return _list_rows(head, rows)
        case Note(text):
            return wrap(text)
        case _:
            return []
    return [line for one in told for line in one]


def _list_facts(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(max(len(label) for label, _ in rows), _WIDEST_LABEL) + 3
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
