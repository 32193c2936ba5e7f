"""What a run is, told before its first step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_repro.arrays.checksums import (
    checksum_array,
    checksum_config,
    combine_checksums,
    describe_config,
)
from keras_repro.backends.active import get_backend
from keras_repro.backends.data_traps import has_one_order
from keras_repro.backends.keras_internals import (
    get_global_seed,
    tensorflow_unloaded,
)
from keras_repro.backends.variables import (
    VariablePlace,
    count_steps,
    find_optimizers,
)
from keras_repro.environment.capture import capture_environment
from keras_repro.model.data_order import DataOutline
from keras_repro.model.stored_trial import ALL
from keras_repro.recording.recorder import now
from keras_repro.runs.run import RunHeader


def make_header(
    model: Any,
    places: list[VariablePlace],
    *,
    every: str | int,
    name: str | None,
    data: DataOutline,
    epochs: int,
    run_id: str,
    snapshots: str | None = None,
) -> RunHeader:
    """Tell what a run is."""
    trial = getattr(model, "_repro", None)
    config, compiled = _read_configs(model)
    identity = _identify(model, config, compiled, places, data)
    return RunHeader(
        run_id=run_id,
        started=now(),
        identity=identity,
        every=every,
        name=name,
        environment=capture_environment(),
        model={"class": type(model).__name__, "config": identity["model"]},
        compile=_describe_compile(model, compiled),
        data=data.to_json(),
        variables=tuple(_outline(place) for place in places),
        notes=tuple(
            _note_order(data, epochs) if trial is None else trial.data.notes
        ),
        snapshots=snapshots,
    )


def _identify(
    model: Any,
    config: Any,
    compiled: Any,
    places: list[VariablePlace],
    data: DataOutline,
) -> dict[str, Any]:
    """What makes two runs comparable; what was fed is not known yet."""
    trial = getattr(model, "_repro", None)
    identity = {
        "seed": get_global_seed() if trial is None else trial.seeds.seed,
        "model": _checksum_model(model, config, places),
        "compile": checksum_config(compiled, context=config),
        "data": None,
        "fit": dict(data.arguments),
        "continues": _describe_continuation(model, trial, places),
    }
    if trial is not None and trial.seeds.vary != ALL:
        identity["vary"] = trial.seeds.vary
    layout = get_backend().describe_layout(model)
    if layout is not None:
        identity["layout"] = layout
    return identity


def _note_order(data: DataOutline, epochs: int) -> Iterator[str]:
    """What a plain model's epochs are given alike; a trial knows of its own."""
    given = data.arguments
    epochs -= given.get("initial_epoch", 0)
    # Without a word of what `fit` was given it shuffles arrays, as usual.
    if epochs > 1 and given.get("shuffle", True) and has_one_order():
        yield (
            "where `fit` shuffles arrays, it feeds every epoch in the same "
            "order: Keras does so on TensorFlow once a global seed is set. A "
            "ReproducibleModel shuffles each epoch anew."
        )


def identify_model(model: Any) -> dict[str, str]:
    """Checksums of what a model is and how it was compiled, built or not."""
    config, compiled = _read_configs(model)
    return {
        "model": checksum_config([type(model).__name__, config]),
        "compile": checksum_config(compiled, context=config),
    }


def describe_model(model: Any) -> dict[str, Any]:
    """What a built model is, whatever its seed, as plain values."""
    config, compiled = _read_configs(model)
    state = model.initial_state
    return {
        "class": type(model).__name__,
        "layers": describe_config(config),
        "compile": _describe_compile(model, compiled),
        "weights": {
            entry.place: checksum_array(state.value_of(index))
            for index, entry in enumerate(state.entries)
            if entry.role == "weights"
            and entry.source not in ("drawn", "likely")
        },
        "checksums": {
            "config": checksum_config(config),
            "compile": checksum_config(compiled, context=config),
        },
    }


def _describe_continuation(
    model: Any, trial: Any, places: list[VariablePlace]
) -> dict[str, Any] | None:
    """Where training goes on from, if it does not begin here."""
    epochs = 0 if trial is None else trial.progress.epochs
    iterations = list(map(count_steps, find_optimizers(model).values()))
    if not epochs and not any(iterations):
        return None
    view = get_backend().view
    start = [
        checksum_array(view(place.variable))
        for place in places
        if place.role != "metrics"
    ]
    return {
        "epochs": epochs,
        "iterations": iterations,
        "start": combine_checksums(start),
    }


def _checksum_model(
    model: Any, config: Any, places: list[VariablePlace]
) -> str:
    outline = [
        [place.place, list(place.variable.shape)]
        for place in places
        if place.role == "weights"
    ]
    return checksum_config([type(model).__name__, config, outline])


def _serialize_optimizers(model: Any) -> dict[str, Any]:
    serialize = keras.saving.serialize_keras_object
    return {
        name: _try_quietly(serialize, optimizer)
        for name, optimizer in find_optimizers(model).items()
    }


def _describe_compile(model: Any, compiled: Any) -> dict[str, Any]:
    """Optimizers, loss and metrics as plain values that a person can read."""
    described = describe_config(compiled["compile"])
    return {
        **(described if isinstance(described, dict) else {}),
        **describe_config(compiled["optimizers"]),
        "jit_compile": getattr(model, "jit_compile", None),
        "run_eagerly": getattr(model, "run_eagerly", None),
    }


def _read_configs(model: Any) -> tuple[Any, dict[str, Any]]:
    """The configuration of a model, and how it was compiled."""
    with tensorflow_unloaded():
        compiled = {
            "compile": _try_quietly(model.get_compile_config),
            "optimizers": _serialize_optimizers(model),
        }
        return _read_config(model), compiled


def _read_config(model: Any) -> Any:
    config = _try_quietly(model.get_config)
    if isinstance(config, Mapping) and hasattr(model, "_repro"):
        # The trial's seed is part of the identity already.
        return {key: config[key] for key in config if key != "seed"}
    return config


def _try_quietly(function: Any, *args: Any) -> Any:
    """Call it; `None` where a user's class has no configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args)
        except Exception:  # noqa: BLE001 - a user's code may raise anything
            return None


def _outline(place: VariablePlace) -> dict[str, Any]:
    return {
        "role": place.role,
        "place": place.place,
        "shape": list(place.variable.shape),
        "dtype": str(place.variable.dtype),
    }
