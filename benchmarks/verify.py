"""What `keras-repro verify` costs, in plain runs of the same script.

    python -m benchmarks.verify --data DIR
    python -m benchmarks.verify --all --check    # all backends; fail on a miss

In turns, in one run: the script alone; once watched (the audit and the record
of its calls); and verified, which is two watched runs and their comparison.
`--data` names the folder with NASA's FD001 files.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_repro.watching.holds import Plan, make_keys

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "keras_repro" / "__main__.py"
BACKENDS = ("tensorflow", "jax", "torch")
# In plain runs.
MOST_WATCHED, MOST_VERIFIED = 1.10, 2.3
DRAWING = """\
import random

import keras
import numpy as np

keras.utils.set_random_seed(0)
x = np.zeros((2000, 8), "float32")
generators = [np.random.default_rng(i) for i in range(2000)]
for row, generator in zip(x, generators):
    row[:] = generator.normal(size=8) + random.random()
rows = [np.random.permutation(2000) for _ in range(200)]
model = keras.Sequential(
    [
        keras.Input((8,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
for order in rows:
    model.train_on_batch(x[order[:64]], x[order[:64], :1])
model.fit(x, x[:, :1], epochs=20, verbose=0)
"""


def measure(command, cwd, backend):
    """Seconds that a command takes; it must succeed."""
    start = time.perf_counter()
    subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        check=True,
        capture_output=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONHASHSEED": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    return time.perf_counter() - start


def watch(target, cwd, backend):
    """Seconds of one watched run."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(folder=folder, keys=make_keys(), shown_hash_seed="0")
        return measure(
            [sys.executable, STARTER, plan.write(), *target], cwd, backend
        )


def compare(name, target, backend, repeats):
    """Print one line of ratios; whether the targets were reached."""
    with tempfile.TemporaryDirectory() as cwd:
        times = {"plain": [], "watched": [], "verified": []}
        verify = [sys.executable, "-m", "keras_repro", "verify", *target]
        for _ in range(repeats):
            plain = [sys.executable, *target]
            times["plain"].append(measure(plain, cwd, backend))
            times["watched"].append(watch(target, cwd, backend))
            times["verified"].append(measure(verify, cwd, backend))
    ratios = {
        kind: statistics.median(
            one / plain
            for one, plain in zip(values, times["plain"], strict=True)
        )
        for kind, values in times.items()
    }
    seconds = statistics.median(times["plain"])
    print(
        f"{backend:<11} {name:<22} {seconds:6.1f} s   watched "
        f"{ratios['watched']:5.2f}   verified {ratios['verified']:5.2f}",
        flush=True,
    )
    return (
        ratios["watched"] <= MOST_WATCHED
        and ratios["verified"] <= MOST_VERIFIED
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", metavar="DIR", help="the FD001 files")
    parser.add_argument("--all", action="store_true", help="all backends")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    args = parser.parse_args()
    turbofan = [ROOT / "examples" / "turbofan.py"]
    if args.data is not None:
        turbofan += ["--data", Path(args.data).resolve()]
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    reached = []
    with tempfile.TemporaryDirectory() as folder:
        drawing = Path(folder) / "drawing.py"
        drawing.write_text(DRAWING)
        for one in BACKENDS if args.all else (backend,):
            for name, target in (
                ("turbofan example", turbofan),
                ("many draws and calls", [drawing]),
            ):
                reached.append(compare(name, target, one, args.repeats))
    if args.check and not all(reached):
        raise SystemExit("A target was missed.")


if __name__ == "__main__":
    main()
