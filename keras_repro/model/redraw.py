"""Draw the start that a seed gives, for a model that already exists.

Each layer is made once more from its own configuration, under the seeded
streams of the trial: Keras' own code draws, in the order in which a fresh
process would, and only the values are taken over. A layer that cannot be made
from its configuration draws from a stream of its own, which is a function of
the seed and of the layer's place, so that it moves no other layer.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.backends import random_streams
from keras_repro.backends.fresh_layers import (
    build_like,
    copy_unbuilt,
    enable_lora_like,
    fresh_config,
    is_adapted,
    quantize_like,
    recorded_arguments,
    recorded_calls,
)
from keras_repro.backends.keras_internals import (
    flatten_layers,
    names_kept,
    own_generators,
)
from keras_repro.backends.variables import (
    new_variables_noted,
    read_variable,
)
from keras_repro.model.replay import Made, Recipe, Stream, find_recipe

# A layer, and where it stands among the layers of the model.
Unit = tuple[str, Any]


@dataclasses.dataclass(frozen=True)
class Failure:
    """What no way could draw."""

    layer: Any  # Or a model, for what it holds beside its layers.
    reasons: dict[str, str]  # Why, by way.
    keys: set[int]  # `id`s of the variables that are not drawn.


@dataclasses.dataclass
class Draw:
    """What a seed gives a model, by `id` of the variable."""

    values: dict[int, npt.NDArray[Any]] = dataclasses.field(
        default_factory=dict
    )
    # What made the layer's own values, so that they can be made again; `None`
    # where that cannot be known.
    initializers: dict[int, Any] = dataclasses.field(default_factory=dict)
    # The layers of those that a quantization made of others.
    quantized: dict[int, Any] = dataclasses.field(default_factory=dict)
    failed: list[Failure] = dataclasses.field(default_factory=list)
    # Where the streams of the trial stand after the drawing.
    streams: Any = None


def drawing_units(model: Any) -> list[Any]:
    """The layers that are drawn as a whole: all but models within models."""
    return [unit for _, unit in _placed_units(model)]


def _placed_units(model: Any) -> list[Unit]:
    """Those layers with their places, in which inputs do not count."""
    units: dict[int, Unit] = {}
    layers = [
        one
        for one in model.layers
        if not isinstance(one, keras.layers.InputLayer)
    ]
    for index, layer in enumerate(layers):
        inner = (
            _placed_units(layer)
            if isinstance(layer, keras.Model)
            else [("", layer)]
        )
        for place, unit in inner:
            units.setdefault(id(unit), (f"{index}.{place}", unit))
    return list(units.values())


def _placed_models(model: Any, place: str = "") -> Iterator[Unit]:
    """The model and the models within it, with their places."""
    yield place, model
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.Model):
            yield from _placed_models(layer, f"{place}{index}.")


def _held_directly(model: Any) -> list[Any]:
    """The variables of a model that belong to none of its layers."""
    inner = {id(v) for layer in model.layers for v in layer.variables}
    return [v for v in model.variables if id(v) not in inner]


# --- one layer ---------------------------------------------------------------


def _by_config(layer: Any) -> Any:
    return type(layer).from_config(fresh_config(layer))


def _by_arguments(layer: Any) -> Any:
    return type(layer)(**recorded_arguments(layer))


_CONFIG = "from its configuration"
_WAYS: dict[str, Callable[[Any], Any]] = {
    _CONFIG: _by_config,
    "by its constructor": _by_arguments,
    "as a copy": copy_unbuilt,
    # Its `build` may ask whether it has them.
    "as a copy with `None` for each weight": lambda one: copy_unbuilt(
        one, blank=None
    ),
}
# A way, and which of the calls that may have built the layer.
Attempt = tuple[str, int]
_FIRST: Attempt = (_CONFIG, 0)
_LONGEST = 300  # Of a reason.


def _list_attempts(layer: Any) -> list[Attempt]:
    count = len(recorded_calls(layer))
    return [(name, index) for name in _WAYS for index in range(count)]


def _build(twin: Any, layer: Any, attempt: Attempt) -> None:
    build_like(twin, layer, recorded_calls(layer)[attempt[1]])


def _say(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class _Twins:
    """Layers that are made once more in one stream, and what they draw."""

    def __init__(self, purpose: str, seed: int) -> None:
        self.purpose, self._seed = purpose, seed
        self._initializers: dict[int, Any] = {}
        self._made: dict[int, Made] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(random_streams.keep_rng(self._seed))
        self._stack.enter_context(names_kept())
        # What Keras had to say it said when the layer itself was made.
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        self._stack.enter_context(new_variables_noted(self._note))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _note(self, variable: Any, initializer: Any) -> None:
        self._initializers[id(variable)] = initializer

    def finish(self, draw: Draw, twin: Any, layer: Any) -> None:
        """Do with a twin what was done with its layer; take its values."""
        quantized: set[int] = set()
        if is_adapted(layer):
            enable_lora_like(twin, layer)
            # Kept, since a new variable may take the address of a dropped one.
            before = twin.variables
            quantize_like(twin, layer)
            quantized = set(map(id, twin.variables)) - set(map(id, before))
        own = [(tuple(v.shape), v.dtype) for v in layer.variables]
        made = [(tuple(v.shape), v.dtype) for v in twin.variables]
        if own != made:
            msg = f"it has the variables {own}, and what was made has {made}"
            raise ValueError(msg)
        seeds = _pair_seeds(twin, layer)
        for one, other in zip(layer.variables, twin.variables, strict=True):
            key = id(one)
            if self.purpose and key in draw.values:
                continue  # A part that is drawn with the others.
            initializer = self._initializers.get(id(other))
            value = draw.values[key] = read_variable(other)
            self._made[key] = Made(other, initializer, value)
            draw.initializers[key] = _with_seed(initializer, seeds)
            if id(other) in quantized:
                draw.quantized[key] = layer

    def end(self) -> Stream:
        """How all was made, and where the generators stand now."""
        end = random_streams.capture_python()
        return Stream(self.purpose, self._seed, self._made, end)


class Drawer:
    """Draws starts of one model, and remembers what was found on the way."""

    # That is which layers are drawn alone, and how; and, once two seeds were
    # drawn, what to draw without making the layers again.

    def __init__(self) -> None:
        # Of what the model itself makes, by `id` of the variable, with that:
        # another may take the place of one that is gone. `None` for a model
        # that was made before anybody took note.
        self.initializers: dict[int, tuple[weakref.ref[Any], Any]] | None = {}
        self._structure: list[Any] = []
        self._alone: dict[int, dict[str, str]] = {}
        self._chosen: dict[int, Attempt] = {}
        self._recipe: Recipe | None = None
        self._found = Draw()  # With the recipe; of another seed it is alike.
        self._is_proven, self._may_be_proven = False, True

    def note(self, variable: Any, initializer: Any) -> None:
        """Note what made a variable that the model holds directly."""
        if self.initializers is not None:
            self.initializers[id(variable)] = weakref.ref(variable), initializer

    def draw(self, model: Any, seed: int) -> Draw:
        """Draw the weights and generator states that `seed` gives."""
        units = _placed_units(model)
        self._follow(units)
        if self._is_proven and self._recipe is not None:
            draw = Draw(
                initializers=dict(self._found.initializers),
                quantized=dict(self._found.quantized),
            )
            draw.values, draw.streams = self._recipe.replay(seed)
        else:
            draw, streams = self._draw_layers(units, seed)
            if self._may_be_proven and not draw.failed:
                self._prove(seed, draw, streams)
        for place, one in _placed_models(model):
            self._draw_directly(draw, seed, place, one)
        return draw

    def doubt(
        self,
        model: Any,
        seed: int,
        draw: Draw,
        start: dict[int, npt.NDArray[Any]],
    ) -> None:
        """Find what draws although its initializer has no seed."""
        # Such a start differs from what the seed gives, as one that somebody
        # put there does; but with another seed the drawing differs too.
        doubtful = [
            key
            for key, value in draw.values.items()
            if key in start
            and _is_seedless(draw.initializers[key])
            and _looks_random(value)
            and value.tobytes() != start[key].tobytes()
        ]
        if doubtful:
            other = self.draw(model, random_streams.derive_seed(seed, "other"))
            for key in doubtful:
                if other.values[key].tobytes() != draw.values[key].tobytes():
                    draw.initializers[key] = None

    def _follow(self, units: list[Unit]) -> None:
        """Forget what was remembered of other layers."""
        structure = [
            (place, unit, tuple(unit.variables)) for place, unit in units
        ]
        if _is_one(structure, self._structure):
            return
        self._structure = structure
        self._alone.clear()
        self._chosen.clear()
        self._recipe, self._is_proven, self._may_be_proven = None, False, True
        with _Twins("", 0):
            for _, unit in units:
                try:
                    _by_config(unit)
                except Exception as error:  # noqa: BLE001 - a user's class
                    self._alone[id(unit)] = {_CONFIG: _say(error)}

    def _prove(self, seed: int, draw: Draw, streams: list[Stream]) -> None:
        """Find a recipe; that of another seed must be the same one."""
        found, before = find_recipe(seed, streams), self._recipe
        self._recipe, self._found = found, draw
        if found is None:
            self._may_be_proven = False
        elif before is not None and before.seed != seed:
            self._is_proven = self._may_be_proven = found.agrees(
                before
            ) and found.gives(draw.values, draw.streams)

    def _draw_layers(
        self, units: list[Unit], seed: int
    ) -> tuple[Draw, list[Stream]]:
        while True:
            draw = Draw()
            together = [one for _, one in units if id(one) not in self._alone]
            streams, problems = self._draw_together(draw, together, seed)
            if not problems:
                break
            # Once more, as if these had not been tried.
            self._alone |= problems
        for place, unit in units:
            if id(unit) in self._alone and unit.variables:
                self._draw_alone(draw, streams, unit, seed, place)
        return draw, streams

    def _draw_together(
        self, draw: Draw, layers: list[Any], seed: int
    ) -> tuple[list[Stream], dict[int, dict[str, str]]]:
        """Draw layers in one stream; say which of them cannot be."""
        problems: dict[int, dict[str, str]] = {}
        with _Twins("", seed) as stream:
            twins = [(_by_config(layer), layer) for layer in layers]
            build = functools.partial(_build, attempt=_FIRST)
            # As in a fresh model all is built before anything is adapted.
            for step in (build, functools.partial(stream.finish, draw)):
                for twin, layer in twins:
                    try:
                        step(twin, layer)
                    except Exception as error:  # noqa: BLE001 - a user's class
                        problems.setdefault(id(layer), {_CONFIG: _say(error)})
            streams = [stream.end()]
            draw.streams = random_streams.finish_start()
        return streams, problems

    def _draw_alone(
        self,
        draw: Draw,
        streams: list[Stream],
        layer: Any,
        seed: int,
        place: str,
    ) -> None:
        """Draw a layer in a stream of its own, by the first way that can."""
        reasons = dict(self._alone.get(id(layer), {}))
        chosen = self._chosen.get(id(layer))
        purpose = f"layer/{place}"
        own_seed = random_streams.derive_seed(seed, purpose)
        for attempt in [chosen] if chosen else _list_attempts(layer):
            name = attempt[0]
            if attempt == _FIRST and name in reasons:
                continue
            with _Twins(purpose, own_seed) as stream:
                try:
                    twin = _WAYS[name](layer)
                    _build(twin, layer, attempt)
                    stream.finish(draw, twin, layer)
                except Exception as error:  # noqa: BLE001 - a user's class
                    reasons.setdefault(name, _say(error))
                    continue
                streams.append(stream.end())
                self._chosen[id(layer)] = attempt
                return
        keys = {id(v) for v in layer.variables} - set(draw.values)
        draw.failed.append(Failure(layer, reasons, keys))

    def _draw_directly(
        self, draw: Draw, seed: int, place: str, model: Any
    ) -> None:
        """Draw what a model holds beside its layers."""
        held = {id(v): v for v in _held_directly(model)}
        if not held:
            return
        known = None if place else self.initializers
        own_seed = random_streams.derive_seed(seed, f"model/{place}")
        with random_streams.keep_rng(own_seed):
            for generator in own_generators(model):
                fresh = type(generator).from_config(generator.get_config())
                if held.pop(id(generator.state), None) is not None:
                    value = read_variable(fresh.state)
                    draw.values[id(generator.state)] = value
                    draw.initializers[id(generator.state)] = None
            for key, variable in held.items():
                made, initializer = (known or {}).get(key, (None, None))
                is_its = made is not None and made() is variable
                if is_its and callable(initializer):
                    draw.values[key] = _make_value(
                        _remake(initializer), variable
                    )
                    draw.initializers[key] = initializer
        left = held.keys() - draw.values.keys()
        if left and place:
            self._draw_alone(draw, [], model, seed, place)
        elif left and known is None:
            reason = {_CONFIG: "what made its own weights was not noted"}
            draw.failed.append(Failure(model, reason, set(left)))


def _is_one(a: Any, b: Any) -> bool:
    """Whether two structures hold the same objects."""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_is_one, a, b))
    return a is b or (isinstance(a, str) and a == b)


def _remake(initializer: Any) -> Any:
    """With a new seed, unless a seed was given."""
    if isinstance(initializer, keras.initializers.Initializer):
        return type(initializer).from_config(initializer.get_config())
    return initializer


def _make_value(initializer: Any, variable: Any) -> npt.NDArray[Any]:
    made = initializer(tuple(variable.shape), dtype=variable.dtype)
    value: npt.NDArray[Any] = keras.ops.convert_to_numpy(made)
    return value


def _pair_seeds(twin: Any, layer: Any) -> dict[int, int]:
    """The seeds of a twin's initializers, each with the layer's own."""
    theirs, ours = _kept_seeds(twin), _kept_seeds(layer)
    return {seed: ours[name] for name, seed in theirs.items() if name in ours}


def _kept_seeds(layer: Any) -> dict[tuple[int, str], int]:
    return {
        (number, name): value.seed
        for number, part in enumerate(flatten_layers(layer))
        for name, value in vars(part).items()
        if isinstance(value, keras.initializers.Initializer)
        and isinstance(getattr(value, "seed", None), int)
    }


def _with_seed(initializer: Any, seeds: dict[int, int]) -> Any:
    """The initializer that made the layer's own value, if it can be known."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return None
    seed = getattr(initializer, "seed", None)
    if seed is None:
        return initializer
    if not isinstance(seed, int) or seed not in seeds:
        return None
    config = {**initializer.get_config(), "seed": seeds[seed]}
    return type(initializer).from_config(config)


