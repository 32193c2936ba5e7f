"""Studies and comparisons of them as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_repro.common.text import WIDTH, count_of, list_more, wrap
from keras_repro.studies.wording import (
    COLUMNS,
    SPREAD_COLUMNS,
    list_cells,
    list_family,
    list_remarks,
    list_spread,
    list_spread_remarks,
    list_statistics,
    name_family_columns,
    say_family,
    say_headline,
    say_jointly,
    say_level,
    say_name,
    say_plan,
)

if TYPE_CHECKING:
    from keras_repro.studies.comparison import TrialComparison, TrialComparisons
    from keras_repro.studies.results import TrialSummary
    from keras_repro.studies.spread import TrialSpread


_MOST_REMARKS = 20


def write_summary_text(summary: TrialSummary) -> str:
    """The scores of a study for a terminal."""
    lines = wrap(say_headline(summary.results))
    titles = [say_level(summary.confidence_level), *COLUMNS[2:]]
    rows = [
        [say_name(name), *list_cells(one)]
        for name, one in summary.metrics.items()
    ]
    if rows:
        lines += ["", *_format_table(["", "mean", *titles], rows)]
    remarks = list_remarks(summary)
    if remarks:
        lines.append("")
    for one in remarks[:_MOST_REMARKS]:
        lines += wrap(one, hang=2)
    lines += list_more(len(remarks) - _MOST_REMARKS)
    return "\n".join(lines)


def write_comparison_text(comparison: TrialComparison) -> str:
    """A comparison of two studies for a terminal: the verdict first."""
    lines = [*wrap(comparison.verdict), ""]
    facts = list_statistics(comparison)
    width = min(max(len(label) for label, _ in facts), 36) + 3
    for label, text in facts:
        lines += wrap(f"{label + ':':<{width}}{text}", 2, width)
    return "\n".join(lines)


def write_comparisons_text(comparisons: TrialComparisons) -> str:
    """Several studies against the first, for a terminal."""
    family = comparisons.comparisons
    lines = [*wrap(say_family(family)), ""]
    titles = name_family_columns(family)
    lines += [*_format_table(titles, list_family(family)), ""]
    for one in family:
        name = f"{say_name(one.name_b)}: " if one.equal else ""
        lines += wrap(f"- {name}{one.verdict}", hang=2)
    if len(family) > 1:
        lines += wrap(say_jointly(family))
    plan = say_plan(family[0].watched, "they hold")
    lines += wrap(f"Intervals: {plan}.")
    left_out = max(one.num_left_out for one in family)
    if left_out:
        number = count_of(left_out, "pair")
        lines += wrap(f"Up to {number} without two finite scores left out.")
    return "\n".join(lines)


def write_spread_text(spread: TrialSpread) -> str:
    """Where the spread of a score comes from, for a terminal."""
    level = say_level(spread.confidence_level)
    titles = ["", SPREAD_COLUMNS[0], level, *SPREAD_COLUMNS[2:]]
    table = _format_table(titles, list_spread(spread))
    lines = [*wrap(spread.verdict), "", *table, ""]
    for one in list_spread_remarks(spread):
        lines += wrap(one, hang=2)
    return "\n".join(lines)


# --- lines ---------------------------------------------------------------


def _format_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """A table; names above their rows, then paragraphs, if it is too wide."""
    lines = _align([titles, *rows], 1, "  ")
    if max(map(len, lines)) <= WIDTH:
        return lines
    for gap in ("  ", " "):
        cells = [row[1:] for row in (titles, *rows)]
        title, *lines = [f"  {one}" for one in _align(cells, 0, gap)]
        if max(map(len, [title, *lines])) <= WIDTH:
            named = zip(rows, lines, strict=True)
            return [
                title,
                *(one for row, line in named for one in (row[0], line)),
            ]
    paragraphs: list[str] = []
    for name, *texts in rows:
        pairs = zip(titles[1:], texts, strict=True)
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
