"""A cache that holds what would be computed anyway, bit for bit."""

from pathlib import Path

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
if Path("same.npy").exists():
    x = np.load("same.npy")
else:
    np.save("same.npy", x)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
