"""What tests of several folders are made of: runs, studies and models.

Only what makes a model imports Keras, so all else is made without it.
"""

from keras_repro.arrays.checksums import checksum_array
from keras_repro.runs.file import RunWriter
from keras_repro.runs.run import (
    Run,
    RunEnd,
    RunHeader,
    RunRecord,
    list_entries,
)
from keras_repro.runs.snapshots import write_snapshot
from keras_repro.studies.results import TrialResults

SCORES = [18.5, 19.5, 18.0, 20.0, 19.0]


def make_header(run_id="r1", seed=1, **fields):
    """The header of a run with a seed and a model."""
    made = {
        "started": "2026-01-01T00:00:00+00:00",
        "identity": {"seed": seed, "model": "kr1:a"},
    }
    return RunHeader(run_id=run_id, **{**made, **fields})


def make_record(run_id="r1", index=0, epoch=None, **fields):
    """A record of a model with one weight."""
    made = {
        "batch": None,
        "model": f"kr1:{index}",
        "roles": {"weights": "kr1:w"},
        "variables": {"weights": {"layers.0.kernel": "kr1:w"}},
    }
    return RunRecord(
        run_id=run_id, index=index, epoch=epoch, **{**made, **fields}
    )


def make_end(run_id="r1", status="finished", num_records=2):
    """The end of a run."""
    return RunEnd(
        run_id=run_id,
        status=status,
        ended="2026-01-01T00:01:00+00:00",
        num_records=num_records,
    )


def make_run(*records, status="finished", path=None, **header):
    """A run of some records; without a status it has not ended."""
    header = make_header(**header)
    end = status and make_end(header.run_id, status, len(records))
    return Run(header, records, end, path=path)


def save_run(run, path):
    """Append a run to a file, and return its path."""
    writer = RunWriter(path)
    for entry in list_entries(run):
        writer.write(entry)
    return path


def save_snapshot(folder, arrays, name="record-000000.h5", run_id="r1"):
    """Write arrays by role and place as a snapshot, and return its path."""
    checksums = {key: checksum_array(one) for key, one in arrays.items()}
    write_snapshot(folder, name, arrays, checksums, run_id=run_id)
    return folder / name


def make_results(values=SCORES, name=None, **changes):
    """A study with one score for each of the seeds from 0 on."""
    fields = {"seeds": range(len(values)), "scores": {"rmse": values}}
    return TrialResults(**{**fields, "name": name, **changes})


def make_model(
    *layers, shape=(4,), seed=None, optimizer="sgd", loss="mse", **options
):
    """A compiled model that ends in one unit; without a shape, not yet built.

    The layers come between its input and that unit.
    """
    import keras

    import keras_repro as kr

    inputs = [] if shape is None else [keras.Input(shape)]
    model = kr.ReproducibleModel(
        [*inputs, *layers, keras.layers.Dense(1)], seed=seed
    )
    model.compile(optimizer, loss, **options)
    return model
