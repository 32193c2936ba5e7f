"""What happens around a training or an evaluation call."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any

import keras

from keras_repro.backends import owners, random_streams
from keras_repro.backends.active import get_backend
from keras_repro.backends.data_adapters import (
    are_arrays,
    is_pipeline,
    is_read_in_python,
    make_adapter,
    make_late_adapter,
    make_ordered_adapter,
    tell_passes,
    train_validation_split,
)
from keras_repro.backends.data_passes import Passes, make_read_adapter
from keras_repro.backends.doors import steps_through
from keras_repro.backends.keras_internals import bind, unbind
from keras_repro.backends.pipeline_passes import (
    PipelinePasses,
    make_pipeline_adapter,
)
from keras_repro.backends.reading import Reading
from keras_repro.backends.variables import iterate_variables
from keras_repro.common.text import describe, join_words
from keras_repro.common.whose_code import warn_user
from keras_repro.model import data_order
from keras_repro.model.data_positions import (
    TRAINING,
    describe_alike,
    describe_chance,
    describe_changes,
    describe_limits,
    has_moved,
    moves_by_itself,
    position_of,
    start_of,
)
from keras_repro.model.first_step import (
    BuiltError,
    StepDoor,
    end_rehearsal,
)
from keras_repro.model.initial_state import InitialState
from keras_repro.model.sample_rng import Training, Use, in_use
from keras_repro.model.stored_trial import PREDICT, TEST, VALIDATION
from keras_repro.model.trial import (
    FIXED_SEED,
    Trial,
    build_optimizer,
    capture_if_built,
    note_compile,
    put_streams,
    start_unbuilt,
)


def rehearse(model: Any, train: Callable[[Any], Any]) -> None:
    """Call a training function up to its first step, to build its model."""
    trial: Trial = model._repro
    with marked(trial, "is_rehearsed"), random_streams.isolate_rng(FIXED_SEED):
        try:
            train(model)
        except BuiltError:
            return
    msg = (
        "`train` must call `fit` or `train_on_batch` of the model that it is "
        f"given. Received: {describe(train)}, which returned without it, so "
        f"that {model.name!r} was never built. Give the model a `keras.Input`, "
        "or train it."
    )
    raise ValueError(msg)


@contextmanager
def training(model: Any, call: dict[str, Any]) -> Iterator[None]:
    """Everything around a `fit`: start, streams, data order, bookkeeping."""
    trial: Trial = model._repro
    with ExitStack() as stack:
        owner = stack.enter_context(_kept_apart(model, "fit"))
        _split_validation(call)
        _take_start(model)
        if trial.added:
            call["callbacks"] = add_callbacks(
                call.get("callbacks"), *trial.added
            )
        stack.enter_context(_kept(model, call))
        trial.own_streams.enter(owner)
        stack.enter_context(_first_step(model))
        stack.enter_context(_samples_in_use(trial, call))
        _enter_data(model, call, stack)
        _forget_other_batches(model, "train", call)
        _look_at_saved(model)
        _order_arrays(model, call)
        if trial.keeper is not None and trial.keeper.place is not None:
            call["initial_epoch"] = trial.keeper.place.epoch
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
            if trial.reading is not None:
                trial.reading.end()
            trial.validation = trial.reading = trial.has_moved = None


@contextmanager
def _samples_in_use(trial: Trial, call: dict[str, Any]) -> Iterator[None]:
    """Have samples draw by the epoch of a training."""
    left_out = trial.keeper.num_left_out if trial.keeper else 0
    use = Training(
        trial,
        _first_epoch(trial, call) + left_out,
        is_code=_is_code(call.get("x")),
        is_counted=call.get("steps_per_epoch") is None,
    )
    trial.samples = use
    try:
        with in_use(use):
            yield
    finally:
        trial.samples = None


def follow(model: Any, iterator: Any) -> None:
    """Know how far a training comes, which may begin in the midst."""
    trial: Trial = model._repro
    use = trial.samples
    if use is not None:
        use.is_counted = tell_passes(iterator, use.begin_pass, use.end_pass)
    if trial.keeper is not None:
        trial.keeper.iterator = iterator
        return
    before, epoch = partial(_put_saved, model), _initial_epoch(trial)
    reading = Reading(iterator, before, epoch, keeps_last=False)
    if not reading.can_wait:
        return
    trial.reading = reading
    if trial.midst is not None:
        reading.begin_at(trial.midst.place, goes_through=False)
    reading.begin()


def _initial_epoch(trial: Trial) -> int:
    """The epoch that Keras begins to count from, as `fit` was told."""
    epoch: int = trial.data.arguments["initial_epoch"]
    return epoch


def _look_at_saved(model: Any) -> None:
    """Go on in the midst of an epoch if the training that was saved does."""
    trial: Trial = model._repro
    midst = trial.midst
    if midst is None:
        return
    epoch = _initial_epoch(trial)
    if not midst.place.batch and epoch != midst.place.epoch:
        trial.saved = None  # Nothing to go on with: another training.
        return
    differing = midst.list_differences(model, epoch)
    if trial.keeper is not None:
        differing.append("callback, which backs it up")
    if differing:
        trial.saved = None
        _tell(
            trial,
            f"The model was saved within a training, before {midst.place}. "
            "`fit` resumes there when it gets the same data and arguments. "
            f"Received: another {join_words(differing)}. This epoch starts "
            "with its first batch.",
        )


def _put_saved(model: Any, reading: Reading) -> None:
    """Have streams and metrics stand, once, where they were saved."""
    del reading
    trial: Trial = model._repro
    midst = trial.midst
    saved, trial.saved = trial.saved, None
    if saved is None or midst is None or not midst.place.batch:
        return  # An epoch that begins finds all as it was loaded.
    put_streams(model, saved)
    if not midst.put_metrics(model):
        _tell(
            trial,
            f"The model was saved before {midst.place} with other "
            "metrics: those of this epoch count the batches from there on.",
        )
    get_backend().finish_assign(model)


def _tell(trial: Trial, message: str) -> None:
    """Warn, and let the record say it."""
    trial.data_notes.append(message)
    warn_user(UserWarning(message))


def _is_code(x: Any) -> bool:
    """Whether data are given by code, which may draw."""
    return is_pipeline(x) or is_read_in_python(x)


def _first_epoch(trial: Trial, call: dict[str, Any]) -> int:
    """The epoch that a `fit` begins with, counted from the trial's start."""
    return max(trial.epochs_trained, call.get("initial_epoch") or 0)


