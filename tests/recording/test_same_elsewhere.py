"""One program in other processes: the same runs, or told what was not alike.

Each kind of process is started twice, at the same time, with one thing
changed between the two: Python's hash seed, or the number of threads.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import pytest

import keras_repro as kr
from keras_repro.runs.comparison import group_runs
from keras_repro.runs.file import load_runs
from tests.checkout import ROOT, SCRIPTS, run_command

pytestmark = pytest.mark.slow

DATA = ROOT.parent / "shared" / "data" / "cmapss"
# Set by the test that sets it, so that it is the one difference.
VARYING = {"NPROC", "PYTHONHASHSEED", "TF_NUM_INTRAOP_THREADS"}
VARYING |= {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
# Each compiles for itself, and for its own number of threads.
VARYING |= {"JAX_COMPILATION_CACHE_DIR"}


def run_script(*command, **variables):
    """Run a script on this checkout; return what it printed."""
    return run_command(
        sys.executable, *command, without=VARYING, **variables
    ).stdout


# --- the example ---------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """What examples/turbofan.py printed and recorded, under two hash seeds."""
    if not DATA.is_dir():
        pytest.skip("NASA's files are not here")
    folder = tmp_path_factory.mktemp("example")

    def run(salt):
        log = folder / f"{salt}.jsonl"
        command = [ROOT / "examples" / "turbofan.py", "--data", DATA]
        command += ["--rows", 2000, "--epochs", 2, "--log", log]
        return run_script(*command, PYTHONHASHSEED=salt), load_runs(log)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, ("1", "2")))


def test_the_example_is_the_same_in_two_processes(example):
    """Run by run, what both processes recorded is bitwise equal."""
    (_, first), (_, second) = example
    assert len(first) == len(second) == 5
    for a, b in zip(first, second, strict=True):
        found = kr.compare_runs(a, b)
        assert found.equal, str(found)
        assert found.num_compared == 3
        assert found.identity is None
        assert {one.key for one in found.environment} <= {
            "hash_seed",
            "environment_variables.PYTHONHASHSEED",
        }
        assert found.environment
        assert a.run_id != b.run_id


def test_the_example_prints_the_same(example):
    """So are the scores and checksums it prints, but for the seconds."""
    tables = [
        [line.split() for line in output.splitlines()[2:7]]
        for output, _ in example
    ]
    kept = [[[*row[:4], row[-1]] for row in table] for table in tables]
    assert kept[0] == kept[1]
    for (_, runs), table in zip(example, tables, strict=True):
        assert [row[-1] for row in table] == [run.checksum for run in runs]
    assert len({row[-1] for row in tables[0]}) == 3


def test_other_smoothing_is_told_as_other_data(example):
    """The twin: another alpha is other data, of one process or of two."""
    (_, first), (_, second) = example
    for other in (first[3], second[3]):
        found = kr.compare_runs(first[0], other)
        assert not found.equal
        assert found.first_mismatch.role == "data"
        assert found.first_mismatch.epoch == 0
        assert found.first_mismatch.previous == "initial state"
        assert found.identity.places == ("data",)
    assert group_runs([*first, *second]).groups == (
        (0, 1, 5, 6),
        (2, 4, 7, 9),
        (3, 8),
    )


# --- threads -------------------------------------------------------------


@pytest.fixture(scope="module")
def threads(tmp_path_factory):
    """The folders of tests/scripts/with_threads.py with 1 and 2 threads."""
    script = SCRIPTS / "with_threads.py"

    def run(number):
        folder = tmp_path_factory.mktemp(f"threads-{number}-")
        variables = {"PYTHONHASHSEED": "0"}
        if keras.backend.backend() == "jax":
            variables["NPROC"] = number
        run_script(script, number, folder, **variables)
        return folder

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, ("1", "2")))


def compare(threads, name, **tolerances):
    """Compare the runs with one and two threads, which is all that differs."""
    runs = [kr.load_run(folder / f"{name}.jsonl") for folder in threads]
    found = kr.compare_runs(*runs, **tolerances)
    [difference] = found.environment
    is_jax = keras.backend.backend() == "jax"
    name = "threads.NPROC" if is_jax else "threads.intra_op"
    assert difference.key == name
    assert (str(difference.a), str(difference.b)) == ("1", "2")
    assert difference.weight == 2
    assert found.identity is None
    assert found.num_compared == 3
    return found


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_more_threads_change_a_large_model(threads):
    """Bits differ from the first epoch on, and the threads are named first."""
    found = compare(threads, "large")
    assert not found.equal
    assert found.status == "different"
    assert found.first_mismatch.moment == "epoch 1"
    assert found.first_mismatch.previous == "initial state"
    assert found.first_mismatch.role == "weights"
    assert "layers.0.kernel" in found.first_mismatch.places
    exact = [one.exact for one in found.first_mismatch.differences if one.exact]
    assert exact
    # Rounding alone: a scale near 1.0 may differ by its last place, 2**-23.
    assert all(0 < one.largest_absolute <= 2**-22 for one in exact)
    text = str(found)
    assert "threads." in text
    assert "pin the same number of threads" in text


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_large_model_agrees_within_a_tolerance(threads):
    """Rounding is within rtol=1e-3 once values near zero are let pass."""
    found = compare(threads, "large", rtol=1e-3, atol=1e-6)
    assert found.status == "within tolerance"
    assert found.agree
    assert not found.equal
    assert found.first_mismatch.moment == "epoch 1"
    assert found.first_beyond is None
    # The twin: much less than the rounding is not tolerated.
    assert not compare(threads, "large", rtol=1e-9, atol=1e-12).agree


def test_more_threads_do_not_change_the_turbofan_model(threads):
    """A small network is too small to be split: equal, and the threads told."""
    found = compare(threads, "small")
    assert found.equal, str(found)
    assert found.first_mismatch is None
    assert "threads." in str(found)
