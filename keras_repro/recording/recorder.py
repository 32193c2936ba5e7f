"""A run while it is being recorded: its records, its file, its snapshots."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from keras_repro.arrays.checksums import (
    ArrayDigest,
    checksum_array,
    combine_checksums,
)
from keras_repro.arrays.norms import (
    Norms,
    NormSums,
    compute_norms_of_small,
    iterate_blocks,
)
from keras_repro.backends.active import get_backend
from keras_repro.backends.random_streams import RngState, checksum_rng
from keras_repro.backends.variables import VariablePlace, iterate_variables
from keras_repro.common.text import quote
from keras_repro.common.whose_code import warn_user
from keras_repro.environment.capture import count_usable_cores
from keras_repro.model.data_order import FedSamples
from keras_repro.model.tracked import checksum_objects
from keras_repro.runs.file import RunWriter, load_run
from keras_repro.runs.lines import Entry, encode_entry
from keras_repro.runs.run import (
    Run,
    RunData,
    RunEnd,
    RunHeader,
    RunRecord,
    RunResume,
    find_layer,
    list_entries,
)
from keras_repro.runs.snapshots import snapshot_folder, write_snapshot

MODEL_ROLES = ("weights", "random")
_SNAPSHOT_ROLES = ("weights",)


class Fed(NamedTuple):
    """Which samples were fed."""

    samples: FedSamples  # All samples.
    chosen: list[Any]  # Indices by batch.


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a record needs of the moment that it is of."""

    epoch: int | None  # `None` for the initial state.
    batch: int | None  # The last one trained; `None` at an epoch's end.
    step: int  # How many batches the run had trained.
    metrics: Mapping[str, float]
    look: Look
    streams: RngState | None
    fed: Fed | None  # Since the record before.
    # Copies for a snapshot; none if there is to be none.
    weights: Mapping[tuple[str, str], Any]


