"""Nothing is seeded: layers, and the order of the samples (keras#8906)."""

import keras
import numpy as np

x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),  # <- unseeded
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, verbose=0)  # <- unseeded
