"""Snapshots: the same bits, whole or not at all, and nothing trusted."""

import importlib.util
import os
from dataclasses import replace
from itertools import starmap
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_repro.arrays import hdf5
from keras_repro.arrays.checksums import checksum_array
from keras_repro.arrays.hdf5 import choose_chunks
from keras_repro.runs.snapshots import (
    find_snapshot,
    open_snapshot,
    snapshot_folder,
    write_snapshot,
)
from tests.builders import make_record, make_run, save_snapshot
from tests.security import hostile

KERNEL = ("weights", "layers.0.kernel")
BIAS = ("weights", "layers.0.bias")
SEED = ("random", "layers.1.seed_generator_state")


def make_variables():
    values = np.linspace(-1, 1, 6000, dtype="float32").reshape(100, 60)
    return {
        KERNEL: values,
        BIAS: np.zeros(60, "float32"),
        SEED: np.array([1, 2], "uint32"),
    }


def write(folder, variables=None, name="record-000000.h5"):
    variables = make_variables() if variables is None else variables
    return save_snapshot(folder, variables, name)


def make_run_with_snapshot(
    path, snapshot="record-000000.h5", folder=None, run_id="r1"
):
    """A run that names one snapshot, and its record."""
    folder = f"{path.name}.snapshots/{run_id}" if folder is None else folder
    record = make_record(run_id, snapshot=snapshot)
    run = make_run(record, run_id=run_id, path=path, snapshots=folder)
    return run, record


@pytest.fixture
def folder(path):
    return snapshot_folder(path, "r1")


@pytest.fixture
def file(folder):
    return write(folder)


# --- round trip ----------------------------------------------------------


def test_round_trip(file):
    """What is written is what is read, in the same order."""
    expected = make_variables()
    with open_snapshot(file) as snapshot:
        assert snapshot.run_id == "r1"
        assert snapshot.keys() == list(expected)
        for key in expected:
            array = snapshot.read(*key)
            assert array.dtype == expected[key].dtype
            assert checksum_array(array) == checksum_array(expected[key])
        with pytest.raises(KeyError):
            snapshot.read("weights", "none")
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def list_dtypes():
    plain = ["bool", "float16", "float32", "float64", "complex64"]
    plain += ["complex128", "int8", "int16", "int32", "int64"]
    plain += ["uint8", "uint16", "uint32", "uint64"]
    if importlib.util.find_spec("ml_dtypes"):
        plain += ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"]
    return plain


def find_dtype(name):
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


@pytest.mark.parametrize("name", list_dtypes())
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3), (90, 101)])
def test_dtypes_and_shapes(folder, name, shape):
    """Any dtype and shape of Keras: scalars, nothing at all, large ones."""
    rng = np.random.default_rng(0)
    array = (rng.standard_normal(shape) * 4).astype(find_dtype(name))
    file = write(folder, {KERNEL: np.asarray(array)})
    with open_snapshot(file) as snapshot:
        read = snapshot.read(*KERNEL)
    assert (read.dtype, read.shape) == (find_dtype(name), shape)
    assert read.tobytes() == array.tobytes()


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    hnp.arrays(
        hnp.floating_dtypes(sizes=(16, 32, 64)),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    ),
    st.booleans(),
)
def test_any_bits(folder, array, transposed):
    """NaN payloads, minus zero, other byte and memory orders."""
    array = array.T if transposed else array
    with open_snapshot(write(folder, {KERNEL: array})) as snapshot:
        read = snapshot.read(*KERNEL)
    assert checksum_array(read) == checksum_array(array)


def test_one_other_bit_is_told(folder):
    """The twin: values that are not those of the checksum are refused."""
    variables = make_variables()
    checksums = {key: checksum_array(one) for key, one in variables.items()}
    variables[KERNEL].view("uint32")[50, 50] ^= 1
    write_snapshot(folder, "a.h5", variables, checksums, run_id="r1")
    with open_snapshot(folder / "a.h5") as snapshot:
        snapshot.read(*BIAS)
        with pytest.raises(ValueError, match=r"has the checksum .* and not"):
            snapshot.read(*KERNEL)


@settings(max_examples=200)
@given(
    hnp.array_shapes(max_dims=5, max_side=5000), st.sampled_from([1, 2, 4, 8])
)
def test_chunks(shape, itemsize):
    """A chunk has at most 1 MiB, and lies within the array."""
    chunk = choose_chunks(shape, itemsize)
    assert np.prod(chunk, dtype=object) * itemsize <= 2**20
    assert all(1 <= a <= b for a, b in zip(chunk, shape, strict=True))
    if np.prod(shape, dtype=object) * itemsize <= 2**20:
        assert chunk == shape


def test_chunks_of_whole_rows():
    """A chunk is as many whole rows as fit."""
    assert choose_chunks((1000, 1000), 4) == (262, 1000)
    assert choose_chunks((10, 1000, 1000), 4) == (1, 262, 1000)


