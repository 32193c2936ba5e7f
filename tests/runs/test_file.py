"""A run's file: whole lines, the same bits, and nothing lost."""

import errno
import json
import os
import pickle
import struct
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_repro.arrays.norms import Norms
from keras_repro.common import files, locks
from keras_repro.runs import file as run_file
from keras_repro.runs import lines as run_lines
from keras_repro.runs.file import (
    RunWriter,
    find_first_finished,
    load_run,
    load_runs,
)
from keras_repro.runs.run import (
    FORMAT,
    Run,
    RunData,
    RunEnd,
    RunHeader,
    RunRecord,
)
from tests.builders import (
    make_end,
    make_header,
    make_record,
    make_run,
    save_run,
)
from tests.checkout import DATA, ROOT

DOCS = ROOT / "docs"


def write_run(path, run_id="r1", seed=1, status="finished", **fields):
    records = (
        make_record(run_id, 0),
        make_record(run_id, 1, 0, metrics={"loss": 0.1}),
    )
    run = make_run(*records, run_id=run_id, seed=seed, status=status, **fields)
    return save_run(run, path)


def test_round_trip(path):
    """What is written is what is read."""
    header = make_header(
        name="alpha=0.4",
        every=5,
        notes=("a generator",),
        variables=({"role": "weights", "place": "kernel"},),
        environment={"versions": {"keras": "3"}},
    )
    records = (make_record(), make_record(index=1, epoch=0, streams="kr1:s"))
    writer = RunWriter(path)
    for entry in (header, *records, make_end()):
        writer.write(entry)
    assert load_run(path) == Run(header, records, make_end())
    assert load_run(path).path == path
    other = replace(header, name="alpha=0.2")
    assert load_run(path) != Run(other, records, make_end())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(allow_subnormal=True) | st.just(-0.0))
def test_metrics_keep_their_bits(path, value):
    """Any float reads back to the same bits, but for a NaN's payload."""
    path.unlink(missing_ok=True)
    writer = RunWriter(path)
    writer.write(make_header())
    writer.write(make_record(metrics={"loss": value}))
    [record] = load_run(path).records
    if value != value:
        assert record.metrics["loss"] != record.metrics["loss"]
    else:
        expected = struct.pack("<d", value)
        assert struct.pack("<d", record.metrics["loss"]) == expected


def test_lines_are_strict_json(path):
    """NaN and infinity are strings, so that any JSON reader can follow."""
    writer = RunWriter(path)
    writer.write(make_header())
    metrics = {"a": float("nan"), "b": float("inf"), "c": float("-inf")}
    writer.write(make_record(metrics=metrics))

    def refuse(constant):
        raise AssertionError(constant)

    last = path.read_text(encoding="utf-8").splitlines()[-1]
    content = json.loads(last, parse_constant=refuse)
    assert content["metrics"] == {"a": "nan", "b": "inf", "c": "-inf"}


def test_choosing_a_run(path):
    """The last run is loaded, unless an id or an index says otherwise."""
    write_run(path, "aa1")
    write_run(path, "ab2")
    assert [run.run_id for run in load_runs(path)] == ["aa1", "ab2"]
    assert load_run(path).run_id == "ab2"
    assert load_run(path, index=0).run_id == "aa1"
    assert load_run(path, index=-2).run_id == "aa1"
    assert load_run(path, run_id="aa").run_id == "aa1"


@pytest.mark.parametrize(
    "choice",
    [
        *({"run_id": "a"}, {"run_id": "z"}, {"index": 2}, {"index": -3}),
        {"run_id": "aa1", "index": 0},
    ],
)
def test_a_choice_that_names_no_run(path, choice):
    """No run, or more than one, is an error that lists the runs."""
    write_run(path, "aa1")
    write_run(path, "ab2")
    with pytest.raises(ValueError, match="Received: run_id="):
        load_run(path, **choice)


