"""Studies against each other: numbers, verdicts, families, refusals."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.scores import count_needed_pairs, find_bound
from tests.builders import make_results

NUM = 30
BASE = np.random.default_rng(0).normal(19, 0.5, NUM)
NOISE = np.random.default_rng(1).normal(0, 1, (4, NUM))


def shift(by, noise=0.2, row=0):
    """Scores of the same seeds, moved by an amount and some noise."""
    return BASE + by + noise * (NOISE[row] - NOISE[row].mean())


A = make_results(BASE, "none")
LOWER = make_results(shift(-0.5), "0.4")
OPEN = make_results(shift(-0.05, 0.5), "0.2")
FAMILY = {"none": A, "0.2": OPEN, "0.4": LOWER, "same": A}


def first_line(thing):
    return " ".join(str(thing).split("\n\n")[0].split("\n"))


# --- two studies ---------------------------------------------------------


def test_settled_difference_is_said_as_that():
    """How much lower, in which bounds, and what a single pair would say."""
    found = compare_trials(A, LOWER)
    assert found.settled
    assert found.num_more_trials is None
    assert math.isclose(found.statistics.difference, -0.5)
    interval, rate = found.statistics.interval, found.statistics.agree_rate
    assert interval.high < 0
    assert found.verdict == (
        f"0.4 is lower by 0.500 [{-interval.high:.3f}, {-interval.low:.3f}]. "
        f"By these seeds about {100 * rate:.0f} of 100 pairs of single runs "
        "would show it lower."
    )
    assert first_line(found) == found.verdict


def test_open_difference_is_said_with_what_would_settle_it():
    """The twin: the bounds lie on both sides of 0."""
    found = compare_trials(A, OPEN)
    assert not found.settled
    low, high = found.statistics.interval.low, found.statistics.interval.high
    assert low < 0 < high
    more = found.num_more_trials
    effect = abs(found.statistics.effect_size_paired)
    assert more == count_needed_pairs(effect, watched=True) - NUM
    # Who goes on has looked: the interval that may be watched is wider.
    assert more > count_needed_pairs(effect) - NUM
    step = 10 ** (len(str(more)) - 2)
    assert found.verdict == (
        f"Not settled: 0.2 is lower by 0.05 [{-high:.2f}, {-low:.2f}]; about "
        f"{math.ceil(more / step) * step} more seeds would settle a "
        "difference of this size. By these seeds about 51 of 100 pairs of "
        "single runs would show it lower."
    )
    assert round(100 * found.statistics.agree_rate) == 51


def test_higher_is_said_as_lower_is():
    """Exchanging the studies turns the words and the bounds around."""
    found, back = compare_trials(A, LOWER), compare_trials(LOWER, A)
    assert "none is higher by 0.500 [" in back.verdict
    assert math.isclose(
        back.statistics.interval.low, -found.statistics.interval.high,
        rel_tol=0.1,
    )  # fmt: skip


def test_equal_scores_are_said_to_be_equal():
    """Nothing is settled by more of them; one bit more is no longer equal."""
    found = compare_trials(A, make_results(BASE.copy(), "again"))
    assert found.verdict == "Equal: all 30 pairs have the same score."
    assert found.equal
    assert not found.settled
    assert found.num_more_trials is None
    # Other seeds might differ; within a margin they do not.
    assert (found.outcome, found.to_json()["equal"]) == ("open", True)
    within = compare_trials(A, make_results(BASE.copy()), margin=0.1)
    assert (within.outcome, within.verdict) == ("equal", found.verdict)
    scores = BASE.copy()
    scores[3] = np.nextafter(scores[3], 99)
    assert not compare_trials(A, make_results(scores)).equal


def test_what_is_shown_decides():
    """A bound beyond 0 is never shown as 0, and the other way round."""
    found = compare_trials(A, make_results(BASE - 1e-9 - BASE * 1e-10))
    assert found.settled
    assert "[0.0" not in found.verdict
    constant = compare_trials(
        make_results(np.zeros(5)), make_results(np.full(5, 0.25))
    )
    assert constant.verdict == (
        "b is higher by 0.25 [0.12, 0.38]. By these seeds about 100 of 100 "
        "pairs of single runs would show it higher."
    )
    assert constant.count_trials() == 4


def test_differences_without_a_mean_have_nothing_to_settle():
    """No number of seeds settles a difference of 0."""
    found = compare_trials(
        make_results([0.0, 0.0, 1.0, 1.0]), make_results([1.0, 1.0, 0.0, 0.0])
    )
    assert found.num_more_trials is None
    assert found.verdict.endswith(
        "; hardly any number of seeds would settle so small a difference."
    )
    assert "b has the same mean, [-1.9, 1.9]; hardly" in found.verdict


def test_one_more_seed_is_asked_for_at_least():
    """Where the t test would be enough and the bootstrap is not."""
    found = compare_trials(
        make_results(np.zeros(4)), make_results([0.1, 0.2, 0.9, 0.01])
    )
    assert not found.settled
    assert found.num_more_trials >= 1


@pytest.mark.parametrize("difference", [0.0, 0.1])
def test_a_margin_has_two_sides(difference):
    """So many seeds settle it in 8 of 10 studies; by one side fewer do."""
    rng = np.random.default_rng(3)
    gaps = rng.normal(size=10)
    gaps = difference + (gaps - gaps.mean()) / gaps.std(ddof=1)
    margin = difference + 0.6
    found = compare_trials(
        make_results(np.zeros(10)), make_results(gaps), margin=margin
    )
    size = 10 + found.num_more_trials
    assert find_settled(size, difference, margin) >= 0.78
    one_side = count_needed_pairs(0.6, watched=True)
    assert one_side < size
    if not difference:
        assert find_settled(one_side, difference, margin) < 0.7


def find_settled(most, difference, margin, number=2000):
    """The share of studies that some look shows to be equal."""
    gaps = np.random.default_rng(0).normal(difference, 1, (number, most))
    done = np.zeros(number, bool)
    for size in range(5, most + 1):
        part = gaps[:, :size]
        half = find_bound(size, 0.95, watched=True) / math.sqrt(size)
        half = half * part.std(axis=1, ddof=1)
        done |= np.abs(part.mean(axis=1)) + half <= margin
    return done.mean()


def test_text_shows_all_numbers():
    """Both means, the difference, two p values, probability, effect sizes."""
    found = compare_trials(A, LOWER)
    text, statistics = str(found), found.statistics
    for expected in (
        "Score:          rmse",
        "Pairs:          30, seeds 0 to 29",
        f"Mean of none:   {statistics.mean_a:.3f}",
        f"Mean of 0.4:    {statistics.mean_b:.3f}",
        "Difference:     -0.500 (0.4 - none), 95% interval [-0.5",
        f"Paired t test:  p {statistics.t_p:.2g}\n",
        f"Wilcoxon test:  p {statistics.wilcoxon_p:.2g}\n",
        f"0.4 is lower in {100 * statistics.lower_rate:.0f} of 100, equal in "
        f"0 of 100, higher in {100 * statistics.higher_rate:.0f} of 100",
        f"d_av {statistics.effect_size:.2f}",
        f"d_z {statistics.effect_size_paired:.2f}",
    ):
        assert expected in text.replace("\n" + " " * 18, " ")
    assert "Left out" not in text
    assert max(map(len, text.split("\n"))) <= 79


def test_ties_are_no_agreement():
    """How many pairs agree, and how many are equal."""
    a = np.zeros(20)
    b = np.where(np.arange(20) < 7, 1.0, 0.0)
    found = compare_trials(make_results(a), make_results(b))
    assert (
        "about 35 of 100 pairs of single runs would show it higher and 65 "
        "no difference." in found.verdict
    )
    plain = found.to_json()["statistics"]
    assert (plain["agree_rate"], plain["equal_rate"]) == (0.35, 0.65)
    assert "no difference" not in compare_trials(A, LOWER).verdict


def test_single_runs_are_told_whether_settled_or_not():
    """Else only shares that came out large by chance would be told."""
    rng = np.random.default_rng(0)
    told, settled, true = [], [], 0.64
    shift = 2**0.5 * stats.norm.ppf(true)
    for _ in range(400):
        a, b = rng.normal(size=(2, 5))
        found = compare_trials(make_results(a), make_results(b + shift))
        assert "By these seeds about" in found.verdict
        rate = found.statistics.higher_rate
        told.append(rate)
        if found.settled:
            settled.append(rate)
    assert np.mean(told) == pytest.approx(true, abs=0.03)
    # The twin: of the settled ones alone it is far too large.
    assert np.mean(settled) > true + 0.15


def test_rounded_scores_are_said_to_be_rounded():
    """Where that is a part of what is uncertain."""
    a = np.array([0.90, 0.91, 0.92])
    found = compare_trials(make_results(a), make_results(a + 0.01))
    assert not found.settled
    assert "Rounding: " in str(found)
    assert "scores move by steps of 0.01" in str(found)
    assert found._repr_html_().count("scores move by steps of 0.01") == 1
    assert "Rounding" not in str(compare_trials(A, LOWER))


def test_scores_that_floats_hardly_hold():
    """Differences that they hold are compared, others refused: no warning."""
    a = np.array([1.0, 1.1, 1.2, 1.05]) * 1e308
    b = np.array([1.3, 1.5, 1.4, 1.7]) * 1e308
    found = compare_trials(make_results(a), make_results(b))
    assert found.statistics.num_pairs == 4
    assert found.statistics.difference == pytest.approx(3.875e307)
    assert np.isfinite(found.differences).all()
    assert found._repr_html_()
    with pytest.raises(ValueError, match=r"1\.05e\+308 and -1\.7e\+308 und"):
        compare_trials(make_results(a), make_results(-b))


def test_pairs_without_two_finite_scores_are_left_out():
    """And counted, whichever of the two is missing."""
    with_gaps, other = BASE.copy(), shift(-0.5)
    with_gaps[3], other[3], other[9] = math.nan, math.inf, math.nan
    found = compare_trials(make_results(with_gaps), make_results(other))
    assert found.num_left_out == 2
    assert found.statistics.num_pairs == NUM - 2
    assert np.isnan(found.differences).sum() == 2
    assert "2 pairs without two finite scores" in str(found)
    assert " (2 of 30 pairs left out). By these" in found.verdict
    assert "left out" not in compare_trials(A, LOWER).verdict
    keep = [seed for seed in range(NUM) if seed not in (3, 9)]
    exact = compare_trials(A.select(keep), LOWER.select(keep))
    assert found.statistics == exact.statistics


@given(st.permutations(range(NUM)))
def test_pairs_are_those_of_equal_seeds(order):
    """In whatever order the second study ran."""
    found = compare_trials(A, LOWER.select(order))
    assert found.to_json() == compare_trials(A, LOWER).to_json()


def test_seeds_that_are_not_those_of_the_pair_would_be_seen():
    """The twin: the same scores under other seeds give other differences."""
    scores = LOWER.scores["rmse"][::-1]
    found = compare_trials(A, make_results(scores, "0.4"))
    assert found.statistics != compare_trials(A, LOWER).statistics


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("none", "0.4"), ("none", "0.4")),
        ((None, "0.4"), ("a", "0.4")),
        ((None, None), ("a", "b")),
        (("same", "same"), ("a", "b")),
    ],
)
def test_names_tell_the_studies_apart(names, expected):
    """Their own names, unless these are missing or equal."""
    a, b = (make_results(BASE, name) for name in names)
    found = compare_trials(a, b)
    assert (found.name_a, found.name_b) == expected


def test_options_are_used():
    """Another level: another interval."""

    def interval(**options):  # fmt: skip
        return compare_trials(A, OPEN, **options).statistics.interval

    assert interval() == interval()
    narrow = compare_trials(A, OPEN, confidence_level=0.5)
    assert narrow.statistics.interval.low > interval().low
    assert narrow.confidence_level == 0.5
    assert "50% interval" in str(narrow)


def test_metric_is_named_even_if_it_was_not():
    """The first of the first study, or the one asked for."""
    scores = {"rmse": BASE, "mae": BASE / 2}
    a, b = (make_results(BASE, scores=scores) for _ in range(2))
    assert compare_trials(a, b).metric == "rmse"
    assert compare_trials(a, b, metric="mae").metric == "mae"
    assert "mae" in str(compare_trials(a, b, metric="mae"))


def test_number_of_trials_for_a_difference():
    """Half of it takes about four times as many; more power, more of them."""
    found = compare_trials(A, OPEN)
    spread = float(np.std(found.differences, ddof=1))
    assert found.count_trials(spread) == count_needed_pairs(1.0)
    assert found.count_trials(-spread / 2) == 34  # Cohen's table.
    assert found.count_trials(spread, power=0.95) > found.count_trials(spread)
    assert found.count_trials(0.0) is None
    with pytest.raises(ValueError, match=r"`difference` must be a finite"):
        found.count_trials(math.nan)


def test_json_is_strict():
    """Infinities and NaN are strings, and the verdict is in it."""
    other = BASE - 0.5
    other[2] = math.nan
    found = compare_trials(A, make_results(other)).to_json()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert found["num_left_out"] == 1
    assert found["scores_b"][2] == "nan"
    assert found["verdict"].startswith("b is lower by")


def test_comparing_is_its_own_family():
    """So that one and several can be drawn alike."""
    found = compare_trials(A, LOWER)
    assert found.comparisons == (found,)


# --- four outcomes, and two kinds of interval ----------------------------


@pytest.mark.parametrize(
    ("scores", "margin", "outcome", "words"),
    [
        (LOWER, None, "lower", "0.4 is lower by 0.500 ["),
        (LOWER, 0.2, "lower", "0.4 is lower by 0.500 ["),
        (LOWER, 1.0, "equal", "Equal within 1: 0.4 is lower by 0.500 ["),
        (OPEN, None, "open", "Not settled: 0.2 is lower by 0.05 ["),
        (OPEN, 0.3, "equal", "Equal within 0.3: 0.2 is lower by 0.05 ["),
        (OPEN, 0.1, "open", "Not settled: 0.2 is lower by 0.05 ["),
    ],
)
def test_outcomes(scores, margin, outcome, words):
    """Lower, higher, equal within the margin, or open: the interval decides."""
    found = compare_trials(A, scores, margin=margin)
    assert found.outcome == outcome
    assert found.settled == (outcome != "open")
    assert found.verdict.startswith(words)
    plain = found.to_json()
    assert (plain["outcome"], plain["margin"]) == (outcome, margin)
    assert plain["verdict"] == found.verdict
    assert found.verdict in found._repr_html_()
    assert (plain["num_more_trials"] is None) == (outcome != "open")
    if outcome == "open":
        # Or that it is equal, where that is asked.
        what = "a difference of this size" if margin is None else "it"
        assert f" would settle {what}. " in found.verdict
    back = compare_trials(scores, A, margin=margin).outcome
    assert back == {"lower": "higher"}.get(outcome, outcome)


def test_equality_is_settled_as_seldom_wrongly_as_said():
    """Of differences as large as the margin 2.5% are called equal, at most."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(500):
        a, b = rng.normal(size=(2, 12))
        found = compare_trials(
            make_results(a), make_results(b + 2.0), margin=2.0
        )
        called += found.outcome == "equal"
    assert called <= 500 * (0.025 + 2 * math.sqrt(0.025 * 0.975 / 500))
    # The twin: of none at all most are, with this margin.
    found = [
        compare_trials(
            make_results(rng.normal(size=12)),
            make_results(rng.normal(size=12)),
            margin=2.0,
        ).outcome
        for _ in range(50)
    ]
    assert found.count("equal") > 40


