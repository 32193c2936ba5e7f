"""Scores of a wrapper for scikit-learn, whose `fit` Keras itself calls."""

import keras
import numpy as np
from sklearn.model_selection import cross_val_score

keras.utils.set_random_seed(1)
x = np.linspace(-1, 1, 64).reshape(16, 4).astype("float32")
y = x[:, 0] + 0.1 * np.random.default_rng().normal(size=16)  # <- entropy


def build(X, y):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


settings = {"epochs": 1, "verbose": 0}
net = keras.wrappers.SKLearnRegressor(build, fit_kwargs=settings)
print(cross_val_score(net, x, y, cv=2))
