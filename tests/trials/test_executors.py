"""Executors that lose, mix up or refuse trials: no seed goes without a word."""

from concurrent.futures import Executor, Future

import numpy as np
import pytest

import keras_repro as kr
from tests import builders

X = np.linspace(0, 1, 40, dtype="float32").reshape(10, 4)

pytestmark = [pytest.mark.alike, pytest.mark.requires_backend]


def train(model):
    history = model.fit(X, X[:, :1], batch_size=5, verbose=0).history
    return {"loss": history["loss"][-1]}


class Inline(Executor):
    """Runs each trial at once, in this process."""

    def __init__(self):
        self.answers = []

    def submit(self, function, /, *args):
        self.answers.append(function(*args))
        return self.give()

    def give(self):
        return make_done(self.answers[-1])


def make_done(answer):
    future = Future()
    future.set_result(answer)
    return future


class GivesAnotherAnswer(Inline):
    """The third trial gets what the second gave."""

    def give(self):
        return make_done(self.answers[-2 if len(self.answers) == 3 else -1])


class GivesOneFuture(Inline):
    """All trials get one future, which the last of three settles."""

    future = Future()

    def give(self):
        if len(self.answers) == 1:
            self.future = Future()
        return self.future


class GivesNothing(Inline):
    """Its third answer is none."""

    def give(self):
        return make_done(None if len(self.answers) == 3 else self.answers[-1])


class GivesNoFuture(Inline):
    """It has no future for the third trial."""

    def give(self):
        return None if len(self.answers) == 3 else super().give()


class Refuses(Inline):
    """It was shut down after two trials."""

    def submit(self, function, /, *args):
        if len(self.answers) == 2:
            msg = "cannot schedule new futures after shutdown"
            raise RuntimeError(msg)
        return super().submit(function, *args)


class Loses(Inline):
    """The third trial is never heard of again."""

    def give(self):
        return Future() if len(self.answers) == 3 else super().give()


class Remembers(Inline):
    """It answers a trial that looks as before with what it answered then."""

    def submit(self, function, /, *args):
        task = args[-1]
        for answer in self.answers:
            if answer.task.seed == task.seed:
                return make_done(answer)
        return super().submit(function, *args)


@pytest.fixture(scope="module")
def model():
    return builders.make_model()


@pytest.fixture(scope="module")
def expected(model):
    return kr.run_trials(model, train, 4, progress=False)


def test_an_honest_executor_gives_the_same(model, expected):
    """The twin of all that follow."""
    results = kr.run_trials(
        model, train, 4, progress=False, executor=Inline(), patience=60
    )
    assert results.checksums == expected.checksums


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (GivesAnotherAnswer, r"seed 2 the answer for .*seed=1"),
        (GivesNothing, r"seed 2 None as its result"),
        (GivesNoFuture, r"seed 2 None from its `submit`"),
        (Refuses, r"seed 2 RuntimeError: cannot schedule"),
        (Loses, r"nothing for 0\.2 seconds, .* seeds 2\. "),
    ],
)
def test_a_seed_that_an_executor_loses_is_named(
    model, expected, tmp_path, kind, told
):
    """What has finished is kept, and the study goes on from there."""
    with pytest.raises(RuntimeError, match=rf"The executor must .*{told}"):
        kr.run_trials(
            model,
            train,
            4,
            path=tmp_path / "study",
            progress=False,
            executor=kind(),
            patience=0.2,
        )
    kept = kr.load_trials(tmp_path / "study")
    assert {0, 1} <= set(kept.seeds)
    assert 2 not in kept.seeds
    again = kr.run_trials(
        model, train, 4, path=tmp_path / "study", progress=False
    )
    assert again.checksums == expected.checksums


def test_a_future_of_several_trials_is_refused(model):
    """Of the first nothing would ever be heard."""
    with pytest.raises(RuntimeError, match="seed 1 <Future"):
        kr.run_trials(
            model, train, 3, progress=False, executor=GivesOneFuture()
        )


def test_an_answer_from_before_is_none(model):
    """A check that was answered from memory would compare it with itself."""
    with pytest.raises(RuntimeError, match=r"seed 0 the answer for .*ticket=0"):
        kr.run_trials(
            model, train, 1, progress=False, executor=Remembers(), check=1
        )


@pytest.mark.parametrize("patience", [0, -1, float("nan"), True, "60", 1e99])
def test_a_patience_that_is_no_time_is_refused(model, patience):
    """It must be seconds."""
    with pytest.raises((TypeError, ValueError), match="patience"):
        kr.run_trials(model, train, 1, patience=patience, executor=Inline())
