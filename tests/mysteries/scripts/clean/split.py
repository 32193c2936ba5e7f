"""A split with a seed of its own."""

import keras
import numpy as np
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
x, held_out = train_test_split(x, random_state=0)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
model.evaluate(held_out, held_out[:, :1], verbose=0)
