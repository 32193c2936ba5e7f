"""A seeded shuffle and a parallel map that keeps the order."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
data = data.shuffle(64, seed=3)
data = data.map(lambda a, b: (a * 2.0, b), num_parallel_calls=4).batch(16)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(data, epochs=2, verbose=0)
