"""Arrays fed to a `fit` in an order of our own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt


def make_ordered_adapter(
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None,
    steps: int | None,
    class_weight: dict[int, float] | None,
    order: Callable[[int, int], npt.NDArray[np.int64]],
    left_out: Callable[[], int] | None,
) -> Any:
    """Make a data adapter that feeds arrays in the order that `order` gives."""
    # `left_out` gives how many batches the next pass leaves out.
    adapter = _adapter_class()(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=False,
        class_weight=class_weight,
    )
    adapter.order, adapter.left_out = order, left_out
    return adapter


@functools.cache
def _adapter_class() -> type:
    """Keras' array adapter, but for its permutation."""
    # `fit` takes a `DataAdapter` as it is (Keras 3.12 to 3.15). Keras' own
    # does the checking, the weights and the slicing.
    from keras.src.trainers.data_adapters import array_data_adapter

    class OrderedArrayAdapter(array_data_adapter.ArrayDataAdapter):
        order: Any
        left_out: Any

        def _get_iterator(self, slice_and_convert: Any, inputs: Any) -> Any:
            # The base class gets NumPy and JAX iterators from this one.
            return self.batches(
                lambda leaf, indices: slice_and_convert(leaf, indices=indices),
                inputs,
            )

        def batches(self, take: Any, inputs: Any) -> Iterator[Any]:
            size, batch_size = self._num_samples, self._batch_size
            indices = self.order(size, batch_size)
            first = self.left_out() * batch_size if self.left_out else 0
            for start in range(first, size, batch_size):
                chosen = indices[start : start + batch_size]
                yield keras.tree.map_structure(
                    lambda leaf, chosen=chosen: (
                        None if leaf is None else take(leaf, chosen)
                    ),
                    inputs,
                )

        def get_torch_dataloader(self) -> Any:
            return _TorchBatches(self)

        def get_tf_dataset(self) -> Any:
            return _make_pipeline(self)

    return OrderedArrayAdapter


class _TorchBatches:
    """An iterable of batches as torch tensors, one pass per `iter`."""

    def __init__(self, adapter: Any) -> None:
        from keras.src.trainers.data_adapters import array_slicing

        self._adapter = adapter
        self._inputs = array_slicing.convert_to_sliceable(
            adapter._inputs, target_backend="torch"
        )

    def __iter__(self) -> Iterator[Any]:
        def take(leaf: Any, indices: npt.NDArray[np.int64]) -> Any:
            rows = leaf.convert_to_torch_compatible(leaf[indices])
            return keras.ops.convert_to_tensor(rows)

        return iter(self._adapter.batches(take, self._inputs))

    def __len__(self) -> int:
        return int(self._adapter.num_batches)


def _make_pipeline(adapter: Any) -> Any:
    """The pipeline of Keras' array adapter, with the order of the adapter."""
    import tensorflow as tf
    from keras.src.trainers.data_adapters import array_slicing

    inputs = keras.tree.lists_to_tuples(
        array_slicing.convert_to_sliceable(
            adapter._inputs, target_backend="tensorflow"
        )
    )
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE
    )
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    data = tf.data.Dataset.from_tensors(inputs).repeat()
    pairs = tf.data.Dataset.zip((_make_index_pipeline(adapter), data))
    return (
        pairs.map(_gather, num_parallel_calls=tf.data.AUTOTUNE)
        .with_options(options)
        .prefetch(tf.data.AUTOTUNE)
    )


def _make_index_pipeline(adapter: Any) -> Any:
    """A pipeline of the indices of each batch, in the order of the pass."""
    import tensorflow as tf

    size, batch = adapter._num_samples, adapter._batch_size
    # TensorFlow holds on to what it calls, which must not hold the data.
    next_order = functools.partial(adapter.order, size, batch)
    left_out = adapter.left_out

    def pass_order(_: Any) -> Any:
        indices = tf.numpy_function(next_order, [], tf.int64)
        return tf.ensure_shape(indices, [size])

    def to_batches(indices: Any) -> Any:
        full = size // batch * batch
        batches = tf.data.Dataset.from_tensor_slices(
            tf.reshape(indices[:full], [-1, batch])
        )
        if full < size:
            rest = tf.data.Dataset.from_tensors(indices[full:])
            batches = batches.concatenate(rest)
        if left_out is None:
            return batches
        return batches.skip(tf.numpy_function(left_out, [], tf.int64))

    return tf.data.Dataset.range(1).map(pass_order).flat_map(to_batches)


def _gather(indices: Any, data: Any) -> Any:
    """The rows of all arrays at these indices."""
    import tensorflow as tf
    from keras.src.trainers.data_adapters import array_slicing

    def take(leaf: Any) -> Any:
        if isinstance(leaf, array_slicing.TensorflowSparseWrapper):
            return array_slicing.slice_tensorflow_sparse_wrapper(leaf, indices)
        if isinstance(leaf, (list, tuple, dict)):
            return None
        return tf.gather(leaf, indices) if tf.is_tensor(leaf) else leaf

    return keras.tree.traverse(take, data)
