"""Many seeds: each trial is a function of its seed, wherever it runs."""

import errno
import itertools
import json
import math
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import SimpleNamespace

import keras
import loky
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.cli import trials
from keras_repro.studies import files as study_files
from keras_repro.studies.scores import t_interval
from keras_repro.trials.run import say_so_far
from tests import builders, checkout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
Y = (X[:, :1] * 2 + 1).astype("float32")
OWN = np.random.default_rng(5)


@keras.saving.register_keras_serializable("test_trials")
class Scale(keras.layers.Layer):
    """A layer of the person's own."""

    def build(self, shape):
        self.factor = self.add_weight(
            shape=(shape[-1],), initializer="random_normal", name="factor"
        )

    def call(self, x):
        return x * self.factor


class Counted(keras.layers.Layer):
    """Counts how often it is traced."""

    num_calls = 0

    def call(self, x):
        Counted.num_calls += 1
        return x


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


def make_layers(num_units=6):
    return [
        keras.layers.Dense(num_units, activation="relu"),
        Scale(),
        keras.layers.Dropout(0.3),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(1),
    ]


def build(num_units=6):
    """A model with all that a trial has to put back."""
    model = kr.ReproducibleModel([keras.Input((4,)), *make_layers(num_units)])
    model.compile("adam", own_loss)
    return model


def train(model):
    """Two epochs; draws from every kind of stream."""
    noise = random.random() + np.random.normal() + OWN.normal()
    history = model.fit(
        X + 0.01 * noise, Y, epochs=2, batch_size=16, verbose=0
    ).history
    return {"loss": history["loss"][-1], "noise": noise}


def train_quickly(model):
    """One epoch, and one number."""
    return model.fit(X, Y, batch_size=30, verbose=0).history["loss"][-1]


@pytest.fixture(autouse=True)
def rewind_own():
    """What a test draws from it by hand is nothing to the next one."""
    OWN.bit_generator.state = np.random.default_rng(5).bit_generator.state


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def expected(model):
    """Four trials here, one after the other."""
    return kr.run_trials(model, train, seeds=4, progress=False)


def assert_same(results, expected, seeds):
    """Bitwise equal: scores and trained models."""
    chosen = expected.select(seeds)
    assert results.seeds == chosen.seeds
    for place, runs in enumerate(results.runs):
        for run, other in zip(runs, chosen.runs[place], strict=True):
            found = kr.compare_runs(run, other)
            assert found.equal, str(found)
    assert results.checksums == chosen.checksums
    assert {name: one.tobytes() for name, one in results.scores.items()} == {
        name: one.tobytes() for name, one in chosen.scores.items()
    }


# --- a trial is a function of its seed ---------------------------------------


def test_results_hold_what_each_trial_gave(expected):
    """Scores by name, a checksum and seconds for each seed; all differ."""
    assert expected.seeds == (0, 1, 2, 3)
    assert set(expected.scores) == {"loss", "noise"}
    assert expected.scores["loss"].shape == (4,)
    assert len(set(expected.checksums)) == 4
    assert len(set(expected.scores["noise"])) == 4
    assert (expected.seconds > 0).all()
    assert expected.failures == expected.notes == ()


def test_a_trial_is_the_same_alone_and_in_any_order(model, expected):
    """Nothing of one trial reaches another."""
    backwards = kr.run_trials(model, train, seeds=[3, 1], progress=False)
    assert_same(backwards, expected, [3, 1])
    alone = kr.run_trials(model, train, seeds=[2], progress=False)
    assert_same(alone, expected, [2])


def test_a_trial_is_what_one_writes_by_hand(model, expected):
    """`trial(seed=)` around the same training gives the same bits."""
    with model.trial(seed=2):
        scores = train(model)
    assert scores["loss"] == expected.scores["loss"][2]
    assert kr.compute_checksum(model) == expected.checksums[2]


def test_without_its_streams_a_trial_differs(model, expected):
    """The twin: the same seed by `reset` alone draws from the program."""
    model.reset(seed=2)
    scores = train(model)
    assert scores["noise"] != expected.scores["noise"][2]
    assert kr.compute_checksum(model) != expected.checksums[2]


def test_a_function_that_builds_gives_the_same(expected):
    """Whatever was drawn before the model was built."""
    np.random.random(17)
    random.random()
    results = kr.run_trials(build, train, seeds=[1, 0], progress=False)
    assert_same(results, expected, [1, 0])


def test_a_model_that_its_data_build_gives_the_same(expected):
    """It is built by the first batch, before the first trial begins."""
    unbuilt = kr.ReproducibleModel(make_layers())
    unbuilt.compile("adam", own_loss)
    results = kr.run_trials(unbuilt, train, seeds=[1, 0], progress=False)
    assert_same(results, expected, [1, 0])


def test_the_program_and_the_model_stay_as_they_were(model):
    """Global streams go on as if nothing had happened; the model is reset."""
    model.reset()
    seed, start = model.seed, kr.compute_checksum(model)
    random.seed(1), np.random.seed(1)
    first = random.random(), np.random.random()
    random.seed(1), np.random.seed(1)
    kr.run_trials(model, train, seeds=[7], progress=False)
    assert (random.random(), np.random.random()) == first
    assert (model.seed, kr.compute_checksum(model)) == (seed, start)


@pytest.mark.requires_backend("tensorflow", "jax")
def test_nothing_is_traced_again():
    """The first trial traces the layer, and no other does."""
    counted = builders.make_model(Counted())
    after = []

    def train(model):
        loss = train_quickly(model)
        after.append(Counted.num_calls)
        return loss

    kr.run_trials(counted, train, seeds=3, progress=False)
    assert after[0] > 0
    assert len(set(after)) == 1


