"""A study of long trainings, in the midst of one of which it may be killed.

Each trial trains twice. `trained.txt` gets a line for each batch of a second
training, and the process in which its 8th begins ends there if there is a file
`kill`, which goes with it. Run as a script, it is a study of one trial, backed
up each 2 batches.
"""

import os
import random
import signal
import time
from pathlib import Path

import keras
import numpy as np

import keras_repro as kr

BATCHES, KILLED = 9, 8


class Counter(keras.callbacks.Callback):
    """Writes down each batch that ends, and may end everything."""

    def on_train_batch_end(self, batch, logs=None):
        with Path("trained.txt").open("a") as file:
            file.write(f"{batch}\n")
        if Path("kill").exists():
            time.sleep(0.3)  # What is written beside the training is written.
            if count_trained() == KILLED:
                Path("kill").unlink()
                os.kill(os.getpid(), signal.SIGKILL)


def count_trained():
    return len(Path("trained.txt").read_text().split())


def train(model):
    x = np.linspace(0, 1, 64, dtype="float32").reshape(32, 2)
    arguments = {"batch_size": 8, "epochs": 3, "verbose": 0}
    first = model.fit(x, x[:, :1], **arguments).history
    drawn = float(np.random.rand()) + random.random()
    second = model.fit(
        x,
        x[:, 1:] * drawn,
        validation_split=0.25,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=1.0),
            Counter(),
        ],
        **arguments,
    ).history
    return {
        "drawn": drawn,
        "first": first["loss"][0],
        "last": second["val_loss"][-1],
        "rate": second["learning_rate"][-1],
        "epochs": len(second["loss"]),
    }


def build():
    model = kr.ReproducibleModel(
        [
            keras.Input((2,), name="input"),
            keras.layers.Dense(4, "relu", name="hidden"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(1, name="output"),
        ],
        name="small",
    )
    model.compile("adam", "mse")
    return model


def run(backup=2, **options):
    """Run a study of one trial in the present directory."""
    path = Path("study").absolute()
    return kr.run_trials(
        build, train, [3], path=path, backup=backup, progress=False, **options
    )


if __name__ == "__main__":
    import backed_up_study  # As a test does, so that it is the same study.

    backed_up_study.run()
