"""The weights themselves, one HDF5 file per snapshot, beside a run's file.

What is read is not trusted: a snapshot gives arrays with the checksums that
stand beside them, or a `ValueError`. docs/run-format.md describes the format.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.arrays.hdf5 import (
    ArrayFile,
    DamagedError,
    FileKind,
    make_image,
    naming,
    open_file,
    set_text,
    told,
    write_array,
)
from keras_repro.common.files import remove_left_over, replace_whole
from keras_repro.common.text import quote
from keras_repro.runs.run import RUN_ID, Run, RunRecord

FORMAT = "keras_repro.snapshot/1"

_KIND = FileKind(
    name="A snapshot",
    format=FORMAT,
    next_step=(
        "Keep the folder beside the run's file, restore what is gone, or "
        "compare without it."
    ),
    has_long_texts=False,
    is_compressed=True,
)
_SUFFIX = ".snapshots"
_NAME = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,127}\.h5")


def snapshot_folder(log_path: str | os.PathLike[str], run_id: str) -> Path:
    """Say where the snapshots of a run lie.

    Example:
        >>> snapshot_folder("logs/runs.jsonl", "a1").as_posix()
        'logs/runs.jsonl.snapshots/a1'
    """
    path = Path(log_path)
    return path.parent / f"{path.name}{_SUFFIX}" / run_id


# --- writing -------------------------------------------------------------


def write_snapshot(
    folder: str | os.PathLike[str],
    name: str,
    variables: Mapping[tuple[str, str], npt.NDArray[Any]],
    checksums: Mapping[tuple[str, str], str],
    *,
    run_id: str,
) -> None:
    """Write variables into a file of their own, whole or not at all."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "`name` must be letters, digits, '_', '.' or '-' and end in '.h5'."
            f" Received: {name!r}. Pass a name such as 'record-000003.h5'."
        )
    missing = [key for key in variables if key not in checksums]
    if missing:
        raise ValueError(
            "`checksums` must have one of each variable. Received: none of "
            f"{missing[0]!r}. Pass what `checksum_array` gives."
        )
    content = make_image(lambda file: _fill(file, variables, checksums, run_id))
    folder = Path(folder)
    if not folder.exists():  # Once for each run.
        _remove_left_over(folder.parent)
    for one in (folder.parent, folder):
        one.mkdir(exist_ok=True)
        if one.is_symlink():
            raise NotADirectoryError(
                errno.ENOTDIR,
                "The folder of snapshots must be a folder and no link. "
                f"Received: '{one}', a link. Remove it",
            )
    # Written under another name, flushed to the disk and renamed: a process
    # that is killed leaves at most a hidden file that ends in `.tmp`, which a
    # later run removes when it is older than an hour.
    replace_whole(folder / name, content)


def _remove_left_over(parent: Path) -> None:
    """Remove what killed processes left of other runs' snapshots."""
    if parent.is_dir() and not parent.is_symlink():
        for one in parent.iterdir():
            if not one.is_symlink():
                remove_left_over(one)


def _fill(
    file: Any,
    variables: Mapping[tuple[str, str], npt.NDArray[Any]],
    checksums: Mapping[tuple[str, str], str],
    run_id: str,
) -> None:
    set_text(file, "format", FORMAT, _KIND)
    set_text(file, "run_id", run_id, _KIND)
    for index, (key, array) in enumerate(variables.items()):
        name, values = f"{index:06d}", np.asarray(array)
        dataset = write_array(file, name, values, _KIND)
        set_text(dataset, "role", key[0], _KIND)
        set_text(dataset, "place", key[1], _KIND)
        set_text(dataset, "checksum", checksums[key], _KIND)


# --- finding -------------------------------------------------------------


def find_snapshot(run: Run, record: RunRecord) -> Path | None:
    """Find the snapshot of a record, in the run's folder beside its file."""
    folder, name = run.header.snapshots, record.snapshot
    if folder is None or name is None or run.path is None:
        return None
    parent, _, last = folder.partition("/")
    named = (
        len(parent) > len(_SUFFIX)
        and parent.endswith(_SUFFIX)
        and not set(parent) & set("\\\0" + (":" if os.name == "nt" else ""))
        and last == run.run_id
        and RUN_ID.fullmatch(last)
        and set(last) != {"."}
        and _NAME.fullmatch(name)
    )
    if not named:
        raise _not_beside(run.path, f"{folder!a} and {name!a}")
    base = os.path.realpath(run.path.parent)
    path = Path(base, parent, last, name)
    if not os.path.lexists(path):
        return None
    # No link may lead elsewhere, and only a file can be read to its end.
    if os.path.realpath(path) != str(path) or not path.is_file():
        raise _not_beside(run.path, f"{str(path)!a}, a link or no file")
    return path


def _not_beside(path: Path, received: str) -> ValueError:
    return ValueError(
        "A snapshot must be a file in the folder of its run, beside the run's "
        f"file. Received: {quote(path)} with {received}. The file was changed "
        "or damaged: trust no other snapshot of it."
    )


# --- reading -------------------------------------------------------------


class Snapshot:
    """The variables in a snapshot, read one at a time; see `open_snapshot`."""

    def __init__(
        self,
        path: Path,
        run_id: str,
        file: ArrayFile,
        names: dict[tuple[str, str], str],
    ) -> None:
        self.path = path
        self.run_id = run_id
        self._file = file
        self._names = names

    def keys(self) -> list[tuple[str, str]]:
        """List the role and place of each variable, in order."""
        return list(self._names)

    def read(
        self, role: str, place: str, checksum: str | None = None
    ) -> npt.NDArray[Any]:
        """Read one variable, with its values verified."""
        name = self._names[role, place]
        with told(self.path, _KIND), naming(name):
            # Given, it is the one that the record has.
            if checksum not in (None, self._file.text("checksum", name)):
                msg = f"{place!a} is not of the record, whose checksum differs"
                raise DamagedError(msg)
            return self._file.array(name)


@contextmanager
def open_snapshot(path: str | os.PathLike[str]) -> Iterator[Snapshot]:
    """Open a snapshot to read it; what we cannot have written is refused."""
    # Links, external and virtual storage, foreign filters and dtypes, and
    # shapes out of proportion to the file are refused; nothing in the file is
    # executed or unpickled. HDF5 itself is only as safe as its version.
    path = Path(path)
    with open_file(path, _KIND) as file:
        with told(path, _KIND):
            snapshot = _read_index(file, path)
        yield snapshot


def _read_index(file: ArrayFile, path: Path) -> Snapshot:
    names: dict[tuple[str, str], str] = {}
    for name in file.names:
        with naming(name):
            key = (file.text("role", name), file.text("place", name))
            if key in names:
                msg = f"{key[1]!a} stands in it twice"
                raise DamagedError(msg)
            names[key] = name
    return Snapshot(path, file.text("run_id"), file, names)