def test_the_runs_of_each_trial_are_recorded(model, expected):
    """One `fit` is one run: its seed, its epochs, its last checksum."""
    ((run,),) = expected.select([3]).runs
    assert run.header.seed == 3
    assert [one.epoch for one in run.records] == [None, 0, 1]
    assert run.finished
    twice = kr.run_trials(
        model,
        lambda model: [train_quickly(model) for _ in range(2)][-1],
        seeds=2,
        progress=False,
    )
    assert [len(runs) for runs in twice.runs] == [2, 2]


# --- what the seed moves -----------------------------------------------------


def test_vary_moves_one_part_alone(model):
    """Each part by itself gives a spread; seed 0 is the same for all."""
    studies = {
        vary: kr.run_trials(
            model, train_quickly, seeds=3, progress=False, vary=vary
        )
        for vary in ("all", "initial", "order", "random")
    }
    assert len({one.checksums[0] for one in studies.values()}) == 1
    starts = {
        vary: [runs[0].records[0].roles["weights"] for runs in one.runs]
        for vary, one in studies.items()
    }
    assert len(set(starts["initial"])) == 3
    assert len(set(starts["order"])) == len(set(starts["random"])) == 1
    assert starts["initial"] == starts["all"]
    for one in studies.values():
        assert len(set(one.checksums)) == 3
    differ = [
        studies[one].checksums[1] != studies[other].checksums[1]
        for one in studies
        for other in studies
        if one < other
    ]
    assert all(differ)


@pytest.mark.slow
@pytest.mark.alike
def test_a_spread_is_split_by_what_the_seed_moves(model, tmp_path):
    """Four studies of the same seeds, kept where they can go on."""
    options = {"progress": False, "path": tmp_path / "spread"}
    found = kr.spread(model, train_quickly, seeds=4, **options)
    assert list(found.studies) == ["all", "initial", "order", "random"]
    for vary, one in found.studies.items():
        assert (one.vary, one.seeds) == (vary, (1, 2, 3, 4))
        assert one.watched is False
        kept = kr.load_trials(tmp_path / "spread" / vary)
        assert kept.checksums == one.checksums
    initial = found.studies["initial"].scores["score"]
    alone = kr.run_trials(
        model, train_quickly, seeds=[3], progress=False, vary="initial"
    )
    assert alone.scores["score"][0] == initial[2]
    whole = found.studies["all"].scores["score"]
    slope = np.polyfit(whole, initial, 1)[0]
    share = found["initial"].share
    assert share == pytest.approx(slope, abs=1e-5)
    again = kr.spread(model, train_quickly, seeds=4, **options)
    assert again.to_json() == found.to_json()
    assert "4 seeds) " in str(again)
    # Gone on with, it was looked at.
    more = kr.spread(model, train_quickly, seeds=5, **options)
    assert (found.watched, more.watched) == (False, True)
    assert "studies was watched" in " ".join(str(more).split())


@pytest.mark.slow
def test_a_spread_goes_on_without_a_seed_that_failed(model):
    """The other seeds count; a metric that is none ends the first study."""
    calls = []

    def train(model):
        calls.append(model._repro.seeds.vary)
        if (model.seed, calls[-1]) == (3, "order"):
            raise ValueError("boom")
        return train_quickly(model)

    found = kr.spread(model, train, seeds=5, progress=False)
    assert (found.num_seeds, found.left_out) == (4, (3,))
    assert "boom" in str(found)
    calls.clear()
    with pytest.raises(ValueError, match="Received: 'other'"):
        kr.spread(model, train, seeds=5, progress=False, metric="other")
    assert set(calls) == {"all"}


@pytest.mark.parametrize("seeds", [2, [1, 2], [0, 1, 2], range(3)])
def test_seeds_of_a_spread_are_not_the_one_that_stands(model, seeds):
    """Seed 0 is where the others stay; two seeds have no line."""
    with pytest.raises(ValueError, match="at least three, none of them 0"):
        kr.spread(model, pytest.fail, seeds=seeds, progress=False)


def test_vary_belongs_to_the_identity_of_a_run(model, tmp_path):
    """Two trials of one seed that vary other parts are no drift."""
    checks = kr.ChecksumCallback(tmp_path / "runs.jsonl")
    for vary in ("order", "random", "all"):
        model.reset(seed=1, vary=vary)
        model.fit(X, Y, verbose=0, callbacks=[checks])
        assert checks.mismatch is None
    first = kr.load_runs(tmp_path / "runs.jsonl")[0]
    assert first.header.identity["vary"] == "order"


def test_vary_is_refused_where_it_means_nothing(model):
    """An unknown part, or a part without a seed."""
    with pytest.raises(ValueError, match=r"`vary` must be one of .*'weights'"):
        kr.run_trials(model, train, vary="weights")
    with pytest.raises(ValueError, match="must come with a seed"):
        model.reset(vary="order")


@pytest.mark.slow
def test_vary_travels_with_the_model(model):
    """A copy of a model stands at the same trial."""
    model.reset(seed=3, vary="order")
    copy = model.clone()
    results = [
        one.fit(X, Y, verbose=0, batch_size=16).history["loss"]
        for one in (model, copy)
    ]
    assert results[0] == results[1]
    copy.reset(seed=3)
    assert copy.fit(X, Y, verbose=0, batch_size=16).history != results[0]


# --- stopping early ----------------------------------------------------------


class Stop:
    """A rule that stops after so many trials, and counts its questions."""

    def __init__(self, number):
        self.number, self.asked = number, []

    def is_met(self, scores):
        self.asked.append(len(scores["score"]))
        return len(scores["score"]) >= self.number


def test_a_study_stops_when_its_rule_is_met(model):
    """Asked after each trial in the order of the seeds."""
    rule = Stop(2)
    results = kr.run_trials(
        model, train_quickly, seeds=[5, 3, 1, 0], progress=False, until=rule
    )
    assert results.seeds == (5, 3)
    assert rule.asked == [1, 2]


