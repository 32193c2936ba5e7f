"""What is fed: the order of arrays, and an outline of all data."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import (
    checksum_array,
    combine_checksums,
    compute_checksum,
    view_array,
)
from keras_repro.backends.data_adapters import (
    are_arrays,
    is_grain,
    is_tf_dataset,
    is_torch_loader,
)
from keras_repro.backends.keras_internals import list_leaves
from keras_repro.backends.random_streams import make_generator
from keras_repro.backends.reading import Place

_ORDER = "order"


def epoch_order(
    seed: int, epoch: int, num_samples: int
) -> npt.NDArray[np.int64]:
    """The order of the samples in one epoch, shape `(num_samples,)`."""
    # A counter-based generator keyed by the seed and the epoch: the same on
    # every backend, whatever ran before.
    return make_generator(seed, _ORDER, epoch).permutation(num_samples)


def epoch_order_within_batches(
    seed: int, epoch: int, num_samples: int, batch_size: int
) -> npt.NDArray[np.int64]:
    """The order for `shuffle="batch"`: shuffled inside each batch alone."""
    generator = make_generator(seed, _ORDER, epoch)
    order = np.arange(num_samples)
    for start in range(0, num_samples, batch_size):
        generator.shuffle(order[start : start + batch_size])
    return order


_USUAL_BATCH = 32  # As Keras has it.


def describe_batches(call: Mapping[str, Any]) -> Any:
    """What is fed to a step, as far as a traced step tells it apart."""
    arrays = (call.get("x"), call.get("y"), call.get("sample_weight"))
    if is_tf_dataset(arrays[0]):
        return repr(getattr(arrays[0], "element_spec", None))
    leaves = list_leaves(arrays)
    if not leaves or not are_arrays(arrays):
        return None
    size = call.get("batch_size") or _USUAL_BATCH
    shapes = [
        (tuple(one.shape[1:]), str(getattr(one, "dtype", ""))) for one in leaves
    ]
    # Ragged tensors and sparse matrices have no length.
    return shapes, size, leaves[0].shape[0] % size == 0


class OrderedPasses:
    """Gives each pass over the data the order of its epoch."""

    def __init__(self, seed: int, first_epoch: int, shuffle: Any) -> None:
        self._seed = seed
        # The epoch whose order the first pass has.
        self.first = self._next = first_epoch
        self._shuffle = shuffle
        # The last orders that it gave, so that what was fed can be told.
        self._given: dict[int, tuple[npt.NDArray[np.int64], int]] = {}
        self._begins = 0, 0
        self._to_leave_out = 0

    def begin_at(self, num_passes: int, in_pass: int) -> None:
        """Begin with a later pass, and so many batches into it."""
        self._begins = num_passes, in_pass
        self.begin_again()

    def left_out(self) -> Any:
        """How many batches the pass whose order was given leaves out."""
        count, self._to_leave_out = self._to_leave_out, 0
        return np.int64(count)

    def __call__(
        self, num_samples: int, batch_size: int
    ) -> npt.NDArray[np.int64]:
        """The order of the next pass, shape `(num_samples,)`."""
        epoch, self._next = self._next, self._next + 1
        order = self._make_order(epoch, num_samples, batch_size)
        self._given[epoch - self.first] = order, batch_size
        # A pipeline may have begun the next pass before this one is trained.
        self._given.pop(epoch - self.first - 3, None)
        return order

    def begin_again(self) -> None:
        """Count anew: what was given so far was only looked at."""
        num_passes, self._to_leave_out = self._begins
        self._next = self.first + num_passes
        self._given.clear()

    def _make_order(
        self, epoch: int, num_samples: int, batch_size: int
    ) -> npt.NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(num_samples)
        if self._shuffle == "batch":
            return epoch_order_within_batches(
                self._seed, epoch, num_samples, batch_size
            )
        return epoch_order(self._seed, epoch, num_samples)

    def find_batch(
        self, passes: int, batch: int
    ) -> npt.NDArray[np.int64] | None:
        """The samples of one batch."""
        while passes in self._given:
            order, size = self._given[passes]
            num_batches = -(-len(order) // size)
            if batch < num_batches:
                return order[batch * size : (batch + 1) * size]
            batch -= num_batches
            passes += 1
        return None


class FedSamples:
    """What a training on arrays was fed, batch by batch."""

    def __init__(
        self, arrays: Any, passes: OrderedPasses, steps: int | None
    ) -> None:
        # Inputs, targets and weights, nested in any way.
        self._arrays = arrays
        self.passes = passes
        # `steps_per_epoch`: with it, passes go on across epochs.
        self._steps = steps
        self._rows: list[npt.NDArray[Any]] | None = None
        # The pass, and the batch of it, that the first epoch began with, and
        # the batch of that epoch that is fed first.
        self._begins, self._first_batch = (0, 0), 0

    def begin_again(self) -> None:
        """Count the passes from here on."""
        self.passes.begin_again()

    def begin_at(self, place: Place) -> None:
        """Feed from a place on, in an epoch that counts as the first."""
        self.passes.begin_at(place.num_passes, place.in_pass)
        self._begins = place.num_passes, place.in_pass - place.batch
        self._first_batch = place.batch

    def select(
        self, epochs: int, first: int, last: int
    ) -> list[npt.NDArray[np.int64]] | None:
        """The samples of some batches, in their order."""
        chosen = []
        num_passes, in_pass = self._begins
        if epochs == 0:
            first = max(first, self._first_batch)
        if self._steps:
            in_pass += epochs * self._steps
        else:
            num_passes += epochs
        for batch in range(first, last + 1):
            indices = self.passes.find_batch(num_passes, in_pass + batch)
            if indices is None:
                return None
            chosen.append(indices)
        return chosen

    def checksum(self, chosen: list[npt.NDArray[np.int64]]) -> str | None:
        """Checksum of some samples."""
        if self._rows is None:
            self._rows = _find_rows(self._arrays)
        if not self._rows:
            return None
        parts = [
            checksum_array(rows[indices])
            for indices in chosen
            for rows in self._rows
        ]
        return combine_checksums(parts)


def _find_rows(arrays: Any) -> list[npt.NDArray[Any]]:
    """The arrays as NumPy sees them; none if one of them has no plain rows."""
    result = []
    for leaf in list_leaves(arrays):
        values = leaf.to_numpy() if hasattr(leaf, "iloc") else view_array(leaf)
        if values.ndim == 0 or values.dtype.hasobject:
            return []
        result.append(values)
    return result


@dataclasses.dataclass(frozen=True)
class DataOutline:
    """What `fit` was given."""

    # "arrays", "tf.data.Dataset", "PyDataset", "DataLoader", "generator" or
    # "unknown".
    kind: str = "unknown"
    num_samples: int | None = None  # `None` where nobody knows.
    num_batches: int | None = None  # Of an epoch, if the data say so.
    # Those of `fit` that decide what is fed in which order.
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Any = None  # Inputs, targets and weights, if they are arrays.

    def to_json(self) -> dict[str, Any]:
        """Plain values for a run's header."""
        leaves = () if self.arrays is None else keras.tree.flatten(self.arrays)
        return {
            "kind": self.kind,
            "num_samples": self.num_samples,
            "num_batches": self.num_batches,
            **self.arguments,
            "arrays": [
                {
                    # A ragged axis has no size.
                    "shape": [
                        None if size is None else int(size)
                        for size in leaf.shape
                    ],
                    "dtype": _name_dtype(leaf),
                }
                for leaf in leaves
                if hasattr(leaf, "shape")
            ],
        }

    def identify(self) -> dict[str, Any]:
        """What decides which samples are fed, as plain values."""
        return {
            "kind": self.kind,
            "num_samples": self.num_samples,
            **self.arguments,
            "data": self.checksum,
        }

    @functools.cached_property
    def checksum(self) -> str | None:
        """Checksum of the arrays, if they are some that can have one."""
        if self.arrays is None:
            return None
        try:
            return compute_checksum(self.arrays)
        except (TypeError, ValueError):  # Such as Python objects.
            return None

    @property
    def num_bytes(self) -> int:
        """How large the arrays are, about."""
        leaves = () if self.arrays is None else keras.tree.flatten(self.arrays)
        return sum(_count_bytes(leaf) for leaf in leaves)


