"""Trials as HTML: a page that needs nothing else, a notebook's output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_repro.common.text import count_of
from keras_repro.reports.html import (
    Html,
    element,
    join,
    make_folded,
    make_list,
    make_more,
    make_page,
    make_section,
    make_table,
    make_verdict,
    write_fragment,
)
from keras_repro.studies.chart import draw_strips
from keras_repro.studies.strips import (
    make_difference_strips,
    make_spread_strips,
    make_study_strips,
    make_summary_strip,
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
    from keras_repro.studies.comparison import TrialComparison, TrialComparisons
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
_MOST_METRICS, _FEW_METRICS = 20, 3
_MOST_ROWS = 500
_MOST_FAILURES = 50
_MOST_CONDITIONS, _FEW_CONDITIONS = 60, 12


def write_results_page(results: TrialResults) -> str:
    """A study as one self-contained HTML page."""
    summary = results.summary()
    return make_page(
        say_headline(results),
        *_summary_parts(summary, "h1", _MOST_METRICS),
        _failures(results.failures),
        _trials(results),
        footer=_FOOTER,
    )


def write_results_fragment(results: TrialResults) -> str:
    """A study for a notebook: HTML without a page around it."""
    return write_summary_fragment(results.summary())


def write_summary_fragment(summary: TrialSummary) -> str:
    """A summary for a notebook."""
    return write_fragment(
        *_summary_parts(summary, "p", _FEW_METRICS),
        _failures(summary.results.failures),
    )


def write_comparisons_page(
    comparisons: TrialComparison | TrialComparisons,
) -> str:
    """A comparison of studies, or several, as one self-contained page."""
    return make_page(
        _say_title(comparisons),
        *_comparisons_parts(comparisons, "h1", _MOST_CONDITIONS),
        *map(_pairs, comparisons.comparisons[:_MOST_CONDITIONS]),
        footer=_FOOTER,
    )


def write_comparisons_fragment(
    comparisons: TrialComparison | TrialComparisons,
) -> str:
    """A comparison of studies, or several, for a notebook."""
    return write_fragment(
        *_comparisons_parts(comparisons, "p", _FEW_CONDITIONS)
    )


def write_spread_fragment(spread: TrialSpread) -> str:
    """Where the spread of a score comes from, for a notebook."""
    level = say_level(spread.confidence_level)
    titles = ["", SPREAD_COLUMNS[0], level, *SPREAD_COLUMNS[2:]]
    rows = (_make_row(name, cells) for name, *cells in list_spread(spread))
    remarks = [
        element("p", one, class_="quiet") for one in list_spread_remarks(spread)
    ]
    return write_fragment(
        make_verdict("neutral", "∑", "p", spread.verdict),
        make_section(
            "Parts", make_table(titles, rows, "wide numbers"), *remarks
        ),
        draw_strips(make_spread_strips(spread), spread.metric),
    )


# --- the parts of a study ------------------------------------------------


def _summary_parts(
    summary: TrialSummary, heading: str, most: int
) -> Iterator[Html | None]:
    results, names = summary.results, list(summary)
    failed = bool(results.failures) or not results.num_trials
    kind, mark = ("within", "!") if failed else ("neutral", "∑")
    yield make_verdict(kind, mark, heading, say_headline(results))
    if names:
        yield make_section("Scores", _scores_table(summary))
    remarks = list_remarks(summary)
    if remarks:
        yield make_section("Notes", make_list(remarks[:_MOST_FAILURES]))
    for name in names[:most]:
        strip = make_summary_strip(summary, name)
        if strip is not None:
            yield draw_strips([strip], name)
    yield make_more(len(names) - most)


def _scores_table(summary: TrialSummary) -> Html:
    level = say_level(summary.confidence_level)
    titles = [level if one == "interval" else one for one in COLUMNS]
    rows = (
        _make_row(say_name(name, 60), list_cells(one))
        for name, one in summary.metrics.items()
    )
    return make_table(["", *titles], rows, "wide numbers")


def _make_row(name: str, cells: Iterable[str]) -> Iterable[Html]:
    head = element("th", name, scope="row")
    return [head, *(element("td", one) for one in cells)]


def _failures(failures: Sequence[TrialFailure]) -> Html | None:
    """The failures with their tracebacks, folded."""
    if not failures:
        return None
    shown = [
        make_folded(
            f"seed {one.seed}: {one.error}",
            element("pre", _write_traceback(one)),
        )
        for one in failures[:_MOST_FAILURES]
    ]
    more = make_more(len(failures) - _MOST_FAILURES)
    number = count_of(len(failures), "trial")
    return make_section("Trials that failed", *shown, more, quiet=number)


def _write_traceback(failure: TrialFailure) -> Html:
    """Line by line, since a line break is no printable character."""
    lines = failure.traceback.splitlines()[-60:] or ["No traceback is known."]
    return join(*(join(line, Html("\n")) for line in lines))


def _trials(results: TrialResults) -> Html | None:
    if not results.num_trials:
        return None
    seconds = results.seconds
    columns: dict[str, Sequence[object]] = {
        name: results.scores[name].tolist()
        for name in results.metrics[:_MOST_METRICS]
    }
    columns |= {
        "seconds": [] if seconds is None else np.round(seconds, 3).tolist(),
        "checksum": results.checksums,
        "worker": results.workers,
    }
    columns = {name: one for name, one in columns.items() if len(one)}
    number = min(results.num_trials, _MOST_ROWS)
    rows = (
        _make_row(
            f"{results.seeds[place]}",
            (_write_cell(one[place]) for one in columns.values()),
        )
        for place in range(number)
    )
    table = make_table(
        ["seed", *(say_name(one, 60) for one in columns)], rows, "wide numbers"
    )
    more = make_more(results.num_trials - number)
    return make_folded(count_of(results.num_trials, "trial"), table, more)


def _write_cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --- the parts of comparisons --------------------------------------------


def _comparisons_parts(
    comparisons: TrialComparison | TrialComparisons, heading: str, most: int
) -> Iterator[Html | None]:
    family = comparisons.comparisons
    if len(family) == 1:
        yield _banner(family[0], heading)
        yield make_section("Numbers", _facts(family[0]))
    else:
        kinds = {_find_kind(one) for one in family}
        kind, mark = kinds.pop() if len(kinds) == 1 else ("neutral", "∑")
        yield make_verdict(kind, mark, heading, _say_title(comparisons))
        table = _family_table(family)
        baseline = say_name(family[0].name_a, 40)
        plan = say_plan(family[0].watched, "they hold")
        text = f"{say_jointly(family)} Intervals: {plan}."
        joint = element("p", text, class_="quiet")
        quiet = f"against {baseline}"
        yield make_section("Each condition", table, joint, quiet=quiet)
    shown = family[:most]
    metric = family[0].metric
    yield make_section("Scores", draw_strips(make_study_strips(shown), metric))
    yield make_section(
        "Differences",
        draw_strips(
            make_difference_strips(shown),
            f"{metric}, difference to {say_name(family[0].name_a)}",
            with_zero=True,
        ),
        make_more(len(family) - most),
        quiet="seed by seed; a mean that is settled is filled",
    )
    if len(family) > 1:
        yield from (_details(one) for one in shown)


def _say_title(comparisons: TrialComparison | TrialComparisons) -> str:
    family = comparisons.comparisons
    return family[0].verdict if len(family) == 1 else say_family(family)


def _find_kind(comparison: TrialComparison) -> tuple[str, str]:
    """The colour of a verdict and its mark."""
    if comparison.equal or comparison.outcome == "equal":
        return "neutral", "="
    return ("equal", "✓") if comparison.settled else ("within", "?")


def _banner(comparison: TrialComparison, heading: str) -> Html:
    kind, mark = _find_kind(comparison)
    names = (
        f"{say_name(comparison.metric, 60)}, {say_name(comparison.name_b, 40)} "
        f"against {say_name(comparison.name_a, 40)}"
    )
    return make_verdict(kind, mark, heading, comparison.verdict, [names])


def _facts(comparison: TrialComparison) -> Html:
    rows = [
        element("tr", element("th", label, scope="row"), element("td", text))
        for label, text in list_statistics(comparison)
    ]
    return element("table", element("tbody", rows), class_="facts")


def _family_table(family: Sequence[TrialComparison]) -> Html:
    baseline, *others = list_family(family)
    rows = [_make_row(baseline[0], [*baseline[1:], "the baseline"])]
    rows += [
        [
            *_make_row(name, cells),
            element("td", _find_kind(one)[1], " ", one.verdict, class_="words"),
        ]
        for (name, *cells), one in zip(others, family, strict=True)
    ]
    titles = [*name_family_columns(family), "verdict"]
    return make_table(titles, rows, "wide numbers")


def _details(comparison: TrialComparison) -> Html:
    return make_folded(
        f"{say_name(comparison.name_b, 40)} in numbers", _facts(comparison)
    )


def _pairs(comparison: TrialComparison) -> Html:
    """The scores of each seed, folded."""
    names = [comparison.name_a, comparison.name_b]
    rows = [
        _make_row(f"{seed}", (f"{one:.6g}" for one in scores))
        for seed, *scores in zip(
            comparison.seeds[:_MOST_ROWS],
            comparison.scores_a.tolist(),
            comparison.scores_b.tolist(),
            comparison.differences.tolist(),
            strict=False,
        )
    ]
    titles = ["seed", *(say_name(one, 40) for one in names), "difference"]
    return make_folded(
        f"{say_name(comparison.name_b, 40)}, seed by seed",
        make_table(titles, rows, "wide numbers"),
        make_more(len(comparison.seeds) - _MOST_ROWS),
    )
