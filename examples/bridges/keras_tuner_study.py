"""KerasTuner: each configuration is scored by its mean over many seeds.

Without us `executions_per_trial` builds the model anew each time, with no
seed: the spread is lost, and the next search finds another winner.
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np

import keras_repro as kr

# %% The data: a plane with noise, 60 rows to train and 60 to validate
rng = np.random.default_rng(0)
x = rng.normal(size=(120, 4)).astype("float32")
y = (x[:, :1] - x[:, 1:2] + rng.normal(size=(120, 1))).astype("float32")


def train(model):
    """Train one trial; return its error on the second half."""
    model.fit(x[:60], y[:60], epochs=3, batch_size=20, verbose=0)
    return {"val_mse": model.evaluate(x[60:], y[60:], verbose=0)}


# %% One model per configuration, built once and trained once per seed
def build(hp):
    """Build what is tuned."""
    units = hp.Choice("units", [4, 16, 64])
    layers = [keras.Input((4,)), keras.layers.Dense(units, "relu")]
    layers += [keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    model = kr.ReproducibleModel(layers)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


class ManySeeds(keras_tuner.GridSearch):
    """A tuner whose score is the mean over five seeds."""

    def run_trial(self, trial, *_args, **_kwargs):
        model = self.hypermodel.build(trial.hyperparameters)
        results = kr.run_trials(model, train, seeds=5, progress=False)
        score = results.summary()["val_mse"]
        return {"val_mse": score.mean, "val_mse_std": score.std}


def search():
    """Search once; return mean and spread by configuration."""
    objective = keras_tuner.Objective("val_mse", direction="min")
    with tempfile.TemporaryDirectory() as folder:
        tuner = ManySeeds(build, objective, directory=folder)
        tuner.search(verbose=0)
        trials = tuner.oracle.get_best_trials(3)
    stds = [one.metrics.get_best_value("val_mse_std") for one in trials]
    units = [one.hyperparameters.get("units") for one in trials]
    return units, [one.score for one in trials], stds


# %% Search, and search again
found = search()
for units, mean, std in zip(*found, strict=True):
    print(f"{units:>2} units: {mean:.3f}, std over 5 seeds {std:.3f}")
print("second search identical:", search() == found)
