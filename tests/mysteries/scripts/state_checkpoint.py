"""Goes on from the checkpoint of an earlier run (tensorflow#27049)."""

from pathlib import Path

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
if Path("last.weights.h5").exists():
    model.load_weights("last.weights.h5")  # <- external_state
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
model.save_weights("last.weights.h5")