@pytest.mark.parametrize(
    ("known", "given", "expected"),
    [
        ((False, False), None, False),
        ((True, False), None, True),
        ((None, True), None, True),
        ((None, False), None, None),
        ((False, False), True, True),
        ((True, True), False, False),
        ((None, None), False, False),
    ],
)
def test_intervals_go_by_what_the_studies_recorded(known, given, expected):
    """Watched if one of them was, unless it is said otherwise."""
    studies = [
        make_results(one.scores["rmse"], one.name, watched=watched)
        for one, watched in zip((A, LOWER), known, strict=True)
    ]
    found = compare_trials(*studies, watched=given)
    assert found.watched is expected
    assert found.to_json()["watched"] is expected
    plain = compare_trials(A, LOWER)
    same = found.statistics.interval == plain.statistics.interval
    assert same == (not expected)
    words = {
        True: "watched: it holds however often one looks",
        False: "seeds fixed beforehand: it holds for these",
        None: "no record of it: it holds if the seeds were fixed before",
    }[expected]
    assert f"Interval:       {words}\n" in str(found)
    assert words in found._repr_html_()
    family = compare_trials(
        dict(zip("ab", studies, strict=True)), watched=given
    )
    assert [one.to_json() for one in family] != []
    assert f"Intervals: {words.replace('it holds', 'they hold')}." in " ".join(
        str(family).split()
    )
    assert family["b"].statistics == found.statistics
    assert ("Wilcoxon" in str(found)) == (not expected)


