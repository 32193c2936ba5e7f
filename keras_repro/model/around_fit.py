"""What happens around a training or an evaluation call."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from keras_repro.backends import random_streams
from keras_repro.backends.active import get_backend
from keras_repro.backends.data_adapters import (
    are_arrays,
    is_tf_dataset,
    make_ordered_adapter,
    train_validation_split,
)
from keras_repro.backends.keras_internals import (
    has_unbuilt_compile_parts,
    symbolic_build,
)
from keras_repro.backends.variables import iterate_variables, read_variable
from keras_repro.model import data_order
from keras_repro.model.initial_state import InitialState
from keras_repro.model.trial import (
    FIXED_SEED,
    Trial,
    build_optimizer,
    capture_if_built,
    is_complete,
    note_compile,
    start_unbuilt,
)

_log = logging.getLogger(__name__)


def bind(
    method: Callable[..., Any],
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any] | None:
    """All arguments by name; `None` where Keras would refuse them."""
    try:
        bound = inspect.signature(method).bind(model, *args, **kwargs)
    except TypeError:
        return None
    call = dict(bound.arguments)
    call.pop("self")
    return call


class BuiltError(BaseException):
    """A model that was to be built, and no more, is built.

    No `Exception`, so that a program's own handlers let it pass.
    """


def rehearse(model: Any, train: Callable[[Any], Any]) -> None:
    """Call a training function up to its first step, to build its model.

    Raises:
        ValueError: If it returns without training, or if its data cannot
            build the model before the first step.
    """
    trial: Trial = model._repro
    with _marked(trial, "is_rehearsed"), random_streams.isolate_rng(FIXED_SEED):
        try:
            train(model)
        except BuiltError:
            return
    msg = (
        "`train` must call `fit` or `train_on_batch` of the model that it is "
        f"given. Received: {train!r}, which returned without it, so that "
        f"{model.name!r} was never built. Give the model a `keras.Input`, or "
        "train it."
    )
    raise ValueError(msg)


def _end_rehearsal(model: Any) -> None:
    """Leave a training that only had to build the model."""
    if not model._repro.is_rehearsed:
        return
    if capture_if_built(model):
        raise BuiltError
    msg = (
        "Many trials need a model that is built before the first step. "
        f"Received: {model.name!r}, which the shapes of a batch cannot build. "
        "Call it on a batch, or `model.build(...)`, before."
    )
    raise ValueError(msg)


@contextmanager
def training(model: Any, call: dict[str, Any]) -> Iterator[None]:
    """Everything around a `fit`: start, streams, data order, bookkeeping."""
    trial: Trial = model._repro
    callbacks = call.get("callbacks")
    with ExitStack() as stack:
        stack.enter_context(_kept_apart(trial))
        _split_validation(call)
        _prepare(model, call)
        _restart_pipeline(model, call)
        if trial.observer is not None:
            call["callbacks"] = _with_observer(callbacks, trial.observer)
        streams = trial.own_streams
        stack.enter_context(streams.training())
        _forget_other_batches(model, "train", call)
        _order_arrays(model, call)
        trial.at_start = False
        earlier = getattr(model, "history", None)
        try:
            yield
        except BaseException as error:
            _tell_abort(call.get("callbacks"), error)
            raise
        finally:
            history = getattr(model, "history", None)
            if history is not None and history is not earlier:
                # Without one where a callback failed before Keras' own.
                trial.epochs_trained += len(getattr(history, "epoch", ()))
            # The arrays are the caller's; nothing here keeps them alive.
            trial.data, trial.fed = data_order.DataOutline(), None


def _forget_other_batches(model: Any, kind: str, call: dict[str, Any]) -> None:
    """Have a step traced anew where a trial feeds other batches than before.

    TensorFlow would take what it traced for batches of any size for those of
    one size too, which gives other last digits than a fresh process.
    """
    trial: Trial = model._repro
    if not get_backend().shares_traces or kind in trial.fed_kinds:
        return
    trial.fed_kinds.add(kind)
    batches = data_order.describe_batches(call)
    if trial.batches.get(kind, batches) != batches:
        setattr(model, f"{kind}_function", None)
    trial.batches[kind] = batches


@contextmanager
def _marked(trial: Trial, flag: str) -> Iterator[None]:
    """Set a flag of the trial for the length of a block."""
    before = getattr(trial, flag)
    setattr(trial, flag, True)
    try:
        yield
    finally:
        setattr(trial, flag, before)


@contextmanager
def _kept_apart(trial: Trial) -> Iterator[None]:
    """Run a training; outside a `trial` block the program feels nothing."""
    with ExitStack() as stack:
        if not trial.in_block:
            stack.enter_context(random_streams.keep_rng())
        stack.enter_context(_marked(trial, "is_running"))
        yield


def _with_observer(callbacks: Any, observer: Any) -> Any:
    """The callbacks of a `fit`, and one that whoever runs trials adds."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        # The caller's own object, which Keras uses as it is.
        if not any(one is observer for one in callbacks.callbacks):
            callbacks.append(observer)
        return callbacks
    if callbacks is None:
        return [observer]
    if not isinstance(callbacks, (list, tuple)):
        callbacks = [callbacks]
    return [*callbacks, observer]