@contextmanager
def _kept(model: Any, call: dict[str, Any]) -> Iterator[None]:
    """Let a callback keep the training, if one is there to do it."""
    trial: Trial = model._repro
    keepers = [
        one
        for one in list_callbacks(call.get("callbacks"))
        if hasattr(one, "_keep_training")
    ]
    if not keepers:
        yield
        return
    if len(keepers) > 1:
        msg = (
            "A training can be kept by one callback. Received: "
            f"{len(keepers)} of {type(keepers[0]).__name__}. Leave one."
        )
        raise ValueError(msg)
    try:
        with keepers[0]._keep_training(model, call) as trial.keeper:
            yield
    finally:
        trial.keeper = trial.passes = None


@contextmanager
def _first_step(model: Any) -> Iterator[None]:
    """Begin the trial when a step does; a first step that fails is none."""
    trial: Trial = model._repro
    trial.has_stepped = False
    begins, had_trained = trial.at_start, trial.has_trained
    with steps_through(model, partial(_through_trace, model)):
        try:
            yield
        except BaseException:
            if begins and not trial.has_stepped:
                trial.positions.rewind()
            if begins and not trial.has_stepped and not trial.is_rehearsed:
                trial.has_trained = had_trained
                if trial.state is not None:
                    trial.captured.follow(model)
                    trial.captured.restore(model)
                trial.at_start = True
                trial.own_streams.position = trial.own_streams.start
            raise
    if not trial.has_stepped and not isinstance(
        getattr(model, "train_function", None), StepDoor
    ):
        # The model makes its step in a way of its own.
        capture_if_built(model, has_stepped=True)
        trial.has_trained, trial.at_start = True, False
    if trial.at_start:
        trial.positions.rewind(TRAINING)
    if trial.has_trained:
        _say_incomplete(model)