def test_a_family_is_as_well_known_as_the_least_known():
    """One study that was watched, or of which nobody knows, makes it so."""
    fixed, unknown, watched = (
        make_results(BASE + 1e-3 * NOISE[0], watched=one)
        for one in (False, None, True)
    )
    for last, expected in ((fixed, False), (unknown, None), (watched, True)):
        family = {"a": fixed, "b": fixed, "c": last}
        found = compare_trials(family)
        assert [one.watched for one in found] == [expected] * 2
        assert found.to_json()["comparisons"][0]["watched"] is expected


def test_few_watched_seeds_have_no_bounds_yet():
    """Nothing is settled by them, however they lie; text and page say so."""
    few = [one.select(range(4)) for one in (A, LOWER)]
    found = compare_trials(*few, watched=True)
    assert (found.outcome, found.statistics.interval.low) == ("open", -math.inf)
    assert "0.4 is lower by " in found.verdict
    assert "[no bounds yet]; about 3 more seeds" in found.verdict
    assert found.to_json()["statistics"]["interval"]["low"] == "-inf"
    assert "[no bounds yet]" in found._repr_html_()
    pytest.importorskip("matplotlib")
    assert found.plot()
    # The twin: fixed beforehand they settle it.
    assert compare_trials(*few).settled
    more = [one.select(range(8)) for one in (A, LOWER)]
    assert compare_trials(*more, watched=True).settled


