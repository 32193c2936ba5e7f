"""Trainings that are killed at random moments, and gone on with, to their end.

    python -m tests.scripts.killed_trainings                 # everything
    python -m tests.scripts.killed_trainings --backend jax --kinds arrays
    python -m tests.scripts.killed_trainings --kills 100 --seed 3
    python -m tests.scripts.killed_trainings --keras         # Keras' own

For each backend and kind of data one training ends unharmed; others are killed
by SIGKILL once or twice, at seeded moments: some batches after the first one,
or while a backup is being written. Each is begun again by the same script until
it ends, and must then be as the first one: every variable, random streams,
history, what the callbacks remember, and the checksums of every batch. Prints
how many of each kind are, and exits with 1 if one is not.

Keras is imported once for a kind of data, and each process is forked from there
before anything was computed; every eighth is a fresh process all the same.
"""

import argparse
import importlib.util
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

BACKENDS = ("tensorflow", "jax", "torch")
KINDS = {  # What each needs beside Keras.
    "arrays": None,
    "tf.data": "tensorflow",
    "PyDataset": None,
    "torch": "torch",
    "grain": "grain",
}
EPOCHS, BATCHES, ROWS = 4, 8, 60
COMMAND = (
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "tests.scripts.killed_trainings",
)
PAUSE = 0.004  # So that there is time for a kill between two batches.


def make_arrays(x, y):
    return {"x": x, "y": y, "batch_size": 8, "validation_data": (x, y)}


def make_pipeline(x, y):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((x, y))
    return {"x": data.shuffle(ROWS, seed=4).batch(8).prefetch(2)}


def make_dataset(x, y):
    import keras
    import numpy as np

    class Shuffled(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.rng, self.order = np.random.default_rng(3), np.arange(ROWS)

        def __len__(self):
            return BATCHES

        def __getitem__(self, index):
            rows = self.order[index * 8 : (index + 1) * 8]
            noise = self.rng.normal(size=(len(rows), 1)) + np.random.normal()
            return x[rows] + noise.astype("float32"), y[rows]

        def on_epoch_end(self):
            self.rng.shuffle(self.order)

    return {"x": Shuffled()}


def make_loader(x, y):
    import torch

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, index):
            return torch.tensor(x[index]) + torch.randn(4), torch.tensor(
                y[index]
            )

    return {
        "x": torch.utils.data.DataLoader(Noisy(), batch_size=8, shuffle=True)
    }


def make_grain(x, y):
    import grain

    class Noise(grain.transforms.RandomMap):
        def random_map(self, element, rng):
            noise = rng.normal(size=4).astype("float32")
            return element[0] + noise, element[1]

    rows = grain.MapDataset.source(list(zip(x, y, strict=True)))
    return {"x": rows.seed(1).shuffle().random_map(Noise()).batch(8)}


MAKERS = dict(
    zip(
        KINDS,
        (make_arrays, make_pipeline, make_dataset, make_loader, make_grain),
        strict=True,
    )
)


def train(kind, folder, log, uses_keras):
    """What each process does: the training, from wherever it stands."""
    import keras
    import numpy as np

    import keras_repro as kr
    from keras_repro.backends.random_streams import checksum_rng

    class Tell(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            os.write(log, b".")
            time.sleep(PAUSE)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    y = rng.normal(size=(ROWS, 1)).astype("float32")
    layers, callbacks = keras.layers, keras.callbacks
    model = kr.ReproducibleModel(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.Dense(1),
        ],
        seed=5,
    )
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    owner = callbacks if uses_keras else kr
    stopping = callbacks.EarlyStopping(
        "loss", patience=2, min_delta=0.3, restore_best_weights=True
    )
    slower = callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=0.3
    )
    checks = kr.ChecksumCallback(
        folder / "runs.jsonl", every="batch", on_drift="ignore"
    )
    history = model.fit(
        **MAKERS[kind](x, y),
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            stopping,
            slower,
            Tell(),
            owner.BackupAndRestore(folder / "backups", save_freq=3),
            checks,
        ],
    )
    outcome = {
        "model": kr.compute_checksum(model),
        "optimizer": kr.compute_checksum(model.optimizer),
        "history": {k: list(map(float, v)) for k, v in history.history.items()},
        "epochs": history.epoch,
        "stopping": [stopping.wait, stopping.best_epoch, float(stopping.best)],
        "slower": [slower.wait, float(slower.best)],
        "streams": checksum_rng(model._repro.draws.own_streams.position),
    }
    (folder / "outcome.json").write_text(json.dumps(outcome))


