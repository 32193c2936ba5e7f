"""Any document as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

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
    writer = _Writer(document.keeps_words)
    blocks = filter(None, map(writer.list_lines, document.parts))
    lines = [line for block in blocks for line in ("", *block)]
    return "\n".join(map(escape, lines[1:]))


class _Writer:
    """Makes lines of parts."""

    def __init__(self, keeps_words: bool) -> None:
        self._wrap = partial(wrap, splits_words=not keeps_words)

    def list_lines(self, part: Part, indent: int = 0) -> list[str]:
        """A part, under a heading if there is an indent."""
        match part:
            case Verdict(sentence):
                return self._wrap(sentence, indent)
            case Verdicts(verdicts):
                told = [
                    self._wrap(one.sentence, start="- ") for one in verdicts
                ]
            case Sentences(texts, hang):
                start, hang = ("- ", 0) if indent else ("", hang)
                told = [
                    self._wrap(one, indent, hang, start=start) for one in texts
                ]
            case Items(items):
                told = [self._list_item(one) for one in items]
            case Section(heading, parts, quiet, is_named):
                title = self._wrap(f"{heading}: {quiet}") if is_named else []
                inner = 2 if is_named else indent
                told = [title, *(self.list_lines(one, inner) for one in parts)]
            case Facts(rows):
                return self._list_pairs(rows, ":", 1 if indent else 2)
            case Table((), rows):
                return self._list_pairs(rows, "", 2)
            case Table(head, rows):
                return _list_rows(head, rows)
            case Note(text):
                return self._wrap(text, indent, indent)
            case Folded(brief=brief):
                return self._wrap(brief, indent, indent + 2)
            case _:
                return []
        return [line for one in told for line in one]

    def _list_item(self, item: Item) -> list[str]:
        """Its name, and below it what there is to say."""
        is_numbered = item.number is not None
        start, below = (f"{item.number}. ", 5) if is_numbered else ("", 6)
        told = [
            self._wrap(item.name, 2, below - 2 - len(start), start=start),
            *(self._wrap(one, below) for one in item.lines),
            self._wrap(item.fix, below, start="Fix: ") if item.fix else [],
        ]
        return [line for one in told for line in one]

    def _list_pairs(
        self, rows: Sequence[Sequence[str]], end: str, gap: int
    ) -> list[str]:
        """Texts below each other, each behind its label."""
        longest = max(len(label) for label, _ in rows)
        width = min(longest, _WIDEST_LABEL) + len(end) + gap
        return [
            line
            for label, text in rows
            for line in self._wrap(f"{label + end:<{width}}{text}", 2, width)
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
