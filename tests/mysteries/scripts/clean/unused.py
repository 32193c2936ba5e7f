"""A token and a number are drawn, and nobody uses them."""

import secrets

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
token = secrets.token_hex(8)
noise = np.random.default_rng().normal()
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
