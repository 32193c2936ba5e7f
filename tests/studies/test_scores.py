"""What many scores say, against SciPy, published examples and simulation."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from keras_repro.studies import scores as scores_module
from keras_repro.studies.scores import (
    Interval,
    compare_paired,
    count_needed_pairs,
    rank_of,
    summarize,
    t_interval,
)

stats = pytest.importorskip("scipy.stats")

# Of any size that a training gives, and equal ones among them.
SCORES = st.lists(
    st.one_of(
        st.floats(-1e300, 1e300),
        st.floats(-10, 10),
        st.integers(-3, 3).map(float),
    ),
    min_size=2,
    max_size=12,
)
ORDINARY = st.lists(st.integers(-1000, 1000), min_size=2, max_size=12)

# Student's sleep data, Biometrika 6(1), 1908: hours gained with two drugs.
SLEEP_A = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_B = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Lakens, Frontiers in Psychology 4, 2013, 863: two films, ten viewers.
FILM_1 = [9, 7, 8, 9, 8, 9, 9, 10, 9, 9]
FILM_2 = [9, 6, 7, 8, 7, 9, 8, 8, 8, 7]
# Hollander and Wolfe, Nonparametric Statistical Methods, 1973: depression at
# two visits, as in the example of R's `wilcox.test`.
VISIT_1 = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
VISIT_2 = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def draw(size, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, size=size)


def bounds(interval):
    return interval.low, interval.high


# --- the interval ---------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 5])
def test_global_random_state_is_left_alone(seed):
    """NumPy's global generator is neither read nor changed."""
    np.random.seed(seed)
    before = pickle.dumps(np.random.get_state())
    a, b = np.round(draw(12), 1), np.round(draw(12, 1), 1)
    found = summarize(a), compare_paired(a, b)
    assert pickle.dumps(np.random.get_state()) == before
    np.random.random(3)
    assert pickle.dumps(np.random.get_state()) != before
    assert (summarize(a), compare_paired(a, b)) == found


@given(SCORES, st.sampled_from([1e-9, 0.5, 0.95, 1 - 1e-9]))
@example([0.1] * 3, 0.95)
@example([1.0, 1.0 + 2**-52], 0.95)
@example([5e-324, 0.0], 0.95)
@example([-1.7e308, 1.7e308], 0.95)
@example([0.0] * 11 + [1e300], 1e-9)
def test_intervals_are_in_order_and_hold_the_mean(scores, level):
    """Lower bound, mean, upper bound; within the range is the mean alone."""
    found = summarize(scores, confidence_level=level)
    assert found.min <= found.mean <= found.max
    assert found.interval.low <= found.mean <= found.interval.high
    assert found.interval == t_interval(scores, confidence_level=level)


@given(ORDINARY, st.integers(-20, 20), st.integers(-1000, 1000))
def test_intervals_move_with_the_scores(scores, power, shift):
    """Twice the scores, twice the bounds; scores moved, bounds moved."""
    scores = np.array(scores, float)
    found = t_interval(scores)
    scale = 2.0**power
    scaled = t_interval(scores * scale)
    assert bounds(scaled) == (found.low * scale, found.high * scale)
    moved = t_interval(scores + shift)
    assert bounds(moved) == pytest.approx(
        (found.low + shift, found.high + shift), abs=1e-9
    )


@given(st.permutations(range(12)))
def test_order_of_the_trials_does_not_matter(order):
    """The same scores in another order say the same, to the last bit."""
    scores = np.random.default_rng(0).lognormal(size=12)
    assert summarize(scores[order]) == summarize(scores)
    assert summarize(scores[:-1]) != summarize(scores)


@pytest.mark.parametrize("score", [0.1, 0.0, -3.0, 1e300, 5e-324])
@pytest.mark.parametrize("size", [2, 3, 10])
def test_equal_scores_give_a_point(score, size):
    """Scores that are all equal have no spread, to the last bit."""
    found = summarize([score] * size)
    assert bounds(found.interval) == (score, score)
    assert (found.mean, found.std, found.iqm) == (score, 0.0, score)
    assert found.interval.half_width == 0.0
    assert bounds(t_interval([score] * size)) == (score, score)
    other = summarize([score] * size + [score + 1 + abs(score)])
    assert other.std > 0
    assert other.interval.half_width > 0


