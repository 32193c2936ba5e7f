"""Ways to feed a model that have an order or draws of their own."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# Before anything is seeded: a pipeline takes seeds from where it was loaded.
import tensorflow as tf

import keras_repro as kr

from .structured import X, Y
from .workload import Counted, Kind, L, Workload, compiling


class Shuffled(keras.utils.PyDataset):
    """Batches in an order that changes after each epoch."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(4)
        self.order = np.arange(len(X))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * 4 : index * 4 + 4]
        return X[rows], Y[rows]

    def on_epoch_end(self) -> None:
        """Another order for the next epoch."""
        self.rng.shuffle(self.order)


def draw_batches() -> Iterator[Any]:
    """Rows with noise, drawn from NumPy's global generator, without end."""
    while True:
        rows = np.random.permutation(len(X))[:4]
        noise = np.random.normal(scale=0.1, size=(4, 4)).astype("float32")
        yield X[rows] + noise, Y[rows]


def make_small(kind: Kind) -> Any:
    """What is fed is the point, so this is a plain network."""
    return kind.sequential(
        [
            keras.Input((4,)),
            Counted(),
            L.Dense(5, activation="tanh"),
            L.Dropout(0.3),
            L.Dense(1),
        ]
    )


_DATA: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def train_on_dataset(model: Any, callbacks: Any = ()) -> Any:
    """One dataset for every training of a model."""
    if model not in _DATA:
        _DATA[model] = Shuffled()
    return model.fit(
        _DATA[model], epochs=2, verbose=0, callbacks=list(callbacks)
    ).history


def train_on_generator(model: Any, callbacks: Any = ()) -> Any:
    """A generator is used up, so each training makes its own."""
    return model.fit(
        draw_batches(),
        steps_per_epoch=3,
        shuffle=False,
        epochs=2,
        verbose=0,
        callbacks=list(callbacks),
    ).history


def train_on_pipeline(model: Any, callbacks: Any = ()) -> Any:
    """One pipeline for every training of a model."""
    if model not in _DATA:
        pairs = tf.data.Dataset.from_tensor_slices((X, Y))
        # Its seeds are made of TensorFlow's, which another program may set.
        with kr.isolate_rng(3):
            batches = pairs.shuffle(12, 3).batch(4, drop_remainder=True)
        _DATA[model] = batches.prefetch(1)
    return model.fit(
        _DATA[model],
        shuffle=False,
        epochs=2,
        verbose=0,
        callbacks=list(callbacks),
    ).history


WORKLOADS = [
    Workload(name, make_small, compiling("adam", "mse"), train, X, Y)
    for name, train in (
        ("PyDataset", train_on_dataset),
        ("Python generator", train_on_generator),
        ("tf.data pipeline", train_on_pipeline),
    )
]
