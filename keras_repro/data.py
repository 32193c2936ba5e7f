"""What is fed: the order of arrays, and what can be rewound of the rest."""

from __future__ import annotations

import logging
import types
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro import _backends, seeding
from keras_repro.attributes import AttributeState


def epoch_order(
    seed: int, epoch: int, num_samples: int
) -> npt.NDArray[np.int64]:
    """The order of the samples in one epoch, shape `(num_samples,)`.

    A counter-based generator keyed by the seed and the epoch: the same on
    every backend, whatever ran before.
    """
    return _generator(seed, epoch).permutation(num_samples)


def epoch_order_within_batches(
    seed: int, epoch: int, num_samples: int, batch_size: int
) -> npt.NDArray[np.int64]:
    """The order for `shuffle="batch"`: shuffled inside each batch alone."""
    generator = _generator(seed, epoch)
    order = np.arange(num_samples)
    for start in range(0, num_samples, batch_size):
        generator.shuffle(order[start : start + batch_size])
    return order


def _generator(seed: int, epoch: int) -> np.random.Generator:
    key = np.array([seeding.derive_seed(seed, "order"), epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


_log = logging.getLogger(__name__)


class OrderedPasses:
    """Gives each pass over the data the order of its epoch."""

    def __init__(self, seed: int, first_epoch: int, shuffle: Any) -> None:
        self._seed = seed
        self._next = first_epoch
        self._shuffle = shuffle

    def __call__(
        self, num_samples: int, batch_size: int
    ) -> npt.NDArray[np.int64]:
        """The order of the next pass, shape `(num_samples,)`."""
        epoch, self._next = self._next, self._next + 1
        if self._shuffle == "batch":
            return epoch_order_within_batches(
                self._seed, epoch, num_samples, batch_size
            )
        return epoch_order(self._seed, epoch, num_samples)


def _put_back(head: Any, rest: Any) -> Iterator[Any]:
    yield head
    yield from rest


def _head(arrays: Any, batch_size: int) -> Any:
    def rows(leaf: Any) -> Any:
        if leaf is None:
            return None
        if hasattr(leaf, "iloc"):
            part = leaf.iloc[:batch_size].to_numpy()
            return part if part.ndim > 1 else part[:, None]
        return leaf[:batch_size]

    return keras.tree.map_structure(rows, arrays)


def describe_order(x: Any) -> list[str]:
    """What of the data's own order a `reset()` cannot take back."""
    if isinstance(x, types.GeneratorType):
        return [
            "data: a Python generator is consumed; reset() does not rewind "
            "it. Make the generator anew for each trial."
        ]
    if isinstance(x, keras.utils.PyDataset) and x.workers > 1:
        return [
            "data: a PyDataset with more than one worker races for random "
            "numbers drawn in __getitem__. Use workers=1, or draw from a "
            "generator keyed by the index."
        ]
    return []


class DataPositions:
    """Random state that data objects keep, rewound with the trial."""

    def __init__(self) -> None:
        self._states: weakref.WeakKeyDictionary[Any, AttributeState] = (
            weakref.WeakKeyDictionary()
        )
        self._graphs: weakref.WeakKeyDictionary[Any, bytes | None] = (
            weakref.WeakKeyDictionary()
        )
        self._restarted: weakref.WeakKeyDictionary[Any, Any] = (
            weakref.WeakKeyDictionary()
        )

    def restart(
        self, dataset: Any, seed: int, *, at_start: bool
    ) -> tuple[Any, list[str]]:
        """A `tf.data` pipeline that stands where the trial stands.

        Args:
            dataset: The pipeline as the user made it.
            seed: The trial's; used where the pipeline has no seed.
            at_start: Whether a trial begins.

        Returns:
            The pipeline to feed, and what cannot be rewound, in words.
        """
        if dataset not in self._graphs:
            try:
                graph = _backends.serialize_pipeline(dataset)
            except Exception as error:  # noqa: BLE001 - of many kinds
                _log.debug("a pipeline cannot be rewound: %s", error)
                graph = None
            self._graphs[dataset] = graph
        graph = self._graphs[dataset]
        if graph is None:
            return dataset, [
                "data: this tf.data pipeline cannot be written as a graph; "
                "reset() does not rewind it. Make the pipeline anew for each "
                "trial."
            ]
        if at_start or dataset not in self._restarted:
            self._restarted[dataset] = _backends.restart_pipeline(
                dataset, graph, seeding.derive_seed(seed, "pipeline")
            )
        return self._restarted[dataset], []

    def enter(self, x: Any, *, at_start: bool) -> None:
        """Capture a data object when first seen; rewind it after a reset."""
        if not isinstance(x, keras.utils.PyDataset) and not (
            _backends.is_torch_loader(x)
        ):
            return
        known = self._states.get(x)
        if known is None:
            self._states[x] = _generators_of(x)
        elif at_start:
            known.restore()

    def first_batch(
        self, x: Any, y: Any, sample_weight: Any, batch_size: int | None
    ) -> tuple[Any, Any]:
        """Look at one batch, for its shapes.

        Returns:
            The batch, or `None` where there is none to look at, and the data
            to feed instead of `x` (a generator that was looked into).
        """
        if _backends.are_arrays((x, y, sample_weight)):
            return _head((x, y, sample_weight), batch_size or 32), x
        if _backends.is_tf_dataset(x):
            return x.element_spec, x
        if isinstance(x, types.GeneratorType):
            head = next(x, None)
            return (None, x) if head is None else (head, _put_back(head, x))
        before = _generators_of(x)
        try:
            if isinstance(x, keras.utils.PyDataset):
                return x[0], x
            if _backends.is_torch_loader(x):
                return next(iter(x), None), x
        finally:
            before.restore()
        return None, x


def _generators_of(x: Any) -> AttributeState:
    owners = [x, getattr(x, "sampler", None)]
    return AttributeState([owner for owner in owners if owner is not None])
