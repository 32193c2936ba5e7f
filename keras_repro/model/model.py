"""`ReproducibleModel`: a Keras model that can go back to its start."""

from __future__ import annotations

import functools
import inspect
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import keras

from keras_repro.backends import owners
from keras_repro.backends.active import get_backend
from keras_repro.backends.doors import KerasDoors
from keras_repro.backends.keras_internals import (
    UNTRACKED,
    as_in_keras,
    be_default_build,
    bind,
    flatten_layers,
    functional_class,
    is_eager,
    unbind,
)
from keras_repro.backends.variables import new_variables_noted
from keras_repro.common.checks import check_kind, check_path, check_seed
from keras_repro.common.text import describe
from keras_repro.model import around_fit, kinds, redraw
from keras_repro.model.first_step import (
    StepDoor,
    building,
    end_rehearsal,
    random_values,
)
from keras_repro.model.initial_state import InitialState
from keras_repro.model.kinds import is_functional
from keras_repro.model.stored_trial import ALL
from keras_repro.model.tracked import copy_objects
from keras_repro.model.transfer import pack
from keras_repro.model.trial import (
    between_trainings,
    capture_anew,
    capture_if_built,
    capture_if_made,
    check_vary,
    find_seed,
    go_to,
    go_to_start,
    is_built,
    loop_of_block,
    refuse_blind,
    require_built,
    take_up_setup,
    track,
    write_state,
)
from keras_repro.model.trial_parts import Trial

_Functional = functional_class()
_ASSET = "initial_state.h5"
_PATH_ADVICE = 'Pass a file name such as "start.h5".'


