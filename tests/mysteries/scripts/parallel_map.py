"""A random op in a parallel map: threads race for the stream (tf#13932)."""

import keras
import tensorflow as tf

keras.utils.set_random_seed(1)


def draw(index):
    x = tf.random.normal((64, 4), seed=5)
    return x + 0.0 * tf.cast(index, tf.float32), x[:, :1]


data = tf.data.Dataset.range(512)
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
