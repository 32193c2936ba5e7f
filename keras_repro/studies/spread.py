"""What of a spread of scores comes from where: the parts of its variance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_repro.common.json import to_plain
from keras_repro.common.text import clean
from keras_repro.reports.document import Document
from keras_repro.reports.result import Result
from keras_repro.studies.documents import describe_spread
from keras_repro.studies.results import TrialResults, find_metric
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
from keras_repro.studies.wording import say_seeds, say_spread

ALL, REST = "all", "rest"
SOURCES = ("initial", "order", "random")
# A slope has an interval from three on.
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class SpreadPart:
    """A part of the variance of scores."""

    # What the seed moves there, as `vary` has it: `initial`, `order` or
    # `random`; `rest` for what these do only together.
    source: str
    # The share of the variance; NaN if no score moves. All four add up to 1, so
    # that of few seeds one may come out below 0 or above 1.
    share: float
    interval: Interval  # Of that share under other seeds, from 0 to 1.
    std: float  # Where the seed moves this alone; NaN for the rest.


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialSpread(Result):
    """Which part of the spread of a score comes from where.

    Args:
        studies: By what the seeds moved: `"all"`, `"initial"`, `"order"` and
            `"random"`.
        metric: The name of the score.
        num_seeds: Of how many seeds all four scores are finite.
        left_out: The seeds of which one of the four failed, or gave a score
            that is not finite.
        std: The standard deviation where the seed moves everything.
        parts: The three sources, then the rest.
        confidence_level: That of each interval.
    """

    studies: Mapping[str, TrialResults]
    metric: str
    num_seeds: int
    left_out: tuple[int, ...]
    std: float
    parts: tuple[SpreadPart, ...]
    confidence_level: float

    def __getitem__(self, source: str) -> SpreadPart:
        for one in self.parts:
            if one.source == source:
                return one
        raise KeyError(source)

    @property
    def watched(self) -> bool | None:
        """Whether one of the studies was; `None` if that is not known.

        The intervals hold for a number of seeds that was fixed beforehand.
        """
        known = [self.studies[one].watched for one in (ALL, *SOURCES)]
        if any(known):
            return True
        return None if None in known else False

    @property
    def verdict(self) -> str:
        """What can be said, in one sentence."""
        return say_spread(self)

    def describe(self) -> Document:
        """The verdict, a row for each part, and for what both hold."""
        return describe_spread(self)

    def _list_values(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "num_seeds": self.num_seeds,
            "num_left_out": len(self.left_out),
            "left_out": list(self.left_out),
            "watched": self.watched,
            "interval_holds": "for a number of seeds fixed beforehand",
            "std": to_plain(self.std),
            "verdict": self.verdict,
            "confidence_level": self.confidence_level,
            "parts": to_plain(self.parts),
        }


# Two studies share with each seed what both of them move by it, and nothing
# else. So the covariance of the scores where the seed moves everything with
# those where it moves one part is the variance that this part gives alone,
# whatever the others do (Sobol', Sensitivity estimates for nonlinear
# mathematical models, Mathematical Modelling and Computational Experiments
# 1(4), 1993, 407-414); over the variance of the former it is the slope of a
# straight line through the pairs. Its error is HC3, for a scatter that varies
# (MacKinnon and White, Journal of Econometrics 29(3), 1985, 305-325). Where two
# sources act only together, what the line gives a source depends on the one
# seed at which the others stand.
def find_spread(
    studies: Mapping[str, TrialResults],
    metric: str | None = None,
    *,
    confidence_level: float = 0.95,
) -> TrialSpread:
    """Split the variance of a score by what the seed moves."""
    level = check_confidence_level(confidence_level)
    _check_studies(studies)
    name = find_metric(studies[ALL], metric)
    seeds, scores = _find_scores(studies, name)
    scale = find_scale(*scores.values())
    kept = {source: one / scale for source, one in scores.items()}
    rest = kept[ALL] - sum(kept[source] for source in SOURCES)
    step = find_resolution(np.concatenate(list(kept.values())))
    return TrialSpread(
        studies=studies,
        metric=name,
        num_seeds=len(seeds),
        left_out=tuple(sorted(_list_seeds(studies) - set(seeds))),
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


def _list_seeds(studies: Mapping[str, TrialResults]) -> set[int]:
    """Those that one of the studies has, or that failed in it."""
    parts = [studies[source] for source in (ALL, *SOURCES)]
    done = {seed for one in parts for seed in one.seeds}
    return done.union(one.seed for part in parts for one in part.failures)


def _find_scores(
    studies: Mapping[str, TrialResults], metric: str
) -> tuple[list[int], dict[str, Scores]]:
    """The seeds with a finite score in all four studies, and these scores."""
    found = {}
    for source in (ALL, *SOURCES):
        values = studies[source].scores[find_metric(studies[source], metric)]
        pairs = zip(studies[source].seeds, values.tolist(), strict=True)
        found[source] = {a: b for a, b in pairs if math.isfinite(b)}
    seeds = [
        seed
        for seed in studies[ALL].seeds
        if all(seed in one for one in found.values())
    ]
    if len(seeds) < _FEWEST:
        others = _list_seeds(studies) - set(seeds)
        raise ValueError(
            f"At least {_FEWEST} seeds must have a finite `{clean(metric)}` in "
            f"all four studies. Received: {len(seeds)}, without "
            f"{say_seeds(others)}. Run more seeds."
        )
    scores = {
        source: np.array([one[seed] for seed in seeds])
        for source, one in found.items()
    }
    return seeds, scores


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
    low, high = np.clip([slope - half, slope + half], 0, 1)
    return SpreadPart(
        source=source,
        share=slope + 0.0,  # No -0.0.
        interval=Interval(float(low), float(high), level),
        std=std,
    )
