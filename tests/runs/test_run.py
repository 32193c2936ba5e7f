"""What a run tells of itself."""

from dataclasses import replace

import pytest

from keras_repro.runs.file import load_run
from keras_repro.runs.run import Run, RunHeader
from tests.checkout import DATA


@pytest.fixture
def run():
    return load_run(DATA / "runs_1.jsonl")


def test_properties_of_a_run(run):
    """A run tells its seed, its last checksum, its history."""
    finished = replace(run, end=replace(run.end, status="finished"))
    assert (run.finished, finished.finished) == (False, True)
    assert run.header.seed == 1
    assert run.checksum == run.records[-1].model
    assert run.epochs == run.records[1:]
    assert run.history()["loss"] == [0.1]
    assert str(run) == "run 01234567, seed 1, 2 records, interrupted"


def test_properties_of_an_empty_run():
    """A run that has just begun has neither seed nor checksum nor end."""
    run = Run(RunHeader(run_id="r1", started="x", identity={"seed": None}))
    assert (run.header.seed, run.checksum, run.finished) == (None, None, False)
    assert (run.epochs, run.history()) == ((), {})
    assert "not ended" in str(run)


def test_the_path_does_not_count(run):
    """The same run in two files is equal; another record is not."""
    assert run == replace(run, path=None)
    assert run != replace(run, records=run.records[:1])


def test_moments(run):
    """A record says when it was taken; epochs count from 1."""
    initial, record = run.records
    assert initial.moment == "initial state"
    assert record.moment == "epoch 1"
    assert replace(record, epoch=2, batch=9).moment == "epoch 3, batch 10"
