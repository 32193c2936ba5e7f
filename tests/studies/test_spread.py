"""Which part of a spread comes from where, of scores whose parts are known."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from keras_repro.studies.results import TrialFailure
from keras_repro.studies.spread import SOURCES, find_spread
from tests.builders import make_results

SHARES = {"initial": 0.5, "order": 0.3, "random": 0.1, "rest": 0.1}


def make_studies(size, seed=0, *, shares=SHARES, digits=15, shift=10.0):
    """Four studies of the same seeds, in which each part has its share."""
    rng = np.random.default_rng(seed)
    part = {
        name: math.sqrt(share) * rng.normal(size=size)
        for name, share in shares.items()
    }
    scores = {"all": sum(part.values())} | {one: part[one] for one in SOURCES}
    return {
        vary: make_results(
            np.round(shift + one, digits), vary=vary, seeds=range(1, size + 1)
        )
        for vary, one in scores.items()
    }


def test_shares_are_those_that_the_scores_have():
    """Of many seeds each comes out, and all of them make up the whole."""
    found = find_spread(make_studies(4000))
    for part in found.parts:
        expected = SHARES[part.source]
        assert part.share == pytest.approx(expected, abs=0.03)
        assert part.interval.low <= expected <= part.interval.high
    assert sum(one.share for one in found.parts) == pytest.approx(1)
    assert found.std == pytest.approx(1, abs=0.03)
    assert found["order"].std == pytest.approx(math.sqrt(0.3), abs=0.02)
    assert math.isnan(found["rest"].std)


def test_a_share_is_the_slope_of_a_line():
    """That of SciPy; its error is at least that of the line."""
    studies = make_studies(30)
    found = find_spread(studies, confidence_level=0.9)
    whole = studies["all"].scores["rmse"]
    for source in SOURCES:
        line = stats.linregress(whole, studies[source].scores["rmse"])
        part = found[source]
        assert part.share == pytest.approx(line.slope)
        half = stats.t.isf(0.05, 28) * line.stderr
        assert part.interval.high >= min(line.slope + half, 1) - 1e-9
        assert part.interval.low <= max(line.slope - half, 0) + 1e-9


def test_shares_of_few_seeds_add_up():
    """Each as it came out; only their intervals end at 0 and at 1."""
    found = find_spread(make_studies(4, seed=2))
    shares = [one.share for one in found.parts]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) < 0
    assert all(one.interval.low >= 0 for one in found.parts)
    assert all(one.interval.high <= 1 for one in found.parts)
    words = "The shares add up to 100%, so one of few seeds may come out below"
    assert words in " ".join(str(found).split())
    assert words in found._repr_html_()
    # The twin: of many seeds none does.
    assert words not in " ".join(str(find_spread(make_studies(400))).split())
    pytest.importorskip("matplotlib")
    shown = found.plot().axes[1].get_ylim()
    assert shown[0] < 100 * min(shares) < 100 * max(shares) < shown[1]


@pytest.mark.parametrize(
    ("watched", "words"),
    [
        (False, "seeds fixed beforehand: they hold for these."),
        (None, "no record of it: they hold if the seeds were fixed before."),
        (True, "and one of these studies was watched: they may miss"),
    ],
)
def test_a_spread_says_for_which_seeds_it_holds(watched, words):
    """One study that was watched, or not recorded, is enough."""
    studies = {
        vary: make_results(
            one.scores["rmse"],
            vary=vary,
            seeds=one.seeds,
            watched=watched if vary == "order" else False,
        )
        for vary, one in make_studies(9).items()
    }
    found = find_spread(studies)
    assert words in " ".join(str(found).split())
    assert words in found._repr_html_()
    plain = found.to_json()
    assert plain["watched"] is watched
    assert plain["interval_holds"] == "for a number of seeds fixed beforehand"


def test_a_seed_that_failed_in_one_study_is_left_out():
    """The other seeds are split as if it had not been there; it is named."""
    studies = make_studies(9)
    kept = [1, 2, 4, 5, 6, 7, 8, 9]
    fewer = {vary: one.select(kept) for vary, one in studies.items()}
    failure = TrialFailure(seed=3, error="ValueError: boom", traceback="")
    studies["order"] = make_results(
        fewer["order"].scores["rmse"],
        vary="order",
        seeds=kept,
        failures=[failure],
    )
    found, plain = find_spread(studies), find_spread(fewer)
    assert found.parts == plain.parts
    assert (found.num_seeds, found.left_out) == (8, (3,))
    json_ = found.to_json()
    assert (json_["num_left_out"], json_["left_out"]) == (1, [3])
    for text in (" ".join(str(found).split()), found._repr_html_()):
        assert "in all four studies: seed 3." in text
        assert "failed in" in text
        assert "boom" in text
    assert "Left out" not in str(plain)


@pytest.mark.parametrize("size", [5, 10, 30])
def test_intervals_of_shares_cover_them(size):
    """In 95 of 100 studies; those of a third of the error do not."""
    held = dict.fromkeys(SHARES, 0)
    narrow = 0
    for seed in range(300):
        for one in find_spread(make_studies(size, seed)).parts:
            low, high = one.interval.low, one.interval.high
            share = SHARES[one.source]
            held[one.source] += low <= share <= high
            if one.source == "initial":
                low = (2 * one.share + low) / 3
                high = (2 * one.share + high) / 3
                narrow += low <= share <= high
    least = 300 * (0.95 - 2 * math.sqrt(0.05 * 0.95 / 300))
    assert min(held.values()) >= least
    assert narrow < 300 * 0.9


def test_other_seeds_have_nothing_in_common():
    """The twin: without the pairs nothing is found of what they share."""
    studies = make_studies(2000)
    scores = studies["initial"].scores["rmse"][::-1]
    studies["initial"] = make_results(
        scores, vary="initial", seeds=studies["all"].seeds
    )
    assert find_spread(studies)["initial"].share < 0.05


def test_order_and_missing_scores():
    """Pairs are those of the seeds; a seed without all four is left out."""
    studies = make_studies(20)
    plain = find_spread(studies)
    turned = studies | {
        "order": studies["order"].select(studies["order"].seeds[::-1])
    }
    assert find_spread(turned).to_json() == plain.to_json()
    scores = studies["random"].scores["rmse"].copy()
    scores[3] = math.nan
    studies["random"] = make_results(
        scores, vary="random", seeds=studies["all"].seeds
    )
    found = find_spread(studies)
    assert (found.num_seeds, found.left_out) == (19, (4,))
    assert found["order"].share != plain["order"].share


def test_scores_that_no_seed_moves():
    """Nothing can be split; what one source does not move has no share."""
    none = dict.fromkeys(SHARES, 0.0)
    found = find_spread(make_studies(5, shares=none))
    assert (
        found.verdict == "No seed moves rmse: it is the same under all 5 seeds."
    )
    assert math.isnan(found["order"].share)
    assert "none" in str(found)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))
    some = find_spread(make_studies(9, shares=SHARES | {"random": 0.0}))
    assert (some["random"].share, some["random"].interval.high) == (0, 0)
    rounded = make_studies(9, shares=SHARES | {"random": 0.0}, digits=1)
    # Steps of 0.1 may hide what moves by less.
    assert find_spread(rounded)["random"].interval.high > 0.02


def test_text_page_and_json_say_the_same():
    """One sentence, a row for each part, a picture."""
    found = find_spread(make_studies(30))
    plain, text, page = found.to_json(), str(found), found._repr_html_()
    verdict = plain["verdict"]
    assert verdict.startswith("Of the variance of rmse (std 0.")
    share = f"{100 * plain['parts'][0]['share']:.0f}%"
    assert f"30 seeds) {share} [" in verdict
    assert " from the initial weights, " in verdict
    assert verdict.endswith(" from these only together.")
    assert " ".join(text.split("\n\n", maxsplit=1)[0].split()) == verdict
    assert verdict in page
    assert page.count("<svg") == 1
    for words in ("the order of the data", "random draws", share):
        assert words in text
        assert words in page
    assert max(map(len, text.split("\n"))) <= 79
    pytest.importorskip("matplotlib")
    assert len(found.plot().axes) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": None}, "Received: none for 'order'"),
        ({"order": make_results([1.0] * 9)}, "Received: 'all' for 'order'"),
        (
            {"order": make_results([1.0] * 2, vary="order", seeds=[1, 2])},
            "Received: 2, without seeds 3 to 9",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(change, message):
    """With what must hold and what came."""
    with pytest.raises(ValueError, match=message):
        find_spread({**make_studies(9), **change})


def test_too_few_seeds_are_refused():
    """A line through two points has no error."""
    studies = make_studies(3)
    assert find_spread(studies).num_seeds == 3
    scores = [1.0, math.nan, 2.0]
    studies["all"] = make_results(scores, seeds=[1, 2, 3])
    with pytest.raises(
        ValueError, match=r"four studies\. Received: 2, without seed 2"
    ):
        find_spread(studies)
