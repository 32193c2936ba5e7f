"""What studies and comparisons of them say of themselves, as documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from keras_repro.common.text import count_of, say_more
from keras_repro.reports.document import (
    Document,
    Facts,
    Figure,
    Folded,
    Lines,
    Note,
    Part,
    Section,
    Sentences,
    Table,
    Verdict,
    Verdicts,
)
from keras_repro.studies.plots import (
    MOST_METRICS,
    draw_comparisons,
    draw_spread,
    draw_summary,
)
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
    from keras_repro.studies.comparison import TrialComparison
    from keras_repro.studies.results import (
        TrialFailure,
        TrialResults,
        TrialSummary,
    )
    from keras_repro.studies.spread import TrialSpread


_FOOTER = (
    "Written by keras-repro. Trials are runs that differ only in their seed. "
    "Intervals and p values speak of seeds alone: other data or another "
    "machine may move the scores further."
)
_MOST_REMARKS = 20
_MOST_FAILURES, _MOST_LINES = 50, 60
_MOST_COLUMNS, _MOST_ROWS = 20, 500
_MOST_CONDITIONS = 24  # In a picture, and in numbers below it.


def describe_summary(summary: TrialSummary) -> Document:
    """The scores of a study in few numbers, and each trial."""
    results = summary.results
    failed = bool(results.failures) or not results.num_trials
    verdict = Verdict(
        say_headline(results), *(("within", "!") if failed else ())
    )
    titles = [say_level(summary.confidence_level), *COLUMNS[2:]]
    rows = [
        (say_name(name), *list_cells(one))
        for name, one in summary.metrics.items()
    ]
    table = Table(("", COLUMNS[0], *titles), tuple(rows))
    picture = _picture_summary(summary)
    scores = (table, picture) if rows else (picture,)
    parts: list[Part] = [verdict, Section("Scores", scores)]
    remarks = _cut(list_remarks(summary), _MOST_REMARKS)
    if remarks:
        parts.append(Section("Notes", (Sentences(remarks),)))
    if results.failures:
        parts.append(_list_failures(results.failures))
    return Document(
        verdict.sentence, tuple(parts), (*_list_trials(results),), _FOOTER
    )


def _picture_summary(summary: TrialSummary) -> Figure:
    number = min(max(len(summary), 1), MOST_METRICS)
    caption = "dots: trials; bars: means with their intervals; dotted: medians"
    more = say_more(len(summary) - MOST_METRICS, "scores, not drawn")
    return Figure(
        partial(draw_summary, summary=summary),
        title=say_headline(summary.results),
        caption=f"{caption}; {more}" if more else caption,
        size=(7.5, 0.9 + 1.75 * number),
    )


def _list_failures(failures: Sequence[TrialFailure]) -> Section:
    """The failures with their tracebacks, folded."""
    shown: list[Part] = []
    for one in failures[:_MOST_FAILURES]:
        lines = one.traceback.splitlines()[-_MOST_LINES:]
        code = Lines(tuple(lines) or ("No traceback is known.",))
        shown.append(Folded(f"seed {one.seed}: {one.error}", (code,)))
    number = count_of(len(failures), "trial")
    if len(shown) < len(failures):
        number = f"{len(shown)} of {number}"
    return Section("Trials that failed", tuple(shown), number)


def _list_trials(results: TrialResults) -> Iterator[Part]:
    """What is known of each trial, folded."""
    if not results.num_trials:
        return
    seconds = results.seconds
    columns: dict[str, Sequence[object]] = {
        name: results.scores[name].tolist()
        for name in results.metrics[:_MOST_COLUMNS]
    }
    columns |= {
        "seconds": [] if seconds is None else np.round(seconds, 3).tolist(),
        "checksum": results.checksums,
        "worker": results.workers,
    }
    columns = {name: one for name, one in columns.items() if len(one)}
    head = ["seed", *(say_name(one, 60) for one in columns)]
    table = _make_table(head, results.seeds, *columns.values())
    more = _note_more(results.num_trials - _MOST_ROWS)
    number = count_of(results.num_trials, "trial")
    yield Section("Each trial", (Folded(number, (table, *more)),))


def _make_table(head: Sequence[str], *columns: Sequence[object]) -> Table:
    """The first rows of some columns."""
    cut = (one[:_MOST_ROWS] for one in columns)
    rows = (tuple(map(_write_cell, row)) for row in zip(*cut, strict=True))
    return Table(tuple(head), tuple(rows))


def _write_cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cut(texts: Sequence[str], most: int) -> tuple[str, ...]:
    more = say_more(len(texts) - most)
    return (*texts[:most], *([more] if more else []))


def _note_more(number: int) -> list[Note]:
    """How many were left out, if any were."""
    more = say_more(number)
    return [Note(more)] if more else []


# --- comparisons -------------------------------------------------------------


def describe_comparison(comparison: TrialComparison) -> Document:
    """A comparison of two studies."""
    verdict = _judge(comparison, comparison.verdict)
    parts = (
        verdict,
        Section("Numbers", (_list_facts(comparison),)),
        _picture_family([comparison]),
    )
    pairs = (_list_pairs(comparison),)
    return Document(verdict.sentence, parts, pairs, _FOOTER)


def describe_family(family: Sequence[TrialComparison]) -> Document:
    """Several studies, each against the same baseline."""
    said = say_family(family)
    found = {_judge(one, said) for one in family}
    verdict = found.pop() if len(found) == 1 else Verdict(said)
    shown = family[:_MOST_CONDITIONS]
    names = [f"{say_name(one.name_b, 40)} in numbers" for one in shown]
    parts: tuple[Part, ...] = (
        verdict,
        *_compare_conditions(family),
        _picture_family(family),
        *map(Folded, names, ((_list_facts(one),) for one in shown)),
    )
    pairs = tuple(map(_list_pairs, shown))
    return Document(verdict.sentence, parts, pairs, _FOOTER)


def _judge(comparison: TrialComparison, sentence: str) -> Verdict:
    """A sentence with the colour and the mark of what was found."""
    if comparison.equal or comparison.outcome == "equal":
        return Verdict(sentence, "neutral", "=")
    if comparison.settled:
        return Verdict(sentence, "equal", "✓")
    return Verdict(sentence, "within", "?")


def _list_facts(comparison: TrialComparison) -> Facts:
    return Facts(tuple(list_statistics(comparison)))


def _compare_conditions(family: Sequence[TrialComparison]) -> Iterator[Part]:
    rows = tuple(map(tuple, list_family(family)))
    quiet = f"against {say_name(family[0].name_a, 40)}"
    table = Table(tuple(name_family_columns(family)), rows)
    yield Section("Each condition", (table,), quiet)
    verdicts = []
    for one in family:
        name = f"{say_name(one.name_b)}: " if one.equal else ""
        verdicts.append(_judge(one, f"{name}{one.verdict}"))
    notes = [
        *([say_jointly(family)] if len(family) > 1 else []),
        f"Intervals: {say_plan(family[0].watched, 'they hold')}.",
    ]
    left_out = max(one.num_left_out for one in family)
    if left_out:
        number = count_of(left_out, "pair")
        notes.append(f"Up to {number} without two finite scores left out.")
    yield Section(
        "What can be said", (Verdicts(tuple(verdicts)), *map(Note, notes))
    )


def _picture_family(family: Sequence[TrialComparison]) -> Section:
    """Studies beside each other, and their differences to the first."""
    shown, number = family[:_MOST_CONDITIONS], len(family)
    title, exact = family[0].verdict, ""
    if number > 1:
        settled = sum(one.settled for one in family)
        title = (
            f"{settled} of {count_of(number, 'difference')} settled (filled)"
        )
        exact = "; of all differences jointly"
    more = say_more(number - _MOST_CONDITIONS, "studies, not drawn")
    level = say_level(family[0].family_level)
    caption = f"dots: trials; bars: means with their {level}{exact}"
    picture = Figure(
        partial(draw_comparisons, comparisons=shown),
        title=title,
        caption=f"{caption}; {more}" if more else caption,
        size=(min(4.6 + 2.0 * len(shown), 16.0), 4.6),
    )
    return Section("Scores and differences", (picture,))


def _list_pairs(comparison: TrialComparison) -> Folded:
    """The scores of each seed, folded."""
    names = [comparison.name_a, comparison.name_b]
    table = _make_table(
        ["seed", *(say_name(one, 40) for one in names), "difference"],
        comparison.seeds,
        comparison.scores_a.tolist(),
        comparison.scores_b.tolist(),
        comparison.differences.tolist(),
    )
    more = _note_more(len(comparison.seeds) - _MOST_ROWS)
    name = f"{say_name(comparison.name_b, 40)}, seed by seed"
    return Folded(name, (table, *more))


# --- spread ------------------------------------------------------------------


def describe_spread(spread: TrialSpread) -> Document:
    """Where the spread of a score comes from."""
    level = say_level(spread.confidence_level)
    head = ("", SPREAD_COLUMNS[0], level, *SPREAD_COLUMNS[2:])
    picture = Figure(
        partial(draw_spread, spread=spread),
        title=spread.verdict,
        caption=f"dots: trials and shares; bars: means, {level} of each",
        size=(9.5, 4.6),
    )
    parts = (
        Verdict(spread.verdict),
        Section(
            "Parts", (Table(head, tuple(map(tuple, list_spread(spread)))),)
        ),
        Section("Notes", (Sentences(tuple(list_spread_remarks(spread))),)),
        Section("Scores and shares", (picture,)),
    )
    return Document(spread.verdict, parts, footer=_FOOTER)
