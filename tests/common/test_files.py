"""JSON lines of a process that may end at any moment."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from keras_repro.common.files import LineFile, read_json_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.jsonl"


def test_lines_come_back(path):
    """Each value is there as soon as it is written, in order."""
    lines = LineFile(path)
    assert list(read_json_lines(path)) == []
    lines.write({"a": 1}, ["two\nlines", "λ"])
    assert list(read_json_lines(path)) == [{"a": 1}, ["two\nlines", "λ"]]
    lines.write()
    lines.write(None)
    assert list(read_json_lines(path))[2:] == [None]


def test_two_processes_append(path):
    """Who opens the file later takes nothing away."""
    first, second = LineFile(path), LineFile(path)
    first.write(1)
    second.write(2)
    first.write(3)
    assert list(read_json_lines(path)) == [1, 2, 3]


def test_torn_line(path):
    """A line without its end is left out; a damaged one before it is not."""
    LineFile(path).write({"a": 1}, {"b": 2})
    path.write_bytes(path.read_bytes()[:-3])
    assert list(read_json_lines(path)) == [{"a": 1}]
    path.write_bytes(b'{"a": 1}\n{"b"\n')
    with pytest.raises(json.JSONDecodeError):
        list(read_json_lines(path))


def test_no_file(path):
    """A process that wrote nothing is one that did nothing."""
    assert list(read_json_lines(path)) == []
    assert list(read_json_lines(path.parent)) == []


def test_others_may_not_read(path):
    """What a program draws is nobody else's business."""
    LineFile(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="has no such device")
def test_full_disk():
    """Nothing is raised into the program that is watched."""
    with pytest.raises(OSError, match="No space"):
        Path("/dev/full").write_text("x", encoding="utf-8")
    LineFile("/dev/full").write({"a": 1})


def test_what_the_program_changes_is_not_in_the_way(path, monkeypatch):
    """The file is open before; a program that replaces `open` writes on."""
    lines = LineFile(path)
    monkeypatch.setattr(os, "open", None)
    monkeypatch.setattr("builtins.open", None)
    lines.write("x")
    monkeypatch.undo()
    assert list(read_json_lines(path)) == ["x"]
