"""The trial of a model: its start, its seed and its streams.

What the model class offers is done here, by functions of a model, so that
the class itself stays a list of promises.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_repro.backends import owners, random_streams
from keras_repro.backends.active import get_backend
from keras_repro.backends.data_adapters import (
    is_pipeline,
    is_stateful,
    iterations_through,
)
from keras_repro.backends.interrupts import undivided
from keras_repro.backends.keras_internals import (
    compiled_flags,
    flatten_layers,
    get_global_seed,
    is_eager,
)
from keras_repro.backends.variables import (
    count_steps,
    is_handed_over,
    iterate_variables,
    list_metrics,
    new_optimizers_noted,
    read_variable,
)
from keras_repro.common.checks import check_choice
from keras_repro.model.initial_state import InitialState, same_bits
from keras_repro.model.midst import Midst
from keras_repro.model.redraw import (
    Draw,
    Failure,
    classify,
    list_undrawn,
    list_unproven,
    say_undrawn,
)
from keras_repro.model.sample_rng import Use, in_use
from keras_repro.model.stored_trial import (
    ALL,
    FIXED_SEED,
    INITIAL,
    RANDOM,
    VARY,
    StoredTrial,
    read_states,
)
from keras_repro.model.tracked import hand_over, knows_an_optimizer
from keras_repro.model.trial_parts import Start, Trial

LOOP = "loop"  # What data are used for in a block of `trial()`.


def require_built(model: Any, what: str) -> None:
    """Raise where there is no initial state to speak of."""
    if not model.built and model._repro.start.state is None:
        msg = (
            f"`{what}` needs a built model. Received: {model.name!r}, which "
            "has no variables yet. Give it a `keras.Input`, call "
            "`model.build(...)`, or call it on a batch first."
        )
        raise ValueError(msg)


def is_built(model: Any) -> bool:
    """Whether there is a start: a layer that is never called has no part."""
    # A model with a `train_step` of its own may never be called itself.
    return bool(model.built) or (bool(model.variables) and is_all_there(model))


def capture_if_built(model: Any, *, has_stepped: bool = False) -> bool:
    """Capture the initial state as soon as there is one."""
    # What appears until the first step, a layer or a part of one, belongs to
    # it. After a step what it is made of is there, whatever Keras says of it.
    trial: Trial = model._repro
    start = trial.start
    is_there = is_built(model) or (has_stepped and bool(model.variables))
    backend = get_backend()
    if (
        not is_there
        or not is_eager()
        # While JAX trains, Keras keeps the values elsewhere.
        or not all(map(backend.is_readable, model.variables))
    ):
        return start.state is not None
    if start.loaded is not None:
        adopt(model, *start.loaded)  # Refused at each use, if it does not fit.
        start.loaded = None
    elif start.state is None or _has_changed(model, trial):
        earlier = start.state
        start.state = InitialState.capture(model, earlier=earlier)
        try:
            settle_seed(model)
        except BaseException:
            start.state = earlier  # So that it is refused at each use.
            raise
    else:
        return True
    if trial.calls.is_evaluating:
        trial.draws.evaluations.take_up(start.state)
    return True


def find_seed(model: Any) -> int | None:
    """The seed of the present trial, or the one that was asked for."""
    seeds = model._repro.seeds
    if seeds.seed is None:
        capture_if_built(model)
    found: int | None = seeds.requested if seeds.seed is None else seeds.seed
    return found


def capture_if_made(model: Any) -> None:
    """Capture the initial state, unless a constructor has yet to end."""
    # A property of a class may need what its constructor makes last.
    if not model._repro.start.constructors:
        capture_if_built(model)


def _has_changed(model: Any, trial: Trial) -> bool:
    """Whether layers came or went before any training: still set-up."""
    if trial.progress.has_trained:
        return False
    places = iterate_variables(model)
    own = {id(p.variable) for p in places if p.role in {"weights", "random"}}
    return own != trial.start.captured.ids_of_the_model()


def settle_seed(model: Any) -> None:
    """Name the start of a model that has just been built."""
    # A given seed draws the start. Under a global seed the start stays what
    # plain Keras drew, and has the global seed's name if that is what the seed
    # draws. Without any seed the model takes one and draws from it, so that
    # the recorded seed repeats the run.
    trial: Trial = model._repro
    start, seeds = trial.start, trial.seeds
    state, seed = start.captured, seeds.wanted
    redraw = start.redraw_when_built and (
        seeds.requested is not None or get_global_seed() is None
    )
    values = state.values_by_id()
    draw = start.drawer.draw(model, seed)
    undrawn = list_undrawn(draw, values, state.sources_by_id())
    if redraw:
        _refuse(undrawn, f"The start of {model.name!r}")
    start.drawer.doubt(model, seed, draw, values)
    state.set_sources(classify(model, values, draw, start.foreign))
    parts = _parts_that_took_a_seed(model)
    for part in parts:
        # The seed of the whole counts, though it was drawn from another.
        state.set_sources(part.start.captured.unchanged_sources(values))
    wanted = _wanted(state, draw, ("drawn",))
    if redraw:
        start.state = state.replace(wanted)
        start.captured.restore(model)
        for part in parts:
            part.start.state = part.start.captured.replace(wanted)
    elif seeds.requested is None and (
        undrawn
        or any(
            not same_bits(value, values[key]) for key, value in wanted.items()
        )
    ):
        seed = seeds.of_program
        draw = start.drawer.draw(model, seed)
        start.as_built_seed = seed
    trial.name(seed, draw.streams)


def _parts_that_took_a_seed(model: Any) -> list[Trial]:
    """The trials of untrained models in a model that nobody gave a seed."""
    trials = [
        getattr(layer, "_repro", None) for layer in flatten_layers(model)[1:]
    ]
    return [
        trial
        for trial in trials
        if isinstance(trial, Trial)
        and trial.start.state is not None
        and trial.seeds.requested is None
        and not trial.progress.has_trained
    ]


def _wanted(
    state: InitialState, draw: Draw, sources: tuple[str, ...]
) -> dict[int, Any]:
    chosen = state.ids_a_seed_draws(sources)
    return {key: v for key, v in draw.values.items() if key in chosen}


def check_vary(vary: object) -> str:
    """Return what a seed shall move, or say what it may be."""
    return check_choice("vary", vary, VARY)


@contextmanager
def between_trainings(model: Any, call: str) -> Iterator[None]:
    """What moves the start of a model, or goes there, outside a training."""
    _refuse_while_running(model, call)
    with owners.held(f"{call} of model {model.name!r}", owners.DRAW):
        _refuse_while_running(model, call)
        yield


def _refuse_while_running(model: Any, call: str) -> None:
    if model._repro.calls.is_running:
        msg = (
            f"`{call}` must be called between trainings. Received: a call "
            "while `fit` runs. Stop the training first, for example with "
            "`model.stop_training = True`."
        )
        raise RuntimeError(msg)


def go_to_start(model: Any, seed: int | None, vary: str) -> None:
    """Go to the captured start, or to the one that a seed draws."""
    trial: Trial = model._repro
    # A step that failed may have left metrics without values.
    get_backend().clear_pending(model)
    for metric in list_metrics(model):
        metric.reset_state()
    trial.start.captured.follow(model)
    note_compile(model)
    if seed is None or (seed, vary) == (trial.seeds.seed, trial.seeds.vary):
        if seed is None and not trial.progress.has_trained:
            warn_of_lost_setup(model)
        _restore(model)
        return
    draw = _draw(model, seed)
    fixed = draw if vary == ALL else _draw(model, FIXED_SEED)
    _go_to_seed(model, seed, vary, draw, fixed)


@undivided
def _restore(model: Any) -> None:
    trial: Trial = model._repro
    trial.start.captured.restore(model)
    trial.rewind()


def capture_anew(model: Any) -> None:
    """Make what a model holds its start, under every seed."""
    trial: Trial = model._repro
    try:
        capture_if_built(model)
    except ValueError:
        if trial.start.loaded is None:
            raise
        trial.start.loaded = None  # Of a file, which does not fit.
        capture_if_built(model)
    build_optimizer(model)
    state = InitialState.capture(model)
    for entry in state.entries:
        entry.source = "given"
    _begin_at(trial, state)


@undivided
def _begin_at(trial: Trial, state: InitialState) -> None:
    trial.start.state = state
    trial.progress.is_blind = False
    trial.rewind()


def is_all_there(model: Any) -> bool:
    """Whether nothing of a model is left to be built."""
    return all(layer.built for layer in flatten_layers(model)[1:])


def go_to_unbuilt(model: Any, seed: int) -> None:
    """Have a model that is not built, or not whole, be built from a seed."""
    trial: Trial = model._repro
    trial.seeds.requested = seed
    if trial.start.state is None:
        trial.name(seed, random_streams.start_position(seed))
    else:
        go_to_start(model, seed, ALL)


@undivided
def go_to(
    model: Any, read: InitialState, stored: StoredTrial, source: str
) -> None:
    """Go to a start that was read."""
    trial: Trial = model._repro
    adopt(model, read, stored, source)
    trial.start.captured.restore(model)
    trial.progress.has_trained = True
    trial.rewind()


@undivided
def _go_to_seed(
    model: Any, seed: int, vary: str, draw: Draw, fixed: Draw
) -> None:
    """Make the start that a seed draws the initial state, and go there."""
    trial: Trial = model._repro
    start, seeds = trial.start, trial.seeds
    state = start.captured
    if (seeds.seed, seeds.vary) == (start.as_built_seed, ALL):
        start.as_built = state
    is_as_built = (seed, vary) == (start.as_built_seed, ALL)
    if is_as_built and start.as_built is not None:
        start.state = start.as_built
        start.captured.follow(model)
    else:
        weights = draw if vary in (ALL, INITIAL) else fixed
        random = draw if vary in (ALL, RANDOM) else fixed
        generators = state.ids_a_seed_draws(())
        wanted = _wanted(state, weights, ("drawn", "likely"))
        wanted |= {
            key: value
            for key, value in random.values.items()
            if key in generators
        }
        start.state = state.replace(wanted)
    seeds.seed, seeds.vary = seed, vary
    if vary == ALL and seeds.requested is not None:
        # Of a layer that is added now, too.
        seeds.requested = seed
    trial.draws.traces.drop(model)
    stream_seed = seeds.of(RANDOM)
    position = (draw if vary in (ALL, RANDOM) else fixed).streams
    if trial.draws.starts_apart:
        position = random_streams.start_position(stream_seed)
    trial.draws.own_streams.begin_at(position, stream_seed)
    start.captured.restore(model)
    trial.rewind()


def _draw(model: Any, seed: int) -> Draw:
    start: Start = model._repro.start
    draw, state = start.drawer.draw(model, seed), start.captured
    sources = state.sources_by_id()
    undrawn = list_undrawn(draw, state.values_by_id(), sources)
    _refuse(undrawn + list_unproven(draw, sources), "The start of a seed")
    return draw


def require_drawable(model: Any) -> None:
    """Raise at once where no seed can draw a layer anew."""
    _draw(model, FIXED_SEED)


def _refuse(undrawn: list[Failure], what: str) -> None:
    if undrawn:
        msg = (
            f"{what} must be drawn by making each layer once more. Received "
            f"layers that cannot be: {say_undrawn(undrawn)}. Give the class "
            "a `get_config` that its constructor accepts, and make its "
            "weights in `build`. If the values that the model holds shall "
            "stay under every seed, pass the built model to "
            "`make_reproducible` and call `capture_initial_state()`."
        )
        raise ValueError(msg)


def warn_of_lost_setup(model: Any) -> None:
    """Say, once, what a reset before any training takes back."""
    start: Start = model._repro.start
    changed = start.captured.changed_places()
    if changed and not start.warned_about_setup:
        start.warned_about_setup = True
        warnings.warn(
            "`reset()` on a model that has not trained undoes what was "
            f"changed since it was built: {', '.join(changed)}. If a loop of "
            "your own trains it, put the loop into `with model.trial():` and "
            "hand its optimizer over with `model.track`. If you loaded or "
            "assigned these, call `model.capture_initial_state()` before "
            "`reset()` to keep them.",
            UserWarning,
            stacklevel=4,
        )


def track(model: Any, objects: tuple[Any, ...]) -> None:
    """Have objects belong to the start of a model, and to its trials."""
    trial: Trial = model._repro
    late = [
        one
        for one in objects
        if trial.progress.is_blind
        and isinstance(one, keras.optimizers.Optimizer)
        and count_steps(one)
    ]
    if late:
        msg = (
            "An optimizer must be handed over before it trains the model: its "
            f"start is how it stands then. Received: {late[0].name!r} after "
            f"{count_steps(late[0])} steps. Make a new one "
            "and hand that over."
        )
        raise ValueError(msg)
    hand_over(model, objects)
    trial.progress.is_blind = False
    trial.progress.has_all = trial.progress.has_all or not objects
    if not capture_if_built(model):
        return
    if trial.progress.has_trained:
        trial.start.captured.follow(model)
    else:
        trial.start.take_up(model)


@contextmanager
def loop_of_block(model: Any) -> Iterator[None]:
    """Have the data that a block goes over stand where its trial stands."""
    trial: Trial = model._repro
    # An optimizer that the block makes is new in each, and nobody's business.
    made: list[Any] = []
    entered: list[Any] = []
    use = Use(trial, is_code=True)

    def through(data: Any) -> Any:
        if (
            trial.calls.is_running
            or trial.calls.is_evaluating
            or not is_eager()
        ):
            return data
        use.begin_pass()
        if is_pipeline(data):
            return trial.data.positions.restart(data, LOOP, trial.seeds.order)
        if is_stateful(data) and not any(data is one for one in entered):
            entered.append(data)
            stack.enter_context(trial.data.positions.entered(data, LOOP))
        return data

    try:
        with ExitStack() as stack:
            stack.enter_context(iterations_through(through))
            stack.enter_context(new_optimizers_noted(made.append))
            stack.enter_context(in_use(use))
            yield
    finally:
        _look_at_block(model, made_optimizer=bool(made))


def _look_at_block(model: Any, *, made_optimizer: bool) -> None:
    """Look at what a block did to the model, if it was a loop of one's own."""
    trial: Trial = model._repro
    if not trial.progress.at_start:
        return
    moved = trial.start.captured.moved()
    if not moved["weights"]:
        return
    trial.progress.leave_start()
    # Batch statistics move in a mere call.
    trial.progress.is_blind = any(
        one.trainable for one in moved["weights"]
    ) and not (
        made_optimizer
        or trial.progress.has_all
        or moved["optimizer"]
        or knows_an_optimizer(model)
    )


