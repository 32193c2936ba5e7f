"""Links, pipes, left-over files, locks and errors of the system.

Plain files of a person and of a study, without Keras.
"""

import csv
import errno
import os
import shutil
import socket
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from keras_repro.common.files import write_whole
from keras_repro.common.locks import hold_lock
from keras_repro.runs.file import RunWriter, load_run
from keras_repro.runs.lines import encode_entry
from keras_repro.runs.snapshots import write_snapshot
from keras_repro.studies import files as study_files
from keras_repro.studies.files import StudyFolder, load_trials
from keras_repro.studies.identity import Fingerprint, StudyIdentity
from keras_repro.studies.outcomes import TrialLine
from tests.builders import (
    make_end,
    make_header,
    make_record,
    make_results,
    save_snapshot,
)

pytestmark = pytest.mark.no_backend
fcntl = pytest.importorskip("fcntl", reason="needs a POSIX system")
PAGE = "<!DOCTYPE html>\n<html>{}</html>\n"


def begin(path):
    """Begin a study in a folder, or go on with it."""
    train = Fingerprint(code={"train": "kr1:0"}, data={})
    return StudyFolder(path, StudyIdentity(train=train), {})


def keep(folder, seed, *runs):
    """Keep what a trial gave."""
    line = TrialLine(
        seed=seed,
        scores={"loss": 0.5},
        checksum="kr1:0",
        seconds=1.0,
        worker="here",
        runs=(),
        status="",
        error="",
        traceback="",
    )
    folder.keep(line, runs)


@pytest.fixture
def study(tmp_path):
    """A study with one trial, in a folder of its own."""
    path = tmp_path / "study"
    folder = begin(path)
    keep(folder, 0, encode_entry(make_header("r0")))
    folder.close()
    return path


@pytest.fixture
def victim(tmp_path):
    """A file of somebody else's, and what it holds."""
    path = tmp_path / "victim"
    path.write_text("precious\n")
    yield path
    assert path.read_text() == "precious\n"


def plant(kind, path, victim):
    """Put something that is no regular file in the place of one."""
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(victim.with_name("new"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))


# --- links and pipes ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
@pytest.mark.parametrize("name", ["trials.jsonl", "runs.jsonl"])
def test_a_study_writes_through_no_link(study, victim, name, kind):
    """Nor into a pipe; the twin below writes to the same places."""
    folder = begin(study)
    plant(kind, study / name, victim)
    with pytest.raises(OSError, match=f"regular one.*{name}"):
        keep(folder, 1, "{}")
    folder.close()
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("name", ["study.json", "trials.jsonl", "runs.jsonl"])
def test_a_study_is_read_through_no_link(study, name, kind):
    """Though what it leads to is the very file."""
    moved = (study / name).rename(study.parent / f"moved-{name}")
    plant(kind, study / name, moved)
    with pytest.raises(ValueError, match=f"regular one.*{name}"):
        _ = load_trials(study).runs


def test_a_study_of_regular_files(study):
    """The twin: without a link all of it is written and read."""
    folder = begin(study)
    keep(folder, 1)
    folder.close()
    assert load_trials(study).seeds == (0, 1)


def test_a_study_in_a_folder_that_is_a_link(study, tmp_path):
    """The folder itself the person named: it may be one."""
    (tmp_path / "named").symlink_to(study)
    assert load_trials(tmp_path / "named").seeds == (0,)


@pytest.mark.parametrize("kind", ["link", "dangling"])
def test_the_lock_of_a_study_is_no_link(study, victim, kind):
    """Neither is what it leads to made, nor held."""
    plant(kind, study / "study.lock", victim)
    with pytest.raises(OSError, match="study"):
        begin(study)
    assert not victim.with_name("new").exists()


def write_run(path):
    """A whole run."""
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    writer.write(make_record("r1"), make_end("r1", num_records=1))


def test_a_run_through_a_link(tmp_path, victim):
    """To a run's file; not to another file, to nothing, or to itself."""
    (tmp_path / "real.jsonl").touch()
    write_run(tmp_path / "real.jsonl")
    link = tmp_path / "runs.jsonl"
    plant("link", link, tmp_path / "real.jsonl")
    writer = RunWriter(link)
    writer.write(make_header("r2"))
    assert load_run(link, run_id="r2").run_id == "r2"
    assert link.is_symlink()
    plant("link", link, victim)
    with pytest.raises(ValueError, match="run's file"):
        RunWriter(link)
    plant("dangling", link, victim)
    with pytest.raises(FileNotFoundError, match=r"a link to '.*new'"):
        RunWriter(link)
    plant("link", link, link)
    with pytest.raises(FileNotFoundError, match=r"a link to '.*runs\.jsonl'"):
        RunWriter(link)
    assert not victim.with_name("new").exists()


