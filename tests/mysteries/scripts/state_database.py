"""Results go into a database, and the best of them sets the start."""

import sqlite3

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
base = sqlite3.connect("trials.sqlite")  # <- external_state
base.execute("create table if not exists trials (loss real)")
tried = base.execute("select count(*) from trials").fetchone()[0]
x *= 1 + tried
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
base.execute("insert into trials values (1.0)")
base.commit()
