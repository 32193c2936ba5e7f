"""How long the command `keras-repro` takes to start and to compare.

    python -m benchmarks.command
    python -m benchmarks.command --check      # fail if the target is missed

Two runs of 20 epochs and 30 variables are compared in fresh processes, in
turns with a bare interpreter and with `import keras`, which is what a command
that needed a backend would cost.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_repro.arrays.checksums import checksum_array, combine_checksums
from keras_repro.arrays.norms import compute_norms
from keras_repro.runs.file import RunWriter
from keras_repro.runs.run import RunEnd, RunHeader, RunRecord

LIMIT = 0.5


def write_run(path, num_epochs=20, num_variables=30):
    """Write a run such as a small model's."""
    rng = np.random.default_rng(0)
    writer = RunWriter(path)
    writer.write(
        RunHeader(run_id=path.stem, started="2026-01-01", identity={"seed": 1})
    )
    for index in range(num_epochs + 1):
        arrays = {
            f"layers.{n}.kernel": rng.normal(size=(8, 8))
            for n in range(num_variables)
        }
        sums = {place: checksum_array(one) for place, one in arrays.items()}
        norms = {place: compute_norms(one) for place, one in arrays.items()}
        writer.write(
            RunRecord(
                run_id=path.stem,
                index=index,
                epoch=index - 1 if index else None,
                batch=None,
                model=combine_checksums(sums.values()),
                roles={"weights": combine_checksums(sums.values())},
                variables={"weights": sums},
                norms={"weights": norms},
                metrics={"loss": float(rng.random())},
            )
        )
    writer.write(
        RunEnd(run_id=path.stem, status="finished", ended="", num_records=21)
    )


def measure(arguments):
    """Seconds that a fresh interpreter takes with these arguments."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.jsonl", "b.jsonl")]
        for path in paths:
            write_run(path)
        command = ["-m", "keras_repro"]
        files = [str(path) for path in paths]
        page = str(Path(folder) / "page.html")
        ways = {
            "python -c pass": ["-c", "pass"],
            "keras-repro --version": [*command, "--version"],
            "keras-repro compare A B": [*command, "compare", *files],
            "keras-repro compare A B --html": [
                *(*command, "compare", *files, "--html", page),
            ],
            "import keras": ["-c", "import keras"],
        }
        times = {name: [] for name in ways}
        for _ in range(7):
            for name, arguments in ways.items():
                times[name].append(measure(arguments))
    medians = {name: statistics.median(one) for name, one in times.items()}
    for name, seconds in medians.items():
        share = seconds / medians["import keras"]
        print(f"{name:<32} {seconds:6.3f} s   {share:6.3f} of `import keras`")
    if args.check and medians["keras-repro compare A B"] > LIMIT:
        raise SystemExit("The target was missed.")


if __name__ == "__main__":
    main()
