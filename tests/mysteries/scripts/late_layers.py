"""The model is made, then the seed is set (deepxde#2086 the other way)."""

import keras
import numpy as np

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])  # <- seeded_too_late
keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
