"""Comparisons as people read them: text for a terminal, HTML for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keras_repro.common.text import clean, count_of, list_more, shorten, wrap
from keras_repro.runs.wording import (
    WEIGHTS,
    list_facts,
    list_mismatches,
    list_steps,
    name_role,
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
    from keras_repro.runs.mismatch import Mismatch


_MOST_VARIABLES = 5
_MOST_ENTRIES = 6
_MOST_RUNS = 20
_MOST_GROUPS = 5


def write_text(comparison: Comparison) -> str:
    """A comparison for a terminal: the verdict first."""
    lines = [*wrap(say_verdict(comparison)), ""]
    for label, run in (("a", comparison.a), ("b", comparison.b)):
        lines += wrap(f"{label}: {outline_run(run)}", hang=3)
    for one in say_identity(comparison):
        lines += wrap(f"{one}", hang=3)
    lines += _body(comparison)
    return "\n".join(lines)


def write_groups_text(groups: RunGroups) -> str:
    """Groups of runs for a terminal."""
    lines = wrap(say_groups_verdict(groups))
    for number, group in enumerate(groups.groups, 1):
        lines += [
            "",
            f"Group {number} ({count_of(len(group), 'run')}):",
        ]
        for index in group[:_MOST_RUNS]:
            outline = outline_run(groups.runs[index])
            lines += wrap(f"#{index + 1} {outline}", 2, 3)
        lines += list_more(len(group) - _MOST_RUNS, 2)
    for number, one in enumerate(groups.comparisons[:_MOST_GROUPS], 2):
        lines += ["", f"Group {number} (b) against group 1 (a):"]
        lines += wrap(say_verdict(one), 2)
        for text in (*say_identity(one), *list_steps(one)[:1]):
            lines += wrap(f"- {text}", 2, 2)
    lines += list_more(len(groups.comparisons) - _MOST_GROUPS)
    return "\n".join(lines)


def _body(comparison: Comparison) -> Iterator[str]:
    """All below the runs, each section after an empty line."""
    for heading, mismatch in list_mismatches(comparison):
        yield ""
        yield from wrap(f"{heading}: {clean(mismatch.moment)}")
        yield from _mismatch_lines(mismatch, comparison)
    yield from _environment_lines(comparison)
    for heading, texts in (
        ("Notes", [clean(one, 300) for one in comparison.notes]),
        ("Next", list_steps(comparison)),
    ):
        if texts:
            yield from ("", f"{heading}:")
        for text in texts[:_MOST_RUNS]:
            yield from wrap(f"- {text}", 2, 2)
        yield from list_more(len(texts) - _MOST_RUNS, 2)


def _mismatch_lines(
    mismatch: Mismatch, comparison: Comparison
) -> Iterator[str]:
    for label, text in list_facts(mismatch, comparison):
        yield from wrap(f"{label.lower() + ':':<18}{text}", 2, 18)
    differences = mismatch.differences
    for one in differences[:_MOST_VARIABLES]:
        place, role = clean(one.place), name_role(one.role)
        within = " (within tolerance)" if "within" in one.status else ""
        yield from wrap(f"{place}, {role}{within}", 2, 4)
        yield from wrap(say_size(one), 6)
    yield from list_more(len(differences) - _MOST_VARIABLES, 2)


def _environment_lines(comparison: Comparison) -> Iterator[str]:
    """The environments under their heading, where they differ."""
    found = comparison.environment
    if found:
        yield from ("", f"Environments: {say_environment(comparison)}")
        yield from write_environment(found, tells_why=not comparison.equal)


def write_environment(
    differences: Sequence[EnvironmentDifference], *, tells_why: bool
) -> Iterator[str]:
    """The entries that may matter; the others by name alone."""
    may, hardly = split_environment(differences)
    for one in may[:_MOST_ENTRIES]:
        key, a, b = (clean(v, 60) for v in (one.key, one.a, one.b))
        matters = WEIGHTS.get(one.weight, "sometimes")
        yield from wrap(f"{key}: {a} in a, {b} in b ({matters} matters)", 2, 4)
        if tells_why:
            yield from wrap(clean(one.sentence, 300), 6)
    yield from list_more(len(may) - _MOST_ENTRIES, 2)
    if hardly:
        names = shorten((clean(one.key) for one in hardly), 5)
        yield from wrap(f"hardly ever matters: {names}", 2, 4)