class Recording:
    """One run while it is being recorded: in the file if there is one."""

    def __init__(
        self,
        header: RunHeader,
        reader: ModelReader,
        log: RunLog,
        # The run so far, where it goes on; the last place at which it does is
        # not written yet.
        earlier: Run | None = None,
    ) -> None:
        self.header = header
        self._reader: ModelReader | None = reader
        self._log = log
        self._kept: list[RunRecord] = []
        self._resumed: tuple[RunResume, ...] = ()
        self.num_records = 0
        self._end: RunEnd | None = None
        if earlier is None:
            self._log.write(header)
            return
        self.num_records = len(earlier.records)
        self._resumed = earlier.resumed
        if not self._log.write(earlier.resumed[-1]):
            self._kept = list(earlier.records)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.header.run_id

    def run(self) -> Run:
        """The run as recorded so far."""
        written: tuple[RunRecord, ...] = ()
        if self._log.path is not None:
            written = _read_written(self._log.path, self.header.run_id)
        return Run(
            self.header,
            (*written, *self._kept),
            self._end,
            path=self._log.path,
            resumed=self._resumed,
        )

    def write_lines(self) -> list[str] | None:
        """The whole run, where no file holds it."""
        if self._log.path is not None:
            return None
        run = Run(self.header, tuple(self._kept), resumed=self._resumed)
        return list(map(encode_entry, list_entries(run)))

    def look(
        self,
        *,
        epoch: int | None,
        batch: int | None,
        step: int,
        logs: Mapping[str, Any],
        streams: RngState | None,
        fed: Fed | None,
    ) -> Moment:
        """Take what the record of this moment needs."""
        # As little as must be done now; `add` does the rest, for one moment
        # after the other, whenever it is convenient.
        reader = self._reader
        if reader is None:
            msg = "the run has ended"
            raise RuntimeError(msg)
        if batch is None:
            reader.refresh()
        keeps = self.header.snapshots is not None and batch is None
        return Moment(
            epoch=epoch,
            batch=batch,
            step=step,
            metrics=dict(_read_metrics(logs)),
            look=reader.look(),
            streams=streams,
            fed=fed,
            weights=reader.copy(_SNAPSHOT_ROLES) if keeps else {},
        )

    def add(self, moments: Sequence[Moment]) -> list[RunRecord]:
        """Record some moments, in their order."""
        looks = read_looks([moment.look for moment in moments])
        records = [
            self._make_record(moment, readings)
            for moment, readings in zip(moments, looks, strict=True)
        ]
        if not self._log.write(*records):
            self._kept += records
        return records

    def _make_record(
        self, moment: Moment, readings: list[Reading]
    ) -> RunRecord:
        checksums, norms = _by_role(readings)
        fed, streams = moment.fed, moment.streams
        record = RunRecord(
            run_id=self.header.run_id,
            index=self.num_records,
            epoch=moment.epoch,
            batch=moment.batch,
            step=moment.step,
            model=combine_checksums(
                one.checksum for one in readings if one.role in MODEL_ROLES
            ),
            roles={
                role: combine_checksums(group.values())
                for role, group in checksums.items()
            },
            layers=_by_layer(readings),
            variables=checksums,
            norms=norms,
            streams=None if streams is None else checksum_rng(streams),
            fed=None if fed is None else fed.samples.checksum(fed.chosen),
            metrics=moment.metrics,
            snapshot=self._keep_weights(moment.weights, checksums),
        )
        self.num_records += 1
        return record

    @property
    def has_ended(self) -> bool:
        """Whether the end was written."""
        return self._end is not None

    def settle_data(self, checksum: str | None) -> None:
        """Take up the checksum of the data, once it is known."""
        if checksum is None or self.header.identity["data"] is not None:
            return
        identity = {**self.header.identity, "data": checksum}
        self.header = replace(self.header, identity=identity)
        self._log.write(RunData(run_id=self.header.run_id, checksum=checksum))

    def end_with(self, status: str, exception: str | None = None) -> None:
        """Write the end."""
        self._end = RunEnd(
            run_id=self.header.run_id,
            status=status,
            ended=now(),
            num_records=self.num_records,
            exception=exception,
        )
        self._reader = None  # The model is not ours to keep alive.
        self._log.close()
        self._log.write(self._end)

    def _keep_weights(
        self,
        weights: Mapping[tuple[str, str], Any],
        checksums: Mapping[str, Mapping[str, str]],
    ) -> str | None:
        if not weights:
            return None
        name = f"{self.num_records:06d}.h5"
        sums = {
            (role, place): checksums[role][place] for role, place in weights
        }
        self._log.write_snapshot(self.header.run_id, name, weights, sums)
        return name


class RunLog:
    """Where a run is written, and what happens where that fails."""

    # With "warn" it tells of the first failure and keeps the rest of the run
    # in memory; with "raise" it raises. No path: a run in memory alone.

    def __init__(self, path: Path | None, on_error: str = "warn") -> None:
        self.path = path
        self._on_error = on_error
        self._writer: RunWriter | None = None
        self._has_failed = False
        self._snapshot: Beside | None = None
        if path is not None:
            self._attempt(lambda: setattr(self, "_writer", RunWriter(path)))

    def write(self, *entries: Entry) -> bool:
        """Write entries; whether they are in the file."""
        writer = self._writer
        if writer is None:
            return False
        return self._attempt(lambda: writer.write(*entries))

    def write_snapshot(
        self,
        run_id: str,
        name: str,
        values: Mapping[tuple[str, str], Any],
        checksums: Mapping[tuple[str, str], str],
    ) -> None:
        """Write a snapshot beside the training; one at a time."""
        self.close()
        path = self.path
        if path is None or self._writer is None:
            return
        self._snapshot = Beside(
            lambda: write_snapshot(
                snapshot_folder(path, run_id),
                name,
                values,
                checksums,
                run_id=run_id,
            )
        )

    def close(self) -> None:
        """Wait for the last snapshot."""
        running, self._snapshot = self._snapshot, None
        if running is not None:
            self._attempt(running.result)

    def _attempt(self, action: Callable[[], Any]) -> bool:
        try:
            action()
        except OSError as error:
            if self._has_failed:  # Told already; a snapshot was under way.
                return False
            self._writer, self._has_failed = None, True
            consequence = (
                'The training was stopped, as on_error="raise" asks.'
                if self._on_error == "raise"
                else "The training goes on; the rest of this run is kept in "
                "memory alone."
            )
            message = (
                "The run's file must be writable. Received: "
                f"{quote(self.path)}, with {type(error).__name__}: "
                f"{error.strerror or error}. {consequence} Free some space or "
                "choose another place."
            )
            if self._on_error == "raise":
                raise _same_kind(error, message) from error
            warn_user(RuntimeWarning(message))
            return False
        return True


