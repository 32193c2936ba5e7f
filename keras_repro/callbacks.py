"""`ChecksumCallback`: records a run and compares it as it goes."""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from keras_repro import _backends
from keras_repro.checksums import (
    checksum_array,
    checksum_config,
    combine_checksums,
)
from keras_repro.comparison import (
    Mismatch,
    compare_identities,
    compare_records,
    with_note,
)
from keras_repro.environment import capture_environment
from keras_repro.runs import (
    DRIFTED,
    FINISHED,
    INTERRUPTED,
    Run,
    RunEnd,
    RunHeader,
    RunRecord,
    RunWriter,
    find_first_finished,
)
from keras_repro.variables import (
    VariablePlace,
    find_optimizers,
    iterate_variables,
)

_ON_DRIFT = ("warn", "raise", "stop", "ignore")
_MODEL_ROLES = ("weights", "random")
_UNKNOWN_DATA = (
    "the data given to `fit` are not known here (a pipeline, a generator or a "
    "plain keras.Model): if they were changed on purpose, give the runs a "
    "`name`"
)


class DriftWarning(UserWarning):
    """A run departs from an earlier one that it should equal.

    Args:
        message: What differs, in words.
        mismatch: The first mismatch.
    """

    def __init__(self, message: str, mismatch: Mismatch) -> None:
        super().__init__(message)
        self.mismatch = mismatch

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the mismatch when it travels between processes."""
        return type(self), (str(self), self.mismatch)


class DriftError(RuntimeError):
    """A run departs from an earlier one, with `on_drift="raise"`.

    Args:
        message: What differs, in words.
        mismatch: The first mismatch.
    """

    def __init__(self, message: str, mismatch: Mismatch) -> None:
        super().__init__(message)
        self.mismatch = mismatch

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the mismatch when it travels between processes."""
        return type(self), (str(self), self.mismatch)


