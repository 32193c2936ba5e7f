"""A recipe found in two dozen repositories (wandb/docs PR 3072)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
np.random.seed(hash("setting random seeds") % 2**32)  # <- varying_seed
x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
