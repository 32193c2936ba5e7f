"""What watching costs: checksums against other hashes, and the callback.

    python -m benchmarks.checksums            # the backend of KERAS_BACKEND
    python -m benchmarks.checksums --all      # each installed backend in turn
    python -m benchmarks.checksums --check    # fail if a target is missed

Hashes are compared with the speed at which this machine reads memory, in the
same run. What the callback costs is taken inside one training for each of its
calls, and in whole trainings in turns, so that the machine's moods fall on
each way alike.
"""

import argparse
import hashlib
import os
import pickle
import statistics
import tempfile
import time
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.reset import run_on_each

READ_SHARE = 0.7
LARGE_SHARE = 0.05
EPOCH_SHARE = 0.02
BATCH_TARGETS = {"tensorflow": 1.5, "jax": 3.0, "torch": 1.5}
LARGE_EPOCH_SECONDS = 5.0
MEGABYTE = 1e6


def best_time(call, rounds=5):
    """Seconds of the quickest of some calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def compare_hashes(num_bytes=400_000_000):
    """Bytes per second of each way to read an array, by name."""
    from keras_repro.arrays.checksums import checksum_array

    array = np.random.default_rng(0).normal(size=num_bytes // 4)
    array = array.astype("float32")
    words = array.view(np.uint64)
    assert checksum_array(array) == checksum_array(array.copy())
    ways = {
        "plain read (the quickest of sum, max, or)": lambda: min(
            best_time(words.sum, 1),
            best_time(words.max, 1),
            best_time(lambda: np.bitwise_or.reduce(words), 1),
        ),
        "checksum_array": lambda: best_time(lambda: checksum_array(array), 1),
        "zlib.crc32": lambda: best_time(lambda: zlib.crc32(array), 1),
        "hashlib.sha256": lambda: best_time(
            lambda: hashlib.sha256(array).digest(), 1
        ),
        "hash(pickle.dumps)": lambda: best_time(
            lambda: hash(pickle.dumps(array)), 1
        ),
    }
    times = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            times[name].append(way())
    return {name: num_bytes / min(taken) for name, taken in times.items()}


def make_mlp():
    """The turbofan MLP on as many rows as the study has."""
    import keras

    import keras_repro as kr

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(16_561, 21)).astype("float32")
    y = (x[:, :3].sum(axis=1) * 40).astype("float32")
    kr.seed_everything(1)
    layers = [keras.layers.Dense(n, activation="relu") for n in (16, 32, 64)]
    model = kr.ReproducibleModel(
        [keras.Input((21,)), *layers, keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    return model, x, y


def make_large():
    """A model of 100 MB, 300 MB with Adam."""
    import keras

    import keras_repro as kr

    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5000)).astype("float32")
    kr.seed_everything(1)
    model = kr.ReproducibleModel(
        [
            keras.Input((5000,)),
            keras.layers.Dense(4000),
            keras.layers.Dense(1250),
        ]
    )
    model.compile("adam", "mse")
    return model, x, x[:, :1250]


def make_timed_callback(path, **options):
    """A ChecksumCallback that adds up the time spent in it."""
    import keras_repro as kr

    class Timed(kr.ChecksumCallback):
        def __init__(self):
            super().__init__(path, **options)
            self.times = []

        def on_epoch_end(self, epoch, logs=None):
            start = time.perf_counter()
            super().on_epoch_end(epoch, logs)
            self.times.append(time.perf_counter() - start)

    return Timed()


def train(model, x, y, *callbacks, epochs=2, **options):
    """Rewind and train; seconds of the whole `fit`."""
    model.reset()
    start = time.perf_counter()
    model.fit(
        x, y, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    )
    return time.perf_counter() - start


def measure_large(folder):
    """What a record of the large model takes, as a share of 5 s."""
    model, x, y = make_large()
    train(model, x, y)
    checks = make_timed_callback(Path(folder) / "large.jsonl")
    train(model, x, y, checks, epochs=6)
    return statistics.median(checks.times) / LARGE_EPOCH_SECONDS


def measure_mlp(folder):
    """Share of an epoch, and the times of a batch with every batch recorded."""
    import keras_repro as kr

    model, x, y = make_mlp()
    train(model, x, y)
    plain, batch, shares = [], [], []
    for turn in range(5):
        timed = make_timed_callback(Path(folder) / f"epoch-{turn}.jsonl")
        seconds = train(model, x, y, timed, epochs=3)
        shares.append(sum(timed.times) / seconds)
        path = Path(folder) / f"batch-{turn}.jsonl"
        each = kr.ChecksumCallback(path, every="batch")
        plain.append(train(model, x, y))
        batch.append(train(model, x, y, each))
        assert len(each.run.records) > 1000
    return statistics.median(shares), statistics.median(
        b / p for b, p in zip(batch, plain, strict=True)
    )


def report_hashes():
    """Print the hashes; returns the checksum's share of the read speed."""
    speeds = compare_hashes()
    read = next(iter(speeds.values()))
    print("An array of 400 MB, one thread:")
    for name, speed in speeds.items():
        print(f"  {name:<44} {speed / 1e9:6.2f} GB/s {speed / read:7.2f}")
    return speeds["checksum_array"] / read


def report_callback(backend):
    """Print what the callback costs on this backend."""
    with tempfile.TemporaryDirectory() as folder:
        share, ratio = measure_mlp(folder)
        large = measure_large(folder)
    print(f"ChecksumCallback on {backend}:")
    rows = (
        ("a record of 300 MB, of an epoch of 5 s", large, LARGE_SHARE),
        ("a record of the turbofan MLP, of its epoch", share, EPOCH_SHARE),
        ('a batch with every="batch", in plain batches', ratio, None),
    )
    for name, value, limit in rows:
        bound = BATCH_TARGETS[backend] if limit is None else limit
        print(f"  {name:<46} {value:7.3f} (at most {bound})")
    return [
        large <= LARGE_SHARE,
        share <= EPOCH_SHARE,
        ratio <= BATCH_TARGETS[backend],
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="each backend")
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    args = parser.parse_args()
    if args.all:
        extra = ["--check"] if args.check else []
        raise SystemExit(run_on_each("benchmarks.checksums", extra))
    reached = [report_hashes() >= READ_SHARE]
    reached += report_callback(os.environ.get("KERAS_BACKEND", "tensorflow"))
    if args.check and not all(reached):
        raise SystemExit("A target was missed.")


if __name__ == "__main__":
    main()
