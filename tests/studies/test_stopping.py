"""When a study may stop: what its rules ask, and what they refuse."""

import numpy as np
import pytest

from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.scores import t_interval
from keras_repro.studies.stopping import HalfWidth, Settled
from tests.builders import make_results

RNG = np.random.default_rng(0)
BASE = RNG.normal(19, 0.5, 40)
NOISE = RNG.normal(0, 0.3, 40)


def find_stop(rule, scores, *, with_seeds=True):
    """After how many scores a rule is met; `None` if it is not."""
    for number in range(1, len(scores) + 1):
        seeds = [range(number)] if with_seeds else []
        if rule.is_met({"rmse": scores[:number]}, *seeds):
            return number
    return None


@pytest.mark.parametrize(
    ("shift", "margin", "outcome"),
    [
        (-0.5, None, "lower"),
        (0.5, 0.4, "higher"),
        (0.0, 0.4, "equal"),
        (0.0, None, "open"),
    ],
)
def test_a_study_stops_at_what_the_comparison_says(shift, margin, outcome):
    """At the first number of seeds at which it is settled, and not before."""
    scores = BASE + NOISE + shift
    number = find_stop(Settled(make_results(BASE), margin), scores)
    if outcome == "open":
        assert number is None
        return
    assert 5 <= number < 40
    for size, expected in ((number, outcome), (number - 1, "open")):
        pair = make_results(BASE[:size]), make_results(scores[:size])
        found = compare_trials(*pair, margin=margin, watched=True)
        assert found.outcome == expected


def test_studies_that_stop_so_are_seldom_mistaken():
    """Of 200 that do not differ few stop; by fixed intervals many would."""
    rng = np.random.default_rng(1)
    stopped = fixed = 0
    for _ in range(200):
        a, b = rng.normal(size=(2, 30))
        stopped += find_stop(Settled(make_results(a)), b) is not None
        intervals = (t_interval((b - a)[:size]) for size in range(3, 31))
        fixed += any(one.low > 0 or one.high < 0 for one in intervals)
    assert stopped <= 200 * 0.05 + 2 * (200 * 0.05 * 0.95) ** 0.5
    assert fixed > 200 * 0.1


def test_pairs_are_those_of_the_seeds_that_are_given():
    """In whatever order; scores that are not finite are left out."""
    rule = Settled(make_results(BASE))
    order = RNG.permutation(40)
    scores = (BASE + NOISE / 3 - 0.15)[order]
    assert rule.is_met({"rmse": scores}, order.tolist())
    assert not rule.is_met({"rmse": scores[::-1]}, order.tolist())
    scores[:36] = np.nan
    assert not rule.is_met({"rmse": scores}, order.tolist())


def test_the_half_width_is_that_of_the_interval():
    """Met where that is narrow enough, and not before."""
    number = find_stop(HalfWidth(0.2, min_trials=3), BASE, with_seeds=False)
    widths = [
        t_interval(BASE[:size]).half_width for size in range(3, number + 1)
    ]
    assert [one <= 0.2 for one in widths] == [False] * (number - 3) + [True]
    assert number > 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"baseline": [1.0]}, TypeError, "`baseline` must be a TrialResults"),
        ({"margin": 0}, ValueError, "`margin` must be a finite number above"),
        ({"margin": "1"}, TypeError, "`margin`"),
        ({"metric": "mae"}, ValueError, r"has: `rmse`\. Received: 'mae'"),
        ({"confidence_level": 95}, ValueError, "`confidence_level`"),
    ],
)
def test_what_is_no_rule_is_refused(options, error, message):
    """With what must hold and what came."""
    with pytest.raises(error, match=message):
        Settled(**{"baseline": make_results(BASE), **options})


def test_scores_of_another_name_are_refused():
    """With the names that there are."""
    for rule, more in (
        (Settled(make_results(BASE)), [range(3)]),
        (HalfWidth(1.0, metric="rmse"), []),
    ):
        with pytest.raises(ValueError, match=r"there are .*'mae'"):
            rule.is_met({"mae": [1.0, 2.0, 3.0]}, *more)
