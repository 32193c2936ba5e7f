"""What studies of many seeds cost, against the loop that people write.

    python -m benchmarks.trials               # the backend of KERAS_BACKEND
    python -m benchmarks.trials --all         # each installed backend in turn
    python -m benchmarks.trials --check       # fail if a target is missed
    python -m benchmarks.trials --full        # also 16,561 rows, 20 epochs

The loop seeds, rebuilds, compiles and fits once per seed. Both ways take turns
on one machine, so that its moods fall on each alike; the ratios are what
counts. Of the loop fewer trials are run, and their mean is scaled. Each way's
results are checked: trials of one seed must be equal, also in other processes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# PyTorch's threads that spin while they wait take the cores from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks.reset import (
    make_data,
    make_layers,
    make_plain,
    measure,
    run_on_each,
)

# How many times faster than the loop a study of 30 trials must be.
LOOP_TARGETS = {"tensorflow": 2.0, "jax": 15.0, "torch": 1.0}
NUM_PARTS = 5
NUM_RECORDED = 10_000
MOST_BEYOND_FIT, LEAST_OF_TWO_WORKERS = 50, 1.7
MOST_SECONDS, MOST_MEGABYTES = 2, 500


def make_model():
    """The network of the turbofan study, reproducible and compiled."""
    import keras_repro as kr

    model = kr.ReproducibleModel(make_layers())
    model.compile("adam", "mse")
    return model


def make_train(num_rows, epochs):
    """A trial's work; it says when it began to fit, and when it had."""
    data = make_data(num_rows)

    def train(model):
        began = time.time()
        history = model.fit(*data, epochs=epochs, verbose=0).history
        loss = history["loss"][-1]
        return {"loss": loss, "began": began, "ended": time.time()}

    return train


def list_fit_seconds(results):
    """Seconds of each trial within its fit."""
    return results.scores["ended"] - results.scores["began"]


def require_equal(first, second, what):
    """End if trials of the same seeds have other checksums."""
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    first, second = first.select(seeds), second.select(seeds)
    if not seeds or first.checksums != second.checksums:
        raise SystemExit(f"{what} must be equal; they differ.")


# --- against the loop --------------------------------------------------------


def run_loop(train, seeds):
    """The loop that people write; the last losses."""
    import keras

    losses = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        losses.append(train(make_plain())["loss"])
    return losses


def measure_study(num_rows, epochs, num_trials, num_looped):
    """Seconds of a study by `run_trials` and by the loop, in turns."""
    import keras_repro as kr

    train = make_train(num_rows, epochs)
    brief = make_train(64, 1)
    # What the first training of a process loads, by either way.
    run_loop(brief, [0])
    kr.run_trials(make_model(), brief, seeds=1, progress=False)
    parts, losses, ours, loop = [], [], [], []
    made = time.perf_counter()
    model = make_model()
    made = time.perf_counter() - made
    num_parts = min(NUM_PARTS, num_looped)
    for part in range(num_parts):
        start = time.perf_counter()
        seeds = range(part, num_trials, num_parts)
        parts.append(kr.run_trials(model, train, seeds, progress=False))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        losses += run_loop(train, range(part, num_looped, num_parts))
        loop.append(time.perf_counter() - start)
    again = kr.run_trials(model, train, parts[-1].seeds[:3], progress=False)
    require_equal(parts[-1], again, "Trials of one seed")
    if len(set(losses)) < num_looped:
        raise SystemExit("The loop's trials must differ by seed; they do not.")
    # The first part holds the only trace.
    later = parts[1:] or parts
    fits = [seconds for one in later for seconds in list_fit_seconds(one)]
    warm = sum(ours[-len(later) :]) / len(fits)
    return {
        "ours": made + sum(ours),
        "loop": sum(loop) / num_looped * num_trials,
        "traced": warm,
        "beyond fit": warm - statistics.mean(fits),
        "fit": statistics.median(fits),
        "plain fit": measure_plain_fit(train),
    }


def measure_plain_fit(train):
    """Median seconds of a warm fit by plain Keras."""
    model = make_plain()
    train(model)
    return statistics.median(measure(lambda: train(model)) for _ in range(3))


# --- with workers ------------------------------------------------------------