def test_finding_the_first_finished_run(path):
    """Runs that were interrupted, or do not match, are passed over."""
    assert find_first_finished(path, lambda _: True) is None
    write_run(path, "r1", seed=1, status="interrupted")
    write_run(path, "r2", seed=2)
    write_run(path, "r3", seed=1)
    write_run(path, "r4", seed=1)
    found = find_first_finished(path, lambda header: header.seed == 1)
    assert found == load_run(path, run_id="r3")
    assert len(found.records) == 2
    assert find_first_finished(path, lambda header: header.seed == 3) is None


@pytest.mark.parametrize("cut", [1, 12, 40, 120])
def test_torn_last_line(path, cut):
    """A half-written last line is reported and dropped, at any length."""
    whole = write_run(path, status=None).read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)] + last[:cut])
    with pytest.warns(UserWarning, match=r"1 half-written line"):
        run = load_run(path)
    assert len(run.records) == 1
    assert run.torn == (cut >= 40)
    assert path.read_bytes() == whole[: -len(last)] + last[:cut]


def test_whole_file_is_not_torn(path):
    """The twin: an unharmed file gives no warning."""
    assert not load_run(write_run(path)).torn


def test_writing_after_a_torn_line(path):
    """A writer starts a line of its own, so that only the torn one is lost."""
    whole = write_run(path, "r1", status=None).read_bytes()
    path.write_bytes(whole[:-20])
    write_run(path, "r2")
    assert path.read_bytes().startswith(whole[:-20] + b"\n")
    with pytest.warns(UserWarning, match="half-written"):
        first, second = load_runs(path)
    assert (first.torn, len(first.records)) == (True, 1)
    assert (second.torn, len(second.records)) == (False, 2)


def test_a_torn_header_alone(path):
    """A file that was killed in its first line holds no run."""
    whole = write_run(path).read_bytes()
    path.write_bytes(whole[:30])
    with pytest.warns(UserWarning, match="half-written"):
        assert load_runs(path) == []
    with (
        pytest.warns(UserWarning, match="half-written"),
        pytest.raises(ValueError, match="0 runs"),
    ):
        load_run(path)
    write_run(path)
    with pytest.warns(UserWarning, match="half-written"):
        assert load_run(path).finished


def test_last_line_without_its_line_break_is_whole(path):
    """A line that lacks only its end is kept."""
    whole = write_run(path).read_bytes()
    path.write_bytes(whole[:-1])
    assert load_run(path).finished


@pytest.mark.parametrize(
    "text",
    [
        *("loss,epoch\n0.1,1\n", "{}\n", '{"a": 1}\n', "[1]\n", "{\n  1}\n"),
        *('"text"\n', "\x89PNG\n", '{"format": "other/1"}\n'),
    ],
)
def test_not_a_run_file(path, text):
    """Another file is refused by reader and writer, and left as it is."""
    path.write_text(text, encoding="utf-8")
    for use in (load_run, load_runs, RunWriter):
        with pytest.raises(ValueError, match=r"must be a run's file.*Received"):
            use(path)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "line", ["nonsense", '{"type":"record","x":1}', '{"type":"other"}', "[]"]
)
def test_a_foreign_line_in_a_run_file(path, line):
    """A whole line that is none of ours is an error."""
    with write_run(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="Received"):
        load_runs(path)


def test_another_version(path):
    """A file of another version is refused, naming both, and left alone."""
    write_run(path)
    text = path.read_text(encoding="utf-8").replace("run/2", "run/3")
    path.write_text(text, encoding="utf-8")
    for use in (load_run, RunWriter):
        with pytest.raises(ValueError, match=r"run/2'.*Received.*run/3'"):
            use(path)
    assert path.read_text(encoding="utf-8") == text


def test_missing_file(path):
    """A missing file is named, and not created."""
    with pytest.raises(FileNotFoundError, match="Received"):
        load_run(path)
    assert not path.exists()


def test_unwritable_paths(path, tmp_path):
    """A path that cannot be written is refused at once."""
    with pytest.raises(IsADirectoryError, match="Received"):
        RunWriter(tmp_path)
    with pytest.raises(FileNotFoundError, match="Create"):
        RunWriter(tmp_path / "none" / "runs.jsonl")
    with pytest.raises(TypeError, match="Received: 3"):
        RunWriter(3)
    RunWriter(path)
    assert not path.exists()