def classify(
    model: Any,
    start: dict[int, npt.NDArray[Any]],
    draw: Draw,
    foreign: set[int],
) -> dict[int, str]:
    """Tell the starts that were drawn from those that somebody put there."""
    # A start that the layer's own initializer gives was drawn; another was put
    # there, and no seed may wipe it out. Where the layer keeps no initializer
    # for it nothing can be proven: then what looks random counts as drawn, but
    # only as likely so if the layer came to the model already built. What a
    # quantization made of drawn weights is what it makes of those of the seed.
    found: dict[int, str] = {}
    for unit in [*drawing_units(model), model]:
        for variable in unit.variables:
            key = id(variable)
            if key not in start or key not in draw.values or key in found:
                continue
            source = _find_source(variable, start[key], draw)
            if source == "likely" and id(unit) not in foreign:
                source = "drawn"
            if source:
                found[key] = source
    return found


def _find_source(
    variable: Any, start: npt.NDArray[Any], draw: Draw
) -> str | None:
    """`drawn` if that is proven, `likely` if nothing tells against it."""
    key = id(variable)
    drawn, initializer = draw.values[key], draw.initializers[key]
    if key in draw.quantized:
        return "drawn" if drawn.tobytes() == start.tobytes() else None
    if not isinstance(initializer, keras.initializers.Initializer):
        return "likely" if _looks_random(drawn) else None
    if _is_seedless(initializer):
        return None  # It draws nothing.
    made = _make_value(initializer, variable)
    return "drawn" if made.tobytes() == start.tobytes() else None


