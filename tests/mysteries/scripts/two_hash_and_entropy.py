"""Two causes: either alone mended, it still differs."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
rng = np.random.default_rng()  # <- entropy
x += 0.1 * rng.normal(size=x.shape).astype("float32")
columns = [int(name) for name in {"0", "1", "2", "3"}]  # <- hash_order
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