def test_t_interval_is_that_of_scipy():
    """Student's own interval, and his own example."""
    scores = draw(7)
    for level in (0.5, 0.95, 0.999):
        expected = stats.t.interval(
            level, 6, scores.mean(), scores.std(ddof=1) / math.sqrt(7)
        )
        found = t_interval(scores, confidence_level=level)
        assert bounds(found) == pytest.approx(expected)
    gaps = np.subtract(SLEEP_B, SLEEP_A)
    found = t_interval(gaps)
    # As in the example of R's `t.test`.
    assert bounds(found) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert found.half_width == pytest.approx(0.8798858, abs=1e-7)
    assert bounds(t_interval(SLEEP_A)) != bounds(found)


# --- coverage -------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("level", [0.95, 0.99, 0.995])
def test_interval_covers_the_mean_as_often_as_it_says(size, level):
    """Of few normal scores too, and at the levels that families need."""
    scores = np.random.default_rng(size).normal(size=(40_000, size))
    center, error = scores.mean(1), scores.std(1, ddof=1) / math.sqrt(size)
    found = [t_interval(one, confidence_level=level) for one in scores[:50]]
    half = stats.t.isf((1 - level) / 2, size - 1) * error
    assert [one.high for one in found] == pytest.approx((center + half)[:50])
    allowed = 2 * math.sqrt(level * (1 - level) / 40_000)
    missed = np.mean(np.abs(center) > half)
    assert missed <= 1 - level + allowed
    # The normal quantile, as if the spread were known, misses far more.
    plain = stats.norm.isf((1 - level) / 2) * error
    assert np.mean(np.abs(center) > plain) > 2 * (1 - level)


@pytest.mark.parametrize("size", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("t", [0.0, 1.5, 3.0, 9.0])
def test_watched_p_is_one_over_the_evidence(size, t):
    """How much likelier t is where the effect is drawn from N(0, 1)."""
    places = np.linspace(-14, 14, 20_001)
    density = stats.nct.pdf(t, size - 1, places * math.sqrt(size))
    mixed = np.trapezoid(density * stats.norm.pdf(places), places)
    expected = min(stats.t.pdf(t, size - 1) / mixed, 1.0)
    found = scores_module.find_p(size, t, watched=True)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > scores_module.find_p(size, t, watched=False) or t == 0


@pytest.mark.parametrize("level", [0.8, 0.95, 0.995])
def test_watched_interval_excludes_what_its_p_refutes(level):
    """The bound is where p is 1 minus the level, and infinite before."""
    for size in range(2, 200):
        bound = scores_module.find_bound(size, level, watched=True)
        if math.isinf(bound):
            assert scores_module.find_p(size, 1e9, watched=True) > 1 - level
        else:
            found = scores_module.find_p(size, bound, watched=True)
            assert found == pytest.approx(1 - level)
    finite = [
        size
        for size in range(2, 20)
        if math.isfinite(scores_module.find_bound(size, 0.95, watched=True))
    ]
    assert finite[0] == 5


def test_watched_interval_is_the_asymptotic_one_of_many_scores():
    """That of Waudby-Smith and others, for a mixture of variance 1."""
    for size in (1_000, 100_000):
        margin = math.sqrt(
            2 * (size + 1) / size**2 * math.log(math.sqrt(size + 1) / 0.05)
        )
        found = scores_module.find_bound(size, 0.95, watched=True)
        assert found / math.sqrt(size) == pytest.approx(margin, rel=5 / size)


@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_watched_studies_are_mistaken_as_seldom_as_they_say(kind):
    """Asked at each number of pairs up to 60, though nothing differs."""
    rng = np.random.default_rng(0)
    draw_scores = getattr(rng, kind)
    gaps = draw_scores(size=(2000, 60)) - draw_scores(size=(2000, 60))
    wrong = {True: np.zeros(2000, bool), False: np.zeros(2000, bool)}
    for size in range(3, 61):
        seen = gaps[:, :size]
        error = seen.std(1, ddof=1) / math.sqrt(size)
        for watched, found in wrong.items():
            bound = scores_module.find_bound(size, 0.95, watched)
            found |= np.abs(seen.mean(1)) > bound * error
        one = t_interval(seen[7], watched=True)
        bound = scores_module.find_bound(size, 0.95, watched=True)
        reach = bound * error[7]
        assert one.half_width == pytest.approx(reach)
    assert wrong[True].mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)
    # The twin: intervals of a fixed number are not made for it.
    assert wrong[False].mean() > 0.15


