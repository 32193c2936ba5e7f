"""When a study may stop before its last seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.common.checks import (
    MOST_TRIALS,
    POSITIVE,
    check_int,
    check_kind,
    check_name,
    check_number,
)
from keras_repro.common.text import describe
from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.results import (
    TrialResults,
    check_seeds,
    find_metric,
    find_places,
)
from keras_repro.studies.scores import (
    FEWEST_PAIRS,
    check_confidence_level,
    check_margin,
    check_scores,
    t_interval,
)
from keras_repro.studies.wording import say_seeds


@dataclass(frozen=True)
class HalfWidth:
    """Stop a study when the interval of the mean is narrow enough.

    The rule is asked after each trial, in the order of the seeds: where a
    study stops does not depend on which worker was quicker.

    Args:
        half_width: Half of the interval's width, in the unit of the score.
        metric: The name of the score; `None` for the first one.
        min_trials: How many finite scores there must be at least, from 2 to
            1,000,000. With few, such that lie close by chance would stop it.
        confidence_level: Of the interval, strictly between 0 and 1.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If one is out of range.

    Scope:
        The interval is Student's. Of a study that stopped because it was
        narrow it covers the mean less often than it says, since a spread that
        came out small by chance stops it early: docs/trials.md has the
        measured coverage. The seeds given to `run_trials` are the maximum.

    Example:
        >>> rule = HalfWidth(0.5, min_trials=3)
        >>> rule.is_met({"rmse": [19.0, 19.1, 19.2]})
        True
        >>> rule.is_met({"rmse": [15.0, 19.0, 23.0]})
        False

    References:
        Chow and Robbins, On the asymptotic theory of fixed-width sequential
        confidence intervals for the mean, Annals of Mathematical Statistics
        36, 1965.
    """

    half_width: float
    metric: str | None = None
    min_trials: int = 10
    confidence_level: float = 0.95

    def __post_init__(self) -> None:
        fields = {
            "half_width": check_number(
                "half_width",
                self.half_width,
                POSITIVE,
                "Give half of the width that you want, in the unit of the "
                "score.",
            ),
            "metric": None
            if self.metric is None
            else check_name("metric", self.metric, "Name a score."),
            "min_trials": check_int(
                "min_trials",
                self.min_trials,
                2,
                MOST_TRIALS,
                advice="One score has no interval; leave it out for 10.",
            ),
            "confidence_level": check_confidence_level(self.confidence_level),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def is_met(self, scores: Mapping[str, Any]) -> bool:
        """Whether a study with these scores may stop.

        Args:
            scores: By name, the scores so far, shape `(num_trials,)`.

        Raises:
            TypeError: If `scores` does not map names to numbers.
            ValueError: If there is no such metric.
        """
        values = _choose(scores, self.metric, "HalfWidth")
        values = values[np.isfinite(values)]
        if len(values) < self.min_trials:
            return False
        shown = t_interval(values, confidence_level=self.confidence_level)
        return shown.half_width <= self.half_width


@dataclass(frozen=True)
class Settled:
    """Stop a study when its difference to another one is settled.

    The rule is asked after each trial, in the order of the seeds: where a
    study stops does not depend on which worker was quicker. The verdict holds
    though it was asked that often, since it rests on an interval that holds
    at every number of seeds at once.

    Args:
        baseline: The study to compare with, which must have all seeds that
            the new one may have.
        margin: The largest difference that does not matter to you, in the
            unit of the score: the study also stops when the interval lies
            within it. `None` stops it for lower or higher alone.
        metric: The name of the score; `None` for the first of the baseline.
        confidence_level: Of the interval, strictly between 0 and 1.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If one is out of range.

    Scope:
        As that of the interval: exact for differences that are distributed
        normally. The seeds given to `run_trials` are the maximum.

    Example:
        >>> baseline = TrialResults(
        ...     seeds=range(8),
        ...     scores={"rmse": [19.0, 19.3, 19.1, 18.7, 18.9, 19.2, 19.4, 19]},
        ... )
        >>> rule = Settled(baseline, margin=0.5)
        >>> found = {"rmse": [17.9, 18.4, 18.1, 17.8, 18.0, 18.1]}
        >>> rule.is_met(found, range(6))
        True
        >>> rule.is_met({"rmse": found["rmse"][:3]}, range(3))
        False
    """

    baseline: TrialResults
    margin: float | None = None
    metric: str | None = None
    confidence_level: float = 0.95

    def __post_init__(self) -> None:
        advice = "Give what `run_trials` returned for the study before."
        check_kind("baseline", self.baseline, TrialResults, advice)
        fields = {
            "margin": check_margin(self.margin),
            "metric": find_metric(self.baseline, self.metric),
            "confidence_level": check_confidence_level(self.confidence_level),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def check(self, seeds: Iterable[int], vary: str) -> None:
        """Refuse a study whose trials would be no pairs.

        Args:
            seeds: Those that it may have.
            vary: What they move.

        Raises:
            TypeError: If a seed is no integer, or `vary` no word.
            ValueError: If the baseline lacks seeds or varied something else.
        """
        missing = sorted({*check_seeds(seeds)} - {*self.baseline.seeds})
        if missing:
            raise ValueError(
                "`Settled(baseline)` must hold a trial for each of the "
                f"`seeds`. Received: a study without {say_seeds(missing)}. "
                "Run these for the baseline too, or ask for fewer."
            )
        advice = "Pass that of the study."
        if check_name("vary", vary, advice) != self.baseline.vary:
            raise ValueError(
                "`Settled(baseline)` must vary what the study does. Received: "
                f"{describe(self.baseline.vary)} and {describe(vary)}. Run "
                "one of them with the `vary` of the other."
            )

    def is_met(self, scores: Mapping[str, Any], seeds: Iterable[int]) -> bool:
        """Whether a study with these scores may stop.

        Args:
            scores: By name, the scores so far, shape `(num_trials,)`.
            seeds: The seeds of these trials.

        Raises:
            TypeError: If `scores` does not map names to numbers.
            ValueError: If there is no such metric, or not a score per seed.
        """
        metric, pairs = str(self.metric), check_seeds(seeds)
        values = _choose(scores, metric, "Settled")
        known = self.baseline.scores[metric]
        paired = known[find_places(self.baseline, pairs)]
        if len(values) != len(pairs):
            raise ValueError(
                "`scores` must hold one for each of `seeds`. Received: "
                f"{len(values)} scores and {len(pairs)} seeds. Pass both of "
                "the trials that ended."
            )
        finite = np.isfinite(values) & np.isfinite(paired)
        if np.count_nonzero(finite) < FEWEST_PAIRS:
            return False
        now = TrialResults(seeds=pairs, scores={metric: values}, watched=True)
        then = TrialResults(seeds=pairs, scores={metric: paired})
        return compare_trials(
            then,
            now,
            margin=self.margin,
            confidence_level=self.confidence_level,
        ).settled


def _choose(
    scores: Mapping[str, Any], metric: str | None, rule: str
) -> npt.NDArray[np.float64]:
    advice = "Pass those that a study has so far, by name."
    scores = check_kind("scores", scores, Mapping, advice)
    name = metric if metric is not None else next(iter(scores), "")
    if name not in scores:
        raise ValueError(
            f"`{rule}(metric=...)` must name one of the `scores` that "
            f"`train` returns. Received: {describe(name)}; there are "
            f"{describe(list(scores))}. Choose one of these."
        )
    return check_scores(scores[name], at_least=0, finite=False)
