"""A program with arguments, a function, a guard and an exit code."""

import argparse
import sys

import keras
import numpy as np


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    keras.utils.set_random_seed(1)
    x = np.random.normal(size=(64, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, x[:, :1], epochs=options.epochs, verbose=0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
