"""Where the backups of a training lie: a folder each, the newest two kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_repro.arrays.checksums import checksum_array
from keras_repro.arrays.hdf5 import (
    ArrayFile,
    DamagedError,
    FileKind,
    find_dtype,
    make_image,
    open_file,
    set_text,
    told,
    write_raw,
)
from keras_repro.common.files import remove_left_over, replace_whole
from keras_repro.common.json import check_fields
from keras_repro.common.plain_values import Arrays, decode, encode

FORMAT = "keras_repro.backup/1"
START = "start.h5"
_LOCK = "backups.lock"
_KIND = FileKind(
    name="A backup",
    format=FORMAT,
    next_step="Remove it, or name another folder for the backups.",
    has_long_texts=True,
    is_compressed=False,
)
_LONGEST = 1 << 28  # Bytes of JSON.
_FOLDER = re.compile(r"\d{3,}")
_NAME = re.compile(r"(\d{6,})\.h5")
_MOST_AXES = 32


@dataclass(frozen=True)
class Backup:
    """What a file of a backup holds."""

    series: str  # Names the training that it is of.
    number: int  # Counts its backups.
    start: str  # The checksum of the file of its start.
    about: dict[str, Any]  # What the training is, as plain values.
    state: dict[str, Any]  # Where it stood, as plain values.


def write_backup(folder: Path, backup: Backup, keep: int) -> None:
    """Write a backup whole, or not at all, and remove the oldest ones."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder)
    replace_whole(folder / f"{backup.number:06d}.h5", _to_bytes(backup))
    for path in list_backups(folder)[keep:]:
        with suppress(OSError):
            path.unlink()


def list_backups(folder: Path) -> list[Path]:
    """The files of backups in a folder, the newest first."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                found.append((int(match[1]), path))
    return [path for _, path in sorted(found, reverse=True)]


def list_folders(root: Path) -> list[Path]:
    """The folders of trainings, in order."""
    with suppress(OSError):
        return sorted(
            path
            for path in root.iterdir()
            if _FOLDER.fullmatch(path.name) and path.is_dir()
        )
    return []


def find_whole(folder: Path, skipped: list[str], epochs: int) -> Backup | None:
    """The newest backup of a training that is whole, with its start there."""
    for path in list_backups(folder):
        try:
            backup = read_backup(path)
            require_start(folder, backup)
        except (ValueError, OSError) as error:
            skipped.append(str(error))
        else:
            # What had ended before the wanted number of epochs goes on from
            # the one before: none was about to begin an epoch.
            if not _ended_before(backup.state, epochs):
                return backup
    return None


def _ended_before(state: dict[str, Any], epochs: int) -> bool:
    has_ended = state["has_ended"] and not state["stopped"]
    return bool(has_ended and state["place"]["epoch"] < epochs)


def find_about(folder: Path) -> dict[str, Any] | None:
    """What the training of a folder is; of its values none is read."""
    for path in list_backups(folder):
        with suppress(ValueError, OSError):
            return read_backup(path, values=False).about
    return None


def next_number(folder: Path) -> int:
    """A number that no backup in a folder has."""
    newest = list_backups(folder)[:1]
    return int(newest[0].stem) + 1 if newest else 0


def require_start(folder: Path, backup: Backup) -> None:
    """Raise where the start of a training is not the one that it had."""
    path = folder / START
    if checksum_file(path) != backup.start:
        msg = (
            "The start of a training must stay beside its backups. Received: "
            f"{str(path)!r}, which is damaged or of another training. "
            f"{_KIND.next_step}"
        )
        raise ValueError(msg)


def checksum_file(path: Path) -> str:
    """Checksum of the bytes of a file."""
    return checksum_array(np.frombuffer(path.read_bytes(), np.uint8))


def remove_training(folder: Path) -> None:
    """Remove the backups of one training, and the folder if it is empty."""
    for path in [*list_backups(folder), folder / START]:
        with suppress(OSError):
            path.unlink()
    remove_left_over(folder, age=0)
    with suppress(OSError):
        folder.rmdir()


def remove_all(root: Path) -> None:
    """Remove the backups of all trainings, and what is empty then."""
    for folder in list_folders(root):
        remove_training(folder)
    remove_root(root)


def remove_root(root: Path) -> None:
    """Remove the folder of all backups if nothing else is in it."""
    with suppress(OSError):
        if [path.name for path in root.iterdir()] == [_LOCK]:
            shutil.rmtree(root)


def lock_path(root: Path) -> Path:
    """The file by which one process holds the backups."""
    return root / _LOCK


def _to_bytes(backup: Backup) -> bytes:
    arrays: Arrays = []
    about, state = (encode(x, arrays) for x in (backup.about, backup.state))
    checksums = list(map(checksum_array, arrays))
    text = json.dumps(
        {
            "series": backup.series,
            "number": backup.number,
            "start": backup.start,
            "about": about,
            "state": state,
            # In the text, whose checksum then is one of everything.
            "arrays": [
                [array.dtype.name, list(array.shape), checksum]
                for array, checksum in zip(arrays, checksums, strict=True)
            ],
        }
    )

    def fill(file: Any) -> None:
        set_text(file, "format", FORMAT, _KIND)
        set_text(file, "text", text, _KIND, _LONGEST)
        set_text(file, "checksum", _checksum_text(text), _KIND)
        for number, array in enumerate(arrays):
            dataset = write_raw(file, f"{number:06d}", array)
            set_text(dataset, "checksum", checksums[number], _KIND)

    return make_image(fill)


def _checksum_text(text: str) -> str:
    return checksum_array(np.frombuffer(text.encode(), np.uint8))


def read_backup(path: Path, *, values: bool = True) -> Backup:
    """Read a backup, with its state if `values`; nothing in it is trusted."""
    with open_file(path, _KIND) as file, told(path, _KIND):
        text = file.text("text", longest=_LONGEST)
        if _checksum_text(text) != file.text("checksum"):
            msg = "what it says does not have its checksum"
            raise DamagedError(msg)
        data = json.loads(text)
        check_fields(data, _CHECKS)
        arrays = list(_read_arrays(file, data["arrays"])) if values else []
        return Backup(
            series=data["series"],
            number=data["number"],
            start=data["start"],
            about=decode(data["about"], []),
            state=decode(data["state"], arrays) if values else {},
        )


_CHECKS = {
    "series": lambda value: isinstance(value, str),
    "number": lambda value: type(value) is int and value >= 0,
    "start": lambda value: isinstance(value, str),
    "about": lambda value: isinstance(value, dict),
    "state": lambda value: isinstance(value, dict),
    "arrays": lambda value: isinstance(value, list),
}


def _read_arrays(file: ArrayFile, listed: list[Any]) -> Iterator[Any]:
    if len(file.names) != len(listed):
        msg = (
            f"{len(listed)} arrays were written and {len(file.names)} are in it"
        )
        raise DamagedError(msg)
    for name, (dtype, shape, checksum) in zip(file.names, listed, strict=True):
        if len(shape) > _MOST_AXES or file.text("checksum", name) != checksum:
            msg = f"dataset {name!a} is not the one that was written"
            raise DamagedError(msg)
        yield file.raw(name, find_dtype(dtype), tuple(shape))
