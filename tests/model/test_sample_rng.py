"""What a sample draws is its own: whoever reads it, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends import doors
from keras_repro.model import around_fit, sample_rng
from tests.builders import make_model

pytestmark = [
    pytest.mark.requires_backend(),
    pytest.mark.filterwarnings("ignore:.*shuffle=True.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out:UserWarning"),
]
NUM_BATCHES, SEED = 14, 5
FORMAT_1 = [9465, 3463, 46552]  # The first draws of sample 3 of epoch 2.


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Draws each batch, and notes what it drew."""

    def __init__(
        self, draw: Callable[[int], Any] = kr.sample_rng, workers: int = 0
    ) -> None:
        super().__init__(workers=workers)
        self.draw = draw
        self.drawn: list[tuple[int, float]] = []

    def __len__(self) -> int:
        return NUM_BATCHES

    def __getitem__(self, index: int) -> Any:
        x = self.draw(index).normal(size=(2, 4)).astype("float32")
        self.drawn.append((index, float(x[0, 0])))
        return x, x.sum(1, keepdims=True)


def expect(index: int, epoch: int, seed: int = SEED) -> tuple[int, float]:
    """What a batch must draw."""
    rng = kr.sample_rng(index, seed=seed, epoch=epoch)
    return index, float(rng.normal(size=(2, 4)).astype("float32")[0, 0])


def expect_all(epochs: Any, seed: int = SEED) -> set[tuple[int, float]]:
    """What the batches of some epochs must draw."""
    return {expect(i, e, seed) for e in epochs for i in range(NUM_BATCHES)}


@pytest.fixture(scope="module")
def model() -> Any:
    """One model for all that is fed alike."""
    return make_model(seed=SEED)


def play(model: Any, make: Callable[[], Any]) -> list[Any]:
    """Train twice, evaluate and predict, from the start."""
    model.reset(SEED)
    results: list[Any] = []
    for epochs in (2, 1):
        fitted = model.fit(
            make(),
            epochs=epochs,
            shuffle=False,
            validation_data=make(),
            verbose=0,
        )
        results.append(fitted.history)
    results.append(model.evaluate(make(), verbose=0))
    return [*results, model.predict(make(), verbose=0).tobytes()]


def test_any_number_of_workers(model: Any) -> None:
    """No worker, one, two and eight give the same bits, and so does a reset."""
    expected = play(model, Batches)
    for workers in (1, 2, 8, 0):
        assert play(model, lambda w=workers: Batches(workers=w)) == expected


@pytest.mark.alike
def test_one_generator_for_all_is_not_enough(model: Any) -> None:
    """The twin: what workers draw from a generator that they share."""

    def play_shared(workers: int, skipped: int) -> Any:
        changed, begun = threading.Condition(), set()
        rng = np.random.default_rng(1)
        rng.random(skipped)

        def draw(index: int) -> Any:
            is_worker = (
                threading.current_thread() is not threading.main_thread()
            )
            with changed:
                # Of two workers the one that reads the second batch is first.
                if workers > 1 and is_worker and index == 0:
                    changed.wait_for(lambda: 1 in begun, timeout=10)
                    begun.clear()
                if is_worker:
                    begun.add(index)
                changed.notify_all()
                return np.random.default_rng(rng.integers(1 << 30))

        data = Batches(draw, workers)
        model.reset(SEED)
        return model.fit(data, shuffle=False, verbose=0).history

    alone = play_shared(0, 0)
    assert play_shared(0, 0) == alone
    assert play_shared(2, 0) != alone
    assert play_shared(0, 1) != alone


@pytest.mark.parametrize("workers", [1, 2])
def test_epochs_are_those_of_the_trial(workers: int) -> None:
    """The next `fit` goes on; a seed and an epoch have draws of their own."""
    model = make_model(seed=SEED)
    data = Batches(workers=workers)
    model.fit(data, epochs=2, verbose=0)
    assert set(data.drawn) == expect_all(range(2))
    data.drawn.clear()
    model.fit(data, epochs=2, initial_epoch=1, verbose=0)
    assert set(data.drawn) == expect_all([2])
    data.drawn.clear()
    model.reset(SEED + 1)
    model.fit(data, verbose=0)
    assert set(data.drawn) == expect_all([0], SEED + 1)
    assert expect_all([0]).isdisjoint(expect_all([1]))
    assert expect_all([0]).isdisjoint(expect_all([0], SEED + 1))


