"""The trials that are under way, backed up in the folder of their study."""

from __future__ import annotations

import sys
from collections.abc import Container
from concurrent.futures import (
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import suppress
from pathlib import Path
from typing import Any

from keras_repro.common.checks import check_save_freq
from keras_repro.common.text import describe
from keras_repro.resuming.several import remove_several
from keras_repro.studies.files import BACKUPS
from keras_repro.studies.outcomes import TrialBackups


def check_backup(
    backup: Any, path: Path | None, executor: Executor | None
) -> str | int | None:
    """Check how often trials are backed up, and that they can be."""
    if backup is None:
        return None
    frequency = check_save_freq("backup", backup)
    if path is None:
        msg = (
            "`backup` must have a `path`, in which the backups lie. Received: "
            f"backup={describe(frequency)} with path=None. Pass the name of a "
            'folder, such as "study".'
        )
        raise ValueError(msg)
    if executor is not None and not _is_here(executor):
        msg = (
            "`backup` must be used with workers on this machine, since a "
            "backup on the disk of another is not found again. Received: "
            f"{describe(executor)}, whose workers may be anywhere. Leave "
            "`backup` out, or pass `num_workers=`."
        )
        raise ValueError(msg)
    return frequency


def _is_here(executor: Executor) -> bool:
    loky = sys.modules.get("loky")
    here = (ProcessPoolExecutor, ThreadPoolExecutor)
    return isinstance(executor, here) or (
        loky is not None and isinstance(executor, loky.ProcessPoolExecutor)
    )


class StudyBackups:
    """The backups of the trials of a study, in its folder."""

    def __init__(self, path: Path, save_freq: str | int | None) -> None:
        # Absolute, since `train` may change the directory.
        self._folder = path.absolute() / BACKUPS
        self._save_freq = save_freq  # With `None` there are no new ones.

    def plan(self, seed: int) -> TrialBackups | None:
        """Where the trial of a seed is backed up, if it is."""
        if self._save_freq is None:
            return None
        return TrialBackups(
            folder=str(self._folder / str(seed)), save_freq=self._save_freq
        )

    def remove(self, seeds: Container[int]) -> None:
        """Remove the backups of trials that are kept, however they ran."""
        with suppress(OSError):
            for one in list(self._folder.iterdir()):
                if one.name.isdecimal() and int(one.name) in seeds:
                    remove_several(one)
            self._folder.rmdir()  # If nothing is under way.
