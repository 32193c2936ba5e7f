"""The columns come in the order of a set."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
names = ["speed", "torque", "pressure", "height", "mass", "width"]
wanted = set(names) | {"age", "cycle"}
columns = [len(name) for name in wanted]  # <- hash_order
x[0] += columns[:4]
x[1] += columns[4:]
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