def test_storage(file):
    """Large arrays are compressed in chunks, small ones stored as they are."""
    with h5py.File(file) as content:
        assert content["000000"].compression == "gzip"
        assert content["000000"].compression_opts == 1
        assert content["000000"].shuffle
        assert content["000001"].chunks is None
        assert content.attrs["format"] == b"keras_repro.snapshot/1"


@pytest.mark.parametrize(
    "name",
    ["", "a", "a.hdf5", ".a.h5", "../a.h5", "a/b.h5", "a\0.h5", "a.h5\n"],
)
def test_names_that_are_refused(folder, name):
    """A name is a plain word that ends in .h5, for the writer too."""
    with pytest.raises(ValueError, match=r"`name` must.*Received"):
        write(folder, name=name)
    assert not folder.exists()


def test_what_cannot_be_written(folder):
    """A checksum for each variable, numbers alone, names that fit."""
    with pytest.raises(ValueError, match="checksums"):
        write_snapshot(folder, "a.h5", make_variables(), {}, run_id="r1")
    for array in (np.array(["a"]), np.array([1], "M8[s]")):
        with pytest.raises(TypeError, match="numbers or booleans"):
            write(folder, {KERNEL: array})
    for place in ("a" * 5000, "a\0b"):
        with pytest.raises(ValueError, match="NUL"):
            write(folder, {("weights", place): np.zeros(1)})
    assert not folder.exists()


def test_the_directory_must_exist(tmp_path):
    """A directory that is gone is not made again."""
    folder = snapshot_folder(tmp_path / "gone" / "runs.jsonl", "r1")
    with pytest.raises(FileNotFoundError):
        write(folder)


def test_an_error_leaves_the_file_before(file, monkeypatch):
    """An error while writing leaves what was there, and nothing else."""
    before = file.read_bytes()

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(file.parent, {KERNEL: np.ones(3)})
    assert file.read_bytes() == before
    assert len(list(file.parent.iterdir())) == 1


def test_disk_full(folder, run_python):
    """A file that could not be written whole is an `OSError`, and not there."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from tests.runs.test_snapshots import KERNEL, write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "noise = np.random.default_rng(0).random(2**20)\n"
        "folder = Path(sys.argv[1])\n"
        "write(folder, {KERNEL: noise[:9]}, 'small.h5')\n"
        "for limit in (100, 3000, 2**20, 2**22):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))\n"
        "    try:\n"
        "        write(folder, {KERNEL: noise}, 'large.h5')\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__)\n"
    )
    folder.parent.mkdir()
    result = run_python("-c", code, folder)
    assert len(result.stdout.split()) == 4
    assert [one.name for one in folder.iterdir()] == ["small.h5"]
    with open_snapshot(folder / "small.h5") as snapshot:
        assert snapshot.read(*KERNEL).shape == (9,)


# --- finding -------------------------------------------------------------


def test_finding(path, file):
    """A record's snapshot lies beside the run's file."""
    run, record = make_run_with_snapshot(path)
    assert find_snapshot(run, record) == Path(os.path.realpath(file))
    assert find_snapshot(run, replace(record, snapshot="other.h5")) is None
    assert find_snapshot(run, replace(record, snapshot=None)) is None
    assert find_snapshot(replace(run, path=None), record) is None
    header = replace(run.header, snapshots=None)
    assert find_snapshot(replace(run, header=header), record) is None


def test_finding_in_a_copy(path, file, tmp_path):
    """A file that was moved or renamed with its folder finds it still."""
    other = tmp_path / "moved"
    other.mkdir()
    (tmp_path / "runs.jsonl.snapshots").rename(other / "runs.jsonl.snapshots")
    run, record = make_run_with_snapshot(path)
    run = replace(run, path=other / "renamed.jsonl")
    assert find_snapshot(run, record).is_file()
    assert find_snapshot(replace(run, path=path), record) is None


@pytest.mark.parametrize(
    "name",
    [
        *("../record-000000.h5", "/etc/passwd", "a/b.h5", "a\\b.h5", ".h5"),
        *("..", ".", "", "a.h5\0", "C:a.h5", "\ud800.h5", "a" * 999 + ".h5"),
    ],
)
def test_names_from_a_record(path, file, name):
    """A record names a file and no path."""
    run, record = make_run_with_snapshot(path, snapshot=name)
    with pytest.raises(ValueError, match=r"must be a file in the folder"):
        find_snapshot(run, record)


@pytest.mark.parametrize(
    "name",
    [
        *("", "r1", "/r1", "../r1", "runs.jsonl.snapshots", "/etc/passwd"),
        *("runs.jsonl.snapshots/r2", "runs.jsonl.snapshots/../r1"),
        *("a/runs.jsonl.snapshots/r1", "runs.jsonl.snapshots/r1/"),
        *(".snapshots/r1", "..\\x.snapshots/r1", "x\0.snapshots/r1"),
    ],
)
def test_folders_from_a_header(path, file, name):
    """A header names the run's own folder beside the file and no other."""
    run, record = make_run_with_snapshot(path, folder=name)
    with pytest.raises(ValueError, match=r"must be a file in the folder"):
        find_snapshot(run, record)