def test_watched_pairs_that_are_enough_are_enough():
    """Of so many watched studies 80% have been settled, and of fewer less."""
    number = count_needed_pairs(0.5, watched=True)
    assert number > count_needed_pairs(0.5)
    rng = np.random.default_rng(1)
    gaps = rng.normal(0.5, size=(2000, number))
    settled = np.zeros(2000, bool)
    shares = []
    for size in range(3, number + 1):
        seen = gaps[:, :size]
        error = seen.std(1, ddof=1) / math.sqrt(size)
        bound = scores_module.find_bound(size, 0.95, watched=True)
        settled |= np.abs(seen.mean(1)) > bound * error
        shares.append(settled.mean())
    assert shares[-1] == pytest.approx(0.8, abs=0.03)
    assert shares[number // 2] < 0.6


# --- the summary ----------------------------------------------------------


@given(ORDINARY)
def test_summary_is_that_of_scipy(scores):
    """Mean, standard deviation, median and interquartile mean."""
    found = summarize(scores)
    values = np.array(scores, float)
    assert found.num_scores == len(scores)
    assert found.num_missing == 0
    expected = (
        values.mean(),
        values.std(ddof=1),
        np.median(values),
        stats.trim_mean(values, 0.25),
        values.min(),
        values.max(),
    )
    assert (
        found.mean,
        found.std,
        found.median,
        found.iqm,
        found.min,
        found.max,
    ) == pytest.approx(expected, abs=1e-9)
    assert found.interval == t_interval(scores)


def test_scores_that_are_missing_are_counted():
    """NaN and infinities are left out, and the summary says how many."""
    found = summarize([math.nan, 1.0, math.inf, 2.0, 4.0, -math.inf])
    assert found.num_missing == 3
    assert dataclasses.replace(found, num_missing=0) == summarize([1, 2, 4])
    assert found != summarize([1.0, 2.0, 4.0])


def test_one_score_has_no_spread():
    """One score has a mean, but neither a deviation nor an interval."""
    found = summarize([math.nan, 0.1])
    assert (found.mean, found.median, found.iqm) == (0.1, 0.1, 0.1)
    assert (found.min, found.max, found.num_scores) == (0.1, 0.1, 1)
    assert math.isnan(found.std)
    assert found.interval is None
    assert summarize([0.1, 0.2]).interval is not None


@given(ORDINARY, st.data())
def test_rank_is_that_of_scipy(scores, data):
    """Rank, percentile and z of one score among all."""
    index = data.draw(st.integers(0, len(scores) - 1))
    found = rank_of(scores, index)
    assert found.rank == stats.rankdata(scores)[index]
    assert found.percentile == pytest.approx(
        stats.percentileofscore(scores, scores[index], kind="mean")
    )
    if len(set(scores)) > 1:
        z = stats.zscore(np.array(scores, float), ddof=1)[index]
        assert found.z == pytest.approx(z, abs=1e-9)
    else:
        assert math.isnan(found.z)
    assert isinstance(found.rank, float)


def test_rank_of_a_single_score():
    """It is the first of one, and no deviations away."""
    found = rank_of([3.0], 0)
    assert (found.rank, found.percentile) == (1.0, 50.0)
    assert math.isnan(found.z)
    assert rank_of([3.0, 4.0], 0).z == pytest.approx(-math.sqrt(0.5))


# --- pairs ----------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 12, 40, 200])
@pytest.mark.parametrize("digits", [1, 9])
def test_paired_tests_are_those_of_scipy(size, digits):
    """Paired t, Wilcoxon and Mann-Whitney, with ties and without."""
    a = np.round(draw(size, 1), digits)
    b = np.round(a + draw(size, 2, 0.3), digits)
    found = compare_paired(a, b)
    step = 10.0**-digits if digits == 1 else 0.0
    assert found.resolution == pytest.approx(step)
    error = math.sqrt(((b - a).var(ddof=1) + step**2 / 6) / size)
    p = 2 * stats.t.sf(abs((b - a).mean()) / error, size - 1)
    assert found.t_p == pytest.approx(p)
    if not step:
        assert p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.wilcoxon_p == pytest.approx(
        stats.wilcoxon(np.round(b - a, digits)).pvalue
    )
    u = stats.mannwhitneyu(b, a).statistic
    own = np.count_nonzero(a < b) + np.count_nonzero(a == b) / 2
    # Of unrelated seeds alone: U without the pairs of one seed.
    expected = (u - own) / (size * (size - 1))
    assert found.probability_a_lower == pytest.approx(expected)
    assert (found.num_pairs, found.mean_a) == (size, pytest.approx(a.mean()))
    assert found.mean_b == pytest.approx(b.mean())
    assert found.difference == pytest.approx((b - a).mean())
    other = compare_paired(a, np.roll(b, 1))
    assert other.t_p != found.t_p
    assert other.difference == pytest.approx(found.difference)


def test_interval_is_that_of_the_differences():
    """Student's, of b - a."""
    a, b = draw(10), draw(10, 1)
    found = compare_paired(a, b, confidence_level=0.9)
    expected = t_interval(b - a, confidence_level=0.9)
    assert bounds(found.interval) == pytest.approx(bounds(expected))
    assert found.interval.confidence_level == 0.9
    assert found.interval.half_width > 0


def test_published_examples():
    """Student 1908, Hollander and Wolfe 1973, and Lakens 2013."""
    sleep = compare_paired(SLEEP_A, SLEEP_B)
    assert round(sleep.difference, 2) == 1.58
    # His p is 0.002833; ours knows that the hours are rounded to tenths.
    assert round(sleep.t_p, 4) == 0.0028
    visits = compare_paired(VISIT_1, VISIT_2)
    assert round(visits.wilcoxon_p, 5) == 0.03906
    films = compare_paired(FILM_2, FILM_1)
    # His p is 0.001 and his d_z 1.50; these know of whole points alone.
    assert (films.difference, round(films.t_p, 3)) == (1.0, 0.003)
    gaps = np.subtract(FILM_1, FILM_2)
    assert round(1 / gaps.std(ddof=1), 2) == 1.50
    expected = 1 / math.sqrt(gaps.var(ddof=1) + 1 / 6)
    assert films.effect_size_paired == pytest.approx(expected)
    assert round(films.effect_size, 2) == 1.13
    assert compare_paired(FILM_1, FILM_2).effect_size == -films.effect_size


@given(
    st.lists(
        st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
        min_size=2,
        max_size=7,
    )
)
def test_shares_are_those_counted_one_by_one(pairs):
    """All shares, counted over pairs of unrelated seeds one by one."""
    a, b = np.array(pairs, float).T
    found = compare_paired(a, b)
    signs = np.sign(b[None, :] - a[:, None])
    signs = signs[~np.eye(len(a), dtype=bool)]
    assert found.lower_rate == pytest.approx(np.mean(signs < 0))
    assert found.equal_rate == pytest.approx(np.mean(signs == 0))
    assert found.higher_rate == pytest.approx(np.mean(signs > 0))
    expected = (signs.mean() + 1) / 2
    assert found.probability_a_lower == pytest.approx(expected)
    side = np.sign((b - a).mean())
    expected = np.mean(signs == side) if side else 0.0
    assert found.agree_rate == pytest.approx(expected)
    expected = np.mean(signs == -side) if side else 0.0
    assert found.oppose_rate == pytest.approx(expected)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-3, 3), st.floats(-1e308, 1e308)),
            st.one_of(st.integers(-3, 3), st.floats(-1e308, 1e308)),
        ),
        min_size=2,
        max_size=7,
    )
)
@example([(0.1, 0.2), (0.2, 0.3), (0.3, 0.4)])
@example([(1e308, -1e308), (-1e308, 1e308)])
@example([(1.0, 1.0), (0.0, 1e-200)])
def test_swapped_studies_mirror_each_other(pairs):
    """What b against a says is mirrored by a against b, all else equal."""
    a, b = np.array(pairs, float).T
    there, back = compare_paired(a, b), compare_paired(b, a)
    assert there.difference == -back.difference
    assert there.interval.low <= there.difference <= there.interval.high
    assert (there.mean_a, there.mean_b) == (back.mean_b, back.mean_a)
    assert there.t_p == back.t_p
    assert there.wilcoxon_p == pytest.approx(back.wilcoxon_p)
    assert there.effect_size == -back.effect_size
    assert there.effect_size_paired == -back.effect_size_paired
    total = there.probability_a_lower + back.probability_a_lower
    assert total == pytest.approx(1)
    assert there.agree_rate == pytest.approx(back.agree_rate)
    for share in (there.t_p, there.wilcoxon_p, there.agree_rate):
        assert 0 <= share <= 1


