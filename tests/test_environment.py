"""The environment names what changes results, and no person or place."""

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_repro import environment
from keras_repro.environment import capture_environment

ROOT = str(Path(__file__).resolve().parents[1])


def test_it_names_what_is_in_use():
    """Versions, backend, processor and dtype policy are those in use."""
    found = capture_environment()
    backend = keras.backend.backend()
    assert found["backend"] == backend
    assert found["versions"]["keras"] == keras.__version__
    assert found["versions"][backend] == sys.modules[backend].__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["dtype_policy"] == keras.config.dtype_policy().name
    assert found["processor"]
    assert found["cores"] >= found["usable_cores"] >= 1
    assert found["deterministic"] in (True, False, None)


def test_json_can_hold_it():
    """It reads back from JSON as it was."""
    found = capture_environment()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_environment_variables(monkeypatch):
    """Variables that change results are there; others, and paths, are not."""
    flags = "--xla_gpu_deterministic_ops=true --xla_dump_to=/secret/x /secret/y"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOME_TOKEN", "hidden")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    found = capture_environment()
    expected = "--xla_gpu_deterministic_ops=true --xla_dump_to=... ..."
    assert found["environment_variables"]["XLA_FLAGS"] == expected
    assert "PYTHONHASHSEED" not in found["environment_variables"]
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert "hidden" not in json.dumps(found)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert capture_environment() != found


def test_it_names_no_person_and_no_place():
    """No user, host, home or working directory is recorded."""
    values = list(_strings(capture_environment()))
    for secret in (getpass.getuser(), socket.gethostname()):
        assert secret not in values
    for secret in (str(Path.home()), str(Path.cwd()), ROOT):
        if secret != "/":
            assert not [value for value in values if secret in value]


def _strings(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    else:
        yield str(value)


def test_it_imports_no_framework():
    """In a process without Keras it loads none, and says so."""
    code = (
        "import sys\n"
        "from keras_repro.environment import capture_environment\n"
        "found = capture_environment()\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(found['backend'], found['versions']['torch'],\n"
        "      found['devices'], found['deterministic'],\n"
        "      found['versions']['keras'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert result.stdout.split() == ["None"] * 4 + [keras.__version__]


def test_other_systems(monkeypatch):
    """Where a system does not tell, what Python knows is taken."""
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    found = capture_environment()
    assert found["processor"]
    assert found["usable_cores"] == os.cpu_count()


def test_a_package_that_is_not_installed():
    """A missing package has no version."""
    assert environment._version("no_such_package_here") is None


@pytest.mark.requires_backend("jax")
def test_jax_that_has_not_started(monkeypatch):
    """JAX is not started to list its devices; once started they are listed."""
    keras.ops.zeros(1)
    assert capture_environment()["devices"] is not None
    bridge = sys.modules["jax._src.xla_bridge"]
    monkeypatch.setattr(bridge, "backends_are_initialized", lambda: False)
    assert capture_environment()["devices"] is None
