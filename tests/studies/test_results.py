"""What a study gave, in numbers, in words and in files."""

import csv
import json
import math
import pickle
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.studies.results import TrialFailure, TrialResults
from keras_repro.studies.scores import t_interval
from keras_repro.studies.wording import (
    say_level,
    say_seeds,
    say_share,
    write_interval,
    write_number,
    write_p,
)
from tests.builders import SCORES, make_results

NASTY = "\x1b[2J\u202enasty\n" + "x" * 500


def lines_of(thing):
    return str(thing).split("\n")


# --- what is held --------------------------------------------------------


def test_what_is_given_is_held():
    """Seeds as integers, scores as float64, in the order given."""
    results = make_results(seeds=np.array([4, 2, 7, 0, 9], "uint32"))
    assert results.seeds == (4, 2, 7, 0, 9)
    assert results.num_trials == 5
    assert results.metrics == ("rmse",)
    assert results.scores["rmse"].dtype == np.float64
    assert results.scores["rmse"].tolist() == SCORES


def test_scores_are_a_copy_that_nobody_changes():
    """What the caller does to his array later changes nothing."""
    given = np.array(SCORES)
    results = make_results(given)
    given[0] = 99.0
    assert results.scores["rmse"].tolist() == SCORES
    with pytest.raises(ValueError, match="read-only"):
        results.scores["rmse"][0] = 99.0