def test_file_without_permission(path, monkeypatch):
    """A file without write permission is refused at once."""
    write_run(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="Received"):
        RunWriter(path)


def test_file_to_be_replaced(path, monkeypatch):
    """Where another file takes its place, its directory must allow that."""
    path.touch()
    monkeypatch.setattr(os, "access", lambda asked, _: asked == path)
    files.check_writable(path)
    with pytest.raises(PermissionError, match="Received"):
        files.check_writable(path, replaced=True)


def test_empty_file_is_a_run_file(path):
    """An empty file may be appended to."""
    path.touch()
    assert load_runs(path) == []
    assert load_run(write_run(path)).finished


def test_unknown_fields_and_runs_are_passed_over(path):
    """A later reader may add fields; a record without a header is dropped."""
    write_run(path)
    RunWriter(path).write(make_record("lost"))
    text = path.read_text(encoding="utf-8")
    more = text.replace('"status":', '"extra":1,"status":')
    path.write_text(more, encoding="utf-8")
    [run] = load_runs(path)
    assert run.finished


def test_no_lock_available(path, monkeypatch):
    """Where a file system has no locks, lines are written all the same."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert load_run(write_run(path)).finished


def test_a_writer_that_was_stopped(path, monkeypatch):
    """A reader does not wait for ever for a lock that is never given back."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    write_run(path)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert load_run(path).finished


def test_windows_locks(path, monkeypatch):
    """Without fcntl one far byte is locked and unlocked for each line."""
    import types

    calls = []
    fake = types.SimpleNamespace(
        LK_LOCK=1, LK_UNLCK=0, locking=lambda _, mode, n: calls.append(mode)
    )
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    assert load_run(write_run(path)).finished
    assert calls == [1, 0] * 4


def test_a_short_write_goes_on(path, monkeypatch):
    """A write that takes only a part is followed by the rest."""
    write = os.write
    monkeypatch.setattr(
        files.os, "write", lambda file, data: write(file, data[:50])
    )
    assert load_run(write_run(path)).finished


# --- versions and new fields ---------------------------------------------


def test_golden_file_of_version_1():
    """A file of version 1 stays readable; what it lacks has its default."""
    run = load_run(DATA / "runs_1.jsonl")
    assert run.header.format == "keras_repro.run/1"
    assert (run.header.seed, run.header.name) == (1, "alpha=0.4")
    assert run.header.environment["versions"]["numpy"] == "2.4.6"
    assert run.header.variables[0]["shape"] == [2, 1]
    assert run.header.notes == ("A generator cannot be rewound.",)
    assert (run.header.compile, run.header.data) == ({}, {})
    assert run.header.snapshots is None
    [_, record] = run.records
    assert record.metrics["loss"] == 0.1
    assert record.metrics["worse"] == float("-inf")
    assert record.streams == f"kr1:{'e1':0>32}"
    assert (record.step, record.fed, record.snapshot) == (None, None, None)
    assert (record.layers, record.norms) == ({}, {})
    assert run.end == RunEnd(
        run_id="0123456789abcdef" * 2,
        status="interrupted",
        ended="2026-01-01T00:01:00+00:00",
        num_records=2,
    )


def test_golden_file_of_version_2():
    """What a file of version 2 says, field by field."""
    run = load_run(DATA / "runs_2.jsonl")
    assert run.header.format == FORMAT == "keras_repro.run/2"
    assert run.header.identity["data"] == f"kr1:{'a3':0>32}"
    assert run.header.every == 2
    assert run.header.compile["optimizer"]["learning_rate"] == 0.01
    assert run.header.data["arrays"] == [{"shape": [4, 2], "dtype": "float32"}]
    assert run.header.snapshots.startswith("runs_2.jsonl.snapshots/fedcba98")
    first, second = run.records
    assert (first.step, first.snapshot) == (0, "record-000000.h5")
    assert second.layers == {"layers.0": f"kr1:{'f1':0>32}"}
    assert second.fed == f"kr1:{'e2':0>32}"
    norms = first.norms["weights"]["layers.0.kernel"]
    assert type(norms) is Norms
    assert repr(norms) == "Norms(l2=1.5, mean=-0.0, largest=inf)"
    assert run.end.exception == "ValueError"


