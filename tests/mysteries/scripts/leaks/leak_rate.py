"""A schedule's lower rate goes on in the next fold (MIScnn PR 71)."""

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
model.compile(keras.optimizers.SGD(0.1), "mse")
start = model.get_weights()


def decay(epoch, rate):
    return rate * 0.5


for fold in range(2):
    model.set_weights(start)
    schedule = keras.callbacks.LearningRateScheduler(decay)
    model.fit(x, x[:, :1], epochs=2, callbacks=[schedule], verbose=0)  # <- state_leak