@pytest.mark.parametrize(
    ("seeds", "error", "message"),
    [
        ([0, 1, 2, 3, -1], ValueError, r"between 0 and.*Received: seed -1"),
        ([0, 1, 2, 3, 2**32], ValueError, r"Received: seed 4294967296"),
        ([0, 1, 1, 3, 3], ValueError, r"more than once: seeds 1, 3"),
        ([0, 1, 2, 3, 0.5], TypeError, r"integers\. Received: \[0, 1, 2, 3"),
        (5, TypeError, r"integers\. Received: 5"),
    ],
)
def test_seeds_that_are_none_are_refused(seeds, error, message):
    """Each trial has a seed of its own, which Keras would take."""
    with pytest.raises(error, match=message):
        make_results(seeds=seeds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": range(4)}, r"`scores\['rmse'\]`.*4 `seeds`.*\(5,\)"),
        ({"seconds": [1.0]}, r"`seconds`.*5 `seeds`\. Received: \(1,\)"),
        ({"checksums": ["a"]}, r"`checksums`.*Received: 1"),
        ({"workers": ["a"] * 6}, r"`workers`.*Received: 6"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(changes, message):
    """There is one value for each seed, or none at all."""
    with pytest.raises(ValueError, match=message):
        make_results(**changes)


@pytest.mark.parametrize("scores", ["abcde", [None, {}, 1, 2, 3], [[1], 2]])
def test_scores_that_are_no_numbers_are_refused(scores):
    """The message names the score."""
    with pytest.raises(TypeError, match=r"`scores\['rmse'\]` must hold numb"):
        make_results(scores)


def test_results_travel_between_processes():
    """Pickled and read again, they say the same."""
    results = make_results(name="none", notes=["A note."])
    again = pickle.loads(pickle.dumps(results))
    assert again.to_json() == results.to_json()
    some = make_results(run_source=tuple).select([0])
    assert pickle.loads(pickle.dumps(some)).seeds == (0,)


# --- the summary ---------------------------------------------------------


def test_summary_is_that_of_numpy():
    """All metrics by name, or the one that is asked for."""
    results = make_results(SCORES).summary()
    assert results["rmse"].mean == 19.0
    assert results["rmse"].median == 19.0
    assert math.isclose(results["rmse"].std, np.std(SCORES, ddof=1))
    two = make_results().select([0, 1])
    both = TrialResults(
        seeds=two.seeds, scores={"a": [1.0, 2.0], "b": [3.0, 5.0]}
    )
    assert list(both.summary()) == ["a", "b"]
    assert list(both.summary("b")) == ["b"]
    assert len(both.summary()) == 2
    assert both.summary("b")["b"].mean == 4.0


def test_options_reach_the_interval():
    """Another level gives another interval; the same, none."""
    results = make_results(np.random.default_rng(0).normal(size=20))

    def interval(**options):
        return results.summary(**options)["rmse"].interval

    assert interval() == interval()
    assert interval(confidence_level=0.8).low > interval().low


@pytest.mark.parametrize(
    ("watched", "words"),
    [(None, ""), (False, ", fixed beforehand"), (True, ", watched")],
)
def test_a_study_says_which_intervals_it_has(watched, words):
    """Those that hold at every look are wider, and are said to be that."""
    results = make_results(name="none", watched=watched)
    assert lines_of(results)[0] == f"5 trials, seeds 0 to 4{words} (none)"
    found = results.summary()["rmse"].interval
    assert found == t_interval(SCORES, watched=bool(watched))
    assert results.to_json()["watched"] is watched
    assert results.summary().to_json()["watched"] is watched
    assert results.select([3, 0, 1, 2, 4]).watched is watched
    # Of some of them alone nobody fixed the number.
    some = results.select([0, 1]).watched
    assert some is (True if watched else None)
    assert f"seeds 0 to 4{words}" in results._repr_html_()


def test_unknown_metric_is_refused_with_those_known():
    """The message lists what there is."""
    with pytest.raises(ValueError, match=r"has: `rmse`\. Received: 'mse'"):
        make_results().summary("mse")
    with pytest.raises(ValueError, match=r"has: it has none\."):
        TrialResults(seeds=(), scores={}).typical_seed()


def test_scores_that_are_not_finite_are_left_out_and_counted():
    """NaN and infinity are told of, and the rest is summed up."""
    results = make_results([1.0, math.nan, 3.0, math.inf, 2.0])
    found = results.summary()["rmse"]
    assert (found.num_scores, found.num_missing, found.mean) == (3, 2, 2.0)
    told = "2 of 5 trials gave no finite `rmse` and are left out."
    assert told in lines_of(results)
    assert "left out" not in str(make_results())


def test_no_finite_score_is_no_error():
    """A long study whose every trial gave NaN can still be looked at."""
    results = make_results([math.nan, math.nan])
    found = results.summary()["rmse"]
    assert (found.num_scores, found.num_missing) == (0, 2)
    assert math.isnan(found.mean)
    assert "2 of 2 trials gave no finite `rmse`" in str(results)
    with pytest.raises(ValueError, match=r"none with a finite `rmse`"):
        results.typical_seed()


def test_one_trial_has_a_mean_but_no_interval():
    """Nothing is said of the spread of one score."""
    text = str(make_results([2.5]))
    assert text.startswith("1 trial, seed 0\n")
    assert re.search(r"rmse +2\.5 +none +none +2\.5", text)


# --- rank and choice -----------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [
        (2, "Seed 2 is the lowest of 5 (rmse 18, 1.3 standard deviations "
            "below the mean)."),
        (0, "Seed 0 is the 2nd lowest of 5 (rmse 18.5, 0.6 standard "
            "deviations below the mean)."),
        (4, "Seed 4 is the 3rd lowest of 5 (rmse 19, at the mean)."),
        (1, "Seed 1 is the 2nd highest of 5 (rmse 19.5, 0.6 standard "
            "deviations above the mean)."),
        (3, "Seed 3 is the highest of 5 (rmse 20, 1.3 standard deviations "
            "above the mean)."),
    ],
)  # fmt: skip
def test_rank_in_words(seed, sentence):
    """The place is counted from the nearer end."""
    assert str(make_results().rank(seed)) == sentence


