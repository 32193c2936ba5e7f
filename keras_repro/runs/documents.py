"""What comparisons of runs say of themselves, as documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keras_repro.common.text import clean, count_of, say_more, shorten
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
    cut,
)
from keras_repro.runs.matrix import make_matrix
from keras_repro.runs.plots import can_draw, picture_comparison
from keras_repro.runs.wording import (
    WEIGHTS,
    describe_run,
    list_facts,
    list_mismatches,
    list_steps,
    name_role,
    name_run,
    outline_run,
    say_environment,
    say_groups_verdict,
    say_identity,
    say_size,
    say_verdict,
    split_environment,
)

if TYPE_CHECKING:
    from keras_repro.environment.differences import EnvironmentDifference
    from keras_repro.runs.comparison import Comparison, RunGroups
    from keras_repro.runs.environments import EnvironmentComparison
    from keras_repro.runs.mismatch import VariableDifference


_ENVIRONMENTS = (
    "Written by keras-repro. What was recorded of two environments was "
    "compared, and nothing else."
)
_FOOTER = (
    "Written by keras-repro. Epochs and batches are counted from 1. What the "
    "runs recorded was compared, and nothing else."
)
_FEW_VARIABLES, _MOST_VARIABLES = 5, 60
_FEW_ENTRIES, _MOST_ENTRIES = 6, 200
_FEW_RUNS, _MOST_RUNS = 20, 500
_FEW_GROUPS, _MOST_GROUPS = 5, 20
_LONGEST = 300


# --- two runs ----------------------------------------------------------------


def describe_comparison(comparison: Comparison) -> Document:
    """Two runs, the first mismatch, and what there is besides."""
    verdict = _judge(comparison)
    runs = (
        f"a: {outline_run(comparison.a)}",
        f"b: {outline_run(comparison.b)}",
        *say_identity(comparison),
    )
    parts: list[Part] = [verdict, Sentences(runs, hang=len("a: "))]
    parts += [*_list_sections(comparison), *_picture_layers(comparison)]
    names = ", ".join(
        f"{label}: {name_run(run)}"
        for label, run in (("a", comparison.a), ("b", comparison.b))
    )
    return Document(
        f"{verdict.sentence} {names}",
        tuple(parts),
        (*_tell_same_environment(comparison), _tell_runs(comparison)),
        _FOOTER,
    )


def _judge(comparison: Comparison) -> Verdict:
    kind, mark = "different", "≠"
    if comparison.agree:
        kind, mark = ("equal", "=") if comparison.equal else ("within", "≈")
    return Verdict(say_verdict(comparison), kind, mark)


def _list_sections(comparison: Comparison) -> Iterator[Section]:
    """The mismatches, the environments, notes and next steps, if any."""
    for heading, mismatch in list_mismatches(comparison):
        facts = Facts(tuple(list_facts(mismatch, comparison)))
        items = [*map(_tell_variable, mismatch.differences)]
        variables = cut(Items, items, _FEW_VARIABLES, _MOST_VARIABLES)
        parts: list[Part] = [facts, *(variables if items else ())]
        moment = clean(mismatch.moment)
        yield Section(heading, tuple(parts), moment, is_named=True)
    if comparison.environment:
        entries = list_entries(
            comparison.environment, tells_why=not comparison.equal
        )
        quiet = say_environment(comparison)
        yield Section("Environments", tuple(entries), quiet, is_named=True)
    notes = [clean(one, _LONGEST) for one in comparison.notes]
    for heading, texts in (("Notes", notes), ("Next", list_steps(comparison))):
        if texts:
            shown = tuple(cut(Sentences, texts, _FEW_RUNS, _MOST_ENTRIES))
            yield Section(heading, shown, is_named=True)


def _tell_variable(difference: VariableDifference) -> Item:
    within = " (within tolerance)" if "within" in difference.status else ""
    name = f"{clean(difference.place)}, {name_role(difference.role)}{within}"
    return Item(name, (say_size(difference),))


def _picture_layers(comparison: Comparison) -> Iterator[Part]:
    """The distances as a picture, and all agreements as cells."""
    if not comparison.agreements:
        return
    if not comparison.equal:
        shown: Part = Note(
            "No norms that differ were recorded, so none is drawn."
        )
        if can_draw(comparison):
            shown = picture_comparison(comparison)
        quiet = "relative difference of the norms, on a log scale"
        yield Section("Distance of each layer", (shown,), quiet)
    yield make_matrix(comparison)


def _tell_same_environment(comparison: Comparison) -> Iterator[Part]:
    if not comparison.environment:
        yield Section("Environments", (), say_environment(comparison))


def _tell_runs(comparison: Comparison) -> Section:
    """All that is known of each run, side by side."""
    a, b = map(describe_run, (comparison.a, comparison.b))
    rows = tuple(
        (label, one, other)
        for (label, one), (_, other) in zip(a, b, strict=True)
    )
    return Section("The two runs", (Table(("", "a", "b"), rows),))


# --- environments ------------------------------------------------------------


def describe_environments(found: EnvironmentComparison) -> Document:
    """Two environments, wherever they were recorded."""
    kind, mark = ("equal", "=") if found.equal else ("neutral", "≠")
    parts: list[Part] = [Verdict(found.headline, kind, mark)]
    if not found.equal:
        entries = tuple(list_entries(found.differences, tells_why=True))
        parts.append(Section("Differences", entries, is_named=True))
    return Document(found.headline, tuple(parts), (), _ENVIRONMENTS)


def list_entries(
    differences: Sequence[EnvironmentDifference], *, tells_why: bool
) -> Iterator[Part]:
    """The entries that may matter; the others behind their number."""
    may, hardly = split_environment(differences)
    if may:
        items = [_tell_entry(one, tells_why=tells_why) for one in may]
        yield from cut(Items, items, _FEW_ENTRIES, _MOST_ENTRIES)
    if hardly:
        items = [_tell_entry(one, tells_why=tells_why) for one in hardly]
        names = shorten((clean(one.key) for one in hardly), 5)
        yield Folded(
            f"Hardly ever matters: {count_of(len(hardly), 'difference')}",
            tuple(cut(Items, items, _MOST_ENTRIES, _MOST_ENTRIES)),
            f"hardly ever matters: {names}",
        )


def _tell_entry(one: EnvironmentDifference, *, tells_why: bool) -> Item:
    a, b = clean(one.a, _LONGEST), clean(one.b, _LONGEST)
    matters = WEIGHTS.get(one.weight, "sometimes")
    name = f"{clean(one.key)}: {a} in a, {b} in b ({matters} matters)"
    why = (clean(one.sentence, _LONGEST),) if tells_why else ()
    return Item(name, why)


# --- groups ------------------------------------------------------------------


def describe_groups(groups: RunGroups) -> Document:
    """Many runs, by what agrees; each group against the first."""
    kind, mark = ("equal", "=") if groups.agree else ("different", "≠")
    verdict = Verdict(say_groups_verdict(groups), kind, mark)
    members = (
        Section(
            f"Group {number} ({count_of(len(group), 'run')})",
            tuple(_list_members(groups, group)),
            is_named=True,
        )
        for number, group in enumerate(groups.groups, 1)
    )
    against = [
        Section(
            f"Group {number} (b) against group 1 (a)",
            tuple(_tell_against(one)),
            is_named=True,
        )
        for number, one in enumerate(groups.comparisons[:_MOST_GROUPS], 2)
    ]
    left_out = len(groups.comparisons) - len(against)
    return Document(
        verdict.sentence,
        (verdict, *members, *_fold_groups(against, left_out)),
        (_table_runs(groups),),
        _FOOTER,
    )


def _list_members(groups: RunGroups, group: Sequence[int]) -> Iterator[Part]:
    items = [
        Item(f"#{index + 1} {outline_run(groups.runs[index])}")
        for index in group
    ]
    return cut(Items, items, _FEW_RUNS, _MOST_RUNS)


def _tell_against(comparison: Comparison) -> Iterator[Part]:
    """What tells a group from the first one."""
    yield _judge(comparison)
    steps = list_steps(comparison)[:1]
    yield Sentences((*say_identity(comparison), *steps))
    a, b = outline_run(comparison.a), outline_run(comparison.b)
    runs = Sentences((f"a: {a}", f"b: {b}"))
    more: list[Part] = [runs, *_list_sections(comparison)]
    yield Folded("First mismatch and environments", tuple(more))


def _fold_groups(against: Sequence[Part], left_out: int) -> Iterator[Part]:
    """The first few groups, and the next ones folded."""
    yield from against[:_FEW_GROUPS]
    rest = list(against[_FEW_GROUPS:])
    if rest:
        more = say_more(len(rest) + left_out)
        if left_out:
            rest.append(Note(say_more(left_out)))
        yield Folded(more, tuple(rest), more)


def _table_runs(groups: RunGroups) -> Section:
    """Each run with what is known of it, group by group."""
    labels = ("Name", "Seed", "Recorded", "Ended", "Last checksum", "File")
    members = [
        (number, index)
        for number, group in enumerate(groups.groups, 1)
        for index in group
    ]
    rows = []
    for number, index in members[:_MOST_RUNS]:
        facts = dict(describe_run(groups.runs[index]))
        name = f"#{index + 1} {facts['Run'][:8]}"
        known = (facts[label] for label in labels)
        rows.append((f"group {number}", name, *known))
    table = Table(("Group", "Run", *labels), tuple(rows))
    more = say_more(len(members) - len(rows))
    parts = (table, Note(more)) if more else (table,)
    return Section("Which agree with which", parts)