@pytest.mark.parametrize("run_id", [".", "..", "...", "a b", ""])
def test_ids_that_are_no_folder(path, run_id):
    """Nor can the run's id lead elsewhere."""
    run, record = make_run_with_snapshot(path, run_id=run_id)
    with pytest.raises(ValueError, match=r"must be a file in the folder"):
        find_snapshot(run, record)


@pytest.mark.parametrize("level", range(3))
def test_links_that_lead_elsewhere(path, tmp_path, level):
    """No part of the way below the run's file may be a link."""
    target = write(snapshot_folder(tmp_path / "other" / "x", "r1").parents[2])
    link = Path(snapshot_folder(path, "r1"), target.name)
    link = (link, *link.parents)[level]
    link.parent.mkdir(parents=True, exist_ok=True)
    secret = tmp_path / "secret" / "r1"
    write(secret.parent.parent / "secret", name=target.name)
    secret.mkdir()
    write(secret, name=target.name)
    link.symlink_to((secret / target.name, secret, secret.parent)[level])
    run, record = make_run_with_snapshot(path)
    with pytest.raises(ValueError, match="a link or no file"):
        find_snapshot(run, record)


def test_a_loop_and_a_directory(path, folder):
    """Neither a loop of links nor a directory is a snapshot."""
    folder.mkdir(parents=True)
    run, record = make_run_with_snapshot(path)
    file = folder / record.snapshot
    file.symlink_to(file)
    with pytest.raises(ValueError, match="a link or no file"):
        find_snapshot(run, record)
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match="a link or no file"):
        find_snapshot(run, record)


def test_a_linked_directory_above(path, file, tmp_path):
    """The twin: how the user comes to the run's file is the user's choice."""
    (tmp_path / "link").symlink_to(tmp_path)
    run, record = make_run_with_snapshot(tmp_path / "link" / "runs.jsonl")
    assert find_snapshot(run, record).is_file()


# --- files that are not ours ---------------------------------------------


def read_all(file):
    with open_snapshot(file) as snapshot:
        return list(starmap(snapshot.read, snapshot.keys()))


def set_format(content):
    content.attrs["format"] = np.bytes_(b"keras_repro.snapshot/9")


def variable_text(content):
    content.attrs["format"] = "keras_repro.snapshot/1"


def many_texts(content):
    content.attrs["format"] = np.array([b"keras_repro.snapshot/1"] * 2)


def not_utf_8(content):
    content["000000"].attrs["role"] = np.bytes_(b"\xff\xfe")


def unknown_dtype(content):
    content["000000"].attrs["dtype"] = np.bytes_(b"object")


def other_dtype(content):
    content["000000"].attrs["dtype"] = np.bytes_(b"float64")


def no_pairs(content):
    content["000000"].attrs["dtype"] = np.bytes_(b"complex64")


OWN_HARM = (
    *(set_format, variable_text, many_texts, not_utf_8, unknown_dtype),
    *(other_dtype, no_pairs),
)
HARM = {**hostile.HARM, **{one.__name__: one for one in OWN_HARM}}


@pytest.mark.parametrize("harm", HARM)
def test_what_we_never_write_is_refused(file, harm):
    """Links, foreign storage, foreign types, bombs: a `ValueError` each."""
    assert len(read_all(file)) == 3
    with h5py.File(file, "r+") as content:
        HARM[harm](content)
    named = r"dataset '" if harm in hostile.HARM else ""
    with pytest.raises(ValueError, match=rf"must be whole.*Received.*{named}"):
        read_all(file)


def test_without_the_check_a_bomb_takes_memory(file, monkeypatch):
    """The twin: it is the check that keeps a bomb from being unpacked."""
    with h5py.File(file, "r+") as content:
        hostile.replaced(shape=(2**22,), dtype="float32")(content)
    monkeypatch.setattr(hdf5, "_check_storage", lambda *_: None)
    sizes = []
    monkeypatch.setattr(
        hdf5, "checksum_array", lambda array: sizes.append(array.nbytes)
    )
    with pytest.raises(ValueError, match="Received"):
        read_all(file)
    assert max(sizes) == 2**24 > 100 * file.stat().st_size


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"x" * 4096])
def test_no_hdf5(tmp_path, data):
    """Other bytes are a `ValueError`; a missing file is named."""
    file = tmp_path / "a.h5"
    with pytest.raises(FileNotFoundError, match="Received"):
        read_all(file)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"must be whole.*Received"):
        read_all(file)
    with pytest.raises(ValueError, match="no regular file"):
        read_all(tmp_path)


def test_every_cut(file):
    """A snapshot that was cut off gives a `ValueError`, wherever."""
    whole = file.read_bytes()
    for size in range(0, len(whole), 499):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="Received"):
            read_all(file)
    file.write_bytes(whole)
    assert len(read_all(file)) == 3
