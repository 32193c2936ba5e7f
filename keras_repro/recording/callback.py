"""`ChecksumCallback`: records a run and compares it as it goes."""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.backends.random_streams import RngState, capture_rng
from keras_repro.backends.variables import VariablePlace
from keras_repro.common.checks import (
    check_choice,
    check_every,
    check_flag,
    check_kind,
    check_name,
    check_path,
    wrong_value,
)
from keras_repro.common.json import make_visible
from keras_repro.common.text import describe, quote
from keras_repro.common.whose_code import warn_user
from keras_repro.environment.differences import find_differences
from keras_repro.model.data_order import DataOutline, outline_data
from keras_repro.recording.header import make_header
from keras_repro.recording.recorder import (
    Beside,
    Fed,
    ModelReader,
    Moment,
    Recording,
    RunLog,
    now,
)
from keras_repro.runs.file import (
    RunWriter,
    decode_runs,
    find_first_finished,
    load_run,
)
from keras_repro.runs.mismatch import (
    Mismatch,
    compare_identities,
    compare_records,
    with_note,
)
from keras_repro.runs.run import (
    DRIFTED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    STATUSES,
    Run,
    RunHeader,
    RunRecord,
    RunResume,
)
from keras_repro.runs.snapshots import snapshot_folder

_ON_DRIFT = ("warn", "raise", "stop", "ignore")
_ON_ERROR = ("warn", "raise")
_SNAPSHOTS = ("epoch",)
# What a training that goes on counts on from.
_COUNTS = (
    "_epoch",
    "_num_epochs",
    "_num_steps",
    "_last_batch",
    "_last_recorded",
)
# Bytes: so small arrays are read in less time than a thread is worth.
_SMALL_DATA = 1 << 26
# How many batches, and how many seconds of them, are recorded together.
_MAX_WAITING = 64
_MAX_WAIT = 0.25
_MAX_WAITING_BYTES = 1 << 24
_UNKNOWN_DATA = (
    "the data given to `fit` are not known here (a pipeline, a generator or a "
    "plain keras.Model)"
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
        snapshots: `"epoch"` also keeps the weights themselves, of the initial
            state and of each epoch, in a folder beside the file, so that a
            mismatch can be measured in units in the last place.
        on_error: What happens where the file can no longer be written:
            `"warn"` says so and the training goes on, `"raise"` raises.
        checksum_data: Whether the arrays given to `fit` are read for their
            checksum. Without it other data are not told apart.

    Raises:
        ValueError: If an argument has a value that is not listed here, or
            the file is not a run's file.
        TypeError: If an argument is of the wrong type.
        OSError: If the file cannot be written.

    Scope:
        Sees what Keras tracks: variables, optimizers, metrics and, with a
        `ReproducibleModel`, the random streams and the data given as arrays.
        Works with any `keras.Model`. The code of custom layers and losses is
        not part of a run's identity. Variables are read while the training
        waits, by several threads if they are large; arrays of more than
        64 MB are read, and snapshots are written, beside the training. Do not
        change the arrays while `fit` runs.

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
        snapshots: str | None = None,
        on_error: str = "warn",
        checksum_data: bool = True,
    ) -> None:
        super().__init__()
        self.every = check_every(every)
        self.on_drift = check_choice("on_drift", on_drift, _ON_DRIFT)
        self.on_error = check_choice("on_error", on_error, _ON_ERROR)
        self.name = _check_name(name)
        self.snapshots = _check_snapshots(snapshots, path)
        self.checksum_data = check_flag("checksum_data", checksum_data)
        self._reference = _check_reference(reference)
        # Made here for its checks alone; each run opens the file anew.
        self.path = None if path is None else RunWriter(path).path
        # Batches between two records; 0 records the epochs alone.
        self._steps = _count_steps(self.every)
        # Keras may then go on handing out batches without waiting for us.
        self.async_safe = self.every == "epoch"
        self._data: DataOutline | None = None
        self._recording: Recording | None = None
        self._baseline: _Baseline | None = None
        self._waiting: list[Moment] = []
        self._flushed = 0.0
        self._trial: Any = None
        self._epoch: int | None = None
        self._num_epochs = self._num_steps = 0
        self._last_batch = self._last_recorded = -1
        # Where only epochs are recorded Keras calls from several threads, not
        # always in order: appending is safe, and so is taking the largest.
        self._seen: deque[int] = deque(maxlen=1024)

    @property
    def run(self) -> Run | None:
        """The run being recorded, or the last one; `None` before any."""
        self._flush()
        return None if self._recording is None else self._recording.run()

    @property
    def run_id(self) -> str | None:
        """Id of the run being recorded, or of the last one."""
        return None if self._recording is None else self._recording.run_id

    @property
    def mismatch(self) -> Mismatch | None:
        """The first mismatch of the present or last run, if there was one."""
        return None if self._baseline is None else self._baseline.mismatch

    def note_data(self, call: Mapping[str, Any]) -> None:
        """Tell what the next `fit` of a plain `keras.Model` is given.

        A `ReproducibleModel` tells it by itself.

        Args:
            call: The arguments of `fit` by name, `x` among them.

        Raises:
            TypeError: If they are not given by name.
        """
        advice = 'Pass, for example, {"x": x, "y": y}.'
        must = "map the names of arguments to what they were"
        check_kind("call", call, Mapping, advice, must=must)
        self._data = outline_data(call)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start a run: its header and its initial state."""
        del logs
        self.close()
        self._epoch = None
        self._num_epochs = self._num_steps = 0
        self._begin_batches()
        model = self.model
        # Kept, since asking `self.model` at each batch would sync JAX.
        self._trial = getattr(model, "_repro", None)
        outline = self._find_data()
        self._data_checksum = Beside(
            lambda: _checksum_data(outline),
            is_brief=outline.num_bytes <= _SMALL_DATA,
        )
        memory = self._find_memory()
        self._recording = (
            self._go_on(model, memory)
            if memory is not None
            else self._start_recording(model, outline)
        )
        self._baseline = _Baseline()
        self._waiting.clear()
        if self._data_checksum.is_done:
            self._settle()
        if memory is None:
            self._record(None, None, {})

    def get_state(self) -> dict[str, Any]:
        """Where the record of the present training stands.

        Returns:
            Plain values, from which `set_state` goes on.
        """
        self._flush()
        recording = self._recording
        return {
            "run_id": self.run_id,
            "num_records": 0 if recording is None else recording.num_records,
            "lines": None if recording is None else recording.write_lines(),
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "seen": list(self._seen),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Count on from where `get_state` was called.

        Args:
            state: What it returned. Which run goes on is decided when the
                training begins.

        Raises:
            TypeError: If it is no mapping.
            ValueError: If it is one of something else.
        """
        advice = "Pass what `get_state` returned."
        must = "be what `get_state` returned"
        check_kind("state", state, Mapping, advice, must=must)
        counts, seen = state.get("counts"), state.get("seen")
        if not isinstance(counts, Mapping) or not isinstance(seen, list):
            raise wrong_value("state", must, state, advice)
        if set(counts) != set(_COUNTS):
            raise wrong_value("state", must, state, advice)
        for name, value in counts.items():
            setattr(self, name, value)
        self._seen = deque(seen, maxlen=self._seen.maxlen)

    def _find_memory(self) -> Mapping[str, Any] | None:
        """What this remembered of a training that goes on, if one does."""
        keeper = None if self._trial is None else self._trial.calls.keeper
        memory = None if keeper is None else keeper.memory_of(self)
        return None if memory is None or memory["run_id"] is None else memory

    def _go_on(self, model: Any, memory: Mapping[str, Any]) -> Recording:
        """Go on with the record of a training that goes on."""
        place = self._trial.calls.keeper.place
        resume = RunResume(
            run_id=memory["run_id"],
            resumed=now(),
            num_records=memory["num_records"],
            epoch=place.epoch,
            batch=place.batch,
        )
        earlier = self._find_earlier(memory)
        if earlier is None or len(earlier.records) < resume.num_records:
            note = (
                f"resumed at {resume.moment}; the record before it is missing"
            )
            self._trial.data.notes.append(note)
            return self._start_recording(model, self._trial.data.outline)
        earlier = replace(
            earlier,
            records=earlier.records[: resume.num_records],
            resumed=(*earlier.resumed, resume),
        )
        reader = ModelReader(model, often=bool(self._steps))
        log = RunLog(self.path, self.on_error)
        return Recording(earlier.header, reader, log, earlier)

    def _find_earlier(self, memory: Mapping[str, Any]) -> Run | None:
        if memory["lines"] is not None:
            return decode_runs(memory["lines"])[0]
        if self.path is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of lines that were torn.
            try:
                return load_run(self.path, run_id=memory["run_id"])
            except (OSError, ValueError):  # It has gone since.
                return None

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Note which epoch the batches belong to."""
        del logs
        self._epoch = epoch
        self._num_epochs += 1
        self._begin_batches()

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Record the batch, if it is the turn of one."""
        # The last of several steps at once may lie behind the last batch.
        batch = min(batch, (self.params.get("steps") or batch + 1) - 1)
        self._seen.append(batch)
        if not self._steps:
            return
        before = self._last_batch
        self._last_batch = batch
        if (batch + 1) // self._steps > (before + 1) // self._steps:
            self._record(self._epoch, batch, logs or {})

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Record the epoch."""
        self._flush()
        self._settle()
        self._num_steps += self._count_batches()
        self._seen.clear()
        self._record(epoch, None, logs or {})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run."""
        del logs
        stopped = self.mismatch is not None and self.on_drift == "stop"
        self.close(DRIFTED if stopped else FINISHED)

    def on_train_abort(self, exception: BaseException) -> None:
        """End the run after an exception, of which Keras tells no callback.

        A `ReproducibleModel` calls it; with another model the run is ended
        when the next one begins, or by `close`.

        Args:
            exception: What ended the training.

        Raises:
            TypeError: If it is no exception.
        """
        advice = "Pass what was caught."
        must = "be an exception"
        check_kind("exception", exception, BaseException, advice, must=must)
        status = INTERRUPTED
        if isinstance(exception, (DriftError, DriftWarning)):
            status = DRIFTED
        elif isinstance(exception, Exception):
            status = FAILED
        self.close(status, type(exception).__name__)

    def close(
        self, status: str = INTERRUPTED, exception: str | None = None
    ) -> None:
        """End the run if one is open.

        Args:
            status: How it ended: `"finished"`, `"interrupted"`, `"failed"` or
                `"drifted"`.
            exception: Type of the exception that ended it.

        Raises:
            TypeError: If an argument is not a str.
            ValueError: If `status` is none of these.
        """
        status = check_choice("status", status, STATUSES)
        if exception is not None:
            advice = 'Pass, for example, "ValueError".'
            exception = check_name("exception", exception, advice)
        recording = self._recording
        if recording is None or recording.has_ended:
            return
        try:
            self._flush()
            if status in (FINISHED, DRIFTED):
                self._settle()
            recording.settle_data(self._data_checksum.result().checksum)
        finally:
            if not recording.has_ended:  # Drift found just now has ended it.
                recording.end_with(status, exception)
        if self.path is None:
            self._keep(recording.run())

    def _keep(self, run: Run) -> None:
        """Keep a run that has ended and that no file holds."""
        # The recorder of a study's trials keeps its own.
        if run.finished:
            _MEMORY.keep(run)

    def _start_recording(self, model: Any, data: DataOutline) -> Recording:
        reader = ModelReader(model, often=bool(self._steps))
        run_id = uuid.uuid4().hex
        header = make_header(
            model,
            reader.places,
            every=self.every,
            name=self.name,
            data=data,
            epochs=(self.params or {}).get("epochs") or 1,
            run_id=run_id,
            snapshots=self._name_snapshots(run_id),
        )
        if self._data_checksum.is_done:
            checksum, note = self._data_checksum.result()
            identity = {**header.identity, "data": checksum}
            notes = header.notes if note is None else (*header.notes, note)
            header = replace(header, identity=identity, notes=notes)
        return Recording(header, reader, RunLog(self.path, self.on_error))

    def _name_snapshots(self, run_id: str) -> str | None:
        """The folder of the snapshots, as the header names it."""
        if self.snapshots is None or self.path is None:
            return None
        folder = snapshot_folder(self.path, run_id)
        return folder.relative_to(self.path.parent).as_posix()

    def _find_data(self) -> DataOutline:
        """What `fit` was given, as somebody told us."""
        told, self._data = self._data, None
        outline = told if self._trial is None else self._trial.data.outline
        if outline is None:
            outline = DataOutline()
        return outline if self.checksum_data else replace(outline, arrays=None)

    def _begin_batches(self) -> None:
        self._last_batch = self._last_recorded = -1
        self._seen.clear()

    def _count_batches(self) -> int:
        """How many batches this epoch has had so far."""
        return max(self._seen, default=-1) + 1

    def _settle(self) -> None:
        """Find the run to compare with, once it is known what was fed."""
        recording, baseline = self._recording, self._baseline
        if recording is None or baseline is None or baseline.is_settled:
            return
        recording.settle_data(self._data_checksum.result().checksum)
        header = recording.header
        baseline.settle(self._find_reference(header))
        if baseline.run is not None and self._must_be_identical:
            self._tell(compare_identities(baseline.run.header, header))
        for record in baseline.take_waiting():
            self._tell(baseline.compare(record))

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
        if self.path is None:
            return _MEMORY.find(header)
        if not self.path.is_file():  # It has gone, which the log tells.
            return None
        try:
            return find_first_finished(
                self.path, lambda other: _is_same(other, header)
            )
        except OSError:  # As above.
            return None

    def _record(
        self,
        epoch: int | None,
        batch: int | None,
        logs: Mapping[str, Any],
    ) -> None:
        recording = self._recording
        if recording is None or recording.has_ended:
            return
        moment = recording.look(
            epoch=epoch,
            batch=batch,
            step=self._num_steps + self._count_batches(),
            logs=logs,
            streams=self._find_streams(),
            fed=None if batch is None else self._find_fed(batch),
        )
        self._waiting.append(moment)
        if batch is None or not self._may_wait():
            self._flush()

    def _may_wait(self) -> bool:
        """Whether a batch may be recorded a little later, with others."""
        # Many together take half the time. Who wants the training stopped at
        # once, or many seconds of it recorded if the process is killed, must
        # not wait.
        if self.on_drift in ("raise", "stop") or self.on_error == "raise":
            return False
        num_waiting = len(self._waiting)
        num_bytes = num_waiting * self._waiting[-1].look.num_bytes
        return (
            time.monotonic() - self._flushed < _MAX_WAIT
            and num_waiting < _MAX_WAITING
            and num_bytes < _MAX_WAITING_BYTES
        )

    def _flush(self) -> None:
        """Record the moments that wait, compare them, and tell of drift."""
        recording, baseline = self._recording, self._baseline
        moments, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        if recording is None or baseline is None or not moments:
            return
        mismatches = []
        records = recording.add(moments)
        for moment, record in zip(moments, records, strict=True):
            self._tell_of_replicas(baseline, moment.look.parted, record)
        for record in records:
            if baseline.is_settled:
                mismatches.append(baseline.compare(record))
            else:
                baseline.wait(record)
        for mismatch in mismatches:
            self._tell(mismatch)

    def _find_streams(self) -> RngState | None:
        """Where the random streams stand, the trial's or the program's."""
        if self._trial is None:
            return capture_rng() if self._steps else None
        position: RngState | None = self._trial.draws.position
        return position

    def _find_fed(self, batch: int) -> Fed | None:
        """What was fed since the record before."""
        first = self._last_recorded + 1
        self._last_recorded = batch
        samples = None if self._trial is None else self._trial.data.fed
        if samples is None or not self.checksum_data:
            return None
        chosen = samples.select(self._num_epochs - 1, first, batch)
        return None if chosen is None else Fed(samples, chosen)

    def _tell(self, mismatch: Mismatch | None) -> None:
        """Tell of a mismatch, as `on_drift` says."""
        baseline, recording = self._baseline, self._recording
        if mismatch is None or baseline is None or recording is None:
            return
        if baseline.mismatch is not None or baseline.run is None:
            return
        header, reference = recording.header, baseline.run
        for note in _explain(header, reference.header):
            mismatch = with_note(mismatch, note)
        message = (
            f"This run (seed {header.seed}) should equal run "
            f"{reference.run_id[:8]} of {reference.header.started}, and does "
            f"not.\n{mismatch}"
        )
        self._act(baseline, message, mismatch)

    def _tell_of_replicas(
        self,
        baseline: _Baseline,
        parted: list[VariablePlace],
        record: RunRecord,
    ) -> None:
        """Tell, once, of replicas that no longer hold the same weights."""
        if not parted or baseline.mismatch is not None:
            return
        mismatch = Mismatch(
            moment=record.moment,
            epoch=record.epoch,
            batch=record.batch,
            roles=tuple(dict.fromkeys(one.role for one in parted)),
            places=tuple(one.place for one in parted),
        )
        message = (
            "All replicas of a model should hold the same weights, and these "
            f"differ from the first one's.\n{mismatch}"
        )
        self._act(baseline, message, mismatch)

    def _act(
        self, baseline: _Baseline, message: str, mismatch: Mismatch
    ) -> None:
        baseline.mismatch = mismatch
        if self.on_drift == "raise":
            self.close(DRIFTED)
            raise DriftError(message, mismatch)
        if self.on_drift == "stop":
            self.model.stop_training = True
        if self.on_drift != "ignore":
            warn_user(DriftWarning(message, mismatch))


