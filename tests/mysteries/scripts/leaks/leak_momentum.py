"""Cross-validation that puts back the weights alone (keras#454)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
start = model.get_weights()
for fold in range(3):
    model.set_weights(start)
    train = np.delete(x, slice(fold * 20, fold * 20 + 20), axis=0)
    model.fit(train, train[:, :1], epochs=2, verbose=0)  # <- state_leak