def start(kind, folder, *, uses_keras=False, is_fresh=False):
    """Train in a process of its own; what tells of each batch that begins."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        os.set_blocking(reading, False)
        return pid, reading
    code = 1
    try:
        errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT)
        os.dup2(errors, 2)
        if is_fresh:
            os.set_inheritable(writing, True)
            options = [kind, str(folder), str(writing), str(int(uses_keras))]
            os.execv(sys.executable, [*COMMAND, "--train", *options])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(kind, folder, writing, uses_keras)
        code = 0
    except BaseException:  # noqa: BLE001 - told by the parent
        traceback.print_exc()
    finally:
        os._exit(code)


def is_writing(folder):
    """Whether a backup is being written."""
    return next((folder / "backups").glob("*/*.tmp"), None) is not None


def run(process, is_time):
    """Kill a process when it is time; how it ended, and how many batches."""
    pid, reading = process
    num_batches = 0
    while True:
        try:
            told = os.read(reading, 1000)
        except BlockingIOError:
            told = b""
        num_batches += len(told)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if is_time(num_batches):
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            break
        time.sleep(0.0002)
    os.close(reading)
    return status, num_batches


def choose_moment(rng, folder, may_wait):
    """When to kill: some batches on, and then at once or in a write."""
    wanted = rng.randint(1, EPOCHS * BATCHES - 2)
    delay = rng.uniform(0, PAUSE * 3)
    in_write = rng.random() < 0.4 and may_wait
    deadline = None

    def is_time(num_batches):
        nonlocal deadline
        if num_batches < wanted:
            return False
        deadline = deadline or time.monotonic() + delay
        return is_writing(folder) if in_write else time.monotonic() > deadline

    return is_time


def read_outcome(folder):
    """What a training came to, and its record."""
    from keras_repro.runs.file import load_run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of lines that were torn.
        record = load_run(folder / "runs.jsonl")
    return json.loads((folder / "outcome.json").read_text()), record


def find_faults(folder, expected):
    """What of a training is not as that of the first one."""
    from keras_repro.runs.comparison import compare_runs

    try:
        outcome, record = read_outcome(folder)
    except (OSError, ValueError):
        text = (folder / "errors").read_text(errors="replace")
        return [f"it failed: {text.strip()[-3000:]}"]
    faults = [key for key in expected[0] if expected[0][key] != outcome[key]]
    comparison = compare_runs(expected[1], record)
    if not comparison.equal:
        faults.append(str(comparison))
    return faults


def try_one(kind, folder, rng, expected, uses_keras):
    """Kill one training once or twice, and let it end."""
    folder.mkdir()
    num_kills = num_written = 0
    for _ in range(rng.choice((1, 1, 2))):
        process = start(kind, folder, uses_keras=uses_keras)
        status, _ = run(process, choose_moment(rng, folder, not uses_keras))
        if not os.WIFSIGNALED(status):
            break
        num_kills += 1
        num_written += is_writing(folder)
    if num_kills and os.WIFSIGNALED(status):
        is_fresh = rng.random() < 1 / 8
        process = start(kind, folder, uses_keras=uses_keras, is_fresh=is_fresh)
        run(process, lambda _: False)
    return num_kills, num_written, find_faults(folder, expected)


def try_kind(kind, num_kills, seed, uses_keras):
    """Kill trainings on one kind of data; a JSON object of what was found."""
    import keras_repro as kr

    # Imported once, for all processes.
    _ = kr.ReproducibleModel, kr.ChecksumCallback, kr.BackupAndRestore
    if KINDS[kind]:
        importlib.import_module(KINDS[kind])
    rng = random.Random(seed)
    found = {"equal": 0, "total": 0, "kills": 0, "in_a_write": 0, "faults": []}
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        run(start(kind, whole), lambda _: False)
        expected = read_outcome(whole)
        for number in itertools.count():
            if found["kills"] >= num_kills:
                break
            kills, writes, faults = try_one(
                kind, Path(name) / f"{number}", rng, expected, uses_keras
            )
            if not kills:
                continue  # It ended before its moment came.
            found["total"] += 1
            found["kills"] += kills
            found["in_a_write"] += writes
            found["equal"] += not faults
            if faults:
                found["faults"].append(
                    f"training {number}: {'; '.join(faults)}"
                )
    print(json.dumps(found))


def run_cell(backend, kind, args):
    """One kind of data on one backend, in a process of its own."""
    options = [kind, str(args.kills), str(args.seed), str(int(args.keras))]
    with tempfile.TemporaryDirectory() as cache:
        result = subprocess.run(
            [*COMMAND, "--cell", *options],
            env={
                **os.environ,
                "KERAS_BACKEND": backend,
                # JAX compiles equal programs once, in all processes.
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(result.stdout.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--train"]:
        kind, folder, log, uses_keras = sys.argv[2:]
        train(kind, Path(folder), int(log), bool(int(uses_keras)))
        return
    if sys.argv[1:2] == ["--cell"]:
        kind, *numbers = sys.argv[2:]
        try_kind(kind, *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=("all", *BACKENDS), default="all")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--kills", type=int, default=20, help="for each cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keras", action="store_true", help="Keras' own callback instead"
    )
    args = parser.parse_args()
    chosen = BACKENDS if args.backend == "all" else (args.backend,)
    outcomes = []
    for backend in filter(importlib.util.find_spec, chosen):
        for kind in args.kinds:
            if KINDS[kind] and not importlib.util.find_spec(KINDS[kind]):
                print(
                    f"{backend:<11} {kind:<10} {KINDS[kind]} is not installed"
                )
                continue
            found = run_cell(backend, kind, args)
            print(
                f"{backend:<11} {kind:<10} {found['equal']}/{found['total']} "
                f"equal, killed {found['kills']} times, "
                f"{found['in_a_write']} in a write",
                *found["faults"],
                sep="\n  ",
                flush=True,
            )
            outcomes.append(found["equal"] == found["total"])
    raise SystemExit(not (outcomes and all(outcomes)))


if __name__ == "__main__":
    main()
