"""Passes over data whose batches Python gives, begun anew in their midst.

What a pass needs to be gone on with is how the data and the random streams
stood when it began, and how many batches it gave. What was read before is then
left out: by its index where reading moves nothing, by an iterator's own state
where it has one, and else by reading it once more.
"""

from __future__ import annotations

import collections
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import keras

from keras_repro.arrays.checksums import combine_checksums, compute_checksum
from keras_repro.backends.data_adapters import is_grain, is_torch_loader
from keras_repro.backends.data_state import DataState, is_equal
from keras_repro.backends.iterator_places import (
    LoaderPlace,
    gives_indices,
    is_stateful_loader,
    read_place,
)
from keras_repro.backends.keras_internals import list_leaves
from keras_repro.backends.random_streams import (
    RngState,
    capture_python,
    is_same,
    kept_python,
    rng_from_json,
    rng_to_json,
)
from keras_repro.common.json import check_fields
from keras_repro.common.plain_values import UnknownValueError

# Fewer batches do not show whether reading moves something.
_FEWEST = 3
KEPT = 4
# Bytes of what moved; data that move more are read once more instead.
MOST_BYTES = 1 << 26


class ArrivalError(ValueError):
    """Data do not stand where they stood after so many batches."""

    def __init__(self, root: Any, in_pass: int) -> None:
        super().__init__(
            "A training can only resume on the data that it was begun "
            f"with. Received: {type(root).__name__}, which after {in_pass} "
            "batches does not stand where it stood. Make it as it was, or "
            "remove the backup."
        )


