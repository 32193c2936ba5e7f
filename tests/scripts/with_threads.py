"""Two models trained with so many threads: `THREADS FOLDER`.

JAX takes the number from the environment variable NPROC alone.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_repro as kr

threads, folder = int(sys.argv[1]), Path(sys.argv[2])

# The layers draw their seeds when they are made, so before all else.
kr.seed_everything(5)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
elif keras.backend.backend() == "torch":
    import torch

    torch.set_num_threads(threads)


def train(name, features, layers, samples, batch):
    model = kr.ReproducibleModel(
        [keras.Input((features,)), *layers, keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    draw = np.random.default_rng(5).standard_normal
    model.fit(
        draw((samples, features), dtype="float32"),
        draw((samples, 1), dtype="float32"),
        epochs=2,
        batch_size=batch,
        verbose=0,
        callbacks=[
            kr.ChecksumCallback(folder / f"{name}.jsonl", snapshots="epoch")
        ],
    )


dense = keras.layers.Dense
turbofan = [dense(units, activation="relu") for units in (16, 32, 64)]
train("small", 21, turbofan, samples=800, batch=32)
# Large products of matrices on TensorFlow and JAX, and on PyTorch the sums of
# the normalization, are split among threads.
wide = [dense(1024), keras.layers.LayerNormalization(), dense(1024)]
train("large", 1024, wide, samples=512, batch=256)