def refuse_blind(model: Any) -> None:
    """Raise where a reset would leave an optimizer as it is."""
    if model._repro.progress.is_blind:
        msg = (
            "A trial must know what trains the model, to put it back. "
            f"Received: a block of `trial()` in which the weights of "
            f"{model.name!r} moved, and no optimizer that it knows. Hand over "
            "a new one, with its metrics and data, before the block: "
            "`model.track(optimizer, ...)`; or make it in the block. If none "
            "is used, say so by `model.track()`."
        )
        raise ValueError(msg)


def take_up_setup(model: Any) -> None:
    """Before any training, what was loaded or assigned is the start."""
    trial: Trial = model._repro
    if (
        trial.progress.has_trained
        or trial.calls.is_running
        or not capture_if_built(model)
    ):
        return
    trial.start.take_up(model)


def note_compile(model: Any) -> None:
    """The `trainable` flags that `compile` has read belong to the start."""
    start: Start = model._repro.start
    config, flags = compiled_flags(model)
    if start.compile_config is not None and config is not start.compile_config:
        start.captured.set_flags(flags)
    start.compile_config = config


@undivided  # Keras takes one that is half built for a built one.
def build_optimizer(model: Any) -> None:
    """Have the slots of the optimizer made, which changes nothing else."""
    optimizer = getattr(model, "optimizer", None)
    if (
        optimizer is not None
        and not optimizer.built
        # It can be built once, for all that will be trained.
        and is_all_there(model)
    ):
        with get_backend().scope(model):
            optimizer.build(model.trainable_variables)


