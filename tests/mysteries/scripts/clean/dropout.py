"""Dropout, noise and validation data; everything seeded."""

import keras
import numpy as np

keras.utils.set_random_seed(5)
x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, validation_split=0.25, verbose=0)
