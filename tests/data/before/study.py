"""A study as somebody wrote it: what its trials wrote is kept beside it."""

import math
import threading

import keras
import numpy as np

import keras_repro as kr

SETTINGS = {"epochs": 1, "scale": 1.0}
X = (np.arange(48, dtype="float32") * 7 % 11).reshape(16, 3) / 11
Y = X[:, :1] - X[:, 1:2]
CALLS = []  # Changed by the trials themselves, so no input of the study.
LOCK = threading.Lock()  # Nobody can tell what it holds: the study says so.


class Scale(keras.layers.Layer):
    """A layer of the person's own."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.factor


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


def build():
    """A model of Keras' own parts; its name belongs to the study."""
    model = kr.ReproducibleModel(
        [
            keras.Input((3,)),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ],
        name="tiny",
    )
    model.compile("sgd", "mse")
    return model


def build_own():
    """A model with parts of the person's own."""
    model = kr.ReproducibleModel(
        [keras.Input((3,)), Scale(), keras.layers.Dense(1)], name="own"
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), own_loss)
    return model


def train(model):
    """Two scores; the draw belongs to the trial's own streams."""
    CALLS.append(model.seed)
    with LOCK:
        history = model.fit(
            SETTINGS["scale"] * X,
            Y,
            epochs=SETTINGS["epochs"],
            batch_size=8,
            verbose=0,
        ).history
    return {"loss": history["loss"][-1], "draw": np.random.random()}


def train_oddly(model):
    """A failure, scores that are not finite, and one of one trial alone."""
    CALLS.append(model.seed)
    loss = model.fit(X, Y, batch_size=8, verbose=0).history["loss"][-1]
    if model.seed == 1:
        raise ArithmeticError("seed one is unlucky")
    odd = {"ratio": math.inf, "share": math.nan, "only": 1.0}
    return {"loss": loss, **(odd if model.seed == 3 else {"ratio": 0.1})}
