"""The switches that a bitwise run needs: which are set, and how to set them."""

import json
import os
import subprocess
import sys

import pytest

from keras_repro.environment import switches
from keras_repro.environment.switches import (
    check_switches,
    find_backend,
    switches_for,
)

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A machine with NVIDIA's driver."""
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(switches, "_NVIDIA_DRIVER", str(driver))


@pytest.fixture
def no_gpu(tmp_path, monkeypatch):
    """A machine without it."""
    monkeypatch.setattr(switches, "_NVIDIA_DRIVER", str(tmp_path / "none"))
    monkeypatch.setattr(switches.shutil, "which", lambda _: None)


def check(name, **environment):
    """The row of one switch."""
    rows = check_switches(environment)
    return next(row for row in rows if row.name == name)


@pytest.mark.parametrize(
    ("name", "backend", "useful", "useless", "fix"),
    [
        ("PYTHONHASHSEED", "jax", "0", "random", "PYTHONHASHSEED=0"),
        ("PYTHONHASHSEED", "jax", "4294967295", "4294967296", None),
        ("PYTHONHASHSEED", "torch", "007", "-1", None),
        ("PYTHONHASHSEED", "torch", "12", "", None),
        ("PYTHONHASHSEED", "torch", "12", "9" * 5000, None),
        (
            *("TF_DETERMINISTIC_OPS", "tensorflow", "1", "0"),
            "TF_DETERMINISTIC_OPS=1",
        ),
        ("TF_DETERMINISTIC_OPS", "tensorflow", "True", "yes", None),
        (
            *("CUBLAS_WORKSPACE_CONFIG", "torch", ":16:8", "foo"),
            "CUBLAS_WORKSPACE_CONFIG=:4096:8",
        ),
        (
            *("XLA_FLAGS", "jax", DETERMINISTIC, ""),
            f"XLA_FLAGS={DETERMINISTIC}",
        ),
        (
            *("XLA_FLAGS", "jax", f"--a=1 {DETERMINISTIC}", "--a=1"),
            f'XLA_FLAGS="$XLA_FLAGS {DETERMINISTIC}"',
        ),
        (
            *("XLA_FLAGS", "jax", "--xla_gpu_exclude_nondeterministic_ops"),
            *("--xla_gpu_deterministic_ops=false", None),
        ),
        (
            *("XLA_FLAGS", "jax", "--xla_gpu_deterministic_ops=True"),
            *("--xla_gpu_deterministic_ops=False", None),
        ),
        (
            *("XLA_FLAGS", "jax"),
            "--xla_gpu_deterministic_ops=false --xla_gpu_deterministic_ops",
            *(f"{DETERMINISTIC} --xla_gpu_deterministic_ops=0", None),
        ),
    ],
)
def test_set_and_useless(gpu, name, backend, useful, useless, fix):
    """A useful value is set; a useless one counts as missing, and says why."""
    found = check(name, KERAS_BACKEND=backend, **{name: useful})
    assert (found.status, found.fix) == ("set", "")
    lost = check(name, KERAS_BACKEND=backend, **{name: useless})
    assert lost.status == "missing"
    assert lost.value == useless
    assert lost.why.startswith(found.why)
    assert (lost.why != found.why) == bool(useless)
    if fix is not None:
        assert lost.fix == f"export {fix}"


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("TF_DETERMINISTIC_OPS", "tensorflow"),
        ("XLA_FLAGS", "jax"),
        ("CUBLAS_WORKSPACE_CONFIG", "torch"),
    ],
)
def test_gpu_switches(gpu, name, backend):
    """They are missing on a GPU, and not needed elsewhere."""
    assert check(name, KERAS_BACKEND=backend).status == "missing"
    for hidden in ("", "-1"):
        row = check(name, KERAS_BACKEND=backend, CUDA_VISIBLE_DEVICES=hidden)
        assert (row.status, row.fix) == ("not needed", "")
        assert "GPU" in row.why
    other = "torch" if backend == "jax" else "jax"
    row = check(name, KERAS_BACKEND=other)
    assert (row.status, row.fix) == ("not needed", "")
    assert other in row.why


def test_without_a_gpu(no_gpu):
    """Only the hash seed is missing then; the rest is advice."""
    for backend in ("tensorflow", "jax", "torch"):
        rows = check_switches({"KERAS_BACKEND": backend})
        missing = [row.name for row in rows if row.status == "missing"]
        assert missing == ["PYTHONHASHSEED"]


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("TF_NUM_INTRAOP_THREADS", "tensorflow"),
        ("OMP_NUM_THREADS", "torch"),
        ("NPROC", "jax"),
    ],
)
def test_threads(no_gpu, name, backend, monkeypatch):
    """A number of threads is advised until it is pinned."""
    monkeypatch.setattr(switches, "count_usable_cores", lambda: 6)
    for unset in ({}, {name: "0"}, {name: "many"}, {name: ""}):
        row = check(name, KERAS_BACKEND=backend, **unset)
        assert (row.status, row.fix) == ("advised", f"export {name}=6")
    row = check(name, KERAS_BACKEND=backend, **{name: "2"})
    assert (row.status, row.value, row.fix) == ("set", "2", "")


