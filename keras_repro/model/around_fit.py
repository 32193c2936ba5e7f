"""What happens around a training or an evaluation call."""

from __future__ import annotations

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
    tell_passes,
    train_validation_split,
)
from keras_repro.backends.data_passes import Passes, make_read_adapter
from keras_repro.backends.doors import steps_through
from keras_repro.backends.keras_internals import bind, unbind
from keras_repro.backends.ordered_arrays import make_ordered_adapter
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
from keras_repro.model.sample_rng import Training, Use, in_use
from keras_repro.model.stored_trial import (
    FIXED_SEED,
    PREDICT,
    TEST,
    VALIDATION,
)
from keras_repro.model.trial import (
    build_optimizer,
    capture_if_built,
    note_compile,
    put_streams,
    start_unbuilt,
)
from keras_repro.model.trial_parts import Progress, Trial


def rehearse(model: Any, train: Callable[[Any], Any]) -> None:
    """Call a training function up to its first step, to build its model."""
    trial: Trial = model._repro
    with (
        marked(trial.calls, "is_rehearsed"),
        random_streams.isolate_rng(FIXED_SEED),
    ):
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
        if trial.calls.added:
            call["callbacks"] = add_callbacks(
                call.get("callbacks"), *trial.calls.added
            )
        stack.enter_context(_kept(model, call))
        trial.draws.own_streams.enter(owner)
        stack.enter_context(_first_step(model))
        stack.enter_context(_samples_in_use(trial, call))
        _enter_data(model, call, stack)
        _forget_other_batches(model, "train", call)
        _look_at_saved(model)
        _order_arrays(model, call)
        keeper = trial.calls.keeper
        if keeper is not None and keeper.place is not None:
            call["initial_epoch"] = keeper.place.epoch
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
                trial.progress.epochs += len(getattr(history, "epoch", ()))
            trial.data.let_go()


@contextmanager
def _samples_in_use(trial: Trial, call: dict[str, Any]) -> Iterator[None]:
    """Have samples draw by the epoch of a training."""
    keeper = trial.calls.keeper
    use = Training(
        trial,
        _first_epoch(trial, call) + (keeper.num_left_out if keeper else 0),
        is_code=_is_code(call.get("x")),
        is_counted=call.get("steps_per_epoch") is None,
    )
    trial.data.samples = use
    try:
        with in_use(use):
            yield
    finally:
        trial.data.samples = None


def follow(model: Any, iterator: Any) -> None:
    """Know how far a training comes, which may begin in the midst."""
    trial: Trial = model._repro
    use = trial.data.samples
    if use is not None:
        use.is_counted = tell_passes(iterator, use.begin_pass, use.end_pass)
    if trial.calls.keeper is not None:
        trial.calls.keeper.iterator = iterator
        return
    before, epoch = partial(_put_saved, model), _initial_epoch(trial)
    reading = Reading(iterator, before, epoch, keeps_last=False)
    if not reading.can_wait:
        return
    trial.data.reading = reading
    midst = trial.progress.midst
    if midst is not None:
        reading.begin_at(midst.place, goes_through=False)
    reading.begin()


def _initial_epoch(trial: Trial) -> int:
    """The epoch that Keras begins to count from, as `fit` was told."""
    epoch: int = trial.data.outline.arguments["initial_epoch"]
    return epoch


def _look_at_saved(model: Any) -> None:
    """Go on in the midst of an epoch if the training that was saved does."""
    trial: Trial = model._repro
    progress = trial.progress
    midst = progress.midst
    if midst is None:
        return
    epoch = _initial_epoch(trial)
    if not midst.place.batch and epoch != midst.place.epoch:
        progress.saved = None  # Nothing to go on with: another training.
        return
    differing = midst.list_differences(model, epoch)
    if trial.calls.keeper is not None:
        differing.append("callback, which backs it up")
    if differing:
        progress.saved = None
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
    progress = trial.progress
    midst = progress.midst
    saved, progress.saved = progress.saved, None
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
    trial.data.notes.append(message)
    warn_user(UserWarning(message))


def _is_code(x: Any) -> bool:
    """Whether data are given by code, which may draw."""
    return is_pipeline(x) or is_read_in_python(x)


def _first_epoch(trial: Trial, call: dict[str, Any]) -> int:
    """The epoch that a `fit` begins with, counted from the trial's start."""
    return max(trial.progress.epochs, call.get("initial_epoch") or 0)


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
        with keepers[0]._keep_training(model, call) as trial.calls.keeper:
            yield
    finally:
        trial.calls.keeper = trial.data.passes = None


