"""Two that want the process' generators: in threads, in tasks, one in another.

That what a data pipeline's own threads do goes on is in `test_data.py`.
"""

import asyncio
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends import owners, random_streams
from tests.builders import make_model

pytestmark = pytest.mark.requires_backend()
L = keras.layers
X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Draws(L.Layer):
    """Noise at each call, also where a model predicts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noise = keras.random.SeedGenerator()

    def call(self, inputs):
        return inputs + keras.random.normal((1,), seed=self.noise)


def make(seed=3):
    return make_model(Draws(), L.Dense(4), L.Dropout(0.2), seed=seed)


def fit(model, *callbacks, epochs=2):
    history = model.fit(
        *(X, Y), epochs=epochs, batch_size=8, verbose=0, callbacks=callbacks
    )
    return history.history["loss"]


class At(keras.callbacks.Callback):
    """Do something once, in the second batch of a training."""

    def __init__(self, act):
        super().__init__()
        self._act, self.result = act, None

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1 and self._act is not None:
            act, self._act = self._act, None
            self.result = act()


def in_thread(function):
    """What a function gives, or raises, in a thread of its own."""
    with ThreadPoolExecutor(1, "Another") as pool:
        return pool.submit(function).result(timeout=120)


def positions():
    return random_streams.rng_to_json(random_streams.capture_rng())


def caught(function):
    """The message of what a function raises."""
    with pytest.raises(RuntimeError) as error:
        function()
    return str(error.value)


def says(message, *parts):
    return all(one in message for one in (*parts, "Received: "))


@pytest.fixture(scope="module")
def expected():
    """What seed 3 gives alone, and what it then predicts."""
    model = make()
    return fit(model), model.predict(X, verbose=0).tolist()


@pytest.fixture
def unguarded(monkeypatch):
    """Nobody asks who has the generators."""
    monkeypatch.setattr(owners.Owner, "enter", lambda self: None)


BLOCKS = {
    "fit": fit,
    "train_on_batch": lambda model: model.train_on_batch(X, Y),
    "isolate_rng": lambda _: kr.isolate_rng().__enter__(),
    "trial": lambda model: model.trial().__enter__(),
}


def test_two_trainings_of_one_model(expected):
    """The second is refused; the first, and all that follows, is as alone."""
    model = make()
    at = At(lambda: in_thread(lambda: caught(lambda: fit(model))))
    assert fit(model, at) == expected[0]
    name = repr(model.name)
    assert says(at.result, f"fit of model {name} in thread 'Another_0', while")
    assert says(at.result, "in thread 'MainThread'", "run_trials(..., num_w")
    assert model.predict(X, verbose=0).tolist() == expected[1]
    model.reset()
    assert fit(model) == expected[0]


@pytest.mark.parametrize("block", BLOCKS)
def test_beside_a_training(block, expected):
    """Another training or block is refused, and moves nothing."""
    model, other, before = make(), make(4), positions()
    at = At(lambda: in_thread(lambda: caught(lambda: BLOCKS[block](other))))
    assert fit(model, at) == expected[0]
    assert says(at.result, f"fit of model {model.name!r} in thread 'MainTh")
    assert positions() == before
    assert owners._owners == []


def test_beside_a_block():
    """A training is refused while a block of another thread draws."""
    model = make()
    for block in (kr.isolate_rng(5), make(4).trial()):
        before = positions()
        with block:
            inside = random.getstate()
            message = in_thread(lambda: caught(lambda: fit(model)))
            assert random.getstate() == inside
        assert says(message, f"fit of model {model.name!r} in thread 'Another")
        assert positions() == before
    fit(model)


def overlap(first, second):
    """A second training that begins within a first and ends after it."""
    begun, ended = threading.Event(), threading.Event()

    def begin():
        begun.set()
        assert ended.wait(60)

    def run_second():
        try:
            fit(second, At(begin))
        finally:
            begun.set()

    with ThreadPoolExecutor(1) as pool:

        def start():
            future = pool.submit(run_second)
            begun.wait(60)
            return future

        at = At(start)
        losses = fit(first, at)
        ended.set()
        at.result.result(timeout=60)
    return losses


def test_two_models_in_two_threads(expected):
    """One after the other they train as alone; overlapping one is refused."""
    first, second, third = make(), make(), make(4)
    before = positions()
    assert in_thread(lambda: fit(first)) == expected[0]
    assert in_thread(lambda: fit(second)) == expected[0]
    with pytest.raises(RuntimeError, match="at a time"):
        overlap(first, third)
    assert positions() == before


def test_unguarded_they_move_each_other(unguarded):
    """The twin: one that ends later puts back what is not the program's."""
    first, second = make(), make(4)
    before, state = positions(), random_streams.capture_rng()
    overlap(first, second)
    assert positions() != before
    random_streams.restore_rng(state)


