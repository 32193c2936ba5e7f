"""What two sets of scores say that share their seeds, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keras_repro.statistics import (
    Interval,
    Scores,
    bootstrap_interval,
    check_confidence_level,
    check_scores,
    compute_mean,
    compute_std,
    find_scale,
)

_MOST_PAIRS = 1_000_000
# A larger effect is told by two pairs, whatever the level that floats hold.
_LARGEST_EFFECT = 1e8


@dataclass(frozen=True, kw_only=True)
class PairedStatistics:
    """How two sets of scores differ that share their seeds.

    Args:
        num_pairs: How many pairs there are.
        mean_a: The mean of a.
        mean_b: The mean of b.
        difference: The mean of b - a.
        interval: Where that mean lies under other seeds.
        t_p: p of the paired t test, two-sided: 1.0 if all pairs are equal,
            0.0 if all differ by the same amount.
        wilcoxon_p: p of Wilcoxon's signed-rank test, two-sided; 1.0 if all
            pairs are equal.
        probability_a_lower: The probability that a score of a is lower than
            one of b under an unrelated seed; equal scores count half.
        sign_rate: How often one score of each, from unrelated seeds, differ
            in the direction in which the means do; equal scores count half,
            and it is 0.5 if the means are equal.
        effect_size: The difference in standard deviations of single scores,
            the root mean square of both; infinite if none of them varies.
        effect_size_paired: The difference in standard deviations of the
            paired differences; infinite if all are the same.
    """

    num_pairs: int
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    t_p: float
    wilcoxon_p: float
    probability_a_lower: float
    sign_rate: float
    effect_size: float
    effect_size_paired: float


def compare_paired(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    confidence_level: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
) -> PairedStatistics:
    """Compare two sets of scores that share their seeds.

    What the seed moves in both alike cancels in the differences, so fewer
    seeds show a difference than in a comparison of unrelated runs.

    Args:
        a: One finite score per seed, shape `(num_pairs,)`.
        b: The scores of the same seeds in the same order.
        confidence_level: As for `bootstrap_interval`.
        num_resamples: As for `bootstrap_interval`.
        seed: Seed of the resampling alone.

    Returns:
        The statistics; b is measured against a.

    Raises:
        TypeError: If the scores are no numbers.
        ValueError: If there are fewer than two pairs, if a score is not
            finite, or if the numbers of scores differ.

    Scope:
        Equal inputs give equal results with one version of NumPy and of
        SciPy. Wilcoxon's p is exact for up to 50 pairs without ties, and up
        to 13 with ties, as SciPy chooses.

    Example:
        >>> found = compare_paired([5.0, 6.0, 7.0], [4.0, 5.5, 6.0])
        >>> round(found.difference, 3), round(found.t_p, 3), found.sign_rate
        (-0.833, 0.038, 0.5833333333333333)

    References:
        Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics
        Bulletin 1(6), 1945, 80-83. Mann and Whitney, Annals of Mathematical
        Statistics 18(1), 1947, 50-60, and Vargha and Delaney, Journal of
        Educational and Behavioral Statistics 25(2), 2000, 101-132: the
        probability is U / (n m), their A. Lakens, Calculating and Reporting
        Effect Sizes, Frontiers in Psychology 4, 2013, 863: the effect sizes
        are Cohen's d_av, with the root mean square for the average, and d_z.
    """
    x = check_scores(a, at_least=2, name="a")
    y = check_scores(b, at_least=2, name="b")
    if x.size != y.size:
        raise ValueError(
            "`a` and `b` must hold scores of the same seeds. "
            f"Received: {x.size} and {y.size} scores. "
            "Keep the seeds that both have."
        )
    scale = find_scale(x, y)
    x, y = x / scale, y / scale
    gaps = y - x
    difference = compute_mean(gaps)
    interval = bootstrap_interval(
        gaps,
        confidence_level=confidence_level,
        num_resamples=num_resamples,
        seed=seed,
    )
    spread = math.hypot(compute_std(x), compute_std(y)) / math.sqrt(2)
    below, below_elsewhere = _count_below(x, y)
    return PairedStatistics(
        num_pairs=x.size,
        mean_a=compute_mean(x) * scale,
        mean_b=compute_mean(y) * scale,
        difference=difference * scale,
        interval=Interval(
            interval.low * scale, interval.high * scale, confidence_level
        ),
        t_p=_test_t(gaps),
        wilcoxon_p=_test_wilcoxon(gaps),
        probability_a_lower=below,
        sign_rate=0.5
        if not difference
        else below_elsewhere
        if difference > 0
        else 1 - below_elsewhere,
        effect_size=_divide(difference, spread),
        effect_size_paired=_divide(difference, compute_std(gaps)),
    )


def adjust_holm(p_values: npt.ArrayLike) -> Scores:
    """Adjust p values for being several, by Holm's method.

    Of all that stay below a level, the probability that one of them is a
    mistake stays below that level too, however they depend on each other.

    Args:
        p_values: One p value per test, shape `(num_tests,)`, in any order.

    Returns:
        The adjusted values in the same order, at most 1.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If there is none, or one does not lie between 0 and 1.

    Example:
        >>> adjust_holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])

    References:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure,
        Scandinavian Journal of Statistics 6(2), 1979, 65-70.
    """
    values = check_scores(p_values, at_least=1, name="p_values")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            "`p_values` must lie between 0 and 1. "
            f"Received: {values.min():g} to {values.max():g}. "
            "Pass them as the tests gave them."
        )
    order = np.argsort(values, kind="stable")
    raised = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted


def count_needed_pairs(
    effect_size_paired: float,
    *,
    power: float = 0.8,
    confidence_level: float = 0.95,
) -> int | None:
    """Count the pairs that would show an effect of a size.

    Args:
        effect_size_paired: The mean of the paired differences in their
            standard deviations; its sign does not matter.
        power: The probability that the two-sided paired t test shows it,
            strictly between 0 and 1.
        confidence_level: One less the level of the test, strictly between
            0 and 1.

    Returns:
        The smallest number of pairs, 2 or more; `None` if it is over a
        million, as for no effect at all.

    Raises:
        ValueError: If an argument is NaN or out of range.

    Scope:
        Exact for differences that are distributed normally. The size of an
        effect is itself an estimate, and of few pairs a rough one.

    Example:
        >>> count_needed_pairs(0.5)
        34

    References:
        Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd
        edition, 1988, ch. 2: the power by the noncentral t distribution.
    """
    check_confidence_level(confidence_level)
    if not 0 < power < 1 or math.isnan(effect_size_paired):
        raise ValueError(
            "`power` must lie strictly between 0 and 1, and "
            "`effect_size_paired` must be a number. Received: "
            f"{power!r} and {effect_size_paired!r}. Pass 0.8 for 80%."
        )
    effect = min(abs(effect_size_paired), _LARGEST_EFFECT)
    too_few, enough = 1, 2
    # Not from the top: the distribution is hard to compute far out.
    while _compute_power(enough, effect, confidence_level) < power:
        if enough >= _MOST_PAIRS:
            return None
        too_few, enough = enough, min(2 * enough, _MOST_PAIRS)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _compute_power(middle, effect, confidence_level) < power:
            too_few = middle
        else:
            enough = middle
    return enough


def _compute_power(
    num_pairs: int, effect: float, confidence_level: float
) -> float:
    """The power of the two-sided paired t test, for an effect above 0."""
    from scipy.special import stdtrit
    from scipy.stats import nct

    freedom, shift = num_pairs - 1, effect * math.sqrt(num_pairs)
    bound = -float(stdtrit(freedom, (1 - confidence_level) / 2))
    power = float(nct.sf(bound, freedom, shift))
    # What lies below is at most Phi(-10) further out, and hard to compute.
    if shift < 10:
        power += float(nct.cdf(-bound, freedom, shift))
    return power


def _test_t(gaps: Scores) -> float:
    """The p of SciPy's `ttest_rel`, which warns of gaps that hardly vary."""
    from scipy.special import stdtr

    error = compute_std(gaps) / math.sqrt(gaps.size)
    t = _divide(compute_mean(gaps), error)
    return 2 * float(stdtr(gaps.size - 1, -abs(t)))


def _test_wilcoxon(gaps: Scores) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(gaps).pvalue) if gaps.any() else 1.0


def _count_below(x: Scores, y: Scores) -> tuple[float, float]:
    """The share of pairs with x below y: of all, of those of other seeds.

    Equal ones count half.
    """
    ordered, size = np.sort(y), x.size
    up_to = np.searchsorted(ordered, x, "right").sum()
    under = np.searchsorted(ordered, x, "left").sum()
    twice = 2 * size * size - int(up_to) - int(under)
    own = int(2 * np.count_nonzero(x < y) + np.count_nonzero(x == y))
    return twice / (2 * size * size), (twice - own) / (2 * size * (size - 1))


def _divide(difference: float, spread: float) -> float:
    """The quotient; infinite over a spread of 0, but 0 for no difference."""
    if not difference:
        return 0.0
    if not spread:
        return math.copysign(math.inf, difference)
    return difference / spread