def test_epochs_are_counted(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: where nobody counts, each epoch is like the first."""
    monkeypatch.setattr(around_fit, "follow", lambda *_: None)
    model.reset(SEED)
    data = Batches()
    model.fit(data, epochs=2, verbose=0)
    assert set(data.drawn) == expect_all([0])


def test_a_look_leaves_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first epoch begins with the first batch, whoever reads it.

    The twin: Keras itself, on JAX and PyTorch.
    """

    def train(workers: int) -> Any:
        model, data = make_model(seed=SEED), Batches(workers=workers)
        return model.fit(data, epochs=2, shuffle=False, verbose=0).history

    expected = train(0)
    assert train(2) == expected
    monkeypatch.setattr(doors, "_end_look", lambda _: None)
    looks = keras.backend.backend() != "tensorflow"
    assert (train(2) != expected) == looks


@pytest.mark.sampled(2)
@pytest.mark.parametrize("batch", [0, 5])
def test_after_a_resume(tmp_path: Any, batch: int) -> None:
    """A training that goes on draws as one that nobody killed."""

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, now: int, logs: Any = None) -> None:
            if epochs == [0, 1] and now == batch:
                raise KeyboardInterrupt

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            epochs.append(epoch)

    def train(folder: str, *callbacks: Any) -> Any:
        backup = kr.BackupAndRestore(tmp_path / folder, save_freq=1)
        model, data = make_model(seed=SEED), Batches(workers=1)
        fitted = model.fit(
            data,
            epochs=3,
            shuffle=False,
            validation_data=Batches(),
            callbacks=[backup, *callbacks],
            verbose=0,
        )
        return fitted.history, data.drawn, backup.resumed_from

    epochs: list[int] = []
    expected, _, _ = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", Stop())
    found, drawn, place = train("killed")
    assert found == expected
    assert place is not None
    assert expect_all([2]) <= set(drawn) <= expect_all(range(3))


# --- other data --------------------------------------------------------------


def draw_row(index: Any, **where: int) -> Any:
    """The values of a sample, and its target."""
    x = kr.sample_rng(int(index), **where).normal(size=4).astype("float32")
    return x, x.sum(keepdims=True)


class Rows:
    """What a loader reads from."""

    def __init__(self, **where: int) -> None:
        self.where = where

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return draw_row(index, **self.where)


def load(num_workers: int = 0, **where: int) -> Any:
    """A loader of PyTorch."""
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(Rows(**where), 4, num_workers=num_workers)


def mapped(num_threads: int) -> Any:
    """A data set of Grain, which reads in threads."""
    grain = pytest.importorskip("grain")
    data = grain.MapDataset.range(12).map(draw_row).batch(4)
    options = grain.ReadOptions(num_threads=num_threads)
    return data.to_iter_dataset(options)


def pipeline(parallel: int) -> Any:
    """A pipeline of `tf.data`, which reads ahead."""
    tf = pytest.importorskip("tensorflow")

    def draw(index: Any) -> Any:
        x, y = tf.numpy_function(draw_row, [index], (tf.float32, tf.float32))
        return tf.ensure_shape(x, (4,)), tf.ensure_shape(y, (1,))

    rows = tf.data.Dataset.range(12)
    return rows.map(draw, parallel or None).batch(4).prefetch(2)


@pytest.mark.sampled(10)
@pytest.mark.parametrize(
    ("make", "ways"),
    [(load, (0,)), (mapped, (0, 1, 8)), (pipeline, (0, 2, 8))],
)
def test_other_data(model: Any, make: Any, ways: Any) -> None:
    """Loaders, Grain and `tf.data`, whatever reads them, are fed alike."""

    class Alone(Batches):
        """The same samples without any library."""

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            rows = [draw_row(i) for i in range(4 * index, 4 * index + 4)]
            return tuple(np.stack(part) for part in zip(*rows, strict=True))

    expected = play(model, Alone)
    for way in ways:
        assert play(model, lambda way=way: make(way)) == expected


@pytest.mark.requires_backend("torch")
def test_worker_processes(model: Any) -> None:
    """They must be told; the training that they come from says nothing."""
    model.reset(SEED)
    with pytest.raises(RuntimeError, match=r"Pass `seed=` and `epoch=`"):
        model.fit(load(1), verbose=0)
    losses = []
    for workers in (0, 2):
        model.reset(SEED)
        data = load(workers, seed=SEED, epoch=0)
        losses.append(model.fit(data, verbose=0).history)
    model.reset(SEED)
    losses.append(model.fit(load(), verbose=0).history)
    assert losses[0] == losses[1] == losses[2]


