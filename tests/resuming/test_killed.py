"""SIGKILL at random moments: each training ends as if nobody had killed it."""

import importlib.util
import os
import sys

import keras
import pytest

from tests.checkout import ROOT, run_command

pytestmark = [
    pytest.mark.requires_backend,
    pytest.mark.skipif(
        not hasattr(os, "fork"), reason="needs fork and SIGKILL"
    ),
]
BACKEND = keras.backend.backend()
KINDS = {
    "arrays": None,
    "tf.data": "tensorflow",
    "PyDataset": None,
    "torch": "torch",
    "grain": "grain",
}
# Each kind on one backend; all by the command that the script names, or with
# the gallery.
HERE = {
    "tensorflow": ["tf.data"],
    "jax": ["arrays", "torch"],
    "torch": ["PyDataset", "grain"],
}


def run_script(*options, code=0):
    """Run the command on this backend."""
    command = [sys.executable, "-W", "ignore", "-m"]
    module = "tests.scripts.killed_trainings"
    options = ["--backend", BACKEND, *options]
    return run_command(*command, module, *options, cwd=ROOT, code=code).stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", HERE[BACKEND])
def test_killed_trainings_end_as_if_they_were_not(kind):
    """Weights, optimizer, streams, history, callbacks and every checksum."""
    needed = KINDS[kind]
    if needed and not importlib.util.find_spec(needed):
        pytest.skip(f"{needed} is not installed")
    assert "equal, killed" in run_script("--kinds", kind, "--kills", 3)


@pytest.mark.gallery
def test_many_killed_trainings():
    """All kinds of data, as the command tries them."""
    assert "equal, killed" in run_script("--kills", 20)


@pytest.mark.alike
@pytest.mark.slow
def test_with_keras_own_callback_they_do_not():
    """The twin: `keras.callbacks.BackupAndRestore` in the same script."""
    told = run_script("--kinds", "arrays", "--kills", 2, "--keras", code=1)
    assert "0/2 equal" in told
    assert "Different from " in told
