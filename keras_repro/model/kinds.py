"""The class of a model: plain, Sequential or Functional by what it is given.

A subclass of `keras.Model` that gives inputs and outputs to `super()` becomes
a Functional model; Keras changes the bases of the class for that. Here the one
class whose instance it is gets a base, so that `type(X()) is X` holds; as soon
as a plain model is made of the same class too, it keeps the bases it was
written with, and its other models get a class of their own.
"""

from __future__ import annotations

import dataclasses
import types
import weakref
from typing import Any

import keras

from keras_repro.backends.keras_internals import (
    be_own_build,
    functional_class,
)


@dataclasses.dataclass
class _Given:
    """A class that got a base."""

    bases: tuple[type, ...]  # Those that it was written with.
    base: type  # What it got.
    root: type  # What that stands for among the bases.
    # The models of it, and of its subclasses.
    models: list[weakref.ref[Any]] = dataclasses.field(default_factory=list)


_given: weakref.WeakKeyDictionary[type, _Given] = weakref.WeakKeyDictionary()
_plain: weakref.WeakSet[type] = weakref.WeakSet()
_own: weakref.WeakKeyDictionary[type, dict[type, type]] = (
    weakref.WeakKeyDictionary()
)


def is_functional(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a constructor was given inputs and outputs."""
    # It is decided by what the arguments are: Keras counts two of them, which
    # would take a list of layers and a flag for it.
    if "outputs" in kwargs or "inputs" in kwargs:
        return True
    if len(args) > 1 and not isinstance(args[1], bool):
        leaves = keras.tree.flatten(args[0])
        return any(map(_is_tensor, keras.tree.flatten(args[1]))) or not any(
            isinstance(leaf, keras.Layer) for leaf in leaves
        )
    # In a list of layers an `Input` may be the first.
    return bool(args) and isinstance(args[0], (dict, keras.KerasTensor))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def could_be_sequential(model: Any) -> bool:
    """Whether a plain model is empty, so that `add` may be meant."""
    return (
        "_layers" in vars(model)
        and not model.built
        and type(model).call is keras.Model.call
        and not model.layers
    )


def be_plain(model: Any) -> None:
    """Let a model be what its class was written as."""
    given = [one for one in type(model).__mro__ if one in _given]
    if not given:
        return
    _plain.add(type(model))
    for one in given:
        was = _given.pop(one)
        one.__bases__ = was.bases
        for other in _living(was.models):
            be(other, was.base, was.root)


def note_plain(model: Any) -> None:
    """Note that a class has plain models, so that it keeps its bases."""
    kinds = (keras.Sequential, functional_class())
    if not isinstance(model, kinds) and not could_be_sequential(model):
        _plain.add(type(model))


def be(model: Any, base: type, root: type) -> None:
    """Let a model whose constructor runs be of a kind."""
    cls = type(model)
    for one in cls.__mro__:
        if one in _given and _given[one].base is not base:
            msg = (
                f"A subclass of `{root.__name__}` must be given layers each "
                "time, or inputs and outputs each time. Received: "
                f"{one.__name__}, which was given the other before. Write a "
                "class for each."
            )
            raise TypeError(msg)
    if not isinstance(model, base):
        if not give(cls, base, root):
            model.__class__ = _own_class(cls, base)
        be_own_build(model)
    for one in cls.__mro__:
        if one in _given:
            alive = _living(_given[one].models)
            _given[one].models = [weakref.ref(m) for m in (*alive, model)]


def _living(references: list[weakref.ref[Any]]) -> list[Any]:
    found = [reference() for reference in references]
    return [one for one in found if one is not None]


def give(cls: type, base: type, root: type) -> bool:
    """Give a class a base, unless plain models are made of it too."""
    if cls in _given or any(issubclass(one, cls) for one in _plain):
        return False
    bases = cls.__bases__
    changed = tuple(base if one is root else one for one in bases)
    try:
        cls.__bases__ = changed if base in changed else (*bases, base)
    except TypeError:  # Its bases cannot stand in one order with it.
        return False
    _given[cls] = _Given(bases, base, root)
    return True


def _own_class(cls: type, base: type) -> type:
    made = _own.setdefault(cls, {})
    if base not in made:
        content = {"__module__": cls.__module__, "__doc__": cls.__doc__}
        made[base] = types.new_class(
            cls.__name__, (cls, base), {}, lambda space: space.update(content)
        )
    return made[base]