class _Baseline:
    """The earlier run that the present one should equal."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.is_settled = False
        self.mismatch: Mismatch | None = None
        self._moments: dict[tuple[int | None, int | None], RunRecord] = {}
        self._waiting: list[RunRecord] = []
        self._previous: str | None = None

    def settle(self, run: Run | None) -> None:
        """Take the run to compare with, or `None` if there is none."""
        self.run, self.is_settled = run, True
        records = () if run is None else run.records
        self._moments = {(one.epoch, one.batch): one for one in records}

    def wait(self, record: RunRecord) -> None:
        """Keep a record until it is known what to compare it with."""
        self._waiting.append(record)

    def take_waiting(self) -> list[RunRecord]:
        """The records kept so far, in order."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def compare(self, record: RunRecord) -> Mismatch | None:
        """Compare a record with that of the same moment."""
        reference = self._moments.get((record.epoch, record.batch))
        if reference is None or self.mismatch is not None:
            return None
        found = compare_records(reference, record, previous=self._previous)
        self._previous = record.moment
        return found


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


class _DataChecksum(NamedTuple):
    """Checksum of the arrays, or why there is none."""

    checksum: str | None = None
    note: str | None = None


def _checksum_data(data: DataOutline) -> _DataChecksum:
    if data.arrays is None:
        return _DataChecksum()
    try:
        return _DataChecksum(compute_checksum(data.arrays))
    except (TypeError, ValueError) as error:  # Such as Python objects.
        return _DataChecksum(note=f"The data have no checksum. {error}")


