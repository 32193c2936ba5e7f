"""The data are drawn above the line that seeds."""

import keras
import numpy as np

x = np.random.normal(size=(64, 4)).astype("float32")  # <- seeded_too_late
keras.utils.set_random_seed(1)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
