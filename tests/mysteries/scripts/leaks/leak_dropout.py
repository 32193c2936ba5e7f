"""Recompiled and reloaded, and the dropout goes on (keras#17548)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.5, seed=3),
        keras.layers.Dense(1),
    ]
)
start = model.get_weights()
for fold in range(2):
    model.compile("sgd", "mse")
    model.set_weights(start)
    model.fit(x, x[:, :1], epochs=2, verbose=0)  # <- state_leak
