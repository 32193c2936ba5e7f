"""How Keras reads the data of a `fit`."""

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
