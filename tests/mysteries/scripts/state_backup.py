"""`BackupAndRestore` finds the backup of a run that was not cleaned up."""

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
model.compile("adam", "mse")
backup = keras.callbacks.BackupAndRestore("backup", delete_checkpoint=False)
model.fit(  # <- external_state
    x,
    x[:, :1],
    epochs=2,
    batch_size=16,
    shuffle=False,
    callbacks=[backup],
    verbose=0,
)