@pytest.mark.slow
def test_the_half_width_is_kept(model):
    """A wide target stops at the minimum, a narrow one at the maximum."""
    for half_width, number in ((1e6, 3), (1e-9, 5)):
        results = kr.run_trials(
            model,
            train_quickly,
            seeds=5,
            progress=False,
            until=kr.HalfWidth(half_width, min_trials=3),
        )
        assert results.num_trials == number
        # Nor fixed beforehand, nor watched: its interval is Student's.
        assert results.watched is None


@pytest.mark.slow
def test_a_study_stops_when_its_difference_is_settled(model):
    """Lower, higher or equal within the margin, and its results say so."""
    baseline = kr.run_trials(model, train_quickly, seeds=9, progress=False)
    assert baseline.watched is False
    scores = baseline.scores["score"]
    for shift, number, outcome in ((5.0, 5, "higher"), (0.0, 5, "equal")):

        def shifted(model, shift=shift):
            place = baseline.seeds.index(model.seed)
            return {"score": float(scores[place]) + shift + 1e-6 * place}

        results = kr.run_trials(
            model,
            shifted,
            seeds=9,
            progress=False,
            until=kr.Settled(baseline, margin=1.0),
        )
        assert (results.num_trials, results.watched) == (number, True)
        pair = baseline.select(results.seeds), results
        found = kr.compare_trials(*pair, margin=1.0)
        assert (found.outcome, found.watched) == (outcome, True)
    # The twin: what is not settled runs to the last seed.
    rule = kr.Settled(baseline)
    results = kr.run_trials(
        model, train_quickly, seeds=9, progress=False, until=rule
    )
    assert results.num_trials == 9


def test_a_baseline_must_have_all_seeds(model):
    """Refused before anything runs, with the seeds that are missing."""
    baseline = kr.TrialResults(seeds=range(3), scores={"score": [1.0, 2.0, 3]})
    rule = kr.Settled(baseline)
    for options, message in (
        ({"seeds": 5}, "without seeds 3, 4"),
        ({"seeds": 3, "vary": "order"}, "'all' and 'order'"),
    ):
        with pytest.raises(ValueError, match=message):
            kr.run_trials(
                model,
                pytest.fail,
                progress=False,
                until=rule,
                **options,
            )


@pytest.mark.alike
def test_losses_per_example_are_kept(model, tmp_path):
    """A row for each seed, on disk too; their mean is the score."""

    def train(model):
        model.fit(X, Y, epochs=1, verbose=0)
        losses = (keras.ops.convert_to_numpy(model(X)) - Y)[:, 0] ** 2
        return {"mse": losses, "first": losses[:1], "last": float(losses[-1])}

    path = tmp_path / "study"
    results = kr.run_trials(model, train, seeds=3, path=path, progress=False)
    assert list(results.examples) == ["mse"]
    losses = results.examples["mse"]
    assert losses.shape == (3, len(X))
    assert (results.scores["mse"] == losses.mean(axis=1)).all()
    assert (results.scores["last"] == losses[:, -1]).all()
    assert (results.scores["first"] == losses[:, 0]).all()
    kept = kr.load_trials(path)
    assert (kept.examples["mse"] == losses).all()
    again = kr.run_trials(model, train, seeds=3, path=path, progress=False)
    assert (again.examples["mse"] == losses).all()
    pair = again, again.select(again.seeds)
    assert kr.compare_trials(*pair).examples.num_examples == len(X)
    # An earlier version wrote none.
    lines = (path / "trials.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(one) for one in lines]
    for one in entries:
        one.pop("examples", None)
    text = "".join(f"{json.dumps(one)}\n" for one in entries)
    (path / "trials.jsonl").write_text(text, "utf-8")
    assert kr.load_trials(path).examples == {}


def test_losses_must_be_of_the_same_examples(model):
    """Under each seed, and not too many; told when they come."""

    def changing(model):
        return {"mse": np.ones(10 + model.seed)}

    with pytest.raises(ValueError, match="'mse' of 10 and of 11 examples"):
        kr.run_trials(model, changing, seeds=2, progress=False)

    def large(model):
        return {"mse": np.ones(100_001)}

    with pytest.raises(TypeError, match=r"at most 100,000.*came under seed 0"):
        kr.run_trials(model, large, seeds=2, progress=False)


@pytest.mark.alike
def test_a_study_remembers_what_was_planned(model, tmp_path):
    """As many seeds as when it began are fixed, others are watched."""

    def run(path, seeds, **options):
        return kr.run_trials(
            model,
            train_quickly,
            seeds=seeds,
            path=tmp_path / path,
            progress=False,
            **options,
        ).watched

    assert run("study", 2) is False
    assert kr.load_trials(tmp_path / "study").watched is False
    assert run("study", 3) is True
    assert kr.load_trials(tmp_path / "study").watched is True
    assert run("study", 2) is False
    assert run("study", [1, 0]) is False
    assert run("study", [0, 2]) is True
    assert run("study", 2, until=Stop(2)) is True
    # Begun with a rule, no later number was fixed beforehand.
    assert run("stopped", 3, until=Stop(1)) is True
    assert run("stopped", 3) is True
    width = kr.HalfWidth(1e6, min_trials=2)
    assert run("narrow", 3, until=width) is None
    assert kr.load_trials(tmp_path / "narrow").watched is None
    # An earlier version recorded no plan.
    assert run("old", 2) is False
    file = tmp_path / "old" / "study.json"
    content = json.loads(file.read_text("utf-8"))
    del content["plan"]
    file.write_text(json.dumps(content), "utf-8")
    assert run("old", 2) is None
    assert kr.load_trials(tmp_path / "old").watched is None
    assert run("old", 2, until=Stop(2)) is True
    assert kr.load_trials(tmp_path / "old").watched is True


@pytest.mark.sampled(5)
@pytest.mark.alike
@pytest.mark.parametrize(
    ("calls", "watched"),
    [
        # Stopped by its width; the same when it goes on.
        ([(4, 1e6)], None),
        ([(4, 1e6), (4, 1e6)], None),
        ([(4, 1e-9), (4, 1e-9)], None),
        # One may have looked: at a fixed number, or where its width was.
        ([(3, None), (4, 1e-9)], True),
        ([(2, None), (4, 1e6)], True),
        ([(4, None), (4, 1e6)], True),
        ([(3, 1e6), (4, None)], True),
        ([(4, 1e6), (4, None)], True),
        ([(3, 1e6), (4, 1e-9)], True),
        ([(4, 1e6), (4, 1e-9)], True),
        ([(3, 1e6), (4, 0)], True),
        ([(4, 0), (4, 1e6)], True),
        # By their number alone nothing else was planned.
        ([(4, None), (4, None)], False),
    ],
)
def test_a_rule_does_not_hide_that_one_looked(model, tmp_path, calls, watched):
    """Whatever the last call stops by; the folder says what the call did."""
    for seeds, width in calls:
        rule = None
        if width is not None:
            rule = kr.HalfWidth(width, min_trials=2) if width else Stop(9)
        found = kr.run_trials(
            model,
            train_quickly,
            seeds=seeds,
            path=tmp_path,
            progress=False,
            until=rule,
        )
    assert found.watched is watched
    assert kr.load_trials(tmp_path).watched is watched


# --- what goes wrong ---------------------------------------------------------


def test_a_training_that_raises_is_reported(model, expected):
    """The others are kept, and are what they are without it."""

    def raise_at_two(model):
        if model.seed == 2:
            raise ValueError("seed two is unlucky")
        return train(model)

    results = kr.run_trials(model, raise_at_two, seeds=4, progress=False)
    assert_same(results, expected, [0, 1, 3])
    (failure,) = results.failures
    assert (failure.seed, failure.error) == (
        2,
        "ValueError: seed two is unlucky",
    )
    assert "raise_at_two" in failure.traceback


def test_a_training_that_stops_in_the_middle_spoils_no_other(model, expected):
    """Also where an exception leaves the model half-way through a step."""

    class Stumble(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stumbled")

    def stumble(model):
        if model.seed == 0:
            model.fit(X, Y, verbose=0, callbacks=[Stumble()])
        return train(model)

    results = kr.run_trials(model, stumble, seeds=2, progress=False)
    assert [one.seed for one in results.failures] == [0]
    assert_same(results, expected, [1])


def test_a_training_that_always_raises_is_an_error(model):
    """With the first traceback: it is a mistake, and no study."""

    def fail(model):
        return 1 / 0

    with pytest.raises(
        RuntimeError, match=r"2 trials that all failed(.|\n)*1 / 0"
    ):
        kr.run_trials(model, fail, seeds=2, progress=False)


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (None, "None"),
        ("good", "'good'"),
        ({}, "{}"),
        ([1.0, 2.0], r"\[1.0, 2.0\]"),
        ({"loss": None}, "None"),
        ({1: 2.0}, "1"),
    ],
)
def test_what_is_no_score_is_refused_at_once(model, value, received):
    """The first trial says it, not the thirtieth."""
    calls = []

    def train(model):
        calls.append(model.seed)
        return value

    with pytest.raises(TypeError, match=f"Received: {received}"):
        kr.run_trials(model, train, seeds=3, progress=False)
    assert calls == [0]


