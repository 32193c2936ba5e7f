"""The classic small test: learn the next number of 0.0, 0.1, ... 0.9.

Ten repeats give ten errors, orders of magnitude apart. With `reset()` they
give one error ten times; `run_trials` gives one per seed, the same each day.

    python examples/sequence.py --plot sequence.png
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_repro as kr

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--repeats", type=int, default=10)
parser.add_argument("--seeds", type=int, default=30)
parser.add_argument("--plot", metavar="FILE", help="draw the three spreads")
args = parser.parse_args()

# %% The data: nine pairs, x[t-1] and x[t]
sequence = np.arange(10, dtype="float32").reshape(10, 1) / 10
x, y = sequence[:-1], sequence[1:]


def make_layers():
    return [
        keras.Input((1,)),
        keras.layers.Dense(10),
        keras.layers.Dense(1),
    ]


def train(model):
    """Train for the given epochs; return the mean squared error."""
    model.fit(x, y, epochs=args.epochs, batch_size=len(x), verbose=0)
    return float(np.mean((model.predict(x, verbose=0) - y) ** 2))


def report(title, errors):
    print(f"\n{title}")
    for place in range(0, len(errors), 10):
        row = errors[place : place + 10]
        print("  " + " ".join(f"{error:.1e}" for error in row))
    print(f"  {len(set(errors))} different, largest/smallest", end=" ")
    print(f"{max(errors) / min(errors):.2g}, median {np.median(errors):.1e}")


# %% Build it anew each time, as everybody does
unseeded = []
for _ in range(args.repeats):
    plain = keras.Sequential(make_layers())
    plain.compile("adam", "mse")
    unseeded.append(train(plain))
report("Plain Keras, built anew:", unseeded)

# %% Build it once and rewind it
model = kr.ReproducibleModel(make_layers())
model.compile("adam", "mse")
equal = []
for _ in range(args.repeats):
    model.reset()
    equal.append(train(model))
report("reset():", equal)
print("  all equal:", len(set(equal)) == 1)

# %% Many seeds, one model, nothing recompiled
results = kr.run_trials(model, train, seeds=args.seeds)
seeded = results.scores["score"]
report("run_trials():", seeded)
# No mean: of errors orders of magnitude apart a few large ones make it.
print(f"  seed {results.typical_seed()} is closest to the median")
model.reset(seed=1)
print("  seed 1 once more, the same:", train(model) == seeded[1])

# %% Look at them
if args.plot:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(layout="constrained")
    labels = ["built anew", "reset()", "run_trials()"]
    for place, errors in enumerate((unseeded, equal, seeded)):
        axes.plot([place] * len(errors), errors, "o", alpha=0.5)
        axes.plot(place, np.median(errors), "k_", markersize=30)
    axes.set_xticks(range(3), labels)
    axes.set(xlim=(-0.5, 2.5), yscale="log", ylabel="mean squared error")
    figure.savefig(args.plot)
    print("\nPlot:", args.plot)
