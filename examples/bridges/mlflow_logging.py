"""MLflow: a study is logged with each seed's score and final checksum.

Without us a tracked run is one number that nobody can have again; with seeds
and checksums beside the scores, any trial can be, and it shows that it is.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import keras
import mlflow
import numpy as np

import keras_repro as kr

# %% A study of ten seeds
rng = np.random.default_rng(0)
x = rng.normal(size=(120, 4)).astype("float32")
y = (x[:, :1] - x[:, 1:2] + rng.normal(size=(120, 1))).astype("float32")
layers = [keras.Input((4,)), keras.layers.Dense(16, "relu")]
model = kr.ReproducibleModel([*layers, keras.layers.Dense(1)])
model.compile("adam", "mse")


def train(model):
    """Train one trial; return its error on the second half."""
    model.fit(x[:60], y[:60], epochs=3, batch_size=20, verbose=0)
    return {"val_mse": model.evaluate(x[60:], y[60:], verbose=0)}


results = kr.run_trials(model, train, seeds=10, progress=False)
score, scores = results.summary()["val_mse"], results.scores["val_mse"].tolist()

# %% Log it, to a database and a folder of files; a server's address would do
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
root = Path(folder.name)
mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
place = (root / "artifacts").as_uri()
experiment = mlflow.create_experiment("seeds", artifact_location=place)
checksums = dict(zip(map(str, results.seeds), results.checksums, strict=True))
with mlflow.start_run(experiment_id=experiment, run_name="study") as run:
    mlflow.log_metrics({"val_mse_mean": score.mean, "val_mse_std": score.std})
    for seed, value in zip(results.seeds, scores, strict=True):
        mlflow.log_metric("val_mse", value, step=seed)
    mlflow.log_dict(checksums, "checksums.json")

# %% Read it back, and have one of its trials again
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_mse")
read = [entry.value for entry in sorted(history, key=lambda one: one.step)]
print(f"logged: mean {score.mean:.3f}, std {score.std:.3f} over 10 seeds")
print("scores read back, to the last bit:", read == scores)
logged = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/checksums.json")
with model.trial(seed=7):
    again = train(model)["val_mse"], kr.compute_checksum(model)
print("trial 7 again, as logged:", again == (read[7], logged["7"]))
