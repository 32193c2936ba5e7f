"""Seeds given to Keras' layers, and how many workers load data."""

from __future__ import annotations

from typing import Any

from keras_repro.common.whose_code import find_maker
from keras_repro.watching.observations import PARALLEL
from keras_repro.watching.sources.watcher import Watcher


def watch_keras(watcher: Watcher, keras: Any) -> None:
    """Watch seeds given to layers, and how many workers load data."""
    # What Keras draws for itself it draws from Python's `random`. Private in
    # Keras 3.12 to 3.15: `RandomInitializer`.
    from keras.src.initializers import random_initializers

    audit = watcher.audit

    def watch(owner: Any, name: str) -> None:
        make = owner.__init__

        @watcher.patches.in_place_of("__init__", owner)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            seed = args[0] if args else kwargs.get("seed")
            if isinstance(seed, int):
                seed = audit.note_seed("", name, seed)
                args, kwargs = _with_seed(args, kwargs, seed)
            make(self, *args, **kwargs)

    watch(keras.random.SeedGenerator, "keras.random.SeedGenerator")
    initializer = getattr(random_initializers, "RandomInitializer", None)
    if initializer is not None:
        watch(initializer, "keras.initializers")
    _watch_py_dataset(watcher, keras)


def _with_seed(
    args: tuple[Any, ...], kwargs: dict[str, Any], seed: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (seed, *args[1:]), kwargs
    return args, {**kwargs, "seed": seed}


def _watch_py_dataset(watcher: Watcher, keras: Any) -> None:
    plan = watcher.plan
    dataset = keras.utils.PyDataset
    make = dataset.__init__

    @watcher.patches.in_place_of("__init__", dataset)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if self.workers > 1 or self.use_multiprocessing:
            watcher.audit.note(
                PARALLEL, "keras.utils.PyDataset", site=find_maker(self)
            )
            if plan.num_workers is not None:
                self.workers = plan.num_workers
                self.use_multiprocessing = False