def _explain(header: RunHeader, reference: RunHeader) -> Iterator[str]:
    """What else differs between two runs, for the person who is told."""
    for one in find_differences(reference.environment, header.environment):
        if one.weight:
            yield (
                f"environment: {one.key} is {one.b}, was {one.a} "
                f"({one.sentence})"
            )
    if header.identity.get("data") is None:
        # Those of a name shall be equal, whatever they were given.
        advice = ": if they were changed on purpose, give the runs a `name`"
        yield _UNKNOWN_DATA + ("" if header.name else advice)
    yield from (f"noted: {note}" for note in header.notes)


# --- arguments -----------------------------------------------------------


def _count_steps(every: str | int) -> int:
    if isinstance(every, str):
        return 1 if every == "batch" else 0
    return every


def _check_snapshots(snapshots: object, path: object) -> str | None:
    if snapshots is None:
        return None
    if path is None:
        raise ValueError(
            "`snapshots` must have a `path`, since they lie beside the run's "
            f"file. Received: {describe(snapshots)} with path=None. Pass, for "
            'example, "runs.jsonl".'
        )
    return check_choice("snapshots", snapshots, _SNAPSHOTS)


def _check_name(name: object) -> str | None:
    if name is None:
        return None
    # As the file will hold it, by which the run is found again.
    return make_visible(check_name("name", name, 'Such as "alpha=0.4".'))


def _check_reference(reference: object) -> Run | Path | None:
    if reference is None or isinstance(reference, Run):
        return reference
    advice = "Load a run with `load_run(path)`, or pass the path of its file."
    path = check_path("reference", reference, advice)
    if not path.exists():
        raise FileNotFoundError(
            "`reference` must be a run's file that exists. Received: "
            f"{quote(path)}, where there is none. Record a run first."
        )
    if find_first_finished(path, lambda _: True) is None:
        raise ValueError(
            "`reference` must hold a finished run. Received: "
            f"{quote(path)}, which has none. Record a run to its end first."
        )
    return path