def _tell_abort(callbacks: Any, error: BaseException) -> None:
    listed = getattr(callbacks, "callbacks", callbacks)
    if not isinstance(listed, (list, tuple)):
        listed = [listed]
    for callback in listed:
        tell = getattr(callback, "on_train_abort", None)
        if tell is not None:
            tell(error)


def _split_validation(call: dict[str, Any]) -> None:
    """Split as `fit` would, so that only the training part is shuffled."""
    split = call.get("validation_split")
    if not split or call.get("validation_data") is not None:
        return
    arrays = (call.get("x"), call.get("y"), call.get("sample_weight"))
    if not are_arrays(arrays):
        return
    train, validation = train_validation_split(arrays, split)
    call["x"], call["y"], call["sample_weight"] = train
    call["validation_data"] = validation
    call["validation_split"] = 0.0


def _prepare(model: Any, call: dict[str, Any]) -> None:
    """Build what is unbuilt, and have the start captured before step one."""
    trial: Trial = model._repro
    x, y = call.get("x"), call.get("y")
    weights = call.get("sample_weight")
    trial.data = data_order.outline_data(call)
    trial.fed = None
    trial.data_notes = data_order.describe_order(x)
    trial.positions.enter(x, at_start=trial.at_start and trial.has_trained)
    if _needs_building(model):
        with random_streams.keep_rng():
            batch, call["x"] = trial.positions.first_batch(
                x, y, weights, call.get("batch_size")
            )
        if batch is not None:
            _symbolic_build(model, batch)
    _capture_for_training(model)


def _restart_pipeline(model: Any, call: dict[str, Any]) -> None:
    trial: Trial = model._repro
    x = call.get("x")
    if not is_tf_dataset(x) or not hasattr(x, "element_spec"):
        return
    call["x"], notes = trial.positions.restart(
        x, trial.order_seed, at_start=trial.at_start
    )
    trial.data_notes.extend(notes)


def _needs_building(model: Any) -> bool:
    return not is_complete(model) or has_unbuilt_compile_parts(model)


def _symbolic_build(model: Any, batch: Any) -> None:
    """Build as `fit` would; what cannot be built so, Keras builds itself."""
    if not model.compiled:
        return
    if isinstance(batch, list):
        batch = tuple(batch)
    elif not isinstance(batch, tuple):
        batch = (batch,)
    with random_streams.keep_rng():
        before = _random_state(model)
        try:
            symbolic_build(model, batch)
        except Exception:  # noqa: BLE001 - `fit` itself tells what is wrong
            _log.debug("no symbolic build of %s", model.name, exc_info=True)
        for variable, value in before:
            get_backend().assign(variable, value)


