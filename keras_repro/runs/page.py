"""Comparisons as HTML: a page that needs nothing else, a notebook's output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keras_repro.common.text import clean, count_of
from keras_repro.reports.html import (
    NEWLINE,
    Html,
    _lines,
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
from keras_repro.runs.chart import draw_chart
from keras_repro.runs.distances import Grid, arrange, thin_out
from keras_repro.runs.mismatch import EQUAL, WITHIN
from keras_repro.runs.wording import (
    WEIGHTS,
    describe_run,
    find_decisive,
    list_facts,
    list_mismatches,
    list_steps,
    name_role,
    outline_run,
    say_distance,
    say_environment,
    say_groups_verdict,
    say_identity,
    say_size,
    say_verdict,
    split_environment,
)

if TYPE_CHECKING:
    from keras_repro.environment.differences import EnvironmentDifference
    from keras_repro.runs.agreement import Agreement
    from keras_repro.runs.comparison import Comparison, RunGroups
    from keras_repro.runs.distances import Grid
    from keras_repro.runs.mismatch import Mismatch, VariableDifference
    from keras_repro.runs.run import Run


_MOST_VARIABLES, _FEW_VARIABLES = 60, 5
_MOST_ENTRIES = 200
_FEW_EPOCHS, _FEW_PARTS = 30, 40
_MOST_RUNS, _FEW_RUNS = 500, 20
_MOST_GROUPS, _FEW_GROUPS = 20, 3
_DOTS = {3: "●●●", 2: "●●○", 1: "●○○", 0: "○○○"}


def write_comparison_page(comparison: Comparison) -> str:
    """A comparison as a page of its own, the first mismatch always in it."""
    verdict = say_verdict(comparison)
    names = [_name(one) for one in (comparison.a, comparison.b)]
    grid = choose_grid(comparison, MOST_EPOCHS, MOST_PARTS)
    return make_page(
        f"{verdict} a: {names[0]}, b: {names[1]}",
        _banner(comparison, "h1"),
        _steps(comparison),
        _mismatches(comparison, _MOST_VARIABLES),
        _environment(comparison),
        _notes(comparison),
        make_section("The two runs", _runs_table(comparison)),
        _distances(comparison, grid),
        write_grid(comparison, grid),
    )


def write_comparison_fragment(comparison: Comparison) -> str:
    """A comparison as a part of another page, such as a notebook."""
    grid = choose_grid(comparison, _FEW_EPOCHS, _FEW_PARTS)
    runs = f"a: {outline_run(comparison.a)}"
    other = f"b: {outline_run(comparison.b)}"
    return write_fragment(
        _banner(comparison, "p"),
        element("p", runs, element("br"), other, class_="quiet"),
        _steps(comparison),
        _mismatches(comparison, _FEW_VARIABLES),
        _environment(comparison, only_likely=True),
        _notes(comparison),
        make_folded(
            "Epoch by layer",
            _distances(comparison, grid),
            write_grid(comparison, grid),
        )
        if comparison.agreements
        else None,
    )


def write_groups_page(groups: RunGroups) -> str:
    """Groups of runs as a page of its own."""
    verdict = say_groups_verdict(groups)
    return make_page(
        verdict,
        _groups_banner(groups, "h1"),
        make_section(
            "Which agree with which", _groups_table(groups, _MOST_RUNS)
        ),
        *_groups_sections(groups, _MOST_GROUPS),
    )


def write_groups_fragment(groups: RunGroups) -> str:
    """Groups of runs as a part of another page."""
    return write_fragment(
        _groups_banner(groups, "p"),
        _groups_table(groups, _FEW_RUNS),
        *_groups_sections(groups, _FEW_GROUPS),
    )


# --- the parts of a comparison -------------------------------------------


def _banner(comparison: Comparison, heading: str) -> Html:
    kind, mark = "different", "≠"
    if comparison.agree:
        kind, mark = ("equal", "=") if comparison.equal else ("within", "≈")
    return make_verdict(
        kind,
        mark,
        heading,
        say_verdict(comparison),
        say_identity(comparison),
    )


def _name(run: Run) -> str:
    return clean(run.header.name or run.run_id[:8], 40)


def _steps(comparison: Comparison) -> Html | None:
    steps = list_steps(comparison)
    return make_section("What to do next", make_list(steps)) if steps else None


def _notes(comparison: Comparison) -> Html | None:
    if not comparison.notes:
        return None
    return make_section("Notes", make_list(comparison.notes[:_MOST_ENTRIES]))


def _runs_table(comparison: Comparison) -> Html:
    a, b = map(describe_run, (comparison.a, comparison.b))
    rows = [
        (
            element("th", label, scope="row"),
            element("td", x),
            element("td", y),
        )
        for (label, x), (_, y) in zip(a, b, strict=True)
    ]
    return make_table(("", "a", "b"), rows, "facts")


def _mismatches(comparison: Comparison, most: int) -> Html | None:
    sections = [
        make_section(
            heading,
            _facts(mismatch, comparison),
            _variables(mismatch.differences, most),
            quiet=mismatch.moment,
        )
        for heading, mismatch in list_mismatches(comparison)
    ]
    return _lines(sections) if sections else None


def _facts(mismatch: Mismatch, comparison: Comparison) -> Html:
    rows = [
        element(
            "tr",
            element("th", label, scope="row"),
            element("td", text),
        )
        for label, text in list_facts(mismatch, comparison)
    ]
    return element("table", element("tbody", rows), class_="facts")


def _variables(
    differences: Sequence[VariableDifference], most: int
) -> Html | None:
    if not differences:
        return None
    rows = [
        (
            element("th", element("code", one.place), scope="row"),
            element("td", name_role(one.role)),
            element(
                "td", "≈ within" if "within" in one.status else "≠ different"
            ),
            element("td", say_size(one)),
        )
        for one in differences[:most]
    ]
    head = ("Variable", "Role", "Agreement", "How far apart")
    return join(
        make_table(head, rows, "wide"), make_more(len(differences) - most)
    )


def _environment(
    comparison: Comparison, *, only_likely: bool = False
) -> Html | None:
    may, _ = split_environment(comparison.environment)
    if only_likely and not may:
        return None
    shown = may if only_likely else comparison.environment
    return make_section(
        "Environments",
        *write_entries(shown),
        quiet=say_environment(comparison),
    )


def write_entries(
    differences: Sequence[EnvironmentDifference],
) -> list[Html | None]:
    """The entries that may matter; the others behind their number."""
    may, hardly = split_environment(differences)
    rare = None
    if hardly:
        number = count_of(len(hardly), "difference")
        rare = make_folded(f"Hardly ever matters: {number}", _entries(hardly))
    return [_entries(may) if may else None, rare]


def _entries(entries: Sequence[EnvironmentDifference]) -> Html:
    rows = [
        (
            element("th", element("code", one.key), scope="row"),
            element("td", element("code", clean(one.a, 300))),
            element("td", element("code", clean(one.b, 300))),
            element(
                "td",
                element("b", _DOTS.get(one.weight, "●○○"), aria_hidden="true"),
                f" {WEIGHTS.get(one.weight, 'sometimes')}",
                class_="weight",
            ),
            element("td", one.sentence),
        )
        for one in entries[:_MOST_ENTRIES]
    ]
    head = ("Entry", "a", "b", "Matters", "Why, and what helps")
    table = make_table(head, rows, "wide")
    return join(table, make_more(len(entries) - _MOST_ENTRIES))


def _distances(comparison: Comparison, grid: Grid) -> Html | None:
    if comparison.equal or not comparison.agreements:
        return None
    found = find_decisive(comparison)
    return make_section(
        "Distance of each layer",
        draw_chart(grid, None if found is None else found.epoch)
        or element(
            "p", "No norms that differ were recorded, so none is drawn."
        ),
        quiet="relative difference of the norms, on a log scale",
    )


# --- the parts of groups -------------------------------------------------


def _groups_banner(groups: RunGroups, heading: str) -> Html:
    kind, mark = ("equal", "=") if groups.agree else ("different", "≠")
    return make_verdict(kind, mark, heading, say_groups_verdict(groups))


def _groups_table(groups: RunGroups, most: int) -> Html:
    members = [
        (number, index)
        for number, group in enumerate(groups.groups, 1)
        for index in group
    ]
    rows = []
    for number, index in members[:most]:
        run = groups.runs[index]
        facts = dict(describe_run(run))
        labels = ("Name", "Seed", "Recorded", "Ended", "Last checksum", "File")
        rows.append(
            (
                element("th", f"group {number}", scope="row"),
                element("td", f"#{index + 1} {facts['Run'][:8]}"),
                *(element("td", facts[label]) for label in labels),
            )
        )
    head = ("Group", "Run", "Name", "Seed", "Recorded", "Ended")
    table = make_table((*head, "Last checksum", "File"), rows, "wide")
    return join(table, make_more(len(members) - most))


def _groups_sections(groups: RunGroups, most: int) -> Iterator[Html | None]:
    """Each group after the first against the first."""
    for number, one in enumerate(groups.comparisons[:most], 2):
        names = f"{_name(one.b)} (b) against {_name(one.a)} (a)"
        yield make_section(
            f"Group {number} against group 1",
            _banner(one, "p"),
            make_list(list_steps(one)),
            make_folded(
                "First mismatch and environments",
                _mismatches(one, _FEW_VARIABLES),
                _environment(one),
                _notes(one),
            ),
            quiet=names,
        )
    yield make_more(len(groups.comparisons) - most)


MOST_EPOCHS = 100
MOST_PARTS = 240

_DENSE_FROM = 14  # More than these get a column of one sign.
_KEY = (
    ("e", "= equal"),
    ("w", "≈ within tolerance"),
    ("d1", "≠ different, below 1e-6"),
    ("d2", "≠ below 1e-3"),
    ("d3", "≠ farther, or not measured"),
)


def choose_grid(
    comparison: Comparison, most_epochs: int, most_parts: int
) -> Grid:
    """What to show of the agreements of two runs."""
    grid = arrange(comparison.agreements)
    epochs = list(grid.epochs)
    marked = [
        one.epoch
        for one in (comparison.first_mismatch, comparison.first_beyond)
        if one is not None
    ]
    keep = [epochs.index(one) for one in marked if one in epochs]
    first = grid.find_first()
    if first is not None:
        keep.append(first)
    grid = grid.select(thin_out(len(epochs), keep, most_epochs))
    ordered = sorted(grid.parts, key=lambda part: not grid.differs(part))
    kept = set(ordered[:most_parts])
    return grid.keep(part for part in grid.parts if part in kept)


def write_grid(comparison: Comparison, grid: Grid) -> Html | None:
    """The table of epoch by layer."""
    if not comparison.agreements:
        return None
    key = [element("span", text, class_=kind) for kind, text in _KEY]
    return element(
        "section",
        element("h2", "Epoch by layer"),
        _say_left_out(comparison, grid),
        element("p", *(join(one, " ") for one in key), class_="key quiet"),
        NEWLINE,
        element(
            "div",
            _table(grid, comparison),
            class_="scroll tall",
            tabindex=0,
            role="region",
            aria_label="Epoch by layer",
        ),
        NEWLINE,
    )


def _say_left_out(comparison: Comparison, grid: Grid) -> Html | None:
    num_epochs = len({one.epoch for one in comparison.agreements})
    num_parts = len({one.part for one in comparison.agreements})
    texts = []
    if len(grid.epochs) < num_epochs:
        texts.append(
            f"Shown are {len(grid.epochs)} of {num_epochs} moments, evenly "
            "chosen, with the first mismatch and its neighbours."
        )
    if len(grid.parts) < num_parts:
        texts.append(
            f"Shown are {len(grid.parts)} of {num_parts} parts, those that "
            "differ before those that are equal."
        )
    return element("p", " ".join(texts), class_="quiet") if texts else None


def _table(grid: Grid, comparison: Comparison) -> Html:
    is_dense = len(grid.parts) > _DENSE_FROM
    found = find_decisive(comparison)
    head = [element("th", name_role(part), scope="col") for part in grid.parts]
    rows = []
    for epoch in grid.epochs:
        is_first = found is not None and epoch == found.epoch
        name = "start" if epoch is None else str(epoch + 1)
        cells = [
            _cell(grid.cells.get((epoch, part)), is_dense=is_dense)
            for part in grid.parts
        ]
        title = element(
            "th", name + " ◂ first mismatch" * is_first, scope="row"
        )
        kind = "first" if is_first else None
        rows.append(join(element("tr", title, cells, class_=kind), NEWLINE))
    return element(
        "table",
        element(
            "thead", element("tr", element("th", "Epoch", scope="col"), head)
        ),
        NEWLINE,
        element("tbody", rows),
        class_="grid dense" if is_dense else "grid",
    )


def _cell(one: Agreement | None, *, is_dense: bool) -> Html:
    """A sign and a distance; in a dense table the distance is a tooltip."""
    if one is None:
        return Html("<td></td>")
    if one.status == EQUAL:
        return Html("<td class=e>=</td>")
    within = one.status == WITHIN
    mark, kind = ("≈", "w") if within else ("≠", _shade(one.distance))
    size = say_distance(one.distance)
    if is_dense:
        return Html(f'<td class={kind} title="{size}">{mark}</td>')
    text = mark if one.distance is None else f"{mark} {size}"
    return Html(f"<td class={kind}>{text}</td>")


def _shade(distance: float | None) -> str:
    """Three shades of different; farther is darker."""
    if distance is None or not math.isfinite(distance) or distance >= 1e-3:
        return "d3"
    return "d2" if distance >= 1e-6 else "d1"
