"""A loop of single steps, each of them recorded."""

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
for step in range(40):
    rows = np.random.permutation(64)[:16]
    model.train_on_batch(x[rows], x[rows, :1])
    if step % 20 == 0:
        model.test_on_batch(x, x[:, :1])
model.predict_on_batch(x)
