"""Studies that are killed at random moments, and gone on with, to their end.

    python killed_studies.py FOLDER NUM_STUDIES

Keras is imported once, and each process is forked from there before anything
was computed. Prints a JSON object of what was found.
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

NUM_SEEDS = 8
PAUSE = 0.03  # So that a kill soon after a trial began finds others to come.
X = np.linspace(0, 1, 80, dtype="float32").reshape(20, 4)


def run_study(path, log):
    """What each process does: go on with the study."""
    model = kr.ReproducibleModel([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    def train(model):
        os.write(log, f"{model.seed}\n".encode())
        time.sleep(PAUSE)
        history = model.fit(X, X[:, :1], epochs=2, batch_size=5, verbose=0)
        return history.history["loss"][-1]

    kr.run_trials(model, train, NUM_SEEDS, progress=False, path=path)


def start(path, log):
    """Run the study in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_study(path, os.open(log, os.O_WRONLY | os.O_APPEND))
        code = 0
    finally:
        os._exit(code)


def read_finished(path):
    """Seed and checksum of each trial that is on disk."""
    file = path / "trials.jsonl"
    if not file.exists():
        return []
    found = []
    for line in file.read_bytes().splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if read["type"] == "trial":
            found.append((read["seed"], read["checksum"]))
    return found


def find_faults(before, started, after):
    """What a process lost or repeated of what was on disk before it."""
    done = {seed for seed, _ in before}
    faults = [f"lost {one}" for one in before if one not in after]
    faults += [f"repeated seed {seed}" for seed in started if seed in done]
    seeds = [seed for seed, _ in after]
    return faults + [
        f"seed {seed} twice" for seed in {*seeds} if seeds.count(seed) > 1
    ]


def wait_for(pid, log, delay, num_begun):
    """Kill a process a while after that many trials began; how it ended."""
    deadline = None
    while True:
        if deadline is None and log.read_bytes().count(b"\n") >= num_begun:
            deadline = time.monotonic() + delay
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.0005)


def main(folder, num_studies):
    rng = random.Random(0)
    log = folder / "log"

    def run(path, delay, num_begun=0):
        log.write_text("")
        before = read_finished(path)
        status = wait_for(start(path, log), log, delay, num_begun)
        started = [int(one) for one in log.read_text().split()]
        faults.extend(find_faults(before, started, read_finished(path)))
        return status

    faults, num_kills, num_inside = [], 0, 0
    began = time.monotonic()
    run(folder / "whole", 600.0)
    whole = time.monotonic() - began
    expected = read_finished(folder / "whole")
    for number in range(num_studies):
        path = folder / f"study{number}"
        if number % 2:  # At any time at all.
            status = run(path, rng.uniform(0, whole))
        else:  # Between trials: the first takes longest, since it compiles.
            num_begun = rng.randrange(2, NUM_SEEDS - 2)
            status = run(path, rng.uniform(0, 2 * PAUSE), num_begun)
        num_kills += os.WIFSIGNALED(status)
        num_inside += 0 < len(read_finished(path)) < NUM_SEEDS
        if status:
            status = run(path, 600.0)
        if status:
            faults.append(f"study {number} ended with {status}")
        if sorted(read_finished(path)) != sorted(expected):
            faults.append(f"study {number} differs from one never killed")
        runs = kr.load_trials(path).runs
        if [len(one) for one in runs] != [1] * NUM_SEEDS:
            faults.append(f"study {number} has not one run per trial")
    print(
        json.dumps(
            {
                "faults": faults,
                "num_kills": num_kills,
                "num_inside": num_inside,
                "num_finished": len(expected),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
