"""When a study may stop before its last seed."""

from __future__ import annotations

from collections.abc import Mapping
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
        Sequential: the interval of a study that stopped because it was
        narrow covers the mean less often than it says, since a spread that
        came out small by chance stops it early. docs/trials.md has the
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
        from keras_repro.studies.scores import check_confidence_level

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
        values = self._choose(scores)
        values = values[np.isfinite(values)]
        if len(values) < self.min_trials:
            return False
        from keras_repro.studies.scores import t_interval

        shown = t_interval(values, confidence_level=self.confidence_level)
        return shown.half_width <= self.half_width

    def _choose(self, scores: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        from keras_repro.studies.scores import check_scores

        advice = "Pass those that a study has so far, by name."
        scores = check_kind("scores", scores, Mapping, advice)
        name = (
            self.metric if self.metric is not None else next(iter(scores), "")
        )
        if name not in scores:
            raise ValueError(
                "`HalfWidth(metric=...)` must name one of the `scores` that "
                f"`train` returns. Received: {describe(name)}; there are "
                f"{describe(list(scores))}. Choose one of these."
            )
        return check_scores(scores[name], at_least=0, finite=False)
