"""Does smoothing the sensors help, or was it the seed?

One model, four smoothings, 30 trainings each on NASA's turbofan data. Seed by
seed they start alike and see the engines in one order: what is left of a
difference is the smoothing.

    python examples/turbofan_study.py --data DIR --workers 2 --path study
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from turbofan_data import get_fleet, make_arrays

import keras_repro as kr

# %% What to run
parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data", metavar="DIR", help="where the FD001 files are")
parser.add_argument("--seeds", type=int, default=30)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--rows", type=int, help="train on the first rows only")
parser.add_argument("--workers", type=int, help="how many processes to start")
parser.add_argument("--path", metavar="DIR", help="keep it, and go on with it")
parser.add_argument("--plot", metavar="FILE", help="draw the comparison")
parser.add_argument("--watch", action="store_true", help="look in between")
parser.add_argument("--spread", action="store_true", help="what a seed moves")
args = parser.parse_args()

# %% The data, and one model for all trainings
fleet = get_fleet(args.data)
print(f"Data: {fleet.origin}. Backend: {keras.backend.backend()}.")
kr.seed_everything(42)
dense = keras.layers.Dense
hidden = [dense(units, activation="relu") for units in (16, 32, 64)]
model = kr.ReproducibleModel([keras.Input((21,)), *hidden, dense(1)])
# Many steps per call give the same bits, sooner; PyTorch has no such option.
steps = 1 if keras.backend.backend() == "torch" else 32
model.compile("adam", "mse", steps_per_execution=steps)


# %% A trial: train, and measure what is to be decided on first
def compute_rmse(model, x, y):
    """Root mean squared error, in flights."""
    error = model.predict(x, batch_size=4096, verbose=0)[:, 0] - y
    return float(np.sqrt(np.mean(error**2)))


def make_train(alpha):
    data, epochs = make_arrays(fleet, alpha, args.rows), args.epochs

    def train(model):
        x, y = data.x_train, data.y_train
        model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
        return {
            "test": compute_rmse(model, data.x_test, data.y_test),
            "val": compute_rmse(model, data.x_val, data.y_val),
            "train": compute_rmse(model, x, y),
        }

    return train


def run_study(name, alpha, vary="all"):
    """All seeds of one smoothing; with --path those that are not done yet."""
    return kr.run_trials(
        model,
        make_train(alpha),
        seeds=args.seeds,
        num_workers=args.workers,
        path=args.path and Path(args.path) / name,
        vary=vary,
    )


# %% Four studies; alpha 1.0 smooths nothing and must not differ from none
studies = {}
for alpha in (None, 1.0, 0.4, 0.2):
    name = "none" if alpha is None else f"{alpha}"
    studies[name] = run_study(name, alpha)
    print(f"\nalpha {name}: {studies[name].summary()}")
none, identity = studies["none"], studies.pop("1.0")
print(f"\nalpha 1.0 and none. {kr.compare_trials(none, identity).verdict}")
assert none.checksums == identity.checksums

# %% What may be concluded, and what one pair of runs would have said
for metric in ("test", "train"):
    comparisons = kr.compare_trials(studies, metric=metric)
    print(f"\n{comparisons}")
    for one in comparisons:
        wrong = 100 * one.statistics.oppose_rate
        print(f"{one.name_b}: of 100 single pairs of runs", end=" ")
        print(f"{wrong:.0f} would have had the wrong sign.")
seed = studies["0.4"].typical_seed()
print(f"\nalpha 0.4, a typical run: {studies['0.4'].rank(seed)}")
print(f"alpha 0.4, had it been one run: {studies['0.4'].rank(0)}")

# %% Had one looked in between: these intervals hold at every look
looks = [number for number in (5, 10, 20, 30, 60, 90) if number <= args.seeds]
for number in looks if args.watch else ():
    seeds = range(number)
    so_far = {name: one.select(seeds) for name, one in studies.items()}
    print(f"\nAfter {number} seeds:")
    for one in kr.compare_trials(so_far, metric="test", watched=True):
        print(f"- {one.verdict}")

# %% Where the spread comes from: this model has no random layers, say
if args.spread:
    for vary in ("initial", "order", "random"):
        print(f"\n{run_study(f'none-{vary}', None, vary)}")

# %% Look at it
if args.plot:
    kr.compare_trials(studies).plot().savefig(args.plot)
    print("\nPlot:", args.plot)
