"""Two models trained with so many threads: `THREADS FOLDER [UNITS BATCH]`.

JAX takes the number from the environment variable NPROC alone.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_repro as kr

threads, folder = int(sys.argv[1]), Path(sys.argv[2])
units, batch = map(int, sys.argv[3:5])

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
elif keras.backend.backend() == "torch":
    import torch

    torch.set_num_threads(threads)


def train(name, features, sizes, samples, size):
    kr.seed_everything(5)
    layers = [keras.layers.Dense(n, activation="relu") for n in sizes]
    model = kr.ReproducibleModel(
        [keras.Input((features,)), *layers, keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    draw = np.random.default_rng(5).standard_normal
    model.fit(
        draw((samples, features), dtype="float32"),
        draw((samples, 1), dtype="float32"),
        epochs=2,
        batch_size=size,
        verbose=0,
        callbacks=[
            kr.ChecksumCallback(folder / f"{name}.jsonl", snapshots="epoch")
        ],
    )


train("small", 21, (16, 32, 64), 800, 32)
train("large", units, (units, units), 3 * batch, batch)