def test_complex_scores_are_refused(model):
    """No imaginary part is lost; the error names the score and the seed."""
    told = r"score 'a' must be a real number\. Received: .* under seed 7\."
    small = np.complex64(1 + 2j)
    tensor = keras.ops.convert_to_tensor(small)
    for score in (1 + 2j, 1 + 0j, small, np.array(small), [1j], tensor):
        with pytest.raises(TypeError, match=told):
            kr.run_trials(
                model, lambda _, a=score: {"a": a}, [7], progress=False
            )


def test_scores_may_be_of_any_number_type(model):
    """NumPy's numbers, arrays of one element and tensors."""

    def train(model):
        return {
            "numpy": np.float32(0.5),
            "array": np.array([[1]]),
            "tensor": keras.ops.convert_to_tensor(2.5),
            "half": keras.ops.cast(keras.ops.ones(()), "bfloat16"),
            "truth": True,
        }

    results = kr.run_trials(model, train, seeds=1, progress=False)
    assert [one[0] for one in results.scores.values()] == [0.5, 1, 2.5, 1, 1]


def test_a_metric_that_one_trial_lacks_is_nan(model):
    """It is kept as missing, and counted."""

    def train(model):
        return {"a": 1.0, "b": 2.0} if model.seed else {"a": math.nan}

    results = kr.run_trials(model, train, seeds=3, progress=False)
    assert np.isnan(results.scores["b"]).tolist() == [True, False, False]
    assert results.summary("b")["b"].num_missing == 1
    assert results.summary("a")["a"].num_missing == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seeds": True}, TypeError, "number of trials"),
        ({"seeds": 0}, ValueError, "at least one trial"),
        ({"seeds": []}, ValueError, "at least one trial"),
        ({"seeds": [1, 2, 1]}, ValueError, "more than once: seed 1"),
        ({"seeds": [-1]}, ValueError, "between 0 and"),
        ({"seeds": [0.5]}, TypeError, "must hold integers"),
        ({"seeds": "ab"}, TypeError, "must hold integers"),
        ({"executor": 2}, TypeError, "num_workers=2"),
        ({"num_workers": 0}, ValueError, "from 1 to 1024"),
        ({"num_workers": 1025}, ValueError, "from 1 to 1024"),
        ({"num_workers": 1.5}, TypeError, "from 1 to 1024"),
        ({"seeds": 1_000_001}, ValueError, "at most 1,000,000"),
        ({"seeds": itertools.count()}, ValueError, "at most 1,000,000"),
        ({"seeds": b"ab"}, TypeError, "must hold integers"),
        ({"seeds": [True]}, TypeError, "must hold integers"),
        ({"until": 0.1}, TypeError, "HalfWidth"),
        ({"check": True}, TypeError, "share from 0 to 1"),
        ({"check": 2}, ValueError, "share from 0 to 1"),
        ({"path": 3}, TypeError, "os.PathLike"),
    ],
)
def test_wrong_arguments_are_refused(model, arguments, error, message):
    """Before anything is trained."""
    with pytest.raises(error, match=message):
        kr.run_trials(model, pytest.fail, progress=False, **arguments)