def _is_seedless(initializer: Any) -> bool:
    return (
        isinstance(initializer, keras.initializers.Initializer)
        and getattr(initializer, "seed", None) is None
    )


def _looks_random(value: npt.NDArray[Any]) -> bool:
    return value.size == 1 or bool(np.any(value != value.flat[:1]))


def list_undrawn(
    draw: Draw, start: dict[int, npt.NDArray[Any]], sources: dict[int, str]
) -> list[Failure]:
    """What a seed should draw and cannot."""
    # Not what somebody put there, nor what begins with zeros or ones.
    return [
        one
        for one in draw.failed
        if any(
            sources.get(key) != "given" and not _is_plain(start[key])
            for key in one.keys & start.keys()
        )
    ]


def list_unproven(draw: Draw, sources: dict[int, str]) -> list[Failure]:
    """Quantized weights of which nobody knows whether they were drawn."""
    layers = {
        id(layer): layer
        for key, layer in draw.quantized.items()
        if not sources.get(key) and not _is_plain(draw.values[key])
    }
    why = {"quantized": "whether its weights were drawn is not known"}
    return [Failure(layer, why, set()) for layer in layers.values()]


def say_undrawn(undrawn: list[Failure]) -> str:
    """Which layers cannot be drawn, and why by no way."""
    return "; ".join(
        f"{one.layer.name!r} (of class {type(one.layer).__name__}), "
        + ", ".join(f"{way}: {why}" for way, why in one.reasons.items())
        for one in undrawn
    )


def _is_plain(value: npt.NDArray[Any]) -> bool:
    return bool(np.all(value == 0)) or bool(np.all(value == 1))
