"""Weighted counts on several threads are added in any order (TensorFlow)."""
# backends: tensorflow

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
keys = np.random.randint(0, 64, 2_000_000)
values = np.random.normal(size=2_000_000).astype("float32")
for _ in range(40):
    counts = tf.math.bincount(keys, weights=values)  # <- nondeterministic_op
    x[:, 0] += counts.numpy()
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