def test_a_link_that_is_planted_later(tmp_path, victim):
    """After the file was looked at, and before its first line."""
    path = tmp_path / "runs.jsonl"
    writer = RunWriter(path)
    plant("dangling", path, victim)
    with pytest.raises(FileNotFoundError):
        writer.write(make_header("r1"))
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file(tmp_path, victim, kind, monkeypatch):
    """Nothing waits for a pipe or takes its place."""
    monkeypatch.chdir(tmp_path)  # The name of a socket must be short.
    path = tmp_path / "out"
    plant(kind, Path("out"), victim)
    with pytest.raises(ValueError, match="regular one"):
        load_run(path)
    for write in (
        RunWriter,
        lambda path: write_whole(path, "text"),
        lambda path: make_results().to_csv(path),
        lambda path: make_results().to_json(path),
    ):
        with pytest.raises(OSError, match="regular one"):
            write(path)
    assert not stat.S_ISREG(path.lstat().st_mode)


def test_a_page_through_a_link(tmp_path, victim):
    """The page behind it is replaced, and no file of another kind."""
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text(PAGE.format("old"))
    plant("link", link, page)
    write_whole(link, PAGE.format("new"))
    assert link.is_symlink()
    assert "new" in page.read_text()
    plant("link", link, victim)
    with pytest.raises(ValueError, match=r"same kind.*link to '.*victim'"):
        write_whole(link, PAGE.format("new"))
    assert link.is_symlink()
    plant("dangling", link, victim)
    with pytest.raises(FileNotFoundError, match=r"a link to '.*new'"):
        write_whole(link, PAGE.format("new"))


# --- temporary files ---------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_the_mode_is_that_of_the_umask(tmp_path, mask):
    """As of any file that the program makes."""
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "a.html", PAGE)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.html").stat().st_mode) == 0o666 & ~mask


def test_a_planted_temporary_file(tmp_path, victim, monkeypatch):
    """Its name cannot be known; and where it is, it is not written through."""
    (tmp_path / f".a.html.{os.getpid()}.tmp").symlink_to(victim)
    write_whole(tmp_path / "a.html", PAGE)
    assert (tmp_path / "a.html").read_text() == PAGE
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".a.html.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.html", "<!DOCTYPE html>\nmore")
    assert (tmp_path / "a.html").read_text() == PAGE


def test_what_a_kill_left(tmp_path, study):
    """Goes after an hour, or when the study is held; nothing else goes."""
    names = [".a.html.77.tmp", f".a.html.{'0' * 16}.tmp"]
    others = [".a.html.tmp", ".b.html.77.tmp", "a.html.77.tmp", ".a.html.x.tmp"]
    for folder in (tmp_path, study):
        for name in (*names, *others):
            (folder / name).touch()
    write_whole(tmp_path / "a.html", PAGE)
    assert all((tmp_path / name).exists() for name in (*names, *others))
    long_ago = time.time() - 3700
    for name in (*names, *others):
        os.utime(tmp_path / name, (long_ago, long_ago))
    write_whole(tmp_path / "a.html", PAGE)
    assert not any((tmp_path / name).exists() for name in names)
    assert all((tmp_path / name).exists() for name in others)
    begin(study).close()
    left = [one for one in (*names, *others) if (study / one).exists()]
    assert left == [one for one in others if one != ".b.html.77.tmp"]


def test_what_killed_runs_left_of_snapshots(tmp_path):
    """Goes after an hour, at the first snapshot of another run."""
    parent = tmp_path / "runs.jsonl.snapshots"
    left = parent / "killed" / f".record-000001.h5.{'0' * 16}.tmp"
    left.parent.mkdir(parents=True)
    values = {("trainable", "w"): np.ones(2)}
    checksums = dict.fromkeys(values, "kr1:" + 32 * "0")
    for run_id, is_old, stays in (
        ("first", False, True),
        ("first", True, True),  # Not with each snapshot of a run.
        ("second", True, False),
    ):
        left.touch()
        if is_old:
            os.utime(left, (0, 0))
        for name in ("record-000000.h5", "record-000001.h5"):
            write_snapshot(
                parent / run_id, name, values, checksums, run_id=run_id
            )
        assert left.exists() == stays


# --- locks -------------------------------------------------------------------


