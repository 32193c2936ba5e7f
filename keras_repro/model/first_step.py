"""What happens where Keras builds a model, and where its first step begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_repro.backends.active import get_backend
from keras_repro.backends.keras_internals import (
    flatten_layers,
    is_all_built,
    is_eager,
)
from keras_repro.backends.owners import give_way, is_awaited
from keras_repro.backends.random_streams import (
    RngState,
    capture_rng,
    in_the_program,
    restore_rng,
)
from keras_repro.backends.tensorflow import traced_functions
from keras_repro.backends.untracked_state import AttributeState
from keras_repro.backends.variables import (
    FirstValues,
    iterate_variables,
    new_variables_noted,
    read_variable,
)
from keras_repro.model.trial import capture_if_built
from keras_repro.model.trial_parts import Trial


@contextmanager
def building(model: Any) -> Iterator[None]:
    """Build as the program would; nothing of the trial is used for it."""
    trial: Trial = model._repro
    kept, is_look = None, not is_all_built(model)
    if trial.start.state is not None:
        # What was not built before may keep what building it sets.
        built = [layer for layer in flatten_layers(model) if layer.built]
        kept = AttributeState(built, {id(one) for one in model.variables})
    with in_the_program(), trial.data.positions.kept(is_look=is_look):
        try:
            yield
        finally:
            if kept is not None:
                kept.restore()
    if trial.data.fed is not None and not trial.progress.has_stepped:
        trial.data.fed.begin_again()


class BuiltError(BaseException):
    """A model that was to be built, and no more, is built."""

    # No `Exception`, so that a program's own handlers let it pass.


def end_rehearsal(model: Any) -> None:
    """Leave a training that only had to build the model."""
    if model._repro.calls.is_rehearsed and capture_if_built(model):
        raise BuiltError


class StepDoor:
    """A step that Keras has made, and whose first call begins the trial."""

    def __init__(
        self, model: Any, kind: str, function: Callable[..., Any]
    ) -> None:
        self._model, self._kind, self._function = model, kind, function
        self.has_run = False

    def __call__(self, *args: Any) -> Any:
        """Take the step."""
        trial: Trial = self._model._repro
        if self._kind != "train" or trial.data.reading is None:
            return self._take(args)
        trial.data.reading.note_begin()
        result = self._take(args)
        trial.data.reading.note_step()
        return result

    def _take(self, args: tuple[Any, ...]) -> Any:
        if self._kind == "train" and is_awaited():
            args = get_backend().step_aside(self._model, args, give_way)
        trial: Trial = self._model._repro
        if self.has_run and trial.progress.has_stepped:
            return self._function(*args)
        result = self._first(args)
        self.has_run = True
        if self._kind == "train":
            trial.progress.has_stepped = True
            trial.progress.leave_start()
        return result

    def _first(self, args: tuple[Any, ...]) -> Any:
        backend, model = get_backend(), self._model
        if self.has_run:
            return self._function(*args)
        known = traced_functions()
        again = backend.trace_step(model, self._function, args)
        model._repro.draws.traces.look(model, self._kind, known)
        if again is None:  # Traced, and not run: all of it is there now.
            self._take_start()
            return self._function(*self._put_late(args))
        if self._is_late():
            return self._run_late(again)
        return self._run_and_look(again)

    def _take_start(self) -> None:
        capture_if_built(self._model, has_stepped=True)
        if self._kind == "train":
            end_rehearsal(self._model)

    def _put_late(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put back, of a training gone on with, what was only made now."""
        if not self._is_late():
            return args
        put_late = self._model._repro.calls.keeper.put_late
        return get_backend().step_aside(self._model, args, put_late)

    def _is_late(self) -> bool:
        keeper = self._model._repro.calls.keeper
        return self._kind == "train" and keeper is not None and keeper.is_late

    def _run_late(self, again: Callable[[], tuple[Any, ...]]) -> Any:
        """Run a step that nobody could trace, for what it builds; and anew."""
        before = _Moment(self._model)
        self._function(*again())
        before.put_back()
        self._take_start()
        self._model._repro.calls.keeper.put_late()
        return self._function(*again())

    def _run_and_look(self, again: Callable[[], tuple[Any, ...]]) -> Any:
        """Run a step that nobody could trace; once more if it built a part."""
        model = self._model
        trial: Trial = model._repro
        before = _Moment(model) if _may_grow(model) else None
        created = FirstValues()
        with new_variables_noted(created.note):
            result = self._function(*again())
        grown = [
            place.variable
            for place in iterate_variables(model)
            if id(place.variable) in created.values
            and place.role in ("weights", "random")
        ]
        if (
            not grown
            or not is_eager()
            or before is None
            or trial.progress.has_trained
        ):
            return result
        before.put_back()
        values = created.values
        if trial.start.state is not None:
            # What was captured in the step may have been drawn anew there.
            start = trial.start.state.values_by_id()
            values = {key: start.get(key, values[key]) for key in values}
        for place in iterate_variables(model):
            if id(place.variable) in values:
                get_backend().assign(place.variable, values[id(place.variable)])
        if trial.calls.is_evaluating and trial.start.state is not None:
            trial.draws.evaluations.take_up(
                trial.start.state, again=set(values)
            )
        self._take_start()
        return self._function(*again())


def random_values(model: Any) -> list[tuple[Any, Any]]:
    """The generators of the layers that are there, each with its state."""
    if not is_eager():
        return []
    backend = get_backend()
    return [
        (place.variable, read_variable(place.variable))
        for place in iterate_variables(model)
        if place.role == "random" and backend.is_readable(place.variable)
    ]


class _Moment:
    """A model and the live generators, as they stand before a step."""

    def __init__(self, model: Any) -> None:
        self._model = model
        places = iterate_variables(model)
        self._values = [
            (place.variable, read_variable(place.variable)) for place in places
        ]
        tracked = {id(place.variable) for place in places}
        self._attributes = AttributeState(flatten_layers(model), tracked)
        self._rng: RngState = capture_rng()

    def put_back(self) -> None:
        """Undo what a step did, but for what it built."""
        backend = get_backend()
        backend.clear_pending(self._model)
        for variable, value in self._values:
            backend.assign(variable, value)
        self._attributes.restore()
        restore_rng(self._rng)


def _may_grow(model: Any) -> bool:
    """Whether a step may build a part, so that a copy is worth its memory."""
    return model._repro.start.state is None or not all(
        layer.built for layer in flatten_layers(model)[1:]
    )
