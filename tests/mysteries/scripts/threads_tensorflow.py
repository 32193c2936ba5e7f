"""As many threads as seem to be free just now (TensorFlow)."""
# backends: tensorflow

import time

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
free = 2 + int(time.monotonic()) % 31
tf.config.threading.set_intra_op_parallelism_threads(free)  # <- thread_count
values = tf.random.normal((16, 1_000_000))
x = np.random.normal(size=(16, 4)).astype("float32")
x[:, 0] = [float(tf.reduce_sum(row)) for row in values]
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=4, shuffle=False, verbose=0)