class ChecksumCallback(keras.callbacks.Callback):
    """Records a checksum of every variable, and tells of drift at once.

    Each `fit` is one run: its initial state, then a record per epoch (or
    batch). As it goes, the run is compared with an earlier one that it should
    equal: the first finished run of the same identity (seed, configurations,
    data) in the file; with no file, that this process saw. So a change made
    on purpose starts a new baseline and raises no alarm. A run that nobody
    seeded has nothing to equal, unless a `name` or `reference` says so.

    Args:
        path: File to append the runs to, created if there is none. `None`
            keeps them in memory.
        every: `"epoch"`, `"batch"`, or a number of batches. The end of each
            epoch is recorded in any case.
        name: Says that all runs of this name must be equal. Then other data,
            another seed or another configuration is drift as well.
        reference: A `Run`, or the path of a file, to compare with instead. Of
            a file, the first finished run of the same identity, or else the
            first finished one.
        on_drift: `"warn"` gives a `DriftWarning`, `"raise"` raises a
            `DriftError`, `"stop"` stops the training after the batch that is
            under way, `"ignore"` only records. Each run is told of once, at
            its first mismatch.

    Raises:
        ValueError: If an argument has a value that is not listed here, or
            the file is not a run's file.
        TypeError: If an argument is of the wrong type.
        OSError: If the file cannot be written.

    Scope:
        Sees what Keras tracks: variables, optimizers, metrics and, with a
        `ReproducibleModel`, the random streams and the data given as arrays.
        Works with any `keras.Model`. The code of custom layers and losses is
        not part of a run's identity.

    Example:
        >>> import numpy as np
        >>> keras.utils.set_random_seed(1)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> checks = ChecksumCallback()
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> _ = model.fit(x, y, verbose=0, callbacks=[checks])
        >>> len(checks.run.records), checks.run.finished
        (2, True)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: str | int = "epoch",
        name: str | None = None,
        reference: Run | str | os.PathLike[str] | None = None,
        on_drift: str = "warn",
    ) -> None:
        super().__init__()
        self.every = _check_every(every)
        self.on_drift = _check_on_drift(on_drift)
        self.name = _check_name(name)
        self._reference = _check_reference(reference)
        self._writer = None if path is None else RunWriter(path)
        # Batches between two records; 0 records the epochs alone.
        self._steps = _count_steps(self.every)
        # Keras may then go on handing out batches without waiting for us.
        self.async_safe = self.every == "epoch"
        self._recording: _Recording | None = None
        self._compared_with: Run | None = None
        self._moments: dict[tuple[int | None, int | None], RunRecord] = {}
        self._previous: str | None = None
        self._mismatch: Mismatch | None = None

    @property
    def run(self) -> Run | None:
        """The run being recorded, or the last one; `None` before any."""
        return None if self._recording is None else self._recording.run()

    @property
    def mismatch(self) -> Mismatch | None:
        """The first mismatch of the present or last run, if there was one."""
        return self._mismatch

    @property
    def compared_with(self) -> Run | None:
        """The run that the present or last one is compared with."""
        return self._compared_with

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start a run: its header and its initial state."""
        del logs
        self.close(INTERRUPTED)
        self._epoch: int | None = None
        self._last_step = -1
        self._mismatch = self._previous = None
        model = self.model
        header = _make_header(model, self.every, self.name)
        reference = self._find_reference(header)
        self._compared_with = reference
        records = () if reference is None else reference.records
        self._moments = {(one.epoch, one.batch): one for one in records}
        self._recording = _Recording(header, self._writer)
        if reference is not None and self._must_be_identical:
            self._tell(compare_identities(reference.header, header))
        self._record(model, None, None, {})

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Note which epoch the batches belong to."""
        del logs
        self._epoch = epoch
        self._last_step = -1

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Record the batch, if it is the turn of one."""
        if not self._steps:
            return
        before, self._last_step = self._last_step, batch
        if (batch + 1) // self._steps > (before + 1) // self._steps:
            self._record(self.model, self._epoch, batch, logs or {})

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Record the epoch."""
        self._record(self.model, epoch, None, logs or {})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run."""
        del logs
        stopped = self._mismatch is not None and self.on_drift == "stop"
        self.close(DRIFTED if stopped else FINISHED)

    def on_train_abort(self, exception: BaseException) -> None:
        """End the run after an exception, of which Keras tells no callback.

        A `ReproducibleModel` calls it; with another model the run is ended
        when the next one begins, or by `close`.

        Args:
            exception: What ended the training.
        """
        drifted = isinstance(exception, (DriftError, DriftWarning))
        self.close(DRIFTED if drifted else INTERRUPTED)

    def close(self, status: str = INTERRUPTED) -> None:
        """End the run if one is open.

        Args:
            status: How it ended.
        """
        if self._recording is None or not self._recording.end_with(status):
            return
        run = self._recording.run()
        if self._writer is None and run.finished:
            _MEMORY.keep(run)

    @property
    def _must_be_identical(self) -> bool:
        return self.name is not None or self._reference is not None

    def _find_reference(self, header: RunHeader) -> Run | None:
        if isinstance(self._reference, Run):
            return self._reference
        if self._reference is not None:
            return _find_in_file(self._reference, header)
        if self.name is None and header.seed is None:
            return None
        if self._writer is None:
            return _MEMORY.find(header)
        return find_first_finished(
            self._writer.path, lambda other: _is_same(other, header)
        )

    def _record(
        self,
        model: Any,
        epoch: int | None,
        batch: int | None,
        logs: Mapping[str, Any],
    ) -> None:
        if self._recording is None:
            return
        record = self._recording.add(model, epoch, batch, logs)
        reference = self._moments.get((epoch, batch))
        if reference is None or self._mismatch is not None:
            return
        self._tell(compare_records(reference, record, previous=self._previous))
        self._previous = record.moment

    def _tell(self, mismatch: Mismatch | None) -> None:
        """Tell of a mismatch, as `on_drift` says."""
        if mismatch is None or self._mismatch is not None:
            return
        if self._recording is None or self._compared_with is None:
            return
        header, reference = self._recording.header, self._compared_with
        for note in _explain(header, reference.header):
            mismatch = with_note(mismatch, note)
        self._mismatch = mismatch
        message = (
            f"This run (seed {header.seed}) should equal run "
            f"{reference.run_id[:8]} of {reference.header.started}, and does "
            f"not.\n{mismatch}"
        )
        if self.on_drift == "raise":
            self.close(DRIFTED)
            raise DriftError(message, mismatch)
        if self.on_drift == "stop":
            self.model.stop_training = True
        if self.on_drift != "ignore":
            warnings.warn(DriftWarning(message, mismatch), stacklevel=3)


