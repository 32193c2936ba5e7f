"""What callbacks remember from one batch or epoch to the next."""

from __future__ import annotations

import copy
import logging
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_repro.backends.data_state import is_equal
from keras_repro.backends.keras_internals import flatten_layers
from keras_repro.backends.variables import find_optimizers, handed_over
from keras_repro.common.plain_values import UnknownValueError, require_plain
from keras_repro.common.text import join_words
from keras_repro.common.whose_code import warn_user

# What `fit` gives each callback, and what only shows or writes.
_GIVEN = frozenset({"_model", "model", "params", "validation_data"})
_ELSEWHERE = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
_HARMLESS = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    logging.Logger,
    Path,
)


# What Keras' callbacks compare by; chosen at the end of the first epoch.
_FUNCTIONS = {
    "keras.ops.less": keras.ops.less,
    "keras.ops.greater": keras.ops.greater,
    "numpy.less": np.less,
    "numpy.greater": np.greater,
}


class Memory:
    """The memory of the callbacks of one `fit`."""

    def __init__(self, model: Any, callbacks: list[Any]) -> None:
        known = {id(one) for one in handed_over(model)}
        parts = [*flatten_layers(model), *find_optimizers(model).values()]
        # Of the model itself, which others put back.
        self._own = known | {id(one) for one in parts}
        self._callbacks = {
            name: one
            for name, one in _named(callbacks)
            if id(one) not in known
            and not isinstance(one, _ELSEWHERE)
            # What keeps the training remembers nothing of it.
            and not hasattr(one, "_keep_training")
        }
        # Taken before `on_train_begin`: what has another value later is
        # memory.
        self._before = {
            name: _copy_plain(vars(one))
            for name, one in self._callbacks.items()
        }

    def name_of(self, callback: Any) -> str | None:
        """How a callback is known."""
        named = self._callbacks.items()
        return next((name for name, one in named if one is callback), None)

    def describe_unknown(self) -> list[str]:
        """What of which callback cannot be told; it is warned of, too."""
        unknown = [
            f"{type(one).__name__} ({', '.join(names)})"
            for one in self._callbacks.values()
            if (names := _list_unknown(one, self._own))
        ]
        if not unknown:
            return []
        what = (
            f"callbacks: what {join_words(unknown)} remembers is not backed "
            "up; a resumed training begins without it"
        )
        advice = (
            "Give the callback `get_state` and `set_state`, or hand it over "
            "with `model.track`."
        )
        warn_user(UserWarning(f"{what}. {advice}"))
        return [what]

    def read(self) -> dict[str, Any]:
        """The memory of each, as plain values."""
        return {
            name: _read(one, self._before[name])
            for name, one in self._callbacks.items()
        }

    def put(self, memory: dict[str, Any]) -> None:
        """Give each the memory that `read` told; new ones have none."""
        for name, one in self._callbacks.items():
            if name in memory:
                _put(one, memory[name])

    def prepare(self, memory: dict[str, Any]) -> None:
        """Have those that write files go on with them."""
        for name, one in self._callbacks.items():
            if isinstance(one, keras.callbacks.CSVLogger) and name in memory:
                one.append = True
                _cut(Path(one.filename), memory[name]["size"])


def _named(callbacks: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each with its class, and the how-manieth of it it is."""
    counts: Counter[str] = Counter()
    for one in callbacks:
        name = f"{type(one).__module__}.{type(one).__qualname__}"
        yield f"{name}#{counts[name]}", one
        counts[name] += 1


def _has_state(one: Any) -> bool:
    return all(
        callable(getattr(one, name, None))
        for name in ("get_state", "set_state")
    )


def _is_of_keras(one: Any) -> bool:
    return type(one).__module__.partition(".")[0] in ("keras", "keras_repro")


def _copy_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Those that are plain, as copies of their own."""
    result = {}
    for name, value in values.items():
        if name not in _GIVEN and _is_plain(value):
            result[name] = copy.deepcopy(value)
    return result


def _is_plain(value: Any) -> bool:
    try:
        require_plain(value)
    except UnknownValueError:
        return False
    return True


def _list_unknown(one: Any, own: set[int]) -> list[str]:
    """Attributes that may remember what nobody can read."""
    if _has_state(one):
        return []
    if _is_of_keras(one) and not isinstance(
        one, keras.callbacks.LambdaCallback
    ):
        return []
    return sorted(
        name
        for name, value in vars(one).items()
        if name not in _GIVEN
        and id(value) not in own
        and not _is_plain(value)
        and _may_remember(value)
    )


def _may_remember(value: Any) -> bool:
    if isinstance(value, types.FunctionType):
        return bool(value.__closure__)
    return not isinstance(value, _HARMLESS)


def _read(one: Any, before: dict[str, Any]) -> Any:
    if _has_state(one):
        state = copy.deepcopy(one.get_state())
        require_plain(state)
        return {"state": state}
    if isinstance(one, keras.callbacks.CSVLogger):
        if not one.csv_file.closed:
            one.csv_file.flush()
        return {"size": Path(one.filename).stat().st_size}
    now = _copy_plain(vars(one))
    absent = object()
    return {
        "attributes": {
            name: value
            for name, value in now.items()
            if not is_equal(before.get(name, absent), value)
        },
        "functions": {
            name: known
            for name, value in vars(one).items()
            for known, function in _FUNCTIONS.items()
            if value is function
        },
    }


def _put(one: Any, memory: dict[str, Any]) -> None:
    if "state" in memory:
        one.set_state(copy.deepcopy(memory["state"]))
    for name, value in memory.get("attributes", {}).items():
        setattr(one, name, copy.deepcopy(value))
    for name, known in memory.get("functions", {}).items():
        setattr(one, name, _FUNCTIONS[known])


def _cut(path: Path, size: int) -> None:
    """Take back the rows of epochs that will be trained once more."""
    if path.is_file() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