def test_rows_are_always_the_same(gpu):
    """Each switch has its row, whatever is set."""
    names = [row.name for row in check_switches({})]
    assert names == [row.name for row in check_switches()]
    assert names == [row.name for row in check_switches({"NPROC": "1"})]
    assert len(set(names)) == len(names)


def test_backend(tmp_path):
    """It is KERAS_BACKEND, else Keras' file, else TensorFlow."""
    empty = {"HOME": str(tmp_path)}
    assert find_backend(empty) == "tensorflow"
    folder = tmp_path / ".keras"
    folder.mkdir()
    (folder / "keras.json").write_text(json.dumps({"backend": "jax"}))
    assert find_backend(empty) == "jax"
    assert find_backend({**empty, "KERAS_BACKEND": ""}) == "jax"
    assert find_backend({**empty, "KERAS_BACKEND": "torch"}) == "torch"
    assert find_backend({"KERAS_HOME": str(folder)}) == "jax"
    for junk in ("{", "[]", "{}", '{"backend": 3}', "[" * 100_000, "\xff"):
        (folder / "keras.json").write_text(junk, encoding="latin-1")
        assert find_backend(empty) == "tensorflow"


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("tensorflow", {"TF_DETERMINISTIC_OPS": "1"}),
        ("jax", {"XLA_FLAGS": DETERMINISTIC}),
        ("torch", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("numpy", {}),
    ],
)
def test_for_a_child(backend, expected):
    """A child gets what its backend needs, and a hash seed."""
    found = switches_for(7, backend, {})
    assert found == {"PYTHONHASHSEED": "7", **expected}
    assert switches_for(8, backend, {}) != found
    assert switches_for(None, backend, {})["PYTHONHASHSEED"] == "0"
    assert switches_for(7, backend, found) == {}


@pytest.mark.parametrize(
    ("backend", "kept", "replaced"),
    [
        ("tensorflow", "TF_DETERMINISTIC_OPS=0", "TF_DETERMINISTIC_OPS=on"),
        (
            "jax",
            "XLA_FLAGS=--xla_gpu_deterministic_ops=false",
            "XLA_FLAGS=--xla_cpu_max_isa=AVX2",
        ),
        (
            "torch",
            "CUBLAS_WORKSPACE_CONFIG=:16:8",
            "CUBLAS_WORKSPACE_CONFIG=foo",
        ),
        ("torch", "PYTHONHASHSEED=3", "PYTHONHASHSEED=random"),
    ],
)
def test_what_a_person_has_set(backend, kept, replaced):
    """It is kept if it has any use."""
    name, _, value = kept.partition("=")
    assert name not in switches_for(7, backend, {name: value})
    name, _, value = replaced.partition("=")
    assert name in switches_for(7, backend, {name: value})


def test_flags_are_appended_to():
    """Other flags of XLA stay."""
    flags = "--xla_cpu_max_isa=AVX2"
    found = switches_for(7, "jax", {"XLA_FLAGS": flags})["XLA_FLAGS"]
    assert found == f"{flags} {DETERMINISTIC}"


def test_fixes_mend(gpu):
    """After the lines for the shell nothing is missing or advised."""
    for backend in ("tensorflow", "jax", "torch"):
        environment = {"KERAS_BACKEND": backend, "XLA_FLAGS": "--a=1"}
        lines = [row.fix for row in check_switches(environment) if row.fix]
        assert lines
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        script = "\n".join([*lines, f"'{sys.executable}' -c '{code}'"])
        result = subprocess.run(
            ["sh", "-c", script],
            env={**environment, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        rows = check_switches(json.loads(result.stdout))
        assert {row.status for row in rows} == {"set", "not needed"}


def test_hash_seed_takes_effect(run_python):
    """Two children with one seed order strings alike, others do not."""
    code = "print(hash('a word'))"

    def run(seed):
        return run_python("-c", code, **switches_for(seed, "jax", {})).stdout

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
def test_tensorflow_reads_its_switch(run_python):
    """TensorFlow turns deterministic mode on by its variable alone."""
    code = (
        "import keras\n"
        "from keras_repro.backends.active import get_backend\n"
        "print(get_backend().is_deterministic())\n"
    )
    found = switches_for(0, "tensorflow", {})
    assert run_python("-c", code, **found).stdout.split() == ["True"]
    found["TF_DETERMINISTIC_OPS"] = "0"
    assert run_python("-c", code, **found).stdout.split() == ["False"]


@pytest.mark.requires_backend("jax")
def test_jax_reads_its_threads(run_python):
    """JAX on a CPU adds in an order that NPROC decides."""
    code = (
        "import jax, numpy\n"
        "rng = numpy.random.default_rng(0)\n"
        "x = rng.standard_normal((257, 5003)).astype('float32')\n"
        "total = jax.jit(jax.numpy.sum)(x)\n"
        "print(numpy.asarray(total).tobytes().hex())\n"
    )
    one, again, two = (
        run_python("-c", code, NPROC=number).stdout for number in "112"
    )
    assert one == again
    assert one != two
