"""SIGKILL at random moments: no finished trial is lost, and none repeated."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import keras_repro as kr
from tests.checkout import ROOT, SCRIPTS, is_running

pytestmark = [
    pytest.mark.requires_backend,
    pytest.mark.skipif(
        not hasattr(os, "fork"), reason="needs fork and SIGKILL"
    ),
]


def load_script():
    path = SCRIPTS / "killed_studies.py"
    spec = importlib.util.spec_from_file_location("killed_studies", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "num_studies",
    [
        pytest.param(6, marks=pytest.mark.slow),
        pytest.param(30, marks=pytest.mark.gallery),
    ],
)
@pytest.mark.requires_backend("jax")  # Where a process starts soonest.
def test_killed_studies_lose_and_repeat_nothing(
    run_python, tmp_path, num_studies
):
    """Each is gone on with, and ends as if it had never been killed."""
    script = SCRIPTS / "killed_studies.py"
    output = run_python(script, tmp_path, num_studies).stdout
    found = json.loads(output.splitlines()[-1])
    assert found["faults"] == []
    assert found["num_finished"] == 8
    assert found["num_kills"] >= num_studies / 3
    assert found["num_inside"] >= num_studies / 3


def test_a_lost_or_repeated_trial_would_be_found():
    """The twin: what the test above looks for can be seen."""
    find = load_script().find_faults
    before = [(0, "a"), (1, "b")]
    assert find(before, [2], [*before, (2, "c")]) == []
    assert find(before, [], before[:1]) == ["lost (1, 'b')"]
    assert find(before, [1], before) == ["repeated seed 1"]
    assert find(before, [], [*before, (1, "b")]) == ["seed 1 twice"]


STUDY = """\
import os, sys, time
import keras
import keras_repro as kr

model = kr.ReproducibleModel([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")

def train(model):
    with open("log", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if os.path.exists("slow"):
        time.sleep(600)
    return model.seed

if __name__ == "__main__":
    kr.run_trials(model, train, 3, path="study", num_workers=2)
"""


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_workers_end_with_the_program_that_is_killed(run_python, tmp_path):
    """None goes on computing for nobody; the study can be gone on with."""
    script, log = tmp_path / "study.py", tmp_path / "log"
    script.write_text(STUDY)
    (tmp_path / "slow").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, env=environment
    )
    deadline = time.monotonic() + 240
    while not log.exists() or len(log.read_text().split()) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    workers = [int(one) for one in log.read_text().split()]
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (tmp_path / "slow").unlink()
    run_python(script)
    assert kr.load_trials(tmp_path / "study").num_trials == 3
