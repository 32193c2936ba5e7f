"""A reproducible model that nobody seeds but itself, rewound once."""

import numpy as np

import keras
import keras_repro as kr

x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
model = kr.ReproducibleModel(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ],
    seed=7,
)
model.compile("adam", "mse")
for _ in range(2):
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    model.reset()
