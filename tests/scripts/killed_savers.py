"""Processes that are killed at random moments while they save arrays.

    python killed_savers.py FOLDER NUM_KILLS

In turns one saves initial states, one trains with snapshots, and one writes
tables. Keras is imported once, and each process is forked from there before
anything was computed. Prints a JSON object of what was found.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_repro as kr
from keras_repro.model.initial_state import InitialState
from keras_repro.runs.snapshots import find_snapshot, open_snapshot

NUM_SEEDS = 7
X = np.linspace(0, 1, 800, dtype="float32").reshape(200, 4)


def make_model():
    model = kr.ReproducibleModel(
        [keras.Input((4,)), keras.layers.Dense(200), keras.layers.Dense(1)],
        seed=0,
    )
    model.compile("adam", "mse")
    return model


def save_states(folder, tell):
    """Save the start of one seed after the other over the same file."""
    model = make_model()
    for seed in range(1, 10**6):
        model.reset(seed=seed)
        model.save_initial_state(folder / "start.h5")
        tell(seed)


def save_snapshots(folder, tell):
    """Train with a snapshot after each epoch."""

    class Tell(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            tell(epoch)

    checks = kr.ChecksumCallback(folder / "runs.jsonl", snapshots="epoch")
    make_model().fit(
        *(X, X[:, :1]), epochs=10**6, verbose=0, callbacks=[checks, Tell()]
    )


def save_tables(folder, tell):
    """Write the table of ever more trials over the same file."""
    results = kr.load_trials(folder.parent / "study")
    for number in range(1, 10**6):
        results.select([number % NUM_SEEDS]).to_csv(folder / "table.csv")
        tell(number)


def make_study(folder, tell):
    """What the tables are of."""
    kr.run_trials(
        make_model(), lambda model: model.seed, NUM_SEEDS, path=folder / "study"
    )
    tell(NUM_SEEDS)


def check_tables(folder, last):
    """The file is the table told last, or the next one."""
    text = (folder / "table.csv").read_text()
    lines = text.splitlines()
    seeds = {str((last + more) % NUM_SEEDS) for more in (0, 1)}
    if not (
        text.endswith("\n")
        and len(lines) == 2
        and lines[1].partition(",")[0] in seeds
    ):
        yield f"{text!r} after {last} was written"
    yield from find_others(folder, {"table.csv"})


def check_states(folder, last):
    """The file is that of the seed told last, or of the next one."""
    _, trial = InitialState.read(folder / "start.h5")
    if trial.seed not in (last, last + 1):
        yield f"seed {trial.seed} after {last} was saved"
    yield from find_others(folder, {"start.h5"})


def check_snapshots(folder, last):
    """Each snapshot is whole; only the last one may be on its way."""
    run = kr.load_run(folder / "runs.jsonl")
    found = [
        find_snapshot(run, one)
        for one in run.records
        if one.snapshot is not None
    ]
    if None in found[:-1]:
        yield f"the first that is gone is {found.index(None)} of {len(found)}"
    for path in filter(None, found):
        with open_snapshot(path) as snapshot:
            for key in snapshot.keys():  # noqa: SIM118 - no mapping
                snapshot.read(*key)


def find_others(folder, known):
    """Files that are neither ours nor hidden."""
    for path in folder.iterdir():
        if path.name not in known and not (
            path.name.startswith(".") and path.name.endswith(".tmp")
        ):
            yield f"left {path.name}"


WORK = [
    (save_states, check_states),
    (save_snapshots, check_snapshots),
    (save_tables, check_tables),
]


def start(save, folder):
    """Save in a process of its own; it tells what it has saved."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(folder, lambda number: os.write(writing, b"%d\n" % number))
    finally:
        os._exit(1)


def kill_one(number, folder, rng):
    """Kill one process, and say what is wrong with what it left."""
    save, check = WORK[number % len(WORK)]
    folder.mkdir()
    pid, reading = start(save, folder)
    told = os.read(reading, 9)  # It has built, and saved once.
    time.sleep(rng.uniform(0, 0.2))
    os.kill(pid, signal.SIGKILL)
    while more := os.read(reading, 10**6):
        told += more
    os.close(reading)
    killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A torn line is named.
        try:
            faults = list(check(folder, int(told.split()[-1])))
        except (ValueError, OSError) as error:
            faults = [repr(error)]
    halves = len(list(folder.rglob(".*.tmp")))
    return killed, [f"{number}: {one}" for one in faults], halves


def main(folder, num_kills):
    rng = random.Random(0)
    pid, reading = start(make_study, folder)
    os.waitpid(pid, 0)
    os.close(reading)
    found = [
        kill_one(number, folder / f"{number}", rng)
        for number in range(num_kills)
    ]
    print(
        json.dumps(
            {
                "num_kills": sum(killed for killed, _, _ in found),
                "faults": [one for _, faults, _ in found for one in faults],
                "num_halves": sum(halves for _, _, halves in found),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
