"""Seeds crossed with test examples: what of an interval is the test set's."""

import math

import numpy as np
import pytest
from scipy import stats

from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.results import TrialResults
from keras_repro.studies.scores import find_bound
from tests.builders import make_results

TRUE = 0.3


def make_study(losses, **changes):
    """A study whose score is the mean of the losses of each seed."""
    return TrialResults(
        seeds=range(len(losses)),
        scores={"test": losses.mean(axis=1)},
        examples={"test": losses},
        **changes,
    )


def make_pair(size, number, spreads, seed=0, *, shift=TRUE, groups=None):
    """Two studies that differ, by seeds, by examples and by both of them."""
    rng = np.random.default_rng(seed)
    by_seed, by_example, by_both = spreads
    base = rng.normal(size=(size, 1)) + rng.normal(size=(1, number))
    gaps = shift + by_seed * rng.normal(size=(size, 1))
    if groups is None:
        gaps = gaps + by_example * rng.normal(size=(1, number))
    else:
        drawn = rng.normal(size=max(groups) + 1)
        gaps = gaps + by_example * drawn[None, groups]
    gaps = gaps + by_both * rng.normal(size=(size, number))
    return make_study(base), make_study(base + gaps)


def compute_by_hand(gaps):
    """Variance components of a crossed design by the usual mean squares."""
    size, number = gaps.shape
    rows, columns = gaps.mean(1), gaps.mean(0)
    off = gaps - rows[:, None] - columns + gaps.mean()
    both = np.sum(off**2) / (size - 1) / (number - 1)
    examples = (size * columns.var(ddof=1) - both) / size
    return rows.var(ddof=1) / size, max(examples, 0.0) / number


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("watched", [False, True])
def test_interval_is_both_errors_together(level, watched):
    """Student's of the seeds, that of the examples, and a p to match.

    Of a watched study they are added as they are.
    """
    a, b = make_pair(9, 40, (0.5, 1.0, 1.0), shift=1.5)
    found = compare_trials(a, b, confidence_level=level, watched=watched)
    assert found.t_p < 0.5
    gaps = b.examples["test"] - a.examples["test"]
    seeds, examples = compute_by_hand(gaps)
    bound = find_bound(9, level, watched)
    if watched:  # Each gets half of what is left to chance.
        theirs = stats.t.isf((1 - level) / 4, 39) * math.sqrt(examples)
        wider = find_bound(9, (1 + level) / 2, watched)
        half = wider * math.sqrt(seeds) + theirs
    else:
        theirs = stats.t.isf((1 - level) / 2, 39) * math.sqrt(examples)
        half = math.hypot(bound * math.sqrt(seeds), theirs)
    interval = found.statistics.interval
    assert interval.half_width == pytest.approx(half, rel=1e-5)
    assert found.examples.error == pytest.approx(math.sqrt(examples))
    alone = found.examples.seeds_interval
    assert alone.half_width == pytest.approx(bound * math.sqrt(seeds), rel=1e-5)
    share = 1 - alone.half_width / half
    assert found.examples.width_share == pytest.approx(share, rel=1e-4)
    again = compare_trials(
        a, b, confidence_level=1 - found.t_p, watched=watched
    )
    low = again.statistics.interval
    nearest = min(abs(low.low), abs(low.high))
    assert nearest < 1e-6 * low.half_width
    assert math.isnan(found.wilcoxon_p)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("size", [3, 5, 30])
@pytest.mark.parametrize(
    "spreads", [(1, 1, 1), (0, 1, 1), (0.1, 1, 3), (1, 0, 1)]
)
def test_intervals_cover_under_other_seeds_and_examples(size, spreads):
    """In 95 of 100 studies; those of seeds alone not, of few examples."""
    held = alone = 0
    for seed in range(200):
        pair = make_pair(size, 60, spreads, seed)
        found = compare_trials(*pair)
        whole = found.statistics.interval
        held += whole.low <= TRUE <= whole.high
        seeds = found.examples.seeds_interval
        alone += seeds.low <= TRUE <= seeds.high
    assert held >= 200 * (0.95 - 2 * math.sqrt(0.05 * 0.95 / 200))
    if spreads == (0, 1, 1):
        assert alone < 200 * 0.9