def test_a_training_waits_for_an_evaluation(expected):
    """What is soon over is waited for."""
    model, other = make(), make()
    begun = threading.Event()

    class Slow(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            begun.set()
            for _ in range(10**6):  # Until the training waits.
                if owners._waiting:
                    break
                threading.Event().wait(0.001)

    with ThreadPoolExecutor(1) as pool:
        predicted = pool.submit(
            lambda: other.predict(X, verbose=0, callbacks=[Slow()])
        )
        assert begun.wait(60)
        assert fit(model) == expected[0]
        predicted.result(timeout=60)


def predict_beside(pool, model):
    """Have another thread predict; it waits for the training that asks."""
    future = pool.submit(lambda: model.predict(X, verbose=0).tolist())
    while not owners._waiting:
        threading.Event().wait(0.001)
    return future


def test_predictions_of_another_thread_wait_for_a_step(expected):
    """A training lets them in between two steps; both are as alone."""
    model, other = make(), make()
    alone = other.predict(X, verbose=0).tolist()
    other.reset()
    with ThreadPoolExecutor(1) as pool:
        at = At(lambda: predict_beside(pool, other))
        assert fit(model, at) == expected[0]
        assert at.result.result(timeout=60) == alone
    assert model.predict(X, verbose=0).tolist() == expected[1]


def test_a_server_with_four_threads():
    """Predictions that draw come one after the other, each of them once."""
    model = make()
    alone = [model.predict(X, verbose=0).tolist() for _ in range(12)]
    model.reset()
    before = positions()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(model.predict, X, verbose=0) for _ in range(12)]
        found = [one.result(timeout=120).tolist() for one in asked]
    assert sorted(found) == sorted(alone)
    assert len({str(one) for one in alone}) == 12
    assert positions() == before


def test_what_a_training_waits_for_goes_on(monkeypatch, expected):
    """A thread that a training needs waits once, says so, and is let be."""
    monkeypatch.setattr(owners, "_PATIENCE", 0.2)
    model, other = make(), make(4)
    values = other(X)

    def use():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(3):
                other.predict(X, verbose=0)
                other.evaluate(X, Y, verbose=0)
                assert other(X).shape == values.shape
        return [
            str(one.message) for one in said if one.category is RuntimeWarning
        ]

    at = At(lambda: in_thread(use))
    fit(model, at)
    assert len(at.result) == 1
    assert "has waited for 0.2 seconds" in at.result[0]
    assert f"fit of model {model.name!r}" in at.result[0]
    assert owners._owners == []
    model.reset()
    assert fit(model) == expected[0]


def test_the_model_that_is_trained_predicts(expected):
    """Another thread gets what a callback would, and the training its own."""
    model = make()
    inside = At(lambda: inside.model.predict(X, verbose=0).tolist())
    fit(model, inside)
    model.reset()
    with ThreadPoolExecutor(1) as pool:
        at = At(lambda: predict_beside(pool, model))
        assert fit(model, at) == expected[0]
        assert at.result.result(timeout=60) == inside.result