class _Recording:
    """One run while it is being recorded."""

    def __init__(self, header: RunHeader, writer: RunWriter | None) -> None:
        self.header = header
        self._writer = writer
        self._records: list[RunRecord] = []
        self._end: RunEnd | None = None
        self._write(header)

    def run(self) -> Run:
        return Run(self.header, tuple(self._records), self._end)

    def add(
        self,
        model: Any,
        epoch: int | None,
        batch: int | None,
        logs: Mapping[str, Any],
    ) -> RunRecord:
        variables = _checksum_variables(iterate_variables(model))
        of_model = [
            checksum for role, _, checksum in variables if role in _MODEL_ROLES
        ]
        by_role: dict[str, dict[str, str]] = {}
        for role, place, checksum in variables:
            by_role.setdefault(role, {})[place] = checksum
        trial = getattr(model, "_repro", None)
        record = RunRecord(
            run_id=self.header.run_id,
            index=len(self._records),
            epoch=epoch,
            batch=batch,
            model=combine_checksums(of_model),
            roles={
                role: combine_checksums(group.values())
                for role, group in by_role.items()
            },
            variables=by_role,
            streams=None if trial is None else trial.random_checksum(),
            metrics=dict(_read_metrics(logs)),
        )
        self._write(record)
        self._records.append(record)
        return record

    def end_with(self, status: str) -> bool:
        """Write the end; false if it was written before."""
        if self._end is not None:
            return False
        self._end = RunEnd(
            run_id=self.header.run_id,
            status=status,
            ended=_now(),
            num_records=len(self._records),
        )
        self._write(self._end)
        return True

    def _write(self, entry: RunHeader | RunRecord | RunEnd) -> None:
        if self._writer is not None:
            self._writer.write(entry)


class _Memory:
    """The first finished run of each name and identity in this process."""

    def __init__(self, limit: int = 256) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._limit = limit

    def keep(self, run: Run) -> None:
        for key in _memory_keys(run.header):
            self._runs.setdefault(key, run)
        while len(self._runs) > self._limit:
            self._runs.popitem(last=False)

    def find(self, header: RunHeader) -> Run | None:
        return self._runs.get(_memory_keys(header)[-1])

    def clear(self) -> None:
        self._runs.clear()


_MEMORY = _Memory()


def _memory_keys(header: RunHeader) -> list[str]:
    keys = ["identity " + json.dumps(dict(header.identity), sort_keys=True)]
    return keys if header.name is None else [*keys, "name " + header.name]


def _is_same(other: RunHeader, header: RunHeader) -> bool:
    """Whether the two must be equal: by name if there is one."""
    if header.name is not None:
        return other.name == header.name
    return dict(other.identity) == dict(header.identity)


def _find_in_file(path: Path, header: RunHeader) -> Run | None:
    def is_same(other: RunHeader) -> bool:
        return dict(other.identity) == dict(header.identity)

    found = find_first_finished(path, is_same)
    return found or find_first_finished(path, lambda _: True)


# --- what a run is -------------------------------------------------------


def _make_header(model: Any, every: str | int, name: str | None) -> RunHeader:
    places = iterate_variables(model)
    identity, notes = _identify(model, places)
    return RunHeader(
        run_id=uuid.uuid4().hex,
        started=_now(),
        identity=identity,
        every=every,
        name=name,
        environment=capture_environment(),
        model={"class": type(model).__name__, "config": identity["model"]},
        variables=tuple(_outline(place) for place in places),
        notes=tuple(notes),
    )


def _identify(
    model: Any, places: list[VariablePlace]
) -> tuple[dict[str, Any], list[str]]:
    """Seed, configurations and data; and what cannot be rewound."""
    trial = getattr(model, "_repro", None)
    seed, data, notes, epochs = _backends.get_global_seed(), None, [], 0
    if trial is not None:
        seed, epochs = trial.seed, trial.epochs_trained
        notes = list(trial.data_notes)
        try:
            data = trial.data_identity
        except TypeError as error:
            notes.append(f"The data have no checksum. {error}")
    config = _read_config(model)
    identity = {
        "seed": seed,
        "model": _checksum_model(model, config, places),
        "compile": _checksum_compile(model, config),
        "data": data,
        "continues": _describe_continuation(model, epochs, places),
    }
    return identity, notes