def test_a_study_that_a_version_before_holds(study):
    """Both lock one file in one way, and see each other."""
    with (study / "study.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError, match="another one is running"):
            begin(study)
    lock = hold_lock(study / "study.lock")
    with (
        (study / "study.lock").open("ab") as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
    begin(study).close()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOLCK, "no two processes run it.*local disk"),
        (errno.ENOSYS, "no two processes run it.*local disk"),
        (errno.EOPNOTSUPP, "no two processes run it.*local disk"),
        (errno.EIO, "Look at the disk"),
    ],
)
def test_a_study_without_locks(study, monkeypatch, code, told):
    """Is refused, and says what to do."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = {one.name: one.read_bytes() for one in study.iterdir()}
    with pytest.raises(OSError, match=told) as caught:
        begin(study)
    assert caught.value.errno == code
    assert str(study) in str(caught.value)
    assert {one.name: one.read_bytes() for one in study.iterdir()} == before


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADF])
def test_what_is_no_lack_of_locks(tmp_path, monkeypatch, code):
    """A disk that fails is told as that, not taken for one without locks."""
    path = tmp_path / "runs.jsonl"
    write_run(path)

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        load_run(path)
    with pytest.raises(OSError, match=os.strerror(code)):
        RunWriter(path).write(make_header("r2"))


# --- errors of the system ----------------------------------------------------

TROUBLES = {
    errno.ENOSPC: "Make room",
    errno.EDQUOT: "Make room",
    errno.EROFS: "Choose a place",
    errno.EMFILE: "ulimit",
    errno.EIO: "Look at the disk",
}


@pytest.mark.parametrize("code", TROUBLES)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_trouble_has_a_path_and_a_next_step(
    tmp_path, study, monkeypatch, call, code
):
    """Of a page, a table and a study; what was there is as it was."""
    page = tmp_path / "a.html"
    page.write_text(PAGE)
    folder = begin(study)
    before = (study / "trials.jsonl").read_bytes()

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    actions = {
        study: lambda: keep(folder, 1),  # It has several files.
        page: lambda: write_whole(page, PAGE),
    }
    if call == "write":  # A page is written by a file object.
        del actions[page]
    for path, action in actions.items():
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with pytest.raises(OSError, match=TROUBLES[code]) as caught:
                action()
        assert caught.value.errno == code
        assert str(path) in str(caught.value)
    assert page.read_text() == PAGE
    assert not list(tmp_path.glob(".*.tmp"))
    if call != "fsync":  # By then the line is there.
        assert (study / "trials.jsonl").read_bytes() == before
    keep(folder, 2)
    folder.close()
    assert 2 in load_trials(study).seeds


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_study_that_can_only_be_read(study, tmp_path, monkeypatch, code):
    """Is opened to read; a new one is refused."""

    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(study_files, "hold_lock", refuse)
    folder = begin(study)
    assert not folder.is_writable
    assert list(folder.content.outcomes) == [0]
    folder.close()
    with pytest.raises(OSError, match="study's folder must be writable"):
        begin(tmp_path / "other")


# --- what is told of it ------------------------------------------------------


def test_a_run_that_lacks_records(tmp_path):
    """Has not finished, whatever its last line says."""
    path = tmp_path / "runs.jsonl"
    writer = RunWriter(path)
    writer.write(make_header("r1"))
    writer.write(make_record("r1"), make_end("r1", num_records=2))
    assert not load_run(path).finished
    path.unlink()
    write_run(path)
    assert load_run(path).finished


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *((text, f"'{text}") for text in ("=1+1", "+1", "-1", "@a")),
        ("\t=1", "'\t=1"),
        ("\r=1", r"\r=1"),
        ("a,b", "a,b"),
    ],
)
def test_a_cell_that_a_spreadsheet_would_compute(tmp_path, text, written):
    """Is text; a number that begins with a minus stays one."""
    results = make_results(
        (-0.5, 1.0), workers=(text, "plain"), checksums=("kr1:0", "kr1:1")
    )
    results.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [one["worker"] for one in rows] == [written, "plain"]
    assert [float(one["rmse"]) for one in rows] == [-0.5, 1.0]


# --- snapshots ---------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "parent", "file", "temporary"])
def test_a_snapshot_is_written_through_no_link(
    tmp_path, victim, place, monkeypatch
):
    """Nor is the training stopped for it: it is an error of the system."""
    folder = tmp_path / "runs.jsonl.snapshots" / "r1"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arrays = {("weights", "kernel"): np.ones(3, "float32")}
    save_snapshot(folder, arrays)  # The twin: a folder of its own.
    if place in ("folder", "parent"):
        planted = folder if place == "folder" else folder.parent
        shutil.rmtree(planted)
        planted.symlink_to(elsewhere)
        with pytest.raises(NotADirectoryError, match=r"a link\. Remove it"):
            save_snapshot(folder, arrays)
        assert not list(elsewhere.rglob("*.h5"))
        return
    name = "record-000000.h5"
    monkeypatch.setattr(os, "urandom", bytes)
    if place == "temporary":
        (folder / f".{name}.{'0' * 16}.tmp").symlink_to(victim)
        with pytest.raises(FileExistsError):
            save_snapshot(folder, arrays)
        return
    (folder / name).unlink()
    (folder / name).symlink_to(victim)
    save_snapshot(folder, arrays)  # The link goes, and not what it leads to.
    assert not (folder / name).is_symlink()