class Beside:
    """Something done in a thread beside the training, from now on."""

    def __init__(
        self, action: Callable[[], Any], *, is_brief: bool = False
    ) -> None:
        self._error: Exception | None = None
        self._value: Any = None
        self._thread: threading.Thread | None = None
        if is_brief:  # Too little for a thread, and done here.
            self._run(action)
            return
        # Forgotten when done: neither what it read is kept alive, nor a
        # thread, which nobody could copy.
        self._thread = threading.Thread(
            target=self._run,
            args=(action,),
            name="keras_repro-beside",
            daemon=True,
        )
        self._thread.start()

    def _run(self, action: Callable[[], Any]) -> None:
        try:
            self._value = action()
        except Exception as error:  # noqa: BLE001 - told where it is awaited
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether it is done."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self) -> None:
        """Wait until it is done."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def result(self) -> Any:
        """Wait for it; raises what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value


def now() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _same_kind(error: OSError, message: str) -> OSError:
    """An error of the same type and number, with more to say."""
    return type(error)(error.errno, message)


def _read_written(path: Path, run_id: str) -> tuple[RunRecord, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torn lines of other runs.
        try:
            return load_run(path, run_id=run_id).records
        except (OSError, ValueError):  # The file has gone since.
            return ()


def _by_role(
    readings: list[Reading],
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, Any]]]:
    checksums: dict[str, dict[str, str]] = {}
    norms: dict[str, dict[str, Any]] = {}
    for one in readings:
        checksums.setdefault(one.role, {})[one.place] = one.checksum
        norms.setdefault(one.role, {})[one.place] = one.norms
    return checksums, norms


def _by_layer(readings: list[Reading]) -> dict[str, str]:
    layers: dict[str, list[str]] = {}
    for one in readings:
        if one.role in MODEL_ROLES:
            layers.setdefault(find_layer(one.place), []).append(one.checksum)
    return {layer: combine_checksums(group) for layer, group in layers.items()}


