"""Recorded under another hash seed: the order of a set decides."""
# there: PYTHONHASHSEED=5
# here: PYTHONHASHSEED=7
# kind: hash_order

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
x = x[[int(name) for name in {str(i) for i in range(40)}]]
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=1, shuffle=False, verbose=0)
