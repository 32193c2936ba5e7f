"""Any bytes give runs or a `ValueError`: no other error, no hang, no bomb."""

import gc
import json
import time
import tracemalloc
import warnings
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keras_repro.common import lines as common_lines
from keras_repro.runs import lines
from keras_repro.runs.file import RunWriter, find_first_finished, load_runs
from keras_repro.runs.run import Run
from tests.checkout import DATA
from tests.strategies import json_leaves, json_values

VALID = b"".join(
    (DATA / f"runs_{number}.jsonl").read_bytes() for number in (1, 2)
)
LINES = VALID.splitlines(keepends=True)
# Memory is at most 100 bytes a byte of the file, and 200 kB.
FACTOR, CONSTANT = 100, 200_000
# Far above the second that the largest takes: a hang, not a slow machine.
SECONDS = 60
fuzz = settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read(path, data):
    """The runs of these bytes, or `None` if they were refused."""
    path.write_bytes(data)
    told = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            runs = load_runs(path)
        except ValueError as error:
            runs, told = None, str(error)
    if told is not None:
        assert "Received: " in told
        assert len(told.encode()) < 2000
    assert path.read_bytes() == data
    return runs


def check(path, data):
    """Whoever reads or appends agrees, in time: runs, or a `ValueError`."""
    start = time.process_time()
    runs = read(path, data)
    assert time.process_time() - start < SECONDS
    for run in runs or ():
        assert isinstance(run, Run)
        assert str(run).startswith("run ")
        assert run.history() is not None
        for record in run.records:
            assert record.moment
    for use in (RunWriter, lambda file: find_first_finished(file, bool)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                use(path)
            except ValueError:
                # What reads all may refuse more than what reads some.
                assert runs is None
    return runs


def test_the_valid_file_is_read(path):
    """The twin of all that follows: unharmed, these bytes are two runs."""
    assert [len(run.records) for run in check(path, VALID)] == [2, 2]


@fuzz
@given(st.binary(max_size=2000), st.booleans())
@example(b"\xff\xfe{\x00", False)
@example(b"\xef\xbb\xbf" + VALID, False)
@example(b"\0" * 100, True)
def test_random_bytes(path, data, behind):
    """Bytes alone, and behind a header."""
    check(path, LINES[0] + data if behind else data)


values = json_values(
    json_leaves("r1", "nan", "header", "keras_repro.run/2", "\ud800"),
    max_leaves=12,
)
classes = lines.CLASSES.values()
names = sorted({one.name for cls in classes for one in fields(cls)})
objects = st.dictionaries(st.sampled_from(["type", *names]), values)


@pytest.mark.slow
@fuzz
@given(st.lists(values | objects, max_size=4), st.booleans())
def test_random_values(path, lines, behind):
    """JSON of any kind, with NaN, huge numbers and lone surrogates."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    check(path, (LINES[0] if behind else b"") + text.encode())


@fuzz
@given(st.sampled_from(LINES), st.data())
def test_any_value_in_a_field(path, line, data):
    """Each field of each line, with any value in its place."""
    content = json.loads(line)
    name = data.draw(st.sampled_from(sorted(content)))
    content[name] = data.draw(values)
    changed = (json.dumps(content) + "\n").encode()
    check(path, VALID.replace(line, changed))


def mutate(data, draw):
    """Flip, cut, double, splice."""
    places = st.integers(0, max(0, len(data) - 1))
    a, b = sorted((draw(places), draw(places)))
    kind = draw(st.sampled_from(["flip", "cut", "double", "splice", "end"]))
    if kind == "flip" and data:
        flipped = bytes([data[a] ^ (1 << draw(st.integers(0, 7)))])
        return data[:a] + flipped + data[a + 1 :]
    if kind == "cut":
        return data[:a] + data[b:]
    if kind == "double":
        return data[:b] + data[a:]
    if kind == "splice":
        return data[:a] + draw(st.binary(max_size=9)) + data[b:]
    return data[:a]


@fuzz
@given(st.data(), st.integers(1, 4))
def test_mutations(path, data, count):
    """A valid file with a few accidents."""
    content = VALID
    for _ in range(count):
        content = mutate(content, data.draw)
    check(path, content)


def test_mutations_are_read_and_refused(path):
    """Both outcomes occur, so neither is an idle promise."""
    outcomes = set()
    for place in range(0, len(VALID), 29):
        for bit in (1, 4):
            changed = bytearray(VALID)
            changed[place] ^= bit
            outcomes.add(read(path, bytes(changed)) is None)
    assert outcomes == {True, False}


@pytest.mark.parametrize("depth", [90, 500, 990, 3000, 10**6])
@pytest.mark.parametrize("pair", ["[]", "{}"])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting(path, depth, pair, closed):
    """However deep: never a `RecursionError`."""
    inner = "1" if pair == "[]" else '"a":1'
    opening = pair[0] if pair == "[]" else '{"a":'
    if pair == "{}":
        inner = "{}"
    nested = opening * depth + inner + pair[1] * depth * closed
    before = LINES[0].decode()[:-3].encode()
    check(path, before + b',"compile":' + nested.encode() + b"}\n")
    check(path, nested.encode())


BOMBS = {
    "lists": b"[" + b"[]," * 60_000 + b"[]]",
    "objects": b"[" + b'{"":0},' * 30_000 + b"0]",
    "numbers": b"[" + b"1e9," * 50_000 + b"0]",
    "wide text": '"{}"'.format("\U0001f600" * 50_000).encode(),
    "names": b"{"
    + b",".join(b'"%x":0' % number for number in range(30_000))
    + b"}",
}


def with_bomb(bomb):
    return LINES[0][:-2] + b',"compile":{"a":' + bomb + b"}}\n"


def small_records(count):
    line = (
        b'{"type":"record","run_id":"0123456789abcdef0123456789abcdef",'
        b'"index":%d,"epoch":null,"batch":null,"model":"","roles":{},'
        b'"variables":{}}\n'
    )
    return LINES[0] + b"".join(line % index for index in range(count))


HEAVY = {
    **{name: with_bomb(bomb) for name, bomb in BOMBS.items()},
    "records": small_records(2000),
    "torn": LINES[0] + b"{\n" * 100_000,
    "one line": b"x" * 10**6,
    "empty lines": LINES[0] + b"\n" * 10**6,
}


def measure_peak(work, *args):
    gc.collect()
    tracemalloc.start()
    try:
        result = work(*args)
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", HEAVY)
def test_memory_is_bounded(path, name):
    """Whatever a file says, memory is a multiple of its size at most."""
    data = HEAVY[name]
    check(path, data)  # In time, measured where no memory is traced.
    _, peak = measure_peak(lambda: read(path, data))
    assert peak <= FACTOR * len(data) + CONSTANT


def test_a_reader_that_believes_a_size_has_no_bound():
    """The twin: the same measure finds a reader that takes what it is told."""
    text = '{"num_records": 3000000}'
    _, peak = measure_peak(lambda: [0] * json.loads(text)["num_records"])
    assert peak > FACTOR * len(text) + CONSTANT


def test_without_the_checks_other_errors_come_out(path, monkeypatch):
    """The twin: a reader that checks no field fails in other ways."""
    line = LINES[0].replace(b'"identity":{', b'"identity":7,"x":{')
    assert check(path, line) is None

    def take(content, schema, of_what=""):
        del of_what
        known = {one.name for one in fields(schema)} & {*content}
        return schema(**{name: content[name] for name in known})

    for module in (lines, common_lines):
        monkeypatch.setattr(module, "convert", take)
    line = LINES[4].replace(b'"identity":{', b'"identity":7,"x":{')
    with pytest.raises((AttributeError, TypeError)):
        check(path, line)
