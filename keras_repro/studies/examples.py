"""Seeds crossed with test examples: both are a matter of chance."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.common.text import clean, describe
from keras_repro.studies.scores import (
    Interval,
    PairedStatistics,
    Scores,
    find_bound_of_tail,
    find_scale,
    find_smallest,
)

# Steps of a search that halves: as many as a float has bits, and some.
_HALVINGS = 80


@dataclass(frozen=True, kw_only=True)
class ExampleStatistics:
    """What of a difference is the chance of the test examples."""

    num_examples: int
    num_groups: int  # As many as examples if they make none.
    error: float  # The standard error that their choice gives the difference.
    # Where the difference lies under other seeds alone, on these examples.
    seeds_interval: Interval
    width_share: float  # Their share of the width of the whole interval.


def cross_examples(
    gaps: Scores,
    places: npt.NDArray[np.intp],
    found: PairedStatistics,
    *,
    watched: bool,
) -> tuple[PairedStatistics, ExampleStatistics]:
    """Widen what seeds say of a difference by the chance of the examples."""
    # Shapes: `gaps` is `(num_pairs, num_examples)`, `places` `(num_examples,)`.
    # Both half widths are added as squares, near Cochran's way to combine two
    # errors with freedoms of their own, Biometrics 20(1), 1964, 191-195, of
    # variances of a crossed design, as in Searle, Casella and McCulloch,
    # Variance Components, 1992, ch. 4.
    level = found.interval.confidence_level
    groups = int(places.max()) + 1
    error = _find_error(gaps, places)
    size = found.num_pairs
    seeds_error = found.spread / math.sqrt(size)

    def reach(tail: float) -> float:
        return _reach(size, groups, (seeds_error, error), tail, watched)

    half = reach(1 - level)
    alone = found.interval.half_width
    center = found.difference
    crossed = replace(
        found,
        interval=Interval(center - half, center + half, level),
        t_p=_find_tail(abs(center), reach),
        wilcoxon_p=math.nan,
    )
    return crossed, ExampleStatistics(
        num_examples=gaps.shape[1],
        num_groups=groups,
        error=error,
        seeds_interval=found.interval,
        width_share=1 - alone / half if 0 < half < math.inf else math.nan,
    )


def _reach(
    size: int,
    num_groups: int,
    errors: tuple[float, float],
    tail: float,
    watched: bool,
) -> float:
    """Half of an interval of seeds and examples, by what lies outside."""
    # Of a watched study the examples are drawn once and the seeds again and
    # again: each gets half of the tail, and both are added as they are.
    each = tail / 2 if watched else tail
    bound = find_bound_of_tail(size, each, watched)
    theirs = find_bound_of_tail(num_groups, each, watched=False)
    if math.isinf(bound):
        return math.inf
    parts = bound * errors[0], theirs * errors[1]
    return sum(parts) if watched else math.hypot(*parts)


def _find_tail(distance: float, reach: Any) -> float:
    """The smallest p of which the interval does not reach so far."""
    if not distance:
        return 1.0
    low, high = -700.0, 0.0  # Its logarithm.
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if reach(math.exp(middle)) < distance:
            high = middle
        else:
            low = middle
    return math.exp(high)


def _find_error(gaps: Scores, places: npt.NDArray[np.intp]) -> float:
    """The standard error of the mean by the choice of the groups alone."""
    scale = find_scale(gaps)
    unit = gaps / scale
    sizes = np.bincount(places)
    weights = sizes / sizes.sum()
    sums = np.zeros((len(sizes), len(unit)))
    np.add.at(sums, places, unit.T)
    means = sums.T / sizes
    rows, columns = means @ weights, means.mean(axis=0)
    center = float(columns @ weights)
    number, size = means.shape[1], len(means)
    between = float(np.sum((weights * (columns - center)) ** 2))
    off = means - rows[:, None] - columns + center
    within = float(np.sum((weights * off) ** 2)) / (size * (size - 1))
    # That of the means of the groups, less what of it is the seeds'.
    variance = (between - within) * number / (number - 1)
    return math.sqrt(max(variance, 0.0)) * scale


def number_groups(groups: Any, num_examples: int) -> npt.NDArray[np.intp]:
    """The number of each example's group; its own where there are none."""
    if groups is None:
        return np.arange(num_examples)
    try:
        labels = np.asarray(groups)
        known = labels.dtype.kind in "biufUS"
    except Exception:  # noqa: BLE001 - arrays of others raise what they like
        known = False
    if not known:
        raise TypeError(
            "`groups` must hold a number or a word for each test example. "
            f"Received: {describe(groups, typed=True)}. Pass an array, such as "
            "the engine that each row belongs to."
        )
    if labels.shape != (num_examples,):
        raise ValueError(
            f"`groups` must hold one label for each of {num_examples} test "
            f"examples. Received: labels of shape {labels.shape}. Pass those "
            "of the examples whose losses `train` returns."
        )
    _, places = np.unique(labels, return_inverse=True)
    if places.max() < 1:
        raise ValueError(
            "`groups` must hold at least two different labels. Received: "
            f"{clean(repr(labels[0].item()), 60)} for all. Leave it out where "
            "each example stands for itself."
        )
    return places.reshape(-1).astype(np.intp)


def count_seeds(
    found: PairedStatistics,
    examples: ExampleStatistics,
    distances: Collection[float],
    power: float,
    *,
    watched: bool,
) -> int | None:
    """About how many seeds would show all of some distances from 0 at once."""
    from scipy.special import ndtr

    tail = 1 - found.interval.confidence_level

    def suffices(size: int) -> bool:
        errors = found.spread / math.sqrt(size), examples.error
        half = _reach(size, examples.num_groups, errors, tail, watched)
        error = max(math.hypot(*errors), sys.float_info.min)
        shown = [float(ndtr((one - half) / error)) for one in distances]
        return 1 - sum(1 - one for one in shown) >= power

    return find_smallest(suffices)
