"""A split by scikit-learn without `random_state`, in a third library."""

import random

import keras
import numpy as np
from sklearn.model_selection import train_test_split

random.seed(1)
x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
x, held_out = train_test_split(x, test_size=0.25)  # <- unseeded
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
model.evaluate(held_out, held_out[:, :1], verbose=0)
