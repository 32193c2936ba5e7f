"""Passes over a `tf.data` pipeline, begun anew in their midst.

TensorFlow writes down where an iterator stands, with what it has read ahead.
It forgets the parts that have ended, though a shuffle goes on with the next
pass from where it came to: what lacks one of them is not used. Nor is anything
where a part keeps its state elsewhere, such as a random op or a function of
Python. From the private resource of an iterator (TensorFlow 2.16 to 2.21);
without it, and where nothing exact can be had, all is read once more.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.backends.data_passes import (
    KEPT,
    MOST_BYTES,
    ArrivalError,
    Over,
)
from keras_repro.backends.tensorflow import (
    PipelineGraph,
    checksum_structure,
    holds_datasets,
    list_moving_ops,
    serialize_pipeline,
)
from keras_repro.common.json import check_fields

_RESOURCE = "_iterator_resource"
# TensorFlow's own number for "raise where a part has a state elsewhere".
_FAIL = 2
_FIELDS = ("state", "ahead", "in_pass", "structure")
# What each part that goes on with the next pass has in a state, and no other.
_MARK = b"epoch_num_random_samples"
_GOES_ON = frozenset(
    {
        *("RandomDataset", "RandomDatasetV2"),
        *("ShuffleDatasetV2", "ShuffleDatasetV3"),
    }
)
_SEEDS = frozenset({"AnonymousSeedGenerator", "DummySeedGenerator"})
_Bytes = npt.NDArray[np.uint8]


class PipelinePasses:
    """What a training knows of its passes over one pipeline."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        # How many shuffles there are; `None` where no state is exact.
        self._num_going_on, self._structure = _examine(dataset)
        # The iterator of this pass and, once it is asked about, of the next.
        self._source: Any = None
        self._next: Any = None
        # How many batches it gave to Python, and the last of them by number.
        # TensorFlow's own steps take theirs unseen, and none ahead.
        self._given = 0
        self._last: collections.deque[tuple[int, Any]]
        self._last = collections.deque(maxlen=KEPT)
        self._stored: dict[str, Any] | None = None

    def write(self, in_pass: int) -> dict[str, Any] | None:
        """How the pass goes on after `in_pass` batches; `None` if unknown."""
        if self._num_going_on is None:
            return None
        source, ahead = self._source, []
        if source is None or (self._given and not in_pass):
            source = self._next = iter(self._dataset)
        else:
            ahead = [batch for n, batch in self._last if n > in_pass]
            if len(ahead) < self._given - in_pass:
                return None
        state = self._write_source(source)
        written = [_write_batch(one) for one in ahead]
        size = sum(leaf.nbytes for one in written for leaf in one)
        if state is None or size > MOST_BYTES:
            return None
        return {
            "state": state,
            "ahead": written,
            "in_pass": in_pass,
            "structure": self._structure,
        }

    def _write_source(self, source: Any) -> _Bytes | None:
        """Where an iterator stands, if that can be told."""
        import tensorflow as tf

        try:
            state = tf.raw_ops.SerializeIterator(
                resource_handle=getattr(source, _RESOURCE),
                external_state_policy=_FAIL,
            )
        except (tf.errors.OpError, AttributeError):
            self._num_going_on = None
            return None
        written = _to_bytes(state)
        if written.nbytes > MOST_BYTES:  # A shuffle holds that many samples.
            self._num_going_on = None
            return None
        is_whole = written.tobytes().count(_MARK) == self._num_going_on
        return written if is_whole else None

    def begin_at(self, written: Any) -> None:
        """Have the next pass go on as `write` told."""
        check_fields(written, dict.fromkeys(_FIELDS, lambda _: True))
        if written["structure"] != self._structure:
            raise ArrivalError(self._dataset, written["in_pass"])
        self._stored = written

    def follow(self, source: Any) -> None:
        """Begin a pass whose batches TensorFlow's own steps take."""
        stored, self._stored = self._stored, None
        self._source, self._next, self._given = source, None, 0
        self._last.clear()
        if stored is not None:
            self._restore(source, stored)

    def over(self, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """One pass whose batches Python takes; `make` gives its iterator."""
        stored = self._stored
        source = make() if self._next is None else self._next
        self.follow(source)
        if stored is not None:
            self._given = stored["in_pass"]
            for leaves in stored["ahead"]:
                yield self._note(_read_batch(leaves, self._dataset))
        for batch in source:
            yield self._note(batch)

    def _note(self, batch: Any) -> Any:
        self._given += 1
        self._last.append((self._given, batch))
        return batch

    def _restore(self, source: Any, stored: dict[str, Any]) -> None:
        import tensorflow as tf

        try:
            tf.raw_ops.DeserializeIterator(
                resource_handle=getattr(source, _RESOURCE),
                serialized=_from_bytes(stored["state"], tf.variant),
            )
        except (tf.errors.OpError, AttributeError) as error:
            raise ArrivalError(self._dataset, stored["in_pass"]) from error


def make_pipeline_adapter(
    dataset: Any, class_weight: dict[int, float] | None
) -> tuple[Any, PipelinePasses]:
    """Have a pipeline whose batches Python takes begin in its midst."""
    from keras.src.trainers.data_adapters import tf_dataset_adapter

    # Private in Keras 3.12 to 3.15.
    adapter = tf_dataset_adapter.TFDatasetAdapter(dataset, class_weight)
    passes = PipelinePasses(adapter._dataset)
    adapter._dataset = Over(adapter._dataset, passes)
    return adapter, passes


def _examine(dataset: Any) -> tuple[int | None, str | None]:
    """How many parts go on with the next pass, and what a pipeline does."""
    # `None` in the place of the number where no state is exact. With symbolic
    # checkpoints TensorFlow does not see that a random op moves on, and tells
    # a wrong place.
    options = getattr(dataset, "options", None)
    if options is None or options().experimental_symbolic_checkpoint:
        return None, None
    try:
        graph = PipelineGraph.parse(serialize_pipeline(dataset))
    except Exception:  # noqa: BLE001 - of many kinds
        return None, None
    ops, inner = list_moving_ops(graph)
    others = set(ops) - _GOES_ON - _SEEDS
    # A snapshot is none of them, and writes what it was given to the disk; a
    # pipeline that is an element of another one goes on by itself.
    is_snapshot = any("Snapshot" in node.op for node in graph.nodes)
    if inner or others or is_snapshot or holds_datasets(graph):
        return None, None
    number = sum(1 for op in ops if op in _GOES_ON)
    return number, checksum_structure(graph)


def _write_batch(batch: Any) -> list[_Bytes]:
    import tensorflow as tf

    leaves = tf.nest.flatten(batch, expand_composites=True)
    return [_to_bytes(one) for one in leaves if one is not None]


def _read_batch(leaves: list[_Bytes], dataset: Any) -> Any:
    import tensorflow as tf

    spec = dataset.element_spec
    specs = tf.nest.flatten(spec, expand_composites=True)
    tensors = [
        _from_bytes(leaf, one.dtype)
        for leaf, one in zip(leaves, specs, strict=True)
    ]
    return tf.nest.pack_sequence_as(spec, tensors, expand_composites=True)


def _to_bytes(tensor: Any) -> _Bytes:
    import tensorflow as tf

    return np.frombuffer(tf.io.serialize_tensor(tensor).numpy(), np.uint8)


def _from_bytes(written: _Bytes, dtype: Any) -> Any:
    import tensorflow as tf

    return tf.io.parse_tensor(written.tobytes(), dtype)
