"""`ReproducibleModel`: a Keras model that can go back to its start."""

from __future__ import annotations

import inspect
import json
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import keras

from keras_repro import _backends, data, drawing, seeding
from keras_repro.checksums import compute_checksum
from keras_repro.state import InitialState, check_path
from keras_repro.variables import iterate_variables, read_variable

_Functional = _backends.functional_class()
_log = logging.getLogger(__name__)
_ASSET = "initial_state.h5"


class Trial:
    """What a reproducible model knows about its trial.

    Kept as one plain object outside Keras' attribute tracking; the callback
    reads the seed and the checksums from it.
    """

    def __init__(self) -> None:
        self.requested_seed: int | None = None
        self.program_seed = seeding.seed_from_program()
        self.redraw_when_built = True
        self.state: InitialState | None = None
        self.as_built: InitialState | None = None
        self.as_built_seed: int | None = None
        self.foreign: set[int] = set()
        self.streams: seeding.Streams | None = None
        self.loaded: tuple[InitialState, dict[str, Any], str] | None = None
        self.has_trained = False
        self.at_start = True
        self.is_running = False
        self.in_block = False
        self.in_evaluation = False
        self.warned_about_setup = False
        self.epochs_trained = 0
        self.positions = data.DataPositions()
        self.data_notes: list[str] = []
        self.data_arrays: Any = None
        self.compile_config: Any = None
        self._seed: int | None = None

    @property
    def seed(self) -> int | None:
        """The seed of the present trial; `None` before it is known."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = seed

    @property
    def data_identity(self) -> str | None:
        """Checksum of the arrays that `fit` was given."""
        if self.data_arrays is None:
            return None
        return compute_checksum(self.data_arrays)

    def random_checksum(self) -> str:
        """Checksum of where the streams of the trial stand."""
        if self.streams is None:
            return compute_checksum([])
        position = seeding.rng_to_json(self.streams.position)
        text = json.dumps(position, sort_keys=True).encode()
        return compute_checksum(memoryview(text))


class ReproducibleModel(keras.Model):
    """A Keras model that can go back to its start, bit for bit.

    Give it a list of layers (or nothing, and then `add`) and it is a
    `keras.Sequential`; give it `(inputs, outputs)` and it is a Functional
    model; or subclass it as you would `keras.Model`. It keeps its initial
    state from the moment it is built. `reset()` puts that state back in
    place, without recompiling or retracing, and the next `fit` is bitwise
    equal to the first one.

    Args:
        *args: A list of layers, or inputs and outputs.
        seed: Names the trial: its initial weights, random streams and data
            order are a function of this number. `None` takes the global seed
            if one was set, else one that is drawn and recorded.
        **kwargs: As for the Keras class.

    Raises:
        TypeError: If `seed` is not an integer.
        ValueError: If `seed` is not between 0 and `2**32 - 1`.

    Scope:
        Equal means bitwise equal, on one machine with one set of library
        versions and thread counts. See docs/guarantees.md for what cannot be
        held, and for GPUs.

    Example:
        >>> import keras, numpy as np
        >>> x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
        >>> model = ReproducibleModel(
        ...     [keras.Input((3,)), keras.layers.Dense(1)], seed=1
        ... )
        >>> model.compile("sgd", "mse")
        >>> first = model.fit(x, y, verbose=0).history["loss"]
        >>> model.reset()
        >>> first == model.fit(x, y, verbose=0).history["loss"]
        True
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is ReproducibleModel:
            cls = _class_for(args, kwargs)
        instance = super().__new__(cls, *args, **kwargs)
        trial = Trial()
        seed = kwargs.get("seed")
        if seed is not None and "seed" not in _init_parameters(cls):
            trial.requested_seed = seeding.check_seed(seed)
        # Outside the tracking of Keras, which refuses lists of variables.
        object.__setattr__(instance, "_repro", trial)
        return instance

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any):
        if seed is not None:
            self._repro.requested_seed = seeding.check_seed(seed)
        if _has_tensors(args, kwargs) and not isinstance(self, _Functional):
            # Keras would change the bases of the class itself, for every
            # later instance of it. The instance gets a class of its own.
            self.__class__ = _functional_class(type(self))
            ReproducibleFunctional.__init__(self, *args, seed=seed, **kwargs)
        else:
            super().__init__(*args, **kwargs)

    _repro: Trial

    # --- the start ---------------------------------------------------------

    @property
    def seed(self) -> int | None:
        """The seed of the present trial, or `None` before the model is built.

        With the model's configuration it names the trial: the record of a
        run holds it, so that a run nobody seeded can be repeated.
        """
        if self._repro.seed is None:
            _capture_if_built(self)
        if self._repro.seed is None:
            return self._repro.requested_seed
        return self._repro.seed

    @property
    def initial_state(self) -> InitialState | None:
        """What `reset()` goes back to, or `None` before the model is built."""
        _capture_if_built(self)
        return self._repro.state

    def reset(self, seed: int | None = None) -> None:
        """Go back to the start, in place, with nothing recompiled.

        Puts back all weights, batch statistics, seed generators, recurrent
        states, optimizer and metrics variables, `trainable` flags, and the
        positions of the trial's random streams and data order.

        Args:
            seed: `None` goes back to the initial state as it was captured. A
                seed draws the initial state of that seed afresh in place,
                equal to what a fresh process gives for it; values that
                somebody loaded or assigned before training stay.

        Raises:
            RuntimeError: If a `fit` of this model is running.
            TypeError: If `seed` is not an integer.
            ValueError: If the seed is out of range, if the model's variables
                are no longer those that were captured, or if a layer cannot
                be made from its configuration, so that no seed can draw it.

        Scope:
            The model and what it owns. Callbacks keep memory of their own
            (`ModelCheckpoint`, `SwapEMAWeights`): make them anew.

        Example:
            >>> import keras
            >>> model = ReproducibleModel(
            ...     [keras.Input((2,)), keras.layers.Dense(1)], seed=1
            ... )
            >>> start = model.get_weights()[0]
            >>> model.reset(seed=2)
            >>> bool((start == model.get_weights()[0]).all())
            False
            >>> model.reset(seed=1)
            >>> bool((start == model.get_weights()[0]).all())
            True
        """
        trial = self._repro
        if seed is not None:
            seed = seeding.check_seed(seed)
        if trial.is_running:
            msg = (
                "`reset()` must be called between trainings. Received: a call "
                "while `fit` runs. Stop the training first, for example with "
                "`model.stop_training = True`."
            )
            raise RuntimeError(msg)
        if not _capture_if_built(self):
            if seed is not None:
                trial.requested_seed = seed
            return
        assert trial.state is not None  # noqa: S101 - for the type checker
        trial.state.follow(self)
        _note_compile(self)
        if seed is not None and seed != trial.seed:
            _move_to_seed(self, seed)
        elif seed is None and not trial.has_trained:
            _warn_of_lost_setup(self)
        trial.state.restore(self)
        _begin_trial(trial)

    def capture_initial_state(self) -> None:
        """Make what the model holds now its start.

        Weights that are captured this way stay under every seed: a later
        `reset(seed=s)` moves the random streams and the data order alone.

        Raises:
            RuntimeError: If a `fit` of this model is running.
            ValueError: If the model is not built.
        """
        trial = self._repro
        if trial.is_running:
            msg = (
                "`capture_initial_state()` must be called between trainings. "
                "Received: a call while `fit` runs."
            )
            raise RuntimeError(msg)
        _require_built(self, "capture_initial_state()")
        _capture_if_built(self)
        _build_optimizer(self)
        state = InitialState.capture(self)
        for entry in state.entries:
            entry.source = "given"
        trial.state = state
        _begin_trial(trial)

    def save_initial_state(self, path: str | os.PathLike[str]) -> None:
        """Write the initial state to an HDF5 file.

        Args:
            path: The file; an older one is replaced only when all is written.

        Raises:
            TypeError: If `path` is not a path.
            ValueError: If the model is not built.
            OSError: If the file cannot be written.
        """
        target = check_path(path)
        _require_built(self, "save_initial_state()")
        _write_state(self, target)

    def load_initial_state(self, path: str | os.PathLike[str]) -> None:
        """Read an initial state from HDF5 and go back to it.

        Args:
            path: A file that `save_initial_state` wrote.

        Raises:
            TypeError: If `path` is not a path.
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no initial state, is damaged, or comes
                from another architecture. The model stays as it was.
        """
        source = check_path(path)
        _require_built(self, "load_initial_state()")
        _capture_if_built(self)
        read, extra = InitialState.read(source)
        _adopt(self, read, extra, str(path))
        trial = self._repro
        assert trial.state is not None  # noqa: S101 - for the type checker
        trial.state.restore(self)
        trial.has_trained = True
        _begin_trial(trial)

    @contextmanager
    def trial(self, seed: int | None = None) -> Iterator[Self]:
        """Reset, then let the block draw from the streams of this trial.

        Args:
            seed: As for `reset`.

        Example:
            >>> import keras, numpy as np
            >>> model = ReproducibleModel(
            ...     [keras.Input((2,)), keras.layers.Dense(1)], seed=1
            ... )
            >>> with model.trial(seed=3):
            ...     first = np.random.random()
            >>> with model.trial(seed=3):
            ...     first == np.random.random()
            True
        """
        _require_built(self, "trial()")
        self.reset(seed)
        streams = self._repro.streams
        assert streams is not None  # noqa: S101 - for the type checker
        with streams.training():
            self._repro.in_block = True
            try:
                yield self
            finally:
                self._repro.in_block = False

    def clone(self) -> Self:
        """A copy with the same values, initial state, seed and streams.

        `keras.models.clone_model` gives a plain Keras model instead.

        Raises:
            ValueError: If the model cannot be serialized by Keras.
        """
        copy: Self = pickle.loads(pickle.dumps(self))  # noqa: S301 - our own
        return copy

    # --- training and evaluation ---------------------------------------------

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train, as `keras.Model.fit`, inside the streams of the trial."""
        call = _bind(keras.Model.fit, self, args, kwargs)
        with _training(self, call):
            return super().fit(**call)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch, as `keras.Model.train_on_batch`."""
        call = _bind(keras.Model.train_on_batch, self, args, kwargs)
        with _training_on_batch(self, call):
            return super().train_on_batch(**call)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; nothing of it steers a training."""
        with _evaluating(self, keras.Model.evaluate, args, kwargs):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict; nothing of it steers a training."""
        with _evaluating(self, keras.Model.predict, args, kwargs):
            return super().predict(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch; nothing of it steers a training."""
        with _evaluating(self, keras.Model.test_on_batch, args, kwargs):
            return super().test_on_batch(*args, **kwargs)

    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Predict one batch; nothing of it steers a training."""
        with _evaluating(self, keras.Model.predict_on_batch, args, kwargs):
            return super().predict_on_batch(*args, **kwargs)

    # --- set-up ----------------------------------------------------------------

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights; before any training they become the start."""
        _capture_if_built(self)
        result = super().load_weights(*args, **kwargs)
        _take_up_setup(self)
        return result

    def set_weights(self, weights: list[Any]) -> None:
        """Set weights; before any training they become the start."""
        _capture_if_built(self)
        super().set_weights(weights)
        _take_up_setup(self)

    # --- saving ------------------------------------------------------------------

    def save_assets(self, directory: str) -> None:
        """Let a `.keras` file keep the initial state."""
        if self.built and self._repro.state is not None:
            _write_state(self, Path(directory) / _ASSET)

    def load_assets(self, directory: str) -> None:
        """Take up the initial state from a `.keras` file."""
        path = Path(directory) / _ASSET
        if path.exists():
            read, extra = InitialState.read(path)
            self._repro.loaded = (read, extra, str(path.name))


    def _note_foreign(self, layers: Any) -> None:
        for layer in layers:
            if getattr(layer, "built", False) and getattr(
                layer, "weights", None
            ):
                parts = (
                    drawing.drawing_units(layer)
                    if isinstance(layer, keras.Model)
                    else [layer]
                )
                self._repro.foreign.update(id(part) for part in parts)


class ReproducibleSequential(ReproducibleModel, keras.Sequential):
    """A `keras.Sequential` with `reset()`; made by `ReproducibleModel`."""

    def __init__(
        self,
        layers: Any = None,
        trainable: bool = True,  # noqa: FBT001, FBT002 - as Keras has it
        name: str | None = None,
        *,
        seed: int | None = None,
    ):
        self._note_foreign(layers or [])
        super().__init__(
            layers=layers,
            trainable=trainable,
            name=name or _default_name("sequential"),
            seed=seed,
        )
        _capture_if_built(self)

    def add(self, layer: Any, rebuild: bool = True) -> None:  # noqa: FBT001, FBT002
        """Add a layer, as `keras.Sequential.add`."""
        self._note_foreign([layer])
        super().add(layer, rebuild=rebuild)


class ReproducibleFunctional(ReproducibleModel, _Functional):  # type: ignore[misc, valid-type]
    """A Functional model with `reset()`; made by `ReproducibleModel`."""

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        name: str | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if seed is not None:
            self._repro.requested_seed = seeding.check_seed(seed)
        _Functional.__init__(
            self,
            inputs,
            outputs,
            name=name or _default_name("functional"),
            **kwargs,
        )
        if seed is None:
            self._note_foreign(self.layers)
        _capture_if_built(self)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Any:
        """Make the model that `get_config` describes."""
        return _backends.functional_from_config(cls, config, custom_objects)


for _class in (ReproducibleSequential, ReproducibleFunctional):
    keras.saving.register_keras_serializable("keras_repro")(_class)


def make_reproducible(model: Any, *, seed: int | None = None) -> Any:
    """Give an existing Keras model `reset()` and the rest, in place.

    What the model holds now is its start. Its class becomes a reproducible
    one; its identity, layers and compiled functions stay.

    Args:
        model: A Keras model, for example from `keras.applications` or
            `keras.saving.load_model`.
        seed: Names the trial; the weights stay as they are.

    Returns:
        The same object.

    Raises:
        TypeError: If `model` is not a Keras model.

    Example:
        >>> import keras
        >>> plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = make_reproducible(plain)
        >>> model is plain, isinstance(model, ReproducibleModel)
        (True, True)
    """
    if not isinstance(model, keras.Model):
        msg = (
            "`model` must be a Keras model. Received: "
            f"{model!r} (of type {type(model).__name__})."
        )
        raise TypeError(msg)
    if isinstance(model, ReproducibleModel):
        return model
    trial = Trial()
    trial.redraw_when_built = not model.built
    if seed is not None:
        trial.requested_seed = seeding.check_seed(seed)
    model.__class__ = _reproducible_class(type(model))
    object.__setattr__(model, "_repro", trial)
    model._note_foreign(model.layers)
    _capture_if_built(model)
    return model


_made: dict[type, type] = {}


def _reproducible_class(cls: type) -> type:
    if cls is keras.Sequential:
        return ReproducibleSequential
    if cls is _Functional:
        return ReproducibleFunctional
    if cls not in _made:
        made = type(
            cls.__name__,
            (ReproducibleModel, cls),
            {"__module__": cls.__module__, "__doc__": cls.__doc__},
        )
        name = f"{cls.__module__}.{cls.__qualname__}"
        keras.saving.register_keras_serializable("keras_repro", name)(made)
        _made[cls] = made
    return _made[cls]


def _class_for(args: tuple[Any, ...], kwargs: dict[str, Any]) -> type:
    """Decide by what the arguments are, not by how many there are."""
    if _has_tensors(args, kwargs):
        return ReproducibleFunctional
    return ReproducibleSequential


def _has_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if "outputs" in kwargs or "inputs" in kwargs:
        return True
    leaves = keras.tree.flatten(args[0]) if args else []
    return bool(leaves) and all(
        isinstance(leaf, keras.KerasTensor) for leaf in leaves
    )


def _functional_class(cls: type) -> type:
    return type(
        cls.__name__,
        (cls, ReproducibleFunctional),
        {"__module__": cls.__module__, "__doc__": cls.__doc__},
    )


def _init_parameters(cls: type) -> set[str]:
    """Whether a subclass has a `seed` argument of its own meaning."""
    if cls.__module__ == __name__:
        return set()
    return set(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]


def _default_name(prefix: str) -> str:
    """The name that the Keras class would have taken: they share a counter."""
    number = keras.backend.get_uid(prefix)
    return prefix if number == 1 else f"{prefix}_{number - 1}"


# --- capture ---------------------------------------------------------------------


def _require_built(model: Any, what: str) -> None:
    if not model.built:
        msg = (
            f"`{what}` needs a built model. Received: {model.name!r}, which "
            "has no variables yet. Give it a `keras.Input`, call "
            "`model.build(...)`, or call it on a batch first."
        )
        raise ValueError(msg)


def _is_complete(model: Any) -> bool:
    # A model with a `train_step` of its own may never be called itself.
    return bool(model.built or model.variables) and all(
        layer.built for layer in model._flatten_layers(include_self=False)
    )


def _capture_if_built(model: Any) -> bool:
    """Capture the initial state as soon as there is one.

    Returns:
        Whether the model is built.
    """
    trial: Trial = model._repro
    if not _is_complete(model):
        return False
    if trial.loaded is not None:
        read, extra, source = trial.loaded
        trial.loaded = None
        _adopt(model, read, extra, source)
        trial.has_trained = True
        return True
    if trial.state is not None and not _has_grown(model, trial):
        return True
    trial.state = InitialState.capture(model)
    _settle_seed(model)
    return True


def _has_grown(model: Any, trial: Trial) -> bool:
    """Whether layers were added before any training: still set-up."""
    if trial.has_trained or trial.is_running:
        return False
    assert trial.state is not None  # noqa: S101 - for the type checker
    places = iterate_variables(model)
    known = trial.state.values_by_id()
    own = [p for p in places if p.role in {"weights", "random"}]
    return any(id(p.variable) not in known for p in own)


def _settle_seed(model: Any) -> None:
    """Name the start of a model that has just been built.

    A given seed draws the start. Under a global seed the start stays what
    plain Keras drew, and has the global seed's name if that is what the seed
    draws. Without any seed the model takes one and draws from it, so that the
    recorded seed repeats the run.
    """
    trial: Trial = model._repro
    state = trial.state
    assert state is not None  # noqa: S101 - for the type checker
    global_seed = _backends.get_global_seed()
    if trial.requested_seed is not None:
        seed, redraw = trial.requested_seed, trial.redraw_when_built
    elif global_seed is not None:
        seed, redraw = global_seed, False
    else:
        seed, redraw = trial.program_seed, trial.redraw_when_built
    values = state.values_by_id()
    draw = drawing.draw_start(model, seed)
    state.set_sources(drawing.classify(model, values, draw, trial.foreign))
    wanted = _wanted(state, draw, ("drawn",))
    if redraw:
        trial.state = state.replace(wanted)
        trial.state.restore(model)
    elif trial.requested_seed is None and any(
        value.tobytes() != values[key].tobytes()
        for key, value in wanted.items()
    ):
        seed = trial.program_seed
        draw = drawing.draw_start(model, seed)
        trial.as_built_seed = seed
    _name_trial(trial, seed, draw.streams)


def _wanted(
    state: InitialState, draw: drawing.Draw, sources: tuple[str, ...]
) -> dict[int, Any]:
    chosen = state.ids_a_seed_draws(sources)
    return {key: v for key, v in draw.values.items() if key in chosen}


def _name_trial(trial: Trial, seed: int, start: seeding.RngState) -> None:
    trial.seed = seed
    trial.streams = seeding.Streams(
        start, seeding.derive_seed(seed, "evaluation")
    )


def _begin_trial(trial: Trial) -> None:
    trial.at_start = True
    trial.epochs_trained = 0
    if trial.streams is not None:
        trial.streams.rewind()


def _move_to_seed(model: Any, seed: int) -> None:
    """Make the start that a seed draws the initial state."""
    trial: Trial = model._repro
    state = trial.state
    assert state is not None  # noqa: S101 - for the type checker
    assert trial.streams is not None  # noqa: S101 - for the type checker
    draw = drawing.draw_start(model, seed)
    if draw.failed:
        reasons = {layer.name: reason for layer, reason in draw.failed}
        msg = (
            "`reset(seed=...)` must be able to make each layer from its "
            f"configuration, to draw it anew. Received: {reasons}. Give the "
            "layer a `get_config` that its constructor accepts."
        )
        raise ValueError(msg)
    if trial.seed == trial.as_built_seed:
        trial.as_built = state
    if seed == trial.as_built_seed and trial.as_built is not None:
        trial.state = trial.as_built
        trial.state.follow(model)
    else:
        wanted = _wanted(state, draw, ("drawn", "likely"))
        trial.state = state.replace(wanted)
    trial.streams.start = draw.streams
    trial.streams.evaluation_seed = seeding.derive_seed(seed, "evaluation")
    trial.seed = seed


def _warn_of_lost_setup(model: Any) -> None:
    trial: Trial = model._repro
    assert trial.state is not None  # noqa: S101 - for the type checker
    changed = trial.state.changed_places()
    if changed and not trial.warned_about_setup:
        trial.warned_about_setup = True
        warnings.warn(
            "`reset()` on a model that has not trained undoes what was "
            f"changed since it was built: {', '.join(changed)}. Call "
            "`model.capture_initial_state()` first to keep it.",
            UserWarning,
            stacklevel=3,
        )


def _take_up_setup(model: Any) -> None:
    """Before any training, what was loaded or assigned is the start."""
    trial: Trial = model._repro
    if trial.has_trained or trial.is_running or not _capture_if_built(model):
        return
    trial.state = InitialState.capture(model, earlier=trial.state)


def _note_compile(model: Any) -> None:
    """The `trainable` flags that `compile` has read belong to the start."""
    trial: Trial = model._repro
    config, flags = _backends.compiled_flags(model)
    if trial.compile_config is not None and config is not trial.compile_config:
        assert trial.state is not None  # noqa: S101 - for the type checker
        trial.state.set_flags(flags)
    trial.compile_config = config


def _build_optimizer(model: Any) -> None:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)


# --- training ----------------------------------------------------------------------


def _bind(
    method: Callable[..., Any],
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """All arguments by name, with the errors that Keras would give."""
    bound = inspect.signature(method).bind(model, *args, **kwargs)
    call = dict(bound.arguments)
    call.pop("self")
    return call


@contextmanager
def _training(model: Any, call: dict[str, Any]) -> Iterator[None]:
    """Everything around a `fit`: start, streams, data order, bookkeeping."""
    trial: Trial = model._repro
    callbacks = call.get("callbacks")
    with ExitStack() as stack:
        if not trial.in_block:
            stack.enter_context(seeding.isolate_rng())
        stack.enter_context(_running(trial))
        _split_validation(call)
        _prepare(model, call)
        _restart_pipeline(model, call)
        streams = trial.streams
        assert streams is not None  # noqa: S101 - for the type checker
        stack.enter_context(streams.training())
        _order_arrays(model, call)
        trial.at_start = False
        earlier = getattr(model, "history", None)
        try:
            yield
        except BaseException as error:
            _tell_abort(callbacks, error)
            raise
        finally:
            history = getattr(model, "history", None)
            if history is not earlier:
                trial.epochs_trained += len(history.epoch)


@contextmanager
def _running(trial: Trial) -> Iterator[None]:
    before, trial.is_running = trial.is_running, True
    try:
        yield
    finally:
        trial.is_running = before


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
    arrays = tuple(call.get(name) for name in ("x", "y", "sample_weight"))
    if not _backends.are_arrays(arrays):
        return
    train, validation = _backends.train_validation_split(arrays, split)
    call["x"], call["y"], call["sample_weight"] = train
    call["validation_data"] = validation
    call["validation_split"] = 0.0


def _prepare(model: Any, call: dict[str, Any]) -> None:
    """Build what is unbuilt, and have the start captured before step one."""
    trial: Trial = model._repro
    x, y = call.get("x"), call.get("y")
    weights = call.get("sample_weight")
    is_array = _backends.are_arrays((x, y, weights))
    trial.data_arrays = (x, y, weights) if is_array else None
    trial.data_notes = data.describe_order(x)
    trial.positions.enter(
        x, at_start=trial.at_start and trial.has_trained
    )
    if _needs_building(model):
        with seeding.isolate_rng():
            batch, call["x"] = trial.positions.first_batch(
                x, y, weights, call.get("batch_size")
            )
        if batch is not None:
            _symbolic_build(model, batch)
    _capture_for_training(model)


def _restart_pipeline(model: Any, call: dict[str, Any]) -> None:
    trial: Trial = model._repro
    x = call.get("x")
    if not _backends.is_tf_dataset(x) or not hasattr(x, "element_spec"):
        return
    assert trial.seed is not None  # noqa: S101 - for the type checker
    call["x"], notes = trial.positions.restart(
        x, trial.seed, at_start=trial.at_start
    )
    trial.data_notes.extend(notes)


def _needs_building(model: Any) -> bool:
    compiled = getattr(model, "_compile_metrics", None)
    loss = getattr(model, "_compile_loss", None)
    return not _is_complete(model) or any(
        part is not None and not part.built for part in (compiled, loss)
    )


def _symbolic_build(model: Any, batch: Any) -> None:
    """Build as `fit` would; what cannot be built so, Keras builds itself."""
    if not model.compiled:
        return
    if isinstance(batch, list):
        batch = tuple(batch)
    elif not isinstance(batch, tuple):
        batch = (batch,)
    with seeding.isolate_rng():
        state_before = (
            None
            if not _is_complete(model)
            else [
                (p.variable, read_variable(p.variable))
                for p in iterate_variables(model)
                if p.role == "random"
            ]
        )
        try:
            _backends.symbolic_build(model, batch)
        except Exception:  # noqa: BLE001 - `fit` itself tells what is wrong
            _log.debug("no symbolic build of %s", model.name, exc_info=True)
        for variable, value in state_before or []:
            _backends.get_backend().assign(variable, value)


def _capture_for_training(model: Any) -> None:
    """Capture again if set-up changed something; follow a new optimizer."""
    trial: Trial = model._repro
    if _is_complete(model):
        _build_optimizer(model)
    if not _capture_if_built(model):
        _start_unbuilt(trial)
        return
    assert trial.state is not None  # noqa: S101 - for the type checker
    if trial.has_trained:
        trial.state.follow(model)
        _note_compile(model)
    else:
        _note_compile(model)
        model.reset_metrics()
        trial.state = InitialState.capture(model, earlier=trial.state)
        trial.has_trained = True


def _start_unbuilt(trial: Trial) -> None:
    """A model that only its first batch can build still has streams."""
    if trial.streams is None:
        seed = trial.requested_seed
        if seed is None:
            seed = _backends.get_global_seed()
        if seed is None:
            seed = trial.program_seed
        _name_trial(trial, seed, seeding.start_position(seed))


def _order_arrays(model: Any, call: dict[str, Any]) -> None:
    """Feed arrays in the order of the trial's seed and the epoch."""
    trial: Trial = model._repro
    shuffle = call.get("shuffle", True)
    if trial.data_arrays is None or not shuffle or not model.compiled:
        return
    assert trial.seed is not None  # noqa: S101 - for the type checker
    first = max(trial.epochs_trained, call.get("initial_epoch") or 0)
    call["x"] = _backends.make_ordered_adapter(
        call.get("x"),
        call.pop("y", None),
        call.pop("sample_weight", None),
        batch_size=call.get("batch_size"),
        steps=call.get("steps_per_epoch"),
        class_weight=call.pop("class_weight", None),
        order=data.OrderedPasses(trial.seed, first, shuffle),
    )


@contextmanager
def _training_on_batch(model: Any, call: dict[str, Any]) -> Iterator[None]:
    trial: Trial = model._repro
    with ExitStack() as stack:
        if not trial.in_block:
            stack.enter_context(seeding.isolate_rng())
        stack.enter_context(_running(trial))
        if trial.at_start or not _is_complete(model):
            if _needs_building(model):
                batch = tuple(
                    call.get(name) for name in ("x", "y", "sample_weight")
                )
                _symbolic_build(model, batch)
            _capture_for_training(model)
        assert trial.streams is not None  # noqa: S101 - for the type checker
        stack.enter_context(trial.streams.training())
        trial.at_start = False
        yield


# --- evaluation ----------------------------------------------------------------------


@contextmanager
def _evaluating(
    model: Any,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[None]:
    """Draw from the evaluation stream, and leave the training's alone."""
    trial: Trial = model._repro
    if not _capture_if_built(model):
        with seeding.isolate_rng():
            call = _bind_loosely(method, model, args, kwargs)
            x, y = call.get("x"), call.get("y")
            if _backends.are_arrays((x, y, call.get("sample_weight"))):
                batch, _ = trial.positions.first_batch(
                    x, y, call.get("sample_weight"), call.get("batch_size")
                )
                _build_for(model, batch)
        if not _capture_if_built(model):
            _start_unbuilt(trial)
    assert trial.streams is not None  # noqa: S101 - for the type checker
    kept = [
        (place.variable, read_variable(place.variable))
        for place in (iterate_variables(model) if _is_complete(model) else [])
        if place.role == "random"
    ]
    with trial.streams.evaluation():
        yield
    for variable, value in kept:
        _backends.get_backend().assign(variable, value)


def _bind_loosely(
    method: Callable[..., Any],
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    try:
        return _bind(method, model, args, kwargs)
    except TypeError:
        return {}


def _build_for(model: Any, batch: Any) -> None:
    """Build the layers alone, from the inputs of a batch."""
    inputs = keras.tree.map_structure(
        lambda v: (
            None
            if v is None
            else keras.KerasTensor(v.shape, keras.backend.standardize_dtype(v.dtype))
        ),
        batch[0],
    )
    model.compute_output_spec(inputs)


# --- saving ----------------------------------------------------------------------------


def _write_state(model: Any, path: Path) -> None:
    trial: Trial = model._repro
    _capture_if_built(model)
    state, streams = trial.state, trial.streams
    assert state is not None  # noqa: S101 - for the type checker
    assert streams is not None  # noqa: S101 - for the type checker
    present = [
        read_variable(place.variable).tolist()
        for place in iterate_variables(model)
        if place.role == "random"
    ]
    extra = {
        "seed": trial.seed,
        "start": seeding.rng_to_json(streams.start),
        "position": seeding.rng_to_json(streams.position),
        "epochs_trained": trial.epochs_trained,
        "at_start": trial.at_start,
        "random": present,
    }
    state.write(path, extra)


def _adopt(
    model: Any, read: InitialState, extra: dict[str, Any], source: str
) -> None:
    """Take up a state that was read, with its seed and streams."""
    trial: Trial = model._repro
    bound = read.bind(model, source)
    trial.state = bound
    _name_trial(
        trial, extra["seed"], seeding.rng_from_json(extra["start"])
    )
    assert trial.streams is not None  # noqa: S101 - for the type checker
    trial.streams.position = seeding.rng_from_json(extra["position"])
    trial.epochs_trained = extra["epochs_trained"]
    trial.at_start = extra["at_start"]
    places = [p for p in iterate_variables(model) if p.role == "random"]
    for place, value in zip(places, extra["random"], strict=False):
        array = keras.ops.convert_to_numpy(
            keras.ops.convert_to_tensor(value, dtype=place.variable.dtype)
        )
        _backends.get_backend().assign(place.variable, array)
