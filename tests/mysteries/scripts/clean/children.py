"""Processes of the program's own prepare the data, in order."""

import multiprocessing

import keras
import numpy as np


def prepare(index):
    return np.random.default_rng(index).normal(size=(16, 4))


if __name__ == "__main__":
    keras.utils.set_random_seed(1)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        x = np.concatenate(pool.map(prepare, range(4))).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, x[:, :1], epochs=2, verbose=0)
