"""What data give alike where each epoch, or each worker, should differ.

Only what their libraries say of them for certain, by attributes that are
private in TensorFlow 2.16 to 2.21, Grain 0.2, PyTorch 2 and Keras 3.12 to
3.15; where one is missing nothing is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import keras

from keras_repro.backends.data_adapters import (
    epoch_orders,
    is_grain,
    is_pipeline,
    is_torch_loader,
)
from keras_repro.backends.data_state import DataState
from keras_repro.backends.random_streams import kept_python
from keras_repro.backends.seeded_samples import find_seeded_alike
from keras_repro.backends.tensorflow import (
    STATEFUL_RANDOM_OPS,
    PipelineGraph,
    serialize_pipeline,
)
from keras_repro.common.text import join_words

_SAMPLE = "Draw from keras_repro.sample_rng(index)"
# What lies behind a cache and still reads it to its end.
_WHOLE = frozenset(
    {
        *("_Retval", "Batch", "Map", "Options", "ParallelBatch"),
        *("ParallelMap", "Prefetch"),
    }
)


def has_epochs(call: Mapping[str, Any]) -> bool:
    """Whether a `fit` goes over its data from the start more than once."""
    epochs = (call.get("epochs") or 1) - (call.get("initial_epoch") or 0)
    return epochs > 1 and not call.get("steps_per_epoch")


def has_one_order(num_samples: int = 64, batch_size: int | None = None) -> bool:
    """Whether Keras would now shuffle the arrays of all epochs alike."""
    # So it does on TensorFlow once a global seed is set (Keras 3.12 to 3.15).
    with kept_python():
        first, second = epoch_orders(num_samples, batch_size, 2)
    return bool((first == second).all())


def find_alike(x: Any, *, is_seeded: bool) -> Iterator[str]:
    """What each pass over data gives as the one before, though it is random."""
    if is_pipeline(x):
        graph = PipelineGraph.parse(serialize_pipeline(x))
        return find_alike_in_pipeline(graph, is_seeded=is_seeded)
    return find_alike_in_python(x)


def find_alike_in_python(x: Any) -> Iterator[str]:
    """What each pass over data that Python gives has as the one before."""
    if isinstance(x, keras.utils.PyDataset) or is_torch_loader(x):
        with suppress(Exception):  # Whatever its methods need that is not yet.
            name = find_seeded_alike(x)
            if name is not None:
                yield (
                    f"{name} seeds a generator anew whenever it is read, and "
                    f"draws the same numbers in every epoch. {_SAMPLE}."
                )
        return
    names = set(_list_grain_nodes(x))
    words = {"shuffles": "Shuffle", "draws": "RandomMap"}
    found = [
        word
        for word, part in words.items()
        if any(part in name for name in names)
    ]
    if found:
        yield (
            f"Grain {join_words(found)} by its seed alone, alike in every "
            "epoch. Use `.repeat()` with `steps_per_epoch`: it shuffles and "
            f"draws anew each time. {_SAMPLE} where `fit` counts the epochs."
        )


def _list_grain_nodes(x: Any) -> Iterator[str]:
    """The classes that a data set of Grain is made of."""
    if not is_grain(x):
        return
    yield type(x).__name__
    if getattr(getattr(x, "_sampler", None), "_shuffle", False) is True:
        yield "Shuffle"
    for operation in getattr(x, "_operations", ()):
        yield from (base.__name__ for base in type(operation).__mro__)
    for parent in getattr(x, "parents", ()):
        yield from _list_grain_nodes(parent)


def find_alike_in_pipeline(
    graph: PipelineGraph, *, is_seeded: bool
) -> Iterator[str]:
    """What each pass over a `tf.data` pipeline gives as the one before."""
    # `is_seeded`: whether its ops get seeds that they do not have.
    seen = _Pipeline({one.name: one for one in graph.nodes}, graph.functions)
    for node in graph.nodes:
        if node.op == "_Retval":
            seen.walk(node, is_whole=True, is_cached=False)
    if seen.shuffles and not seen.reshuffles:
        yield (
            "this tf.data pipeline shuffles once, and gives every epoch the "
            "same order. Cache before you shuffle, and leave "
            "`reshuffle_each_iteration=False` out."
        )
    if seen.cached:
        yield (
            f"this tf.data pipeline caches what {_say(seen.cached)} drew, and "
            "gives it in every epoch. Cache before you draw."
        )
    drawn = seen.drawn if is_seeded else seen.seeded
    if drawn:
        yield (
            f"in this tf.data pipeline {_say(drawn)} begins anew with each "
            "epoch, and draws the same numbers: TensorFlow does so once there "
            f"is a seed. {_SAMPLE} in a `tf.numpy_function`."
        )


class _Pipeline:
    """What a walk from the end of a pipeline finds."""

    def __init__(self, nodes: dict[str, Any], functions: Any) -> None:
        self._nodes, self._functions = nodes, functions
        self.shuffles = self.reshuffles = False
        # Random ops: before a cache; elsewhere, all and those with a seed.
        self.cached: set[str] = set()
        self.drawn: set[str] = set()
        self.seeded: set[str] = set()

    def walk(self, node: Any, *, is_whole: bool, is_cached: bool) -> None:
        """Look at a node, and at those whose elements it takes."""
        if "Shuffle" in node.op:
            self._note_shuffle(node, is_cached=is_cached)
        for function in self._list_functions(node, set()):
            for op in function.node_def:
                if op.op in STATEFUL_RANDOM_OPS:
                    self._note_draw(node, op, is_cached=is_cached)
                elif "Shuffle" in op.op:  # One for each element.
                    self.reshuffles = True
        name = node.op.partition("Dataset")[0]
        is_cached = is_cached or (name == "Cache" and is_whole)
        is_whole = is_whole and name in _WHOLE
        for source in node.input:
            found = self._nodes.get(source.lstrip("^").partition(":")[0])
            if found is not None and "Dataset" in found.op:
                self.walk(found, is_whole=is_whole, is_cached=is_cached)

    def _note_shuffle(self, node: Any, *, is_cached: bool) -> None:
        again = node.attr.get("reshuffle_each_iteration")
        if is_cached or (again is not None and not again.b):
            self.shuffles = True
        else:
            self.reshuffles = True

    def _note_draw(self, node: Any, op: Any, *, is_cached: bool) -> None:
        if is_cached:
            self.cached.add(op.op)
            return
        if "Parallel" in node.op:
            return  # Which element has which number is chance.
        self.drawn.add(op.op)
        if op.attr["seed"].i or op.attr["seed2"].i:
            self.seeded.add(op.op)

    def _list_functions(self, node: Any, seen: set[str]) -> Iterator[Any]:
        """The functions that a node calls, and those that they call."""
        names = [one.func.name for one in node.attr.values()]
        names += [f.name for a in node.attr.values() for f in a.list.func]
        for name in names:
            if name in self._functions and name not in seen:
                seen.add(name)
                yield self._functions[name]
                for op in self._functions[name].node_def:
                    yield from self._list_functions(op, seen)


def _say(ops: set[str]) -> str:
    return join_words(sorted(ops))


def find_copies(x: Any) -> Iterator[str]:
    """Which generators worker processes have copies of, and draw alike."""
    if isinstance(x, keras.utils.PyDataset):
        if x.use_multiprocessing and x.workers > 1:
            held = _say_held(DataState(x).generators)
            yield (
                "each worker process of this PyDataset has a copy of NumPy's "
                f"global generator{held}, and draws the same numbers from it "
                "as the others. Draw from keras_repro.sample_rng(index, seed=, "
                "epoch=)."
            )
    elif is_torch_loader(x) and x.num_workers > 1 and not x.worker_init_fn:
        names = DataState(x.dataset).generators
        if names:
            yield (
                f"each worker process of this {type(x).__name__} has a copy of "
                f"{join_words(names)}, and draws the same numbers from it as "
                "the others. Draw from keras_repro.sample_rng(index, seed=, "
                "epoch=)."
            )


def _say_held(names: list[str]) -> str:
    return f" and of {join_words(names)}" if names else ""
