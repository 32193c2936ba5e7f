"""What the steps of a model drew while they were traced, and what keeps it.

A draw in Python or NumPy, and the seeds of TensorFlow's random ops, become
constants of a compiled function. The steps that hold some are traced anew for
each seed; what cannot be traced anew is named.
"""

from __future__ import annotations

import inspect
import random
import re
import sys
import warnings
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from keras_repro.backends.keras_internals import flatten_layers
from keras_repro.backends.tensorflow import (
    find_stateful_random_ops,
    traced_functions,
)
from keras_repro.common.text import join_words
from keras_repro.common.whose_code import is_own_class, is_own_function

# How TensorFlow names what it traced: `__inference_NAME_123`.
_TRACED = re.compile(r"^__[a-z]+?_(.*)_\d+$")
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)


class Traces:
    """The draws that the compiled steps of a model hold."""

    def __init__(self) -> None:
        # Kinds of steps that hold draws of the present seed.
        self.kinds: set[str] = set()
        # What no seed can move, for the record of a run.
        self.notes: list[str] = []
        self._has_told = False

    def look(self, model: Any, kind: str, known: frozenset[str]) -> None:
        """Look at a step traced since `known`, and at what the model calls."""
        ops = find_stateful_random_ops(traced_functions() - known)
        if ops:
            # Their seeds are constants of the graph.
            self.kinds.add(kind)
        by_xla = {op.name for op in ops if op.is_compiled_by_xla}
        if by_xla:
            self._tell(
                model,
                f"XLA compiled random ops ({join_words(sorted(by_xla))}), "
                "which draw from a counter of the process",
                "compile with `jit_compile=False`",
            )
        names = {
            _TRACED.sub(r"`\1`", op.function)
            for op in ops
            if op.function in known
        }
        names |= set(_find_compiled_draws(model))
        if names:
            self._tell(
                model,
                f"the program compiled {join_words(sorted(names))} itself, "
                "which keeps what it drew when it was first called",
                "leave the compiling to Keras",
            )

    def drop(self, model: Any) -> None:
        """Have steps traced anew that hold draws of another seed."""
        if not self.kinds:
            return
        for kind in self.kinds:
            setattr(model, f"{kind}_function", None)
        if not self._has_told:
            self._has_told = True
            warnings.warn(
                f"A step of {model.name!r} drew random numbers while it was "
                "traced, so that they are constants of the compiled function: "
                f"{', '.join(sorted(self.kinds))}. It is traced anew for each "
                "seed, which takes as long as the first time. Draw with a "
                "`keras.random.SeedGenerator` to avoid it.",
                UserWarning,
                stacklevel=6,
            )
        self.kinds.clear()

    def _tell(self, model: Any, what: str, instead: str) -> None:
        if what in self.notes:
            return
        self.notes.append(what)
        warnings.warn(
            f"`reset()` cannot repeat all that {model.name!r} draws: {what}. "
            f"Draw with a `keras.random.SeedGenerator`, or {instead}.",
            UserWarning,
            stacklevel=7,
        )


def _find_compiled_draws(model: Any) -> Iterator[str]:
    """Names of compiled functions of the program that draw by their code."""
    for part in flatten_layers(model):
        found = dict(vars(part))
        for cls in filter(is_own_class, type(part).__mro__):
            found |= vars(cls)
            for value in vars(cls).values():
                if isinstance(value, FunctionType):
                    found |= _names_of(inspect.unwrap(value))
        for value in found.values():
            function = _find_compiled(value)
            if function is not None and _draws(function, set()):
                yield f"`{function.__name__}`"


def _find_compiled(value: Any) -> FunctionType | None:
    """The Python function in what `tf.function` or `jax.jit` gave."""
    if hasattr(value, "get_concrete_function"):
        function = getattr(value, "python_function", None)
    elif hasattr(value, "lower") and hasattr(value, "clear_cache"):
        function = getattr(value, "__wrapped__", None)
    else:
        return None
    function = getattr(function, "__func__", function)
    is_own = isinstance(function, FunctionType) and is_own_function(function)
    return function if is_own else None


def _names_of(function: Any) -> dict[str, Any]:
    """What the code of a function refers to, by name."""
    closure = inspect.getclosurevars(function)
    return {**closure.globals, **closure.nonlocals}


def _draws(function: FunctionType, seen: set[CodeType]) -> bool:
    """Whether a function, or one that it calls, refers to a generator."""
    if function.__code__ in seen:
        return False
    seen.add(function.__code__)
    libraries = [np, sys.modules.get("tensorflow")]
    for value in _names_of(function).values():
        owner = getattr(value, "__self__", value)
        if owner in (random, np.random) or isinstance(owner, _GENERATORS):
            return True
        if any(value is one for one in libraries):
            if "random" in function.__code__.co_names:
                return True
        elif (
            isinstance(value, FunctionType)
            and is_own_function(value)
            and _draws(value, seen)
        ):
            return True
    return False
