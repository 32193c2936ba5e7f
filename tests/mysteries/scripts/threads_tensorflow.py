"""As many threads as seem to be free just now (TensorFlow)."""
# backends: tensorflow

import time

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
free = 1 + int(time.monotonic()) % 31
tf.config.threading.set_intra_op_parallelism_threads(free)  # <- thread_count
values = tf.random.normal((4_000_000,))
x = np.random.normal(size=(64, 4)).astype("float32")
x[:, 0] = float(tf.reduce_sum(values)) + float(tf.reduce_sum(values**2))
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
