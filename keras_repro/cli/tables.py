"""Tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WIDTH = 80


def format_table(
    rows: Sequence[Mapping[str, str]], flexible: Mapping[str, int] | None = None
) -> list[str]:
    """Lay a table out in 80 columns."""
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {
        name: max(len(name), *(len(row[name]) for row in rows))
        for name in names
    }
    gap = "  "
    if _width_of(widths, gap) > WIDTH:
        gap = " "
    _shrink(widths, flexible or {}, _width_of(widths, gap) - WIDTH)
    header = {name: name for name in names}
    return [
        gap.join(
            cut(row[name], widths[name]).ljust(widths[name]) for name in names
        ).rstrip()
        for row in (header, *rows)
    ]


def _width_of(widths: Mapping[str, int], gap: str) -> int:
    return sum(widths.values()) + len(gap) * (len(widths) - 1)


def _shrink(
    widths: dict[str, int], flexible: Mapping[str, int], excess: int
) -> None:
    """Take what is too much from the widest of the columns that may give."""
    for _ in range(max(excess, 0)):
        able = [
            name
            for name, low in flexible.items()
            if widths.get(name, 0) > max(low, len(name))
        ]
        if not able:
            return
        widths[max(able, key=widths.__getitem__)] -= 1


def cut(text: str, width: int) -> str:
    """A text, with two dots for the end of one that is too long."""
    return text if len(text) <= width else f"{text[: width - 2]}.."