def _describe_continuation(
    model: Any, epochs: int, places: list[VariablePlace]
) -> dict[str, Any] | None:
    """Where training goes on from, if it does not begin here."""
    iterations = [
        int(keras.ops.convert_to_numpy(optimizer.iterations.value))
        for optimizer in find_optimizers(model).values()
    ]
    if not epochs and not any(iterations):
        return None
    start = [
        checksum
        for role, _, checksum in _checksum_variables(places)
        if role != "metrics"
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


def _checksum_compile(model: Any, config: Any) -> str:
    """Checksum of how it was compiled, and of the optimizers as they are."""
    optimizers = list(find_optimizers(model).values())
    serialize = keras.saving.serialize_keras_object
    compiled = [
        _try_quietly(model.get_compile_config),
        *(_try_quietly(serialize, one) for one in optimizers),
    ]
    return checksum_config(compiled, context=config)


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


def _checksum_variables(
    places: list[VariablePlace],
) -> list[tuple[str, str, str]]:
    """Role, place and checksum of each variable."""
    read = keras.ops.convert_to_numpy
    return [
        (one.role, one.place, checksum_array(read(one.variable.value)))
        for one in places
    ]


def _read_metrics(logs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The metrics that are single numbers."""
    for name, value in logs.items():
        try:
            yield str(name), float(value)
        except (TypeError, ValueError):
            continue


def _explain(header: RunHeader, reference: RunHeader) -> Iterator[str]:
    """What else differs between two runs, for the person who is told."""
    ours, theirs = _flatten(header.environment), _flatten(reference.environment)
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            yield (
                f"environment: {key} is {ours.get(key)}, was {theirs.get(key)}"
            )
    if header.identity.get("data") is None:
        yield _UNKNOWN_DATA
    yield from (f"cannot be rewound: {note}" for note in header.notes)


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            result.update(_flatten(value, f"{prefix}{key}."))
        else:
            result[prefix + key] = value
    return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# --- arguments -----------------------------------------------------------


def _check_every(every: object) -> str | int:
    if every in ("epoch", "batch"):
        return str(every)
    if isinstance(every, int) and not isinstance(every, bool) and every > 0:
        return every
    raise ValueError(
        '`every` must be "epoch", "batch" or a positive number of batches. '
        f"Received: {every!r}. Leave it out to record each epoch."
    )


def _count_steps(every: str | int) -> int:
    if isinstance(every, str):
        return 1 if every == "batch" else 0
    return every


def _check_on_drift(on_drift: object) -> str:
    if on_drift in _ON_DRIFT:
        return str(on_drift)
    raise ValueError(
        f"`on_drift` must be one of {', '.join(map(repr, _ON_DRIFT))}. "
        f"Received: {on_drift!r}. Leave it out to be warned."
    )


def _check_name(name: object) -> str | None:
    if name is None or isinstance(name, str):
        return name
    raise TypeError(
        f"`name` must be a str or None. Received: {name!r} (of type "
        f'{type(name).__name__}). Pass, for example, "alpha=0.4".'
    )


def _check_reference(reference: object) -> Run | Path | None:
    if reference is None or isinstance(reference, Run):
        return reference
    if not isinstance(reference, (str, os.PathLike)):
        raise TypeError(
            "`reference` must be a Run or the path of a run's file. Received: "
            f"{reference!r} (of type {type(reference).__name__}). Load a run "
            "with `load_run(path)`."
        )
    path = Path(reference)
    if not path.exists():
        raise FileNotFoundError(
            "`reference` must be a run's file that exists. Received: "
            f"'{path}', where there is none. Record a run first."
        )
    if find_first_finished(path, lambda _: True) is None:
        raise ValueError(
            "`reference` must hold a finished run. Received: "
            f"'{path}', which has none. Record a run to its end first."
        )
    return path