def _read_metrics(logs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The metrics that are single numbers."""
    for name, value in logs.items():
        try:
            yield str(name), float(value)
        except (TypeError, ValueError):
            continue


# Bytes. Below, the price is that of a call; above, that of reading memory.
_LARGE = 1 << 16
_WORTH_THREADS = 1 << 23
_MAX_THREADS = 8


_REPLICA = ".replica."


@dataclass(frozen=True, slots=True)
class Reading:
    """What one variable holds."""

    role: str  # "weights", "random", "optimizer" or "metrics".
    place: str  # Such as `layers.2.kernel`.
    checksum: str  # As `checksum_array`.
    norms: Norms


class Look:
    """The variables of a model at one moment, read or still to be read."""

    def __init__(
        self,
        places: list[VariablePlace],
        # Copies of the small ones, by position.
        small: dict[int, npt.NDArray[Any]],
        # Checksum and norms of the large ones, by position.
        large: dict[int, tuple[str, Norms]],
        # Place and checksum of what was handed over beside variables.
        objects: list[tuple[str, str]],
    ) -> None:
        self._places, self._small, self._large = places, small, large
        self._objects = objects
        self.num_bytes = sum(one.nbytes for one in small.values())

    @property
    def parted(self) -> list[VariablePlace]:
        """Replicas that should equal the first in a training, and do not."""
        # Statistics that a layer gathers may differ: each sees its own
        # batches.
        return [
            one
            for one in self._places
            if _REPLICA in one.place
            and (one.role == "optimizer" or one.variable.trainable)
        ]

    @property
    def waiting(self) -> list[npt.NDArray[Any]]:
        """The arrays still to be read."""
        return list(self._small.values())

    def read(self, norms: Iterator[Norms]) -> list[Reading]:
        """What each variable held."""
        held = {
            i: (checksum_array(array), next(norms))
            for i, array in self._small.items()
        }
        held.update(self._large)
        readings = [
            Reading(one.role, one.place, *held[i])
            for i, one in enumerate(self._places)
        ]
        nothing = Norms(0.0, 0.0, 0.0)
        readings += [
            Reading("random", place, checksum, nothing)
            for place, checksum in self._objects
        ]
        return readings


def read_looks(looks: Sequence[Look]) -> list[list[Reading]]:
    """What each variable held at some moments, which is quicker together."""
    arrays = [array for look in looks for array in look.waiting]
    norms = iter(compute_norms_of_small(arrays))
    return [look.read(norms) for look in looks]


class ModelReader:
    """Reads the variables of one model, again and again."""

    # Large values are seen in place, not copied, which is safe as long as the
    # training waits. Several threads read them, each value once for checksum
    # and norms together. `often`: whether it will be read at each batch.

    def __init__(self, model: Any, *, often: bool = False) -> None:
        self._model = model
        self._often = often
        self.places: list[VariablePlace] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again which variables there are."""
        before = [id(one.variable) for one in self.places]
        self.places = iterate_variables(self._model)
        if [id(one.variable) for one in self.places] != before:
            self._view_all = get_backend().make_viewer(
                self._model,
                [one.variable for one in self.places],
                often=self._often,
            )

    def look(self) -> Look:
        """Look at every variable, as it is now."""
        # What is large is read at once, while the training waits; what is
        # small is copied, to be read later by `read_looks`.
        places, arrays = _tell_replicas_apart(self.places, self._view_all())
        large = {i: one for i, one in enumerate(arrays) if one.nbytes >= _LARGE}
        return Look(
            places,
            {i: one.copy() for i, one in enumerate(arrays) if i not in large},
            dict(_read_large(large)),
            list(checksum_objects(self._model)),
        )

    def copy(self, roles: tuple[str, ...]) -> dict[tuple[str, str], Any]:
        """Copy the variables of some roles to host arrays of their own."""
        places, arrays = _tell_replicas_apart(self.places, self._view_all())
        return {
            (one.role, one.place): array.copy()
            for one, array in zip(places, arrays, strict=True)
            if one.role in roles
        }


def _tell_replicas_apart(
    places: list[VariablePlace], arrays: list[npt.NDArray[Any]]
) -> tuple[list[VariablePlace], list[npt.NDArray[Any]]]:
    """Where the replicas of a variable differ, each has a place of its own."""
    pairs = list(zip(places, arrays, strict=True))
    if all(array.ndim == len(one.variable.shape) for one, array in pairs):
        return places, arrays
    apart = []
    for one, array in pairs:
        if array.ndim == len(one.variable.shape):
            apart.append((one, array))
            continue
        apart.append((one, array[0]))
        for number, values in enumerate(array[1:], start=1):
            place = f"{one.place}{_REPLICA}{number}"
            apart.append((replace(one, place=place), values))
    return [one for one, _ in apart], [array for _, array in apart]


def _read_large(
    arrays: dict[int, npt.NDArray[Any]],
) -> Iterator[tuple[int, tuple[str, Norms]]]:
    """Read large arrays, in threads where that is worth starting them."""
    order = sorted(arrays, key=lambda i: -arrays[i].nbytes)
    num_threads = min(count_usable_cores() or 1, len(order), _MAX_THREADS)
    total = sum(one.nbytes for one in arrays.values())
    if num_threads < 2 or total < _WORTH_THREADS:
        for i in order:
            yield i, _read_array(arrays[i])
        return
    with ThreadPoolExecutor(num_threads, "keras_repro-read") as pool:
        results = pool.map(_read_array, [arrays[i] for i in order])
        yield from zip(order, results, strict=True)


def _read_array(array: npt.NDArray[Any]) -> tuple[str, Norms]:
    """Checksum and norms in one pass over the memory."""
    if array.dtype.byteorder == ">" or not array.flags.c_contiguous:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    digest, sums = ArrayDigest(array), NormSums(array)
    for block in iterate_blocks(array):
        digest.add(block)
        sums.add(block)
    return digest.checksum(), sums.norms()