@pytest.mark.slow
@given(ORDINARY, st.integers(-10, 10), st.integers(-100, 100))
def test_a_comparison_moves_with_the_scores(scores, power, shift):
    """Only what has a unit changes when both studies are scaled and moved."""
    a = np.array(scores, float)
    b = a[::-1] + np.arange(len(a))
    assume(np.ptp(b - a) > 0)
    plain = compare_paired(a, b)
    scale = 2.0**power
    found = compare_paired((a + shift) * scale, (b + shift) * scale)
    assert found.difference == pytest.approx(plain.difference * scale)
    for name in (
        "t_p",
        "wilcoxon_p",
        "lower_rate",
        "equal_rate",
        "effect_size",
        "effect_size_paired",
    ):
        assert getattr(found, name) == pytest.approx(getattr(plain, name))


def test_equal_pairs():
    """Studies that are the same differ in nothing."""
    scores = [0.1, 0.2, 0.3]
    found = compare_paired(scores, scores)
    assert found.difference == 0.0
    # They are rounded: each might be off by half of 0.1.
    half = stats.t.isf(0.025, 2) * 0.1 / math.sqrt(18)
    assert bounds(found.interval) == pytest.approx((-half, half))
    exact = compare_paired(draw(9), draw(9))
    assert bounds(exact.interval) == (0.0, 0.0)
    assert (found.t_p, found.wilcoxon_p) == (1.0, 1.0)
    assert (found.effect_size, found.effect_size_paired) == (0.0, 0.0)
    assert (found.probability_a_lower, found.agree_rate) == (0.5, 0.0)