class Passes:
    """What a training knows of its passes over one data object."""

    def __init__(self, root: Any, start: DataState) -> None:
        self._root, self._start = root, start
        self._made: RngState | None = None
        # Whether the pass that was made last has given nothing yet.
        self._is_fresh = False
        self._begun: RngState | None = None
        # How the streams stood after the first batch, whose order may draw.
        self._drawn: RngState | None = None
        self._made_data = self._data = self._after_first = self._start
        # The last batches by number, and the states of the library's own
        # iterator before each.
        self._last: collections.deque[tuple[int, Any, Any]]
        self._last = collections.deque(maxlen=KEPT)
        self._stored: dict[str, Any] | None = None
        # Whether batches are only counted, and not made.
        self.is_dry = False

    def write(self, in_pass: int) -> dict[str, Any] | None:
        """How a pass goes on after `in_pass` batches; `None` if unknown."""
        # One that is yet to be made is made by what the streams are then.
        made = self._made if in_pass or self._is_fresh else None
        if in_pass and made is None:
            return None
        now = DataState(self._root, self._start)
        begun = self._begun if in_pass else None
        kept = {number: rest for number, *rest in list(self._last)}
        batch, state = kept.get(in_pass, (None, None))
        moves = not now.is_same(self._after_first)
        is_ahead = in_pass and max(kept, default=0) > in_pass
        if is_ahead and (moves or self._has_drawn()):
            # Keras 3.12 reads ahead on JAX: where data and streams stood
            # before it did is not known.
            return None
        if isinstance(state, LoaderPlace):
            state = state.to_json()
        try:
            made_data = self._start.moves_to(self._made_data)
            data = self._start.moves_to(self._data if in_pass else now)
            arrived = self._start.moves_to(now)
        except UnknownValueError:
            return None
        if _count_bytes([made_data, data, arrived]) > MOST_BYTES:
            return None
        return {
            "made": None if made is None else rng_to_json(made),
            "made_data": made_data,
            "begun": None if begun is None else rng_to_json(begun),
            "data": data,
            "arrived": arrived,
            "reads": in_pass < _FEWEST or moves,
            "state": state,
            "last": checksum_batch(batch),
            "in_pass": in_pass,
        }

    def begin_at(self, written: Any) -> None:
        """Have the next pass go on from what `write` gave, or `ValueError`."""
        check_fields(written, dict.fromkeys(_FIELDS, lambda _: True))
        self._stored = {
            **written,
            "made": written["made"] and rng_from_json(written["made"]),
            "begun": written["begun"] and rng_from_json(written["begun"]),
            "made_data": self._start.moved_to(written["made_data"]),
            "data": self._start.moved_to(written["data"]),
        }

    def over(self, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """One pass; `make` makes an iterator, as the library does it."""
        made: RngState | None = None
        if self._stored is not None:
            made = self._stored["made"]
        if self._stored is not None and made is None:
            # Not even made then: how the data stood is all that it needs.
            self._stored["data"].restore()
            self._stored = None
        self._made, self._is_fresh = made or capture_python(), True
        stored = self._stored
        if stored is None:
            self._made_data = DataState(self._root, self._start)
            return self._go(make())
        self._made_data = stored["made_data"]
        if stored["state"] is not None and is_stateful_loader(self._root):
            source = self._make_there(make, stored)
            stored["state"] = None
            if source is not None:
                self._note_first()
                return self._go(source, is_there=True)
        stored["made_data"].restore()
        with kept_python(stored["made"]):
            return self._go(make())

    def _make_there(
        self, make: Callable[[], Iterator[Any]], stored: dict[str, Any]
    ) -> Iterator[Any] | None:
        """The iterator at its stored place; `None` if it is another there."""
        place, source, batch = stored["state"], None, None
        stored["made_data"].restore()
        with suppress(Exception):  # Whatever its data set makes of it.
            self._root.load_state_dict(place["told"])
            with kept_python(stored["made"]):
                source = make()
            with kept_python(rng_from_json(place["streams"])):
                batch = next(source)
        return source if self._is_there(batch, stored) else None

    def _is_there(self, batch: Any, stored: dict[str, Any]) -> bool:
        """Whether the last batch is the same, and data stand as they stood."""
        last = checksum_batch(batch)
        if last is None or last != stored["last"]:
            return False
        now = DataState(self._root, self._start)
        return is_equal(self._start.moves_to(now), stored["arrived"])

    def _go(
        self, source: Iterator[Any], *, is_there: bool = False
    ) -> Iterator[Any]:
        stored, self._stored, self._is_fresh = self._stored, None, False
        self._last.clear()
        if stored is not None and not is_there:
            stored["data"].restore()
        if stored is None or not stored["in_pass"]:
            self._begun, given = capture_python(), 0
            self._data = DataState(self._root, self._start)
        else:
            self._begun, given = stored["begun"], stored["in_pass"]
            self._data = stored["data"]
            if not is_there:
                with kept_python(stored["begun"]):
                    self._skip(source, stored)
        while True:
            state = read_place(source)
            try:
                batch = next(source)
            except StopIteration:
                return
            given += 1
            if given == 1:
                self._note_first()
            self._last.append((given, batch, state))
            yield batch

    def _note_first(self) -> None:
        self._after_first = DataState(self._root, self._start)
        self._drawn = capture_python()

    def _has_drawn(self) -> bool:
        """Whether a stream has moved since the first batch was read."""
        drawn = self._drawn
        return drawn is None or not is_same(drawn, capture_python())

    def _skip(self, source: Any, stored: dict[str, Any]) -> None:
        """Leave out what was read before; `ArrivalError` for other data."""
        num_before = stored["in_pass"] - 1  # Of the last, which is read.
        if stored["state"] is not None:
            source.set_state(stored["state"])
            num_before = 0
        self.is_dry = not stored["reads"]
        try:
            for number in range(num_before):
                if self.is_dry and gives_indices(source):
                    source._next_index()  # And no samples of them.
                else:
                    self._read(source, stored)
                if not number:
                    self._note_first()
        finally:
            self.is_dry = False
        before = capture_python()
        batch = self._read(source, stored)
        if not num_before:
            self._note_first()
        draws = not is_same(before, capture_python())
        known = checksum_batch(batch), stored["last"]
        if not draws and None not in known and known[0] != known[1]:
            raise ArrivalError(self._root, stored["in_pass"])
        now = DataState(self._root, self._start)
        if not is_equal(self._start.moves_to(now), stored["arrived"]):
            raise ArrivalError(self._root, stored["in_pass"])

    def _read(self, source: Any, stored: dict[str, Any]) -> Any:
        batch = next(source, source)
        if batch is source:
            raise ArrivalError(self._root, stored["in_pass"])
        return batch


_FIELDS = (
    *("made", "made_data", "begun", "data", "arrived"),
    *("reads", "state", "last", "in_pass"),
)


def checksum_batch(batch: Any) -> str | None:
    """Checksum of a batch, where it has plain values."""
    leaves = [] if batch is None else list_leaves(batch)
    try:
        parts = [
            compute_checksum(keras.ops.convert_to_numpy(one)) for one in leaves
        ]
    except (TypeError, ValueError):  # Such as sparse or ragged values.
        return None
    return combine_checksums(parts) if parts else None


def _count_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_count_bytes, value))
    return int(getattr(value, "nbytes", 8))


