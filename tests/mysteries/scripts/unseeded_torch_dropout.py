"""A Dropout without a seed uses PyTorch's own generator there (torch#76580)."""
# backends: torch

import random

import keras
import numpy as np

random.seed(1)
x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(  # <- unseeded
    x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0
)
