"""What a trial by `reset()` costs, against the ways people have without it.

    python -m benchmarks.reset                # the backend of KERAS_BACKEND
    python -m benchmarks.reset --all          # each installed backend in turn
    python -m benchmarks.reset --check        # fail if a target is missed

All figures of one run are taken in turns on one machine, so that its moods
fall on each way alike; the ratios are what counts. Every timed way is also
checked for what it is for: a trial by `reset()` must give the same bits.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BACKENDS = ("tensorflow", "jax", "torch")
# How many times faster than recompiling a trial must be, by backend.
RECOMPILE_TARGETS = {"tensorflow": 2.5, "jax": 20.0, "torch": 1.0}
FRESH_PROCESS = """
from benchmarks.reset import make_data, make_plain, train
train(make_plain(), *make_data(2_000))
"""


def make_data(num_rows):
    """Sensor-like features, shape `(num_rows, 21)`, and a target."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(num_rows, 21)).astype("float32")
    y = (x[:, :3].sum(axis=1) * 40).astype("float32")
    return x, y


def make_layers(dropout=0.2):
    """The network of the turbofan study, with dropout."""
    import keras

    return [
        keras.Input((21,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dropout(dropout),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]


def make_plain():
    """The network as plain Keras, compiled."""
    import keras

    model = keras.Sequential(make_layers())
    model.compile("adam", "mse")
    return model


def train(model, x, y):
    """A trial's work: two epochs."""
    return model.fit(x, y, epochs=2, verbose=0).history


def measure(call):
    """Seconds that `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_times(ways, rounds):
    """Time each way once per round, in turns; median seconds by name."""
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(measure(way))
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure_trials(rounds):
    """Median seconds of a two-epoch trial on 2,000 rows, by each way."""
    import keras

    import keras_repro as kr

    data = make_data(2_000)
    model = kr.ReproducibleModel(make_layers())
    model.compile("adam", "mse")
    histories = []

    def by_reset():
        model.reset()
        history = train(model, *data)
        histories.append((history, kr.compute_checksum(model)))

    plain, recompiled = make_plain(), make_plain()
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "start.weights.h5"
    make_plain().save_weights(path)

    def by_recompiling():
        recompiled.compile("adam", "mse")
        recompiled.load_weights(path)
        train(recompiled, *data)

    def by_rebuilding():
        keras.utils.set_random_seed(0)
        train(make_plain(), *data)

    def training_alone():
        train(plain, *data)

    def by_a_fresh_process():
        subprocess.run([sys.executable, "-c", FRESH_PROCESS], check=True)

    ways = {
        "reset": by_reset,
        "training alone": training_alone,
        "recompile": by_recompiling,
        "rebuild": by_rebuilding,
    }
    median_times(ways, 1)  # Build and trace first.
    times = median_times(ways, rounds)
    times |= median_times({"process": by_a_fresh_process}, 2)
    folder.cleanup()
    if any(trial != histories[0] for trial in histories):
        raise SystemExit("Trials by reset() must be equal; they differ.")
    return times


def measure_large(rounds):
    """Seconds of a reset of 100 MB and of copying the same bytes."""
    import keras
    import numpy as np

    import keras_repro as kr

    model = kr.ReproducibleModel(
        [keras.Input((5_000,)), keras.layers.Dense(5_000, use_bias=False)]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.ones((1, 5_000), "float32")
    start = keras.ops.convert_to_numpy(model.weights[0]).copy()
    model.fit(x, x, verbose=0)
    target = start.copy()
    ways = {
        "reset": model.reset,
        "copy": lambda: np.copyto(target, start),
    }
    times = median_times(ways, 2 * rounds)
    held = keras.ops.convert_to_numpy(model.weights[0])
    if held.tobytes() != start.tobytes():
        raise SystemExit("reset() must bring the weights back; it did not.")
    return times


def measure_deep(rounds):
    """Seconds to build a model of 221 layers, and to reset it."""
    import itertools

    import keras
    import numpy as np

    import keras_repro as kr

    def build():
        inputs = outputs = keras.Input((8,))
        for _ in range(55):
            outputs = keras.layers.Dense(8, use_bias=False)(outputs)
            outputs = keras.layers.BatchNormalization()(outputs)
            outputs = keras.layers.ReLU()(outputs)
            outputs = keras.layers.Dropout(0.1)(outputs)
        return keras.Model(inputs, outputs)

    model = kr.make_reproducible(build(), seed=1)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 8)), np.ones((8, 8)), verbose=0)
    seeds = itertools.count(2)

    def reset_to_a_seed():
        model.reset(seed=next(seeds))

    ways = {"build": build, "reset": model.reset, "seed": reset_to_a_seed}
    first = measure(reset_to_a_seed)
    times = median_times(ways, rounds)
    late = median_times({"late": reset_to_a_seed}, 100)
    return {name: t / times["build"] for name, t in (times | late).items()} | {
        "first": first / times["build"]
    }


def measure_memory():
    """Bytes of the captured start over those of the weights, with Adam."""
    import keras
    import numpy as np

    import keras_repro as kr

    model = kr.ReproducibleModel(
        [keras.Input((1_000,)), *[keras.layers.Dense(1_000) for _ in range(4)]]
    )
    model.compile("adam", "mse")
    x = np.ones((32, 1_000), "float32")
    model.fit(x, x, verbose=0)
    weights = sum(
        keras.ops.convert_to_numpy(weight).nbytes for weight in model.weights
    )
    return model.initial_state.nbytes / weights


def measure_shuffling(rounds):
    """Median seconds per epoch on as many rows as the turbofan study has."""
    import keras

    import keras_repro as kr

    steps = 1 if keras.backend.backend() == "torch" else 32
    data = make_data(16_561)
    models = {
        "ours": kr.ReproducibleModel(make_layers()),
        "keras": keras.Sequential(make_layers()),
    }
    for model in models.values():
        model.compile("adam", "mse", steps_per_execution=steps)
        model.fit(*data, epochs=2, verbose=0)

    epochs = 2 if steps == 1 else 10

    def fit(model):
        return lambda: model.fit(*data, epochs=epochs, verbose=0)

    ways = {name: fit(model) for name, model in models.items()}
    times = median_times(ways, rounds)
    return {name: taken / epochs for name, taken in times.items()}


def measure_first_fit(rounds):
    """Median seconds from the layers to the end of a first short training."""
    import keras

    import keras_repro as kr

    data = make_data(64)

    def first_fit(cls):
        def run():
            model = cls(make_layers())
            model.compile("adam", "mse", metrics=["mae"])
            model.fit(*data, verbose=0)

        return run

    ways = {
        "ours": first_fit(kr.ReproducibleModel),
        "keras": first_fit(keras.Sequential),
    }
    median_times(ways, 1)
    return median_times(ways, rounds)


def report_backend(rounds):
    """Measure the current backend, print, and list the targets missed."""
    import keras

    import keras_repro as kr

    backend = keras.backend.backend()
    missed = []
    kr.seed_everything(0, deterministic=False)

    def line(text, value, unit, target=None, at_least=False):
        goal = ""
        if target is not None:
            sign = ">=" if at_least else "<="
            goal = f"  (target {sign} {target:g})"
            if value < target if at_least else value > target:
                missed.append(f"{backend}: {text}")
                goal += "  MISSED"
        print(f"  {text:<52} {value:8.2f} {unit}{goal}", flush=True)

    print(f"{backend}, Keras {keras.__version__}, {os.cpu_count()} cores")
    times = measure_trials(rounds)
    trial, alone = times["reset"], times["training alone"]
    line("two-epoch trial by reset()", 1e3 * trial, "ms")
    line("training alone (warm, plain Keras)", 1e3 * alone, "ms")
    line("a trial beyond its training", 1e3 * (trial - alone), "ms", 50)
    beyond = 1e3 * (times["recompile"] - alone)
    line("recompiling beyond its training", beyond, "ms")
    line(
        "recompile + load_weights, in trials by reset()",
        times["recompile"] / trial,
        "x",
        RECOMPILE_TARGETS[backend],
        at_least=True,
    )
    line("rebuild + recompile", times["rebuild"] / trial, "x")
    line("a fresh process", times["process"] / trial, "x")
    first = measure_first_fit(rounds)
    line("a first fit, plain Keras", 1e3 * first["keras"], "ms")
    ratio = first["ours"] / first["keras"]
    line("a first fit with the start captured, in plain ones", ratio, "x")
    large = measure_large(rounds)
    line("reset() of 100 MB", 1e3 * large["reset"], "ms")
    ratio = large["reset"] / large["copy"]
    line("the same, in bare copies of the bytes", ratio, "x", 2)
    deep = measure_deep(rounds)
    text = "221 layers, in builds: "
    line(f"{text}reset()", deep["reset"], "x", 0.05)
    line("the same, first reset(seed)", deep["first"], "x")
    line("the same, later ones", deep["seed"], "x", 0.3)
    line("the same, a hundred later", deep["late"], "x", 0.3)
    line("captured start over weights, Adam", measure_memory(), "x", 1.1)
    epochs = measure_shuffling(max(5, rounds))
    line("epoch of 16,561 rows, plain Keras", 1e3 * epochs["keras"], "ms")
    ratio = epochs["ours"] / epochs["keras"]
    line("epoch with our data order, in plain ones", ratio, "x", 1.05)
    return missed


def main():
    """Measure this backend, or each one in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every backend")
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if not args.all:
        missed = report_backend(args.rounds)
        return 1 if missed and args.check else 0
    options = ["--rounds", str(args.rounds), *["--check"] * args.check]
    return run_on_each("benchmarks.reset", options)


def run_on_each(module, options):
    """Run a benchmark on each installed backend; the worst exit code."""
    worst = 0
    command = [sys.executable, "-m", module, *options]
    for backend in BACKENDS:
        if importlib.util.find_spec(backend) is None:
            print(f"{backend}: not installed")
            continue
        environment = {**os.environ, "KERAS_BACKEND": backend}
        result = subprocess.run(command, env=environment, check=False)
        worst = max(worst, result.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