def test_an_executor_has_its_own_number_of_workers(model):
    """Two answers to one question are refused."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="both"):
        kr.run_trials(model, train, executor=pool, num_workers=2)


def test_wrong_models_are_refused():
    """A plain model, an uncompiled one, a training that is no function."""
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(TypeError, match="make_reproducible"):
        kr.run_trials(plain, train)
    with pytest.raises(TypeError, match="make_reproducible"):
        kr.run_trials(lambda: plain, train)
    with pytest.raises(ValueError, match="compiled"):
        kr.run_trials(kr.make_reproducible(plain), train)
    with pytest.raises(TypeError, match="function of the model"):
        kr.run_trials(plain, 30)


def test_a_study_within_a_trial_of_its_model_is_refused(model):
    """It would reset the model under the feet of the trial around it."""
    with model.trial(seed=1), pytest.raises(RuntimeError, match="a clone"):
        kr.run_trials(model, train_quickly, seeds=1, progress=False)


def test_an_unbuilt_model_must_be_trained():
    """A training that never fits it cannot build it."""
    unbuilt = kr.ReproducibleModel(make_layers())
    unbuilt.compile("adam", own_loss)
    with pytest.raises(ValueError, match="was never built"):
        kr.run_trials(unbuilt, lambda model: 1.0, progress=False)


def test_ctrl_c_ends_the_study_and_keeps_what_is_done(model, tmp_path):
    """The trials before it are on disk, and the model is at its start."""

    def interrupt(model):
        if model.seed == 2:
            raise KeyboardInterrupt
        return train_quickly(model)

    model.reset()
    start = kr.compute_checksum(model)
    with pytest.raises(KeyboardInterrupt):
        kr.run_trials(
            model, interrupt, seeds=4, progress=False, path=tmp_path / "study"
        )
    assert kr.load_trials(tmp_path / "study").seeds == (0, 1)
    assert kr.compute_checksum(model) == start


def test_one_trial_has_no_interval(model):
    """It has a mean, and cannot be compared."""
    results = kr.run_trials(model, train_quickly, seeds=1, progress=False)
    summary = results.summary()["score"]
    assert summary.interval is None
    assert math.isnan(summary.std)
    with pytest.raises(ValueError, match="two"):
        kr.compare_trials(results, results)


# --- other processes ---------------------------------------------------------


@pytest.fixture(scope="module")
def pool():
    """Two fresh processes, which several studies share."""
    environment = {
        "OMP_WAIT_POLICY": "passive",
        "LOKY_MAX_MEMORY_LEAK_SIZE": "1e15",
    }
    with loky.ProcessPoolExecutor(2, env=environment) as executor:
        yield executor


def test_processes_give_the_same(model, expected):
    """Two processes of our own, which start with the model."""
    results = kr.run_trials(
        model, train, seeds=4, progress=False, num_workers=2
    )
    assert_same(results, expected, range(4))
    assert f"{os.getpid()}" not in {
        one.rpartition(":")[2] for one in results.workers
    }
    assert [len(runs) for runs in results.runs] == [1, 1, 1, 1]


@pytest.mark.alike
@pytest.mark.slow
def test_a_callers_executor_gives_the_same(expected, pool, tmp_path):
    """Of what builds a model too, which each worker does once."""

    def note_and_build():
        tmp_path.joinpath(f"{os.getpid()}-{time.time_ns()}").touch()
        return build()

    for seeds in ([2, 0], [3, 1]):
        results = kr.run_trials(
            note_and_build, train, seeds, progress=False, executor=pool
        )
        assert_same(results, expected, seeds)
    built = Counter(one.name.partition("-")[0] for one in tmp_path.iterdir())
    del built[str(os.getpid())]
    assert 1 <= len(built) <= 2
    assert max(built.values()) <= 2  # Once for each of the studies.


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow", "jax")
def test_a_worker_traces_once(pool):
    """It keeps what it has compiled for its next trial."""
    counted = builders.make_model(Counted())

    def train(model):
        train_quickly(model)
        return type(model.layers[0]).num_calls

    results = kr.run_trials(
        counted, train, seeds=6, progress=False, executor=pool
    )
    calls = {worker: set() for worker in results.workers}
    for worker, one in zip(
        results.workers, results.scores["score"], strict=True
    ):
        calls[worker].add(one)
    assert all(len(one) == 1 for one in calls.values())


@pytest.mark.slow
def test_many_kinds_of_models_travel(pool):
    """State, settings and the person's own parts are there in the worker."""
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, kernel_regularizer="l2")(inputs)
    functional = kr.ReproducibleModel(
        inputs, keras.layers.GaussianNoise(0.1)(hidden)
    )
    functional.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mae")
    given = build()
    given.set_weights([0.1 + 0 * one for one in given.get_weights()])
    stopped = build()
    stopped.fit(X, Y, verbose=0)
    for model in (functional, given, stopped):
        here = kr.run_trials(model, train_quickly, seeds=2, progress=False)
        there = kr.run_trials(
            model, train_quickly, seeds=2, progress=False, executor=pool
        )
        assert_same(there, here, range(2))


