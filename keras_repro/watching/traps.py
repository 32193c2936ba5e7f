"""What is wrong with a training though it may be repeatable.

Loads Keras and NumPy only where the program has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keras_repro.common.text import shorten

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from keras_repro.model.data_order import DataOutline

_MOST_BYTES = 1 << 28
_MOST_SAMPLES = 1_000_000


def find_nan_features(x: Any) -> Iterator[str]:
    """Find features that are NaN in every sample."""
    import keras
    import numpy as np

    for name, leaf in _name_leaves(keras.tree.flatten(x), x):
        columns = _find_nan_columns(leaf)
        if columns is None or not len(columns):
            continue
        total = int(np.prod(leaf.shape[1:], dtype=int))
        shown = shorten(map(str, columns), 8)
        yield (
            f"{len(columns)} of {total} features{name} are NaN in every "
            f"sample: {shown}"
        )


def _name_leaves(leaves: list[Any], x: Any) -> Iterator[tuple[str, Any]]:
    names: list[str] = [""] * len(leaves)
    if isinstance(x, Mapping) and len(x) == len(leaves):
        names = [f" of {name!r}" for name in sorted(x)]
    elif len(leaves) > 1:
        names = [f" of input {i}" for i in range(len(leaves))]
    return zip(names, leaves, strict=True)


def _find_nan_columns(leaf: Any) -> npt.NDArray[np.intp] | None:
    import numpy as np

    if hasattr(leaf, "columns") and hasattr(leaf, "to_numpy"):
        leaf = leaf.to_numpy()
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind != "f":
        return None
    if leaf.ndim < 1 or not leaf.size or leaf.nbytes > _MOST_BYTES:
        return None
    # Most are settled by their first sample.
    flat = leaf.reshape(len(leaf), -1)
    suspected = np.flatnonzero(np.isnan(flat[0]))
    missing = np.isnan(flat[:, suspected]).all(axis=0)
    return suspected[missing]


def find_in_data(
    model: Any, call: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What of a `fit`'s data epochs, or workers, are given alike, by kind."""
    from keras_repro.backends.data_traps import (
        find_alike,
        find_copies,
        has_epochs,
    )
    from keras_repro.model.data_order import outline_data

    x = call.get("x")
    yield from ((COPIED_DRAWS, text) for text in find_copies(x))
    if has_epochs(call):
        found = find_alike(x, is_seeded=hasattr(model, "_repro"))
        yield from ((SAME_EPOCHS, text) for text in found)
        told = find_same_order(model, call, outline_data(call))
        yield from ((SAME_ORDER, text) for text in told)


def find_same_order(
    model: Any, call: Mapping[str, Any], outline: DataOutline
) -> Iterator[str]:
    """Whether `fit` would feed all epochs in one order though it shuffles."""
    from keras_repro.backends.data_traps import has_one_order

    number = outline.num_samples
    if (
        hasattr(model, "_repro")
        or outline.arrays is None
        or not call.get("shuffle", True)
        or (call.get("epochs") or 1) < 2
        or not number
        or not 2 < number <= _MOST_SAMPLES
    ):
        return
    if has_one_order(number, call.get("batch_size")):
        yield (
            "`fit` shuffles, and feeds every epoch in the same order: Keras "
            "does so on TensorFlow once a global seed is set"
        )


def read_rate(model: Any) -> float | None:
    """The learning rate as it is now; `None` without an optimizer."""
    import keras

    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


# Repeatable, and wrong nevertheless.
SAME_ORDER = "same_order"
VALIDATION_STEERS = "validation_steers"
SHARED_START = "shared_start"
SEED_IGNORED = "seed_ignored"
LOADED_RATE = "loaded_rate"
NAN_FEATURES = "nan_features"
SAME_EPOCHS = "same_epochs"
COPIED_DRAWS = "copied_draws"
TRAPS = (
    *(SAME_ORDER, VALIDATION_STEERS, SHARED_START, SEED_IGNORED),
    *(LOADED_RATE, NAN_FEATURES, SAME_EPOCHS, COPIED_DRAWS),
)
