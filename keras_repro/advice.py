"""What to do next, where two runs differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_repro.phrases import (
    clean,
    find_decisive,
    join_words,
    relate_norms,
    say_tolerance,
)

if TYPE_CHECKING:
    from keras_repro.comparison import Comparison
    from keras_repro.mismatches import Mismatch, VariableDifference

_NAMES = {
    "seed": "seed",
    "model": "model configuration",
    "compile": "compile configuration",
    "data": "data",
    "fit": "arguments of `fit`",
    "continues": "training before it",
}
_HINTS = {
    "initial state": (
        "They begin apart: look at how the start is drawn (seed, initialisers, "
        "loaded weights)."
    ),
    "data": (
        "Other samples were fed, or the same in another order: look at the "
        "pipeline, its shuffle and its seed."
    ),
    "random": (
        "One of them drew other random numbers, or more: look for a random "
        "layer or an augmentation that runs in one alone."
    ),
    "metrics": (
        "The training itself agrees: look at the metrics and at the data "
        "they are computed from."
    ),
}
_HINT_COMPUTED = (
    "The steps were computed otherwise: train both in deterministic mode, "
    "`seed_everything(seed, deterministic=True)`."
)
_HINT_DETERMINISTIC = (
    "The steps were computed otherwise though both ran in deterministic mode: "
    "look for code that changes weights beside the training, such as a "
    "callback."
)


def list_steps(comparison: Comparison) -> list[str]:
    """What to do next; nothing where the runs agree."""
    found = find_decisive(comparison)
    if found is None or comparison.agree:
        return []
    if found.role == "records":
        return ["Record both with the same `every`, from the first epoch on."]
    return [_find_cause(comparison, found), *_look_closer(comparison, found)]


def _find_cause(comparison: Comparison, found: Mismatch) -> str:
    if comparison.identity is not None:
        names = [
            _NAMES.get(place, clean(place))
            for place in comparison.identity.places
        ]
        return (
            f"Give both the same {join_words(names)}: they differ before they "
            "begin."
        )
    likely = [one for one in comparison.environment if one.weight >= 2]
    if likely and found.role not in {"data", "metrics"}:
        first = max(likely, key=lambda one: one.weight)
        return (
            "Make the environments alike and train again, beginning with "
            f"{clean(first.key)}."
        )
    hint = _HINTS.get(found.role)
    if hint is not None:
        return hint
    modes = [
        run.header.environment.get("deterministic")
        for run in (comparison.a, comparison.b)
    ]
    return _HINT_DETERMINISTIC if all(modes) else _HINT_COMPUTED


def _look_closer(comparison: Comparison, found: Mismatch) -> Iterator[str]:
    headers = [comparison.a.header, comparison.b.header]
    if found.epoch is not None and any(one.every != "batch" for one in headers):
        yield 'Record with every="batch" to find the batch.'
    weights = [one for one in found.differences if one.role == "weights"]
    if (
        weights
        and not any(one.exact for one in found.differences)
        and any(one.snapshots is None for one in headers)
    ):
        yield (
            'Keep snapshots="epoch" of both to measure it in units in the '
            "last place."
        )
    rtol = _suggest_rtol(comparison, found)
    if rtol is not None:
        yield f"If rounding is all that may differ, compare with rtol={rtol}."


def _suggest_rtol(comparison: Comparison, found: Mismatch) -> str | None:
    """A tolerance, where all there is looks like rounding."""
    if (
        say_tolerance(comparison)
        or comparison.identity is not None
        or found.epoch is None
        or not {"weights", "optimizer", "metrics"}.issuperset(found.roles)
    ):
        return None
    sizes = [_relative_size(one) for one in found.differences]
    largest = max(sizes, default=math.inf)
    if not largest <= 1e-4:
        return None
    return "1e-5" if largest <= 5e-6 else "1e-3"


def _relative_size(difference: VariableDifference) -> float:
    if difference.exact is not None:
        return difference.exact.largest_relative
    if difference.a is None or difference.b is None:
        return math.inf
    return relate_norms(difference.a, difference.b)
