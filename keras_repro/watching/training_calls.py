"""The calls of a training function, recorded up to a chosen depth.

Up to its first training step, or to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras  # noqa: TID253

from keras_repro.backends.data_adapters import train_validation_split
from keras_repro.backends.keras_internals import (
    bind,
    checksum_leaves,
    flatten_layers,
)
from keras_repro.backends.untracked_state import AttributeState
from keras_repro.model import data_order
from keras_repro.watching.model_calls import (
    FIT,
    HIDDEN,
    Asked,
    CallRecorder,
    checksum_inputs,
    describe_results,
    make_trap,
    read_state,
)
from keras_repro.watching.traps import SAME_ORDER, find_same_order

TRAINING = (FIT, "train_on_batch")
_MOST_BATCHES = 256
BATCH, STEP = "batch", "step"


class ReachedError(BaseException):
    """What was asked for is recorded: leave the training function."""

    # No `Exception`, so that a program's own handlers let it pass.

    def __init__(self, recorder: Any) -> None:
        super().__init__()
        self.recorder = recorder


class WholeRecorder(CallRecorder):
    """Records every call, and knows which models were trained."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.models: list[int] = []
        self.has_callbacks = False
        self.validates = True

    def _record_fit(self, asked: Asked) -> Any:
        self.models.append(id(asked.model))
        call = _bind(asked) or {}
        self.has_callbacks = self.has_callbacks or bool(call.get("callbacks"))
        if call and not self.validates:
            asked = replace(asked, args=(), kwargs=_without_validation(call))
        return super()._record_fit(asked)


def _bind(asked: Asked) -> dict[str, Any] | None:
    """All arguments of a call by name; `None` if Keras would refuse it."""
    return bind(asked.method, asked.args, asked.kwargs)


def _without_validation(call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `fit` that trains on the same samples only."""
    split = call.pop("validation_split", None)
    if split and call.get("validation_data") is None:
        arrays = (call.get("x"), call.get("y"), call.get("sample_weight"))
        train, _ = train_validation_split(arrays, split)
        call["x"], call["y"], call["sample_weight"] = train
    call.pop("validation_data", None)
    return call


class StartRecorder(WholeRecorder):
    """Records what the first training starts from, and leaves."""

    # What its model holds, what it is fed, and what one step makes of it.

    def _find_way(self, method: str) -> Callable[..., Any]:
        if method in TRAINING:
            return self._record_start
        return super()._find_way(method)

    def _record_start(self, asked: Asked) -> Any:
        model = asked.model
        self.models.append(id(model))
        call = _bind(asked)
        if call is None:  # Keras says what is wrong with it.
            return asked.run()
        begun = self._begin(asked)
        with self._audit.muted():
            state = read_state(model)
            if state is not None:
                state[HIDDEN] = _read_hidden(model)
            outline = _outline(model, call)
            x, y, _ = outline.arrays or (None, None, None)
            checksum = checksum_inputs((x,), {"y": y})
            told = find_same_order(model, call, outline)
            traps = tuple(make_trap(SAME_ORDER, text) for text in told)
        results = self._audit_step(model, call, outline)
        self._write(
            begun(state=state, data=checksum, results=results, traps=traps)
        )
        raise ReachedError(self)

    def _audit_step(
        self, model: Any, call: dict[str, Any], outline: data_order.DataOutline
    ) -> dict[str, str]:
        """What is fed in one pass, and what one step gives."""
        results: dict[str, str] = {}
        if outline.arrays is not None:
            x, y, weights = outline.arrays
            size = call.get("batch_size")
            batch = data_order.first_rows((x, y, weights), size)
        else:
            batch, results = _read_pass(call.get("x"))
        if batch is None or not model.compiled:
            return results
        train_on_batch = self._originals["train_on_batch"]
        given = batch if isinstance(batch, (tuple, list)) else (batch,)
        value = train_on_batch(model, *given, return_dict=True)
        with self._audit.muted():
            for name, one in describe_results(value).items():
                results[f"{STEP}: {name}"] = one
            for role, places in (read_state(model) or {}).items():
                for place, one in places.items():
                    results[f"{STEP}: {role} {place}"] = one
        return results


def _outline(model: Any, call: dict[str, Any]) -> data_order.DataOutline:
    """What is fed; a reproducible model knows it, and has ordered it."""
    trial = getattr(model, "_repro", None)
    if trial is not None and trial.data.outline.arrays is not None:
        outline: data_order.DataOutline = trial.data.outline
        return outline
    return data_order.outline_data(call)


def _read_hidden(model: Any) -> dict[str, str]:
    """What the layers keep where Keras does not track it."""
    tracked = {id(variable) for variable in model.variables}
    return {
        f"layers.{index}.{name}": text
        for index, layer in enumerate(flatten_layers(model)[1:])
        for name, text in AttributeState([layer], tracked).describe().items()
    }


def _read_pass(x: Any) -> tuple[Any, dict[str, str]]:
    """Go through the data once: the first batch, and each one's checksum."""
    first, results = None, {}
    for number, batch in enumerate(_iterate(x)):
        if number >= _MOST_BATCHES:
            break
        first = batch if first is None else first
        results[f"{BATCH} {number + 1}"] = checksum_leaves(batch)
    return first, results


def _iterate(x: Any) -> Iterator[Any]:
    if isinstance(x, keras.utils.PyDataset):
        return (x[index] for index in range(x.num_batches or _MOST_BATCHES))
    try:
        return iter(x)
    except TypeError:
        return iter(())
