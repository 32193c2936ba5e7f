"""A run's file: whole lines, the same bits, and nothing lost."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_repro import runs
from keras_repro.runs import (
    Run,
    RunEnd,
    RunHeader,
    RunRecord,
    RunWriter,
    find_first_finished,
    load_run,
    load_runs,
)

ROOT = Path(__file__).resolve().parents[1]


def make_header(run_id="r1", seed=1, **fields):
    return RunHeader(
        run_id=run_id,
        started="2026-01-01T00:00:00+00:00",
        identity={"seed": seed, "model": "kr1:a"},
        **fields,
    )


def make_record(run_id="r1", index=0, epoch=None, **fields):
    return RunRecord(
        run_id=run_id,
        index=index,
        epoch=epoch,
        batch=None,
        model=f"kr1:{index}",
        roles={"weights": "kr1:w"},
        variables={"weights": {"layers.0.kernel": "kr1:w"}},
        **fields,
    )


def make_end(run_id="r1", status="finished", num_records=2):
    return RunEnd(
        run_id=run_id, status=status, ended="x", num_records=num_records
    )


def write_run(path, run_id="r1", seed=1, status="finished", **fields):
    writer = RunWriter(path)
    writer.write(make_header(run_id, seed, **fields))
    writer.write(make_record(run_id, 0))
    writer.write(make_record(run_id, 1, 0, metrics={"loss": 0.1}))
    if status is not None:
        writer.write(make_end(run_id, status))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


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


def test_properties_of_a_run(path):
    """A run tells its seed, its last checksum, its history."""
    run = load_run(write_run(path, seed=7))
    assert (run.header.seed, run.checksum, run.finished) == (7, "kr1:1", True)
    assert run.history() == {"loss": [0.1]}
    assert str(run) == "run r1, seed 7, 2 records, finished"
    empty = Run(make_header(seed=None))
    assert (empty.header.seed, empty.checksum, empty.finished) == (
        None,
        None,
        False,
    )
    assert "not ended" in str(empty)


def test_moments():
    """A record says when it was taken; epochs count from 1."""
    record = make_record(epoch=2)
    assert make_record().moment == "initial state"
    assert record.moment == "epoch 3"
    assert replace(record, batch=9).moment == "epoch 3, batch 10"


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
    text = path.read_text(encoding="utf-8").replace("run/1", "run/2")
    path.write_text(text, encoding="utf-8")
    for use in (load_run, RunWriter):
        with pytest.raises(ValueError, match=r"run/1'.*Received.*run/2'"):
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


def test_two_processes_append_to_one_file(path):
    """Lines of processes that write at the same time are never mixed."""
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from test_runs import *\n"
        "writer = RunWriter(sys.argv[1])\n"
        "writer.write(make_header(sys.argv[2]))\n"
        "for i in range(300):\n"
        "    writer.write(make_record(sys.argv[2], i, i))\n"
        "writer.write(make_end(sys.argv[2]))\n"
    )
    paths = [str(ROOT), str(ROOT / "tests")]
    command = [sys.executable, "-c", code, str(path)]
    processes = [
        subprocess.Popen([*command, name, *paths]) for name in ("p", "q")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    loaded = load_runs(path)
    assert sorted(run.run_id for run in loaded) == ["p", "q"]
    for run in loaded:
        assert [record.index for record in run.records] == list(range(300))
        assert run.finished


def test_no_lock_available(path, monkeypatch):
    """Where a file system has no locks, lines are written all the same."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert load_run(write_run(path)).finished


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
        runs.os, "write", lambda file, data: write(file, data[:50])
    )
    assert load_run(write_run(path)).finished