@contextmanager
def _first_step(model: Any) -> Iterator[None]:
    """Begin the trial when a step does; a first step that fails is none."""
    trial: Trial = model._repro
    progress, streams = trial.progress, trial.draws.own_streams
    progress.has_stepped = False
    begins, had_trained = progress.at_start, progress.has_trained
    with steps_through(model, partial(_through_trace, model)):
        try:
            yield
        except BaseException:
            if begins and not progress.has_stepped:
                trial.data.positions.rewind()
                if not trial.calls.is_rehearsed:
                    progress.has_trained = had_trained
                    if trial.start.state is not None:
                        trial.start.captured.follow(model)
                        trial.start.captured.restore(model)
                    progress.at_start = True
                    streams.position = streams.start
            raise
    if not progress.has_stepped and not isinstance(
        getattr(model, "train_function", None), StepDoor
    ):
        # The model makes its step in a way of its own.
        capture_if_built(model, has_stepped=True)
        progress.leave_start()
    if progress.at_start:
        trial.data.positions.rewind(TRAINING)
    if progress.has_trained:
        _say_incomplete(model)


def _through_trace(
    model: Any, kind: str, step: Callable[..., Any]
) -> Callable[..., Any]:
    """A step method whose draws, while it is traced, come from elsewhere."""
    backend, trial = get_backend(), model._repro

    @wraps(step)
    def traced(*args: Any, **kwargs: Any) -> Any:
        if trial.draws.streams is None or not backend.is_tracing(args):
            return step(*args, **kwargs)
        drew = partial(trial.draws.traces.kinds.add, kind)
        with trial.draws.streams.tracing(kind, drew):
            return step(*args, **kwargs)

    return traced


def _say_incomplete(model: Any) -> None:
    """Say what the start lacks of what a training used."""
    state = model._repro.start.state
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
    progress: Progress = model._repro.progress
    if not get_backend().shares_traces or kind in progress.fed_kinds:
        return
    progress.fed_kinds.add(kind)
    batches = data_order.describe_batches(call)
    if progress.batches.get(kind, batches) != batches:
        setattr(model, f"{kind}_function", None)
    progress.batches[kind] = batches


@contextmanager
def marked(part: Any, flag: str) -> Iterator[None]:
    """Set a flag of a part of the trial for the length of a block."""
    before = getattr(part, flag)
    setattr(part, flag, True)
    try:
        yield
    finally:
        setattr(part, flag, before)


@contextmanager
def _kept_apart(model: Any, method: str) -> Iterator[owners.Owner]:
    """Run a training; outside a `trial` block the program feels nothing."""
    trial: Trial = model._repro
    what = f"{method} of model {model.name!r}"
    with owners.held(what, owners.TRAINING) as owner:
        if not trial.calls.in_block:
            random_streams.keep(owner)
        with marked(trial.calls, "is_running"):
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
    if trial.progress.has_trained:
        trial.start.captured.follow(model)
    else:
        # Set-up is not training: what was assigned since belongs to the start.
        model.reset_metrics()
        trial.start.take_up(model)


def _enter_data(model: Any, call: dict[str, Any], stack: ExitStack) -> None:
    """Have the data stand where the trial stands."""
    trial: Trial = model._repro
    data, keeper = trial.data, trial.calls.keeper
    data.outline = data_order.outline_data(call)
    data.fed, data.has_moved = None, partial(has_moved, call.get("x"))
    data.notes = list(trial.draws.traces.notes)
    if keeper is not None:
        data.notes += keeper.notes
    data.positions.tracked = frozenset(map(id, model.variables))
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
    data, x = trial.data, call.get("x")
    if what is not None:
        data.notes += describe_limits(x, what)
        data.notes += describe_alike(call, what)
        data.notes += describe_chance(x, call.get("steps_per_epoch"), what)
    changed = stack.enter_context(data.positions.entered(x, kind))
    if what is not None:
        data.notes += describe_changes(x, what, changed)
    is_kept = kind == TRAINING and trial.calls.keeper is not None
    if is_pipeline(x):
        call["x"] = data.positions.restart(x, kind, trial.seeds.order)
        if is_kept:
            _follow_pipeline(trial, call)
        return
    shuffle = kind == TRAINING and call.get("shuffle", True)
    passes = None
    if is_kept and data_order.can_begin_in_midst(call):
        passes = data.passes = Passes(x, start_of(x))
    if passes is not None or (
        get_backend().reads_ahead and data_order.is_read_by_python(call)
    ):
        weights = _take(call, "class_weight")
        call["x"] = make_read_adapter(x, weights, shuffle, passes)


