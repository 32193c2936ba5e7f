"""Does smoothing the sensors help to predict when an engine will fail?

Five trainings of one model on NASA's turbofan data. Between them only the
smoothing changes: `reset()` puts everything else back, bit for bit.

    python examples/turbofan.py --data DIR --plot rmse.png
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from turbofan_data import get_fleet, make_arrays

import keras_repro as kr

# %% What to run
parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data", metavar="DIR", help="where the FD001 files are")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--rows", type=int, help="train on the first rows only")
parser.add_argument("--log", metavar="FILE", help="keep the runs' record")
parser.add_argument("--plot", metavar="FILE", help="draw the RMSE curves")
args = parser.parse_args()

# %% The data: some engines run to failure, the others ask how long they have
fleet = get_fleet(args.data)
print(f"Data: {fleet.origin}. Backend: {keras.backend.backend()}.")

# %% One model for all trainings
kr.seed_everything(42)
model = kr.ReproducibleModel(
    [
        keras.Input((21,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]
)
# Many steps per call give the same bits, sooner; PyTorch has no such option.
steps = 1 if keras.backend.backend() == "torch" else 32
model.compile("adam", "mse", steps_per_execution=steps)
checks = kr.ChecksumCallback(args.log)


def compute_rmse(x, y):
    """Root mean squared error, in flights."""
    error = model.predict(x, batch_size=4096, verbose=0)[:, 0] - y
    return float(np.sqrt(np.mean(error**2)))


# %% Train, change the smoothing, rewind, train again
print("alpha  train    val   test   (RMSE)   checksum of the trained model")
results = []
for alpha in (None, 1.0, 0.4, 0.2, 0.4):
    data = make_arrays(fleet, alpha, args.rows)
    start = time.perf_counter()
    model.reset()
    history = model.fit(
        data.x_train,
        data.y_train,
        batch_size=32,
        epochs=args.epochs,
        validation_data=(data.x_val, data.y_val),
        callbacks=[checks],
        verbose=0,
    ).history
    seconds = time.perf_counter() - start
    rmse = [
        compute_rmse(x, y) for x, y in zip(data[::2], data[1::2], strict=True)
    ]
    checksum = kr.compute_checksum(model)
    results.append((alpha, history, rmse, checksum))
    scores = " ".join(f"{score:6.2f}" for score in rmse)
    print(f"{alpha or 'none':>5} {scores}   {seconds:5.1f} s   {checksum}")


# %% What may be concluded
def same(first, second):
    """Whether two results are bitwise equal: history, scores and model."""
    return "bitwise equal" if first[1:] == second[1:] else "DIFFERENT"


unsmoothed, identity, first, _, second = results
print("alpha=0.4 and alpha=0.4 again:", same(first, second))
print("no smoothing and alpha=1.0, which changes nothing:", end=" ")
print(same(unsmoothed, identity))
print(f"rows: {len(data.x_train)} to train, {len(data.x_val)} to validate")

# %% The curves
if args.plot:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(layout="constrained")
    styles = [("-", 3), (":", 2), ("-", 3), ("-", 1), ("--", 1)]
    labels = ["none", "1.0", "0.4", "0.2", "0.4 again"]
    for result, label, (dashes, width) in zip(
        results, labels, styles, strict=True
    ):
        curve = np.sqrt(result[1]["val_loss"])
        epochs = range(1, len(curve) + 1)
        axes.plot(epochs, curve, dashes, linewidth=width, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="validation RMSE (flights)")
    axes.legend(title="alpha")
    figure.savefig(args.plot)
    print("Plot:", args.plot)
