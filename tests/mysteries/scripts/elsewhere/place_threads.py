"""Recorded with one thread, repeated with several (keras#10201)."""
# there (tensorflow): TF_NUM_INTRAOP_THREADS=1
# there (jax): NPROC=1
# there (torch): OMP_NUM_THREADS=1
# kind: thread_count

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 24, 24, 3)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((24, 24, 3)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, 0, 0, :1], epochs=2, shuffle=False, verbose=0)
