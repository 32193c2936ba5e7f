"""Two causes: layers above the seed, and a generator without one."""

import random

import keras
import numpy as np

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])  # <- seeded_too_late
keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
x = x[sorted(range(64), key=lambda _: random.Random().random())]  # <- entropy
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