def test_golden_file_of_version_2_is_written(path):
    """The writer writes the golden lines, byte for byte."""
    golden = (DATA / "runs_2.jsonl").read_bytes().splitlines()
    for line in golden:
        entry = run_lines.decode_entry(line.decode())
        assert run_lines.encode_entry(entry).encode() == line


def test_versions_in_one_file(path):
    """Runs of both versions may stand in one file, in any order."""
    golden = [(DATA / f"runs_{n}.jsonl").read_bytes() for n in (1, 2)]
    path.write_bytes(b"".join(golden))
    write_run(path)
    formats = [run.header.format[-1] for run in load_runs(path)]
    assert formats == ["1", "2", "2"]
    path.write_bytes(b"".join(reversed(golden)))
    assert [run.header.format[-1] for run in load_runs(path)] == ["2", "1"]


@pytest.mark.parametrize("cls", [RunHeader, RunData, RunRecord, RunEnd])
def test_every_field_is_written_and_read(cls):
    """No field of an entry is left out by writer or reader."""
    lines = (DATA / "runs_2.jsonl").read_text(encoding="utf-8").splitlines()
    entries = map(run_lines.decode_entry, lines)
    entry = next(one for one in entries if type(one) is cls)
    content = json.loads(run_lines.encode_entry(entry))
    names = {field.name for field in fields(cls)}
    assert {"type", *names} == set(content)
    for name in names - {"run_id", "format"}:
        other = json.dumps({**content, name: [[]]})
        with pytest.raises(run_lines.LineError, match=f"`{name}`"):
            run_lines.decode_entry(other)


def test_data_line(path):
    """The checksum of the data may follow; it belongs to the header."""
    write_run(path, status=None)
    writer = RunWriter(path)
    assert "data" not in load_run(path).header.identity
    writer.write(RunData(run_id="r1", checksum="kr1:d"))
    writer.write(make_end())
    run = load_run(path)
    assert run.header.identity == {"seed": 1, "model": "kr1:a", "data": "kr1:d"}
    found = find_first_finished(
        path, lambda header: header.identity.get("data") == "kr1:d"
    )
    assert found == run
    writer.write(RunData(run_id="r1", checksum="kr1:other"))
    with pytest.raises(ValueError, match=r"one checksum.*line 6"):
        load_run(path)


def bits(values):
    return [struct.pack("<d", value) for value in values]


numbers = st.floats(allow_nan=False) | st.just(-0.0)


@given(st.tuples(numbers, numbers, numbers))
def test_norms_keep_their_bits(values):
    """Norms read back to the same bits; infinities too."""
    record = make_record(norms={"weights": {"kernel": Norms(*values)}})
    read = run_lines.decode_entry(run_lines.encode_entry(record))
    assert bits(read.norms["weights"]["kernel"]) == bits(values)


def test_numbers_of_numpy_and_undecodable_names():
    """NumPy's numbers, NaN in a configuration, names that are no UTF-8."""
    numpy = pytest.importorskip("numpy")
    header = make_header(
        compile={"clip": float("inf"), "rate": numpy.float32(0.5)},
        environment={"argv": ["caf\udce9.py", "\U0001f600"]},
    )
    read = run_lines.decode_entry(run_lines.encode_entry(header))
    assert read.compile == {"clip": "inf", "rate": 0.5}
    assert read.environment == {"argv": ["caf\\udce9.py", "\U0001f600"]}
    record = make_record(index=numpy.int64(3), metrics={"a": numpy.float32(2)})
    assert run_lines.decode_entry(run_lines.encode_entry(record)).index == 3
    with pytest.raises(TypeError, match="JSON"):
        run_lines.encode_entry(make_header(compile={"loss": object()}))


@pytest.mark.parametrize("run_id", ["", 'a"b', "a/b", "a" * 65, 3])
def test_ids_that_could_not_be_read_back(path, run_id):
    """A run's id is a plain word, also for the writer."""
    with pytest.raises(ValueError, match=r"run_id.*Received"):
        RunWriter(path).write(make_header(run_id))
    assert not path.exists()


