"""Where an iterator of a library stands, as it tells of itself."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from keras_repro.backends.random_streams import (
    RngState,
    capture_python,
    rng_to_json,
)
from keras_repro.common.plain_values import UnknownValueError, require_plain

# Private in PyTorch 2 and torchdata 0.11; without them samples are read.
_TORCH = (
    "_SingleProcessDataLoaderIter",
    "_StatefulSingleProcessDataLoaderIter",
)
_MAP = 0


def gives_indices(source: Any) -> bool:
    """Whether an iterator of PyTorch has indices, which alone move it."""
    if type(source).__name__ not in _TORCH or source._dataset_kind != _MAP:
        return False
    # One that keeps a state of its own may move where nobody else sees it.
    return not hasattr(source._dataset, "state_dict")


def is_stateful_loader(data: Any) -> bool:
    """Whether the data is a `StatefulDataLoader` of torchdata."""
    return any(
        parent.__name__ == "StatefulDataLoader"
        and parent.__module__.startswith("torchdata.")
        for parent in type(data).__mro__
    )


@dataclass(frozen=True)
class LoaderPlace:
    """Where a `StatefulDataLoader` stands before a batch."""

    told: Any  # What it tells of itself.
    streams: RngState

    def to_json(self) -> dict[str, Any] | None:
        """Plain values; `None` where its data set tells others."""
        try:
            require_plain(self.told)
        except UnknownValueError:
            return None
        return {"told": self.told, "streams": rng_to_json(self.streams)}


def read_place(source: Any) -> Any:
    """Where an iterator stands; `None` of those that do not tell."""
    library = type(source).__module__.partition(".")[0]
    with suppress(Exception):  # This kind of data set has none.
        if library == "grain":
            return copy.deepcopy(source.get_state())
        if library == "torchdata":
            return _read_loader(source)
    return None


def _read_loader(source: Any) -> LoaderPlace | None:
    """Where a data set that gives its samples in a row says that it stands."""
    # Worker processes do not tell where their random streams stand, and where
    # samples have indices these are left out by `gives_indices`.
    told = source.state_dict()
    fetched = told.get("fetcher_state") or {}
    of_iterator = fetched.get("dataset_iter_state")
    if not fetched or of_iterator is told.get("dataset_state") is None:
        return None
    return LoaderPlace(copy.deepcopy(told), capture_python())
