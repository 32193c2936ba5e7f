"""Keras through TensorFlow, which loads it by itself; its seed was set."""

import tensorflow as tf

tf.random.set_seed(5)
print(float(tf.random.uniform(())))
model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(tf.ones((4, 2)), tf.ones((4, 1)), verbose=0)