def _follow_pipeline(trial: Trial, call: dict[str, Any]) -> None:
    """Know of each pass over a pipeline how it is gone on with."""
    if get_backend().reads_ahead:  # Its own steps take the batches.
        trial.data.passes = PipelinePasses(call["x"])
    elif keras.distribution.distribution() is None and all(
        call.get(name) is None for name in ("y", "sample_weight")
    ):  # Else Keras refuses it.
        call["x"], trial.data.passes = make_pipeline_adapter(
            call["x"], _take(call, "class_weight")
        )


def _enter_validation(
    model: Any, call: dict[str, Any], stack: ExitStack
) -> None:
    """Have each validation of a `fit` read from where its use stands."""
    trial: Trial = model._repro
    data = trial.data
    given, data.validation = call.get("validation_data"), None
    parts = given if isinstance(given, tuple) else (given,)
    x = parts[0] if parts else None
    if x is None or any(part is not None for part in parts[1:]):
        return  # Arrays, or what Keras refuses.
    data.notes += describe_limits(x, "validation_data")
    data.notes += describe_chance(
        x, call.get("validation_steps"), "validation_data"
    )
    data.validation = x
    changed = stack.enter_context(data.positions.held(x, VALIDATION))
    data.notes += describe_changes(x, "validation_data", changed)
    if is_pipeline(x):
        call["validation_data"] = data.positions.restart(
            x, VALIDATION, trial.seeds.order
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
    keeper, positions = trial.calls.keeper, trial.data.positions
    if keeper is not None and keeper.has_validated:
        # Looked at before the training was killed, and moved on by it then.
        with positions.kept(is_look=True), random_streams.kept_python():
            adapter.get_tf_dataset()
    return adapter


def _order_arrays(model: Any, call: dict[str, Any]) -> None:
    """Feed arrays in the order of the trial's seed and the epoch."""
    trial: Trial = model._repro
    arrays = trial.data.outline.arrays
    if arrays is None or not model.compiled:
        return
    steps, midst = call.get("steps_per_epoch"), trial.progress.midst
    first = midst.first_epoch if midst else _first_epoch(trial, call)
    passes = data_order.OrderedPasses(
        trial.seeds.order, first, call.get("shuffle", True)
    )
    trial.data.fed = fed = data_order.FedSamples(arrays, passes, steps)
    keeper = trial.calls.keeper
    place = keeper and keeper.place
    if place:
        passes.begin_at(place.num_passes, place.in_pass)
    elif midst:
        place = midst.place
        fed.begin_at(place)
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
        if trial.progress.at_start or trial.start.state is None:
            _take_start(model)
        trial.draws.own_streams.enter(owner)
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
        stack.enter_context(trial.calls.one_evaluation)
        if owner.is_beside:  # The streams, and the trial, are another's.
            yield args, kwargs
            return
        if not trial.calls.is_evaluating:  # A call within a call swaps once.
            if not capture_if_built(model):
                start_unbuilt(trial)
            _forget_other_batches(model, step, call or {})
            trial.data.positions.tracked = frozenset(map(id, model.variables))
            stack.enter_context(_drawing(model, kind, call))
            stack.enter_context(
                steps_through(model, partial(_through_trace, model))
            )
        if kind == VALIDATION:
            entered = trial.data.positions.entered(trial.data.validation, kind)
            stack.enter_context(entered)
        elif call is not None:
            x = call.get("x")
            _enter(model, call, kind, stack)
            if trial.calls.keeper is not None:
                stack.enter_context(_told(trial.calls.keeper, x))
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
    if has_moved or moves_by_itself(x):
        keeper.note_moved(describe(x))


@contextmanager
def _drawing(
    model: Any, kind: str, call: dict[str, Any] | None = None
) -> Iterator[None]:
    """Draw from the streams of a kind of evaluation."""
    trial: Trial = model._repro
    call, x = call or {}, trial.data.validation
    is_validation = kind == VALIDATION
    if not is_validation:
        x = call.get("x")
    elif trial.data.samples is not None:
        trial.data.samples.end_pass()  # It may have been left in its midst.
    use = Use(
        trial,
        kind,
        is_code=_is_code(x),
        # A validation that has steps goes on in the next epoch.
        is_counted=not is_validation or call.get("steps") is None,
    )
    with (
        marked(trial.calls, "is_evaluating"),
        in_use(use),
        trial.draws.own_streams.evaluation(kind),
        trial.draws.evaluations.evaluating(trial.start.state, kind),
    ):
        yield


@contextmanager
def _validating(model: Any) -> Iterator[None]:
    """Read data as the validation of a training does."""
    trial: Trial = model._repro
    if trial.calls.is_evaluating:
        yield
        return
    with (
        _drawing(model, VALIDATION),
        trial.data.positions.entered(trial.data.validation, VALIDATION),
    ):
        yield
