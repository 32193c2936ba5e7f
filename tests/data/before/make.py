"""Writes the files beside it, as the version before wrote them.

They are test data: what was written before must load after
(`tests/test_before.py`). Written once, by commit 8f1256d, the last one with
all modules in one folder, with Python 3.11.7, Keras 3.15.1 and JAX 0.10.2. A
later version must read them, and not write them again. Copy this script and
`study.py` into an empty folder outside of any checkout, and there run

    PYTHONPATH=CHECKOUT KERAS_BACKEND=jax PYTHONHASHSEED=0 python make.py

What is written goes to the script's folder: `runs.jsonl` with its snapshots,
`torn.jsonl`, the studies `plain` and `odd`, `start.h5`, `model.keras`, and
`expected.json` with what that version reported of them. In the studies the
name of the machine and the paths of folders are replaced.
"""

import json
import os
import socket
import warnings
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import study

import keras_repro as kr

HERE = Path(__file__).resolve().parent
RUNS = HERE / "runs.jsonl"
PACKAGE = Path(kr.__file__).resolve().parents[1]
STUDIES = ("plain", "odd")
X, Y = study.X, study.Y
# Positions in `runs.jsonl`, and the tolerances.
COMPARISONS = [
    (0, 1, 0.0, 0.0),
    (1, 2, 0.0, 0.0),
    (1, 3, 0.0, 0.0),
    (1, 4, 0.0, 0.0),
    (1, 4, 1e-2, 1e-2),
    (1, 5, 0.0, 0.0),
    (1, 6, 0.0, 0.0),
    (1, 7, 0.0, 0.0),
    (1, 8, 0.0, 0.0),
]


class Break(keras.callbacks.Callback):
    """Raises in the midst of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 0):
            raise KeyError("lost in the second epoch")


# --- runs --------------------------------------------------------------------


def fit(model, *, x=X, epochs=1, callbacks=(), **options):
    """Train, and record it."""
    checks = kr.ChecksumCallback(RUNS, on_drift="ignore", **options)
    model.fit(
        x,
        Y,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, checks],
    )


def write_runs():
    """Runs of all kinds; the comments number them."""
    model = study.build()
    model.reset(seed=1)
    fit(model, every="batch")  # 0
    model.reset()
    fit(model, snapshots="epoch")  # 1 is equal to 0.
    fit(model, name="more")  # 2 goes on where 1 ended.
    model.reset(seed=2)
    fit(model)  # 3
    model.reset(seed=1)
    fit(model, x=X + np.float32(1e-4), snapshots="epoch")  # 4
    model.reset()
    with suppress(KeyError):
        fit(model, epochs=2, callbacks=[Break()])  # 5
    model.reset()
    x = X.copy()
    x[3] = np.nan
    fit(model, x=x)  # 6
    keras.utils.set_random_seed(3)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    plain.compile("sgd", "mse", metrics=["mae"])
    os.environ["OMP_NUM_THREADS"] = "1"
    fit(plain)  # 7
    del os.environ["OMP_NUM_THREADS"]
    write_large_run()


def write_large_run():
    """The checksum of large arrays is written after the header."""
    model = study.build()
    model.reset(seed=1)
    x = np.zeros((6_000_000, 3), "float32")
    checks = kr.ChecksumCallback(RUNS)
    model.fit(
        x,
        x[:, :1],
        batch_size=8,
        steps_per_epoch=2,
        shuffle=False,
        verbose=0,
        callbacks=[checks],
    )  # 8


def write_torn_file():
    """What is left of run 0 where its process is killed in mid-line."""
    lines = RUNS.read_bytes().splitlines(keepends=True)
    (HERE / "torn.jsonl").write_bytes(b"".join(lines[:3])[:-100])


def write_numbers(columns):
    """Numbers as text that also holds NaN and infinities, by name."""
    return {
        name: list(map(repr, map(float, one))) for name, one in columns.items()
    }


def describe_run(run):
    """What the version before reports of one run."""
    return {
        "run_id": run.run_id,
        "text": str(run),
        "seed": run.header.seed,
        "name": run.header.name,
        "every": run.header.every,
        "status": run.end.status if run.end else None,
        "exception": run.end.exception if run.end else None,
        "torn": run.torn,
        "moments": [one.moment for one in run.records],
        "checksums": [one.model for one in run.records],
        "history": write_numbers(run.history()),
    }


def describe_runs():
    """All runs, comparisons of some, and groups."""
    runs = kr.load_runs(RUNS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torn = kr.load_run(HERE / "torn.jsonl")
    found = [
        (a, b, rtol, atol, kr.compare_runs(runs[a], runs[b], rtol, atol))
        for a, b, rtol, atol in COMPARISONS
    ]
    return {
        "runs": [describe_run(run) for run in runs],
        "torn": describe_run(torn),
        "comparisons": [
            {
                "a": a,
                "b": b,
                "rtol": rtol,
                "atol": atol,
                "status": one.status,
                "text": str(one).splitlines(),
            }
            for a, b, rtol, atol, one in found
        ],
        "groups": str(kr.group_runs(runs[:5])).splitlines(),
    }


# --- studies -----------------------------------------------------------------


def write_studies():
    """One that went well; one with a failure, killed in its last line."""
    run_study("plain", study.build(), study.train, 4)
    run_study(
        "odd", study.build_own, study.train_oddly, [3, 1, 4], vary="order"
    )
    file = HERE / "odd" / "trials.jsonl"
    file.write_bytes(file.read_bytes()[:-40])


def run_study(name, model, train, seeds, **options):
    """Run a study in a folder of that name."""
    path = HERE / name
    kr.run_trials(model, train, seeds, path=path, progress=False, **options)
    hide_places(path / "trials.jsonl")


def hide_places(file):
    """Replace what belongs to the machine: its name, and paths."""
    text = file.read_text("utf-8")
    text = text.replace(f'"{socket.gethostname()}:', '"host:')
    for folder in (HERE, PACKAGE):
        text = text.replace(f"{folder}/", "")
    file.write_text(text, "utf-8")


def describe_study(name):
    """What the version before reports of one study."""
    results = kr.load_trials(HERE / name)
    return {
        "seeds": list(results.seeds),
        "scores": write_numbers(results.scores),
        "checksums": list(results.checksums),
        "failures": [[one.seed, one.error] for one in results.failures],
        "notes": list(results.notes),
        "vary": results.vary,
        "runs": [[run.run_id for run in runs] for runs in results.runs],
        "text": str(results).splitlines(),
    }


# --- models ------------------------------------------------------------------


def write_models():
    """An initial state, and a model in the midst of its training."""
    model = study.build()
    model.reset(seed=5)
    model.save_initial_state(HERE / "start.h5")
    start = describe_model(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    model.save(HERE / "model.keras")
    return {"start": start, "model": describe_model(model)}


def describe_model(model):
    """The checksums of what it holds now and of its start."""
    return {
        "class": type(model).__name__,
        "seed": model.seed,
        "checksum": kr.compute_checksum(model),
        "start": model.initial_state.checksum,
    }


def main():
    """Write everything."""
    write_runs()
    write_torn_file()
    write_studies()
    expected = {
        **describe_runs(),
        "studies": {name: describe_study(name) for name in STUDIES},
        **write_models(),
    }
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (HERE / "expected.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
