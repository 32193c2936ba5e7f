"""A log's name is made of the date, the process and chance."""

import os
import random
from datetime import datetime

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
name = "-".join(random.Random().choices("abcdef", k=4))
log = f"{datetime.now():%Y%m%d}-{os.getpid()}-{name}"
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
print(log)
