"""Two layers share one initializer and start alike (lc0#1883)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
shared = keras.initializers.HeNormal(seed=5)
inputs = keras.Input((4,))
left = keras.layers.Dense(3, kernel_initializer=shared)(inputs)
right = keras.layers.Dense(3, kernel_initializer=shared)(inputs)
model = keras.Model(inputs, keras.layers.Dense(1)(left * right))
model.compile("sgd", "mse")
model.fit(x, x[:, :1], epochs=1, verbose=0)  # <- shared_start
