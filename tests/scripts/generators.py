"""Print what each generator gives; seeds of the script's own win."""

import random
import sys

import numpy as np

own = sys.argv[1] if len(sys.argv) > 1 else "none"
if own == "before":
    random.seed(11)
    np.random.seed(11)
if own == "used":
    random.random()
    np.random.rand()

import keras  # noqa: E402 - the script has seeded what it had before

if own == "after":
    keras.utils.set_random_seed(11)
print("python", random.random())
print("numpy", np.random.rand())
print("keras", float(keras.random.uniform(())))
kernel = keras.layers.Dense(1)
kernel.build((None, 2))
print("layer", float(keras.ops.sum(kernel.kernel)))
backend = keras.backend.backend()
if backend == "tensorflow":
    import tensorflow as tf

    print("backend", float(tf.random.uniform(())))
if backend == "torch":
    import torch

    print("backend", float(torch.rand(())))