def outline_data(call: Mapping[str, Any]) -> DataOutline:
    """Say what `fit` is given."""
    x = call.get("x")
    arrays = (x, call.get("y"), call.get("sample_weight"))
    kind = _find_kind(arrays)
    is_array = kind == "arrays"
    arguments: dict[str, Any] = {
        "batch_size": call.get("batch_size") or (32 if is_array else None),
        "shuffle": call.get("shuffle", True) if is_array else None,
        "steps_per_epoch": call.get("steps_per_epoch"),
        "initial_epoch": call.get("initial_epoch") or 0,
        "validation_split": call.get("validation_split") or 0.0,
    }
    weights = call.get("class_weight")
    if weights:
        arguments["class_weight"] = {
            str(key): float(value) for key, value in sorted(weights.items())
        }
    return DataOutline(
        kind=kind,
        num_samples=_count_rows(arrays) if is_array else None,
        num_batches=None if is_array else _count_batches(x),
        arguments=arguments,
        arrays=arrays if is_array else None,
    )


def _find_kind(arrays: tuple[Any, Any, Any]) -> str:
    x = arrays[0]
    if x is not None and are_arrays(arrays):
        return "arrays"
    if is_tf_dataset(x):
        return "tf.data.Dataset"
    if isinstance(x, keras.utils.PyDataset):
        return "PyDataset"
    if is_torch_loader(x):
        return "DataLoader"
    return "generator" if isinstance(x, types.GeneratorType) else "unknown"