def _through_trace(
    model: Any, kind: str, step: Callable[..., Any]
) -> Callable[..., Any]:
    """A step method whose draws, while it is traced, come from elsewhere."""
    backend, trial = get_backend(), model._repro

    @wraps(step)
    def traced(*args: Any, **kwargs: Any) -> Any:
        if trial.streams is None or not backend.is_tracing(args):
            return step(*args, **kwargs)
        drew = partial(trial.traces.kinds.add, kind)
        with trial.streams.tracing(kind, drew):
            return step(*args, **kwargs)

    return traced


def _say_incomplete(model: Any) -> None:
    """Say what the start lacks of what a training used."""
    state = model._repro.state
    known = set() if state is None else state.ids_of_the_model()
    missing = [
        place.variable.path
        for place in iterate_variables(model)
        if place.role in ("weights", "random")
        and id(place.variable) not in known
    ]
    if state is not None and not missing:
        return
    warnings.warn(
        f"The initial state of {model.name!r} is not whole: it lacks "
        f"{', '.join(missing) or 'all'}, since Keras knew of no such variables "
        "when the first step began. `reset()` will refuse. Make all layers "
        "attributes of the model and use them from the first step on, or call "
        "`capture_initial_state()` to start from what the model holds now.",
        UserWarning,
        stacklevel=5,
    )


def _forget_other_batches(model: Any, kind: str, call: dict[str, Any]) -> None:
    """Have a step traced anew where a trial feeds other batches than before."""
    # TensorFlow would take what it traced for batches of any size for those of
    # one size too, which gives other last digits than a fresh process.
    trial: Trial = model._repro
    if not get_backend().shares_traces or kind in trial.fed_kinds:
        return
    trial.fed_kinds.add(kind)
    batches = data_order.describe_batches(call)
    if trial.batches.get(kind, batches) != batches:
        setattr(model, f"{kind}_function", None)
    trial.batches[kind] = batches


@contextmanager
def marked(trial: Trial, flag: str) -> Iterator[None]:
    """Set a flag of the trial for the length of a block."""
    before = getattr(trial, flag)
    setattr(trial, flag, True)
    try:
        yield
    finally:
        setattr(trial, flag, before)


@contextmanager
def _kept_apart(model: Any, method: str) -> Iterator[owners.Owner]:
    """Run a training; outside a `trial` block the program feels nothing."""
    trial: Trial = model._repro
    what = f"{method} of model {model.name!r}"
    with owners.held(what, owners.TRAINING) as owner:
        if not trial.in_block:
            random_streams.keep(owner)
        with marked(trial, "is_running"):
            yield owner


def add_callbacks(callbacks: Any, *added: Any) -> Any:
    """The callbacks of a `fit`, and others; the caller's stay as they are."""
    together = [*list_callbacks(callbacks), *added]
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return together
    # Made anew, so that it knows whether batches may overtake a callback.
    return keras.callbacks.CallbackList(
        together, model=callbacks.model, **(callbacks.params or {})
    )


def list_callbacks(callbacks: Any) -> list[Any]:
    """The callbacks that `fit` was given, in whatever form."""
    listed = getattr(callbacks, "callbacks", callbacks)
    return [one for one in keras.tree.flatten(listed) if one is not None]


def _tell_abort(callbacks: Any, error: BaseException) -> None:
    for callback in list_callbacks(callbacks):
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


def _take_start(model: Any) -> None:
    """Capture what is there before Keras is asked for anything."""
    trial: Trial = model._repro
    if not capture_if_built(model):
        start_unbuilt(trial)
        return
    build_optimizer(model)
    end_rehearsal(model)
    note_compile(model)
    if trial.has_trained:
        trial.captured.follow(model)
    else:
        # Set-up is not training: what was assigned since belongs to the start.
        model.reset_metrics()
        trial.state = InitialState.capture(model, earlier=trial.state)


def _enter_data(model: Any, call: dict[str, Any], stack: ExitStack) -> None:
    """Have the data stand where the trial stands."""
    trial: Trial = model._repro
    trial.data = data_order.outline_data(call)
    trial.fed, trial.has_moved = None, partial(has_moved, call.get("x"))
    trial.data_notes = list(trial.traces.notes)
    if trial.keeper is not None:
        trial.data_notes += trial.keeper.notes
    trial.positions.tracked = frozenset(map(id, model.variables))
    _enter(model, call, TRAINING, stack, "data")
    _enter_validation(model, call, stack)