def measure_workers(num_trials):
    """One and two workers: seconds in all, and per trial once started."""
    import keras_repro as kr

    model = make_model()
    train = make_train(2_000, 2)
    results = kr.run_trials(model, train, seeds=4, progress=False)
    # Long enough that what lies between two trials does not count.
    epochs = max(2, round(2 * 1.5 / min(list_fit_seconds(results))))
    train = make_train(2_000, epochs)
    here = kr.run_trials(model, train, seeds=2, progress=False)
    found = {}
    for num_workers in (1, 2):
        start = time.perf_counter()
        results = kr.run_trials(
            model, train, num_trials, num_workers=num_workers, progress=False
        )
        found[num_workers] = (
            time.perf_counter() - start,
            measure_started(results),
        )
        require_equal(here, results, f"Trials here and in {num_workers}")
    return epochs, found


def measure_started(results):
    """Seconds per trial, while all workers had their first one behind them."""
    began, ended = results.scores["began"], results.scores["ended"]
    firsts = {}
    for worker, end in sorted(zip(results.workers, ended, strict=True)):
        firsts.setdefault(worker, end)
    started = max(firsts.values())
    later = began >= started
    if not later.any():
        raise SystemExit("Too few trials to tell the start apart; give more.")
    # From the last start-up on; what runs beside it then counts in part.
    spans = (ended - began).clip(1e-9)
    shares = ((ended - started) / spans).clip(0, 1)
    return (ended.max() - started) / shares.sum()


def train_plainly(epochs):
    """A training by plain Keras, begun when standard input says so."""
    model, train = make_plain(), make_train(2_000, epochs)
    make_train(2_000, 1)(model)
    print("ready", flush=True)
    sys.stdin.readline()
    print(measure(lambda: train(model)), flush=True)


def measure_plain_processes(epochs, num_processes):
    """Seconds of plain trainings that begin together, of the longest."""
    command = [sys.executable, "-m", "benchmarks.trials"]
    command += ["--plain", str(epochs)]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
            )
            for _ in range(num_processes)
        ]
        for process in processes:
            while process.stdout.readline() != "ready\n":
                if process.poll() is not None:
                    raise SystemExit("A plain training could not begin.")
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return max(float(one.stdout.readline()) for one in processes)


# --- many trials, recorded ---------------------------------------------------


def write_studies(folder):
    """Two studies of 10,000 trials as `run_trials` writes them."""
    import numpy as np

    import keras_repro as kr

    model, train = make_model(), make_train(64, 1)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        path = Path(folder) / name
        kr.run_trials(model, train, seeds=1, path=path, progress=False)
        file = path / "trials.jsonl"
        lines = file.read_text("utf-8").splitlines()
        trial = next(one for one in map(json.loads, lines) if "seed" in one)
        with file.open("w", encoding="utf-8") as stream:
            for seed, loss in enumerate(rng.normal(19, 1, NUM_RECORDED)):
                scores = {**trial["scores"], "loss": loss}
                line = {**trial, "seed": seed, "scores": scores}
                stream.write(f"{json.dumps(line)}\n")


def summarize_studies(folder):
    """What a fresh process takes to load, summarise, compare and plot them."""
    start = time.perf_counter()
    import matplotlib.figure  # noqa: F401
    import scipy.stats  # noqa: F401

    import keras_repro as kr

    imported = time.perf_counter() - start
    loaded, done = [], {}
    ways = {
        "load": lambda: loaded.extend(
            kr.load_trials(Path(folder) / name) for name in ("a", "b")
        ),
        "summarize": lambda: [str(one.summary()) for one in loaded],
        "compare": lambda: done.update(it=kr.compare_trials(*loaded)),
        "print": lambda: str(done["it"]),
        "plot": lambda: done["it"].plot().savefig(Path(folder) / "all.png"),
    }
    times = {name: measure(way) for name, way in ways.items()}
    assert done["it"].statistics.num_pairs == NUM_RECORDED
    found = {"import": imported, "times": times, "megabytes": read_peak()}
    print(json.dumps(found))