def _count_rows(arrays: Any) -> int | None:
    for leaf in keras.tree.flatten(arrays):
        if hasattr(leaf, "shape") and len(leaf.shape):
            return int(leaf.shape[0])
    return None


def _count_batches(x: Any) -> int | None:
    try:
        return len(x)
    except (TypeError, ValueError, NotImplementedError, OverflowError):
        return None


def _count_bytes(leaf: Any) -> int:
    size = getattr(leaf, "nbytes", None)
    if isinstance(size, (int, np.integer)):
        return int(size)
    # Tables and sparse tensors; eight bytes for each number of them.
    return 8 * int(np.prod([int(n or 0) for n in getattr(leaf, "shape", ())]))


def _name_dtype(leaf: Any) -> str | None:
    dtype = getattr(leaf, "dtype", None)
    return None if dtype is None else str(getattr(dtype, "name", dtype))


def is_read_by_python(call: dict[str, Any]) -> bool:
    """Whether Python gives a `fit` batch after batch, in their order."""
    x = call.get("x")
    others = [call.get(name) for name in ("y", "sample_weight")]
    if any(other is not None for other in others):
        return False  # Keras refuses it.
    if isinstance(x, types.GeneratorType) or is_torch_loader(x) or is_grain(x):
        return call.get("class_weight") is None
    return (
        isinstance(x, keras.utils.PyDataset)
        and x.workers <= 1
        and not x.use_multiprocessing
    )


def can_begin_in_midst(call: dict[str, Any]) -> bool:
    """Whether a pass over these data can leave out what was read before."""
    x = call.get("x")
    if getattr(x, "persistent_workers", False):
        return False  # What these draw goes on from one pass to the next.
    return not isinstance(x, types.GeneratorType) and is_read_by_python(call)


def first_rows(arrays: Any, batch_size: int | None) -> Any:
    """The first batch of arrays nested in any way, without any shuffling."""
    size = batch_size or _USUAL_BATCH  # Keras' rule.

    def rows(leaf: Any) -> Any:
        if leaf is None:
            return None
        if hasattr(leaf, "iloc"):
            part = leaf.iloc[:size].to_numpy()
            return part if part.ndim > 1 else part[:, None]
        return leaf[:size]

    return keras.tree.map_structure(rows, arrays)
