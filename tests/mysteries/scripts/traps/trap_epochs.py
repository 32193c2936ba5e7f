"""A pipeline that is cached after it is shuffled: one order for all epochs."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
data = data.shuffle(64).batch(16).cache()
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(data, epochs=2, shuffle=False, verbose=0)  # <- same_epochs