@pytest.mark.alike
@pytest.mark.slow
def test_threads_run_trials_in_processes_of_their_own(model, expected):
    """What other threads of the worker draw meanwhile disturbs nothing."""
    stopped = threading.Event()

    def draw():
        while not stopped.wait(0.0001):
            random.random()

    with ThreadPoolExecutor(1) as executor, ThreadPoolExecutor(1) as other:
        drawing = other.submit(draw)
        results = kr.run_trials(
            model, train, seeds=3, progress=False, executor=executor
        )
        stopped.set()
        drawing.result()
    assert_same(results, expected, range(3))
    assert str(os.getpid()) not in results.workers[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
def test_a_forked_process_is_refused(model):
    """Before it can hang, and with what to do instead."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(1, mp_context=context) as executor,
        pytest.raises(RuntimeError, match=r"forked.*spawn"),
    ):
        kr.run_trials(model, train, seeds=1, executor=executor)


def test_what_cannot_travel_is_refused_before_it_runs(model):
    """With what to do instead."""
    from keras_repro.model.transfer import PicklingError

    lock = threading.Lock()

    def train(model):
        with lock:
            return 1.0

    with pytest.raises(PicklingError, match="inside `train`"):
        kr.run_trials(model, train, num_workers=1, progress=False)


@pytest.mark.slow
def test_a_training_that_raises_in_a_worker_is_reported(model, pool):
    """With its traceback, though its exception cannot travel."""

    def fail(model):
        class LocalError(Exception):
            pass

        if model.seed:
            raise LocalError("only here")
        return 1.0

    results = kr.run_trials(model, fail, seeds=2, progress=False, executor=pool)
    (failure,) = results.failures
    assert failure.error == "LocalError: only here"
    assert "raise LocalError" in failure.traceback


@pytest.mark.alike
@pytest.mark.slow
def test_a_rule_stops_workers_at_the_same_trial(model, pool):
    """Which worker was quicker does not matter."""
    results = kr.run_trials(
        model,
        train_quickly,
        seeds=6,
        progress=False,
        until=Stop(3),
        executor=pool,
    )
    assert results.seeds == (0, 1, 2)


@pytest.mark.alike
@pytest.mark.slow
def test_a_worker_that_dies_gets_its_trial_run_again(model, expected, tmp_path):
    """The study says so; a trial that always kills its worker is given up."""
    marker = tmp_path / "died"

    def die(model):
        if model.seed == 1 and not marker.exists():
            marker.touch()
            os._exit(1)
        if model.seed == 2:
            os._exit(1)
        return train(model)

    with pytest.warns(kr.TrialWarning, match="worker died"):
        results = kr.run_trials(
            model, die, seeds=3, progress=False, num_workers=1
        )
    assert_same(results, expected, range(2))
    assert "run again" in results.notes[0]
    (failure,) = results.failures
    assert failure.seed == 2
    assert "died each time" in failure.error


# --- checks ------------------------------------------------------------------


@pytest.mark.slow
def test_a_check_agrees(model, expected):
    """Repeated in a fresh process, half of the trials are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", kr.TrialWarning)
        results = kr.run_trials(
            model, train, seeds=2, progress=False, check=0.5
        )
    assert_same(results, expected, range(2))
    assert results.notes == ()


@pytest.mark.alike
@pytest.mark.slow
def test_a_check_names_a_worker_that_computes_differently(model):
    """Its twin: what depends on the process is told with both checksums."""

    def depend(model):
        model.fit(X * (1 + os.getpid() % 7777), Y, verbose=0)
        return 1.0

    with pytest.warns(kr.TrialWarning):
        results = kr.run_trials(
            model, depend, seeds=2, progress=False, check=1.0
        )
    assert "compute differently" in results.notes[0]
    assert len([one for one in results.notes if "gave kr1:" in one]) == 2
    assert (
        any("computes differently from" in one for one in results.notes)
        or len(set(results.workers)) == 1
    )


@pytest.mark.alike
@pytest.mark.slow
def test_a_check_begins_with_another_seed(model):
    """What depends on the seed that came first in a process is found."""
    first = []

    def depend(model):
        first.append(model.seed)
        model.fit(X * (1 + first[0]), Y, verbose=0)
        return 1.0

    with pytest.warns(kr.TrialWarning):
        results = kr.run_trials(model, depend, [0], progress=False, check=1.0)
    assert any("compute differently" in one for one in results.notes)


@pytest.mark.slow
def test_a_check_without_another_worker_says_so(model, expected):
    """One worker repeats its own trials in the end, and that is told."""
    with ThreadPoolExecutor(1) as executor, pytest.warns(kr.TrialWarning):
        results = kr.run_trials(
            model, train, [0], progress=False, executor=executor, check=1
        )
    assert_same(results, expected, [0])
    assert "no other worker" in results.notes[0]


def test_checks_are_spread_over_the_study():
    """At least one; of all, each once."""
    from keras_repro.trials.check import choose_trials

    assert choose_trials(range(30), 0.1) == [5, 15, 25]
    assert choose_trials(range(30), 0.001) == [15]
    assert choose_trials(range(3), 1.0) == [0, 1, 2]
    assert choose_trials([], 0.5) == []


# --- on disk -----------------------------------------------------------------


def test_a_study_goes_on_where_it_was(model, expected, tmp_path):
    """What is on disk is not run again; what is not, is."""
    path = tmp_path / "study"
    calls = []

    def train_counted(model):
        calls.append(model.seed)
        return train(model)

    def run(seeds):
        return kr.run_trials(
            model, train_counted, seeds=seeds, progress=False, path=path
        )

    run(2)
    calls.clear()
    assert_same(run(4), expected, range(4))
    assert calls == [2, 3]
    calls.clear()
    assert_same(run([3, 0]), expected, [3, 0])
    assert calls == []
    loaded = kr.load_trials(path)
    assert_same(loaded, expected, range(4))
    assert loaded.name == "study"
    assert [run.header.seed for (run,) in loaded.runs] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_study_that_changed_refuses_to_mix(model, tmp_path):
    """Code, data, model, and what the seed moves: each is named."""
    path = tmp_path / "study"
    settings = {"scale": 1.0}
    data = X.copy()

    def make_train(text):
        scope = {"settings": settings, "data": data, "Y": Y}
        exec(text, scope)  # Code that changes as a file's would.
        return scope["train"]

    text = (
        "def train(model):\n"
        "    model.fit(data * settings['scale'], Y, verbose=0)\n"
        "    return 1.0\n"
    )

    def run(text=text, model=model, **options):
        return kr.run_trials(
            model,
            make_train(text),
            seeds=1,
            progress=False,
            path=path,
            **options,
        )

    run()
    run(text.replace("    return", "    # A comment.\n\n    return"))
    before = {one.name: one.read_bytes() for one in path.iterdir()}
    with pytest.raises(ValueError, match="`train` was changed"):
        run(text.replace("1.0", "2.0"))
    settings["scale"] = 0.5
    with pytest.raises(ValueError, match=r"scale.*was 1.0 and is 0.5"):
        run()
    settings["scale"] = 1.0
    data[3, 1] += 1
    with pytest.raises(ValueError, match="`data` holds other values"):
        run()
    data[3, 1] = X[3, 1]
    with pytest.raises(ValueError, match=r"units` was 6 and is 7"):
        run(model=build(7))
    with pytest.raises(ValueError, match="`vary` was all and is order"):
        run(vary="order")
    with pytest.raises(ValueError, match="made in another way"):
        run(model=build)
    other = build()
    other.set_weights([0.1 + 0 * one for one in other.get_weights()])
    with pytest.raises(ValueError, match=r"weights\.layers\.0\.kernel"):
        run(model=other)
    assert {one.name: one.read_bytes() for one in path.iterdir()} == before
    assert run().num_trials == 1


def test_failed_trials_are_tried_again(model, tmp_path):
    """What went well is kept; what raised may have been bad luck."""
    path, marker = tmp_path / "study", tmp_path / "bad luck"
    marker.touch()

    def train(model):
        if model.seed == 1 and marker.exists():
            raise OSError("no space left")
        return train_quickly(model)

    def run():
        return kr.run_trials(model, train, seeds=3, progress=False, path=path)

    assert [one.seed for one in run().failures] == [1]
    assert kr.load_trials(path).failures[0].error == "OSError: no space left"
    marker.unlink()
    results = run()
    assert results.failures == ()
    assert results.seeds == kr.load_trials(path).seeds == (0, 1, 2)


def test_scores_that_are_not_finite_are_kept_on_disk(model, tmp_path):
    """NaN and infinities read back as they were."""

    def train(model):
        return {"a": [math.nan, math.inf, -math.inf, 0.1][model.seed]}

    kr.run_trials(
        model, train, seeds=4, progress=False, path=tmp_path / "study"
    )
    read = kr.load_trials(tmp_path / "study").scores["a"]
    np.testing.assert_array_equal(read, [math.nan, math.inf, -math.inf, 0.1])


def test_a_finished_study_that_can_only_be_read(model, tmp_path, monkeypatch):
    """Is passed again as any; a trial that is missing is refused at once."""
    path = tmp_path / "study"
    calls = []

    def train(model):
        calls.append(model.seed)
        return 1.0

    def run(seeds):
        return kr.run_trials(
            model, train, seeds=seeds, progress=False, path=path
        )

    run(2)
    calls.clear()

    def refuse(_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(study_files, "hold_lock", refuse)
        before = {one.name: one.read_bytes() for one in path.iterdir()}
        assert run(2).seeds == (0, 1)
        with pytest.raises(PermissionError, match=r"without seed 2.*Copy"):
            run(3)
        assert {one.name: one.read_bytes() for one in path.iterdir()} == before
    assert calls == []
    assert run(3).seeds == (0, 1, 2)


@pytest.mark.slow
def test_a_study_is_run_by_one_process_at_a_time(model, tmp_path):
    """A second one is refused while the first runs."""
    path, other = tmp_path / "study", build()

    def train(model):
        with pytest.raises(BlockingIOError, match="one process at a time"):
            kr.run_trials(other, train_quickly, seeds=1, path=path)
        return 1.0

    results = kr.run_trials(model, train, seeds=1, progress=False, path=path)
    assert results.scores["score"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("file", NotADirectoryError, "a file"),
        ("other", ValueError, "with notes.txt"),
        ("damaged", ValueError, "study.json"),
    ],
)
def test_a_place_with_something_else_is_refused(
    model, tmp_path, content, error, message
):
    """And left as it is."""
    path = tmp_path / "study"
    if content == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        name = "notes.txt" if content == "other" else "study.json"
        (path / name).write_text("mine")
    with pytest.raises(error, match=message):
        kr.run_trials(model, train_quickly, seeds=1, path=path)
    left = path if content == "file" else path / name
    assert left.read_text() == "mine"


def test_a_torn_line_is_a_trial_that_did_not_finish(model, expected, tmp_path):
    """It is run again, and the file can be read."""
    path = tmp_path / "study"

    def run():
        return kr.run_trials(model, train, seeds=2, progress=False, path=path)

    run()
    file = path / "trials.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert kr.load_trials(path).seeds == (0,)
    assert_same(run(), expected, range(2))
    assert_same(kr.load_trials(path), expected, range(2))


@pytest.mark.sampled(3)
@pytest.mark.alike
@pytest.mark.parametrize("name", ["study.json", "trials.jsonl", "runs.jsonl"])
@pytest.mark.parametrize("last", [False, True])
def test_a_study_whose_files_vanish_ends(model, tmp_path, name, last):
    """With an error that names the file, which is not made anew."""
    path = tmp_path / "study"
    harmed = 3 if last else 2

    def train(model):
        model.fit(X, Y, epochs=1, batch_size=8, verbose=0)
        if model.seed == harmed:
            (path / name).unlink()
        return 1.0

    with pytest.raises(FileNotFoundError, match=rf"{name}', which is gone"):
        kr.run_trials(model, train, seeds=4, progress=False, path=path)
    assert not (path / name).exists()


def test_another_environment_is_refused_or_told(model, tmp_path):
    """Another release of Keras is refused; other threads are told of."""
    path = tmp_path / "study"

    def run():
        return kr.run_trials(
            model, train_quickly, seeds=1, progress=False, path=path
        )

    run()
    file = path / "study.json"
    study = json.loads(file.read_text())
    told = json.loads(file.read_text())
    told["environment"]["deterministic"] = "sometimes"
    file.write_text(json.dumps(told))
    study["environment"]["versions"]["keras"] = "3.0.0"
    with pytest.warns(kr.TrialWarning, match="deterministic` was sometimes"):
        run()
    file.write_text(json.dumps(study))
    with pytest.raises(ValueError, match=r"versions.keras` was 3.0.0"):
        run()


# --- the bar -----------------------------------------------------------------


def test_the_bar_shows_the_mean_so_far(model, monkeypatch, capsys):
    """On a terminal; elsewhere nothing is written, whatever is loaded."""
    pytest.importorskip("ipykernel")
    kr.run_trials(model, train_quickly, seeds=2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    kr.run_trials(model, train_quickly, seeds=5)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "score " in shown
    # It is looked at, so that there is no interval yet of four.
    assert "[" in shown.rpartition("score ")[2]
    outcomes = [
        SimpleNamespace(status="", scores={"score": float(seed**2)})
        for seed in range(5)
    ]
    assert say_so_far(outcomes[:4]) == "score 3.5"
    found = t_interval([0, 1, 4, 9, 16], watched=True)
    bounds = f"[{found.low:.4g}, {found.high:.4g}]"
    assert say_so_far(outcomes) == f"score 6 {bounds}"


# --- Dask --------------------------------------------------------------------


@pytest.fixture
def kept_environment():
    """Dask's nannies set variables in the process that starts them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.usefixtures("kept_environment")
@pytest.mark.filterwarnings("ignore")  # Of distributed and what it loads.
def test_dask_runs_trials_and_survives_a_death(model, expected, tmp_path):
    """On a real cluster of two workers, one of which dies in between."""
    distributed = pytest.importorskip("distributed")

    def die(model):
        if model.seed == 2 and len(list(tmp_path.glob("died*"))) < 2:
            tmp_path.joinpath(f"died{time.time_ns()}").touch()
            # First the worker, then only the process that it runs trials in.
            if len(list(tmp_path.glob("died*"))) == 1:
                os.kill(os.getppid(), signal.SIGKILL)
            os._exit(1)
        return train(model)

    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        results = kr.run_trials(
            model, die, seeds=4, progress=False, executor=executor
        )
    assert_same(results, expected, range(4))
    assert any("Dask ran its trials again" in one for one in results.notes)
    assert any("DeadProcessError" in one for one in results.notes)


# --- the command -------------------------------------------------------------

SCRIPT = """\
import sys
import keras
import numpy as np
import keras_repro as kr

x = np.linspace(0, 1, 40, dtype="float32").reshape(10, 4)
scale = float(sys.argv[1]) if sys.argv[1:] else 1.0

def build():
    model = kr.ReproducibleModel([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def train(model):
    loss = model.fit(x, scale * x[:, :1], verbose=0).history["loss"][-1]
    return {"loss": loss, "seed": model.seed}
"""


def run_command(folder, *arguments):
    return checkout.run_command(
        *(sys.executable, "-m", "keras_repro", "trials", *arguments),
        cwd=folder,
        code=None,
        PYTHONHASHSEED="random",
    )


@pytest.mark.alike
@pytest.mark.slow
def test_the_command_runs_shows_and_compares(tmp_path):
    """A study by two workers, the same in one; then the others."""
    (tmp_path / "study.py").write_text(SCRIPT)
    target = ("study.py:train", "--model", "build", "--seeds", 4)
    first = run_command(
        tmp_path, *target, "--path", "a", "--quiet", "--csv", "a.csv"
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("4 trials, seeds 0 to 3, fixed before")
    assert (tmp_path / "a.csv").read_text().startswith("seed,loss,")
    read = json.loads(run_command(tmp_path, "show", "a", "--json").stdout)
    assert read["seeds"] == read["scores"]["seed"] == [0, 1, 2, 3]
    other = run_command(
        tmp_path, *target, "--path", "b", "--workers", 2, "--", 3.0
    )
    assert other.returncode == 0, other.stderr
    refused = run_command(tmp_path, *target, "--path", "b", "--", 2.0)
    assert refused.returncode == 2
    assert "`scale` was 3.0 and is 2.0" in refused.stderr
    shown = run_command(tmp_path, "show", "a", "--html", "a.html")
    assert shown.stdout == first.stdout, shown.stderr
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    compared = run_command(tmp_path, "compare", "a", "b", "--metric", "seed")
    assert compared.returncode == 0, compared.stderr
    assert "Equal: all 4 pairs" in compared.stdout
    settled = run_command(tmp_path, "compare", "a", "b", "--html", "ab.html")
    assert settled.returncode in (0, 1)
    assert "loss" in settled.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py",), "a script and its function"),
        (("gone.py:train",), "a script that exists"),
        (("gone:train",), "a module that can be imported"),
        (("script.py:fit",), "must have a train called `fit`"),
        (("script.py:train",), "must have a model called `model`"),
        (("show", "gone"), "folder of a study"),
        (("compare", "one"), "two studies"),
        (("script.py:train", "--check", "2"), "share from 0 to 1"),
        (("script.py:train", "--until", "0"), "above 0"),
        ((), "ACTION"),
        (("--seeds", "3"), "Missing argument 'SCRIPT:FUNCTION"),
        (("script.py:train", "3"), "unexpected extra argument"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments, message, tmp_path, monkeypatch, capsys
):
    """With exit code 2."""
    from keras_repro.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "find_switches", lambda backend: {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    (tmp_path / "script.py").write_text("def train(model):\n    return 1\n")
    assert main(["trials", *arguments]) == 2
    assert message in capsys.readouterr().err
