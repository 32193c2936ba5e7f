"""What each way of starting again leaves behind: is the second fit the first?

    python -m benchmarks.recipes              # the backend of KERAS_BACKEND
    python -m benchmarks.recipes --all        # a Markdown table over backends

For each case and way: seed, build, fit, start again in that way, fit. The two
fits count as equal if the histories and all weights are, bit for bit.
"""

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_repro as kr

# A weights file saved before training holds an optimizer without its slots.
warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
warnings.filterwarnings("ignore", "`shuffle=True` was passed, but")

BACKENDS = ("tensorflow", "jax", "torch")
layers = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 8)).astype("float32")
Y = X[:, :1] * 2


def dense(*between):
    """A small network with something in the middle."""
    return [
        keras.Input((8,)),
        layers.Dense(8, activation="tanh"),
        *between,
        layers.Dense(1),
    ]


def recurrent():
    """An LSTM with dropout in its recurrence."""
    return [
        keras.Input((8,)),
        layers.Reshape((8, 1)),
        layers.LSTM(4, recurrent_dropout=0.2),
        layers.Dense(1),
    ]


def halve(epoch, rate):
    """Lower the learning rate in each epoch."""
    del epoch
    return rate / 2


class OwnNoise(layers.Layer):
    """Noise from a generator that Keras does not know."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(None)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        shape = keras.ops.shape(inputs)
        return inputs + 0.1 * keras.random.normal(
            shape, seed=self.seed_generator
        )


class Batches(keras.utils.PyDataset):
    """Batches of 16 that are dealt anew in each epoch."""

    def __init__(self):
        super().__init__()
        self.order = np.arange(4)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(16 * self.order[index], 16 * self.order[index] + 16)
        return X[rows], Y[rows]

    def on_epoch_end(self):
        np.random.shuffle(self.order)


def make_pipeline():
    """A `tf.data` pipeline that shuffles."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y))
    return data.shuffle(64).batch(16)


def fit_arrays(model, data=None, **options):
    """Fit for two epochs, on the arrays if there is no other data."""
    fed = {"x": X, "y": Y, "batch_size": 16} if data is None else {"x": data}
    return model.fit(**fed, epochs=2, verbose=0, **options)


def fit_scheduled(model, data):
    schedule = keras.callbacks.LearningRateScheduler(halve)
    return fit_arrays(model, data, callbacks=[schedule])


def fit_validated(model, data):
    return fit_arrays(model, data, validation_data=(X, Y))


# name: layers, optimizer, how to fit
CASES = {
    "dense layers, SGD": (dense, "sgd", fit_arrays),
    "Adam": (dense, "adam", fit_arrays),
    "Dropout": (lambda: dense(layers.Dropout(0.3)), "sgd", fit_arrays),
    "GaussianNoise": (
        lambda: dense(layers.GaussianNoise(0.3)),
        "sgd",
        fit_arrays,
    ),
    "BatchNormalization": (
        lambda: dense(layers.BatchNormalization()),
        "sgd",
        fit_arrays,
    ),
    "LSTM with recurrent dropout": (recurrent, "adam", fit_arrays),
    "a layer with its own SeedGenerator": (
        lambda: dense(OwnNoise()),
        "sgd",
        fit_arrays,
    ),
    "validation_data": (
        lambda: dense(layers.Dropout(0.3)),
        "adam",
        fit_validated,
    ),
    "a learning rate schedule by callback": (dense, "sgd", fit_scheduled),
    "a PyDataset that shuffles": (dense, "sgd", fit_arrays),
    "a tf.data pipeline that shuffles": (dense, "sgd", fit_arrays),
    "another model trained in between": (
        lambda: dense(layers.Dropout(0.3)),
        "adam",
        fit_arrays,
    ),
    "the program draws numbers in between": (dense, "sgd", fit_arrays),
}
# Data that is made once, as programs do, and lives through both fits.
DATA = {
    "a PyDataset that shuffles": Batches,
    "a tf.data pipeline that shuffles": make_pipeline,
}
DISTURBANCES = {
    "another model trained in between": lambda: fit_arrays(build_plain("Adam")),
    "the program draws numbers in between": lambda: (
        random.random(),
        np.random.random(),
        keras.random.normal((2,)),
    ),
}


def build(model_class, case):
    make, optimizer, _ = CASES[case]
    model = model_class(make())
    model.compile(optimizer, "mse")
    return model


def build_plain(case):
    return build(keras.Sequential, case)


def make_nothing():
    """Stand in where a case has no data or disturbance of its own."""


def train(model, case, data):
    """Fit; return all that must come again."""
    history = CASES[case][2](model, data).history
    # PyTorch and JAX may hand out views of what training changes next.
    weights = [np.array(weight).tobytes() for weight in model.get_weights()]
    return history, weights


def put_weights_back(case, reseed=False, recompile=False):
    """Fit, put the starting weights back, fit."""
    keras.utils.set_random_seed(1)
    model, data = build_plain(case), DATA.get(case, make_nothing)()
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.weights.h5"
        model.save_weights(start)
        first = train(model, case, data)
        DISTURBANCES.get(case, make_nothing)()
        if reseed:
            keras.utils.set_random_seed(1)
        if recompile:
            model.compile(CASES[case][1], "mse")
        model.load_weights(start, skip_mismatch=False)
    return first == train(model, case, data)


def rebuild(case):
    """Seed and build, fit; once more from nothing."""
    keras.utils.set_random_seed(1)
    data = DATA.get(case, make_nothing)()
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        results.append(train(build_plain(case), case, data))
        DISTURBANCES.get(case, make_nothing)()
    return results[0] == results[1]


def reset(case):
    """Fit, `reset()`, fit."""
    kr.seed_everything(1)
    model = build(kr.ReproducibleModel, case)
    data = DATA.get(case, make_nothing)()
    first = train(model, case, data)
    DISTURBANCES.get(case, make_nothing)()
    model.reset()
    return first == train(model, case, data)


WAYS = {
    "put the weights back": put_weights_back,
    "recompile, load weights": lambda case: put_weights_back(
        case, recompile=True
    ),
    "seed, recompile, load weights": lambda case: put_weights_back(
        case, reseed=True, recompile=True
    ),
    "seed, rebuild, recompile": rebuild,
    "`reset()`": reset,
}


def main():
    """Print what this backend's cases give, or a table over the backends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every backend")
    parser.add_argument("--json", action="store_true", help="for --all")
    args = parser.parse_args()
    if not args.all:
        equal = {
            way: [case for case in CASES if run(case)]
            for way, run in WAYS.items()
        }
        if args.json:
            print(json.dumps(equal))
            return
        print(f"{keras.backend.backend()}, of {len(CASES)} cases")
        for way, cases in equal.items():
            left = [case for case in CASES if case not in cases]
            print(f"{len(cases):3}  {way}", end="")
            print(f"\n       not: {', '.join(left)}" if left else "")
        return
    names = [name for name in BACKENDS if importlib.util.find_spec(name)]
    columns = [measure(name) for name in names]
    print(f"| second fit equal to the first | {' | '.join(names)} |")
    print(f"|---|{'---|' * len(names)}")
    for way in WAYS:
        counts = [f"{len(column[way])} of {len(CASES)}" for column in columns]
        print(f"| {way} | {' | '.join(counts)} |")


def measure(backend):
    """Run all cases on a backend, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.recipes", "--json"],
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
