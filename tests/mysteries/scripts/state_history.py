"""A setting follows from how many runs there were."""

from pathlib import Path

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
log = Path("history.csv")
past = log.read_text().splitlines() if log.exists() else []  # <- external_state
x += len(past) * 0.1
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
with log.open("a") as file:
    file.write("done\n")
