"""How Keras reads the data of a `fit`, and arrays fed in our own order."""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt


def train_validation_split(
    arrays: tuple[Any, Any, Any], validation_split: float
) -> tuple[Any, Any]:
    """Split arrays as `fit(validation_split=...)` does (Keras 3.12 to 3.15)."""
    from keras.src.trainers.data_adapters import array_slicing

    split: tuple[Any, Any] = array_slicing.train_validation_split(
        arrays, validation_split=validation_split
    )
    return split


def are_arrays(data: Any) -> bool:
    """Whether `fit` would treat the data as arrays (Keras 3.12 to 3.15)."""
    from keras.src.trainers.data_adapters import array_data_adapter

    return bool(array_data_adapter.can_convert_arrays(data))


def is_tf_dataset(data: Any) -> bool:
    """Whether `fit` would treat the data as a `tf.data` pipeline."""
    return any(
        parent.__name__.startswith("Distributed")
        or parent.__name__ == "DatasetV2"
        for parent in type(data).__mro__
        if parent.__module__.startswith("tensorflow.python.")
    )


def is_torch_loader(data: Any) -> bool:
    """Whether the data is a `torch.utils.data.DataLoader`."""
    return any(
        parent.__name__ == "DataLoader"
        and parent.__module__.startswith("torch.utils.data")
        for parent in type(data).__mro__
    )


def is_grain(data: Any) -> bool:
    """Whether the data is one of Grain's data sets, or its loader."""
    return any(
        parent.__name__ in ("MapDataset", "IterDataset", "DataLoader")
        and parent.__module__.partition(".")[0] == "grain"
        for parent in type(data).__mro__
    )


def is_adapter(data: Any) -> bool:
    """Whether the data is an adapter already, which Keras takes as it is."""
    from keras.src.trainers.data_adapters import data_adapter

    return isinstance(data, data_adapter.DataAdapter)


def is_stateful(data: Any) -> bool:
    """Whether the data is an object whose Python code gives the batches."""
    return (
        isinstance(data, keras.utils.PyDataset)
        or is_torch_loader(data)
        or is_grain(data)
        or is_adapter(data)
    )


def is_pipeline(data: Any) -> bool:
    """Whether the data is a `tf.data` pipeline that tells its elements."""
    return is_tf_dataset(data) and hasattr(data, "element_spec")


@contextmanager
def iterations_through(through: Callable[[Any], Any]) -> Iterator[None]:
    """Have each pass over a library's data go through a function first."""
    # In this thread alone: others read what these data are made from.
    found = [
        getattr(sys.modules.get(module), name, None)
        for module, name in _ITERATED
    ]
    classes = [one for one in found if one is not None]
    makes = [one.__iter__ for one in classes]
    for one, make in zip(classes, makes, strict=True):
        one.__iter__ = _iterate_through(make, through)
    try:
        yield
    finally:
        for one, make in zip(classes, makes, strict=True):
            one.__iter__ = make


def _iterate_through(make: Any, through: Callable[[Any], Any]) -> Any:
    thread = threading.get_ident()

    def iterate(data: Any) -> Any:
        is_ours = threading.get_ident() == thread
        return make(through(data) if is_ours else data)

    return functools.update_wrapper(iterate, make)


# Where the classes are, in TensorFlow 2.16 to 2.21, PyTorch and Grain.
_ITERATED = (
    ("tensorflow.python.data.ops.dataset_ops", "DatasetV2"),
    ("torch.utils.data", "DataLoader"),
    ("grain", "MapDataset"),
    ("grain", "IterDataset"),
    ("grain", "DataLoader"),
)


def is_read_in_python(data: Any) -> bool:
    """Whether Python code gives the batches: an object's or a generator's."""
    return isinstance(data, types.GeneratorType) or is_stateful(data)


def make_late_adapter(
    make: Callable[[], Any], around: Callable[[], AbstractContextManager[Any]]
) -> Any:
    """Make a data adapter that makes the real one when it is first asked."""
    # Keras (3.12 to 3.15) makes the adapter of validation data, which may look
    # at batches, in the middle of a training. `around` gives what stands around
    # the making and each reading.
    from keras.src.trainers.data_adapters import data_adapter

    made: list[Any] = []

    def ask(name: str) -> Any:
        if not made:
            with around():
                made.append(make())
        return getattr(made[0], name)

    def reads(name: str) -> Callable[[Any], Any]:
        def read(_: Any) -> Any:
            method = ask(name)
            with around():
                return method()

        return read

    def tells(name: str) -> property:
        return property(lambda _: ask(name))

    methods = {name: reads(name) for name in _READS}
    told = {name: tells(name) for name in _TOLD}
    return type("LateAdapter", (data_adapter.DataAdapter,), methods | told)()


_READS = (
    "get_numpy_iterator",
    "get_jax_iterator",
    "get_tf_dataset",
    "get_torch_dataloader",
    "on_epoch_begin",
    "on_epoch_end",
)
_TOLD = ("num_batches", "batch_size", "has_partial_batch", "partial_batch_size")


