"""Trainings that are spread over several devices, each in its own process."""

import json
import sys

import pytest

import keras_repro as kr
from keras_repro.runs.file import load_runs
from tests.checkout import SCRIPTS, run_command

slow = pytest.mark.slow
jax = pytest.mark.requires_backend("jax")
tensorflow = pytest.mark.requires_backend("tensorflow")
LAYOUTS = [
    pytest.param("data", 1, marks=[jax, slow]),
    pytest.param("data", 2, marks=jax),
    pytest.param("data", 8, marks=[jax, slow]),
    pytest.param("model", 2, marks=[jax, slow]),
    pytest.param("mirrored", 2, marks=tensorflow),
]


@pytest.mark.parametrize(("kind", "number"), LAYOUTS)
def test_a_spread_training_is_repeated(tmp_path, kind, number):
    """After a reset, and for a seed, it is bitwise equal; the record tells."""
    path = tmp_path / "runs.jsonl"
    output = run_command(
        sys.executable, SCRIPTS / "devices.py", kind, number, path
    ).stdout
    found = json.loads(output.splitlines()[-1])
    assert found["reset"] == found["first"] == found["same seed"]
    # The twins: without a reset, and with another seed, it is another one.
    assert found["without"] != found["first"]
    assert found["other seed"] != found["first"]
    assert found["deferred"] == [found["first"]] * 2
    assert found["drift"] == []
    runs = load_runs(path)
    assert kr.compare_runs(runs[0], runs[1]).equal
    layout = runs[0].header.identity["layout"]
    assert len(layout["devices"]) == number
    if kind == "mirrored":
        assert any(
            "layers.0.kernel.replica.1" in told for told in found["parted"]
        )
