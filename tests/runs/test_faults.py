"""Killed writers, full disks, vanished directories: nothing is lost silently.

Plain writers without Keras, in processes of their own.
"""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_repro.common import files
from keras_repro.runs import file
from keras_repro.runs.file import RunWriter, load_run, load_runs
from keras_repro.runs.lines import encode_entry
from keras_repro.runs.snapshots import (
    find_snapshot,
    open_snapshot,
    snapshot_folder,
)
from tests.builders import make_end, make_header, make_record, save_snapshot
from tests.checkout import ROOT

resource = pytest.importorskip("resource", reason="needs a POSIX system")
# What is killed must not be measured: it would leave half a database.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("COVERAGE")
}


def make_large_record(run_id, index, **fields):
    """A record of a few KB, as of a model with many variables."""
    checksum = f"kr1:{index:032x}"
    places = {f"layers.{number}.kernel": checksum for number in range(40)}
    return make_record(
        run_id,
        index,
        index,
        model=checksum,
        roles={"weights": checksum},
        variables={"weights": places},
        **fields,
    )


def start_apart(function, *args):
    """Start a function of this file in a process without Keras or threads."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.runs import test_faults\n"
        f"test_faults.{function.__name__}(*sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_apart(function, *args):
    """Run a function of this file in a process; return what it printed."""
    with start_apart(function, *args) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return output


def fork(function, *args):
    """Run a function in a fork of a process that `run_apart` started."""
    pid = os.fork()
    if not pid:
        try:
            function(*args)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def wait_for(pids):
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    assert codes == [0] * len(codes), codes


def load_quietly(path):
    """The runs, and how many lines were told to be torn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = load_runs(path)
    told = [str(one.message) for one in caught]
    return runs, sum(int(text.split(" half-")[0]) for text in told)


# --- killed --------------------------------------------------------------


class Teller:
    """Tells which lines have been written, through a pipe."""

    def __init__(self, pipe):
        self.pipe = pipe

    def __call__(self, index):
        os.write(self.pipe, b"%d\n" % index)


def write_lines(path, run_id, tell):
    writer = RunWriter(path)
    writer.write(make_header(run_id))
    for index in range(10**6):
        writer.write(make_large_record(run_id, index))
        tell(index)


def write_snapshots(path, run_id, tell):
    folder = snapshot_folder(path, run_id)
    place = folder.relative_to(Path(path).parent).as_posix()
    writer = RunWriter(path)
    writer.write(make_header(run_id, snapshots=place))
    for index in range(10**6):
        values = np.random.default_rng(index).random((100, 100))
        name = f"record-{index:06d}.h5"
        save_snapshot(folder, {("weights", "kernel"): values}, name, run_id)
        writer.write(make_large_record(run_id, index, snapshot=name))
        tell(index)


def rewrite_lines(path, run_id, tell):
    """What no writer may do: rewrite the whole file for each line."""
    lines = [encode_entry(make_header(run_id))]
    for index in range(10**6):
        lines.append(encode_entry(make_large_record(run_id, index)))
        with Path(path).open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
        tell(index)