def test_searching_parses_few_lines(path, monkeypatch):
    """Only headers and ends, and the records of the run that is found."""
    for number in range(5):
        write_run(path, f"r{number}", seed=number)
    parsed = []
    decode = run_lines.decode_entry
    monkeypatch.setattr(
        run_file,
        "decode_entry",
        lambda text: parsed.append(text) or decode(text),
    )
    found = find_first_finished(path, lambda header: header.seed == 3)
    assert len(found.records) == 2
    assert sum('"record"' in text[:20] for text in parsed) == 2
    assert len(parsed) == 2 * 5 + 4
    parsed.clear()
    load_runs(path)  # The twin: here every line is parsed.
    assert len(parsed) == 4 * 5
    # Once more, and only what was appended is read.
    write_run(path, "r5", seed=5)
    parsed.clear()
    found = find_first_finished(path, lambda header: header.seed == 5)
    assert found == load_runs(path)[5]
    assert len(parsed) == 2 + 4 + 4 * 6


def _replace(path):
    """Another file under that name, longer than the first."""
    other = path.with_suffix(".new")
    write_run(other, "other", seed=1)
    write_run(other, "more", seed=1)
    other.replace(path)


def _cut_and_write(path):
    """The same file, cut and written anew."""
    path.write_bytes(b"")
    write_run(path, "other", seed=1)


def _rewrite(path):
    """The same file with another text of that length."""
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"r1"', b'"rX"'))


