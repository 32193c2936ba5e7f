"""Studies against each other, seed by seed, and what can be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from keras_repro.paired_statistics import (
    PairedStatistics,
    adjust_holm,
    compare_paired,
)
from keras_repro.phrases import clean
from keras_repro.trial_pairs import TrialComparison, TrialComparisons
from keras_repro.trial_phrases import say_seeds
from keras_repro.trial_results import TrialResults
from keras_repro.trial_summaries import find_metric, find_places

__all__ = ["TrialComparison", "TrialComparisons", "compare_trials"]

Scores = npt.NDArray[np.float64]


@overload
def compare_trials(
    a: TrialResults,
    b: TrialResults,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
) -> TrialComparison: ...


@overload
def compare_trials(
    a: Mapping[str, TrialResults],
    b: None = None,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
) -> TrialComparisons: ...


def compare_trials(
    a: TrialResults | Mapping[str, TrialResults],
    b: TrialResults | None = None,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
) -> TrialComparison | TrialComparisons:
    """Compare studies that used the same seeds, seed by seed.

    Args:
        a: A study; or several by name, of which each is compared with the
            first.
        b: The study to compare it with.
        metric: The name of the score; `None` for the first of the first
            study.
        confidence_level: Share of such intervals that should cover the true
            difference, strictly between 0 and 1.
        num_resamples: How many resamples to draw for each interval.
        seed: Seed of the resampling alone.

    Returns:
        What two studies say of their difference, `b` minus `a`; for several,
        one such comparison each. These are a family: p values are adjusted
        after Holm, and the intervals are wider to match.

    Raises:
        ValueError: If the studies have other seeds, varied something else or
            lack the metric, or if fewer than two pairs have finite scores.
        TypeError: If something is not a `TrialResults`.

    Scope:
        Speaks of seeds only: other data, or another choice of what the trials
        share, may move the difference further.

    Example:
        >>> none = TrialResults(
        ...     seeds=range(4), scores={"rmse": [19.2, 18.9, 19.4, 19.1]}
        ... )
        >>> some = TrialResults(
        ...     seeds=range(4), scores={"rmse": [18.6, 18.4, 18.9, 18.5]}
        ... )
        >>> comparison = compare_trials(none, some)
        >>> comparison.settled, round(comparison.statistics.difference, 3)
        (True, -0.55)

    References:
        Holm, A simple sequentially rejective multiple test procedure,
        Scandinavian Journal of Statistics 6(2), 1979, 65-70.
    """
    options = _Options(metric, confidence_level, num_resamples, seed)
    if not isinstance(a, Mapping):
        pair = _check_study(a, "a"), _check_study(b, "b")
        return _compare(pair, _name_two(*pair), options)
    studies = {
        str(name): _check_study(one, repr(name)) for name, one in a.items()
    }
    if b is not None or len(studies) < 2:
        raise ValueError(
            "`compare_trials` must be given two studies, or a mapping of at "
            f"least two names. Received: a mapping of {len(studies)}"
            f"{'' if b is None else ' and `b`'}. Put all studies into the "
            "mapping, the one to compare with first."
        )
    return _compare_family(studies, options)


class _Options(NamedTuple):
    metric: str | None
    confidence_level: float
    num_resamples: int | None
    seed: int


def _check_study(value: object, name: str) -> TrialResults:
    if isinstance(value, TrialResults):
        return value
    raise TypeError(
        f"`{clean(name)}` must be a `TrialResults`. Received: "
        f"{type(value).__name__}. Give what `run_trials` returned."
    )


def _name_two(a: TrialResults, b: TrialResults) -> tuple[str, str]:
    """Their own names, if these tell them apart."""
    names = a.name or "a", b.name or "b"
    return names if names[0] != names[1] else ("a", "b")


def _compare_family(
    studies: Mapping[str, TrialResults], options: _Options
) -> TrialComparisons:
    """Each against the first: the r-th smallest p value gets the r-th level."""
    (baseline, first), *others = studies.items()
    metric = find_metric(first, options.metric)
    options = options._replace(metric=metric)
    found = [
        _compare((first, one), (baseline, name), options)
        for name, one in others
    ]
    t_p = adjust_holm([one.t_p for one in found])
    wilcoxon_p = adjust_holm([one.wilcoxon_p for one in found])
    order = sorted(range(len(found)), key=lambda index: found[index].t_p)
    waits_for: str | None = None
    for rank, index in enumerate(order):
        error = (1 - options.confidence_level) / (len(found) - rank)
        one = _at_level(found[index], 1 - error, options)
        found[index] = replace(
            one,
            t_p=float(t_p[index]),
            wilcoxon_p=float(wilcoxon_p[index]),
            waits_for=waits_for,
            family_size=len(found),
        )
        if waits_for is None and not one.excludes_zero:
            waits_for = one.name_b
    return TrialComparisons(
        comparisons=tuple(found),
        baseline=baseline,
        metric=metric,
        confidence_level=options.confidence_level,
    )


def _at_level(
    comparison: TrialComparison, level: float, options: _Options
) -> TrialComparison:
    """The same with the interval of another level."""
    if math.isclose(level, comparison.confidence_level):
        return comparison
    return replace(
        comparison,
        confidence_level=level,
        statistics=_compute(
            comparison.scores_a,
            comparison.scores_b,
            options._replace(confidence_level=level),
        ),
    )


def _compare(
    studies: tuple[TrialResults, TrialResults],
    names: tuple[str, str],
    options: _Options,
) -> TrialComparison:
    a, b = studies
    metric = find_metric(a, options.metric)
    find_metric(b, metric)
    _check_alike(studies, names)
    scores_a = a.scores[metric]
    scores_b = b.scores[metric][find_places(b, a.seeds)]
    with np.errstate(invalid="ignore"):
        num_pairs = int(np.isfinite(scores_a - scores_b).sum())
    if num_pairs < 2:
        raise ValueError(
            "Two studies must have at least two pairs of finite scores to be "
            f"compared. Received: {num_pairs} of {len(a.seeds)} pairs with a "
            f"finite `{clean(metric)}` in both. Run more seeds."
        )
    found = _compute(scores_a, scores_b, options)
    return TrialComparison(
        name_a=names[0],
        name_b=names[1],
        metric=metric,
        seeds=a.seeds,
        scores_a=scores_a,
        scores_b=scores_b,
        statistics=found,
        confidence_level=options.confidence_level,
        t_p=found.t_p,
        wilcoxon_p=found.wilcoxon_p,
    )


def _compute(
    scores_a: Scores, scores_b: Scores, options: _Options
) -> PairedStatistics:
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(scores_b - scores_a)
    return compare_paired(
        scores_a[finite],
        scores_b[finite],
        confidence_level=options.confidence_level,
        num_resamples=options.num_resamples,
        seed=options.seed,
    )


def _check_alike(
    studies: tuple[TrialResults, TrialResults], names: tuple[str, str]
) -> None:
    """Refuse studies whose trials are no pairs."""
    a, b = studies
    name_a, name_b = (clean(name, 40) for name in names)
    if a.vary != b.vary:
        raise ValueError(
            "Two studies must vary the same to be compared. Received: "
            f"`vary` {clean(repr(a.vary))} in {name_a} and "
            f"{clean(repr(b.vary))} in {name_b}. Run one of them again with "
            "the `vary` of the other."
        )
    only_a = sorted(set(a.seeds) - set(b.seeds))
    only_b = sorted(set(b.seeds) - set(a.seeds))
    if only_a or only_b:
        raise ValueError(
            "Two studies must have the same seeds to be paired. Received: "
            f"only in {name_a}: {say_seeds(only_a)}; only in {name_b}: "
            f"{say_seeds(only_b)}. Run the missing ones, or keep what both "
            "have: `seeds = [s for s in a.seeds if s in b.seeds]`, then "
            "`a.select(seeds)` and `b.select(seeds)`."
        )
