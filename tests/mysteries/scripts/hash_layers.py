"""Branches are added in the order of a set of names."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
inputs = keras.Input((4,))
NAMES = ["relu", "tanh", "sigmoid", "gelu", "elu", "selu", "swish", "mish"]
branches = []
for name in frozenset(NAMES):  # <- hash_order
    branches.append(keras.layers.Dense(3, activation=name)(inputs))
outputs = keras.layers.Dense(1)(keras.layers.concatenate(branches))
model = keras.Model(inputs, outputs)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
