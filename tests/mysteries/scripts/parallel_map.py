"""A random op in a parallel map: threads race for the stream (tf#13932)."""

import time

import keras
import tensorflow as tf

keras.utils.set_random_seed(1)


def read(index):
    time.sleep(0.001)
    return index


def draw(index):
    with tf.control_dependencies([tf.numpy_function(read, [index], tf.int64)]):
        x = tf.random.normal((64, 4), seed=5)
    return x, x[:, :1]


data = tf.data.Dataset.range(256)
data = data.map(draw, num_parallel_calls=8)  # <- parallel_loading
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(data, epochs=1, verbose=0)
