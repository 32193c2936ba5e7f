"""A model that was saved in the midst of an epoch, and goes on there."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_repro.backends.active import get_backend
from keras_repro.backends.reading import Place
from keras_repro.backends.variables import (
    VariablePlace,
    iterate_variables,
    read_variable,
)
from keras_repro.common.generators import is_whole
from keras_repro.common.json import check_fields

_MOST = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Midst:
    """Where in an epoch a model was saved, and what its training was fed."""

    place: Place
    first_epoch: int  # By whose order the first pass of its `fit` went.
    iterations: int  # Of the optimizer.
    data: dict[str, Any]  # What `fit` was given, and a checksum of arrays.
    # Of each variable of a metric its path, type and bytes.
    metrics: list[Any]

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """Where a model stands, if no later training could know it."""
        trial, optimizer = model._repro, getattr(model, "optimizer", None)
        place = None if trial.data.reading is None else trial.data.reading.here
        if place is None or optimizer is None or model.stop_training:
            return None
        if not (
            place.in_pass
            or trial.data.outline.arguments["steps_per_epoch"]
            or trial.data.has_moved()
        ):
            return None  # It begins an epoch, and so do the data.
        metrics = _list_metrics(model)
        variables = [*(one.variable for one in metrics), optimizer.iterations]
        *values, step = get_backend().make_viewer(model, variables)()
        return cls(
            # The epochs that have ended are counted by the trial.
            place=dataclasses.replace(place, num_epochs=0),
            first_epoch=trial.data.fed.passes.first if trial.data.fed else 0,
            iterations=int(step),
            data=trial.data.outline.identify(),
            metrics=[
                [one.variable.path, value.dtype.name, value.tobytes().hex()]
                for one, value in zip(metrics, values, strict=True)
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """What `to_json` wrote."""
        check_fields(data, _CHECKS)
        return cls(**{**data, "place": Place.from_json(data["place"])})

    def list_differences(self, model: Any, epoch: int) -> list[str]:
        """What a training that begins has otherwise than that one had."""
        trial = model._repro
        if not self.data["data"]:
            return [f"kind of data ({self.data['kind']}; arrays can)"]
        differing = []
        if epoch != self.place.epoch:
            differing.append(f"`initial_epoch` ({self.place.epoch} then)")
        if read_variable(model.optimizer.iterations) != self.iterations:
            differing.append("step of the optimizer")
        given = trial.data.outline.identify()
        return differing + [
            "content of the data" if name == "data" else f"`{name}`"
            for name in {**self.data, **given}
            if name != "initial_epoch"
            and given.get(name) != self.data.get(name)
        ]

    def put_metrics(self, model: Any) -> bool:
        """Have the metrics hold what they had of the epoch, if they can."""
        metrics = _list_metrics(model)
        values = list(map(_read, metrics, self.metrics))
        if len(metrics) != len(self.metrics) or any(
            value is None for value in values
        ):
            return False
        get_backend().assign_all(
            [
                (one.variable, value)
                for one, value in zip(metrics, values, strict=True)
            ]
        )
        return True


def _list_metrics(model: Any) -> list[VariablePlace]:
    return [one for one in iterate_variables(model) if one.role == "metrics"]


def _read(metric: VariablePlace, stored: Any) -> npt.NDArray[Any] | None:
    """A stored value, if it is one of this variable."""
    now = read_variable(metric.variable)
    try:
        *name, content = stored
        value = np.frombuffer(bytes.fromhex(content), now.dtype)
        fits = name == [metric.variable.path, now.dtype.name]
        return value.reshape(now.shape).copy() if fits else None
    except (TypeError, ValueError):
        return None


_CHECKS = {
    "place": lambda value: isinstance(value, dict),
    "first_epoch": lambda value: is_whole(value, 0, _MOST),
    "iterations": lambda value: is_whole(value, 0, _MOST),
    "data": lambda value: (
        isinstance(value, dict) and "data" in value and "kind" in value
    ),
    "metrics": lambda value: isinstance(value, list),
}