def read_peak():
    """The most memory that this process has held, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux' `ru_maxrss` counts what the parent held when it forked.
        fields = dict(
            line.split(":", 1) for line in status.read_text().splitlines()
        )
        return int(fields["VmHWM"].split()[0]) / 1e6 * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def measure_recorded():
    """Seconds and megabytes of 10,000 recorded trials, two times over."""
    with tempfile.TemporaryDirectory() as folder:
        write_studies(folder)
        command = [sys.executable, "-m", "benchmarks.trials"]
        command += ["--summarize", folder]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(result.stdout)


# --- the report --------------------------------------------------------------


class Report:
    """Prints figures, and remembers which targets were missed."""

    def __init__(self, backend):
        self.backend = backend
        self.missed = []

    def line(self, text, value, unit, target=None, at_least=False):
        """Print one figure, and whether it is as wanted."""
        goal = ""
        if target is not None:
            sign = ">=" if at_least else "<="
            goal = f"  (target {sign} {target:g})"
            if value < target if at_least else value > target:
                self.missed.append(f"{self.backend}: {text}")
                goal += "  MISSED"
        print(f"  {text:<52} {value:8.2f} {unit}{goal}", flush=True)


def report_study(report, sizes, target=None):
    """What a study takes, by `run_trials` and by the loop."""
    num_rows, epochs, num_trials, num_looped = sizes
    print(
        f" {num_trials} trials, {epochs} epochs of {num_rows:,} rows (of the "
        f"loop {num_looped}, scaled):"
    )
    found = measure_study(*sizes)
    report.line("by run_trials()", found["ours"], "s")
    report.line("by seed, rebuild, compile, fit", found["loop"], "s")
    ratio = found["loop"] / found["ours"]
    text = "the loop, in studies by run_trials()"
    report.line(text, ratio, "x", target, at_least=True)
    ratio = found["loop"] / num_trials / found["traced"]
    report.line("a pass of the loop, in trials once traced", ratio, "x")
    beyond = 1e3 * found["beyond fit"]
    report.line("a trial beyond its fit", beyond, "ms", MOST_BEYOND_FIT)
    report.line("its fit, recorded", 1e3 * found["fit"], "ms")
    report.line("a fit by plain Keras, warm", 1e3 * found["plain fit"], "ms")


def report_workers(report, num_trials):
    """What a second worker brings."""
    epochs, found = measure_workers(num_trials)
    print(f" {num_trials} trials, {epochs} epochs of 2,000 rows, with workers:")
    (all_one, one), (all_two, two) = found[1], found[2]
    report.line("one worker, start-up included", all_one, "s")
    report.line("two workers, start-up included", all_two, "s")
    report.line("two against one, start-up included", all_one / all_two, "x")
    report.line("one worker, a trial once started", one, "s")
    # On one core there is nothing to gain.
    least = LEAST_OF_TWO_WORKERS if (os.cpu_count() or 1) > 1 else None
    text = "two against one, once started"
    report.line(text, one / two, "x", least, at_least=True)
    alone, both = (
        statistics.median(
            measure_plain_processes(2 * epochs, number) for _ in range(3)
        )
        for number in (1, 2)
    )
    text = "two processes of plain Keras against one"
    report.line(text, 2 * alone / both, "x")


def report_recorded(report):
    """What 10,000 trials take to look at."""
    found = measure_recorded()
    print(f" {NUM_RECORDED:,} recorded trials, twice, in a fresh process:")
    report.line("imports (SciPy, Matplotlib)", found["import"], "s")
    for name, seconds in found["times"].items():
        report.line(name, seconds, "s")
    seconds = sum(found["times"].values())
    report.line("all of it, without the imports", seconds, "s", MOST_SECONDS)
    report.line("memory at most", found["megabytes"], "MB", MOST_MEGABYTES)


def report_backend(args):
    """Measure the current backend, print, and list the targets missed."""
    import keras

    import keras_repro as kr

    kr.seed_everything(0, deterministic=False)
    backend = keras.backend.backend()
    print(f"{backend}, Keras {keras.__version__}, {os.cpu_count()} cores")
    report = Report(backend)
    sizes = (2_000, 2, args.trials, min(args.looped, args.trials))
    report_study(report, sizes, LOOP_TARGETS[backend])
    if args.full:
        report_study(report, (16_561, 20, 3, 3))
    report_workers(report, args.trials)
    report_recorded(report)
    return report.missed


def main():
    """Measure this backend, or each one in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every backend")
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    parser.add_argument("--full", action="store_true", help="also all rows")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--looped", type=int, default=10)
    parser.add_argument("--summarize", help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.summarize:
        summarize_studies(args.summarize)
        return 0
    if args.plain:
        train_plainly(args.plain)
        return 0
    if not args.all:
        missed = report_backend(args)
        return 1 if missed and args.check else 0
    options = [one for one in sys.argv[1:] if one != "--all"]
    return run_on_each("benchmarks.trials", options)


if __name__ == "__main__":
    sys.exit(main())