def _enter(
    model: Any,
    call: dict[str, Any],
    kind: str,
    stack: ExitStack,
    what: str | None = None,
) -> None:
    """Have `x` of a call stand where this use of it stands."""
    # `what`: how the record calls the data, if there is a record.
    trial: Trial = model._repro
    x = call.get("x")
    if what is not None:
        trial.data_notes += describe_limits(x, what)
        trial.data_notes += describe_alike(call, what)
        trial.data_notes += describe_chance(
            x, call.get("steps_per_epoch"), what
        )
    changed = stack.enter_context(trial.positions.entered(x, kind))
    if what is not None:
        trial.data_notes += describe_changes(x, what, changed)
    is_kept = kind == TRAINING and trial.keeper is not None
    if is_pipeline(x):
        call["x"] = trial.positions.restart(x, kind, trial.order_seed)
        if is_kept:
            _follow_pipeline(trial, call)
        return
    shuffle = kind == TRAINING and call.get("shuffle", True)
    passes = None
    if is_kept and data_order.can_begin_in_midst(call):
        passes = trial.passes = Passes(x, start_of(x))
    if passes is not None or (
        get_backend().reads_ahead and data_order.is_read_by_python(call)
    ):
        weights = _take(call, "class_weight")
        call["x"] = make_read_adapter(x, weights, shuffle, passes)


def _follow_pipeline(trial: Trial, call: dict[str, Any]) -> None:
    """Know of each pass over a pipeline how it is gone on with."""
    if get_backend().reads_ahead:  # Its own steps take the batches.
        trial.passes = PipelinePasses(call["x"])
    elif keras.distribution.distribution() is None and all(
        call.get(name) is None for name in ("y", "sample_weight")
    ):  # Else Keras refuses it.
        call["x"], trial.passes = make_pipeline_adapter(
            call["x"], _take(call, "class_weight")
        )


def _enter_validation(
    model: Any, call: dict[str, Any], stack: ExitStack
) -> None:
    """Have each validation of a `fit` read from where its use stands."""
    trial: Trial = model._repro
    given, trial.validation = call.get("validation_data"), None
    parts = given if isinstance(given, tuple) else (given,)
    x = parts[0] if parts else None
    if x is None or any(part is not None for part in parts[1:]):
        return  # Arrays, or what Keras refuses.
    trial.data_notes += describe_limits(x, "validation_data")
    trial.data_notes += describe_chance(
        x, call.get("validation_steps"), "validation_data"
    )
    trial.validation = x
    changed = stack.enter_context(trial.positions.held(x, VALIDATION))
    trial.data_notes += describe_changes(x, "validation_data", changed)
    if is_pipeline(x):
        call["validation_data"] = trial.positions.restart(
            x, VALIDATION, trial.order_seed
        )
    elif is_read_in_python(x):
        call["validation_data"] = make_late_adapter(
            partial(_make_adapter, x, trial), partial(_validating, model)
        )


def _make_adapter(x: Any, trial: Trial) -> Any:
    """The adapter of validation data, made when they are first read."""
    if not get_backend().reads_ahead:
        return make_adapter(x)
    is_read_here = data_order.is_read_by_python({"x": x})
    make = partial(make_read_adapter, x, None, shuffle=False)
    adapter = make() if is_read_here else make_adapter(x)
    if trial.keeper is not None and trial.keeper.has_validated:
        # Looked at before the training was killed, and moved on by it then.
        with trial.positions.kept(is_look=True), random_streams.kept_python():
            adapter.get_tf_dataset()
    return adapter


