"""SIGKILL while arrays are saved: what a file is named is whole."""

import importlib.util
import json
import os

import pytest

from tests.builders import make_model
from tests.checkout import SCRIPTS

pytestmark = [
    pytest.mark.requires_backend,
    pytest.mark.skipif(
        not hasattr(os, "fork"), reason="needs fork and SIGKILL"
    ),
]
SCRIPT = SCRIPTS / "killed_savers.py"


@pytest.mark.parametrize(
    "num_kills",
    [
        pytest.param(6, marks=pytest.mark.slow),
        pytest.param(90, marks=pytest.mark.gallery),
    ],
)
def test_killed_savers_leave_whole_files(run_python, tmp_path, num_kills):
    """Initial states and snapshots: the old one or the new one, whole."""
    output = run_python(SCRIPT, tmp_path, num_kills).stdout
    found = json.loads(output.splitlines()[-1])
    assert found["faults"] == []
    assert found["num_kills"] == num_kills


def test_a_torn_or_older_file_would_be_found(tmp_path):
    """The twin: what the test above looks for can be seen."""
    spec = importlib.util.spec_from_file_location("killed_savers", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    path = tmp_path / "start.h5"
    make_model(seed=4).save_initial_state(path)
    assert list(script.check_states(tmp_path, 3)) == []
    assert list(script.check_states(tmp_path, 4)) == []
    assert list(script.check_states(tmp_path, 5)) != []
    path.with_name("other").touch()
    assert list(script.check_states(tmp_path, 4)) == ["left other"]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="Received: "):
        list(script.check_states(tmp_path, 4))