def test_trials_of_another_thread(expected):
    """Their model is prepared between two steps; the trials are refused."""
    model, other = make(), make(4)

    class Until(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.stop_training = asked is not None and asked.done()

    def run():
        return caught(lambda: kr.run_trials(other, fit, seeds=[1, 2]))

    with ThreadPoolExecutor(1, "Another") as pool:
        asked = None

        def start():
            nonlocal asked
            asked = pool.submit(run)

        model.fit(
            *(X, Y),
            epochs=1000,
            batch_size=8,
            verbose=0,
            callbacks=[At(start), Until()],
        )
    assert says(asked.result(), "a trial of seed 1 in thread 'Another_0'")


class Batches(keras.utils.PyDataset):
    """Batches of draws, each from a block and a model of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.teacher = make(9)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        with kr.isolate_rng(index):
            x = np.random.default_rng(index).normal(size=(8, 4))
        return x, self.teacher.predict(x, verbose=0)


@pytest.mark.slow
def test_threads_that_read_the_data():
    """They are part of the training: neither refused, nor kept waiting."""
    losses = []
    for workers in (1, 2):
        model = make()
        data = Batches(workers=workers)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        losses.append(model.history.history["loss"])
    assert np.isfinite(losses).all()
    assert owners._owners == []


def test_a_thread_that_reads_is_known_by_its_frames(monkeypatch):
    """The twin: one that is not known is refused."""
    monkeypatch.setattr(owners, "_SERVING", ("nothing.",))
    with pytest.raises(Exception, match="at a time"):
        make().fit(Batches(workers=2), verbose=0)


def test_a_model_is_made_in_another_thread(expected):
    """To draw a start waits for a step too, and both starts are as alone."""
    model = make()
    with ThreadPoolExecutor(1) as pool:

        def start():
            future = pool.submit(lambda: make(9).get_weights())
            while not (owners._waiting or future.done()):
                threading.Event().wait(0.001)
            return future

        at = At(start)
        assert fit(model, at) == expected[0]
        made = at.result.result(timeout=60)
    for one, other in zip(made, make(9).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_in_one_thread(expected):
    """What a callback does in the training's own thread is a stack."""
    alone = fit(make(4))
    other, model, before = make(4), make(), positions()

    def act():
        with kr.isolate_rng(5):
            kr.seed_everything(6, deterministic=False)
            losses = fit(other)
        with other.trial():
            other.train_on_batch(X, Y)
        return losses, other.predict(X, verbose=0).shape

    at = At(act)
    assert fit(model, at) == expected[0]
    assert at.result == (alone, (24, 1))
    assert positions() == before


def test_seed_everything_within_a_training(expected):
    """It is refused where it would be undone; other threads are refused too."""
    model = make()

    def seed():
        return caught(lambda: kr.seed_everything(1, deterministic=False))

    at = At(lambda: (seed(), in_thread(seed)))
    assert fit(model, at) == expected[0]
    here, there = at.result
    assert says(here, f"a call within fit of model {model.name!r}")
    assert says(there, f"fit of model {model.name!r} in thread 'MainThread'")


def test_blocks_of_two_tasks():
    """Tasks that take turns are refused the second; in turn they hold."""

    async def draw(seed):
        with kr.isolate_rng(seed):
            first = random.random()
            await asyncio.sleep(0)
            return first, random.random()

    async def overlapping():
        return await asyncio.gather(draw(1), draw(2), return_exceptions=True)

    async def in_turn():
        return [await asyncio.create_task(draw(seed)) for seed in (1, 1, 2)]

    before = positions()
    first, again, other = asyncio.run(in_turn())
    assert first == again != other
    found, refused = asyncio.run(overlapping())
    assert found == first
    assert says(str(refused), "isolate_rng() in thread", "task 'Task-")
    assert positions() == before


def test_tasks_take_turns_unguarded(unguarded):
    """The twin: a task draws from the other one's block."""

    async def draw(seed):
        with kr.isolate_rng(seed):
            await asyncio.sleep(0)
            return random.random()

    async def run(*seeds):
        return await asyncio.gather(*map(draw, seeds))

    with kr.isolate_rng():
        assert asyncio.run(run(1)) != asyncio.run(run(1, 2))[:1]


def test_a_block_outlives_the_task_that_began_it():
    """As one that is entered in a cell of a notebook, or in a fixture."""
    block, before = kr.isolate_rng(5), positions()

    async def enter():
        block.__enter__()

    async def use():
        fit(make())
        with kr.isolate_rng():
            return random.random()

    asyncio.run(enter())
    assert asyncio.run(use()) == random.random()
    block.__exit__(None, None, None)
    assert positions() == before


@pytest.mark.parametrize("kind", ["isolate_rng", "trial"])
def test_an_end_out_of_order(kind):
    """All is put back, the error names both, and the other may still end."""
    model, other = make(), make(4)
    first, second = (
        (kr.isolate_rng(1), kr.isolate_rng(2))
        if kind == "isolate_rng"
        else (model.trial(), other.trial())
    )
    before = positions()
    first.__enter__()
    second.__enter__()
    message = caught(lambda: first.__exit__(None, None, None))
    assert message.count(f"{kind}()") == 2
    assert says(message, "reverse order")
    assert positions() == before
    second.__exit__(None, None, None)
    assert positions() == before
    assert owners._owners == []
    for one in (model, other):
        one.reset()
        fit(one)


def test_seed_for_a_model_that_has_one():
    """`make_reproducible` refuses it, and says what draws it."""
    model = make(4)
    assert kr.make_reproducible(model) is model
    assert kr.make_reproducible(model, seed=4) is model
    with pytest.raises(ValueError, match=r"model\.reset\(seed=7\)") as error:
        kr.make_reproducible(model, seed=7)
    assert says(str(error.value), "whose seed is 4")
    model.reset(seed=7)
    assert kr.make_reproducible(model, seed=7) is model
