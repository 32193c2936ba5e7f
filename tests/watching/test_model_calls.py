"""Which calls of a model count as the program's, whoever makes them."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_repro.diagnosis.function_reruns import (
    START,
    WHOLE,
    FunctionLaboratory,
)
from keras_repro.watching.traps import SAME_EPOCHS, SAME_ORDER

pytestmark = pytest.mark.requires_backend

X = np.linspace(-1, 1, 16).reshape(8, 2).astype("float32")


def build():
    """A compiled model, which Keras' wrappers clone."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def by_wrapper():
    """Keras' own code fits and predicts, since the program asked it to."""
    pytest.importorskip("sklearn")
    net = keras.wrappers.SKLearnRegressor(build(), fit_kwargs={"verbose": 0})
    net.fit(X, X[:, 0])
    net.predict(X)


def by_hand():
    """Keras evaluates within `fit`, and a callback of the program predicts."""
    model = build()
    ask = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.predict(X, verbose=0)
    )
    data = (X, X[:, :1])
    model.fit(*data, validation_data=data, verbose=0, callbacks=[ask])


@pytest.mark.parametrize("train", [by_wrapper, by_hand])
def test_calls_that_count(train, tmp_path):
    """What Keras does within a call is none of its own; all else is.

    The twins of each other: both are called from inside the package `keras`.
    """
    laboratory = FunctionLaboratory(train, tmp_path)
    laboratory.begin(WHOLE)
    calls = laboratory.run().process.calls
    assert [one.method for one in calls] == ["fit", "predict"]


def find_traps(tmp_path, data, epochs):
    """What is told of a training on some data."""

    def train():
        build().fit(data, epochs=epochs, shuffle=False, verbose=0)

    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    laboratory = FunctionLaboratory(train, folder)
    laboratory.begin(WHOLE)
    (call,) = laboratory.run().process.calls
    return [one["kind"] for one in call.traps]


@pytest.mark.filterwarnings("ignore:Your input ran out:UserWarning")
def test_epochs_that_are_alike(tmp_path):
    """Told where there are several, of data that draw or shuffle."""
    grain = pytest.importorskip("grain")
    pairs = list(zip(X, X[:, :1], strict=True))
    data = grain.MapDataset.source(pairs).seed(1)
    shuffled = data.shuffle().batch(4)
    assert find_traps(tmp_path, shuffled, 2) == [SAME_EPOCHS]
    assert find_traps(tmp_path, shuffled, 1) == []
    assert find_traps(tmp_path, data.batch(4), 2) == []


@pytest.mark.filterwarnings("ignore:Your input ran out:UserWarning")
def test_pipelines_that_are_alike(tmp_path):
    """By what they are made of, and by whether a plain model gives a seed."""
    tf = pytest.importorskip("tensorflow")

    def noisy(x, seed):
        return x + tf.random.normal(tf.shape(x), seed=seed), x[:1]

    rows = tf.data.Dataset.from_tensor_slices(X)
    for seed, kinds in ((None, []), (3, [SAME_EPOCHS])):
        # TensorFlow's own seed, set by a test before, would do the same.
        tf.random.set_seed(None)
        data = rows.map(lambda x, seed=seed: noisy(x, seed)).batch(4)
        assert find_traps(tmp_path, data, 2) == kinds
    cached = rows.shuffle(8).map(lambda x: (x, x[:1])).batch(4).cache()
    assert find_traps(tmp_path, cached, 2) == [SAME_EPOCHS]


class SeedsAnew(keras.utils.PyDataset):
    """Seeds by the number of the batch."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        x = X[:4] + np.random.default_rng(index).normal(size=(4, 2))
        return x.astype("float32"), X[:4, :1]


def test_samples_that_are_seeded_anew(tmp_path):
    """A plain model is told of its data set too."""
    assert find_traps(tmp_path, SeedsAnew(), 2) == [SAME_EPOCHS]
    assert find_traps(tmp_path, SeedsAnew(), 1) == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("is_seeded", [True, False])
def test_one_order_for_all_epochs(tmp_path, is_seeded, shuffle):
    """Told where Keras shuffles so; the fit is fed as if nobody had looked."""
    orders = []

    def train():
        keras.utils.set_random_seed(1)
        if not is_seeded and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.random.set_seed(None)
        model = build()
        model.fit(X, X[:, :1], epochs=2, shuffle=shuffle, verbose=0)
        orders.append([w.tobytes() for w in model.get_weights()])

    laboratory = FunctionLaboratory(train, tmp_path)
    laboratory.begin(WHOLE)
    (call,) = laboratory.run().process.calls
    is_alike = is_seeded and keras.backend.backend() == "tensorflow" and shuffle
    kinds = [one["kind"] for one in call.traps]
    assert kinds == ([SAME_ORDER] if is_alike else [])
    if is_seeded or not shuffle:
        train()  # Not watched.
        assert orders[0] == orders[1]


def test_first_step_of_a_wrapper(tmp_path):
    """A diagnosis stops at the first step that a wrapper takes."""
    laboratory = FunctionLaboratory(by_wrapper, tmp_path)
    laboratory.begin(START)
    record = laboratory.run()
    assert len(record.models) == 1
    (call,) = record.process.calls
    assert call.place.startswith(__file__)