# --- several uses at once ----------------------------------------------------


def test_evaluations_move_nothing(model: Any) -> None:
    """Each draws by a seed of its own, in the epoch that is trained."""
    trained, validated = Batches(), Batches()
    evaluated, predicted = Batches(), Batches()
    model.reset(SEED)
    model.fit(trained, epochs=2, validation_data=validated, verbose=0)
    model.evaluate(evaluated, verbose=0)
    model.predict(predicted, verbose=0)
    uses = [set(d.drawn) for d in (trained, validated, evaluated, predicted)]
    assert uses[0] == expect_all(range(2))
    assert [len(one) for one in uses[1:]] == [28, 14, 14]
    for number, one in enumerate(uses):
        assert all(one.isdisjoint(other) for other in uses[number + 1 :])


class Within(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls something in the midst of an epoch."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.call = call

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Call it once."""
        if batch == 1:
            self.call(self.model)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_prediction_in_an_epoch(model: Any, workers: int) -> None:
    """What workers read meanwhile is the training's."""
    data, x = Batches(workers=workers), np.ones((8, 4), "float32")
    model.reset(SEED)
    callback = Within(lambda now: now.predict(x, batch_size=1, verbose=0))
    model.fit(data, epochs=2, callbacks=[callback], verbose=0)
    assert set(data.drawn) == expect_all(range(2))


def test_two_that_read_at_once(model: Any) -> None:
    """A thread of which nobody knows for which it reads is refused."""
    asked: list[str] = []

    def draw(index: int) -> Any:
        thread = threading.Thread(target=ask, args=(index,))
        thread.start()
        thread.join()
        return np.random.default_rng(index)

    def ask(index: int) -> None:
        try:
            kr.sample_rng(index)
        except RuntimeError as error:
            asked.append(str(error))

    model.reset(SEED)
    within = Batches(draw)
    callback = Within(lambda now: now.evaluate(within, verbose=0))
    model.fit(Batches(np.random.default_rng), callbacks=[callback], verbose=0)
    assert len(asked) >= NUM_BATCHES
    assert all("2 do" in one for one in asked)


@pytest.mark.parametrize("use", ["data", "validation_data"])
def test_passes_that_are_no_epochs(model: Any, use: str) -> None:
    """Which epoch is read is not known where steps are counted."""
    model.reset(SEED)
    steps: dict[str, Any] = {"verbose": 0}
    if use == "data":
        steps |= {"steps_per_epoch": 2}
    else:
        steps |= {"validation_steps": 2, "validation_data": Batches()}
    with pytest.raises(Exception, match=r"Pass `epoch=`"):
        model.fit(Batches(), **steps)
    model.reset(SEED)
    told = Batches(lambda index: kr.sample_rng(index, epoch=4))
    model.fit(told, steps_per_epoch=2, verbose=0)
    assert set(told.drawn) <= expect_all([4])


def test_blocks(model: Any) -> None:
    """A loop of one's own takes the seed, and tells the epoch."""
    with model.trial(SEED):
        assert kr.sample_rng(2).random() == drawn(2, 0)
        assert kr.sample_rng(2, epoch=3).random() == drawn(2, 3)
        model.fit(Batches(workers=2), epochs=2, verbose=0)
        assert kr.sample_rng(2).random() == drawn(2, 2)


def drawn(index: int, epoch: int) -> float:
    """The first number of a sample."""
    return float(kr.sample_rng(index, seed=SEED, epoch=epoch).random())


def test_outside(model: Any) -> None:
    """Nothing is known there, also after a training that failed."""

    def fail(index: int) -> Any:
        raise OSError(index)

    with pytest.raises(Exception):  # noqa: B017, PT011 - TensorFlow's own
        model.fit(Batches(fail), verbose=0)
    for where in ({}, {"seed": 1}, {"epoch": 1}):
        with pytest.raises(RuntimeError, match="outside"):
            kr.sample_rng(1, **where)
    assert not sample_rng._uses


@pytest.mark.alike
def test_what_is_drawn_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers on each machine and backend, and none of the system."""

    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(np.random.bit_generator, "randbits", fail)
    rng = kr.sample_rng(3, seed=1, epoch=2)
    assert rng.integers(1 << 16, size=3).tolist() == FORMAT_1
