"""A training that kills itself, is started again, and ends as if it had not.

Run it as it is: it starts itself in three processes. Each trains the script
that `TRAINING` is; two of them are killed in the midst of an epoch.
"""

import os
import subprocess
import sys
import tempfile

TRAINING = """
import os
import keras, numpy as np
import keras_repro as kr

kr.seed_everything(7)
x = np.random.normal(size=(640, 8)).astype("float32")
model = kr.ReproducibleModel(
    [keras.Input((8,)), keras.layers.Dense(32, "relu"),
     keras.layers.Dropout(0.2), keras.layers.Dense(1)]
)
model.compile("adam", "mse")
backup = kr.BackupAndRestore("backups", save_freq=5)
lives = int(os.environ["BATCHES"])

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        global lives
        lives -= 1
        if not lives:
            os.kill(os.getpid(), 9)

history = model.fit(
    x, x[:, :1], epochs=4, callbacks=[backup, Kill()], verbose=0
)
print("went on at", backup.resumed_from)
print("losses", *(f"{loss:.6f}" for loss in history.history["loss"]))
print("ended as", kr.compute_checksum(model))
"""


def train(folder, batches):
    """Start the training, which is killed after so many batches."""
    environment = {**os.environ, "BATCHES": str(batches), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode > 0:
        sys.exit(done.stderr)
    return done.stdout.splitlines() or ["killed"]


def main():
    """Train undisturbed, and killed twice; print what each gave."""
    with tempfile.TemporaryDirectory() as folder:
        whole = train(folder, 0)
    with tempfile.TemporaryDirectory() as folder:
        lives = [train(folder, batches) for batches in (33, 29, 0)]
    print("undisturbed", *whole[1:], sep="\n  ")
    print("killed after 33 batches, and after 29 more", *lives[-1], sep="\n  ")
    same = whole[1:] == lives[-1][1:]
    print("bitwise equal" if same else "DIFFERENT")


if __name__ == "__main__":
    main()
