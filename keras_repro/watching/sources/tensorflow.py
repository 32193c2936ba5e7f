"""TensorFlow's random ops, its seeds, threads and parallel pipelines."""

from __future__ import annotations

import inspect
import secrets
from typing import Any

from keras_repro.common.whose_code import find_site
from keras_repro.environment.determinism import is_deterministic
from keras_repro.watching.observations import PARALLEL
from keras_repro.watching.sources.watcher import WORD, Watcher, place_of
from keras_repro.watching.sources.workers import (
    FRAMEWORKS,
    watch_count,
    watch_ops,
)


def watch_tensorflow(watcher: Watcher, tensorflow: Any) -> None:
    """Watch TensorFlow's random ops without a seed, its seeds and threads."""
    _watch_seeds(watcher)
    _watch_entropy(watcher, tensorflow)
    _watch_threads(watcher, tensorflow)
    _watch_pipelines(watcher, tensorflow)
    _watch_ops(watcher, tensorflow)
    if watcher.plan.deterministic:
        _turn_deterministic(watcher, tensorflow)


def _watch_seeds(watcher: Watcher) -> None:
    # Private in TensorFlow 2.16 to 2.21: `random_seed.get_seed`, which each
    # random op asks for its seeds, and `context.set_global_seed`.
    from tensorflow.python.eager import context
    from tensorflow.python.framework import ops, random_seed

    audit = watcher.audit
    get_seed = random_seed.get_seed
    set_global_seed = context.set_global_seed
    fixed = _FixedSeeds(watcher)

    def get_watched_seed(op_seed: Any) -> Any:
        eager = context.executing_eagerly()
        graph_seed = None if eager else ops.get_default_graph().seed
        known = context.global_seed() if eager else graph_seed
        if op_seed is None and known is None:
            audit.note_draw("tensorflow")
            if watcher.plan.seed_kernels:
                return fixed.take(eager=eager)
        return get_seed(op_seed)

    def set_watched_seed(seed: Any) -> None:
        if seed is not None:
            name = "tensorflow.random.set_seed"
            seed = audit.note_seed("tensorflow", name, seed)
        set_global_seed(seed)

    watcher.patches.replace(random_seed, "get_seed", get_watched_seed)
    watcher.patches.replace(context, "set_global_seed", set_watched_seed)


def _watch_entropy(watcher: Watcher, tensorflow: Any) -> None:
    from tensorflow.python.ops import stateful_random_ops

    def draw_integers(shape: Any, dtype: Any = tensorflow.int64) -> Any:
        count = int(tensorflow.TensorShape(shape).num_elements() or 1)
        name = "tensorflow.random.Generator.from_non_deterministic_state"
        kind = tensorflow.as_dtype(dtype)
        drawn = watcher.draw(name, count * kind.size)
        # Not every integer type can be decoded.
        flat = tensorflow.bitcast(
            tensorflow.io.decode_raw(drawn, tensorflow.int64), kind
        )
        return tensorflow.reshape(flat, shape)

    name = "non_deterministic_ints"  # Private in TensorFlow 2.16 to 2.21.
    if hasattr(stateful_random_ops, name):
        watcher.patches.replace(stateful_random_ops, name, draw_integers)


def _turn_deterministic(watcher: Watcher, tensorflow: Any) -> None:
    """Turn deterministic kernels on, and off again if they were off."""
    # Private in TensorFlow 2.16 to 2.21: how to ask, and how to turn them off.
    from tensorflow.python.framework import config

    was_on = is_deterministic("tensorflow")
    tensorflow.config.experimental.enable_op_determinism()
    if was_on is False and hasattr(config, "disable_op_determinism"):
        watcher.patches.also_undo(config.disable_op_determinism)


