"""Everything is seeded, and each run gives another loss. Why?

    keras-repro verify examples/mystery.py --epochs 5

runs it as it is, and names both causes with their lines.
"""

import argparse

import keras
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
epochs = parser.parse_args().epochs
keras.utils.set_random_seed(42)

sensors = {"s2", "s3", "s4", "s7", "s11", "s12"}
rng = np.random.default_rng()
table = {name: np.linspace(0, int(name[1:]), 256) for name in sensors}
x = np.stack(list(table.values()), axis=1)
x += rng.normal(0, 0.1, x.shape)
y = x.mean(axis=1, keepdims=True)

model = keras.Sequential(
    [
        keras.Input((6,)),
        keras.layers.Dense(16, "relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, y, epochs=epochs, verbose=0)
print("loss", model.evaluate(x, y, verbose=0))