@pytest.mark.parametrize(
    ("change", "expected"),
    [(_replace, "other"), (_cut_and_write, "other"), (_rewrite, "rX")],
)
def test_a_file_that_was_not_only_appended_to(path, change, expected):
    """It is read anew, whatever was known of the one before."""
    write_run(path, "r1", seed=1)
    assert find_first_finished(path, bool).run_id == "r1"
    change(path)
    assert find_first_finished(path, bool) == load_run(path, index=0)
    assert load_run(path, index=0).run_id == expected


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_that_is_still_being_written(path, cut):
    """It is read again when it is whole."""
    whole = write_run(path, "r1", seed=1).read_bytes()
    path.write_bytes(whole[:-cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert find_first_finished(path, bool) is None or cut == 1
    path.write_bytes(whole)
    assert find_first_finished(path, bool) == load_run(path)


# --- what is not ours ----------------------------------------------------

HEADER = (
    '{"type":"header","run_id":"r1","started":"x","identity":{},'
    '"format":"keras_repro.run/2"}'
)
RECORD = (
    '{"type":"record","run_id":"r1","index":0,"epoch":null,"batch":null,'
    '"model":"m","roles":{},"variables":{}}'
)
END = (
    '{"type":"end","run_id":"r1","status":"finished","ended":"x",'
    '"num_records":1}'
)


def test_the_smallest_run_is_read(path):
    """The twin of all that follows: unharmed, these lines are a run."""
    path.write_text(f"{HEADER}\n{RECORD}\r\n\n{END}", encoding="utf-8")
    assert load_run(path).finished


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"identity":{}', '"identity":[]', "identity"),
        ('"identity":{}', '"identity":{"seed":1.5}', "identity"),
        ('"identity":{}', '"identity":{"seed":true}', "identity"),
        ('"identity":{}', '"identity":{"data":7}', "identity"),
        ('"identity":{}', '"identity":{"continues":7}', "identity"),
        ('"identity":{}', '"identity":{"seed":1' + "0" * 99 + "}", "identity"),
        ('"identity":{}', '"identity":{},"every":"x"', "every"),
        ('"identity":{}', '"identity":{},"every":0', "every"),
        ('"identity":{}', '"identity":{},"every":[]', "every"),
        ('"identity":{}', '"identity":{},"notes":"x"', "notes"),
        ('"identity":{}', '"identity":{},"notes":[1]', "notes"),
        ('"identity":{}', '"identity":{},"model":{"x":1e999}', "model"),
        ('"identity":{}', '"identity":{},"data":[]', "data"),
        ('"identity":{}', '"identity":{},"variables":[1]', "variables"),
        (
            '"identity":{}',
            '"identity":{},"variables":[{"shape":[-1]}]',
            "variables",
        ),
        (
            '"identity":{}',
            '"identity":{},"variables":[{"role":1}]',
            "variables",
        ),
        (
            '"identity":{}',
            '"identity":{},"compile":' + '{"a":' * 200 + "1" + "}" * 200,
            "compile",
        ),
        ('"started":"x"', '"started":null', "started"),
        ('"started":"x",', "", "started"),
        ('"run_id":"r1","st', '"run_id":"../r1","st', "run_id"),
        ('"index":0', '"index":0.0', "index"),
        ('"index":0', '"index":-1', "index"),
        ('"index":0', '"index":true', "index"),
        ('"index":0', '"index":9223372036854775808', "index"),
        ('"epoch":null', '"epoch":"1"', "epoch"),
        ('"batch":null', '"batch":[]', "batch"),
        ('"roles":{}', '"roles":{"weights":null}', "roles"),
        ('"variables":{}', '"variables":{"weights":"x"}', "variables"),
        ('"roles":{}', '"roles":{},"metrics":{"a":1e999}', "metrics"),
        ('"roles":{}', '"roles":{},"metrics":{"a":"1"}', "metrics"),
        ('"roles":{}', '"roles":{},"metrics":{"a":true}', "metrics"),
        (
            '"roles":{}',
            '"roles":{},"metrics":{"a":1' + "0" * 400 + "}",
            "metrics",
        ),
        (
            '"roles":{}',
            '"roles":{},"norms":{"weights":{"kernel":[1.0,2.0]}}',
            "norms",
        ),
        (
            '"roles":{}',
            '"roles":{},"norms":{"weights":{"kernel":[1.0,2.0,null]}}',
            "norms",
        ),
        ('"roles":{}', '"roles":{},"layers":{"layers.0":1}', "layers"),
        ('"roles":{}', '"roles":{},"snapshot":1', "snapshot"),
        ('"status":"finished"', '"status":"won"', "status"),
        ('"status":"finished"', '"status":["finished"]', "status"),
        ('"num_records":1', '"num_records":1.0', "num_records"),
        ('"num_records":1', '"num_records":1,"exception":{}', "exception"),
    ],
)
def test_fields_are_checked(path, old, new, field):
    """A field of another type names itself, what came, and the line."""
    text = f"{HEADER}\n{RECORD}\n{END}\n"
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    match = rf"`{field}`.*Received: .* in line [123]\."
    with pytest.raises(ValueError, match=match):
        load_runs(path)


@pytest.mark.parametrize(
    "line",
    [
        *("nonsense", "[]", "[1]", "1", "null", '{"type":"other"}', "{}x"),
        *('{"type":"record","x":1}', '{"type":["record"]}', RECORD + "}"),
        *(RECORD[:30] + "\0" + RECORD[31:], RECORD.replace("0", "NaN")),
        *(RECORD.replace("0", "-Infinity"), RECORD.replace("0", "1" * 5000)),
        RECORD.replace('"index":0', '"index":0,"index":1'),
        RECORD.replace('"m"', '"\\ud800"'),
        RECORD.replace('"m"', '"\\uZZZZ"'),
        RECORD.replace('"m"', '"\\q"'),
        RECORD.replace('"roles":{}', '"x":' + "[" * 10**5),
        RECORD.replace('"roles":{}', '"x":' + "[" * 10**5 + "]" * 10**5),
        RECORD[:60] + RECORD,
        "\ufeff" + RECORD,
    ],
)
def test_a_line_that_is_none_of_ours(path, line):
    """Neither an entry nor the beginning of one: an error with its number."""
    path.write_text(f"{HEADER}\n{line}\n{END}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must .*Received: .* in line 2"):
        load_runs(path)


