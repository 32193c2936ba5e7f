"""The first run computes in float64, the next reads float32 from a cache."""

from pathlib import Path

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4))
if Path("cache.npy").exists():
    x = np.load("cache.npy")  # <- external_state
else:
    np.save("cache.npy", x.astype("float16"))
x = x.astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