def _saying_its_end(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor at whose end, unless it is called by another, we look."""

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        trial: Trial = self._repro
        trial.start.constructors += 1
        try:
            init(self, *args, **kwargs)
        finally:
            trial.start.constructors -= 1
        if not trial.start.constructors:
            kinds.note_plain(self)
            capture_if_built(self)

    # Keras reads the arguments of a constructor without looking under it.
    __init__.__signature__ = inspect.signature(init)  # type: ignore[attr-defined]
    __init__.says_its_end = True  # type: ignore[attr-defined]
    return __init__


class _FirstAdd:
    """`add` of a subclass that only this makes a Sequential model."""

    def __get__(self, model: Any, owner: type) -> Any:
        if model is None:
            return keras.Sequential.add
        found = getattr(super(ReproducibleModel, model), "add", None)
        if found is not None:
            return found
        if not kinds.could_be_sequential(model):
            msg = f"{owner.__name__!r} object has no attribute 'add'"
            raise AttributeError(msg)
        kinds.be(model, ReproducibleSequential, ReproducibleModel)
        return model.add


class ReproducibleModel(KerasDoors, keras.Model):
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
        ValueError: If `seed` is not between 0 and `2**32 - 1`, or, when the
            model is built, if no seed can draw the weights of a layer.

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
        """Choose the kind of model, and give it a trial."""
        kind = _kind_of(args, kwargs) if cls is ReproducibleModel else cls
        instance = super().__new__(kind, *args, **kwargs)
        trial = Trial()
        seed = kwargs.get("seed")
        if seed is not None and "seed" not in _init_parameters(kind):
            trial.seeds.requested = check_seed(seed)
        # Outside the tracking of Keras, which refuses lists of variables.
        object.__setattr__(instance, "_repro", trial)
        return instance

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have a constructor of a subclass say when it has ended."""
        super().__init_subclass__(**kwargs)
        # One that is inherited may go on after ours, as that of a mixin does.
        init = vars(cls).get("__init__", cls.__init__)
        if inspect.isfunction(init) and not hasattr(init, "says_its_end"):
            cls.__init__ = _saying_its_end(init)  # type: ignore[method-assign]

    @_saying_its_end
    def __init__(
        self, *args: Any, seed: int | None = None, **kwargs: Any
    ) -> None:
        if seed is not None:
            self._repro.seeds.requested = check_seed(seed)
        if _has_a_constructor_between(type(self)):
            self._init_others(*args, **kwargs)
        elif (
            is_functional(args, kwargs) or type(self) is ReproducibleFunctional
        ):
            kinds.be(self, ReproducibleFunctional, ReproducibleModel)
            self._init_as(_Functional, "functional", args, kwargs)
            if seed is None:
                self._note_foreign(self.layers)
        elif args or "layers" in kwargs or isinstance(self, keras.Sequential):
            kinds.be(self, ReproducibleSequential, ReproducibleModel)
            self._init_as(keras.Sequential, "sequential", args, kwargs)
        else:
            kinds.be_plain(self)
            super().__init__(**kwargs)

    def _init_as(
        self, kind: Any, name: str, args: Any, kwargs: dict[str, Any]
    ) -> None:
        """Run Keras' constructor, with the name that it would have given."""
        if type(self).__module__ == __name__:
            with suppress(TypeError):  # Keras says what is wrong.
                bound = inspect.signature(kind.__init__).bind(
                    self, *args, **kwargs
                )
                if bound.arguments.get("name") is None:
                    bound.arguments["name"] = _default_name(name)
                _, *args = bound.args
                kwargs = bound.kwargs
        kind.__init__(self, *args, **kwargs)

    def _init_others(self, *args: Any, **kwargs: Any) -> None:
        """Run the constructor of another model class that is a base too."""
        bases = ReproducibleModel.__bases__
        if is_functional(args, kwargs):
            kinds.be(self, _Functional, ReproducibleModel)
        try:
            super().__init__(*args, **kwargs)
        finally:
            # Keras gives each class above a Functional model other bases.
            if ReproducibleModel.__bases__ != bases:
                ReproducibleModel.__bases__ = bases

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Any:
        """Make the model that `get_config` describes, of its kind."""
        kind = cls
        if _is_of_layers(cls, config):
            # No model of it need have been made so far.
            if cls is ReproducibleModel:
                kind = ReproducibleSequential
            else:
                kinds.give(cls, ReproducibleSequential, ReproducibleModel)
        more = {"custom_objects": custom_objects} if custom_objects else {}
        return super(ReproducibleModel, kind).from_config(config, **more)

    _repro: Trial
    add = _FirstAdd()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in UNTRACKED:
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)
        if name in _OUR_METHODS:
            # PyTorch keeps layers where a method of a class would hide them.
            self.__dict__[name] = value

    @property
    def seed(self) -> int | None:
        """The seed of the present trial, or `None` before the model is built.

        With the model's configuration it names the trial: the record of a
        run holds it, so that a run nobody seeded can be repeated.
        """
        own: int | None = self.__dict__.get("seed")
        return find_seed(self) if own is None else own

    @seed.setter
    def seed(self, value: Any) -> None:
        # A constructor of a subclass may keep something of its own there.
        if not self._repro.start.constructors and "seed" not in vars(self):
            msg = (
                "`seed` of a model is set by `reset(seed=...)`, which draws "
                f"what the seed names. Received: `seed = {describe(value)}`."
            )
            raise AttributeError(msg)
        self.__dict__["seed"] = value

    @property
    def initial_state(self) -> InitialState | None:
        """What `reset()` goes back to, or `None` before the model is built."""
        capture_if_built(self)
        return self._repro.start.state

    def reset(self, seed: int | None = None, *, vary: str = "all") -> None:
        """Go back to the start, in place, with nothing recompiled.

        Puts back all weights, batch statistics, seed generators, recurrent
        states, optimizer and metrics variables, `trainable` flags, and the
        positions of the trial's random streams and data order.

        Args:
            seed: `None` goes back to the initial state as it was captured. A
                seed draws the initial state of that seed afresh in place,
                equal to what a fresh process gives for it; values that
                somebody loaded or assigned before training stay.
            vary: What the seed moves: `"all"`, or `"initial"` weights,
                `"order"` of the data or `"random"` draws (dropout, noise)
                alone. The rest is then that of seed 0, so that one sees how
                much of the spread each brings.

        Raises:
            RuntimeError: If a `fit` of this model is running.
            TypeError: If `seed` is not an integer.
            ValueError: If the seed is out of range, if `vary` is none of
                these or comes without a seed, if the model's variables
                are no longer those that were captured, or if a layer cannot
                be made once more in any way, so that no seed can draw it.

        Scope:
            The model, what it owns, and what was handed over by `track`.
            Callbacks keep memory of their own (`ModelCheckpoint`,
            `SwapEMAWeights`): make them anew, or hand them over.

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
        vary = check_vary(vary)
        if seed is not None:
            seed = check_seed(seed)
        elif vary != ALL:
            msg = (
                "`vary` must come with a seed, which moves what it names. "
                f"Received: `vary={vary!r}` without one. Pass `seed=` too."
            )
            raise ValueError(msg)
        with between_trainings(self, "reset()"):
            refuse_blind(self)
            if capture_if_built(self):
                go_to_start(self, seed, vary)
                return
            if vary != ALL or trial.progress.has_trained:
                require_built(self, "reset()")
            if seed is not None:
                trial.seeds.requested = seed

    def capture_initial_state(self) -> None:
        """Make what the model holds now its start.

        Weights that are captured this way stay under every seed: a later
        `reset(seed=s)` moves the random streams and the data order alone.

        Raises:
            RuntimeError: If a `fit` of this model is running.
            ValueError: If the model is not built.
        """
        with between_trainings(self, "capture_initial_state()"):
            require_built(self, "capture_initial_state()")
            capture_anew(self)

    def save_initial_state(self, path: str | os.PathLike[str]) -> None:
        """Write the initial state to an HDF5 file.

        Args:
            path: The file; an older one is replaced only when all is written.

        Raises:
            TypeError: If `path` is not a path.
            ValueError: If the model is not built.
            OSError: If the file cannot be written.
        """
        target = check_path("path", path, _PATH_ADVICE)
        require_built(self, "save_initial_state()")
        write_state(self, target)

    def load_initial_state(self, path: str | os.PathLike[str]) -> None:
        """Read an initial state from HDF5 and go back to it.

        Args:
            path: A file that `save_initial_state` wrote.

        Raises:
            TypeError: If `path` is not a path.
            RuntimeError: If a `fit` of this model is running.
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no initial state, is damaged, or comes
                from another architecture. The model stays as it was.

        Scope:
            Nothing in the file is trusted; see docs/security.md.
        """
        source = check_path("path", path, _PATH_ADVICE)
        with between_trainings(self, "load_initial_state()"):
            require_built(self, "load_initial_state()")
            capture_if_built(self)
            go_to(self, *InitialState.read(source, self), str(source))

    @contextmanager
    def trial(
        self, seed: int | None = None, *, vary: str = "all"
    ) -> Iterator[Self]:
        """Reset, then let the block draw from the streams of this trial.

        Args:
            seed: As for `reset`.
            vary: As for `reset`.

        Raises:
            RuntimeError: If a training, an `isolate_rng()` or another trial
                runs in another thread or task.
            TypeError: As `reset`.
            ValueError: As `reset`, or if the model is not built.

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
        require_built(self, "trial()")
        with owners.held(
            f"trial() of model {self.name!r}", owners.BLOCK
        ) as owner:
            self.reset(seed, vary=vary)
            trial = self._repro
            trial.draws.own_streams.enter(owner)
            # All ends in order, also where the blocks themselves do not.
            owner.ends.enter_context(loop_of_block(self))
            owner.ends.enter_context(around_fit.marked(trial.calls, "in_block"))
            yield self

    def clone(self) -> Self:
        """A copy with the same values, initial state, seed and streams.

        `keras.models.clone_model` gives a plain Keras model instead.

        Layers and losses of your own need not be registered with Keras.

        Raises:
            PicklingError: If the model cannot be serialized by Keras.
        """
        copy: Self = pickle.loads(pack(self))
        left = copy_objects(self, copy)
        if left:
            warnings.warn(
                f"A clone has no copies of {', '.join(left)}, which "
                f"{self.name!r} was handed over. Hand others over to the "
                "clone with `track`.",
                UserWarning,
                stacklevel=2,
            )
        return copy

    def track(self, *objects: Any) -> None:
        """Hand over what trains or feeds the model and it cannot know of.

        From then on each object belongs to the model's start, as it stands
        now: `reset()` and `trial()` put it back in place, the record of a run
        holds its checksum, and `clone()` copies it where that can be done.

        Args:
            *objects: Optimizers, metrics and variables; generators of Python,
                NumPy, PyTorch, TensorFlow and Keras; `tf.data` pipelines,
                loaders and iterators; Keras' callbacks with a memory; objects
                with `get_state` and `set_state`, or with `state_dict` and
                `load_state_dict`. None at all says that there is nothing.

        Raises:
            RuntimeError: If a `fit` of this model is running.
            TypeError: If one is of another kind. None is taken over then.
            ValueError: If an optimizer has trained the model already, in a
                block whose start did not know it.

        Scope:
            Files hold the model alone: after `load_model` hand over again.
            What an object holds counts under every seed.

        Example:
            >>> import keras
            >>> model = ReproducibleModel(
            ...     [keras.Input((2,)), keras.layers.Dense(1)], seed=1
            ... )
            >>> optimizer = keras.optimizers.SGD(0.1)
            >>> optimizer.build(model.trainable_variables)
            >>> model.track(optimizer)
            >>> optimizer.learning_rate = 0.5
            >>> model.reset()
            >>> round(float(optimizer.learning_rate), 3)
            0.1
        """
        with between_trainings(self, "track()"):
            track(self, objects)

    @as_in_keras
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train, as `keras.Model.fit`, inside the streams of the trial."""
        call = bind("fit", args, kwargs)
        if call is None or not self.compiled:
            return super().fit(*args, **kwargs)
        with around_fit.training(self, call):
            args, kwargs = unbind("fit", call, len(args))
            return super().fit(*args, **kwargs)

    @as_in_keras
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch, as `keras.Model.train_on_batch`."""
        call = bind("train_on_batch", args, kwargs)
        if call is None or not self.compiled:
            return super().train_on_batch(*args, **kwargs)
        with around_fit.training_on_batch(self):
            return super().train_on_batch(*args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Build as the kind of model that the constructor found it to be.

        Keras wraps the `build` that it finds before that.
        """
        super().build(input_shape)
        if isinstance(self, keras.Sequential):
            capture_if_made(self)

    def at_build(self) -> AbstractContextManager[None]:
        """Build with the program's generators; see `KerasDoors`."""
        return building(self)

    def at_data(self, iterator: Any) -> None:
        """Know how far a training comes, or have it begin elsewhere."""
        trial = self._repro
        if trial.calls.is_running and not trial.calls.is_evaluating:
            around_fit.follow(self, iterator)

    def wants_early_build(self) -> bool:
        """Have callbacks find model and metrics, as on other backends."""
        return bool(self.compiled)

    def is_settled(self) -> bool:
        """Whether a step has run since `compile`, with all layers there."""
        step = getattr(self, "train_function", None)
        return (
            isinstance(step, StepDoor)
            and step.has_run
            and all(layer.built for layer in flatten_layers(self)[1:])
        )

    def after_build(self) -> None:
        """What is built is the start, before anything is computed."""
        if self._repro.start.constructors:
            return
        backend, is_traced = get_backend(), not is_eager()
        with backend.outside_traces():
            if not is_traced or all(
                map(backend.is_initialized, self.variables)
            ):
                capture_if_built(self)

    def around_step(self, kind: str, function: Any) -> Any:
        """Have the trial begin with the first step."""
        if isinstance(function, StepDoor):
            return function
        end_rehearsal(self)
        return StepDoor(self, kind, function)

    @as_in_keras
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; nothing of it steers a training."""
        own = around_fit.evaluating(self, "evaluate", args, kwargs)
        with own as (args, kwargs):
            return super().evaluate(*args, **kwargs)

    @as_in_keras
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict; nothing of it steers a training."""
        own = around_fit.evaluating(self, "predict", args, kwargs)
        with own as (args, kwargs):
            return super().predict(*args, **kwargs)

    @as_in_keras
    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch; nothing of it steers a training."""
        with around_fit.evaluating(self, "test_on_batch", args, kwargs):
            return super().test_on_batch(*args, **kwargs)

    @as_in_keras
    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Predict one batch; nothing of it steers a training."""
        with around_fit.evaluating(self, "predict_on_batch", args, kwargs):
            return super().predict_on_batch(*args, **kwargs)

    @as_in_keras
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model; a first call may build it, which is its start."""
        if (
            self._repro.start.state is not None
            or self._repro.start.constructors
        ):
            return super().__call__(*args, **kwargs)
        kept = random_values(self)
        outputs = super().__call__(*args, **kwargs)
        if self._repro.start.state is None and is_built(self) and is_eager():
            # Its own call built it, with weights that may be replaced now.
            for variable, value in kept:
                get_backend().assign(variable, value)
            if capture_if_built(self):
                outputs = super().__call__(*args, **kwargs)
        return outputs

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Add a weight of the model's own, whose initializer a seed draws."""
        with new_variables_noted(self._repro.start.drawer.note):
            return super().add_weight(*args, **kwargs)

    @as_in_keras
    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights; before any training they become the start."""
        capture_if_built(self)
        result = super().load_weights(*args, **kwargs)
        take_up_setup(self)
        return result

    @as_in_keras
    def set_weights(self, weights: list[Any]) -> None:
        """Set weights; before any training they become the start."""
        capture_if_built(self)
        super().set_weights(weights)
        take_up_setup(self)

    def save_assets(self, directory: str) -> None:
        """Let a `.keras` file keep the initial state."""
        if self._repro.start.state is not None:
            write_state(self, Path(directory) / _ASSET)

    def load_assets(self, directory: str | None) -> None:
        """Take up the initial state from a `.keras` file, if it has one."""
        path = None if directory is None else Path(directory) / _ASSET
        if path is not None and path.exists():
            # It is compared with the model when that is built.
            self._repro.start.loaded = *InitialState.read(path), path.name

    def _note_foreign(self, layers: Any) -> None:
        for layer in layers:
            if getattr(layer, "built", False) and getattr(
                layer, "weights", None
            ):
                parts = (
                    redraw.drawing_units(layer)
                    if isinstance(layer, keras.Model)
                    else [layer]
                )
                self._repro.start.foreign.update(id(part) for part in parts)


be_default_build(ReproducibleModel.build)
_OUR_METHODS = frozenset(
    name
    for name in dir(ReproducibleModel)
    if not hasattr(keras.Model, name)
    and callable(getattr(ReproducibleModel, name))
)


class ReproducibleSequential(ReproducibleModel, keras.Sequential):
    """A `keras.Sequential` with `reset()`; made by `ReproducibleModel`."""

    # Unlike the one it calls, Keras takes it for one that builds the model.
    def build(self, input_shape: Any = None) -> None:
        """Build, as `keras.Sequential.build`, and capture the start."""
        super().build(input_shape)

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Add a layer, as `keras.Sequential.add`."""
        if not hasattr(self, "_functional"):  # It was made as a plain model.
            keras.Sequential.__init__(
                self, trainable=self.trainable, name=self.name
            )
        self._note_foreign([layer])
        super().add(layer, rebuild=rebuild)


class ReproducibleFunctional(ReproducibleModel, _Functional):  # type: ignore[misc, valid-type]
    """A Functional model with `reset()`; made by `ReproducibleModel`."""


for _class in (ReproducibleSequential, ReproducibleFunctional):
    keras.saving.register_keras_serializable("keras_repro")(_class)
    # An `.h5` file names the class of a model without its package.
    keras.saving.get_custom_objects()[_class.__name__] = _class


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
        TypeError: If `model` is not a Keras model, or `seed` no integer.
        ValueError: If `seed` is out of range, or if the model is reproducible
            already, with another seed.

    Example:
        >>> import keras
        >>> plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = make_reproducible(plain)
        >>> model is plain, isinstance(model, ReproducibleModel)
        (True, True)
    """
    advice = "Build one, or load it with `keras.saving.load_model`."
    check_kind("model", model, keras.Model, advice, must="be a Keras model")
    if seed is not None:
        seed = check_seed(seed)
    if isinstance(model, ReproducibleModel):
        if seed is not None and seed != model.seed:
            msg = (
                "`seed` must be left out for a model that is reproducible "
                f"already: its trial has one. Received: `seed={seed}` for "
                f"{model.name!r}, whose seed is {model.seed}. Call "
                f"`model.reset(seed={seed})`, which draws what the seed names."
            )
            raise ValueError(msg)
        return model
    trial = Trial()
    trial.start.redraw_when_built = not model.built
    trial.start.drawer.initializers = None
    trial.seeds.requested = seed
    model.__class__ = _reproducible_class(type(model))
    object.__setattr__(model, "_repro", trial)
    model._note_foreign(model.layers)
    capture_if_built(model)
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


def _kind_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> type:
    if is_functional(args, kwargs):
        return ReproducibleFunctional
    return ReproducibleSequential


def _is_of_layers(cls: type, config: dict[str, Any]) -> bool:
    """Whether it is of a Sequential model, of a class that says not so."""
    layers = config.get("layers")
    return (
        not issubclass(cls, keras.Sequential)
        and "layers" not in _init_parameters(cls)
        and "input_layers" not in config
        and isinstance(layers, list)
        and all(isinstance(layer, dict) for layer in layers)
    )


def _has_a_constructor_between(cls: type) -> bool:
    """Whether another class of models comes between ours and Keras' own."""
    after = cls.__mro__[cls.__mro__.index(KerasDoors) :]
    first = next(one for one in after if "__init__" in vars(one))
    return first not in (keras.Model, keras.Sequential, _Functional)


def _init_parameters(cls: type) -> set[str]:
    """Whether a subclass has a `seed` argument of its own meaning."""
    if cls.__module__ == __name__:
        return set()
    return set(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]


def _default_name(prefix: str) -> str:
    """The name that the Keras class would have taken: they share a counter."""
    number = keras.backend.get_uid(prefix)
    return prefix if number == 1 else f"{prefix}_{number - 1}"