def kill_writers(write, path, count, extension=""):
    """Kill writers at random moments; print the last index each one told."""
    told = {}
    for seed in range(int(count)):
        reading, writing = os.pipe()
        run_id = f"r{seed}"
        target = path + extension.format(run_id)
        pid = fork(globals()[write], target, run_id, Teller(writing))
        os.close(writing)
        output = os.read(reading, 9)
        time.sleep(random.Random(seed).uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        while more := os.read(reading, 10**6):
            output += more
        os.close(reading)
        os.waitpid(pid, 0)
        told[run_id] = int(output.split()[-1])
    print(json.dumps(told))


def check_killed_runs(path, told):
    """All that was told is there, and of each run at most one line more."""
    runs, _ = load_quietly(path)
    assert {run.run_id for run in runs} == set(told)
    for run in runs:
        last = told[run.run_id]
        indices = [record.index for record in run.records]
        assert indices[: last + 1] == list(range(last + 1))
        assert len(indices) <= last + 2
    return runs


def test_killed_writers(path):
    """35 writers killed at any moment into one file: no line told is lost."""
    told = json.loads(run_apart(kill_writers, "write_lines", path, 35))
    assert len(told) == 35
    check_killed_runs(path, told)


def test_killed_writers_of_snapshots(path):
    """15 more with snapshots: each that a record names is whole."""
    told = json.loads(run_apart(kill_writers, "write_snapshots", path, 15))
    assert len(told) == 15
    for run in check_killed_runs(path, told):
        for record in run.records:
            with open_snapshot(find_snapshot(run, record)) as snapshot:
                assert snapshot.read("weights", "kernel").shape == (100, 100)


def test_a_writer_that_rewrites_its_file_loses_lines(path):
    """The twin: the same kills find out a writer that is not safe."""
    output = run_apart(kill_writers, "rewrite_lines", path, 30, ".{}")
    lost = 0
    for run_id, last in json.loads(output).items():
        try:
            check_killed_runs(Path(f"{path}.{run_id}"), {run_id: last})
        except (AssertionError, ValueError):
            lost += 1
    assert lost >= 3


def die_within_a_line(path, share):
    """Write a line, and die between two writes of the next."""
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    writer.write(make_large_record("r1", 0))
    write = os.write

    def write_and_die(descriptor, data):
        write(descriptor, data[: int(float(share) * len(data))])
        os.kill(os.getpid(), signal.SIGKILL)

    files.os.write = write_and_die
    writer.write(make_large_record("r1", 1))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_killed_within_a_line(path, share):
    """Where a kill does cut a line, it is told, and the others are whole."""
    with start_apart(die_within_a_line, path, share) as process:
        assert process.wait() == -signal.SIGKILL
    [run], num_torn = load_quietly(path)
    assert (run.torn, num_torn, len(run.records)) == (True, 1, 1)
    RunWriter(path).write(make_large_record("r1", 2))
    [run], num_torn = load_quietly(path)
    assert (run.torn, num_torn) == (True, 1)
    assert [record.index for record in run.records] == [0, 2]


# --- many at a time ------------------------------------------------------


def append_run(path, run_id, num_records=200):
    writer = RunWriter(path)
    writer.write(make_header(run_id))
    for index in range(num_records):
        writer.write(make_large_record(run_id, index))
    writer.write(make_end(run_id, num_records=num_records))


def append_together(path, count):
    wait_for([fork(append_run, path, f"r{n}") for n in range(int(count))])


def append_unsafely(path, count):
    """What no writer may do: write a line in two parts without a lock."""
    write = os.write

    def write_some(descriptor, data):
        done = write(descriptor, data[: len(data) // 2 or 1])
        time.sleep(0)
        return done

    files.os.write = write_some
    file.locked = lambda _: contextlib.nullcontext(False)
    file._check_start = lambda _: None  # It would see the mixture.
    append_together(path, count)


def test_eight_processes_append_to_one_file(path):
    """No line is lost or mixed, and a reader meanwhile sees whole lines."""
    num_looks = 0
    with start_apart(append_together, path, 8) as process:
        while process.poll() is None:
            if path.exists():
                load_runs(path)  # A warning of a torn line would be an error.
                num_looks += 1
    assert process.returncode == 0
    runs = load_runs(path)
    assert sorted(run.run_id for run in runs) == [f"r{n}" for n in range(8)]
    for run in runs:
        assert [record.index for record in run.records] == list(range(200))
        assert run.finished
    assert num_looks > 1


def test_without_a_lock_lines_are_mixed(path):
    """The twin: parts of lines without a lock, and the reader tells."""
    run_apart(append_unsafely, path, 4)
    with pytest.raises(ValueError, match="line"):
        load_runs(path)


def write_on_both_sides(path):
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    writer.write(make_header("r2"))

    def write(run_id):
        for index in range(100):
            writer.write(make_large_record(run_id, index))

    pid = fork(write, "r2")
    write("r1")
    wait_for([pid])


def test_both_sides_of_a_fork_write(path):
    """A writer may be used on both sides of a fork."""
    run_apart(write_on_both_sides, path)
    assert [len(run.records) for run in load_runs(path)] == [100, 100]


# --- disk full and the like ----------------------------------------------


def fill(path, limit=0):
    """Write until it is an error; print that and how many were written."""
    if int(limit):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), -1))
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    for index in range(1000):
        try:
            writer.write(make_large_record("r1", index))
        except OSError as error:
            print(error.errno, index)
            break


