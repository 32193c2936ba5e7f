"""Each call that a script makes of its models, recorded.

Loads Keras only once the script has.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from keras_repro.audit import Audit
from keras_repro.calls import END, FIT, LOAD, RUNS, Call
from keras_repro.causes import LOADED_RATE, NAN_FEATURES
from keras_repro.patches import Patches
from keras_repro.script_fits import Options, Recorder
from keras_repro.sites import find_site

_METHODS = (
    *("evaluate", "predict", "train_on_batch"),
    *("test_on_batch", "predict_on_batch"),
)
# Bytes: larger inputs of `predict` and its like are not read.
_MOST_DATA = 1 << 26
_get_process = os.getpid  # Before it is watched.


class CallSink(Protocol):
    """Where calls go."""

    def write(self, call: Call) -> None:
        """Take a call that has ended."""


@dataclass(frozen=True)
class Asked:
    """A call that a program makes of a model.

    Args:
        method: Its name.
        original: The method as Keras has it.
        model: The model.
        args: What it is given by position.
        kwargs: What it is given by name.
    """

    method: str
    original: Callable[..., Any]
    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """Make it."""
        return self.original(self.model, *self.args, **self.kwargs)


class CallRecorder:
    """Records what a program asks of its models.

    Args:
        sink: Where the calls go.
        folder: Where the runs of `fit` are written.
        audit: Is told to note nothing of what we do.
        shuffle: `False` has `fit` not shuffle arrays.
    """

    def __init__(
        self,
        sink: CallSink,
        folder: str | os.PathLike[str],
        audit: Audit,
        *,
        shuffle: bool | None = None,
    ) -> None:
        self._sink, self._audit, self._shuffle = sink, audit, shuffle
        log = str(Path(folder) / RUNS)
        self._fits = Recorder(Options(seed=0, log=log, quiet=True))
        self._numbers = itertools.count()
        self._repeats: dict[tuple[str, str], Iterator[int]] = {}
        self._process = _get_process()
        self._keras: Any = None
        self._originals: dict[str, Callable[..., Any]] = {}

    def wrap(self, keras: Any, patches: Patches) -> None:
        """Have the calls of every model recorded."""
        self._keras = keras
        model_class = keras.Model
        self._fits.wrap(model_class)
        patches.also_undo(self._fits.unwrap)
        for method in (FIT, LOAD, *_METHODS):
            original = getattr(model_class, method)
            self._originals[method] = original
            patches.replace(model_class, method, self._make(method, original))

    def _make(
        self, method: str, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        record = self._find_way(method)

        @functools.wraps(original)
        def call(model: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_asked(sys._getframe(1)):
                return original(model, *args, **kwargs)
            return record(Asked(method, original, model, args, kwargs))

        return call

    def _find_way(self, method: str) -> Callable[..., Any]:
        """How a call of this method is recorded."""
        ways = {FIT: self._record_fit, LOAD: self._record_loading}
        return ways.get(method, self._record)

    def _is_asked(self, frame: FrameType | None) -> bool:
        """Whether the program calls, and not Keras within another call."""
        if _get_process() != self._process:
            return False
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] != "keras_repro":
                return module.partition(".")[0] != "keras"
            frame = frame.f_back
        return True

    # --- one call ------------------------------------------------------------

    def _begin(self, asked: Asked) -> Callable[..., Call]:
        """What is known of a call before it runs; it is given the rest."""
        return functools.partial(
            Call,
            index=next(self._numbers),
            method=asked.method,
            model=asked.model.name,
            place=find_place(),
        )

    def _record_fit(self, asked: Asked) -> Any:
        begun = self._begin(asked)
        if self._shuffle is not None:
            given = {**asked.kwargs, "shuffle": self._shuffle}
            asked = replace(asked, kwargs=given)
        self._fits.last_run_id = None
        with self._audit.muted():
            inputs = asked.args[0] if asked.args else asked.kwargs.get("x")
            traps = [_make_trap(NAN_FEATURES, t) for t in _find_nan(inputs)]
        error = None
        try:
            return asked.run()
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._write(
                begun(
                    run_id=self._fits.last_run_id,
                    error=error,
                    traps=tuple(traps),
                )
            )

    def _record(self, asked: Asked) -> Any:
        begun = self._begin(asked)
        with self._audit.muted():
            number = self._count(asked.method, asked.model)
            state = read_state(asked.model) if _is_read(number) else None
            data = checksum_inputs(asked.args, asked.kwargs)
        results: Mapping[str, str] = {}
        error = None
        try:
            value = asked.run()
            with self._audit.muted():
                results = describe_results(value)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._write(
                begun(state=state, data=data, results=results, error=error)
            )
        return value

    def _record_loading(self, asked: Asked) -> Any:
        """Weights loaded with their optimizer bring its rate back."""
        from keras_repro.traps import read_rate

        begun = self._begin(asked)
        with self._audit.muted():
            before = read_rate(asked.model)
        result = asked.run()
        with self._audit.muted():
            after = read_rate(asked.model)
        traps = []
        if before is not None and after is not None and before != after:
            # Rates are single precision, and shown as they were typed.
            told = f"the learning rate was {before:.6g}, and is {after:.6g} now"
            traps.append(_make_trap(LOADED_RATE, told))
        self._write(begun(traps=tuple(traps)))
        return result

    def _count(self, method: str, model: Any) -> int:
        key = method, model.name
        return next(self._repeats.setdefault(key, itertools.count()))

    def _write(self, call: Call) -> None:
        with self._audit.muted():
            self._sink.write(call)

    # --- the end -------------------------------------------------------------

    def finish(self) -> None:
        """Record what every model holds that the program still has."""
        if self._keras is None or _get_process() != self._process:
            return
        with self._audit.muted():
            for model in _find_models(self._keras.Model):
                with suppress(Exception):  # A step that failed lost values.
                    self._sink.write(
                        Call(
                            index=next(self._numbers),
                            method=END,
                            model=model.name,
                            place="",
                            state=read_state(model),
                        )
                    )


def _make_trap(kind: str, text: str) -> dict[str, str]:
    return {"kind": kind, "text": text}


def _find_nan(inputs: Any) -> list[str]:
    from keras_repro.traps import find_nan_features

    with suppress(Exception):  # Whatever a program gives to `fit`.
        return list(find_nan_features(inputs))
    return []


def find_place() -> str:
    """The line of the program that calls, or nothing."""
    site = find_site()
    return "" if site is None else site.place


def _is_read(number: int) -> bool:
    """Whether the variables are read before this call of its kind.

    Reading them before every one of many thousand steps would take longer
    than the steps: the first 16, then ever fewer.
    """
    return number < 16 or number % (1 << (number.bit_length() - 4)) == 0


def read_state(model: Any) -> dict[str, dict[str, str]] | None:
    """Checksums of a model's variables, by role and place."""
    from keras_repro.reading import ModelReader, read_looks

    if not model.built:
        return None
    (readings,) = read_looks([ModelReader(model).look()])
    state: dict[str, dict[str, str]] = {}
    for one in readings:
        # Metrics hold at a call's start what came before it.
        if one.role != "metrics":
            state.setdefault(one.role, {})[one.place] = one.checksum
    return state