def test_rank_in_numbers():
    """From 1 for the lowest, among the finite scores alone."""
    found = make_results([3.0, math.nan, 1.0, 2.0]).rank(0)
    assert (found.rank, found.num_scores, found.score) == (3.0, 3, 3.0)
    assert found.metric == "rmse"
    assert math.isclose(found.percentile, 100 * 2.5 / 3)
    assert found.z == 1.0
    assert found.to_json()["rank"] == 3.0


def test_equal_scores_share_a_rank():
    """Two of them lie between two places, and all equal at the mean."""
    found = make_results([1.0, 1.0, 5.0]).rank(1)
    assert found.rank == 1.5
    assert "is between the 1st and 2nd lowest of 3" in str(found)
    found = make_results([1.0, 5.0, 6.0, 6.0]).rank(2)
    assert "is between the 1st and 2nd highest of 4" in str(found)
    same = make_results([2.0] * 3).rank(1)
    assert "at the mean" in str(same)
    assert math.isnan(same.z)
    assert same.to_json()["z"] == "nan"
    assert "is the only one with a score" in str(make_results([2.0]).rank(0))


@pytest.mark.parametrize(
    ("place", "word"), [(10, "11th"), (11, "12th"), (20, "21st"), (22, "23rd")]
)
def test_ordinals(place, word):
    """As they are spoken."""
    results = make_results(np.arange(99.0))
    assert f"is the {word} lowest of 99" in str(results.rank(place))


def test_rank_of_what_has_none():
    """An unknown seed and a score that is not finite."""
    results = make_results([1.0, math.nan])
    with pytest.raises(ValueError, match=r"finished: seeds 0, 1\. .*seed 7"):
        results.rank(7)
    with pytest.raises(ValueError, match=r"finite.*Received: nan for `rmse`"):
        results.rank(1)


@pytest.mark.parametrize(
    ("scores", "seed"),
    [
        ([1.0, 5.0, 2.9, 4.0, 3.0], 4),
        ([1.0, 2.0, 3.0, 4.0], 1),
        ([math.nan, 5.0, 1.0, 2.0], 3),
        ([math.inf, 5.0], 1),
    ],
)
def test_typical_seed_is_closest_to_the_median(scores, seed):
    """Of those equally close, the first."""
    assert make_results(scores).typical_seed() == seed


def test_select_keeps_what_belongs_to_the_seeds():
    """In the order given, with all that is known of each trial."""
    results = make_results(
        seconds=[1.0, 2.0, 3.0, 4.0, 5.0],
        checksums=list("abcde"),
        workers=list("vwxyz"),
        failures=[TrialFailure(seed=9, error="ValueError: no")],
        name="none",
        run_source=lambda: (("r0",), ("r1",), (), (), ()),
    )
    found = results.select([3, 1])
    assert found.seeds == (3, 1)
    assert found.scores["rmse"].tolist() == [20.0, 19.5]
    assert found.seconds.tolist() == [4.0, 2.0]
    assert (found.checksums, found.workers) == (("d", "b"), ("y", "w"))
    assert found.failures == ()
    assert found.name == "none"
    assert found.runs == ((), ("r1",))
    assert make_results().select([3]).checksums == ()
    with pytest.raises(ValueError, match=r"Received: seeds 9, 11"):
        results.select([1, 9, 11])


def test_runs_are_loaded_once_and_when_asked_for():
    """Nothing is read before that; without a source there are none."""
    asked = []

    def load():
        asked.append(1)
        return [["run"], []]

    results = make_results([1.0, 2.0], run_source=load)
    assert asked == []
    assert results.runs == (("run",), ())
    assert results.runs is results.runs
    assert asked == [1]
    assert make_results([1.0, 2.0]).runs == ((), ())


# --- files ---------------------------------------------------------------


