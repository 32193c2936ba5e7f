"""Cross-validation with scikit-learn: each fold starts from the same start.

Without `reset()` the second fold goes on from weights that have seen its test
rows. Here `y` is noise, so that an honest R2 cannot be above zero.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GroupKFold, cross_val_score

import keras_repro as kr

# %% The data: 80 rows of 16 machines, and nothing to learn
rng = np.random.default_rng(0)
x = rng.normal(size=(80, 32)).astype("float32")
y = rng.normal(size=80).astype("float32")
groups = np.repeat(np.arange(16), 5)
folds = GroupKFold(n_splits=4)


# %% An estimator around one compiled model, which no fold builds anew
class Network(RegressorMixin, BaseEstimator):
    """A Keras model that scikit-learn can fit, score and cross-validate."""

    def __init__(self, model, seed=None):
        self.model = model
        self.seed = seed

    def __sklearn_clone__(self):
        return self

    def fit(self, x, y):
        if self.seed is not None:
            self.model.reset(seed=self.seed)
        self.model.fit(x, y, epochs=60, batch_size=20, verbose=0)
        return self

    def predict(self, x):
        return self.model.predict(x, verbose=0)[:, 0]


# %% Plain Keras, then the same with a reset before each fold
layers = [keras.Input((32,)), keras.layers.Dense(128, "relu")]
layers += [keras.layers.Dropout(0.1), keras.layers.Dense(1)]
model = kr.ReproducibleModel(layers, seed=0)
model.compile(keras.optimizers.Adam(0.01), "mse")
print("R2 of each fold        ", *(f"fold {fold}" for fold in range(1, 5)))
for title, seed in [("without reset()", None), ("with reset(seed=0)", 0)]:
    scores = cross_val_score(
        Network(model, seed), x, y, groups=groups, cv=folds
    )
    print(f"{title:<21}", *(f"{score:>8.2f}" for score in scores), sep="")

# %% The last fold alone, in no loop
train, test = list(folds.split(x, y, groups))[-1]
in_the_loop = scores[-1], kr.compute_checksum(model)
network = Network(model, seed=0).fit(x[train], y[train])
alone = network.score(x[test], y[test]), kr.compute_checksum(model)
print("fold 4 alone and in the loop: bitwise equal:", alone == in_the_loop)
