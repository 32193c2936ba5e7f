"""Keras' classes and ours, and the data that both are given."""

import types

import keras
import numpy as np

import keras_repro as kr
from keras_repro.backends.keras_internals import functional_class

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype("float32")
Y = X @ RNG.normal(size=(4, 1)).astype("float32")
FIT = {"epochs": 2, "batch_size": 5, "verbose": 0, "shuffle": False}

PLAIN = types.SimpleNamespace(
    sequential=keras.Sequential,
    model=keras.Model,
    functional=functional_class(),
)
OURS = types.SimpleNamespace(
    sequential=kr.ReproducibleModel,
    model=kr.ReproducibleModel,
    functional=functional_class(),
)


def observe(scenario, kind, *args, seed=3):
    """What a scenario shows, from a process' start as far as one can."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    return scenario(kind, *args)
