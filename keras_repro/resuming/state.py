"""Everything that a training needs to go on, read between two batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_repro.backends.active import get_backend
from keras_repro.backends.data_passes import checksum_batch
from keras_repro.backends.random_streams import rng_from_json, rng_to_json
from keras_repro.backends.reading import Reading
from keras_repro.backends.variables import VariablePlace, iterate_variables
from keras_repro.model.stored_trial import VALIDATION
from keras_repro.model.trial_parts import Trial
from keras_repro.resuming.memory import Memory


def read_state(model: Any, reading: Reading, memory: Memory) -> dict[str, Any]:
    """Where a training stands between two batches, as plain values."""
    trial: Trial = model._repro
    place = reading.place
    passes = trial.data.passes and trial.data.passes.write(place.in_pass)
    return {
        "place": place.to_json(),
        "variables": _read_variables(model),
        "rest": trial.start.captured.write_rest(model),
        "streams": rng_to_json(trial.draws.own_streams.position),
        "evaluations": {
            kind: rng_to_json(one)
            for kind, one in trial.draws.own_streams.evaluations.items()
        },
        "generators": trial.draws.evaluations.write_all(trial.start.captured),
        "fed_kinds": sorted(trial.progress.fed_kinds),
        "passes": passes,
        # Read once more from the beginning, where nothing else is exact.
        "goes_through": passes is None and trial.data.fed is None,
        "last": None
        if place.batch == 0
        else checksum_batch(reading.last_batch),
        "validation": _read_validation(trial),
        "callbacks": memory.read(),
        "history": _read_history(model),
    }


def _read_variables(model: Any) -> list[Any]:
    places = iterate_variables(model)
    view = get_backend().make_viewer(model, [one.variable for one in places])
    return [
        [one.role, one.place, np.array(value)]
        for one, value in zip(places, view(), strict=True)
    ]


def is_last(reading: Reading, checksum: str | None) -> bool:
    """Whether the batch that was read last is that of a checksum."""
    found = checksum_batch(reading.last_batch)
    return checksum is None or found is None or found == checksum


def _read_validation(trial: Trial) -> Any:
    if trial.data.validation is None:
        return None
    return trial.data.positions.write(trial.data.validation, VALIDATION)


def _read_history(model: Any) -> Any:
    history = getattr(model, "history", None)
    if history is None:
        return None
    return {
        "epoch": list(getattr(history, "epoch", ())),
        "history": {key: list(one) for key, one in history.history.items()},
    }


class Late:
    """Variables that a model does not have yet, and their values."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Any] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def put(self, model: Any, values: list[Any]) -> None:
        """Assign what is there; keep the rest."""
        places = iterate_variables(model)
        if _are_alike(places, values):
            # Names may be ones that Keras counts in each process.
            values = [
                [one.role, one.place, value]
                for one, (*_, value) in zip(places, values, strict=True)
            ]
        wanted = {(role, place): value for role, place, value in values}
        there = {(one.role, one.place): one for one in places}
        _require_fit(there, wanted)
        get_backend().assign_all(
            [
                (place.variable, wanted[key])
                for key, place in there.items()
                if key in wanted
            ]
        )
        get_backend().finish_assign(model)
        self._values = {k: v for k, v in wanted.items() if k not in there}

    def put_rest(self, model: Any) -> None:
        """Assign what has been made since."""
        there = {(p.role, p.place): p for p in iterate_variables(model)}
        missing = [
            place for role, place in self._values if (role, place) not in there
        ]
        if missing:
            raise ValueError(_say_other(missing, []))
        get_backend().assign_all(
            [(there[key].variable, one) for key, one in self._values.items()]
        )
        self._values = {}


def _require_fit(
    there: dict[tuple[str, str], VariablePlace],
    wanted: dict[tuple[str, str], Any],
) -> None:
    extra = [place for role, place in there if (role, place) not in wanted]
    reshaped = [
        one.place
        for key, one in there.items()
        if key in wanted and not _has_shape(one.variable, wanted[key])
    ]
    if extra or reshaped:
        raise ValueError(_say_other([], [*extra, *reshaped]))


def _are_alike(places: list[VariablePlace], values: list[Any]) -> bool:
    return len(places) == len(values) and all(
        one.role == role and _has_shape(one.variable, value)
        for one, (role, _, value) in zip(places, values, strict=True)
    )


def _has_shape(variable: Any, value: Any) -> bool:
    """Whether a value is one of a variable, or of its replicas in a row."""
    shape = tuple(variable.shape)
    return value.shape in (shape, (*value.shape[:1], *shape)) and (
        value.dtype.name == str(variable.dtype)
    )


def _say_other(missing: list[str], extra: list[str]) -> str:
    return (
        "A training can only resume with the model that was backed up. "
        f"Received: a model that lacks {missing} and has {extra} besides or "
        "in another shape. Build the model as it was, or remove the backup."
    )


def put_streams(model: Any, state: dict[str, Any]) -> None:
    """Have streams, generators and data stand where they stood."""
    trial: Trial = model._repro
    trial.start.captured.put_rest(model, state["rest"])
    trial.draws.own_streams.position = rng_from_json(state["streams"])
    trial.draws.own_streams.evaluations = {
        kind: rng_from_json(one) for kind, one in state["evaluations"].items()
    }
    trial.draws.evaluations.take_all(trial.start.captured, state["generators"])
    trial.progress.fed_kinds = set(state["fed_kinds"])
    if trial.data.validation is not None:
        trial.data.positions.put(
            trial.data.validation, VALIDATION, state["validation"]
        )


def put_history(model: Any, state: dict[str, Any]) -> None:
    """Have the history hold the epochs before."""
    history, kept = getattr(model, "history", None), state["history"]
    if history is not None and kept is not None:
        history.epoch = list(kept["epoch"])
        history.history = {k: list(v) for k, v in kept["history"].items()}
