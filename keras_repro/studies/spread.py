"""What of a spread of scores comes from where: the parts of its variance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_repro.common.json import to_plain
from keras_repro.common.text import clean
from keras_repro.studies.results import TrialResults, find_metric, find_places
from keras_repro.studies.scores import (
    Interval,
    Scores,
    check_confidence_level,
    compute_mean,
    compute_std,
    find_bound,
    find_resolution,
    find_scale,
)

ALL, REST = "all", "rest"
SOURCES = ("initial", "order", "random")
# A slope has an interval from three on.
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class SpreadPart:
    """A part of the variance of scores.

    Args:
        source: What the seed moves there, as `vary` has it: `"initial"`,
            `"order"` or `"random"`; `"rest"` for what these do only together.
        share: The share of the variance, from 0 to 1; NaN if no score moves.
        interval: Where that share lies under other seeds.
        std: The standard deviation where the seed moves this alone; NaN for
            the rest.
    """

    source: str
    share: float
    interval: Interval
    std: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialSpread:
    """Which part of the spread of a score comes from where.

    Args:
        studies: By what the seeds moved: `"all"`, `"initial"`, `"order"` and
            `"random"`, of the same seeds.
        metric: The name of the score.
        num_seeds: Of how many seeds all four scores are finite.
        std: The standard deviation where the seed moves everything.
        parts: The three sources, then the rest.
        confidence_level: That of each interval.
    """

    studies: Mapping[str, TrialResults]
    metric: str
    num_seeds: int
    std: float
    parts: tuple[SpreadPart, ...]
    confidence_level: float

    def __getitem__(self, source: str) -> SpreadPart:
        for one in self.parts:
            if one.source == source:
                return one
        raise KeyError(source)

    @property
    def verdict(self) -> str:
        """What can be said, in one sentence."""
        from keras_repro.studies.wording import say_spread

        return say_spread(self)

    def plot(self) -> Any:
        """Draw the scores of each study, and beside them the shares.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        from keras_repro.studies.plots import plot_spread

        return plot_spread(self)

    def to_json(self) -> dict[str, Any]:
        """The parts as plain values that strict JSON can hold."""
        return {
            "metric": self.metric,
            "num_seeds": self.num_seeds,
            "std": to_plain(self.std),
            "verdict": self.verdict,
            "confidence_level": self.confidence_level,
            "parts": to_plain(self.parts),
        }

    def __str__(self) -> str:
        """What a terminal shows: the verdict first."""
        from keras_repro.studies.text import write_spread_text

        return write_spread_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from keras_repro.studies.page import write_spread_fragment

        return write_spread_fragment(self)


def find_spread(
    studies: Mapping[str, TrialResults],
    metric: str | None = None,
    *,
    confidence_level: float = 0.95,
) -> TrialSpread:
    """Split the variance of a score by what the seed moves.

    Two studies share with each seed what both of them move by it, and nothing
    else. So the covariance of the scores where the seed moves everything with
    those where it moves one part is the variance that this part gives alone,
    whatever the others do; over the variance of the former it is the slope of
    a straight line through the pairs.

    Args:
        studies: By what the seeds moved: `"all"`, `"initial"`, `"order"` and
            `"random"`, of the same seeds.
        metric: The name of the score; `None` for the first one.
        confidence_level: Of each interval, strictly between 0 and 1.

    Raises:
        ValueError: If a study is missing, has other seeds or varied something
            else, or if fewer than three seeds have finite scores.

    Scope:
        Intervals cover as often as they say, or more often, for scores that
        are distributed normally; docs/trials.md has the figures for others.
        Where two sources act only together, what the line
        gives a source depends on the one seed at which the others stand.

    References:
        Sobol', Sensitivity estimates for nonlinear mathematical models,
        Mathematical Modelling and Computational Experiments 1(4), 1993,
        407-414: the pairs. MacKinnon and White, Journal of Econometrics
        29(3), 1985, 305-325: HC3, the error of a slope whose scatter varies.
    """
    level = check_confidence_level(confidence_level)
    _check_studies(studies)
    whole = studies[ALL]
    name = find_metric(whole, metric)
    scores = {}
    for source in (ALL, *SOURCES):
        one = studies[source]
        values = one.scores[find_metric(one, name)]
        scores[source] = values[find_places(one, whole.seeds)]
    finite = np.all([np.isfinite(one) for one in scores.values()], axis=0)
    if np.count_nonzero(finite) < _FEWEST:
        raise ValueError(
            f"At least {_FEWEST} seeds must have a finite `{clean(name)}` in "
            f"all four studies. Received: {np.count_nonzero(finite)} of "
            f"{len(finite)}. Run more seeds."
        )
    scale = find_scale(*(one[finite] for one in scores.values()))
    kept = {source: one[finite] / scale for source, one in scores.items()}
    rest = kept[ALL] - sum(kept[source] for source in SOURCES)
    step = find_resolution(np.concatenate(list(kept.values())))
    return TrialSpread(
        studies=studies,
        metric=name,
        num_seeds=int(np.count_nonzero(finite)),
        std=compute_std(kept[ALL]) * scale,
        parts=tuple(
            _measure(
                source,
                kept[ALL],
                rest if source == REST else kept[source],
                math.nan
                if source == REST
                else compute_std(kept[source]) * scale,
                level,
                step,
            )
            for source in (*SOURCES, REST)
        ),
        confidence_level=level,
    )


def _check_studies(studies: Mapping[str, TrialResults]) -> None:
    for source in (ALL, *SOURCES):
        one = studies.get(source)
        if one is None or one.vary != source:
            raise ValueError(
                "`studies` must hold one that varied each of 'all', 'initial', "
                f"'order' and 'random', by these names. Received: "
                f"{'none' if one is None else repr(clean(one.vary))} for "
                f"{source!r}. Run it with that `vary`."
            )
        if set(one.seeds) != set(studies[ALL].seeds):
            raise ValueError(
                "All four `studies` must have the same seeds. Received: others "
                f"in {source!r}. Run what is missing."
            )


def _measure(
    source: str,
    whole: Scores,
    part: Scores,
    std: float,
    level: float,
    step: float,
) -> SpreadPart:
    """The slope of a part on the whole, with its interval."""
    x, y = whole - compute_mean(whole), part - compute_mean(part)
    squares = float(x @ x)
    if not squares:
        nothing = Interval(math.nan, math.nan, level)
        return SpreadPart(
            source=source, share=math.nan, interval=nothing, std=std
        )
    slope = float(x @ y) / squares
    off = y - slope * x
    size = len(x)
    # Rounded scores may be off by half a step, as in `compare_paired`.
    scatter = float(off @ off) / (size - 2) + step**2 / 6
    plain = math.sqrt(scatter / squares)
    # How far the line moves without each of the pairs.
    leverage = np.minimum(1 / size + x * x / squares, 1 - 1e-9)
    robust = float(np.linalg.norm(x * off / (1 - leverage))) / squares
    half = find_bound(size - 1, level, watched=False) * max(plain, robust)
    low, high, share = np.clip([slope - half, slope + half, slope], 0, 1)
    return SpreadPart(
        source=source,
        share=float(share),
        interval=Interval(float(low), float(high), level),
        std=std,
    )
