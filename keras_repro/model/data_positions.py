"""Where the data of a trial stand: one position for each use of an object."""

from __future__ import annotations

import logging
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import keras

from keras_repro.backends import random_streams
from keras_repro.backends.data_adapters import (
    is_adapter,
    is_grain,
    is_pipeline,
    is_stateful,
    is_tf_dataset,
)
from keras_repro.backends.data_state import LARGE, DataState
from keras_repro.backends.data_traps import (
    find_alike_in_pipeline,
    find_alike_in_python,
    find_copies,
    has_epochs,
)
from keras_repro.backends.tensorflow import (
    PipelineGraph,
    checksum_constants,
    is_fixed_pipeline,
    list_python_functions,
    restart_pipeline,
    serialize_pipeline,
)

TRAINING = "training"
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _ByObject(Generic[_T]):
    """Values for objects, hashable or not, for as long as these are alive."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Any, _T]] = {}

    def get(self, x: Any, make: Callable[[], _T]) -> _T:
        """The value of an object; made where there is none."""
        key, values = id(x), self._values
        if key not in values:
            try:
                alive: Any = weakref.ref(x, lambda _: values.pop(key, None))
            except TypeError:
                alive = x
            values[key] = alive, make()
        return values[key][1]

    def __iter__(self) -> Iterator[_T]:
        return (value for _, value in list(self._values.values()))


class _Use:
    """One use of a data object in one trial."""

    def __init__(self, position: DataState) -> None:
        # Where it stands, while another use has the object.
        self.position = position
        self.is_over = False


class _Uses:
    """The uses of a data object in one trial."""

    def __init__(self) -> None:
        self.of_kind: dict[str, _Use] = {}
        # Where a first use begins.
        self.start: DataState | None = None
        self.pipelines: dict[str, Any] = {}


class _Pipeline:
    """What the process knows of a `tf.data` pipeline."""

    def __init__(self, dataset: Any) -> None:
        self.graph = b""
        self.functions: tuple[Any, ...] = ()
        self.is_fixed = False
        # What each pass over it gives like the one before.
        self.alike: tuple[str, ...] = ()
        try:
            graph = serialize_pipeline(dataset)
        except Exception as error:  # noqa: BLE001 - of many kinds
            _log.debug("a pipeline cannot be rewound: %s", error)
            return
        parsed = PipelineGraph.parse(graph)
        self.is_fixed = is_fixed_pipeline(parsed)
        if not self.is_fixed:
            self.graph = graph
            self.functions = tuple(list_python_functions(parsed))
            self.alike = tuple(find_alike_in_pipeline(parsed, is_seeded=True))


class _Known:
    """What the process knows of data that keep state."""

    def __init__(self, root: Any) -> None:
        self.start = DataState(root)
        # Whose position the object itself stands at, and who reads it now.
        self.holder: _Use | None = None
        self.reader: _Use | None = None
        self.left: DataState | None = None


# One start for each object, whichever model sees it first.
_known: _ByObject[_Known] = _ByObject()
_pipelines: _ByObject[_Pipeline] = _ByObject()


class DataPositions:
    """The positions of one trial's data, one for each use of an object."""

    # The first use of each kind begins where the object stood when it was first
    # seen; later ones go on. No use moves another.

    def __init__(self) -> None:
        self._uses: _ByObject[_Uses] = _ByObject()
        self._entered: list[tuple[Any, _Known]] = []
        # Of the model's variables, which data may hold too.
        self.tracked: frozenset[int] = frozenset()

    def rewind(self, kind: str | None = None) -> None:
        """Have the next use of each kind, or of one, be a first one."""
        for uses in self._uses:
            for name in list(uses.of_kind):
                if kind in (None, name):
                    uses.of_kind.pop(name).is_over = True
            for name in list(uses.pipelines):
                if kind in (None, name):
                    del uses.pipelines[name]

    def restart(self, dataset: Any, kind: str, seed: int) -> Any:
        """A `tf.data` pipeline that stands where this use of it stands."""
        graph = _pipeline(dataset).graph
        if not graph:
            return dataset
        pipelines = self._uses.get(dataset, _Uses).pipelines
        if kind not in pipelines:
            name = "pipeline" if kind == TRAINING else f"pipeline/{kind}"
            seed = random_streams.derive_seed(seed, name)
            pipelines[kind] = restart_pipeline(dataset, graph, seed)
        return pipelines[kind]

    @contextmanager
    def entered(self, x: Any, kind: str) -> Iterator[list[str]]:
        """Have data stand where a use of them stands; yield what was set."""
        root = _find_root(x)
        if root is None:
            yield []
            return
        known = _known.get(x, lambda: _Known(root))
        uses = self._uses.get(x, _Uses)
        reader = known.reader
        names = [] if reader else _adopt(known, root, uses)
        # What else is being read, and holds the same generator, goes on after.
        others = [
            DataState(one, other.start)
            for one, other in self._entered
            if other is not known and other.start.shares_with(known.start)
        ]
        if kind not in uses.of_kind:
            uses.of_kind[kind] = _Use(uses.start or known.start)
        known.reader = use = uses.of_kind[kind]
        self._move(known, root, use)
        self._entered.append((root, known))
        try:
            yield names
        finally:
            self._entered.pop()
            known.reader = reader
            if reader is not None:
                self._move(known, root, reader)
            elif others:
                use.position, known.holder = DataState(root, known.start), None
            for state in others:
                state.restore(self.tracked)
            if reader is None:
                _leave(known, root)

    @contextmanager
    def held(self, x: Any, kind: str) -> Iterator[list[str]]:
        """As `entered`, beforehand, of data that nothing else reads."""
        root = _find_root(x)
        if root is None:
            yield []
            return
        start = _known.get(x, lambda: _Known(root)).start
        if any(known.start.shares_with(start) for _, known in self._entered):
            yield []
            return
        with self.entered(x, kind) as names:
            yield names

    @contextmanager
    def kept(self, *, is_look: bool) -> Iterator[None]:
        """Perhaps look at the data in a block; they stand as they stood."""
        entered = self._entered if is_look else []
        before = [DataState(root, known.start) for root, known in entered]
        try:
            yield
        finally:
            for state in before:
                state.restore(self.tracked)

    def write(self, x: Any, kind: str) -> Any:
        """Where a use of data that Python gives stands, as plain values."""
        # An `UnknownValueError` where something that is not plain moved.
        root, use = _find_root(x), self._uses.get(x, _Uses).of_kind.get(kind)
        if root is None or use is None:
            return None
        known = _known.get(x, lambda: _Known(root))
        position = use.position
        if known.holder is use:
            position = DataState(root, known.start)
        return known.start.moves_to(position)

    def put(self, x: Any, kind: str, written: Any) -> None:
        """Have a use stand where `write` told; `ValueError` for other data."""
        root = _find_root(x)
        if root is not None and written is not None:
            start = start_of(x)
            use = _Use(start.moved_to(written))
            self._uses.get(x, _Uses).of_kind[kind] = use

    def _move(self, known: _Known, root: Any, use: _Use) -> None:
        """Have an object stand where a use of it stands."""
        holder = known.holder
        if holder is use:
            return
        if holder is not None and not holder.is_over:
            holder.position = DataState(root, known.start)
        use.position.restore(self.tracked)
        known.holder = use


