"""Batches are taken in the order in which they happen to be ready."""

from concurrent.futures import ThreadPoolExecutor, as_completed

import keras
import numpy as np

keras.utils.set_random_seed(1)


def load(index):
    rng = np.random.default_rng(index)
    return sum(rng.normal(size=(200, 4)) for _ in range(20))


with ThreadPoolExecutor(8) as pool:  # <- parallel_loading
    futures = [pool.submit(load, index) for index in range(100)]
    x = np.concatenate([one.result() for one in as_completed(futures)])
x = x.astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=1, batch_size=256, shuffle=False, verbose=0)
