"""Any HDF5 file gives arrays or a `ValueError`: no hang, no bomb.

Structure is changed in this process, bytes in one that may die of it.
"""

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import make_model, save_snapshot
from tests.checkout import ROOT
from tests.security import hostile
from tests.security.mutations import READERS

# Memory is at most so many bytes a byte of the file, and 1 MB: what deflate
# can reach in a snapshot, and what JSON and names can in an initial state.
FACTOR = {"snapshot": 1032, "initial_state": 100}
CONSTANT = 10**6
# Far above the hundredths that the slowest takes: a hang, not a slow machine.
SECONDS = 20
KINDS = sorted(READERS)

pytestmark = [pytest.mark.alike, pytest.mark.requires_backend]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    values = np.linspace(-1, 1, 6000, dtype="float32")
    variables = {
        ("weights", "layers.0.kernel"): values.reshape(100, 60),
        ("weights", "layers.0.bias"): np.zeros(60, "float32"),
        ("random", "layers.1.seed_generator_state"): np.array([1, 2], "uint32"),
    }
    (folder / "runs").mkdir()
    files = {
        "snapshot": save_snapshot(folder / "runs" / "r1", variables),
        "initial_state": folder / "start.h5",
    }
    make_model(seed=1).save_initial_state(files["initial_state"])
    return {kind: path.read_bytes() for kind, path in files.items()}


# --- structure -----------------------------------------------------------

texts = st.text(max_size=9) | st.sampled_from(
    [
        *("weights", "optimizer", "metrics", "float64", "object", "bfloat16"),
        *("[]", "[0]", "[3, 3]", f"[{2**40}]", "[-1]", "drawn", "kr1:0"),
        *("a" * 5000, "\0", "[" * 3000, "NaN", "{}"),
    ]
)
attribute_values = (
    texts.filter(lambda text: "\0" not in text)
    | texts.map(lambda text: np.bytes_(text.encode()))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.lists(st.integers(0, 9), max_size=4).map(np.array)
)
names = st.sampled_from(
    [f"{number:06d}" for number in range(9)] + ["stray", "0", "000000/a"]
)
keys = st.sampled_from(
    [
        *("role", "place", "shape", "dtype", "values", "twin", "source"),
        *("checksum", "format", "extra", "extra_checksum", "run_id", "more"),
    ]
)
shapes = st.lists(
    st.sampled_from([0, 1, 2, 3, 60, 100, 2**16, 2**33]), max_size=4
).map(tuple)
dtypes = st.sampled_from(
    [
        *("uint8", "float32", "<i8", ">f4", "bool", "complex64", "S3"),
        *(h5py.string_dtype(), h5py.ref_dtype, [("a", "f4"), ("b", "i4")]),
    ]
)
storage = st.sampled_from(
    [{}, hostile.GZIP, {"compression": "gzip"}, {"fletcher32": True}]
)


def choose(content, draw):
    """A dataset that is there."""
    return content[draw(st.sampled_from(sorted(content)))]


def set_attribute(content, draw):
    target = choose(content, draw) if draw(st.booleans()) else content
    target.attrs[draw(keys)] = draw(attribute_values)


def drop_attribute(content, draw):
    target = choose(content, draw) if draw(st.booleans()) else content
    del target.attrs[draw(st.sampled_from(sorted(target.attrs)))]


def drop_dataset(content, draw):
    del content[choose(content, draw).name]


def rename_dataset(content, draw):
    content.move(choose(content, draw).name, draw(names))


def copy_dataset(content, draw):
    content.copy(choose(content, draw).name, draw(names))


def link_dataset(content, draw):
    content[draw(names)] = draw(
        st.sampled_from(
            [
                *(choose(content, draw), content["/"]),
                *(h5py.SoftLink("/000000"), h5py.SoftLink("/nothing")),
                h5py.ExternalLink("/etc/passwd", "/"),
            ]
        )
    )


def remake_dataset(content, draw):
    options = {"dtype": draw(dtypes), **draw(storage)}
    hostile.replace(
        content,
        choose(content, draw).name,
        lambda file, name: file.create_dataset(name, draw(shapes), **options),
    )


def write_values(content, draw):
    dataset = choose(content, draw)
    dataset[...] = draw(st.sampled_from([0, 1, 255]))


def harm(content, draw):
    draw(st.sampled_from(list(hostile.HARM.values())))(content)


CHANGES = [
    *(set_attribute, set_attribute, drop_attribute, drop_dataset, harm),
    *(rename_dataset, copy_dataset, link_dataset, remake_dataset),
    write_values,
]


