"""The learning rate decays with the time that has passed."""

import time

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
started = time.monotonic()  # <- clock
for _ in range(10):
    passed = time.monotonic() - started  # <- clock
    model.optimizer.learning_rate.assign(0.1 / (1 + passed))
    model.train_on_batch(x, x[:, :1])
model.evaluate(x, x[:, :1], verbose=0)