class _Told:
    """A data adapter that reports where each of its passes begins and ends."""

    def __init__(
        self,
        adapter: Any,
        begins: Callable[[], None],
        ends: Callable[[], None],
    ) -> None:
        self._adapter, self._begins, self._ends = adapter, begins, ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def on_epoch_begin(self) -> None:
        self._begins()  # Workers read from here on.
        self._adapter.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._adapter.on_epoch_end()
        self._ends()


def tell_passes(
    iterator: Any, begins: Callable[[], None], ends: Callable[[], None]
) -> bool:
    """Have each pass of a training reported; whether each is one epoch."""
    # Keras' iterator of it calls its `data_adapter` (Keras 3.12 to 3.15).
    adapter = getattr(iterator, "data_adapter", None)
    if not hasattr(adapter, "on_epoch_begin"):
        return False
    iterator.data_adapter = _Told(adapter, begins, ends)
    return getattr(iterator, "steps_per_epoch", 0) is None


def make_adapter(x: Any) -> Any:
    """Make the adapter of data that are not shuffled (Keras 3.12 to 3.15)."""
    from keras.src.trainers import data_adapters

    return data_adapters.get_data_adapter(x)


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
    # `fit` takes a `DataAdapter` as it is (Keras 3.12 to 3.15). Keras' own
    # array adapter does the checking, the weights and the slicing; only the
    # permutation is replaced. `left_out` gives how many batches the next pass
    # leaves out.
    from keras.src.trainers.data_adapters import array_data_adapter

    class OrderedArrayAdapter(array_data_adapter.ArrayDataAdapter):
        def _next_order(self) -> npt.NDArray[np.int64]:
            return order(self._num_samples, self._batch_size)

        def _get_iterator(self, slice_and_convert: Any, inputs: Any) -> Any:
            # The base class gets NumPy and JAX iterators from this one.
            return self._batches(
                lambda leaf, indices: slice_and_convert(leaf, indices=indices),
                inputs,
            )

        def _batches(self, take: Any, inputs: Any) -> Iterator[Any]:
            indices = self._next_order()
            first = left_out() * self._batch_size if left_out else 0
            for start in range(first, self._num_samples, self._batch_size):
                chosen = indices[start : start + self._batch_size]
                yield keras.tree.map_structure(
                    lambda leaf, chosen=chosen: (
                        None if leaf is None else take(leaf, chosen)
                    ),
                    inputs,
                )

        def get_torch_dataloader(self) -> Any:
            return _TorchBatches(self)

        def get_tf_dataset(self) -> Any:
            return _ordered_tf_dataset(self, order, left_out)

    return OrderedArrayAdapter(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=False,
        class_weight=class_weight,
    )


def epoch_orders(
    num_samples: int, batch_size: int | None, num_epochs: int
) -> list[npt.NDArray[Any]]:
    """The orders in which `fit(shuffle=True)` would feed arrays now."""
    # Drawn from the program's generators as `fit` does (Keras 3.12 to 3.15).
    from keras.src.trainers.data_adapters import array_data_adapter

    adapter = array_data_adapter.ArrayDataAdapter(
        np.arange(num_samples), batch_size=batch_size, shuffle=True
    )
    name = keras.backend.backend()
    if name == "tensorflow":
        pipeline = adapter.get_tf_dataset()  # One for all epochs.
        passes = [iter(pipeline) for _ in range(num_epochs)]
    elif name == "torch":
        loader = adapter.get_torch_dataloader()
        passes = [iter(loader) for _ in range(num_epochs)]
    else:
        passes = [adapter.get_jax_iterator() for _ in range(num_epochs)]
    return [
        np.concatenate(
            [np.asarray(keras.tree.flatten(batch)[0]) for batch in one]
        )
        for one in passes
    ]


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

        return iter(self._adapter._batches(take, self._inputs))

    def __len__(self) -> int:
        return int(self._adapter.num_batches)


def _ordered_tf_dataset(
    adapter: Any,
    order: Callable[[int, int], npt.NDArray[np.int64]],
    left_out: Callable[[], int] | None,
) -> Any:
    """The pipeline of Keras' array adapter, with the order of the adapter."""
    import tensorflow as tf
    from keras.src.trainers.data_adapters import array_slicing

    inputs = keras.tree.lists_to_tuples(
        array_slicing.convert_to_sliceable(
            adapter._inputs, target_backend="tensorflow"
        )
    )
    size, batch = adapter._num_samples, adapter._batch_size

    # TensorFlow holds on to what it calls, which must not hold the data.
    next_order = functools.partial(order, size, batch)

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

    def gather(indices: Any, data: Any) -> Any:
        def take(leaf: Any) -> Any:
            if isinstance(leaf, array_slicing.TensorflowSparseWrapper):
                return array_slicing.slice_tensorflow_sparse_wrapper(
                    leaf, indices
                )
            if isinstance(leaf, (list, tuple, dict)):
                return None
            return tf.gather(leaf, indices) if tf.is_tensor(leaf) else leaf

        return keras.tree.traverse(take, data)

    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE
    )
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    orders = tf.data.Dataset.range(1).map(pass_order).flat_map(to_batches)
    data = tf.data.Dataset.from_tensors(inputs).repeat()
    pairs = tf.data.Dataset.zip((orders, data))
    return (
        pairs.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
        .with_options(options)
        .prefetch(tf.data.AUTOTUNE)
    )
