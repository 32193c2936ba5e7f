"""Noise by a raw op of TensorFlow, for which nobody set a seed."""
# backends: tensorflow

import random

import keras
import numpy as np
import tensorflow as tf

random.seed(1)
x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
x += tf.random.normal((64, 4)).numpy()  # <- unseeded
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
