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
    adjust_holm,
    bootstrap_interval,
    check_resampling,
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
FEW = {"num_resamples": 200}

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


@pytest.mark.parametrize("size", [5, 30, 200])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.995])
def test_bootstrap_is_that_of_scipy_stretched(size, level):
    """SciPy's percentile interval, its bounds moved by the known factor."""
    scores = np.sort(np.random.default_rng(size).lognormal(size=size))
    plain = stats.bootstrap(
        (scores,),
        np.mean,
        method="percentile",
        confidence_level=level,
        n_resamples=999,
        rng=np.random.default_rng(7),
    ).confidence_interval
    tail = (1 - level) / 2
    factor = stats.t.isf(tail, size - 1) / stats.norm.isf(tail)
    factor *= math.sqrt(size / (size - 1))
    mean = scores.mean()
    found = bootstrap_interval(
        scores, confidence_level=level, num_resamples=999, seed=7
    )
    assert bounds(found) == pytest.approx(
        (
            mean + factor * (plain.low - mean),
            mean + factor * (plain.high - mean),
        )
    )
    assert found.confidence_level == level
    assert found.low < plain.low
    assert found.high > plain.high


def test_factor_is_that_of_hesterberg():
    """It matches his expanded percentiles, where these are within range."""
    scores = draw(40)
    tail = stats.norm.cdf(-math.sqrt(40 / 39) * stats.t.isf(0.025, 39))
    expanded = stats.bootstrap(
        (scores,),
        np.mean,
        method="percentile",
        confidence_level=1 - 2 * tail,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = bootstrap_interval(scores)
    assert bounds(found) == pytest.approx(
        (expanded.low, expanded.high), abs=0.05 * found.half_width
    )


def test_seed_of_the_bootstrap():
    """The same seed gives the same interval, another seed another one."""
    scores = draw(30)
    found = bootstrap_interval(scores, seed=1)
    assert found == bootstrap_interval(scores, seed=1)
    other = bootstrap_interval(scores, seed=2)
    assert found.low != other.low
    assert found.high != other.high
    assert bounds(found) == pytest.approx(bounds(other), abs=0.05)


def test_seed_reaches_what_uses_the_bootstrap():
    """`summarize` and `compare_paired` pass the seed and the count on."""
    a, b = draw(20), draw(20, 1)
    for options in ({"seed": 3}, {"num_resamples": 500}):
        for call in (
            summarize,
            lambda *args, **k: compare_paired(*args, b, **k),
        ):
            plain, other = call(a).interval, call(a, **options).interval
            assert plain != other
            assert other == call(a, **options).interval
            assert plain == call(a).interval


@pytest.mark.parametrize("seed", [None, 5])
def test_global_random_state_is_left_alone(seed):
    """NumPy's global generator is neither read nor changed."""
    np.random.seed(seed)
    before = pickle.dumps(np.random.get_state())
    a, b = np.round(draw(12), 1), np.round(draw(12, 1), 1)
    found = bootstrap_interval(a), summarize(a), compare_paired(a, b)
    assert pickle.dumps(np.random.get_state()) == before
    np.random.random(3)
    assert pickle.dumps(np.random.get_state()) != before
    again = bootstrap_interval(a), summarize(a), compare_paired(a, b)
    assert again == found


def test_batches_do_not_matter(monkeypatch):
    """However many draws go at a time, the interval is the same."""
    scores = draw(30)
    whole = bootstrap_interval(scores, num_resamples=500)
    monkeypatch.setattr(scores_module, "_BATCH", 64)
    assert bootstrap_interval(scores, num_resamples=500) == whole
    assert bootstrap_interval(scores, num_resamples=501) != whole


def test_draws_are_bounded_unless_asked_for():
    """Of many scores fewer resamples are drawn, as the docstring says."""
    few, many = draw(1000), draw(5000)
    assert bootstrap_interval(few) == bootstrap_interval(
        few, num_resamples=9_999
    )
    assert bootstrap_interval(many) == bootstrap_interval(
        many, num_resamples=2_000
    )
    assert bootstrap_interval(many) != bootstrap_interval(
        many, num_resamples=9_999
    )


@given(SCORES, st.sampled_from([1e-9, 0.5, 0.95, 1 - 1e-9]))
@example([0.1] * 3, 0.95)
@example([1.0, 1.0 + 2**-52], 0.95)
@example([5e-324, 0.0], 0.95)
@example([-1.7e308, 1.7e308], 0.95)
@example([0.0] * 11 + [1e300], 1e-9)
def test_intervals_are_in_order_and_hold_the_mean(scores, level):
    """Lower bound, mean, upper bound; within the range is the mean alone."""
    found = summarize(scores, confidence_level=level, **FEW)
    assert found.min <= found.mean <= found.max
    assert found.interval.low <= found.mean <= found.interval.high
    student = t_interval(scores, confidence_level=level)
    assert student.low <= found.mean <= student.high


@given(ORDINARY, st.integers(-20, 20), st.integers(-1000, 1000))
def test_intervals_move_with_the_scores(scores, power, shift):
    """Twice the scores, twice the bounds; scores moved, bounds moved."""
    scores = np.array(scores, float)
    found = bootstrap_interval(scores, **FEW)
    scale = 2.0**power
    scaled = bootstrap_interval(scores * scale, **FEW)
    assert bounds(scaled) == (found.low * scale, found.high * scale)
    moved = bootstrap_interval(scores + shift, **FEW)
    assert bounds(moved) == pytest.approx(
        (found.low + shift, found.high + shift), abs=1e-9
    )


@given(st.permutations(range(12)))
def test_order_of_the_trials_does_not_matter(order):
    """The same scores in another order say the same, to the last bit."""
    scores = np.random.default_rng(0).lognormal(size=12)
    assert summarize(scores[order], **FEW) == summarize(scores, **FEW)
    assert summarize(scores[:-1], **FEW) != summarize(scores, **FEW)


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


def cover(interval_of, size, num_studies=1500):
    """The share of studies whose interval holds the true mean, 0."""
    rng = np.random.default_rng(size)
    found = [
        bounds(interval_of(rng.normal(size=size))) for _ in range(num_studies)
    ]
    return np.mean([low <= 0 <= high for low, high in found])


def plain_percentiles(scores):
    found = stats.bootstrap(
        (scores,),
        np.mean,
        method="percentile",
        n_resamples=999,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(found.low, found.high, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 5, 30])
def test_interval_covers_the_mean_as_often_as_it_says(size):
    """Of 95% intervals of normal scores, 93% to 97% hold the mean."""
    share = cover(lambda x: bootstrap_interval(x, num_resamples=999), size)
    assert 0.93 <= share <= 0.97


def test_plain_percentiles_cover_it_less_often():
    """Without the factor they cover visibly less: the test above can fail."""
    assert cover(plain_percentiles, 5, 500) < 0.88


# --- the summary ----------------------------------------------------------


@given(ORDINARY)
def test_summary_is_that_of_scipy(scores):
    """Mean, standard deviation, median and interquartile mean."""
    found = summarize(scores, **FEW)
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
    assert found.interval == bootstrap_interval(scores, **FEW)


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
        assert found.z == 0.0
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
    found = compare_paired(a, b, **FEW)
    assert found.t_p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(b - a).pvalue)
    u = stats.mannwhitneyu(b, a).statistic
    assert found.probability_a_lower == pytest.approx(u / size**2)
    assert (found.num_pairs, found.mean_a) == (size, pytest.approx(a.mean()))
    assert found.mean_b == pytest.approx(b.mean())
    assert found.difference == pytest.approx((b - a).mean())
    other = compare_paired(a, np.roll(b, 1), **FEW)
    assert other.t_p != found.t_p
    assert other.probability_a_lower == found.probability_a_lower