def test_examples_of_a_group_are_alike():
    """With groups the interval covers; taken one by one it is too narrow."""
    groups = np.repeat(np.arange(12), np.arange(3, 15))
    held = single = 0
    for seed in range(200):
        pair = make_pair(6, len(groups), (0.1, 1, 1), seed, groups=groups)
        found = compare_trials(*pair, groups=groups)
        assert found.examples.num_groups == 12
        interval = found.statistics.interval
        held += interval.low <= TRUE <= interval.high
        interval = compare_trials(*pair).statistics.interval
        single += interval.low <= TRUE <= interval.high
    assert held >= 200 * 0.9
    assert single < 200 * 0.75
    names = np.array([f"unit {one}" for one in groups])
    same = compare_trials(*pair, groups=names)
    width = same.statistics.interval.half_width
    assert width == pytest.approx(found.statistics.interval.half_width)
    plain = compare_trials(*pair, groups=np.arange(len(groups)))
    single = compare_trials(*pair).statistics.interval
    assert plain.statistics.interval == single
    assert single.half_width < width


def test_report_says_what_is_the_test_sets():
    """Text, page and JSON, for one comparison and in a family."""
    groups = np.arange(40) // 4
    a, b = make_pair(9, 40, (0.3, 1.0, 1.0))
    found = compare_trials(a, b, groups=groups)
    share = f"{100 * found.examples.width_share:.0f}%"
    words = f"40 examples in 10 groups, crossed with the seeds: {share} of the"
    for text in (str(found), found._repr_html_()):
        assert words in " ".join(text.split())
        assert "of seeds alone [" in " ".join(text.split())
        assert "Wilcoxon" not in text
    plain = found.to_json()["examples"]
    assert (plain["num_examples"], plain["num_groups"]) == (40, 10)
    assert plain["width_share"] == found.examples.width_share
    family = compare_trials({"a": a, "b": b, "c": a}, groups=groups)
    assert family["b"].examples.error == found.examples.error
    assert family["c"].equal
    # The twin: without losses the interval is of seeds alone.
    bare = [
        make_results(one.scores["test"], scores=one.scores) for one in (a, b)
    ]
    alone = compare_trials(*bare)
    assert alone.examples is None
    assert alone.to_json()["examples"] is None
    assert "crossed" not in str(alone)
    interval = alone.statistics.interval
    assert interval == found.examples.seeds_interval


def test_seeds_cannot_make_up_for_few_examples():
    """So many more would do, or none, where the test set is too small."""
    many = compare_trials(*make_pair(6, 400, (1.0, 0.5, 0.5)))
    assert not many.settled
    assert 6 < many.count_trials() < 1000
    assert many.num_more_trials > many.count_trials() - 6
    few = compare_trials(*make_pair(6, 12, (0.1, 1, 0.1), 1, shift=0.0))
    assert not few.settled
    assert few.count_trials() is None
    assert few.num_more_trials is None
    assert "; no number of seeds would settle it on so few test exa" in (
        few.verdict
    )


def test_pairs_and_rows_go_together():
    """Seeds in another order, seeds left out, scores that are NaN."""
    a, b = make_pair(12, 30, (0.5, 1.0, 1.0))
    found = compare_trials(a, b)
    turned = compare_trials(a, b.select(range(11, -1, -1)))
    assert turned.statistics == found.statistics
    some = a.select(range(7)), b.select(range(7))
    assert some[0].examples["test"].shape == (7, 30)
    losses = b.examples["test"].copy()
    losses[7:] = math.nan
    kept = compare_trials(a, make_study(losses))
    assert kept.statistics == compare_trials(*some).statistics
    assert a.to_json()["num_examples"] == {"test": 30}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groups": [1, 2]}, ValueError, r"each of 30 test.*shape \(2,\)"),
        ({"groups": [3] * 30}, ValueError, "two different labels.*3 for all"),
        ({"groups": [None] * 30}, TypeError, "a number or a word"),
    ],
)
def test_groups_that_are_none_are_refused(options, error, message):
    """With what must hold and what came."""
    with pytest.raises(error, match=message):
        compare_trials(*make_pair(5, 30, (1, 1, 1)), **options)


def test_what_does_not_belong_together_is_refused():
    """Other examples, groups without losses, losses of another score."""
    a, b = make_pair(5, 30, (1, 1, 1))
    other, _ = make_pair(5, 31, (1, 1, 1))
    with pytest.raises(ValueError, match="of 30 and of 31 examples"):
        compare_trials(a, other)
    plain = make_results(a.scores["test"], scores=a.scores)
    assert compare_trials(plain, b).examples is None
    with pytest.raises(ValueError, match="they have no losses of `test`"):
        compare_trials(plain, b, groups=range(30))
    with pytest.raises(ValueError, match="must be the mean of its losses"):
        TrialResults(
            seeds=range(5),
            scores={"test": a.scores["test"] + 1},
            examples=a.examples,
        )
    with pytest.raises(ValueError, match=r"has: `rmse`\. Received: 'test'"):
        make_results([1.0] * 5, examples=a.examples)
    with pytest.raises(ValueError, match=r"two examples or more.*\(5,\)"):
        make_results([1.0] * 5, examples={"rmse": np.ones(5)})