def test_pairs_that_differ_by_a_constant():
    """Scores that were not rounded and differ alike leave nothing open."""
    a = draw(8)
    found = compare_paired(a, a - 1)
    assert bounds(found.interval) == pytest.approx((-1.0, -1.0))
    assert found.t_p < 1e-40
    assert found.resolution == 0.0
    assert found.wilcoxon_p == pytest.approx(2**-7)
    # Their squares are below what a float can hold.
    b = np.where(np.arange(8), a, 1e-200)
    tiny = compare_paired(np.where(np.arange(8), a, 0.0), b)
    assert tiny.t_p == pytest.approx(2 * stats.t.sf(1, 7))


@pytest.mark.parametrize("unit", [1.0, 100.0, 1e-9, 1e12])
def test_rounded_scores_prove_no_more_than_their_steps(unit):
    """One and the same difference of a step in three pairs settles nothing."""
    a = np.array([0.90, 0.91, 0.92])
    one = compare_paired(unit * a, unit * (a + 0.01))
    assert one.resolution == pytest.approx(0.01 * unit)
    assert one.spread == pytest.approx(0.01 * unit / math.sqrt(6))
    # As three pairs one step apart do, were each off by half a step.
    p = 2 * stats.t.sf(math.sqrt(3 * 6), 2)
    assert one.t_p == pytest.approx(p, rel=1e-4)
    assert p > 0.05
    assert one.interval.low < 0 < one.interval.high
    # The twin: without the steps nothing would be left open.
    noisy = unit * (a + np.array([0.0003141, 0.0002718, 0.0001618]))
    assert compare_paired(noisy, noisy + 0.01 * unit).t_p < 1e-12
    # Three steps are more than one.
    three = compare_paired(unit * a, unit * (a + 0.03))
    assert 0.001 < three.t_p < 0.01