def test_invalid_utf_8(path):
    """Bytes that are no text are an error, not another character."""
    path.write_bytes(f"{HEADER}\n".encode() + RECORD.encode("utf-16"))
    with pytest.raises(ValueError, match=r"UTF-8.*line 2"):
        load_runs(path)


@pytest.mark.parametrize(
    "lines",
    [
        (HEADER, HEADER),
        (HEADER, RECORD, RECORD),
        (HEADER, END, RECORD),
        (HEADER, END, END),
        (RECORD, HEADER),
        (END,),
    ],
)
def test_lines_out_of_order(path, lines):
    """One header first, records in order, an end last."""
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=r"must .*Received: .* in line [123]"):
        load_runs(path)


@pytest.mark.parametrize("number", range(5))
def test_every_cut_of_a_line_is_torn(number):
    """A proper beginning of a line of ours is torn, wherever it ends."""
    lines = (DATA / "runs_2.jsonl").read_text(encoding="utf-8").splitlines()
    odd = lines[number].replace(
        '"model"', '"\\u00e9\\ud83d\\ude00":[true,-1.5e-7],"model"'
    )
    for line in (lines[number], odd):
        assert run_lines.decode_entry(line) is not None
        for cut in range(1, len(line)):
            assert run_lines.decode_entry(line[:cut]) is None
            assert run_lines.decode_entry(line[:cut] + "\0" * 9) is None


def test_torn_line_in_the_middle(path):
    """One warning, and the run that it belongs to is marked."""
    lines = (HEADER, RECORD[:50], RECORD, "\0" * 50, END)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.warns(UserWarning, match="2 half-written") as caught:
        run = load_run(path)
    assert run.torn
    assert run.finished
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name]


def test_devices_and_pipes(tmp_path):
    """What might never end is refused before it is read."""
    pipe = tmp_path / "pipe"
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in a directory here")
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ValueError, match="a device or a pipe"):
            load_runs(path)
    with pytest.raises(IsADirectoryError, match="Received"):
        load_runs(tmp_path)


# --- the writer ----------------------------------------------------------


def test_a_copy_of_a_writer(path):
    """A writer may be sent to another process, and both may go on."""
    writer = RunWriter(path)
    writer.write(make_header())
    other = pickle.loads(pickle.dumps(writer))
    for index, one in enumerate((other, writer, other)):
        one.write(make_record(index=index))
    assert len(load_run(path).records) == 3


def test_a_deleted_file_is_an_error(path):
    """What is written to a file that is gone is not lost silently."""
    writer = RunWriter(path)
    writer.write(make_header())
    writer.write(make_record())
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"which is gone.*not written"):
        writer.write(make_record(index=1))
    assert not path.exists()
    writer.write(make_header())  # The next run starts a new file.
    assert load_run(path).records == ()


@pytest.mark.parametrize("how", ["other", "shorter", "empty"])
def test_a_replaced_file_is_an_error(path, how):
    """Neither is what is written behind another file's lines."""
    writer = RunWriter(path)
    writer.write(make_header())
    before = path.read_bytes()
    writer.write(make_record())
    content = {"other": before.replace(b"r1", b"r2") * 9, "shorter": before}
    path.unlink()
    path.write_bytes(content.get(how, b""))
    with pytest.raises(OSError, match="replaced or cut"):
        writer.write(make_record(index=1))
    assert path.read_bytes() == content.get(how, b"")


def test_an_equal_copy_is_no_replacement(path):
    """The twin: the same lines in a new file, as some editors save."""
    writer = RunWriter(path)
    writer.write(make_header())
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    writer.write(make_record())
    assert len(load_run(path).records) == 1


@pytest.mark.parametrize("cls", [RunHeader, RunData, RunRecord, RunEnd])
def test_every_field_is_documented(cls):
    """The page about the format has a row for each field of each line."""
    page = DOCS / "run-format.md"
    kind = cls.__name__.removeprefix("Run").lower()
    section = page.read_text(encoding="utf-8").split(f"\n## {kind}\n")[1]
    section = section.split("\n## ")[0]
    for field in fields(cls):
        if field.name != "run_id":
            assert f"| `{field.name}` |" in section
    assert "| `fed` |" not in section or cls is RunRecord
