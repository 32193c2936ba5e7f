"""Comparisons as HTML: a page that needs nothing else, a notebook's output."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from keras_repro import phrases
from keras_repro.advice import list_steps
from keras_repro.charts import draw_chart
from keras_repro.grids import (
    MOST_EPOCHS,
    MOST_PARTS,
    choose_grid,
    write_grid,
)
from keras_repro.markup import NEWLINE, Html, element, join

if TYPE_CHECKING:
    from keras_repro.comparison import Comparison, RunGroups
    from keras_repro.distances import Grid
    from keras_repro.environment_differences import EnvironmentDifference
    from keras_repro.mismatches import Mismatch, VariableDifference
    from keras_repro.runs import Run

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
_FOOTER = (
    "Written by keras-repro. Epochs and batches are counted from 1. What the "
    "runs recorded was compared, and nothing else."
)
_MOST_VARIABLES, _FEW_VARIABLES = 60, 5
_MOST_ENTRIES = 200
_FEW_EPOCHS, _FEW_PARTS = 30, 40
_MOST_RUNS, _FEW_RUNS = 500, 20
_MOST_GROUPS, _FEW_GROUPS = 20, 3
_DOTS = {3: "●●●", 2: "●●○", 1: "●○○", 0: "○○○"}


def write_comparison_page(comparison: Comparison) -> str:
    """A comparison as a page of its own."""
    verdict = phrases.say_verdict(comparison)
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
    """A comparison as a part of another page."""
    grid = choose_grid(comparison, _FEW_EPOCHS, _FEW_PARTS)
    runs = f"a: {phrases.outline_run(comparison.a)}"
    other = f"b: {phrases.outline_run(comparison.b)}"
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
    verdict = phrases.say_groups_verdict(groups)
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


# --- around the parts ----------------------------------------------------


@functools.cache
def _style() -> Html:
    """The style sheet, which holds nothing of a run."""
    sheet = resources.files("keras_repro").joinpath("report.css")
    return Html(f"<style>\n{sheet.read_text('utf-8')}</style>")


def make_page(title: str, *parts: Html | None, footer: str = _FOOTER) -> str:
    """Parts as a page of its own, with the style sheet and a last line."""
    metas = (
        {"charset": "utf-8"},
        {"http_equiv": "Content-Security-Policy", "content": _POLICY},
        {"name": "referrer", "content": "no-referrer"},
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
        {"name": "color-scheme", "content": "light dark"},
    )
    head = element(
        "head",
        *(join(NEWLINE, element("meta", **meta)) for meta in metas),
        NEWLINE,
        element("title", title),
        NEWLINE,
        _style(),
    )
    last = element("footer", footer, class_="quiet")
    main = element("main", _lines([*parts, last]))
    body = element("body", NEWLINE, main, NEWLINE, class_="keras-repro")
    document = element("html", NEWLINE, head, NEWLINE, body, NEWLINE, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def write_fragment(*parts: Html | None) -> str:
    """Parts as one element for a notebook, with the style sheet."""
    return element(
        "div", NEWLINE, _style(), _lines(parts), class_="keras-repro fragment"
    )


def _lines(parts: Iterable[Html | None]) -> Html:
    """Parts with a line break after each, so that the source can be read."""
    return join(
        NEWLINE, *(join(one, NEWLINE) for one in parts if one is not None)
    )


def make_section(heading: str, *parts: Html | None, quiet: str = "") -> Html:
    """A heading, with more beside it in small, and its parts."""
    more = element("span", f" {quiet}", class_="quiet") if quiet else None
    title = element("h2", heading, more)
    return element("section", title, _lines(parts))


def make_folded(summary: str, *parts: Html | None) -> Html:
    """Parts that show when their summary is clicked on."""
    return element("details", element("summary", summary), _lines(parts))


def make_table(
    head: Sequence[str], rows: Iterable[Iterable[Html]], kind: str
) -> Html:
    """A table that scrolls sideways where it is too wide."""
    titles = [element("th", one, scope="col") for one in head]
    body = [join(element("tr", *row), NEWLINE) for row in rows]
    table = element(
        "table",
        element("thead", element("tr", titles)),
        NEWLINE,
        element("tbody", body),
        class_=kind,
    )
    return element("div", table, class_="scroll", tabindex=0)


def make_list(texts: Iterable[str]) -> Html:
    """A list of sentences."""
    return element("ul", [element("li", one) for one in texts])


# --- the parts of a comparison -------------------------------------------


def _banner(comparison: Comparison, heading: str) -> Html:
    kind, mark = "different", "≠"
    if comparison.agree:
        kind, mark = ("equal", "=") if comparison.equal else ("within", "≈")
    return make_verdict(
        kind,
        mark,
        heading,
        phrases.say_verdict(comparison),
        phrases.say_identity(comparison),
    )


def make_verdict(
    kind: str, mark: str, heading: str, text: str, more: Iterable[str] = ()
) -> Html:
    """The box on top: a mark, a sentence, and what it adds."""
    title = element(
        heading, text, class_="headline" if heading == "p" else None
    )
    return element(
        "div",
        element("span", mark, class_="mark", aria_hidden="true"),
        element("div", title, [element("p", one) for one in more]),
        class_=f"verdict {kind}",
    )


def _name(run: Run) -> str:
    return phrases.clean(run.header.name or run.run_id[:8], 40)


def _steps(comparison: Comparison) -> Html | None:
    steps = list_steps(comparison)
    return make_section("What to do next", make_list(steps)) if steps else None


def _notes(comparison: Comparison) -> Html | None:
    if not comparison.notes:
        return None
    return make_section("Notes", make_list(comparison.notes[:_MOST_ENTRIES]))


def _runs_table(comparison: Comparison) -> Html:
    a, b = map(phrases.describe_run, (comparison.a, comparison.b))
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
        for heading, mismatch in phrases.list_mismatches(comparison)
    ]
    return _lines(sections) if sections else None


def _facts(mismatch: Mismatch, comparison: Comparison) -> Html:
    rows = [
        element(
            "tr",
            element("th", label, scope="row"),
            element("td", text),
        )
        for label, text in phrases.list_facts(mismatch, comparison)
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
            element("td", phrases.name_role(one.role)),
            element(
                "td", "≈ within" if "within" in one.status else "≠ different"
            ),
            element("td", phrases.say_size(one)),
        )
        for one in differences[:most]
    ]
    head = ("Variable", "Role", "Agreement", "How far apart")
    return join(
        make_table(head, rows, "wide"), say_more(len(differences) - most)
    )


def _environment(
    comparison: Comparison, *, only_likely: bool = False
) -> Html | None:
    may, hardly = phrases.split_environment(comparison)
    if only_likely and not may:
        return None
    rare = None
    if hardly and not only_likely:
        number = phrases.count_of(len(hardly), "difference")
        rare = make_folded(f"Hardly ever matters: {number}", _entries(hardly))
    return make_section(
        "Environments",
        _entries(may) if may else None,
        rare,
        quiet=phrases.say_environment(comparison),
    )


def _entries(entries: Sequence[EnvironmentDifference]) -> Html:
    rows = [
        (
            element("th", element("code", one.key), scope="row"),
            element("td", element("code", phrases.clean(one.a, 300))),
            element("td", element("code", phrases.clean(one.b, 300))),
            element(
                "td",
                element("b", _DOTS.get(one.weight, "●○○"), aria_hidden="true"),
                f" {phrases.WEIGHTS.get(one.weight, 'sometimes')}",
                class_="weight",
            ),
            element("td", one.sentence),
        )
        for one in entries[:_MOST_ENTRIES]
    ]
    head = ("Entry", "a", "b", "Matters", "Why, and what helps")
    table = make_table(head, rows, "wide")
    return join(table, say_more(len(entries) - _MOST_ENTRIES))


def _distances(comparison: Comparison, grid: Grid) -> Html | None:
    if comparison.equal or not comparison.agreements:
        return None
    found = phrases.find_decisive(comparison)
    return make_section(
        "Distance of each layer",
        draw_chart(grid, None if found is None else found.epoch)
        or element(
            "p", "No norms that differ were recorded, so none is drawn."
        ),
        quiet="relative difference of the norms, on a log scale",
    )


def say_more(number: int) -> Html | None:
    """How many were left out, if any were."""
    if number <= 0:
        return None
    return element("p", f"and {number} more", class_="quiet")


# --- the parts of groups -------------------------------------------------


def _groups_banner(groups: RunGroups, heading: str) -> Html:
    kind, mark = ("equal", "=") if groups.agree else ("different", "≠")
    return make_verdict(kind, mark, heading, phrases.say_groups_verdict(groups))


def _groups_table(groups: RunGroups, most: int) -> Html:
    members = [
        (number, index)
        for number, group in enumerate(groups.groups, 1)
        for index in group
    ]
    rows = []
    for number, index in members[:most]:
        run = groups.runs[index]
        facts = dict(phrases.describe_run(run))
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
    return join(table, say_more(len(members) - most))


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
    yield say_more(len(groups.comparisons) - most)