# --- families ------------------------------------------------------------


def test_family_is_told_in_the_order_given():
    """Each against the first, by name or one after the other."""
    found = compare_trials(FAMILY)
    assert found.baseline == "none"
    assert [one.name_b for one in found] == ["0.2", "0.4", "same"]
    assert {one.name_a for one in found} == {"none"}
    assert len(found) == 3
    assert found["0.4"] is found.comparisons[1]
    with pytest.raises(KeyError, match="none"):
        found["none"]


def test_family_has_one_level_for_all():
    """Each interval is wider and each p larger, by the size of the family."""
    found = compare_trials(FAMILY)
    single = [compare_trials(A, one) for one in (OPEN, LOWER, A)]
    assert [one.t_p for one in found] == [min(3 * one.t_p, 1) for one in single]
    expected = [min(3 * one.wilcoxon_p, 1) for one in single]
    assert [one.wilcoxon_p for one in found] == expected
    level = 1 - (1 - 0.95) / 3
    assert {one.confidence_level for one in found} == {level}
    assert {one.family_level for one in found} == {0.95}
    wide = found["0.4"].statistics.interval
    narrow = single[1].statistics.interval
    assert wide.low < narrow.low < narrow.high < wide.high
    exact = compare_trials(A, LOWER, confidence_level=level)
    assert wide == exact.statistics.interval
    assert "all 3 intervals hold at once at 95%" in first_line(
        str(found).split("Of the family: ")[1]
    )


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", ["normal", "lognormal"])
@pytest.mark.parametrize(("size", "number"), [(5, 2), (4, 5), (3, 10)])
def test_family_is_mistaken_as_seldom_as_it_says(kind, size, number):
    """Of families without a difference 5% are called otherwise, at most."""
    rng = np.random.default_rng(size)
    draw = getattr(rng, kind)
    studies = 300
    wrong = alone = 0
    for _ in range(studies):
        family = {
            f"{place}": make_results(draw(size=size))
            for place in range(number + 1)
        }
        found = compare_trials(family)
        wrong += any(one.settled for one in found)
        alone += any(one.t_p < 0.05 * number for one in found)
    assert wrong <= studies * (0.05 + 2 * math.sqrt(0.05 * 0.95 / studies))
    # The twin: judged one by one, far more families hold a mistake.
    if kind == "normal":
        assert alone > studies * 0.08


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", [3, 5])
def test_intervals_of_a_family_hold_at_once(size):
    """Where all conditions differ too: 95 of 100 families hold them all."""
    rng = np.random.default_rng(size)
    shifts = np.arange(1, 6)
    held = each = 0
    for _ in range(250):
        scores = rng.normal(size=(6, size))
        scores[1:] += shifts[:, None]
        studies = {f"{n}": make_results(one) for n, one in enumerate(scores)}
        found = compare_trials(studies)
        held += all_held(found, shifts)
        alone = [compare_trials(studies["0"], studies[f"{n}"]) for n in shifts]
        each += all_held(alone, shifts)
    assert held >= 250 * (0.95 - 2 * math.sqrt(0.05 * 0.95 / 250))
    # The twin: intervals of single comparisons do not.
    assert each < 250 * 0.9