def start_unbuilt(trial: Trial) -> None:
    """A model that only its first batch can build still has streams."""
    if trial.draws.streams is None:
        seed = trial.seeds.wanted
        trial.name(seed, random_streams.start_position(seed))


def describe_start(model: Any) -> StoredTrial:
    """Where the trial of a model began, whatever runs now."""
    trial: Trial = model._repro
    values = trial.start.captured.values_by_id()
    start = trial.draws.own_streams.start
    return StoredTrial(
        seed=trial.seeds.settled,
        vary=trial.seeds.vary,
        start=start,
        position=start,
        epochs_trained=0,
        at_start=True,
        has_trained=False,
        starts_apart=trial.draws.starts_apart,
        random=[values[id(one)].tolist() for one in _own_generators(model)],
        evaluations={},
        evaluations_random={},
    )


def _own_generators(model: Any) -> list[Any]:
    """The states of the layers' generators, which a file holds."""
    return [
        place.variable
        for place in iterate_variables(model)
        if place.role == "random" and not is_handed_over(place.place)
    ]


def write_state(model: Any, path: Path) -> None:
    """Write the initial state, and where the trial stands, to HDF5."""
    capture_if_built(model)
    model._repro.start.captured.write(path, describe_trial(model))


def describe_trial(model: Any) -> StoredTrial:
    """Where the trial of a model stands."""
    trial: Trial = model._repro
    streams, generators = trial.draws.own_streams, _own_generators(model)
    ended = 0 if trial.data.reading is None else trial.data.reading.num_ended
    return StoredTrial(
        seed=trial.seeds.settled,
        vary=trial.seeds.vary,
        start=streams.start,
        position=streams.position,
        epochs_trained=trial.progress.epochs + ended,
        at_start=trial.progress.at_start,
        has_trained=trial.progress.has_trained,
        starts_apart=trial.draws.starts_apart,
        random=[read_variable(one).tolist() for one in generators],
        evaluations=streams.evaluations,
        evaluations_random=trial.draws.evaluations.write(generators),
        midst=Midst.of(model),
    )


