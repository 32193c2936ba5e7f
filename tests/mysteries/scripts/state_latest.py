"""The newest of all checkpoints is taken, whoever wrote it."""

import glob

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
found = sorted(glob.glob("step-*.weights.h5"))  # <- external_state
if found:
    model.load_weights(found[-1])
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
model.save_weights(f"step-{len(found):03d}.weights.h5")