def read(kind, path):
    """Whether it was read, or refused in a message of the form of ours."""
    told = None
    try:
        READERS[kind](path)
    except ValueError as error:
        told = str(error)
    assert told is None or ("Received: " in told and len(told) < 2000)
    return told is None


@settings(
    max_examples=150,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(st.sampled_from(KINDS), st.data())
def test_changed_structures(good, tmp_path, kind, data):
    """Attributes, links, shapes, dtypes and storage of any kind."""
    path = tmp_path / "changed.h5"
    path.write_bytes(good[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        with h5py.File(path, "r+") as content:
            try:
                data.draw(st.sampled_from(CHANGES))(content, data.draw)
            except (OSError, ValueError, TypeError, KeyError, RuntimeError):
                continue  # HDF5 does not write such a thing.
    began = time.process_time()
    tracemalloc.start()
    try:
        read(kind, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= FACTOR[kind] * path.stat().st_size + CONSTANT
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_are_read(good, tmp_path, kind):
    """The twin: unharmed, each is read."""
    path = tmp_path / "good.h5"
    path.write_bytes(good[kind])
    assert read(kind, path)
    path.write_bytes(good[kind][:3000])
    assert not read(kind, path)


# --- bytes ---------------------------------------------------------------


def run_apart(*args):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes(good, tmp_path, kind):
    """Bits flipped, bytes set, pieces copied: both outcomes, and no third."""
    path = tmp_path / "good.h5"
    path.write_bytes(good[kind])
    script = Path(__file__).with_name("mutations.py")
    result = run_apart(script, kind, path, 0, 400)
    assert result.returncode == 0, result.stderr[-500:]
    num_read, num_refused, longest, grown = map(float, result.stdout.split())
    assert num_read + num_refused == 400
    assert num_read > 10 < num_refused
    assert longest < SECONDS
    assert grown < FACTOR[kind] * len(good[kind]) + 32 * 2**20


HANG = """
import sys
import h5py
with h5py.File(sys.argv[1]) as file:
    for name in ("format", "extra"):
        file.attrs.get(name)
"""


@pytest.mark.slow
def test_without_our_reader_of_texts_a_file_hangs(good, tmp_path):
    """The twin: over a free space of no bytes libhdf5 itself does not end.

    A libhdf5 that does has been repaired; ours refuses the file all the same.
    """
    data = bytearray(good["initial_state"])
    heap = data.index(b"GCOL\1")
    data[heap + 16 : heap + 32] = bytes(16)
    path = tmp_path / "endless.h5"
    path.write_bytes(data)
    assert not read("initial_state", path)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", HANG, path], check=False, timeout=4
        )
    except subprocess.TimeoutExpired:
        return
    assert ended.returncode


# --- bombs ---------------------------------------------------------------

BOMBS = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from tests.security.mutations import READERS
kind, *paths = sys.argv[2:]
READERS[kind](paths[0])
for path in paths[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        READERS[kind](path)
        print("read", path)
    except ValueError:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * 1024)
"""


def one_of(kind, good, path, change):
    path.write_bytes(good[kind])
    with h5py.File(path, "r+") as content:
        change(content)
    return path


def test_bombs_of_initial_states_take_no_memory(good, tmp_path):
    """What claims 256 MB to 1 TB is refused before memory is taken for it."""
    zeros = np.zeros(2**28, "uint8")
    changes = [
        lambda content: None,
        hostile.HARM["never written"],
        hostile.HARM["never written chunks"],
        hostile.replaced(data=zeros, chunks=(2**20,), **hostile.GZIP),
    ]
    paths = [
        one_of("initial_state", good, tmp_path / f"{number}.h5", change)
        for number, change in enumerate(changes)
    ]
    assert paths[-1].stat().st_size < 10**6
    result = run_apart("-c", BOMBS, ROOT, "initial_state", *paths)
    assert result.returncode == 0, result.stderr[-500:]
    sizes = [int(one) for one in result.stdout.split()]
    assert len(sizes) == 3
    assert max(sizes) < 16 * 2**20


def test_a_reader_without_the_checks_takes_it(tmp_path):
    """The twin: read as it claims, a small file takes gigabytes."""
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as content:
        content.create_dataset(
            "a", (2**28,), "uint8", chunks=(2**20,), **hostile.GZIP
        )
    tracemalloc.start()
    with h5py.File(path) as content:
        assert content["a"][()].nbytes == 2**28
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak > FACTOR["snapshot"] * path.stat().st_size + CONSTANT