def all_held(comparisons, shifts):
    """Whether each interval holds the difference that is true."""
    pairs = zip(comparisons, shifts, strict=True)
    intervals = [(one.statistics.interval, shift) for one, shift in pairs]
    return all(one.low <= shift <= one.high for one, shift in intervals)


def test_a_level_that_leaves_none_to_each_is_refused():
    """By the level that was passed, and for how many it is too high."""
    level = 1 - 1e-16
    studies = {f"{n}": make_results(BASE + n * NOISE[0]) for n in range(30)}
    with pytest.raises(ValueError, match=f"{level} for 29 comparisons"):
        compare_trials(studies, confidence_level=level)
    # The twin: one comparison has that level.
    pair = {name: studies[name] for name in ("0", "1")}
    found = compare_trials(pair, confidence_level=level)
    assert found["1"].confidence_level == level


def test_two_pairs_settle_nothing():
    """Though their interval may exclude 0; three may."""
    scores = [5.0, 6.001, 7.003]
    two = compare_trials(make_results([0.0, 1.0]), make_results(scores[:2]))
    assert two.excludes_zero
    assert not two.settled
    assert two.num_more_trials == 3
    assert "; two pairs settle nothing, about 3 more seeds" in two.verdict
    three = compare_trials(make_results([0.0, 1.0, 2.0]), make_results(scores))
    assert three.settled


