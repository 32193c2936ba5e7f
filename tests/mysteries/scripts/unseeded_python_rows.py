"""Keras 3 draws the layers' seeds from Python, NumPy is seeded (keras#22620)."""

import random

import keras
import numpy as np

np.random.seed(0)
x = np.random.normal(size=(64, 4)).astype("float32")
rows = list(range(64))
random.shuffle(rows)  # <- unseeded
x = x[rows]
initializer = keras.initializers.HeNormal(seed=1)
model = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dense(1, kernel_initializer=initializer)]
)
model.compile("sgd", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
