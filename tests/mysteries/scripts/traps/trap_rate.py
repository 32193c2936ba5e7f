"""`load_weights` brings back the rate that the file was saved with."""

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
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
model.fit(x, x[:, :1], epochs=1, verbose=0)
model.save_weights("saved.weights.h5")
model.compile(keras.optimizers.SGD(0.001, momentum=0.9), "mse")
model.optimizer.build(model.trainable_variables)
model.load_weights("saved.weights.h5")  # <- loaded_rate
model.fit(x, x[:, :1], epochs=1, verbose=0)
