"""What two studies, or several, say of each other: numbers and a verdict.

`compare_trials` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.paired_statistics import PairedStatistics, count_needed_pairs
from keras_repro.plain import to_plain
from keras_repro.trial_phrases import say_trials_verdict
from keras_repro.trial_reports import (
    write_comparison_text,
    write_comparisons_text,
)

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialComparison:
    """Two studies, paired by seed; a difference is `b` minus `a`.

    Args:
        name_a: What the first study is called.
        name_b: What the second study is called.
        metric: The name of the score.
        seeds: The seeds of both studies.
        scores_a: The scores of the first, shape `(num_seeds,)`.
        scores_b: Those of the second, by the same seeds.
        statistics: What the pairs say in which both scores are finite.
        confidence_level: That of the interval of the difference; in a family
            it is higher than the level asked for.
        t_p: The p value of the paired t test, adjusted in a family.
        wilcoxon_p: That of the signed-rank test, adjusted in a family.
        waits_for: The name of the condition that has to be settled before
            this one may be, or `None`.
        family_size: How many comparisons are judged together.
    """

    name_a: str
    name_b: str
    metric: str
    seeds: tuple[int, ...]
    scores_a: Scores
    scores_b: Scores
    statistics: PairedStatistics
    confidence_level: float
    t_p: float
    wilcoxon_p: float
    waits_for: str | None = None
    family_size: int = 1

    @property
    def comparisons(self) -> tuple[TrialComparison, ...]:
        """Itself alone, as if it were a family."""
        return (self,)

    @property
    def differences(self) -> Scores:
        """The differences of the pairs; NaN where one is not finite."""
        with np.errstate(invalid="ignore"):
            gaps = self.scores_b - self.scores_a
        return np.where(np.isfinite(gaps), gaps, np.nan)

    @property
    def num_left_out(self) -> int:
        """How many pairs have a score that is not finite."""
        return len(self.seeds) - self.statistics.num_pairs

    @property
    def equal(self) -> bool:
        """Whether all pairs that count have the same score."""
        return not np.nan_to_num(self.differences).any()

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the difference lies on one side of 0."""
        interval = self.statistics.interval
        return bool(interval.low > 0 or interval.high < 0)

    @property
    def settled(self) -> bool:
        """Whether the interval, as it is shown, excludes 0.

        In a family, those with smaller p values have to be settled as well.
        """
        return self.excludes_zero and self.waits_for is None

    @property
    def num_more_trials(self) -> int | None:
        """How many more seeds would settle a difference of this size.

        They would do so with a probability of 0.8. `None` if it is settled,
        or if there is no difference to settle.
        """
        if self.settled:
            return None
        needed = self.count_trials()
        return (
            None
            if needed is None
            else max(needed - self.statistics.num_pairs, 1)
        )

    def count_trials(
        self, difference: float | None = None, *, power: float = 0.8
    ) -> int | None:
        """How many seeds in all would settle a difference.

        Args:
            difference: A difference of the means, in the unit of the scores;
                `None` for the one that was found.
            power: The probability to settle it, strictly between 0 and 1.

        Returns:
            A number of pairs; `None` if more than 1,000,000 would be needed.

        Raises:
            ValueError: If `difference` is not finite or `power` out of range.

        Scope:
            Takes the spread of the differences from this study, so it is as
            uncertain as that. The count is that of the paired t test.
        """
        if difference is None:
            difference = self.statistics.difference
        if not math.isfinite(difference):
            raise ValueError(
                f"`difference` must be finite. Received: {difference}. Give "
                "the smallest difference that matters to you."
            )
        gaps = self.differences
        spread = float(np.std(gaps[np.isfinite(gaps)], ddof=1))
        effect = abs(difference) / spread if spread else math.inf
        return count_needed_pairs(
            effect if difference else 0.0,
            power=power,
            confidence_level=self.confidence_level,
        )

    @property
    def verdict(self) -> str:
        """What can be said, in one sentence."""
        return say_trials_verdict(self)

    def plot(self) -> Any:
        """Draw both studies, and beside them the differences by seed.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        from keras_repro.trial_plots import plot_comparisons

        return plot_comparisons([self])

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain values that strict JSON can hold."""
        return {
            "name_a": self.name_a,
            "name_b": self.name_b,
            "metric": self.metric,
            "verdict": self.verdict,
            "settled": self.settled,
            "equal": self.equal,
            "confidence_level": self.confidence_level,
            "statistics": to_plain(self.statistics),
            "t_p": to_plain(self.t_p),
            "wilcoxon_p": to_plain(self.wilcoxon_p),
            "waits_for": self.waits_for,
            "family_size": self.family_size,
            "num_left_out": self.num_left_out,
            "num_more_trials": self.num_more_trials,
            "seeds": list(self.seeds),
            "scores_a": to_plain(self.scores_a.tolist()),
            "scores_b": to_plain(self.scores_b.tolist()),
        }

    def __str__(self) -> str:
        """What a terminal shows: the verdict first."""
        return write_comparison_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from keras_repro.trial_pages import write_comparisons_fragment

        return write_comparisons_fragment(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialComparisons:
    """Several studies, each against the first, as one family.

    Args:
        comparisons: One for each study after the first, in the order given.
        baseline: The name of the first study.
        metric: The name of the score.
        confidence_level: The probability that nothing in the family is called
            settled where there is no difference.
    """

    comparisons: tuple[TrialComparison, ...]
    baseline: str
    metric: str
    confidence_level: float

    def __getitem__(self, name: str) -> TrialComparison:
        for one in self.comparisons:
            if one.name_b == name:
                return one
        raise KeyError(name)

    def __iter__(self) -> Iterator[TrialComparison]:
        return iter(self.comparisons)

    def __len__(self) -> int:
        return len(self.comparisons)

    def plot(self) -> Any:
        """Draw all studies, and beside them the differences to the first.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        from keras_repro.trial_plots import plot_comparisons

        return plot_comparisons(self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """The comparisons as plain values that strict JSON can hold."""
        return {
            "baseline": self.baseline,
            "metric": self.metric,
            "confidence_level": self.confidence_level,
            "comparisons": [one.to_json() for one in self.comparisons],
        }

    def __str__(self) -> str:
        """What a terminal shows: a table, then a verdict for each."""
        return write_comparisons_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from keras_repro.trial_pages import write_comparisons_fragment

        return write_comparisons_fragment(self)
