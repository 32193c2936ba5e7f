"""The columns come in the order of a set."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
wanted = {"speed", "torque", "pressure", "height"}
table = {"pressure": 0, "height": 1, "speed": 2, "torque": 3}
columns = [table[name] for name in wanted]  # <- hash_order
x = x[:, columns]
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