def _capture_for_training(model: Any) -> None:
    """Capture again if set-up changed something; follow a new optimizer."""
    trial: Trial = model._repro
    if is_complete(model):
        build_optimizer(model)
    _end_rehearsal(model)
    if not capture_if_built(model):
        start_unbuilt(trial)
        warnings.warn(
            "The initial state must be captured before the first step, and "
            f"{model.name!r} cannot be built from the shapes of a batch. "
            "`reset()` will go back to what it holds after this training. "
            "Call the model on a batch, or `model.build(...)`, before `fit`.",
            UserWarning,
            stacklevel=5,
        )
        return
    if trial.has_trained:
        trial.captured.follow(model)
        note_compile(model)
    else:
        note_compile(model)
        model.reset_metrics()
        trial.state = InitialState.capture(model, earlier=trial.state)


def _order_arrays(model: Any, call: dict[str, Any]) -> None:
    """Feed arrays in the order of the trial's seed and the epoch."""
    trial: Trial = model._repro
    if trial.data.arrays is None or not model.compiled:
        return
    first = max(trial.epochs_trained, call.get("initial_epoch") or 0)
    steps = call.get("steps_per_epoch")
    passes = data_order.OrderedPasses(
        trial.order_seed, first, call.get("shuffle", True)
    )
    trial.fed = data_order.FedSamples(trial.data.arrays, passes, steps)
    call["x"] = make_ordered_adapter(
        call.get("x"),
        call.pop("y", None),
        call.pop("sample_weight", None),
        batch_size=call.get("batch_size"),
        steps=steps,
        class_weight=call.pop("class_weight", None),
        order=passes,
    )


@contextmanager
def training_on_batch(model: Any, call: dict[str, Any]) -> Iterator[None]:
    """Everything around a `train_on_batch`; there is no order to give."""
    trial: Trial = model._repro
    with ExitStack() as stack:
        stack.enter_context(_kept_apart(trial))
        if trial.at_start or not is_complete(model):
            if _needs_building(model):
                batch = tuple(
                    call.get(name) for name in ("x", "y", "sample_weight")
                )
                _symbolic_build(model, batch)
            _capture_for_training(model)
        stack.enter_context(trial.own_streams.training())
        trial.at_start = False
        yield


@contextmanager
def evaluating(
    model: Any,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[None]:
    """Draw from the evaluation stream, and leave the training's alone."""
    trial: Trial = model._repro
    call = bind(method, model, args, kwargs) or {}
    kind = "predict" if "predict" in method.__name__ else "test"
    with _marked(trial, "is_evaluating"):
        if not capture_if_built(model):
            _build_to_evaluate(model, call)
        _forget_other_batches(model, kind, call)
        kept = _random_state(model)
        try:
            with trial.own_streams.evaluation():
                yield
        finally:
            for variable, value in kept:
                get_backend().assign(variable, value)


def _random_state(model: Any) -> list[tuple[Any, Any]]:
    """The generator states of the layers, if there are layers yet."""
    if not is_complete(model):
        return []
    return [
        (place.variable, read_variable(place.variable))
        for place in iterate_variables(model)
        if place.role == "random"
    ]


def _build_to_evaluate(model: Any, call: dict[str, Any]) -> None:
    """Have the start captured before the first evaluation."""
    trial: Trial = model._repro
    with random_streams.keep_rng():
        x, y, weights = call.get("x"), call.get("y"), call.get("sample_weight")
        if are_arrays((x, y, weights)):
            batch, _ = trial.positions.first_batch(
                x, y, weights, call.get("batch_size")
            )
            _build_for(model, batch)
    _end_rehearsal(model)
    if not capture_if_built(model):
        start_unbuilt(trial)


def _build_for(model: Any, batch: Any) -> None:
    """Build the layers alone, from the inputs of a batch."""
    inputs = keras.tree.map_structure(
        lambda v: (
            None
            if v is None
            else keras.KerasTensor(
                v.shape, keras.backend.standardize_dtype(v.dtype)
            )
        ),
        batch[0],
    )
    model.compute_output_spec(inputs)
