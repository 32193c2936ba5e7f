"""Rows of a variable are added to by several threads (TensorFlow)."""
# backends: tensorflow

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
keys = np.random.randint(0, 64, 400_000)
values = np.random.normal(size=(400_000, 4)).astype("float32")
table = tf.Variable(tf.zeros((64, 4)))
for _ in range(40):
    table.scatter_add(tf.IndexedSlices(values, keys))  # <- nondeterministic_op
x += table.numpy()
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