def checksum_inputs(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Checksum of the arrays that a call is given, if it is given arrays."""
    from keras_repro import _backends
    from keras_repro.checksums import compute_checksum

    arrays = (args[0] if args else kwargs.get("x"), kwargs.get("y"))
    if arrays[0] is None or not _backends.are_arrays((*arrays, None)):
        return None
    size = sum(getattr(leaf, "nbytes", 0) for leaf in _flatten(arrays))
    if size > _MOST_DATA:
        return None
    with suppress(TypeError, ValueError):  # Such as Python objects.
        return compute_checksum(arrays)
    return None


def describe_results(value: Any) -> dict[str, str]:
    """What came out: numbers as their bits, arrays as their checksums."""
    if isinstance(value, Mapping):
        named = {str(name): one for name, one in value.items()}
    elif isinstance(value, (list, tuple)):
        named = {f"[{i}]": one for i, one in enumerate(value)}
    else:
        named = {"value": value}
    return {name: _describe_result(one) for name, one in named.items()}


def _describe_result(value: Any) -> str:
    from keras_repro.checksums import compute_checksum

    if isinstance(value, float):
        return value.hex()
    try:
        return compute_checksum(value)
    except (TypeError, ValueError):
        return repr(type(value))


def _flatten(nested: Any) -> list[Any]:
    import keras

    return [leaf for leaf in keras.tree.flatten(nested) if leaf is not None]


def _find_models(model_class: type) -> list[Any]:
    """The models that the program still holds, in the order of their names.

    Names are unique in a process, and the same in the next one.
    """
    import gc

    from keras_repro import _backends

    every = gc.get_objects()
    # By their classes, since there are many objects of few.
    kinds = {one for one in set(map(type, every)) if model_class in one.__mro__}
    found = [one for one in every if type(one) in kinds]
    inner = {
        id(layer)
        for model in found
        for layer in _backends.flatten_layers(model)[1:]
    }
    return sorted(
        (one for one in found if id(one) not in inner and one.built),
        key=lambda one: str(one.name),
    )