@given(st.lists(st.floats(), min_size=1, max_size=8))
def test_csv_reads_back_to_the_same_bits(tmp_path_factory, scores):
    """Every float, NaN and infinities among them."""
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    results = make_results(scores)
    results.to_csv(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    read = np.array([float(row["rmse"]) for row in rows])
    same = np.array(scores) + 0.0 * np.isnan(scores)
    assert np.array_equal(np.isnan(read), np.isnan(same))
    finite = ~np.isnan(read)
    assert read[finite].tobytes() == same[finite].tobytes()
    assert [int(row["seed"]) for row in rows] == list(results.seeds)


def test_csv_holds_all_that_is_known(tmp_path):
    """And what is unknown is left empty; metrics may be called anything."""
    results = TrialResults(
        seeds=[3, 5],
        scores={"a,\n": [0.1, math.nan], "seed": [1.0, 2.0]},
        seconds=[0.5, 0.25],
        checksums=["kr1:a", "kr1:b"],
    )
    results.to_csv(tmp_path / "results.csv")
    expected = (
        'seed,"a,\n",seed (score),seconds,checksum,worker\n'
        "3,0.1,1.0,0.5,kr1:a,\n5,nan,2.0,0.25,kr1:b,\n"
    )
    assert (tmp_path / "results.csv").read_bytes().decode() == expected


def test_json_is_strict_and_holds_everything(tmp_path):
    """NaN as a string; the file holds what is returned."""
    results = make_results(
        [1.0, math.nan],
        seconds=[0.5, 0.25],
        name="none",
        notes=["A worker died."],
        failures=[TrialFailure(seed=9, error="ValueError: no")],
        vary="order",
    )
    found = results.to_json(tmp_path / "results.json")
    assert found["scores"] == {"rmse": [1.0, "nan"]}
    assert found["failures"] == [
        {"seed": 9, "error": "ValueError: no", "traceback": ""}
    ]
    assert (found["name"], found["vary"]) == ("none", "order")
    assert found["notes"] == ["A worker died."]
    text = (tmp_path / "results.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == found
    summary = results.summary().to_json()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["num_trials"], summary["num_failures"]) == (2, 1)


def test_dataframe_has_a_row_for_each_trial():
    """With the columns of the CSV file."""
    pd = pytest.importorskip("pandas")
    found = make_results(workers=list("vwxyz")).to_dataframe()
    assert list(found) == ["seed", "rmse", "seconds", "checksum", "worker"]
    assert found["rmse"].tolist() == SCORES
    assert found["worker"].tolist() == list("vwxyz")
    assert pd.isna(found["seconds"]).all()


def test_dataframe_without_pandas(monkeypatch):
    """The error names what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        make_results().to_dataframe()


# --- words ---------------------------------------------------------------


def test_text_is_a_headline_and_a_table():
    """Two digits of the half width of the interval are shown."""
    headline, empty, titles, row = lines_of(make_results(name="none"))
    assert headline == "5 trials, seeds 0 to 4 (none)"
    assert empty == ""
    expected = ["mean", "95%", "interval", "std", "median", "iqm", "min", "max"]
    assert titles.split() == expected
    assert row.split() == [
        "rmse", "19.00", "[18.02,", "19.98]", "0.79", "19.00", "19.00",
        "18.00", "20.00",
    ]  # fmt: skip


def test_text_tells_of_failures_and_notes():
    """One line of each, and no more than a few failures."""
    failures = [
        TrialFailure(seed=seed, error="ValueError: no") for seed in (7, 8)
    ]
    text = str(make_results(failures=failures[:1], notes=["A worker died."]))
    assert "\n1 trial failed: seed 7, ValueError: no\nA worker died." in text
    text = str(make_results(failures=failures * 20))
    assert "40 trials failed: seed 7, ValueError: no; seed 8" in text
    assert "and 35 more" in text.replace("\n  ", " ")
    assert "failed" not in str(make_results())
    text = str(make_results(notes=[f"Note {n}." for n in range(25)]))
    assert text.endswith("Note 19.\nand 5 more")


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ("order", ", only the order of the data varies"),
        ("initial", ", only the initial weights vary"),
        ("random", ", only the random layers vary"),
        ("odd\x07", r", `vary` is odd\x07"),
        ("all", ""),
    ],
)
def test_headline_says_what_varies(vary, words):
    """If it is not everything."""
    headline = lines_of(make_results(vary=vary))[0]
    assert headline == f"5 trials, seeds 0 to 4{words}"


def test_nothing_finished():
    """A study in which all trials failed is told as that."""
    results = TrialResults(
        seeds=(),
        scores={},
        name="none",
        failures=[TrialFailure(seed=0, error="ValueError: no")],
    )
    expected = "No trial finished (none).\n\n1 trial failed: seed 0"
    assert str(results).startswith(expected)


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e-4, 1e12, 1e300])
@pytest.mark.parametrize("name", ["x", "val_mean_absolute_error", NASTY])
def test_text_fits_a_terminal(name, factor):
    """Whatever the size of the scores, and whatever things are called."""
    rng = np.random.default_rng(0)
    results = TrialResults(
        seeds=range(0, 100, 2),
        scores={
            name: factor * rng.normal(3, 1, 50),
            "b": factor * 10 ** rng.normal(-5, 3, 50),
        },
        name=name,
        notes=[name],
        failures=[TrialFailure(seed=1, error=name)],
    )
    lines = lines_of(results)
    assert max(map(len, lines)) <= 79
    assert all(map(str.isprintable, lines))
    assert "mean" in str(results)


@given(st.floats(-1e300, 1e300), st.floats(1e-300, 1e300))
def test_numbers_keep_their_sign_and_their_size(value, error):
    """What is not 0 never shows as 0, nor is it off by more than its error."""
    text = write_number(value, error)
    assert (float(text) > 0) == (value > 0)
    assert (float(text) < 0) == (value < 0)
    assert abs(float(text) - value) <= 0.06 * error + 1e-13 * abs(value)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (19.01723, 0.186, "19.02"),
        (19.01723, 0.0996, "19.02"),
        (19.01723, 0.0994, "19.017"),
        (1234.5, 321.0, "1234"),
        (-0.0, 0.186, "0.00"),
        (-0.001, 0.186, "-1.0e-03"),
        (1.5e9, 2e8, "1.50e+09"),
        (1.0, 0.0, "1"),
        (1.0, None, "1"),
        (2 / 3, None, "0.666667"),
        (0.001, 0.186, "1.0e-03"),
        (1.23456e-9, 2.5e-11, "1.235e-09"),
        (math.nan, 0.1, "none"),
        (math.inf, 0.1, "inf"),
        (1.0, math.inf, "1"),
    ],
)
def test_digits(value, error, text):
    """Two of the error, and six where there is none."""
    assert write_number(value, error) == text


def test_small_words():
    """Intervals, levels, p values, seeds, shares."""
    assert write_interval(-0.0012, 0.0034) == "[-0.0012, 0.0034]"
    assert say_level(0.9) == "90% interval"
    assert say_level(1 - 0.05 / 3) == "98.33% interval"
    assert write_p(0.0) == "< 1e-16"
    assert write_p(0.01234) == "0.012"
    assert say_seeds([5, 4, 1]) == "seeds 1, 4, 5"
    assert say_seeds([0, 1, 2, 3, 7]) == "seeds 0 to 3, 7"
    assert (say_seeds([7]), say_seeds([])) == ("seed 7", "no seed")
    many = say_seeds(range(0, 200, 2))
    assert many == "seeds 0, 2, 4, 6, 8, 10, 12, 14 and 92 more"
    assert say_share(0.001) == "1 of 100"
    assert say_share(0.0) == "0 of 100"
    assert say_share(0.957) == "96 of 100"
    assert say_share(0.999) == "99 of 100"
    assert say_share(1.0) == "100 of 100"