def test_interval_is_that_of_the_differences():
    """The bootstrap draws pairs: it is the interval of b - a."""
    found = compare_paired(SLEEP_A, SLEEP_B, seed=4, confidence_level=0.9)
    expected = bootstrap_interval(
        np.subtract(SLEEP_B, SLEEP_A), seed=4, confidence_level=0.9
    )
    assert bounds(found.interval) == pytest.approx(bounds(expected))
    assert found.interval.confidence_level == 0.9
    assert found.interval.half_width > 0


def test_published_examples():
    """Student 1908, Hollander and Wolfe 1973, and Lakens 2013."""
    sleep = compare_paired(SLEEP_A, SLEEP_B)
    assert round(sleep.difference, 2) == 1.58
    assert round(sleep.t_p, 6) == 0.002833
    visits = compare_paired(VISIT_1, VISIT_2)
    assert round(visits.wilcoxon_p, 5) == 0.03906
    films = compare_paired(FILM_2, FILM_1)
    assert (films.difference, round(films.t_p, 3)) == (1.0, 0.001)
    assert round(films.effect_size_paired, 2) == 1.50
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
    """Both shares, counted over all pairs in the slow and plain way."""
    a, b = np.array(pairs, float).T
    found = compare_paired(a, b, **FEW)
    signs = np.sign(b[None, :] - a[:, None])
    assert found.probability_a_lower == pytest.approx((signs.mean() + 1) / 2)
    others = signs[~np.eye(len(a), dtype=bool)].mean()
    expected = (1 + others * np.sign((b - a).mean())) / 2
    assert found.sign_rate == pytest.approx(expected)


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
    there, back = compare_paired(a, b, **FEW), compare_paired(b, a, **FEW)
    assert there.difference == -back.difference
    assert there.interval.low <= there.difference <= there.interval.high
    assert (there.mean_a, there.mean_b) == (back.mean_b, back.mean_a)
    assert there.t_p == back.t_p
    assert there.wilcoxon_p == pytest.approx(back.wilcoxon_p)
    assert there.effect_size == -back.effect_size
    assert there.effect_size_paired == -back.effect_size_paired
    total = there.probability_a_lower + back.probability_a_lower
    assert total == pytest.approx(1)
    assert there.sign_rate == pytest.approx(back.sign_rate)
    for share in (there.t_p, there.wilcoxon_p, there.sign_rate):
        assert 0 <= share <= 1