@pytest.mark.parametrize("steps", [7, 33, 500, 1000, 10_000, 30_000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unit", [1, 100])
def test_resolution_is_one_over_the_number_of_examples(steps, dtype, unit):
    """Found in accuracies over so many examples, as fractions or percents."""
    counts = np.random.default_rng(steps).integers(steps // 2, steps, 10)
    counts[:2] = steps // 2, steps // 2 + 1
    scores = unit * (counts / steps).astype(dtype).astype(float)
    found = scores_module.find_resolution(scores)
    assert found == pytest.approx(unit / steps, rel=1e-3)
    others = np.random.default_rng(steps).uniform(0.5, 1, 10).astype(dtype)
    assert scores_module.find_resolution(unit * others.astype(float)) == 0.0


@pytest.mark.parametrize("outlier", [1e3, 1e6, 1e12, -1e6])
def test_a_score_far_off_hides_no_others(outlier):
    """A trial that diverged is a score, not the step of the others."""
    a, b = draw(6) / 7 + 0.9, draw(6, 1) / 7 + 0.9
    a[2], b[4] = outlier, 1.1 * outlier
    found = compare_paired(a, b)
    assert found.resolution == 0.0
    assert found.t_p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(b - a).pvalue)
    assert found.equal_rate == 0.0
    # Rounded scores far apart are still on their grid, if floats hold it.
    rounded = np.array([0.91, 0.93, 0.9, -7.5])
    found = scores_module.find_resolution(rounded)
    assert found == pytest.approx(0.01)


def test_gaps_that_agree_but_for_their_last_bits_are_ties():
    """Wilcoxon's p is the same for fractions and for percents."""
    a = np.array([0.93, 0.94, 0.91, 0.95, 0.90, 0.92, 0.96])
    b = np.array([0.97, 0.98, 0.90, 0.97, 0.94, 0.89, 0.94])
    steps = np.array([4, 4, -1, 2, 4, -3, -2])
    expected = stats.wilcoxon(steps).pvalue
    for unit in (1.0, 100.0, 1 / 3):
        found = compare_paired(unit * a, unit * b).wilcoxon_p
        assert found == pytest.approx(expected)
    # The twin: taken as they are, the gaps are no ties.
    assert stats.wilcoxon(b - a).pvalue != pytest.approx(expected)
    # Where all agree but for their last bits there is no rank at all.
    last = compare_paired(a + 1 / 3, np.nextafter(a + 1 / 3, 9))
    assert (last.wilcoxon_p, last.interval.low < 0) == (1.0, True)
    # Scores that were not rounded may have equal gaps too.
    noise = draw(7) / 7
    found = compare_paired(noise, noise + steps * math.pi).wilcoxon_p
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("effect", "options", "expected"),
    [
        # Cohen 1988: small, medium and large, two-sided 5%, power 80%.
        (0.2, {}, 199),
        (0.5, {}, 34),
        (0.8, {}, 15),
        (-0.5, {}, 34),
        (0.5, {"power": 0.95}, 54),
        (0.5, {"confidence_level": 0.99}, 51),
        (math.inf, {}, 3),
        (1e300, {}, 3),
        (0.0, {}, None),
        (1e-300, {}, None),
        (0.002, {}, None),
    ],
)
def test_needed_pairs(effect, options, expected):
    """The published numbers of pairs, and the ends of the scale."""
    assert count_needed_pairs(effect, **options) == expected


def power_of(size, effect, level=0.95):
    """The power by its definition: over all spreads that pairs may have."""
    freedom, shift = size - 1, effect * math.sqrt(size)
    bound = stats.t.isf((1 - level) / 2, freedom)
    shares = (np.arange(20_000) + 0.5) / 20_000
    spreads = np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)
    upper = stats.norm.sf(bound * spreads - shift)
    return np.mean(upper + stats.norm.cdf(-bound * spreads - shift))


@pytest.mark.parametrize("effect", [0.05, 0.3, 1.0, 3.0, 5.0, 8.0, 30.0])
@pytest.mark.parametrize("power", [0.06, 0.8, 0.99])
@pytest.mark.parametrize("level", [0.95, 0.99, 0.9975])
def test_needed_pairs_are_the_fewest(effect, power, level):
    """That many pairs reach the power, and one less does not."""
    found = count_needed_pairs(effect, power=power, confidence_level=level)
    assert power_of(found, effect, level) >= power - 2e-4
    assert found == 3 or power_of(found - 1, effect, level) < power + 2e-4


def test_what_scipy_cannot_compute_is_not_enough(monkeypatch):
    """Its lower tail is NaN for 3 pairs of this effect, whose power is .53."""
    assert power_of(3, 5, 0.99) == pytest.approx(0.53, abs=0.005)
    assert count_needed_pairs(5, confidence_level=0.99) == 4
    monkeypatch.setattr(scores_module, "_compute_power", lambda *_: math.nan)
    assert count_needed_pairs(5, confidence_level=0.99) is None


