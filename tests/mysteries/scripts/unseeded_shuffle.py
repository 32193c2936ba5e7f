"""The layers are seeded, the order in which `fit` feeds is not (keras#12258)."""

import random

import keras
import numpy as np

random.seed(1)
x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, verbose=0)  # <- unseeded
