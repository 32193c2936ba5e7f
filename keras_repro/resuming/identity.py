"""Which training a backup is of, and whether that is the one that begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.backends.keras_internals import get_global_seed
from keras_repro.common.text import join_words, quote
from keras_repro.common.whose_code import warn_user
from keras_repro.model.data_order import outline_data
from keras_repro.model.data_positions import checksum_pipeline
from keras_repro.model.initial_state import InitialState
from keras_repro.model.trial_parts import Trial
from keras_repro.recording.header import identify_model
from keras_repro.resuming import files

_WORDS = {
    "given": "weights that were loaded or assigned",
    "epochs_trained": "number of epochs trained before",
    "compile": "configuration of `compile`",
    "model": "configuration of the model",
    "data": "content of the data",
    "kind": "kind of data",
}
# What a model that was interrupted in this process has otherwise by now.
_TRAINED = frozenset({"epochs_trained", "compile", "given"})


def describe_training(model: Any, call: dict[str, Any]) -> dict[str, Any]:
    """What a training is, before anything of it has run, as plain values."""
    data = outline_data(call)
    trial: Trial = model._repro
    return {
        "seed": trial.seeds.seed,
        "is_seeded": trial.seeds.requested is not None
        or get_global_seed() is not None,
        "vary": trial.seeds.vary,
        **identify_model(model),
        **data.identify(),
        "data": checksum_pipeline(call.get("x")) or data.checksum,
        "epochs_trained": trial.progress.epochs,
        "given": None
        if trial.start.state is None
        else _checksum_given(trial.start.state),
    }


def _checksum_given(state: InitialState) -> str | None:
    values = [
        state.value_of(index)
        for index, entry in enumerate(state.entries)
        if entry.source == "given"
    ]
    return compute_checksum(values) if values else None


def find_backup(
    root: Path,
    own: Path,
    about: dict[str, Any],
    interrupted: str | None,
    epochs: int,
) -> tuple[Path, files.Backup] | None:
    """The newest whole backup of a training, and its folder."""
    # `own` is the folder that the training would have, were it a new one;
    # `interrupted` the series of what was interrupted in this process.
    for folder in (own, *_list_others(root, own, about)):
        other = files.find_about(folder)
        if other is None:
            continue  # Killed before its first backup was whole.
        differing = _compare(about, other, interrupted)
        if not differing:
            backup = _find_whole(folder, epochs)
            return None if backup is None else (folder, backup)
        if folder == own:
            msg = (
                "A training can only resume as it was begun. Received: a "
                f"backup in {quote(own)} of a training with another "
                f"{join_words(differing)}. Put that back as it was, remove "
                "the backup to begin anew, or name another `backup_dir`."
            )
            raise ValueError(msg)
    _find_whole(own, epochs)
    return None


def _list_others(root: Path, own: Path, about: dict[str, Any]) -> list[Path]:
    """Other folders, of which one may be that of an equal training."""
    # Where the data have no checksum, an equal description may be one of other
    # data, such as another fold.
    if about["data"] is None:
        return []
    return [one for one in files.list_folders(root) if one != own]


def _find_whole(folder: Path, epochs: int) -> files.Backup | None:
    skipped: list[str] = []
    backup = files.find_whole(folder, skipped, epochs)
    if skipped:
        warn_user(
            RuntimeWarning(
                "Some backups were passed over, and an older one or the "
                f"beginning is used. {' '.join(skipped)}"
            )
        )
    return backup


def _compare(
    mine: dict[str, Any], other: dict[str, Any], interrupted: str | None
) -> list[str]:
    """What differs between two trainings, in words."""
    names = (set(mine) | set(other)) - {"is_seeded", "series"}
    if not mine["is_seeded"] and not other.get("is_seeded"):
        names.discard("seed")  # Drawn anew in each process.
    if interrupted is not None and interrupted == other.get("series"):
        names -= _TRAINED
    return sorted(
        _WORDS.get(name, name)
        for name in names
        if mine.get(name) != other.get(name)
    )