def test_needed_pairs_are_enough_in_a_simulation():
    """With 15 pairs a large effect is shown in about 80 of 100 studies."""
    gaps = np.random.default_rng(0).normal(0.8, size=(4000, 15))
    shown = stats.ttest_1samp(gaps, 0, axis=1).pvalue < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.03)
    fewer = stats.ttest_1samp(gaps[:, :9], 0, axis=1).pvalue < 0.05
    assert fewer.mean() < 0.6


def test_ten_thousand_trials_stay_small():
    """Memory does not grow with scores times resamples."""
    import tracemalloc

    a, b = draw(10_000), draw(10_000, 1)
    tracemalloc.start()
    try:
        compare_paired(a, b)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6


# --- what is refused ------------------------------------------------------


VALUES = [
    (t_interval, ([1.0],), {}, r"2 or more.*\(1,\)"),
    (t_interval, ([[1, 2]],), {}, r"\(1, 2\)"),
    (t_interval, ([1, math.nan],), {}, "nan at position 1"),
    (t_interval, (3.0,), {}, r"shape \(\)"),
    (t_interval, ([math.inf, 1],), {}, "inf at position 0"),
    (summarize, ([],), {}, "1 or more"),
    (summarize, ([math.nan] * 2,), {}, "2 scores, all NaN"),
    (rank_of, ([1, math.nan], 0), {}, "`scores` must be finite"),
    (rank_of, ([1, 2], 2), {}, "`index` must be an integer from 0 to 1"),
    (rank_of, ([1, 2], -1), {}, "Received: -1"),
    (compare_paired, ([1], [2]), {}, "`a` must hold"),
    (compare_paired, ([1, 2], [2]), {}, "`b` must hold"),
    (compare_paired, ([1, 2], [2, 3, 4]), {}, "2 and 3 scores"),
    (compare_paired, ([1, 2], [2, math.nan]), {}, "`b` must be finite.*nan"),
    (count_needed_pairs, (math.nan,), {}, "must be a number.*nan"),
    (count_needed_pairs, (1,), {"power": 1}, "`power` must be a num"),
]
TYPES = [
    (t_interval, (["1", "2"],), {}, "numbers.*'1'"),
    (t_interval, ([1j, 2],), {}, "numbers.*1j"),
    (t_interval, ([None, 2],), {}, "numbers.*None"),
    (t_interval, ([[1], [1, 2]],), {}, r"numbers.*\[\[1\], \[1, 2\]\]"),
    (rank_of, ([1, 2], 0.0), {}, "`index` must be an int"),
]


@pytest.mark.parametrize(("call", "args", "options", "message"), VALUES)
def test_wrong_values_are_refused(call, args, options, message):
    """The error names the argument, what came, and what to do."""
    with pytest.raises(ValueError, match=message) as raised:
        call(*args, **options)
    assert "Received: " in str(raised.value)


@pytest.mark.parametrize(("call", "args", "options", "message"), TYPES)
def test_wrong_types_are_refused(call, args, options, message):
    """Text that looks like numbers, and what is no real number."""
    with pytest.raises(TypeError, match=message) as raised:
        call(*args, **options)
    assert "Received: " in str(raised.value)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan])
@pytest.mark.parametrize(
    ("call", "args"),
    [
        (Interval, (0.0, 1.0)),
        (t_interval, ([1, 2],)),
        (summarize, ([1],)),
        (compare_paired, ([1, 2], [2, 4])),
        (count_needed_pairs, (0.5,)),
    ],
)
def test_confidence_levels_lie_between_0_and_1(call, args, level):
    """Both ends are refused, and so are percentages."""
    with pytest.raises(ValueError, match=r"`confidence_level`.*Received"):
        call(*args, confidence_level=level)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "bool"])
def test_scores_of_any_dtype(dtype):
    """Scores count by their values, whatever holds them."""
    scores = np.array([0, 1, 1, 0, 1]).astype(dtype)
    assert summarize(scores) == summarize([0.0, 1.0, 1.0, 0.0, 1.0])
    assert summarize(scores) != summarize([0.0, 1.0, 1.0, 1.0, 1.0])