def start_of(x: Any) -> DataState:
    """How data that Python gives stood when they were first seen."""
    return _known.get(x, lambda: _Known(_find_root(x))).start


def position_of(x: Any) -> DataState | None:
    """Where data that Python gives stand; `None` of others."""
    root = _find_root(x)
    return None if root is None else DataState(root, start_of(x))


def moves_by_itself(x: Any) -> bool:
    """Whether data are a generator, or a pipeline that may pass otherwise."""
    if isinstance(x, types.GeneratorType):
        return True
    return is_pipeline(x) and not _pipeline(x).is_fixed


def has_moved(x: Any) -> bool:
    """Whether data stand elsewhere than when they were first seen."""
    position = position_of(x)
    is_elsewhere = position is not None and not position.is_same(start_of(x))
    return is_elsewhere or moves_by_itself(x)


def checksum_pipeline(x: Any) -> str | None:
    """Checksum of the values that a `tf.data` pipeline holds, if it has any."""
    if not is_pipeline(x):
        return None
    try:
        return checksum_constants(PipelineGraph.parse(serialize_pipeline(x)))
    except Exception as error:  # noqa: BLE001 - of many kinds
        _log.debug("a pipeline has no checksum: %s", error)
        return None


def _leave(known: _Known, root: Any) -> None:
    """Note how a trial leaves an object, and what others hold of it."""
    known.left = DataState(root, known.start)
    for other in _known:
        if other.left is not None:
            other.left.update(known.left)


