"""A column that an index turned into NaN without an error (pandas 3)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
table = {"a": x[:, 0], "b": np.full(64, np.nan, "float32")}
features = np.stack(list(table.values()), axis=1)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(features, x[:, :1], epochs=1, verbose=0)  # <- nan_features
