"""The scores of a study in few numbers, and where one trial stands.

What looks into a `TrialResults` and leaves it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_repro.phrases import clean
from keras_repro.plain import to_plain
from keras_repro.statistics import Summary, rank_of, summarize
from keras_repro.trial_phrases import say_rank, say_seeds
from keras_repro.trial_reports import write_summary_text

if TYPE_CHECKING:
    from keras_repro.trial_results import TrialResults


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Where one trial stands among all of its study.

    Args:
        seed: Its seed.
        metric: The name of the score.
        score: Its score.
        rank: 1.0 for the lowest score; trials with equal scores share the
            mean of their ranks.
        num_scores: How many finite scores there are.
        percentile: Percent of the scores below it, equal ones counted half.
        z: How many standard deviations above the mean; NaN if all are equal.
    """

    seed: int
    metric: str
    score: float
    rank: float
    num_scores: int
    percentile: float
    z: float

    def to_json(self) -> dict[str, Any]:
        """The rank as plain values that strict JSON can hold."""
        return {**to_plain(self)}

    def __str__(self) -> str:
        """One sentence."""
        return say_rank(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialSummary:
    """The scores of a study in few numbers, by metric.

    Args:
        results: The study.
        metrics: By name, the summary of its scores. A metric without any
            finite score has NaN for every number.
        confidence_level: That of the intervals.

    Example:
        >>> from keras_repro.trial_results import TrialResults
        >>> results = TrialResults(
        ...     seeds=range(3), scores={"rmse": [1.0, 2.0, 6.0]}
        ... )
        >>> results.summary()["rmse"].mean
        3.0
    """

    results: TrialResults
    metrics: Mapping[str, Summary]
    confidence_level: float

    def __getitem__(self, metric: str) -> Summary:
        return self.metrics[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values that strict JSON can hold."""
        return {
            "num_trials": self.results.num_trials,
            "num_failures": len(self.results.failures),
            "name": self.results.name,
            "vary": self.results.vary,
            "confidence_level": self.confidence_level,
            "metrics": to_plain(self.metrics),
        }

    def __str__(self) -> str:
        """What a terminal shows."""
        return write_summary_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from keras_repro.trial_pages import write_summary_fragment

        return write_summary_fragment(self)


def summarize_scores(
    scores: npt.NDArray[np.float64],
    *,
    confidence_level: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
) -> Summary:
    """Sum scores up, as `summarize`; NaN for all if none of them is finite.

    Args:
        scores: One per trial, shape `(num_trials,)`.
        confidence_level: That of the interval, strictly between 0 and 1.
        num_resamples: How many resamples to draw.
        seed: Seed of the resampling alone.

    Example:
        >>> summarize_scores(np.array([np.nan])).num_missing
        1
    """
    if np.isfinite(scores).any():
        return summarize(
            scores,
            confidence_level=confidence_level,
            num_resamples=num_resamples,
            seed=seed,
        )
    names = ("mean", "std", "median", "iqm", "min", "max")
    return Summary(
        num_scores=0,
        num_missing=len(scores),
        interval=None,
        **dict.fromkeys(names, math.nan),
    )


def rank_score(results: TrialResults, place: int, metric: str) -> Rank:
    """Say where a trial stands among all with a finite score.

    Args:
        results: The study.
        place: The position of the trial.
        metric: The name of the score.

    Raises:
        ValueError: If its score is not finite.
    """
    seed, scores = results.seeds[place], results.scores[metric]
    finite = np.isfinite(scores)
    if not finite[place]:
        raise ValueError(
            f"The score of seed {seed} must be finite to have a rank. "
            f"Received: {scores[place]} for `{clean(metric)}`. Ask for another "
            "seed or metric."
        )
    found = rank_of(scores[finite], int(np.count_nonzero(finite[:place])))
    return Rank(
        seed=seed,
        metric=metric,
        score=float(scores[place]),
        rank=found.rank,
        num_scores=int(np.count_nonzero(finite)),
        percentile=found.percentile,
        z=found.z,
    )


def find_metric(results: TrialResults, metric: str | None) -> str:
    """The name of a score of a study.

    Args:
        results: The study.
        metric: A name; `None` for the first one.

    Raises:
        ValueError: If the study has no such score, or none at all.
    """
    if metric is None and results.scores:
        return results.metrics[0]
    if metric is not None and metric in results.scores:
        return metric
    known = ", ".join(f"`{clean(one)}`" for one in results.metrics)
    raise ValueError(
        "`metric` must name a score that the study has: "
        f"{clean(known or 'it has none', 500)}. Received: "
        f"{clean(repr(metric))}. Choose one that it has."
    )


def find_places(results: TrialResults, seeds: Iterable[int]) -> list[int]:
    """The positions of the trials with these seeds.

    Args:
        results: The study.
        seeds: The seeds.

    Raises:
        ValueError: If no trial with such a seed finished.
    """
    wanted = tuple(seeds)
    places = {seed: place for place, seed in enumerate(results.seeds)}
    unknown = [seed for seed in wanted if seed not in places]
    if unknown:
        raise ValueError(
            "`seed` must be that of a trial that finished: "
            f"{say_seeds(results.seeds)}. Received: {say_seeds(unknown)}. "
            "Choose among `results.seeds`."
        )
    return [places[seed] for seed in wanted]


def make_columns(results: TrialResults) -> dict[str, list[Any]]:
    """All that is known of each trial, by the name of its column.

    Args:
        results: The study. A score that is called as another column is called
            otherwise.
    """
    empty = [None] * results.num_trials
    seconds = results.seconds
    others = {
        "seconds": empty if seconds is None else seconds.tolist(),
        "checksum": list(results.checksums) or empty,
        "worker": list(results.workers) or empty,
    }
    columns: dict[str, list[Any]] = {"seed": list(results.seeds)}
    for name, scores in results.scores.items():
        title = name
        while title in columns or title in others:
            title += " (score)"
        columns[title] = scores.tolist()
    return columns | others
