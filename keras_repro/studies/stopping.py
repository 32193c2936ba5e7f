"""When a study may stop before its last seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_NEARLY = 1.25


@dataclass(frozen=True)
class HalfWidth:
    """Stop a study when the interval of the mean is narrow enough.

    The rule is asked after each trial, in the order of the seeds: where a
    study stops does not depend on which worker was quicker.

    Args:
        half_width: Half of the interval's width, in the unit of the score.
        metric: The name of the score; `None` for the first one.
        min_trials: How many finite scores there must be at least. With fewer,
            a few scores that lie close by chance would stop it.
        confidence_level: Of the interval, strictly between 0 and 1.

    Raises:
        ValueError: If a value is out of range.

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
        if not 0 < self.half_width < np.inf:
            raise ValueError(
                "`half_width` must be a finite number above 0. Received: "
                f"{self.half_width!r}. Give half of the width that you want, "
                "in the unit of the score."
            )
        if not isinstance(self.min_trials, int) or self.min_trials < 2:
            raise ValueError(
                "`min_trials` must be an integer of 2 or more: one score has "
                f"no interval. Received: {self.min_trials!r}."
            )
        from keras_repro.studies.scores import check_confidence_level

        check_confidence_level(self.confidence_level)

    def is_met(self, scores: Mapping[str, Any]) -> bool:
        """Whether a study with these scores may stop.

        Args:
            scores: By name, the scores so far, shape `(num_trials,)`.

        Raises:
            ValueError: If there is no such metric.
        """
        values = self._choose(scores)
        values = values[np.isfinite(values)]
        if len(values) < self.min_trials:
            return False
        from keras_repro.studies.scores import bootstrap_interval, t_interval

        level = self.confidence_level
        # The cheap one first: this is asked after every trial.
        cheap = t_interval(values, confidence_level=level)
        if cheap.half_width > _NEARLY * self.half_width:
            return False
        shown = bootstrap_interval(values, confidence_level=level)
        return shown.half_width <= self.half_width

    def _choose(self, scores: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        name = self.metric if self.metric is not None else next(iter(scores))
        if name not in scores:
            raise ValueError(
                "`HalfWidth(metric=...)` must name a score that `train` "
                f"returns. Received: {name!r}; there are "
                f"{', '.join(map(repr, scores))}."
            )
        return np.asarray(scores[name], np.float64)
