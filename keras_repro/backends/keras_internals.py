"""Keras' private attributes that a training needs.

Each is guarded, with the versions that it was checked with and what happens
without it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_repro.arrays.checksums import compute_checksum


def _global_state() -> Any:
    """Keras' thread-local attributes (`keras.src`, Keras 3.12 to 3.15)."""
    from keras.src.backend.common import global_state

    return global_state


def get_global_seed() -> int | None:
    """The seed that `keras.utils.set_random_seed` was given, or `None`."""
    from keras.src.utils import rng_utils

    # Keras 3.12 to 3.15; without it a seed set through Keras is not seen and
    # the model draws a seed of its own.
    getter = getattr(rng_utils, "get_random_seed", None)
    seed = getter() if getter is not None else None
    return None if seed is None else int(seed) % 2**32


def set_global_seed(seed: int | None) -> None:
    """Set Keras' global seed and nothing else (Keras 3.12 to 3.15)."""
    # `keras.utils.set_random_seed` would load TensorFlow under every backend,
    # and seed Python's and NumPy's generators too.
    _global_state().set_global_attribute("global_random_seed", seed)


def get_global_generator() -> Any:
    """Keras' global seed generator, or `None` while nothing has used it."""
    return _global_state().get_global_attribute("global_seed_generator")


def set_global_generator(generator: Any) -> None:
    """Put a `SeedGenerator` (or `None`) in the place of the global one."""
    _global_state().set_global_attribute("global_seed_generator", generator)


@contextmanager
def names_kept() -> Iterator[None]:
    """Name what is made in a block as if nothing of it counted afterwards."""
    # Private in Keras 3.12 to 3.15; without it later names have other numbers.
    state, name = _global_state(), "object_name_uids"
    counts = state.get_global_attribute(name)
    kept = None if counts is None else counts.copy()
    try:
        yield
    finally:
        state.set_global_attribute(name, kept)


@contextmanager
def tensorflow_unloaded() -> Iterator[None]:
    """Have Keras not import TensorFlow in a block, if nobody has so far."""
    # Under JAX and PyTorch Keras (3.12 to 3.15) imports it, which takes
    # seconds, only to ask of a setting whether it is one of TensorFlow's;
    # where TensorFlow is not loaded none can be. Without the private flag it
    # loads.
    from keras.src.utils import module_utils

    lazy = module_utils.tensorflow
    if (
        "tensorflow" in sys.modules
        or getattr(lazy, "_available", 0) is not None
    ):
        yield
        return
    lazy._available = False
    try:
        yield
    finally:
        lazy._available = None


def functional_class() -> Any:
    """The class of Functional models, which Keras does not export."""
    from keras.src.models.functional import Functional

    return Functional


def be_default_build(build: Any) -> None:
    """Have Keras take a `build` for one that nobody has written."""
    # It then looks for what is not built, and warns (Keras 3.12 to 3.15).
    build._is_default = True


def be_own_build(model: Any) -> None:
    """Have Keras take the `build` of a model for one that builds it."""
    # Keras wraps it in each layer and copies the mark there (3.12 to 3.15).
    vars(vars(model)["build"]).pop("_is_default", None)


@functools.cache
def _own_method(name: str) -> Any:
    """Keras' own method of models, under what a program put around it."""
    # Whoever wraps one of a training puts it into `keras.Model`, which takes
    # its own from the `Trainer` of the backend (Keras 3.12 to 3.15).
    for one in keras.Model.__mro__[1:]:
        if one.__name__.endswith("Trainer") and name in vars(one):
            return vars(one)[name]
    return getattr(keras.Model, name)


@functools.cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(_own_method(name))


def as_in_keras(method: Any) -> Any:
    """Show the signature and the help of Keras' method of that name."""
    method.__signature__ = _signature(method.__name__)
    method.__doc__ = inspect.getdoc(_own_method(method.__name__))
    return method


def bind(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """All arguments of a method by name; `None` where Keras would refuse."""
    try:
        bound = _signature(name).bind(None, *args, **kwargs)
    except TypeError:
        return None
    call = dict(bound.arguments)
    call.pop("self")
    call.update(call.pop("kwargs", {}))
    return call


def unbind(
    name: str, call: dict[str, Any], positional: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as they came, some by position, some by name."""
    first = [one for one in _signature(name).parameters if one != "self"]
    rest = dict(call)
    return tuple(rest.pop(one) for one in first[:positional]), rest


def list_leaves(nested: Any) -> list[Any]:
    """The leaves of nested data, but for those that are `None`."""
    return [leaf for leaf in keras.tree.flatten(nested) if leaf is not None]


def checksum_leaves(nested: Any) -> str:
    """Checksum of the values in nested data, such as a batch."""
    leaves = map(keras.ops.convert_to_numpy, list_leaves(nested))
    return compute_checksum(list(leaves))


def flatten_layers(layer: Any) -> list[Any]:
    """A layer and the layers in it (private in Keras 3.12 to 3.15)."""
    # `Model.layers` alone would miss the layers inside a wrapper or a cell.
    return list(layer._flatten_layers(recursive=True, include_self=True))


def is_all_built(model: Any) -> bool:
    """Whether Keras has nothing left to build from a look at the data."""
    # Its own question, of attributes that are private in Keras 3.12 to 3.15;
    # where one of them is missing it may look.
    parts = [
        getattr(model, name, model)
        for name in ("_compile_metrics", "_compile_loss")
    ]
    return all(layer.built for layer in flatten_layers(model)) and all(
        part is None or (part is not model and part.built) for part in parts
    )


def own_generators(layer: Any) -> list[Any]:
    """The `SeedGenerator`s that a layer itself holds (Keras 3.12 to 3.15)."""
    return list(getattr(layer, "_seed_generators", ()))


def optimized_variables(optimizer: Any) -> list[Any]:
    """The variables that a built optimizer updates (Keras 3.12 to 3.15)."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", ()))


def compiled_flags(model: Any) -> tuple[Any, dict[Any, bool]]:
    """What tells one `compile` from another, and the flags it has read."""
    # Keras 3.12 to 3.15. Without it a layer frozen before a new `compile`
    # would be unfrozen by the next `reset()`.
    config = getattr(model, "_compile_config", None)
    flags = getattr(model, "_compiled_trainable_state", None)
    # Keras 3.12 keeps none: then those count that hold when the new `compile`
    # is noticed.
    if flags is None:
        flags = {layer: layer.trainable for layer in flatten_layers(model)}
    return config, dict(flags)


def is_eager() -> bool:
    """Whether variables can be read now: no graph or trace is being made."""
    # Stateless scopes are private in Keras 3.12 to 3.15; reading a variable in
    # one would give a symbol.
    from keras.src.backend.common import stateless_scope

    if stateless_scope.in_stateless_scope():
        return False
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return bool(tf.executing_eagerly())
    if name == "torch":
        from keras.src.backend.torch import core

        return str(core.get_device()) != "meta"
    return True


# Keras 3.12 to 3.15 sets this at each training step on JAX, to a dict of the
# arrays. To look for layers and variables in it, of which it holds none,
# takes a fifth of the step of a small network.
UNTRACKED = frozenset({"_jax_state"})
