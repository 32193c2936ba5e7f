"""Studies against each other, seed by seed: numbers and a verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from keras_repro.common.checks import (
    FINITE,
    INNER_SHARE,
    check_flag,
    check_kind,
    check_name,
    check_number,
)
from keras_repro.common.json import to_plain
from keras_repro.common.text import clean, describe
from keras_repro.reports.document import Document
from keras_repro.reports.result import Result
from keras_repro.studies.documents import describe_comparison, describe_family
from keras_repro.studies.examples import (
    ExampleStatistics,
    count_seeds,
    cross_examples,
    number_groups,
)
from keras_repro.studies.results import TrialResults, find_metric, find_places
from keras_repro.studies.scores import (
    FEWEST_PAIRS,
    PairedStatistics,
    Scores,
    check_confidence_level,
    check_margin,
    compare_paired,
    count_pairs,
)
from keras_repro.studies.wording import say_seeds, say_trials_verdict


@overload
def compare_trials(
    a: TrialResults,
    b: TrialResults,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    margin: float | None = None,
    watched: bool | None = None,
    groups: Any = None,
) -> TrialComparison: ...


@overload
def compare_trials(
    a: Mapping[str, TrialResults],
    b: None = None,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    margin: float | None = None,
    watched: bool | None = None,
    groups: Any = None,
) -> TrialComparisons: ...


def compare_trials(
    a: TrialResults | Mapping[str, TrialResults],
    b: TrialResults | None = None,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    margin: float | None = None,
    watched: bool | None = None,
    groups: Any = None,
) -> TrialComparison | TrialComparisons:
    """Compare studies that used the same seeds, seed by seed.

    Args:
        a: A study; or several by name, of which each is compared with the
            first.
        b: The study to compare it with.
        metric: The name of the score; `None` for the first of the first
            study.
        confidence_level: Share of such intervals that should cover the true
            difference, strictly between 0 and 1; of several, the share of
            such families whose intervals all do.
        margin: The largest difference that does not matter to you, in the
            unit of the scores. An interval within it settles that the two
            are equal for you.
        watched: Whether somebody looked at the scores before it was decided
            how many seeds to run. `None` goes by what the studies recorded;
            pass `True` where you looked and went on without a `path`.
        groups: Where `train` returned losses per test example: the group of
            each, such as the patient that a row belongs to, if examples of
            one group are alike. `None` takes each for itself.

    Returns:
        What two studies say of their difference, `b` minus `a`; for several,
        one such comparison each. These are a family of m: each interval has
        the level `1 - (1 - confidence_level) / m`, and each p value is m
        times as large (Bonferroni).

    Raises:
        ValueError: If the studies have other seeds, varied something else or
            lack the metric, or if fewer than two pairs have finite scores.
        TypeError: If something is not a `TrialResults`, or an argument is of
            the wrong type.

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
        Dunn, Multiple Comparisons Among Means, Journal of the American
        Statistical Association 56(293), 1961, 52-64: intervals that hold
        jointly, whatever the comparisons have in common.
    """
    options = _Options(
        metric,
        check_confidence_level(confidence_level),
        margin=check_margin(margin),
        watched=None if watched is None else check_flag("watched", watched),
        groups=groups,
    )
    if not isinstance(a, Mapping):
        pair = _check_study(a, "a"), _check_study(b, "b")
        return _compare(pair, _name_two(*pair), options)
    advice = "Name each study in the mapping."
    studies = {
        name: _check_study(one, f"a[{name!r}]")
        for name, one in a.items()
        if check_name("a", name, advice)
    }
    if b is not None or len(studies) < 2:
        raise ValueError(
            "`compare_trials` must be given two studies, or as `a` a mapping "
            f"of at least two names. Received: a mapping of {len(studies)}"
            f"{'' if b is None else ' and `b`'}. Put all studies into the "
            "mapping, the one to compare with first."
        )
    return _compare_family(studies, options)


class _Options(NamedTuple):
    metric: str | None
    family_level: float
    family_size: int = 1
    margin: float | None = None
    watched: bool | None = None
    groups: Any = None

    @property
    def confidence_level(self) -> float:
        """That of each interval, so that the family has its own."""
        return 1 - (1 - self.family_level) / self.family_size


def _check_study(value: object, name: str) -> TrialResults:
    study: TrialResults = check_kind(
        clean(name),
        value,
        TrialResults,
        "Give what `run_trials` returned.",
        must="be a `TrialResults`",
    )
    return study


def _name_two(a: TrialResults, b: TrialResults) -> tuple[str, str]:
    """Their own names, if these tell them apart."""
    names = a.name or "a", b.name or "b"
    return names if names[0] != names[1] else ("a", "b")


def _compare_family(
    studies: Mapping[str, TrialResults], options: _Options
) -> TrialComparisons:
    """Each against the first, at a level that holds for all of them."""
    (baseline, first), *others = studies.items()
    metric = find_metric(first, options.metric)
    watched = _find_watched(options, studies.values())
    options = options._replace(
        metric=metric, family_size=len(others), watched=watched
    )
    if options.confidence_level >= 1:
        raise ValueError(
            "`confidence_level` must leave each comparison of a family a "
            f"level below 1. Received: {options.family_level} for "
            f"{len(others)} comparisons at once. Pass 0.95 for 95%."
        )
    found = (
        _compare((first, one), (baseline, name), options)
        for name, one in others
    )
    return TrialComparisons(
        # What is not known of one of them is not known of the family.
        comparisons=tuple(replace(one, watched=watched) for one in found),
        baseline=baseline,
        metric=metric,
        confidence_level=options.family_level,
    )


def _find_watched(
    options: _Options, studies: Iterable[TrialResults]
) -> bool | None:
    """Whether one of them was; `False` if it is known that none was."""
    known = [one.watched for one in studies]
    if options.watched is not None or any(known):
        return options.watched is not False
    return None if None in known else False


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
    finite = _find_finite(scores_a, scores_b, metric)
    options = options._replace(watched=_find_watched(options, studies))
    found = compare_paired(
        scores_a[finite],
        scores_b[finite],
        confidence_level=options.confidence_level,
        watched=bool(options.watched),
    )
    found, examples = _cross(studies, metric, finite, found, options)
    return TrialComparison(
        name_a=names[0],
        name_b=names[1],
        metric=metric,
        seeds=a.seeds,
        scores_a=scores_a,
        scores_b=scores_b,
        statistics=found,
        confidence_level=options.confidence_level,
        family_level=options.family_level,
        t_p=min(options.family_size * found.t_p, 1.0),
        wilcoxon_p=min(options.family_size * found.wilcoxon_p, 1.0),
        family_size=options.family_size,
        margin=options.margin,
        watched=options.watched,
        examples=examples,
    )


def _find_finite(a: Scores, b: Scores, metric: str) -> npt.NDArray[np.bool_]:
    """Of which pairs both scores are finite."""
    finite: npt.NDArray[np.bool_] = np.isfinite(a) & np.isfinite(b)
    num_pairs = int(np.count_nonzero(finite))
    if num_pairs < 2:
        raise ValueError(
            "Two studies must have at least two pairs of finite scores to be "
            f"compared. Received: {num_pairs} of {len(a)} pairs with a "
            f"finite `{clean(metric)}` in both. Run more seeds."
        )
    _check_range(a[finite], b[finite], metric)
    return finite


def _cross(
    studies: tuple[TrialResults, TrialResults],
    metric: str,
    finite: npt.NDArray[np.bool_],
    found: PairedStatistics,
    options: _Options,
) -> tuple[PairedStatistics, ExampleStatistics | None]:
    """What seeds say, crossed with the test examples where these are known."""
    gaps = _find_gaps(studies, metric)
    if gaps is not None:
        places = number_groups(options.groups, gaps.shape[1])
        watched = bool(options.watched)
        return cross_examples(gaps[finite], places, found, watched=watched)
    if options.groups is not None:
        raise ValueError(
            "`groups` must be those of test examples whose losses both studies "
            f"have. Received: {describe(options.groups)}; they have no losses "
            f"of `{clean(metric)}`. Have `train` return an array of them."
        )
    return found, None


def _find_gaps(
    studies: tuple[TrialResults, TrialResults], metric: str
) -> Scores | None:
    """Differences per test example, a row for each seed; `None` if unknown."""
    a, b = studies
    first, second = (one.examples.get(metric) for one in studies)
    if first is None or second is None:
        return None
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "Two studies must have losses of the same test examples. "
            f"Received: `{clean(metric)}` of {first.shape[1]} and of "
            f"{second.shape[1]} examples. Evaluate both on one test set."
        )
    gaps: Scores = second[find_places(b, a.seeds)] - first
    return gaps


def _check_range(scores_a: Scores, scores_b: Scores, metric: str) -> None:
    """Refuse scores so far apart that no float holds their difference."""
    halves = np.abs(scores_b / 2 - scores_a / 2)
    if halves.max() > sys.float_info.max / 2:
        place = int(halves.argmax())
        raise ValueError(
            f"The scores `{clean(metric)}` of two studies must be so close "
            "that a float holds their difference. Received: "
            f"{scores_a[place]:g} and {scores_b[place]:g} under one seed. "
            "Divide all scores by a constant."
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialComparison(Result):
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
            it is higher than the level asked for, so that all intervals hold
            jointly at that.
        family_level: The level at which all intervals of the family hold
            jointly; that of the interval where there is but one.
        t_p: The p value of the paired t test, adjusted in a family.
        wilcoxon_p: That of the signed-rank test, adjusted in a family.
        family_size: How many comparisons are judged together.
        margin: The largest difference that does not matter, or `None`.
        watched: Whether the interval holds at every number of seeds at once;
            `False` if they were fixed beforehand, `None` if nobody recorded
            that and the interval takes them as fixed.
        examples: What of the interval is the chance of the test examples, if
            both studies have losses of these; else it speaks of seeds alone.
    """

    name_a: str
    name_b: str
    metric: str
    seeds: tuple[int, ...]
    scores_a: Scores
    scores_b: Scores
    statistics: PairedStatistics
    confidence_level: float
    family_level: float
    t_p: float
    wilcoxon_p: float
    family_size: int = 1
    margin: float | None = None
    watched: bool | None = None
    examples: ExampleStatistics | None = None

    @property
    def comparisons(self) -> tuple[TrialComparison, ...]:
        """Itself alone, as if it were a family."""
        return (self,)

    @property
    def differences(self) -> Scores:
        """The differences of the pairs; NaN where one is not finite."""
        finite = np.isfinite(self.scores_a) & np.isfinite(self.scores_b)
        gaps = np.full(len(finite), np.nan)
        gaps[finite] = self.scores_b[finite] - self.scores_a[finite]
        return gaps

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
    def outcome(self) -> str:
        """What the interval, as it is shown, says of `b`.

        `"lower"` or `"higher"` if it excludes 0, `"equal"` if it lies within
        the margin, else `"open"`. Two pairs leave everything open.
        """
        found = self.statistics
        if found.num_pairs < FEWEST_PAIRS:
            return "open"
        farthest = max(-found.interval.low, found.interval.high)
        if self.margin is not None and farthest <= self.margin:
            return "equal"
        if not self.excludes_zero:
            return "open"
        return "lower" if found.difference < 0 else "higher"

    @property
    def settled(self) -> bool:
        """Whether `outcome` is not open."""
        return self.outcome != "open"

    @property
    def num_more_trials(self) -> int | None:
        """How many more seeds would settle a difference of this size.

        They would do so with a probability of 0.8, by an interval that may be
        watched: who goes on has looked. `None` if it is settled, or if there
        is no difference to settle.
        """
        if self.settled:
            return None
        found = self.statistics
        size = abs(found.difference)
        needed = [self._count([size], 0.8, watched=True)]
        if self.margin is not None and size < self.margin:
            # Both ends of the interval must lie within it.
            rooms = [self.margin - size, self.margin + size]
            needed.append(self._count(rooms, 0.8, watched=True))
        known = [one for one in needed if one is not None]
        return max(min(known) - found.num_pairs, 1) if known else None

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
            TypeError: If an argument is not a number.
            ValueError: If `difference` is not finite or `power` out of range.

        Scope:
            Takes the spread of the differences from this study, so it is as
            uncertain as that. The count is that of the paired t test, or of
            the sequential one where the studies were watched.
        """
        if difference is None:
            difference = self.statistics.difference
        advice = "Give the smallest difference that matters to you."
        difference = check_number("difference", difference, FINITE, advice)
        power = check_number("power", power, INNER_SHARE, "Pass 0.8 for 80%.")
        watched = bool(self.watched)
        return self._count([abs(difference)], power, watched=watched)

    def _count(
        self, distances: Sequence[float], power: float, *, watched: bool
    ) -> int | None:
        """How many seeds would show at once that all of them are above 0."""
        found, examples = self.statistics, self.examples
        if not all(distances):
            return None
        if examples is not None:
            return count_seeds(
                found, examples, distances, power, watched=watched
            )
        spread = found.spread
        effects = [one / spread if spread else math.inf for one in distances]
        return count_pairs(effects, power, self.confidence_level, watched)

    @property
    def verdict(self) -> str:
        """What can be said, in one sentence."""
        return say_trials_verdict(self)

    def describe(self) -> Document:
        """The verdict, all numbers, and the scores of each seed."""
        return describe_comparison(self)

    def _list_values(self) -> dict[str, Any]:
        return {
            "name_a": self.name_a,
            "name_b": self.name_b,
            "metric": self.metric,
            "verdict": self.verdict,
            "outcome": self.outcome,
            "settled": self.settled,
            "equal": self.equal,
            "margin": self.margin,
            "watched": self.watched,
            "examples": to_plain(self.examples),
            "confidence_level": self.confidence_level,
            "statistics": {
                **to_plain(self.statistics),
                "higher_rate": self.statistics.higher_rate,
                "agree_rate": self.statistics.agree_rate,
                "probability_a_lower": self.statistics.probability_a_lower,
            },
            "t_p": to_plain(self.t_p),
            "wilcoxon_p": to_plain(self.wilcoxon_p),
            "family_level": self.family_level,
            "family_size": self.family_size,
            "num_left_out": self.num_left_out,
            "num_more_trials": self.num_more_trials,
            "seeds": list(self.seeds),
            "scores_a": to_plain(self.scores_a.tolist()),
            "scores_b": to_plain(self.scores_b.tolist()),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialComparisons(Result):
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

    def describe(self) -> Document:
        """A table, then a verdict and all numbers for each."""
        return describe_family(self.comparisons)

    def _list_values(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "metric": self.metric,
            "confidence_level": self.confidence_level,
            "comparisons": [one.to_json() for one in self.comparisons],
        }
