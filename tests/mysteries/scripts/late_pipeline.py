"""A pipeline takes its seeds when it is made (tensorflow#45845)."""

import random

import keras
import numpy as np
import tensorflow as tf

random.seed(1)
np.random.seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
data = data.shuffle(64).batch(16)  # <- seeded_too_late
tf.random.set_seed(1)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(data, epochs=2, verbose=0)