def test_family_of_one_is_a_comparison():
    """Two studies by name are told as two studies are."""
    (one,) = compare_trials({"none": A, "0.4": LOWER})
    assert one.to_json() == compare_trials(A, LOWER).to_json()


def test_family_as_text():
    """How many are settled, a table, a verdict for each."""
    found = compare_trials(FAMILY)
    text = str(found)
    lines = text.split("\n")
    assert lines[0] == "1 of 3 differences to none settled (rmse)."
    assert lines[2].split() == [
        "mean", "difference", "98.33%", "interval", "p",
    ]  # fmt: skip
    assert [one.split()[0] for one in lines[3:7]] == list(FAMILY)
    assert "\n- Not settled: 0.2 is lower by 0.05 [" in text
    assert "\n- 0.4 is lower by 0.500 [" in text
    assert "\n- same: Equal: all 30 pairs have the same score." in text
    assert "3 times that of one comparison" in str(found["0.4"])
    assert "times that of" not in str(compare_trials(A, LOWER))


def test_family_counts_what_is_left_out():
    """The most that any of them leaves out."""
    gaps = shift(-0.5)
    gaps[:2] = math.nan
    found = compare_trials({**FAMILY, "gaps": make_results(gaps)})
    assert str(found).endswith(
        "Up to 2 pairs without two finite scores left out."
    )


