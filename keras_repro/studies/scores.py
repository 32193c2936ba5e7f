"""What scores say: of one training, and of two that share their seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keras_repro.common.checks import (
    INNER_SHARE,
    NUMBER,
    POSITIVE,
    check_int,
    check_number,
    wrong_type,
)

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the scores."""

    low: float
    high: float
    # The share of such intervals that should cover the true value.
    confidence_level: float

    def __post_init__(self) -> None:
        level = check_confidence_level(self.confidence_level)
        object.__setattr__(self, "confidence_level", level)

    @property
    def half_width(self) -> float:
        """Half of the distance between the bounds."""
        return self.high / 2 - self.low / 2


# Student, The Probable Error of a Mean, Biometrika 6(1), 1908, 1-25. It is
# exact for scores that are distributed normally; docs/trials.md has the figures
# for others. With `watched` it holds at every number of scores at once, and is
# infinite for fewer than 5 of them at 95%.
def t_interval(
    scores: npt.ArrayLike,
    *,
    confidence_level: float = 0.95,
    watched: bool = False,
) -> Interval:
    """Compute where the mean lies under other seeds: by Student's t."""
    values = check_scores(scores, at_least=2)
    confidence_level = check_confidence_level(confidence_level)
    scale = find_scale(values)
    center = compute_mean(values / scale)
    error = compute_std(values / scale) / math.sqrt(values.size)
    half = _reach(find_bound(values.size, confidence_level, watched), error)
    return Interval(
        (center - half) * scale, (center + half) * scale, confidence_level
    )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the finite ones among many scores of one training say."""

    num_scores: int  # How many are finite.
    num_missing: int  # How many are NaN or infinite.
    mean: float
    std: float  # Divided by n - 1; NaN for one score.
    median: float
    iqm: float  # The mean without the lowest and the highest quarter.
    min: float
    max: float
    interval: Interval | None  # Of the mean; `None` for one score.


# The interquartile mean is that of Agarwal et al., Deep Reinforcement Learning
# at the Edge of the Statistical Precipice, NeurIPS 2021.
def summarize(
    scores: npt.ArrayLike,
    *,
    confidence_level: float = 0.95,
    watched: bool = False,
) -> Summary:
    """Sum up the scores of many trials, of which one must be finite."""
    given = check_scores(scores, at_least=1, finite=False)
    confidence_level = check_confidence_level(confidence_level)
    values = np.sort(given[np.isfinite(given)])
    if not values.size:
        raise ValueError(
            "`scores` must hold a finite number. "
            f"Received: {given.size} scores, all NaN or infinite. "
            "Look at a single trial first: the training may have failed."
        )
    interval = None
    if values.size > 1:
        interval = t_interval(
            values, confidence_level=confidence_level, watched=watched
        )
    scale = find_scale(values)
    unit, quarter = values / scale, values.size // 4
    return Summary(
        num_scores=values.size,
        num_missing=given.size - values.size,
        mean=compute_mean(unit) * scale,
        std=compute_std(unit) * scale,
        median=float(np.median(unit)) * scale,
        iqm=compute_mean(unit[quarter : values.size - quarter]) * scale,
        min=float(values[0]),
        max=float(values[-1]),
        interval=interval,
    )


@dataclass(frozen=True, kw_only=True)
class ScoreRank:
    """Where one score stands among all."""

    rank: float  # 1.0 for the lowest; equal scores share their ranks' mean.
    # The share of lower scores, its own and equal ones counted half, from 0 to
    # 100.
    percentile: float
    # Its distance from the mean in standard deviations; NaN if all scores are
    # equal, and for one score.
    z: float


def rank_of(scores: npt.ArrayLike, index: int) -> ScoreRank:
    """Say where one score stands among all, which must be finite."""
    values = check_scores(scores, at_least=1)
    index = check_int("index", index, 0, values.size - 1)
    score = values[index]
    lower, same = np.sum(values < score), np.sum(values == score)
    below = float(lower + same / 2)
    unit = values / find_scale(values)
    gap, std = float(unit[index]) - compute_mean(unit), compute_std(unit)
    return ScoreRank(
        rank=below + 0.5,
        percentile=100 * below / values.size,
        z=gap / std if std else math.nan,
    )


# --- what the statistics share --------------------------------------------


def check_scores(
    scores: npt.ArrayLike,
    *,
    at_least: int,
    finite: bool = True,
    name: str = "scores",
) -> Scores:
    """Scores as float64, shape `(num_trials,)`; raises for all others."""
    values = check_numbers(name, scores)
    if values.ndim != 1 or values.size < at_least:
        raise ValueError(
            f"`{name}` must hold one score for each of {at_least} or more "
            f"trials. Received: scores of shape {values.shape}. Pass one "
            "dimension, and train with more seeds if there are too few."
        )
    if finite and not np.isfinite(values).all():
        place = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"`{name}` must be finite. Received: {values[place]} at position "
            f"{place}. Leave such trials out, and say how many there were."
        )
    return values


def check_numbers(name: str, values: object) -> Scores:
    """Numbers as float64, of any shape; none that are complex."""
    with suppress(Exception):  # Arrays of others raise what they like.
        given = np.asarray(values)
        # "V" is bfloat16 and its like.
        if given.dtype.kind in "biufV":
            return given.astype(np.float64)
    advice = "Pass one real number per trial."
    raise wrong_type(name, "hold numbers", values, advice)


def check_confidence_level(confidence_level: object) -> float:
    """A share strictly between 0 and 1."""
    return check_number(
        "confidence_level", confidence_level, INNER_SHARE, "Pass 0.95 for 95%."
    )


def check_margin(margin: object) -> float | None:
    """A difference above 0, or `None`."""
    if margin is None:
        return None
    advice = "Give the largest difference that does not matter to you."
    return check_number("margin", margin, POSITIVE, advice)


def find_scale(*arrays: Scores) -> float:
    """A power of two that brings scores below 2: squares stay in range."""
    largest = max(float(np.abs(one).max(initial=0.0)) for one in arrays)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0


def compute_mean(values: Scores) -> float:
    """The mean, summed exactly: the same in any order, on any machine."""
    scale = find_scale(values)
    mean = math.fsum((values / scale).tolist()) / values.size * scale
    return min(max(mean, float(values.min())), float(values.max()))


def compute_std(values: Scores) -> float:
    """The standard deviation, divided by n - 1; NaN for one score."""
    if values.size == 1:
        return math.nan
    offsets = values - compute_mean(values)
    scale = find_scale(offsets)
    squares = math.fsum(np.square(offsets / scale).tolist())
    return math.sqrt(squares / (values.size - 1)) * scale


# The variance that the mixture of a watched t test gives to the effect, in
# units of single differences: of 1 it settles earliest what 5 to 50 seeds can.
_MIXED = 1.0


def find_bound(size: int, confidence_level: float, watched: bool) -> float:
    """How many standard errors an interval reaches to either side."""
    return find_bound_of_tail(size, 1 - confidence_level, watched)


def find_bound_of_tail(size: int, tail: float, watched: bool) -> float:
    """The same by what lies outside, which may be far below 1e-16."""
    from scipy.special import stdtrit

    if not watched:
        return -float(stdtrit(size - 1, tail / 2))
    spread = 1 + size * _MIXED
    # Where the p of `find_p` is that of the tail.
    power = 2 / size * (math.log(spread) / 2 - math.log(tail))
    if power >= math.log(spread):
        return math.inf
    grown = math.expm1(power)
    return math.sqrt((size - 1) * spread * grown / (spread - 1 - grown))


def find_p(size: int, t: float, watched: bool) -> float:
    """The p of a t test, two-sided; of a watched one at every size at once."""
    from scipy.special import stdtr

    if not watched:
        return 2 * float(stdtr(size - 1, -abs(t)))
    spread, freedom = 1 + size * _MIXED, size - 1
    if math.isinf(t):
        grown = math.log(spread)
    else:
        square = t * t / freedom
        grown = math.log1p(square) - math.log1p(square / spread)
    # One over the likelihood of t with such effects, in that without any.
    return min(math.exp((math.log(spread) - size * grown) / 2), 1.0)


def _reach(bound: float, error: float) -> float:
    """Half of an interval; infinite ones too, around scores that are equal."""
    return math.inf if math.isinf(bound) else bound * error


# Two differences lie close by chance too often: they settle nothing.
FEWEST_PAIRS = 3
_MOST_PAIRS = 1_000_000
# A larger effect is shown by three, whatever the level that floats hold.
_LARGEST_EFFECT = 1e8


@dataclass(frozen=True, kw_only=True)
class PairedStatistics:
    """How two sets of scores differ that share their seeds."""

    num_pairs: int
    mean_a: float
    mean_b: float
    difference: float  # The mean of b - a.
    interval: Interval  # Where that mean lies under other seeds.
    # The standard deviation of the paired differences; of rounded scores as if
    # each were off by up to half a step.
    spread: float
    # The step by which rounded scores move, such as 1 over the number of test
    # examples; 0.0 if they are not rounded.
    resolution: float
    # Of the paired t test, two-sided, with that spread: 1.0 if all pairs are
    # equal. Of a watched study that of the sequential one.
    t_p: float
    # Of Wilcoxon's signed-rank test, two-sided; 1.0 if all pairs are equal. NaN
    # of a watched study: it holds at one look.
    wilcoxon_p: float
    # In which share of pairs of unrelated seeds b is lower, or both are equal.
    lower_rate: float
    equal_rate: float
    # The difference in standard deviations of single scores, the root mean
    # square of both; infinite if none of them varies. Then that in `spread`s.
    effect_size: float
    effect_size_paired: float

    @property
    def higher_rate(self) -> float:
        """In which share of pairs of unrelated seeds b is higher."""
        return max(1 - self.lower_rate - self.equal_rate, 0.0)

    @property
    def agree_rate(self) -> float:
        """In which share of them b lies where its mean does; equal ones not."""
        if not self.difference:
            return 0.0
        return self.lower_rate if self.difference < 0 else self.higher_rate

    @property
    def oppose_rate(self) -> float:
        """In which share of them b lies on the other side than its mean."""
        if not self.difference:
            return 0.0
        return self.higher_rate if self.difference < 0 else self.lower_rate

    @property
    def probability_a_lower(self) -> float:
        """That of a lower score in a under an unrelated seed, ties halved."""
        return self.higher_rate + self.equal_rate / 2


# What the seed moves in both alike cancels in the differences. The interval
# excludes 0 exactly where `t_p` is below 1 minus its level; Wilcoxon's p is
# exact for up to 50 pairs without ties and 13 with ties, as SciPy chooses.
# Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin 1(6),
# 1945, 80-83. Mann and Whitney, Annals of Mathematical Statistics 18(1), 1947,
# 50-60, and Vargha and Delaney, Journal of Educational and Behavioral
# Statistics 25(2), 2000, 101-132: the probability is U / (n m), their A.
# Lakens, Calculating and Reporting Effect Sizes, Frontiers in Psychology 4,
# 2013, 863: Cohen's d_av, with the root mean square for the average, and d_z.
def compare_paired(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    confidence_level: float = 0.95,
    watched: bool = False,
) -> PairedStatistics:
    """Compare two sets of finite scores that share their seeds, two or more."""
    x, y = _check_pairs(a, b)
    level = check_confidence_level(confidence_level)
    scale = find_scale(x, y)
    x, y = x / scale, y / scale
    single = math.hypot(compute_std(x), compute_std(y)) / math.sqrt(2)
    means = compute_mean(x) * scale, compute_mean(y) * scale
    x, y, step = _count_steps(x, y)
    gaps = y - x
    difference, spread = compute_mean(gaps), _find_spread(gaps, step)
    error = spread / math.sqrt(gaps.size)
    half = _reach(find_bound(gaps.size, level, watched), error)
    lower, equal = _compare_singles(x, y)
    unit = step or 1.0

    def measure(number: float) -> float:
        return number * unit * scale  # Of steps, in the unit of the scores.

    low, high = measure(difference - half), measure(difference + half)
    return PairedStatistics(
        num_pairs=x.size,
        mean_a=means[0],
        mean_b=means[1],
        difference=measure(difference),
        interval=Interval(low, high, level),
        spread=measure(spread),
        resolution=step * scale,
        t_p=find_p(gaps.size, _divide(difference, error), watched),
        wilcoxon_p=math.nan if watched else _test_wilcoxon(x, y),
        lower_rate=lower,
        equal_rate=equal,
        effect_size=_divide(difference * unit, single),
        effect_size_paired=_divide(difference, spread),
    )


def _count_steps(x: Scores, y: Scores) -> tuple[Scores, Scores, float]:
    """Rounded scores as whole numbers of their step, which is 0.0 of others."""
    step = find_resolution(np.concatenate([x, y]))
    if not step:
        return x, y, step
    lowest = min(x.min(), y.min())
    return np.rint((x - lowest) / step), np.rint((y - lowest) / step), step


def _find_spread(gaps: Scores, step: float) -> float:
    # A rounded score may be off by half a step, evenly: a variance of 1/12.
    return math.hypot(compute_std(gaps), 1 / math.sqrt(6) if step else 0.0)


def _check_pairs(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Scores, Scores]:
    x = check_scores(a, at_least=2, name="a")
    y = check_scores(b, at_least=2, name="b")
    if x.size != y.size:
        raise ValueError(
            "`a` and `b` must hold scores of the same seeds. "
            f"Received: {x.size} and {y.size} scores. "
            "Keep the seeds that both have."
        )
    return x, y


_NOISE = 2.0**-22  # Of scores that are float32: four times their last bit.
_NOISE_OF_GAPS = 2.0**-48  # In scores: sixteen times their last bit.


# An accuracy over 500 examples moves by steps of 0.002: the largest by which
# one comes from any score to any other, but for the last bits that float32
# holds. Steps that are not far larger than these are none.
def find_resolution(scores: Scores) -> float:
    """The step of the grid on which rounded scores lie; 0.0 if on none."""
    values = np.unique(scores)
    values = values[np.argsort(np.abs(values), kind="stable")]
    # Each score has noise of its own: a large one hides no small ones.
    noise = 2 * _NOISE * np.abs(values)
    offsets = np.abs(values - values[:1])
    span, least = float(offsets.max(initial=0.0)), 32 * noise.max(initial=0.0)
    if span <= least:
        return 0.0
    allowed = noise + noise.max() * offsets / span
    counts = np.arange(1.0, span / least + 1)
    for offset, most in zip(offsets.tolist(), allowed.tolist(), strict=True):
        places = offset / span * counts
        off = np.abs(places - np.rint(places)) * (span / counts)
        counts = counts[off <= most]
        if not counts.size:
            return 0.0
    return span / float(counts[0])


# Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition,
# 1988, ch. 2: the power by the noncentral t distribution. Siegmund, Sequential
# Analysis, 1985, ch. 3: how often a straight boundary is crossed. Exact for
# normal differences, about right where they are watched.
def count_needed_pairs(
    effect_size_paired: float,
    *,
    power: float = 0.8,
    confidence_level: float = 0.95,
    watched: bool = False,
) -> int | None:
    """Count the pairs that would show an effect; `None` if over 1,000,000."""
    confidence_level = check_confidence_level(confidence_level)
    power = check_number("power", power, INNER_SHARE, "Pass 0.8 for 80%.")
    effect_size_paired = check_number(
        "effect_size_paired",
        effect_size_paired,
        NUMBER,
        "Pass what `compare_paired` gives.",
    )
    effects = [abs(effect_size_paired)]
    return count_pairs(effects, power, confidence_level, watched)


def count_pairs(
    effects: Iterable[float],
    power: float,
    confidence_level: float,
    watched: bool,
) -> int | None:
    """Count the pairs that would show all of some effects above 0 at once."""
    sizes = [min(one, _LARGEST_EFFECT) for one in effects]

    def suffices(num_pairs: int) -> bool:
        # NaN, if SciPy should give it, is never enough.
        bound = find_bound(num_pairs, confidence_level, watched)
        # At least so often as each is shown less what may go wrong with the
        # others.
        found = 1.0
        for effect in sizes:
            shown = _compute_power(num_pairs, effect, bound)
            if watched:
                shown += _compute_earlier(num_pairs, effect, bound)
            found -= 1 - shown
        return found >= power

    return find_smallest(suffices)


def find_smallest(suffices: Callable[[int], bool]) -> int | None:
    """The smallest number of pairs that is enough, if there is one."""
    too_few, enough = FEWEST_PAIRS - 1, FEWEST_PAIRS
    # Not from the top: the distribution is hard to compute far out.
    while not suffices(enough):
        if enough >= _MOST_PAIRS:
            return None
        too_few, enough = enough, min(2 * enough, _MOST_PAIRS)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if suffices(middle):
            enough = middle
        else:
            too_few = middle
    return enough


def _compute_power(num_pairs: int, effect: float, bound: float) -> float:
    """How often t lies beyond a bound, for an effect above 0."""
    from scipy.stats import nct

    if math.isinf(bound):
        return 0.0
    freedom, shift = num_pairs - 1, effect * math.sqrt(num_pairs)
    # SciPy's lower tail is NaN far out; mirrored it is the upper one.
    return float(nct.sf(bound, freedom, shift) + nct.sf(bound, freedom, -shift))


def _compute_earlier(num_pairs: int, effect: float, bound: float) -> float:
    """About how often t was beyond the bound before, and no longer is."""
    from scipy.special import log_ndtr

    shift = effect * math.sqrt(num_pairs)
    if math.isinf(bound):
        return 0.0
    # That of a Brownian motion with a drift beyond the tangent of its boundary.
    power = bound * shift - bound**2 / 2 + float(log_ndtr(-shift))
    return math.exp(min(power, 0.0))


def _test_wilcoxon(x: Scores, y: Scores) -> float:
    from scipy.stats import wilcoxon

    gaps = y - x
    sizes = np.abs(gaps)
    order = np.argsort(sizes, kind="stable")
    noise = _NOISE_OF_GAPS * np.maximum(np.abs(x), np.abs(y))[order]
    # Those that agree but for their last bits are ties, so only ranks go in.
    apart = np.diff(sizes[order], prepend=0.0) > noise
    ranks = np.empty(len(gaps))
    ranks[order] = np.cumsum(apart)
    if not ranks.any():
        return 1.0
    return float(wilcoxon(np.copysign(ranks, gaps)).pvalue)


def _compare_singles(x: Scores, y: Scores) -> tuple[float, float]:
    """The shares of pairs of unrelated seeds with y below x, and y equal."""
    ordered, number = np.sort(y), x.size * (x.size - 1)
    up_to = int(np.searchsorted(ordered, x, "right").sum())
    under = int(np.searchsorted(ordered, x, "left").sum())
    lower = under - np.count_nonzero(y < x)
    equal = up_to - under - np.count_nonzero(y == x)
    return int(lower) / number, int(equal) / number


def _divide(difference: float, spread: float) -> float:
    """The quotient; infinite over a spread of 0, but 0 for no difference."""
    if not difference:
        return 0.0
    if not spread:
        return math.copysign(math.inf, difference)
    return difference / spread
