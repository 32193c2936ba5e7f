"""An ordinary script that trains two plain Keras models, one after the other.

It knows nothing of backups. Each batch of the second training is a line of
`trained.txt`; where there is a file `kill`, the 8th of them ends the process.
The last line that it prints says what came out.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

import keras
import numpy as np

KILLED = 8
x = np.random.rand(32, 3).astype("float32")


class Counter(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        with Path("trained.txt").open("a") as file:
            file.write(f"{batch}\n")
        if Path("kill").exists():
            time.sleep(0.3)
            if len(Path("trained.txt").read_text().split()) == KILLED:
                Path("kill").unlink()
                os.kill(os.getpid(), signal.SIGKILL)


first = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(2)])
first.compile("adam", "mse")
first.fit(x, x[:, :2], epochs=2, batch_size=8, verbose=0)
features = first.predict(x, verbose=0)

inputs = keras.Input((2,))
hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(4)(inputs))
second = keras.Model(inputs, keras.layers.Dense(1)(hidden))
second.compile("adam", "mse", metrics=["mae"])
second.fit(features, x[:, 2:], epochs=1, batch_size=8, verbose=0)
history = second.fit(
    features,
    x[:, 2:],
    epochs=3,
    batch_size=8,
    verbose=0,
    validation_split=0.25,
    callbacks=[keras.callbacks.ReduceLROnPlateau(patience=1), Counter()],
).history
digest = hashlib.sha256()
for model in (first, second):
    for array in model.get_weights():
        digest.update(array.tobytes())
print(digest.hexdigest(), history, np.random.rand())