def _order_arrays(model: Any, call: dict[str, Any]) -> None:
    """Feed arrays in the order of the trial's seed and the epoch."""
    trial: Trial = model._repro
    if trial.data.arrays is None or not model.compiled:
        return
    steps, midst = call.get("steps_per_epoch"), trial.midst
    first = midst.first_epoch if midst else _first_epoch(trial, call)
    passes = data_order.OrderedPasses(
        trial.order_seed, first, call.get("shuffle", True)
    )
    trial.fed = data_order.FedSamples(trial.data.arrays, passes, steps)
    place = trial.keeper and trial.keeper.place
    if place:
        passes.begin_at(place.num_passes, place.in_pass)
    elif midst:
        place = midst.place
        trial.fed.begin_at(place)
    call["x"] = make_ordered_adapter(
        call.get("x"),
        _take(call, "y"),
        _take(call, "sample_weight"),
        batch_size=call.get("batch_size"),
        steps=steps,
        class_weight=_take(call, "class_weight"),
        order=passes,
        left_out=passes.left_out if place else None,
    )


def _take(call: dict[str, Any], name: str) -> Any:
    """An argument that is not passed on; what wraps `fit` may look for it."""
    value = call.get(name)
    if name in call:
        call[name] = None
    return value


@contextmanager
def training_on_batch(model: Any) -> Iterator[None]:
    """Everything around a `train_on_batch`; there is no order to give."""
    trial: Trial = model._repro
    with ExitStack() as stack:
        owner = stack.enter_context(_kept_apart(model, "train_on_batch"))
        if trial.at_start or trial.state is None:
            _take_start(model)
        trial.own_streams.enter(owner)
        stack.enter_context(_first_step(model))
        yield


@contextmanager
def evaluating(
    model: Any,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Draw from the streams of an evaluation; yield what to call it with."""
    trial: Trial = model._repro
    call = bind(method, args, kwargs)
    step = PREDICT if "predict" in method else TEST
    kind = VALIDATION if kwargs.get("_use_cached_eval_dataset") else step
    with ExitStack() as stack:
        what = f"{method} of model {model.name!r}"
        owner = stack.enter_context(owners.held(what, owners.EVALUATION))
        # On JAX Keras takes the values away from a model that evaluates.
        stack.enter_context(trial.one_evaluation)
        if owner.is_beside:  # The streams, and the trial, are another's.
            yield args, kwargs
            return
        if not trial.is_evaluating:  # A call within a call swaps once.
            if not capture_if_built(model):
                start_unbuilt(trial)
            _forget_other_batches(model, step, call or {})
            trial.positions.tracked = frozenset(map(id, model.variables))
            stack.enter_context(_drawing(model, kind, call))
            stack.enter_context(
                steps_through(model, partial(_through_trace, model))
            )
        if kind == VALIDATION:
            entered = trial.positions.entered(trial.validation, kind)
            stack.enter_context(entered)
        elif call is not None:
            x = call.get("x")
            _enter(model, call, kind, stack)
            if trial.keeper is not None:
                stack.enter_context(_told(trial.keeper, x))
        if call is not None:
            args, kwargs = unbind(method, call, len(args))
        yield args, kwargs


@contextmanager
def _told(keeper: Any, x: Any) -> Iterator[None]:
    """Have a keeper know of data of an evaluation that move."""
    before = position_of(x)
    yield
    after = position_of(x)
    has_moved = before and after and not after.is_same(before)
    if has_moved or moves_by_itself(x) or isinstance(x, types.GeneratorType):
        keeper.note_moved(describe(x))


@contextmanager
def _drawing(
    model: Any, kind: str, call: dict[str, Any] | None = None
) -> Iterator[None]:
    """Draw from the streams of a kind of evaluation."""
    trial: Trial = model._repro
    call, x = call or {}, trial.validation
    is_validation = kind == VALIDATION
    if not is_validation:
        x = call.get("x")
    elif trial.samples is not None:
        trial.samples.end_pass()  # It may have been left in its midst.
    use = Use(
        trial,
        kind,
        is_code=_is_code(x),
        # A validation that has steps goes on in the next epoch.
        is_counted=not is_validation or call.get("steps") is None,
    )
    with (
        marked(trial, "is_evaluating"),
        in_use(use),
        trial.own_streams.evaluation(kind),
        trial.evaluations.evaluating(trial.state, kind),
    ):
        yield


@contextmanager
def _validating(model: Any) -> Iterator[None]:
    """Read data as the validation of a training does."""
    trial: Trial = model._repro
    if trial.is_evaluating:
        yield
        return
    with (
        _drawing(model, VALIDATION),
        trial.positions.entered(trial.validation, VALIDATION),
    ):
        yield