@pytest.mark.slow
@given(ORDINARY, st.integers(-10, 10), st.integers(-100, 100))
def test_a_comparison_moves_with_the_scores(scores, power, shift):
    """Only what has a unit changes when both studies are scaled and moved."""
    a = np.array(scores, float)
    b = a[::-1] + np.arange(len(a))
    assume(np.ptp(b - a) > 0)
    plain = compare_paired(a, b, **FEW)
    scale = 2.0**power
    found = compare_paired((a + shift) * scale, (b + shift) * scale, **FEW)
    assert found.difference == pytest.approx(plain.difference * scale)
    for name in (
        "t_p",
        "wilcoxon_p",
        "probability_a_lower",
        "sign_rate",
        "effect_size",
        "effect_size_paired",
    ):
        assert getattr(found, name) == pytest.approx(getattr(plain, name))


def test_equal_pairs():
    """Studies that are the same differ in nothing."""
    scores = [0.1, 0.2, 0.3]
    found = compare_paired(scores, scores)
    assert (found.difference, bounds(found.interval)) == (0.0, (0.0, 0.0))
    assert (found.t_p, found.wilcoxon_p) == (1.0, 1.0)
    assert (found.effect_size, found.effect_size_paired) == (0.0, 0.0)
    assert (found.probability_a_lower, found.sign_rate) == (0.5, 0.5)


