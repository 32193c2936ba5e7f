"""The article's recipe: NumPy and the backend are seeded, Python is not."""

import keras
import numpy as np

np.random.seed(42)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.random.set_seed(42)
if keras.backend.backend() == "torch":
    import torch

    torch.manual_seed(42)
x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential([keras.Input((4,))])
for width in (8, 1):
    model.add(keras.layers.Dense(width, activation="tanh"))  # <- unseeded
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, verbose=0)
