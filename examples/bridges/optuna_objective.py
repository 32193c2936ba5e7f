"""Optuna: an objective that is the mean over seeds, not one lucky run.

Without us each configuration is scored by one unseeded run, and a search over
many configurations finds the luckiest run rather than the best setting.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import optuna

import keras_repro as kr

# %% The data: a plane with noise, 60 rows to train and 60 to validate
rng = np.random.default_rng(0)
x = rng.normal(size=(120, 4)).astype("float32")
y = (x[:, :1] - x[:, 1:2] + rng.normal(size=(120, 1))).astype("float32")

# %% One model for all configurations, so that nothing is compiled twice
layers = [keras.Input((4,)), keras.layers.Dense(16, "relu")]
layers += [keras.layers.Dropout(0.2), keras.layers.Dense(1)]
model = kr.ReproducibleModel(layers)
model.compile("adam", "mse")


def objective(trial):
    """Score one learning rate: the mean over five seeds."""
    rate = trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)

    def train(model):
        model.optimizer.learning_rate = rate
        model.fit(x[:60], y[:60], epochs=3, batch_size=20, verbose=0)
        return {"val_mse": model.evaluate(x[60:], y[60:], verbose=0)}

    results = kr.run_trials(model, train, seeds=5, progress=False)
    score = results.summary()["val_mse"]
    trial.set_user_attr("std", score.std)
    return score.mean


# %% The sampler has a seed of its own: search, and search again
optuna.logging.set_verbosity(optuna.logging.WARNING)
bests = []
for _ in range(2):
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=6)
    bests.append((study.best_value, study.best_params))
    print(f"best mean {study.best_value:.3f}", end=" at learning rate ")
    print(f"{study.best_params['learning_rate']:.4f}", end=", std over 5 seeds")
    print(f" {study.best_trial.user_attrs['std']:.3f}")
print("second search identical:", bests[0] == bests[1])
