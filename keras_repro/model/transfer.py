"""Models and functions as bytes that a fresh process can load.

By value is sent what a fresh process could not import: what was made in the
main program or in a notebook, and the person's own classes and functions that
a model is made of.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle
import keras

from keras_repro.backends.active import get_backend
from keras_repro.common.whose_code import (
    is_own_class,
    is_own_function,
    is_user_code,
)

_KERAS = ("keras", "keras_repro", "tensorflow", "jax", "torch", "numpy")
_MOST_OBJECTS = 100_000


class PicklingError(Exception):
    """Something cannot be sent to another process; the message says why."""


def pack(value: Any, *, by_value: bool = False) -> bytes:
    """Write a value for another process with the same software."""
    buffer = io.BytesIO()
    try:
        with _sent_by_value(_own_modules() if by_value else ()):
            _Pickler(buffer).dump(value)
    except Exception as error:
        msg = f"it cannot be sent to another process: {error}"
        raise PicklingError(msg) from error
    return buffer.getvalue()


class _Pickler(cloudpickle.Pickler):
    """Keeps the names of files, and what a model needs to be made again."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):
            return marshal.loads, (marshal.dumps(obj),)
        if isinstance(obj, keras.Model):
            parts = find_own_parts(obj)
            registered = keras.saving.get_registered_name
            parts |= {registered(one): one for one in parts.values()}
            return _load_model, (parts, pickle.dumps(obj))
        return super().reducer_override(obj)


def _load_model(parts: dict[str, Any], content: bytes) -> Any:
    with keras.saving.custom_object_scope(parts), warnings.catch_warnings():
        # Keras makes the slots of an optimizer that had none yet; the initial
        # state knows their start.
        warnings.filterwarnings("ignore", "Skipping variable loading for opt")
        return pickle.loads(content)  # The sender's own model.


def find_own_parts(model: Any) -> dict[str, Any]:
    """Find the classes and functions of the person's in a model, by name."""
    found: dict[str, Any] = {}
    own: list[Any]
    for part in _walk(model):
        if isinstance(part, FunctionType):
            own = [part] if is_own_function(part) else []
        else:
            own = list(filter(is_own_class, type(part).__mro__))
        found |= {one.__name__: one for one in own}
    return found


def _walk(model: Any) -> Iterator[Any]:
    """The objects of Keras' kinds, and the functions, that a model holds."""
    seen: set[int] = set()
    waiting = [model]
    while waiting and len(seen) < _MOST_OBJECTS:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (list, tuple, set)):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, FunctionType):
            # Keras wraps methods of each layer; those come with the class.
            if "." not in one.__qualname__.rpartition("<locals>.")[2]:
                yield one
        elif isinstance(one, (type, keras.Variable)):
            continue
        elif _is_of_keras(one):
            yield one
            waiting.extend(getattr(one, "__dict__", {}).values())


def _is_of_keras(value: Any) -> bool:
    """Whether it is an object of Keras, or of a class that extends one."""
    return any(
        one.__module__.partition(".")[0] == "keras"
        for one in type(value).__mro__
    )


def _own_modules() -> list[ModuleType]:
    """The modules that the person wrote, but for the main one."""
    return [
        module
        for name, module in list(sys.modules.items())
        if name not in ("__main__", "__mp_main__")
        and name.partition(".")[0] not in _KERAS
        and isinstance(module, ModuleType)
        and is_user_code(getattr(module, "__file__", None) or "<none>")
        and module.__name__ == name
    ]


@contextmanager
def _sent_by_value(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Have cloudpickle send these modules' content for a while."""
    known = cloudpickle.list_registry_pickle_by_value()
    added = [one for one in modules if one.__name__ not in known]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def read_settings() -> dict[str, Any]:
    """What another process needs set to compute as this one does."""
    backend = get_backend()
    return {
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": keras.config.dtype_policy().name,
        "deterministic": backend.is_deterministic(),
        "threads": backend.read_threads(),
    }


def apply_settings(settings: dict[str, Any]) -> None:
    """Set in this thread and process what `read_settings` read in another."""
    keras.config.set_floatx(settings["floatx"])
    keras.config.set_epsilon(settings["epsilon"])
    keras.config.set_image_data_format(settings["image_data_format"])
    if keras.config.dtype_policy().name != settings["dtype_policy"]:
        keras.config.set_dtype_policy(settings["dtype_policy"])
    backend = get_backend()
    if settings["deterministic"] and not backend.is_deterministic():
        backend.enable_determinism()
    backend.set_threads(settings["threads"])