def _pipeline(dataset: Any) -> _Pipeline:
    return _pipelines.get(dataset, lambda: _Pipeline(dataset))


def _find_root(x: Any) -> Any:
    """What keeps the state of data that Python gives; `None` of others."""
    if is_pipeline(x):
        return _pipeline(x).functions or None
    return x if is_stateful(x) else None


def _adopt(known: _Known, root: Any, uses: _Uses) -> list[str]:
    """Take up what the program set since a trial left the object."""
    is_first = not uses.of_kind
    start = known.start if is_first else uses.start or known.start
    names: list[str] = []
    if known.left is not None:
        now = DataState(root, known.start)
        start, names = start.adopt(known.left, now)
        for use in uses.of_kind.values():
            use.position, _ = use.position.adopt(known.left, now)
    uses.start = start
    if is_first:  # The trial begins with it, and later ones do.
        known.start = start
    return names


def describe_changes(x: Any, what: str, names: list[str]) -> list[str]:
    """Say what the program set in data since they were last used."""
    if not names:
        return []
    return [
        f"{what}: {type(x).__name__} was given other values since it was last "
        f"used ({', '.join(names)}); the trial begins with those."
    ]


def describe_limits(x: Any, what: str) -> list[str]:
    """What of the data's own order a `reset()` cannot take back."""
    return [f"{what}: {limit}" for limit in _find_limits(x)]


def describe_chance(x: Any, steps: int | None, what: str) -> list[str]:
    """Whether chance decides which batches workers feed."""
    # They begin anew with each epoch, behind what they had read ahead by the
    # end of the last one (Keras 3.12 to 3.15).
    if (
        not isinstance(x, keras.utils.PyDataset)
        or x.workers < (1 if x.use_multiprocessing else 2)
        or not steps
        or steps >= (x.num_batches or 0)
    ):
        return []
    return [
        f"{what}: {type(x).__name__} has more batches than an epoch has steps, "
        "and workers begin it anew with each epoch, behind as many batches as "
        "they happened to have read. Leave the steps out, or use workers=1."
    ]


def describe_alike(call: dict[str, Any], what: str) -> list[str]:
    """What all epochs of a `fit` are given alike, though it is random."""
    x = call.get("x")
    if not has_epochs(call):
        return []
    found = _pipeline(x).alike if is_pipeline(x) else find_alike_in_python(x)
    return [f"{what}: {one}" for one in found]


def _find_limits(x: Any) -> Iterator[str]:
    if isinstance(x, types.GeneratorType):
        yield (
            "a Python generator is consumed; reset() does not rewind it. Make "
            "the generator anew for each trial."
        )
    elif is_tf_dataset(x):
        pipeline = _pipeline(x)
        if not (pipeline.graph or pipeline.is_fixed):
            yield (
                "this tf.data pipeline cannot be written as a graph; reset() "
                "does not rewind it. Make the pipeline anew for each trial."
            )
    elif is_stateful(x):
        state = _known.get(x, lambda: _Known(x)).start
        yield from find_copies(x)
        yield from _find_races(x, state)
        yield from _find_unkept(x, state)


def _find_races(x: Any, state: DataState) -> Iterator[str]:
    """What threads that read at once decide by chance."""
    if (
        isinstance(x, keras.utils.PyDataset)
        and x.workers > 1
        and not x.use_multiprocessing
    ):
        yield (
            "a PyDataset with more than one worker races for random numbers "
            "drawn in __getitem__. Use workers=1, or draw from "
            "keras_repro.sample_rng(index)."
        )
    if is_grain(x) and state.generators:
        yield (
            "Grain reads in several threads, which race for generators of "
            "your own. Draw in a random_map, to which Grain gives one."
        )


def _find_unkept(x: Any, state: DataState) -> Iterator[str]:
    """What data hold that nobody can put back."""
    name = type(x).__name__
    if is_adapter(x):
        yield (
            f"a data adapter ({name}) feeds what it was made from, which "
            "reset() does not rewind. Pass the data themselves."
        )
    if state.consumed:
        yield (
            f"{name} keeps iterators ({', '.join(state.consumed)}), which "
            "reading uses up; reset() does not rewind them. Make them anew "
            "for each trial."
        )
    if state.too_large:
        yield (
            f"{name} keeps arrays of more than {LARGE >> 20} MB "
            f"({', '.join(state.too_large)}); if it changes them in place, "
            "reset() does not put them back. Shuffle indices instead."
        )
