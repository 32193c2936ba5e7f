"""`tf.data` shuffles without a seed (tensorflow#29558)."""

import random

import keras
import numpy as np
import tensorflow as tf

random.seed(1)
x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
data = data.shuffle(64).batch(16)  # <- unseeded
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(data, epochs=2, verbose=0)
