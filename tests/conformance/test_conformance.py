"""Fit, disturb, reset, fit: bit for bit the same, and a twin that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends.active import get_backend
from keras_repro.backends.variables import iterate_variables, read_variable

from .cases import CASES, Case

BACKEND = keras.backend.backend()


def results(case: Case, model: Any) -> dict[str, Any]:
    """Train, and gather everything that must be equal."""
    history = case.train(model)
    values = {
        f"{place.role} {place.place}": read_variable(place.variable).tobytes()
        for place in iterate_variables(model)
        if place.role != "metrics"
    }
    return {"history": repr(history), **values}


def parting(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The names under which two results differ."""
    return [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]


def leave_out(model: Any, ingredient: str) -> Callable[[], None]:
    """Note an ingredient as it is before a reset; give what puts it back."""
    trial = model._repro
    backend = get_backend()
    if ingredient in {"weights", "optimizer", "random"}:
        kept = [
            (place.variable, read_variable(place.variable))
            for place in iterate_variables(model)
            if place.role == ingredient
        ]
        assert kept, f"there is no {ingredient} to leave out"
        return lambda: [backend.assign(v, value) for v, value in kept]
    if ingredient == "streams":
        position = trial.draws.streams.position
        return lambda: setattr(trial.draws.streams, "position", position)
    if ingredient == "evaluations":
        positions = dict(trial.draws.evaluations._positions)
        return lambda: setattr(trial.draws.evaluations, "_positions", positions)
    if ingredient == "order":
        return lambda: setattr(trial.progress, "epochs", 7)
    if ingredient == "attributes":
        state = trial.start.state._attributes
        trial.start.state._attributes = None

        def put_back() -> None:
            trial.start.state._attributes = state

        return put_back
    if ingredient == "data":
        rewind = trial.data.positions.rewind
        trial.data.positions.rewind = lambda _kind=None: None
        return lambda: setattr(trial.data.positions, "rewind", rewind)
    if ingredient == "kernels":
        return lambda: setattr(trial.draws.streams, "is_stateful", False)
    raise AssertionError(ingredient)


@pytest.mark.sampled(20)
@pytest.mark.filterwarnings("ignore:.*does not have a `build:UserWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reset_repeats_training(case: Case) -> None:
    """After any disturbance `reset()` gives the first training again."""
    if BACKEND not in case.backends:
        pytest.skip(f"not on {BACKEND}")
    kr.seed_everything(5, deterministic=False)
    model = case.make()
    first = results(case, model)
    object.__setattr__(model, "first_seed", model.seed)
    case.disturb(model)

    model.reset()
    assert parting(first, results(case, model)) == []

    put_back = leave_out(model, case.without)
    model.reset()
    put_back()
    assert parting(first, results(case, model)) != []


def test_table_is_long_enough() -> None:
    """The table has the cases that the project promises."""
    ours = [case for case in CASES if BACKEND in case.backends]
    assert len(ours) >= 45
    assert len({case.name for case in CASES}) == len(CASES)
    assert np.all([case.without for case in CASES])