def check_full(path, output, expected):
    """The error came, and the file ends with the last whole line."""
    code, count = map(int, output.split())
    assert code == expected
    assert path.read_bytes().endswith(b"}\n")
    run = load_run(path)  # A warning of a torn line would be an error.
    assert [record.index for record in run.records] == list(range(count))
    assert count > 1


@pytest.mark.parametrize("limit", [20_000, 30_001, 44_444])
def test_a_limit_of_the_file_size(path, limit):
    """A line that does not fit is an error and leaves nothing behind."""
    check_full(path, run_apart(fill, path, limit), errno.EFBIG)


def test_a_full_disk(tmp_path):
    """The same on a file system that is full: a small tmpfs of our own."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    folder, copy = tmp_path / "disk", tmp_path / "copy.jsonl"
    folder.mkdir()
    script = (
        'mount -t tmpfs -o size=64k none "$1" || exit 77\n'
        '"$2" -c "$3" && cp "$1/runs.jsonl" "$4"\n'
    )
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.runs import test_faults\n"
        f"test_faults.fill({str(folder / 'runs.jsonl')!r})"
    )
    result = subprocess.run(
        [
            *("unshare", "-rm", "sh", "-c", script, "sh"),
            *(folder, sys.executable, code, copy),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if not copy.exists():
        pytest.skip(f"no tmpfs of our own here: {result.stderr[-200:]}")
    check_full(copy, result.stdout, errno.ENOSPC)


def fail_after(size, code):
    """A disk that takes `size` bytes of a line and then no more."""
    write, calls = os.write, []

    def write_some(descriptor, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(code, os.strerror(code))
        return write(descriptor, data[:size])

    return write_some


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("torn_before", [False, True])
def test_what_was_written_is_taken_back(path, monkeypatch, code, torn_before):
    """The file is as it was before the line, and can go on."""
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    if torn_before:
        with path.open("ab") as file:
            file.write(b'{"type":"record","run_id":"r1","ind')
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", fail_after(100, code))
        with pytest.raises(OSError, match="Errno"):
            writer.write(make_large_record("r1", 0))
    assert path.read_bytes() == before
    writer.write(make_large_record("r1", 0))
    [run], num_torn = load_quietly(path)
    assert (len(run.records), num_torn) == (1, int(torn_before))


def test_without_taking_back_the_line_is_torn(path, monkeypatch):
    """The twin: where nothing can be cut off, half a line stays, and is told.

    So it is without locks, where others may have written behind it.
    """
    fcntl = pytest.importorskip("fcntl")
    writer = RunWriter(path)
    writer.write(make_header("r1"))

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", fail_after(100, errno.ENOSPC))
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(OSError, match="Errno"):
            writer.write(make_large_record("r1", 0))
    [run], num_torn = load_quietly(path)
    assert (run.torn, num_torn, run.records) == (True, 1, ())


def test_nothing_written_is_an_error(path, monkeypatch):
    """A system that takes nothing does not make the writer wait for ever."""
    monkeypatch.setattr(files.os, "write", lambda *_: 0)
    with pytest.raises(OSError, match="Nothing could be written"):
        RunWriter(path).write(make_header("r1"))
    assert path.read_bytes() == b""


def test_the_directory_vanishes(path, tmp_path):
    """A directory that is gone is an error, and is not made again."""
    path = tmp_path / "logs" / "runs.jsonl"
    path.parent.mkdir()
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    shutil.rmtree(path.parent)
    for entry in (make_large_record("r1", 0), make_header("r2")):
        with pytest.raises(FileNotFoundError, match=r"which is gone"):
            writer.write(entry)
    assert not path.parent.exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_the_file_becomes_read_only(path, monkeypatch, code):
    """So is a file that can be written no more; it goes on when it can."""
    writer = RunWriter(path)
    writer.write(make_header("r1"))

    def refuse(name, *_):
        raise OSError(code, os.strerror(code), name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Errno") as caught:
            writer.write(make_large_record("r1", 0))
    assert caught.value.errno == code
    writer.write(make_large_record("r1", 0))
    assert len(load_run(path).records) == 1
