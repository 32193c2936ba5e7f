"""Scores as strips of dots: what is drawn, and where it lies.

A strip is a set of scores with their mean and its interval. Nothing here is
random: equal scores give equal pictures.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from keras_repro.studies.scores import Scores, compute_mean, t_interval

if TYPE_CHECKING:
    from keras_repro.studies.comparison import TrialComparison
    from keras_repro.studies.results import TrialSummary
    from keras_repro.studies.spread import TrialSpread


MOST_DOTS = 2000

_NUM_LANES = 70
_LARGEST_RATIO = 100
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Strip:
    """One set of scores, as it is drawn."""

    name: str
    seeds: Sequence[int]
    scores: Scores  # Finite ones, shape `(num_scores,)`.
    center: float  # Their mean.
    low: float  # The lower bound of its interval; NaN if there is none.
    high: float
    median: float | None = None  # `None` if it is not to be drawn.
    color: int | None = 0  # The number of a colour; `None` for grey.
    settled: bool = True  # Whether the interval settles a difference.


# --- what is drawn -------------------------------------------------------


def make_summary_strip(summary: TrialSummary, metric: str) -> Strip | None:
    """The scores of a study; `None` if none of them is finite."""
    found, results = summary[metric], summary.results
    seeds, scores = _keep_finite(results.seeds, results.scores[metric])
    if not len(scores):
        return None
    interval = found.interval
    return Strip(
        name=metric,
        seeds=seeds,
        scores=scores,
        center=found.mean,
        low=math.nan if interval is None else interval.low,
        high=math.nan if interval is None else interval.high,
        median=found.median,
    )


def make_study_strips(comparisons: Sequence[TrialComparison]) -> list[Strip]:
    """The scores of the baseline and of each study compared with it."""
    first = comparisons[0]
    # Each mean has an interval of its own, at the level that the family has;
    # whether two of these overlap does not decide, the differences do.
    level = first.family_level
    strips = []
    for name, scores, color in (
        (first.name_a, first.scores_a, None),
        *(
            (one.name_b, one.scores_b, number)
            for number, one in enumerate(comparisons)
        ),
    ):
        strips.append(
            _make_strip(
                name,
                first.seeds,
                scores,
                level=level,
                watched=first.watched,
                color=color,
            )
        )
    return strips


def _make_strip(
    name: str,
    seeds: Sequence[int],
    scores: Scores,
    *,
    level: float,
    watched: bool | None,
    color: int | None,
) -> Strip:
    """The finite scores of one study, with their mean and its interval."""
    kept, finite = _keep_finite(seeds, scores)
    interval = t_interval(finite, confidence_level=level, watched=bool(watched))
    return Strip(
        name=name,
        seeds=kept,
        scores=finite,
        center=compute_mean(finite),
        low=interval.low,
        high=interval.high,
        color=color,
    )


def make_difference_strips(
    comparisons: Sequence[TrialComparison],
) -> list[Strip]:
    """The differences of each study to the baseline, seed by seed."""
    strips = []
    for number, one in enumerate(comparisons):
        found = one.statistics
        seeds, gaps = _keep_finite(one.seeds, one.differences)
        strips.append(
            Strip(
                name=one.name_b,
                seeds=seeds,
                scores=gaps,
                center=found.difference,
                low=found.interval.low,
                high=found.interval.high,
                color=number,
                settled=one.settled,
            )
        )
    return strips


def make_spread_strips(spread: TrialSpread) -> list[Strip]:
    """The scores where the seed moves everything, then where one part."""
    return [
        _make_strip(
            vary,
            results.seeds,
            results.scores[spread.metric],
            level=spread.confidence_level,
            watched=results.watched,
            color=number - 1 if number else None,
        )
        for number, (vary, results) in enumerate(spread.studies.items())
    ]


def _keep_finite(
    seeds: Sequence[int], scores: Scores
) -> tuple[list[int], Scores]:
    places = np.flatnonzero(np.isfinite(scores))
    return [seeds[place] for place in places.tolist()], scores[places]


# --- where it lies -------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """From scores to places between 0 and 1."""

    low: float  # The score at 0, or its logarithm to base 10 if `is_log`.
    high: float  # That at 1.
    is_log: bool = False

    def place(self, scores: npt.ArrayLike) -> Scores:
        """Where scores lie; those outside the scale lie at its ends."""
        values = np.asarray(scores, np.float64)
        if self.is_log:
            values = np.log10(np.maximum(values, 10.0 ** (self.low - 1)))
        # Halved, for otherwise the widest ranges would overflow.
        size = self.high / 2 - self.low / 2
        result: Scores = np.clip((values / 2 - self.low / 2) / size, 0, 1)
        return result


def choose_scale(strips: Iterable[Strip]) -> Scale:
    """A scale on which all strips lie."""
    found = list(strips)
    scores = np.concatenate([one.scores for one in found])
    low, high = float(scores.min()), float(scores.max())
    if low > 0 and high / low > _LARGEST_RATIO:
        low, high = math.log10(low), math.log10(high)
        margin = 0.05 * (high - low)
        return Scale(low - margin, high + margin, is_log=True)
    ends = [end for one in found for end in (one.low, one.high)]
    ends = [*filter(math.isfinite, ends)]
    low, high = min(low, *ends, high), max(high, *ends, low)
    largest = max(abs(low), abs(high))
    margin = 0.05 * (high - low) if high > low else 0.1 * largest or 0.5
    # Scores that hardly differ would show nothing but rounding.
    margin = max(margin, 1e-12 * largest, 1e-300)
    most = sys.float_info.max
    return Scale(max(low - margin, -most), min(high + margin, most))


def thin_out(scores: Scores, most: int = MOST_DOTS) -> npt.NDArray[np.intp]:
    """The positions of some scores, evenly by rank, in rising order."""
    order = np.argsort(scores, kind="stable")
    if len(order) <= most:
        return order
    chosen = np.linspace(0, len(order) - 1, most)
    result: npt.NDArray[np.intp] = order[np.round(chosen).astype(np.intp)]
    return result


def spread_dots(places: Scores, num_lanes: int = _NUM_LANES) -> Scores:
    """How far beside the middle each dot lies, so that few cover others."""
    lanes = np.minimum((places * num_lanes).astype(np.intp), num_lanes - 1)
    _, starts, counts = np.unique(lanes, return_index=True, return_counts=True)
    first, size = np.repeat(starts, counts), np.repeat(counts, counts)
    numbers = np.arange(len(lanes))
    # Multiples of the golden ratio: neighbours lie far apart, without stripes.
    shuffled = np.lexsort(((numbers - first) * _GOLDEN % 1.0, lanes))
    ranks = np.empty(len(lanes), np.intp)
    ranks[shuffled] = numbers - first
    result: Scores = ranks - (size - 1) / 2
    return result
