"""What backups of a training cost, beside those of Keras and Orbax.

    python -m benchmarks.resume               # the backend of KERAS_BACKEND
    python -m benchmarks.resume --all         # each installed backend in turn
    python -m benchmarks.resume --check       # fail if a target is missed

A model of 33 MB, 100 MB with Adam, is backed up within one training. What the
training waits for is compared with a copy of the same bytes in memory, in the
same run; all that a backup takes, with the minute that lies between two.
"""

import argparse
import importlib.util
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.reset import run_on_each

COPIES = 2.0
MINUTE_SHARE = 0.02
MINUTE = 60.0
NUM_BACKUPS = 5
NUM_UNITS = 2887  # Their square is a third of 100 MB.


def make_model():
    """A model whose weights and slots are 100 MB, and its data."""
    import keras

    import keras_repro as kr

    x = np.random.default_rng(0).normal(size=(8, NUM_UNITS)).astype("float32")
    model = kr.ReproducibleModel(
        [keras.Input((NUM_UNITS,)), keras.layers.Dense(NUM_UNITS)], seed=1
    )
    model.compile("adam", "mse")
    return model, x


def time_copy(model):
    """Seconds that a copy of all variables takes in memory."""
    from keras_repro.backends.variables import iterate_variables, read_variable

    arrays = [read_variable(one.variable) for one in iterate_variables(model)]
    times = []
    for _ in range(NUM_BACKUPS):
        start = time.perf_counter()
        copies = [array.copy() for array in arrays]
        times.append(time.perf_counter() - start)
    return min(times), sum(array.nbytes for array in copies)


class StopError(Exception):
    """Ends a training that has come far enough."""


def train(model, x, callbacks, num_batches=NUM_BACKUPS + 1):
    """So many epochs of a batch each; seconds until the first one began."""
    import keras

    from keras_repro.backends.variables import read_variable

    begun = []

    class Pause(keras.callbacks.Callback):
        """Lets each step, and each writer, end before the next one."""

        def on_train_batch_begin(self, batch, logs=None):
            del batch, logs
            begun.append(time.perf_counter())
            if len(begun) > num_batches:
                raise StopError

        def on_epoch_end(self, epoch, logs=None):
            del epoch, logs
            read_variable(self.model.optimizer.variables[-1])
            for thread in threading.enumerate():
                if thread.name == "keras_repro-beside":
                    thread.join()

    start = time.perf_counter()
    with suppress(StopError):
        model.fit(x, x, epochs=99, verbose=0, callbacks=[*callbacks, Pause()])
    return begun[0] - start


class Timer:
    """Adds up what a method takes, in time and in its thread's CPU time."""

    def __init__(self, owner, name):
        self.times, self.cpu = [], []
        method = getattr(owner, name)

        def timed(*args, **kwargs):
            start, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.times.append(time.perf_counter() - start)
                self.cpu.append(time.thread_time() - cpu)

        self.put_back = lambda: setattr(owner, name, method)
        setattr(owner, name, timed)


def measure_ours(folder):
    """Waiting, the writer's CPU time, a copy, and what going on takes."""
    import keras_repro as kr
    from keras_repro.resuming import files
    from keras_repro.resuming.keeper import Keeper

    for _ in range(2):  # The first one also starts the backend.
        model, x = make_model()
        seconds_to_begin = train(model, x, [])
    seconds, num_bytes = time_copy(model)
    model, _ = make_model()
    waits = Timer(Keeper, "_read"), Timer(Keeper, "_write")
    writer = Timer(files, "write_backup")
    train(model, x, [kr.BackupAndRestore(folder, save_freq=1)])
    for timer in (*waits, writer):
        timer.put_back()
    model, _ = make_model()
    backup = kr.BackupAndRestore(folder, save_freq=1)
    goes_on = train(model, x, [backup], 0) - seconds_to_begin
    assert backup.resumed_from is not None
    # The first backup writes the start of the training too.
    waited = [a + b for a, b in zip(*(one.times for one in waits), strict=True)]
    return {
        "num_bytes": num_bytes,
        "copy": seconds,
        "waiting": min(waited[1:]),
        "writer": min(writer.cpu[1:]),
        "going on": goes_on,
    }


def measure_keras(folder):
    """What Keras' own callback waits for, and takes to go on."""
    import keras

    owner = keras.callbacks.BackupAndRestore
    saving = Timer(owner, "_save_model")
    restoring = Timer(owner, "on_train_begin")
    for number in (NUM_BACKUPS + 1, 0):
        model, x = make_model()
        train(model, x, [owner(folder)], number)
    saving.put_back()
    restoring.put_back()
    return min(saving.times), restoring.times[-1]


def measure_orbax(folder):
    """What Keras' callback for Orbax waits for; it does not go on by itself."""
    import keras

    model, x = make_model()
    orbax = keras.callbacks.OrbaxCheckpoint(str(folder), save_freq=1)
    saving = Timer(keras.callbacks.OrbaxCheckpoint, "_save_checkpoint")
    rest = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: orbax.wait_until_finished()
    )
    train(model, x, [orbax, rest])
    orbax.checkpointer.close()
    saving.put_back()
    return min(saving.times)


def has_orbax():
    """Whether there is Orbax, and a Keras that knows it."""
    import keras

    is_installed = importlib.util.find_spec("orbax") is not None
    return is_installed and hasattr(keras.callbacks, "OrbaxCheckpoint")


def report(backend):
    """Print it all; whether each target was reached."""
    with tempfile.TemporaryDirectory() as name:
        ours = measure_ours(Path(name) / "ours")
        keras_saves, keras_goes_on = measure_keras(Path(name) / "keras")
        orbax = measure_orbax(Path(name) / "orbax") if has_orbax() else None
    ratio = ours["waiting"] / ours["copy"]
    share = (ours["waiting"] + ours["writer"]) / MINUTE
    print(f"Backups of {ours['num_bytes'] / 1e6:.0f} MB on {backend}:")
    print(f"  a copy of the bytes in memory         {ours['copy']:8.3f} s")
    print(
        f"  the training waits                    {ours['waiting']:8.3f} s, "
        f"{ratio:.2f} copies (at most {COPIES})"
    )
    print(
        f"  CPU time of the writer                {ours['writer']:8.3f} s, "
        f"with it {share:.2%} of a minute (at most {MINUTE_SHARE:.0%})"
    )
    print(f"  to go on                              {ours['going on']:8.3f} s")
    print(f"  Keras' BackupAndRestore waits         {keras_saves:8.3f} s")
    print(f"  Keras' BackupAndRestore, to go on     {keras_goes_on:8.3f} s")
    if orbax is None:
        print(
            "  Orbax: orbax-checkpoint, or Keras' callback for it, is missing"
        )
    else:
        print(f"  Keras' OrbaxCheckpoint waits          {orbax:8.3f} s")
    return [ratio <= COPIES, share <= MINUTE_SHARE]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="each backend")
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    args = parser.parse_args()
    if args.all:
        extra = ["--check"] if args.check else []
        raise SystemExit(run_on_each("benchmarks.resume", extra))
    reached = report(os.environ.get("KERAS_BACKEND", "tensorflow"))
    if args.check and not all(reached):
        raise SystemExit("A target was missed.")


if __name__ == "__main__":
    main()