def adopt(
    model: Any, read: InitialState, stored: StoredTrial, source: str
) -> None:
    """Take up a state that was read, if it fits, with its seed and streams."""
    trial: Trial = model._repro
    generators = _own_generators(model)
    read.require_fit(model, source)
    try:
        present = read_states(generators, stored.random)
        evaluations = {
            kind: read_states(generators, states)
            for kind, states in stored.evaluations_random.items()
        }
    except ValueError as error:
        msg = (
            "An initial state must hold where each generator of the model "
            f"stands. Received: {source}, which is damaged: {error}. Save the "
            "state again."
        )
        raise ValueError(msg) from None
    # Nothing has changed where something above was refused.
    trial.start.state = read.bind(model, trial.start.state)
    trial.draws.evaluations.take(generators, evaluations)
    seeds = trial.seeds
    if seeds.seed not in (None, stored.seed) or seeds.vary != stored.vary:
        trial.draws.traces.drop(model)
    trial.name(stored.seed, stored.start, stored.vary)
    trial.draws.stand_at(stored)
    trial.progress.stand_at(stored)
    for one, value in zip(generators, present, strict=True):
        get_backend().assign(one, value)


def put_streams(model: Any, stored: StoredTrial) -> None:
    """Have the streams of a training stand where a file tells."""
    generators = _own_generators(model)
    values = read_states(generators, stored.random)
    model._repro.draws.own_streams.position = stored.position
    get_backend().assign_all(list(zip(generators, values, strict=True)))
