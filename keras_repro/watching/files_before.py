"""Files as they were before a process first wrote them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_repro.common.files import read_json_lines

_FOLDER, _INDEX = "kept", "index"
_MOST_BYTES = 1 << 28
_ABSENT, _DIRECTORY, _UNKNOWN = "-", "/", "?"


class KeptFiles:
    """Keeps copies of files that a process is about to write."""

    def __init__(self, folder: str) -> None:
        # Beside the copies lies an index: per line a JSON list of the name of
        # the copy, or what else was there, and the path.
        self._folder = Path(folder) / _FOLDER
        self._folder.mkdir(exist_ok=True)
        self._seen: set[str] = set()
        self._left = _MOST_BYTES

    def keep(self, path: str) -> None:
        """Keep a file, if it is the first time that it is written."""
        if path in self._seen:
            return
        self._seen.add(path)
        source, mark = Path(path), _ABSENT
        if source.is_dir():
            mark = _DIRECTORY
        elif source.exists():
            mark = self._copy(source)
        with (self._folder / _INDEX).open("a", encoding="utf-8") as index:
            index.write(json.dumps([mark, path]) + "\n")

    def _copy(self, source: Path) -> str:
        size = source.stat().st_size
        if not source.is_file() or size > self._left:
            return _UNKNOWN
        self._left -= size
        name = str(len(self._seen))
        shutil.copy2(source, self._folder / name)
        return name


@contextmanager
def as_before(folders: Sequence[Path], stash: Path) -> Iterator[None]:
    """Have files as they were before some processes, for a block."""
    earliest: dict[Path, Path | None] = {}
    for folder in folders:
        for mark, name in _read_index(folder):
            if mark not in (_DIRECTORY, _UNKNOWN):
                kept = folder / _FOLDER / mark
                before = None if mark == _ABSENT else kept
                earliest.setdefault(Path(name), before)
    now = {path: stash / str(i) for i, path in enumerate(earliest)}
    made = [path for path in earliest if path.is_dir()]
    for path, kept in now.items():
        if path.is_file():
            shutil.copy2(path, kept)
    try:
        _put(earliest, made)
        yield
    finally:
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        _put({p: kept if kept.exists() else None for p, kept in now.items()})


def _put(files: dict[Path, Path | None], made: Sequence[Path] = ()) -> None:
    """Make files what they were: a copy of something, or not there."""
    for path, source in files.items():
        if source is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, path)
        elif path.is_file() or path.is_symlink():
            path.unlink()
    # Only those that are empty now; what else is in one is not ours to move.
    for path in sorted(made, key=lambda one: -len(one.parts)):
        if path in files and files[path] is None:
            with suppress(OSError):
                path.rmdir()


def _read_index(folder: Path) -> list[tuple[str, str]]:
    lines = read_json_lines(folder / _FOLDER / _INDEX)
    return [(mark, path) for mark, path in lines]
