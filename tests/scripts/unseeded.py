"""A script that seeds nothing and draws from everything.

Its data come from NumPy, from `random` and from the order of a set of
strings; its model drops out, and `fit` shuffles.
"""

import random
import sys

import keras
import numpy as np

words = {f"word-{number}" for number in range(20)}
x = np.random.normal(size=(20, 3)).astype("float32")
x[:, 0] = [random.random() for _ in x]
x[:, 1] = [int(word.split("-")[1]) / 20 for word in words]

model = keras.Sequential(
    [
        keras.Input((3,)),
        keras.layers.Dense(4, activation="tanh"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
history = model.fit(x, x[:, :1] ** 2, epochs=epochs, batch_size=8, verbose=0)
print(history.history["loss"])