def test_family_as_json():
    """What each comparison holds, and what they share."""
    found = compare_trials(FAMILY).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["baseline"], found["metric"]) == ("none", "rmse")
    assert len(found["comparisons"]) == 3


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e12])
def test_long_and_hostile_names_fit_a_terminal(scale):
    """No line is wider than 79, none holds a control character."""
    names = ["\x1b[2J" * 50, "b" * 200, "\u202ec", "d\ne"]
    family = {
        name: make_results(scale * shift(-place, 0.3, place))
        for place, name in enumerate(names)
    }
    found = compare_trials(family)
    for text in (str(found), *map(str, found)):
        assert max(map(len, text.split("\n"))) <= 79
        assert all(map(str.isprintable, text.split("\n")))


# --- refusals ------------------------------------------------------------


def test_other_seeds_are_refused_with_both_lists():
    """And with what to do about it, which then works."""
    b = LOWER.select(range(2, NUM))
    with pytest.raises(ValueError, match=r"a\.select\(seeds\)") as error:
        compare_trials(A, b)
    assert "only in none: seeds 0, 1; only in 0.4: no seed" in str(error.value)
    seeds = [seed for seed in A.seeds if seed in b.seeds]
    assert compare_trials(A.select(seeds), b.select(seeds)).settled
    with pytest.raises(ValueError, match=r"only in a: seed 7; only in b: seed"):
        compare_trials(
            make_results([1.0, 2.0, 3.0], seeds=[1, 7, 2]),
            make_results([1.0, 2.0, 3.0], seeds=[1, 9, 2]),
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((A, None), TypeError, r"`b` must be a `TrialResults`.*NoneType"),
        ((3, A), TypeError, r"`a` must be a `TrialResults`\. Received: 3"),
        (
            ({"x": A, "y": 3},),
            TypeError,
            r"`a\['y'\]` must be a `TrialResults`",
        ),
        (
            ({"x": A},),
            ValueError,
            r"at least two names\. Received: a mapping of 1",
        ),
        (({"x": A, "y": A}, A), ValueError, r"mapping of 2 and `b`"),
        (
            (A, make_results(BASE, "0.4", vary="order")),
            ValueError,
            r"`vary` 'all' in none and 'order' in 0\.4",
        ),
        (
            (A, make_results(BASE, scores={"mae": BASE})),
            ValueError,
            r"`mae`\. Received: 'rmse'",
        ),
        (
            (A, make_results([*[math.nan] * (NUM - 1), 1.0])),
            ValueError,
            r"two pairs.*Received: 1 of 30 pairs with a finite `rmse`",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, error, message):
    """With what must hold, what came, and what to do."""
    with pytest.raises(error, match=message):
        compare_trials(*arguments)


def test_unknown_metric_is_refused():
    """With the names that there are."""
    with pytest.raises(ValueError, match=r"has: `rmse`\. Received: 'mae'"):
        compare_trials(A, LOWER, metric="mae")
    with pytest.raises(ValueError, match=r"has: `rmse`\. Received: 'mae'"):
        compare_trials(FAMILY, metric="mae")
