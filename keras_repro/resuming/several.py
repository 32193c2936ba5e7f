"""The backups of a program that trains several times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keras_repro.resuming.backup import BackupAndRestore
from keras_repro.resuming.files import list_folders, remove_all
from keras_repro.resuming.keeper import Keeper


class SeveralBackups(BackupAndRestore):
    """Backs up every training of a program, by its number in the program."""

    # Run again, the program trains in the same order: what two trainings have
    # in common never makes one go on from the other. Those that have ended
    # stay, so that the program comes to the one it was killed in at once.

    def __init__(self, folder: Path, save_freq: str | int) -> None:
        super().__init__(folder, save_freq, delete_checkpoint=False)
        # Absolute, since the program may change its directory.
        self._folder = folder.absolute()
        self._number = 0
        self._is_busy = False

    @contextmanager
    def _keep_training(
        self, model: Any, call: dict[str, Any]
    ) -> Iterator[Keeper]:
        if self._is_busy:
            msg = (
                "A training that is backed up must not train another model "
                "within it, which could not be resumed. Received: a `fit` "
                f"of {model.name!r}, called by a callback of another `fit`. "
                "Train one after the other, or without backups."
            )
            raise ValueError(msg)
        self.backup_dir = self._folder / f"{self._number:06d}"
        self._number += 1
        self._is_busy = True
        try:
            with super()._keep_training(model, call) as keeper:
                yield keeper
        finally:
            self._is_busy = False

    def remove(self) -> None:
        """Remove them all: the program has come to its end."""
        remove_several(self._folder)


def remove_several(folder: Path) -> None:
    """Remove the backups of a program that has come to its end."""
    for one in list_folders(folder):
        remove_all(one)
    with suppress(OSError):
        folder.rmdir()  # If nothing else is in it.