def test_pairs_that_differ_by_a_constant():
    """A difference that no seed moves is certain, and its effect infinite."""
    a = np.array([1.0, 2.0, 3.0, 4.0])
    found = compare_paired(a, a - 1)
    assert bounds(found.interval) == (-1.0, -1.0)
    assert (found.t_p, found.effect_size_paired) == (0.0, -math.inf)
    assert found.effect_size == pytest.approx(-1 / math.sqrt(5 / 3))
    assert found.wilcoxon_p == pytest.approx(0.125)
    flat = compare_paired([2.0, 2.0], [3.0, 3.0])
    assert flat.effect_size == math.inf
    assert (flat.probability_a_lower, flat.sign_rate) == (1.0, 1.0)
    rounded = compare_paired([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])
    assert 0 < rounded.t_p < 1e-20
    # Their squares are below what a float can hold.
    tiny = compare_paired([1.0, 0.0], [1.0, 1e-200])
    assert tiny.t_p == pytest.approx(0.5)


def test_holm():
    """Holm's adjustment, as R's `p.adjust` gives it, in any order."""
    values = [0.01, 0.02, 0.03, 0.04, 0.05]
    assert adjust_holm(values) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    order = [3, 0, 4, 2, 1]
    assert adjust_holm(np.take(values, order)) == pytest.approx(
        np.take([0.05, 0.08, 0.09, 0.09, 0.09], order)
    )
    assert list(adjust_holm([0.3])) == [0.3]
    assert list(adjust_holm([0.6, 0.7])) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_none_and_bonferroni(values):
    """It raises p values, less than Bonferroni does, and keeps their order."""
    found = adjust_holm(values)
    assert (found >= values).all()
    bonferroni = np.minimum(np.multiply(values, len(values)), 1)
    assert (found <= bonferroni).all()
    assert found[np.argmin(values)] == bonferroni.min()
    assert (np.diff(found[np.argsort(values)]) >= 0).all()


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
        (math.inf, {}, 2),
        (1e300, {}, 2),
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
    assert found == 2 or power_of(found - 1, effect, level) < power + 2e-4


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
    (bootstrap_interval, ([1.0],), {}, r"2 or more.*\(1,\)"),
    (bootstrap_interval, ([[1, 2]],), {}, r"\(1, 2\)"),
    (bootstrap_interval, ([1, math.nan],), {}, "nan at position 1"),
    (bootstrap_interval, ([1, 2],), {"num_resamples": 0}, "1 to 1000000.*: 0"),
    (bootstrap_interval, ([1, 2],), {"seed": -1}, "`seed` must be an int"),
    (t_interval, ([1.0],), {}, "2 or more"),
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
    (adjust_holm, ([],), {}, "`p_values` must hold"),
    (adjust_holm, ([0.1, 1.1],), {}, "0.1 to 1.1"),
    (adjust_holm, ([-0.1, 1.0],), {}, "-0.1 to 1"),
    (adjust_holm, ([0.1, math.nan],), {}, "nan at position 1"),
    (count_needed_pairs, (math.nan,), {}, "must be a number.*nan"),
    (count_needed_pairs, (1,), {"power": 1}, "`power` must be a num"),
]
TYPES = [
    (bootstrap_interval, (["1", "2"],), {}, "numbers.*'1'"),
    (bootstrap_interval, ([1j, 2],), {}, "numbers.*1j"),
    (bootstrap_interval, ([None, 2],), {}, "numbers.*None"),
    (bootstrap_interval, ([[1], [1, 2]],), {}, r"numbers.*\[\[1\], \[1, 2\]\]"),
    (bootstrap_interval, ([1, 2],), {"num_resamples": 9.0}, "must be an int"),
    (bootstrap_interval, ([1, 2],), {"seed": True}, "`seed` must be an int"),
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


def test_resamples_are_bounded():
    """However many are asked for, of however many scores, it ends."""
    assert check_resampling(0.9, 1_000_000, 0, size=1000) == (0.9, 1_000_000, 0)
    assert check_resampling(0.9, None, np.int8(3), size=10**7)[1:] == (None, 3)
    for number, size, most in ((2**32, 5, 1_000_000), (1001, 10**6, 1000)):
        with pytest.raises(ValueError, match=f"from 1 to {most}.*{number}"):
            check_resampling(0.9, number, 0, size=size)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan])
@pytest.mark.parametrize(
    ("call", "args"),
    [
        (Interval, (0.0, 1.0)),
        (bootstrap_interval, ([1, 2],)),
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