class Over:
    """Goes over `data` pass by pass, each made by `passes.over`."""

    def __init__(self, data: Any, passes: Any) -> None:
        self._data, self._passes = data, passes

    def __iter__(self) -> Iterator[Any]:
        batches: Iterator[Any] = self._passes.over(lambda: iter(self._data))
        return batches

    def __len__(self) -> int:
        return len(self._data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


class _Shown:
    """A `PyDataset` that makes nothing of a batch that is only counted."""

    def __init__(self, data: Any, passes: Passes) -> None:
        self._data, self._passes = data, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def __getitem__(self, index: int) -> Any:
        return _NOTHING if self._passes.is_dry else self._data[index]


_NOTHING = object()


def make_read_adapter(
    x: Any,
    class_weight: dict[int, float] | None,
    shuffle: bool,
    passes: Passes | None = None,
) -> Any:
    """Have data that may move as they are read, read when they are needed."""
    # TensorFlow reads Python's data ahead, in a thread of its own: how far it
    # came when a pass ends, or is recorded, is chance. A `PyDataset` is still
    # read ahead where the batches that Keras looks at show that giving moves
    # nothing (Keras 3.12 to 3.15).
    if isinstance(x, types.GeneratorType):
        return _make_generator_adapter(x)
    if is_torch_loader(x):
        return _make_loader_adapter(x, passes)
    if is_grain(x):
        return _make_grain_adapter(x, passes)
    return _make_py_adapter(x, class_weight, shuffle, passes)


def _make_generator_adapter(x: Any) -> Any:
    from keras.src.trainers.data_adapters import generator_data_adapter

    class Generator(generator_data_adapter.GeneratorDataAdapter):
        def get_tf_dataset(self) -> Any:
            return _without_prefetch(super().get_tf_dataset())

    return Generator(x)


def _make_loader_adapter(x: Any, passes: Passes | None) -> Any:
    from keras.src.trainers.data_adapters import torch_data_loader_adapter

    class Loader(torch_data_loader_adapter.TorchDataLoaderAdapter):
        def get_tf_dataset(self) -> Any:
            self._dataloader: Any = x  # Whose batches Keras looks at.
            dataset = super().get_tf_dataset()
            self._dataloader = over
            return _without_prefetch(dataset)

    over = x if passes is None else Over(x, passes)
    adapter = Loader(x)
    adapter._dataloader = over
    return adapter


def _make_grain_adapter(x: Any, passes: Passes | None) -> Any:
    from keras.src.trainers.data_adapters import grain_dataset_adapter

    def over(data: Any) -> Any:
        return data if passes is None else Over(data, passes)

    class Data(grain_dataset_adapter.GrainDatasetAdapter):
        def get_numpy_iterator(self) -> Any:
            return over(super().get_numpy_iterator())

        def get_jax_iterator(self) -> Any:
            return over(super().get_jax_iterator())

        def get_tf_dataset(self) -> Any:
            return _without_prefetch(super().get_tf_dataset())

        def get_torch_dataloader(self) -> Any:
            loader = super().get_torch_dataloader()
            loader.dataset.iterable = over(loader.dataset.iterable)
            return loader

    return Data(x)


def _make_py_adapter(
    x: Any,
    class_weight: dict[int, float] | None,
    shuffle: bool,
    passes: Passes | None,
) -> Any:
    from keras.src.trainers.data_adapters import py_dataset_adapter

    class Dataset(py_dataset_adapter.PyDatasetAdapter):
        def _get_iterator(self) -> Any:
            if passes is None:
                return super()._get_iterator()
            return passes.over(super()._get_iterator)

        def _standardize_batch(self, batch: Any) -> Any:
            if batch is _NOTHING:
                return batch
            return super()._standardize_batch(batch)

        def get_tf_dataset(self) -> Any:
            if self._output_signature is None:
                before, state = capture_python(), DataState(x)
                dataset = super().get_tf_dataset()
                self._draws = (
                    not is_same(before, capture_python())
                    or not state.is_same(DataState(x, state))
                    or _follows_epochs(x)
                )
            else:
                dataset = super().get_tf_dataset()
            return _without_prefetch(dataset) if self._draws else dataset

    adapter = Dataset(x, class_weight=class_weight, shuffle=shuffle)
    if passes is not None:
        adapter.py_dataset = _Shown(x, passes)
    return adapter


def _follows_epochs(x: Any) -> bool:
    """Whether a `PyDataset` does something of its own between epochs."""
    base = keras.utils.PyDataset
    return any(
        getattr(type(x), name) is not getattr(base, name)
        for name in ("on_epoch_begin", "on_epoch_end")
    )


def _without_prefetch(dataset: Any) -> Any:
    """The data set within, which TensorFlow shall not read ahead either."""
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    if type(dataset).__name__ == "_PrefetchDataset":
        dataset = dataset._input_dataset
    return dataset.with_options(options)
