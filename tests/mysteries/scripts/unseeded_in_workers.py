"""Trained in processes that the seed of the script's own does not reach."""

import multiprocessing

import keras
import numpy as np


def train(fold):
    x = np.linspace(fold, 1, 64).reshape(16, 4).astype("float32")
    dense = keras.layers.Dense(1)  # <- unseeded
    model = keras.Sequential([keras.Input((4,)), dense])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=1, shuffle=False, verbose=0)
    return float(model.evaluate(x, x[:, :1], verbose=0))


if __name__ == "__main__":
    keras.utils.set_random_seed(1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(train, [0]))