class _FixedSeeds:
    """Seeds for random ops that have none, by the place of the op."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._eager: dict[str, tuple[int, int]] = {}

    def take(self, *, eager: bool) -> tuple[int, int]:
        """Two seeds; outside a graph the same ones again at each place."""
        # TensorFlow keeps a kernel for each pair of seeds, and a kernel goes
        # on drawing. In a graph each op has a kernel of its own.
        place = place_of(find_site())
        if not eager:
            return self._draw(place)
        if place not in self._eager:
            self._eager[place] = self._draw(place)
        return self._eager[place]

    def _draw(self, place: str) -> tuple[int, int]:
        drawn = self._watcher.entropy.draw_for("tensorflow", place, 8)
        if self._watcher.is_freed("tensorflow"):
            drawn = secrets.token_bytes(8)
        number = int.from_bytes(drawn, "little")
        return (number % WORD) // 2 + 1, (number // WORD) // 2 + 1


def _watch_threads(watcher: Watcher, tensorflow: Any) -> None:
    threading = tensorflow.config.threading
    for name in (
        "set_intra_op_parallelism_threads",
        "set_inter_op_parallelism_threads",
    ):
        label = f"tensorflow.config.threading.{name}"
        watch_count(watcher, threading, name, label)


def _watch_pipelines(watcher: Watcher, tensorflow: Any) -> None:
    """Watch what of `tf.data` runs in parallel and may change the order."""
    dataset = tensorflow.data.Dataset
    for name in ("map", "interleave", "batch", "padded_batch", "ragged_batch"):
        if hasattr(dataset, name):
            _watch_parallel(watcher, dataset, name)
    with_options = dataset.with_options

    @watcher.patches.in_place_of("with_options", dataset)
    def watched_options(self: Any, options: Any, name: Any = None) -> Any:
        if _allows_disorder(options):
            watcher.audit.note(PARALLEL, "tf.data.Options.deterministic=False")
            if watcher.plan.num_workers is not None:
                options.deterministic = True
        return with_options(self, options, name)


def _allows_disorder(options: Any) -> bool:
    return getattr(options, "deterministic", None) is False


def _watch_parallel(watcher: Watcher, dataset: Any, name: str) -> None:
    method = getattr(dataset, name)
    signature = inspect.signature(method)

    @watcher.patches.in_place_of(name, dataset)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return method(self, *args, **kwargs)
        disorder = given.get("deterministic") is False
        site = find_site()
        if (
            site is None
            or site.library in FRAMEWORKS
            or not (disorder or given.get("num_parallel_calls"))
        ):
            return method(self, *args, **kwargs)
        watcher.audit.note(
            PARALLEL,
            f"tf.data.Dataset.{method.__name__}",
            site=site,
            detail="in any order" if disorder else "in order",
        )
        if watcher.plan.num_workers is not None:
            given |= {"num_parallel_calls": None, "deterministic": None}
            known = {k: v for k, v in given.items() if k != "self"}
            extra = known.pop("kwargs", {})
            rest = known.pop("args", ())
            return method(given["self"], *rest, **known, **extra)
        return method(self, *args, **kwargs)


# Not deterministic on a processor or a GPU, by TensorFlow's own list.
_OPS = {
    "math": ("bincount", "segment_sum", "unsorted_segment_sum"),
    "sparse": ("sparse_dense_matmul",),
    "": ("scatter_nd", "tensor_scatter_nd_add"),
}


def _watch_ops(watcher: Watcher, tensorflow: Any) -> None:
    for module, names in _OPS.items():
        owner = getattr(tensorflow, module) if module else tensorflow
        watch_ops(watcher, owner, names, f"tensorflow.{module}".rstrip("."))
    from tensorflow.python.ops import resource_variable_ops

    # The class of every variable in TensorFlow 2.16 to 2.21.
    variable = getattr(resource_variable_ops, "BaseResourceVariable", None)
    if variable is not None:
        names = ("scatter_add", "scatter_sub", "scatter_nd_add")
        watch_ops(watcher, variable, names, "tensorflow.Variable")
