"""Keeps one training: puts back what its backup holds, and writes others."""

from __future__ import annotations

import dataclasses
import time
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_repro.backends.pipeline_passes import PipelinePasses
from keras_repro.backends.random_streams import (
    RngState,
    rng_from_json,
    rng_to_json,
)
from keras_repro.backends.reading import Place, Reading
from keras_repro.backends.tensorflow import (
    find_stateful_random_ops,
    traced_functions,
)
from keras_repro.common.plain_values import UnknownValueError
from keras_repro.common.text import describe, join_words, quote
from keras_repro.common.whose_code import warn_user
from keras_repro.model.around_fit import list_callbacks
from keras_repro.model.data_positions import (
    has_moved,
    moves_by_itself,
)
from keras_repro.model.initial_state import InitialState
from keras_repro.model.stored_trial import VALIDATION
from keras_repro.model.trial import (
    describe_start,
    go_to,
    go_to_unbuilt,
    is_all_there,
)
from keras_repro.model.trial_parts import Trial
from keras_repro.recording.recorder import Beside
from keras_repro.resuming import files
from keras_repro.resuming.identity import describe_training, find_backup
from keras_repro.resuming.memory import Memory
from keras_repro.resuming.state import (
    Late,
    is_last,
    put_history,
    put_streams,
    read_state,
)

EPOCH = "epoch"
THE_END = "the end"


@dataclasses.dataclass(frozen=True)
class Plan:
    """When backups are made, and what becomes of them."""

    save_freq: str | int | bool  # "epoch", a number of batches, or `False`.
    # Seconds after which one is made in any case.
    every_seconds: float | None
    keep: int  # How many are kept.
    delete: bool  # Whether they go when the training ends by itself.


class Keeper:
    """Keeps one training."""

    def __init__(
        self,
        plan: Plan,
        model: Any,
        call: dict[str, Any],
        root: Path,  # The folder of all backups.
        own: Path,  # The folder that this training has if it is a new one.
    ) -> None:
        _refuse_data(call)
        trial: Trial = model._repro
        self._plan, self._model, self._trial = plan, model, trial
        self._epochs = call.get("epochs") or 1
        self._first_epoch = call.get("initial_epoch") or 0
        self._memory = Memory(model, list_callbacks(call.get("callbacks")))
        self.notes = self._memory.describe_unknown()
        self._about = describe_training(model, call)
        self._late = Late()
        # What Keras reads the data from, once it is made.
        self.iterator: Any = None
        self._reading: Reading | None = None
        # What is to be put back, and where that was.
        self._pending: dict[str, Any] | None = None
        self.place: Place | None = None
        self.resumed_from: str | None = None
        # Whether validation data were read before.
        self.has_validated = False
        # What is read, and will be written once its batch comes.
        self._waiting: files.Backup | None = None
        self._is_refused = False
        self._traced: frozenset[str] = frozenset()
        self._count_anew(self._first_epoch)
        # Called at the next place between two batches, after a backup.
        self.ends: Callable[[], None] | None = None
        self._is_adopted = False
        self._fit_streams: RngState | None = None
        self._find(root, own, call)

    def _find(self, root: Path, own: Path, call: dict[str, Any]) -> None:
        """Find the backup that this training goes on from, if there is one."""
        kept = self._trial.calls.kept_series
        folder, backup = find_backup(
            root, own, self._about, kept, self._epochs
        ) or (own, None)
        self._writer = _Writer(folder, self._plan.keep, self._model)
        if backup is None:
            self.series: str = uuid.uuid4().hex
            self._about["series"] = self.series
            return
        self.series = backup.series
        if kept == self.series:
            _refuse_in_this_process(call, backup)
        self._take_up(backup)

    def _count_anew(self, epoch: int) -> None:
        self._batches, self._since = 0, time.monotonic()
        self._last_epoch = epoch

    # --- going on ------------------------------------------------------------

    @property
    def num_left_out(self) -> int:
        """How many epochs a training that goes on does not read again."""
        if self._pending is None or self._pending["goes_through"]:
            return 0
        return self.place.num_epochs if self.place else 0

    @property
    def is_late(self) -> bool:
        """Whether variables are to be put back that are made by a step."""
        return bool(self._late)

    def put_late(self) -> None:
        """Put these back."""
        self._late.put_rest(self._model)
        self._require_start()

    def memory_of(self, callback: Any) -> Any:
        """What a callback with a state of its own remembered, if anything."""
        if self._pending is None:
            return None
        name = self._memory.name_of(callback)
        memory = self._pending["callbacks"].get(name)
        return None if memory is None else memory.get("state")

    def _take_up(self, backup: files.Backup) -> None:
        """Go to the start of the training, and know where it goes on."""
        trial, state = self._trial, backup.state
        self._adopt_start()
        self._writer.start = backup.start
        self._about = dict(backup.about)
        trial.progress.epochs = backup.about["epochs_trained"]
        if not trial.progress.epochs:
            trial.data.positions.rewind()
        self._fit_streams = rng_from_json(state["fit_streams"])
        self._pending = state
        self.has_validated = VALIDATION in state["evaluations"]
        self.place = Place.from_json(state["place"])
        self.resumed_from = str(self.place)
        if state["has_ended"]:
            self.resumed_from = THE_END
            if state["stopped"]:
                end = dataclasses.replace(self.place, epoch=self._epochs)
                self.place = end
        self._memory.prepare(state["callbacks"])

    def _adopt_start(self) -> None:
        """Have the trial begin as that of the backup did, once it is whole."""
        path, model = self._writer.folder / files.START, self._model
        trial = self._trial
        is_whole = trial.start.state is not None and is_all_there(model)
        self._is_adopted = is_whole
        state, stored = InitialState.read(path, model if is_whole else None)
        wanted = stored.seed, stored.vary, state.checksum
        if not is_whole:
            if trial.seeds.seed != stored.seed:
                go_to_unbuilt(model, stored.seed)
        elif (
            trial.seeds.seed,
            trial.seeds.vary,
            trial.start.captured.checksum,
        ) != wanted:
            go_to(model, state, stored, str(path))
            trial.progress.has_trained = stored.has_trained
        self._start_checksum = state.checksum

    def _require_start(self) -> None:
        """Raise where what was built since is not the start of the backup."""
        if self._trial.start.captured.checksum != self._start_checksum:
            msg = (
                "A training can only resume from its own initial weights. "
                "Received: a model whose first step built other weights. Use "
                "the same seed, or remove the backup."
            )
            raise ValueError(msg)

    def begin(self) -> None:
        """Take part in the reading from now on; looks have been before."""
        trial, pending = self._trial, self._pending
        epoch = self._first_epoch if self.place is None else self.place.epoch
        follow = getattr(trial.data.passes, "follow", None)
        reading = Reading(self.iterator, self._before, epoch, follow)
        if not reading.can_wait:
            msg = (
                "A training can be backed up where Keras' own `fit` reads the "
                f"data. Received: {type(self._model).__name__} with Keras "
                f"{keras.__version__}, which reads differently. Leave `fit` as "
                "it is, and use a version that docs/guarantees.md names."
            )
            raise RuntimeError(msg)
        self._reading = trial.data.reading = reading
        self._traced = traced_functions()
        if pending is None or self.place is None or self._fit_streams is None:
            self._fit_streams = trial.draws.own_streams.position
        else:
            if not self._is_adopted:  # The model may have been built since.
                self._adopt_start()
            trial.draws.own_streams.position = self._fit_streams
            is_over = self.place.epoch >= self._epochs  # All is read again.
            passes = None if is_over else pending["passes"]
            if passes is not None:
                self._begin_passes(passes)
            reading.begin_at(self.place, goes_through=pending["goes_through"])
            # So that no callback sees the model as it began.
            self._late.put(self._model, pending["variables"])
        reading.begin()

    def _begin_passes(self, written: Any) -> None:
        """Have the data begin where a backup tells, by those that told it."""
        passes = self._trial.data.passes
        if passes is None:
            msg = (
                "A training can only resume on data that are read as they "
                "were. Received: data that begin elsewhere now, by other "
                "workers or under another distribution. Read them as before, "
                "or remove the backup."
            )
            raise ValueError(msg)
        passes.begin_at(written)

    def put_end(self) -> None:
        """Put back what a training left that had ended, its data too."""
        pending, reading = self._pending, self._reading
        if pending is None:
            return
        if reading is not None and self._trial.data.fed is None:
            reading.read_through(pending["place"]["num_epochs"])
        self.put_pending()

    def put_pending(self) -> None:
        """Put everything back where it stood; once, before the first batch."""
        state, self._pending = self._pending, None
        if state is None:
            return
        self._late.put(self._model, state["variables"])
        if not self._late:
            self._require_start()
        put_streams(self._model, state)
        self._memory.put(state["callbacks"])
        put_history(self._model, state)
        if state["has_ended"]:  # No step of ours will say so.
            self._trial.progress.leave_start()

    def _go_on(self, reading: Reading, pending: dict[str, Any]) -> None:
        if pending["goes_through"] and not is_last(reading, pending["last"]):
            msg = (
                "A training can only resume on the data that it was begun "
                "with. Received: data whose last batch before the backup is "
                "another one. Put them back as they were, or remove the backup."
            )
            raise ValueError(msg)
        self.put_pending()
        self._count_anew(reading.place.epoch)

    # --- backing up ----------------------------------------------------------

    def count_batch(self) -> None:
        """Note that a batch was trained; write what has waited for it."""
        self._batches += 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._writer.write(waiting)
            self._end_if_asked()

    def _before(self, reading: Reading) -> None:
        """Between two batches: put back, or back up where it is time."""
        if self._pending is not None:
            self._go_on(reading, self._pending)
        self._waiting = None  # Its batch never came.
        if self.ends is not None or self._is_time(reading):
            backup = self._read(reading)
            if backup is not None and not reading.is_sure:
                # One before a batch that never comes is none.
                self._waiting = backup
                return
            self._writer.write(backup)
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self.ends is not None:
            self._writer.finish()
            self.ends()

    def _is_time(self, reading: Reading) -> bool:
        if self._writer.is_busy:
            return False  # So that one copy is held at most.
        if reading.is_beginning:
            return False
        frequency, seconds = self._plan.save_freq, self._plan.every_seconds
        if seconds is not None and time.monotonic() - self._since >= seconds:
            return True
        if frequency == EPOCH:
            return reading.place.epoch > self._last_epoch
        return bool(frequency) and self._batches >= int(frequency)

    def _read(
        self, reading: Reading, *, has_ended: bool = False
    ) -> files.Backup | None:
        """What a backup holds now; `None` where it would not be exact."""
        if self._is_refused or self._refuse_ops() or self._fit_streams is None:
            return None
        try:
            state = read_state(self._model, reading, self._memory)
        except UnknownValueError as error:
            self._refuse(f"something holds {error}, which no file can hold")
            return None
        self._count_anew(reading.place.epoch)
        state |= {
            "fit_streams": rng_to_json(self._fit_streams),
            "has_ended": has_ended,
            "stopped": bool(self._model.stop_training),
        }
        return files.Backup(
            series=self.series,
            number=self._writer.take_number(),
            start="",
            about=self._about,
            state=state,
        )

    def _refuse_ops(self) -> bool:
        names = traced_functions()
        ops = find_stateful_random_ops(names - self._traced)
        self._traced = names
        if ops:
            listed = join_words(sorted({op.name for op in ops}))
            self._refuse(
                f"a step draws by TensorFlow's own {listed}, whose "
                "position cannot be read. Draw with a "
                "`keras.random.SeedGenerator`"
            )
        return bool(ops)

    def note_moved(self, what: str) -> None:
        """Know of data of an evaluation within the training that moved."""
        self._refuse(
            f"`evaluate` or `predict` within it reads {what}, which goes on "
            "from where it was, and a new process does not know where. Pass "
            "arrays, or `validation_data`"
        )

    def _refuse(self, why: str) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        what = f"no backup of this training would be exact: {why}"
        self._trial.data.notes.append(what)
        message = f"{what[0].upper()}{what[1:]}. The training goes on without."
        warn_user(RuntimeWarning(message))

    def finish_writing(self) -> None:
        """Wait for the writer, and tell once of what failed."""
        self._writer.finish()

    def end(self) -> None:
        """The training has ended by itself."""
        self._trial.calls.kept_series = None
        if self._plan.delete:
            files.remove_training(self._writer.folder)
        elif self._reading is not None and self.resumed_from != THE_END:
            if isinstance(self._trial.data.passes, PipelinePasses):
                self._trial.data.passes = (
                    None  # The next pass is not ours to make.
                )
            last = self._read(self._reading.ended(), has_ended=True)
            self._writer.write(last)
            self._writer.finish()

    def interrupt(self) -> None:
        """The training has ended otherwise; this process may go on with it."""
        self._trial.calls.kept_series = self.series


class _Writer:
    """Writes backups beside the training, one at a time."""

    def __init__(self, folder: Path, keep: int, model: Any) -> None:
        self.folder, self._keep, self._model = folder, keep, model
        self._number = files.next_number(folder)
        # Checksum of the file of the start, once that is written.
        self.start: str | None = None
        self._beside: Beside | None = None
        self._has_failed = False

    @property
    def is_busy(self) -> bool:
        """Whether one is being written."""
        return self._beside is not None and not self._beside.is_done

    def take_number(self) -> int:
        """The number of the next one."""
        self._number += 1
        return self._number - 1

    def write(self, backup: files.Backup | None) -> None:
        """Begin to write one, if there is one, once that before is written."""
        self.finish()
        if backup is None:
            return
        start = None
        if self.start is None:
            start = (
                self._model._repro.start.captured,
                describe_start(self._model),
            )

        def write() -> None:
            if start is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / files.START
                start[0].write(path, start[1])
                self.start = files.checksum_file(path)
            whole = dataclasses.replace(backup, start=self.start or "")
            files.write_backup(self.folder, whole, self._keep)

        self._beside = Beside(write)

    def finish(self) -> None:
        """Wait for the one being written, and warn once of what failed."""
        beside, self._beside = self._beside, None
        if beside is None:
            return
        try:
            beside.result()
        except OSError as error:
            if self._has_failed:
                return
            self._has_failed = True
            warn_user(
                RuntimeWarning(
                    "A backup must be written whole. Received: "
                    f"{quote(self.folder)}, with {type(error).__name__}: "
                    f"{error.strerror or error}. The training goes on; another "
                    "is tried when it is time. Free some space."
                )
            )


def _refuse_in_this_process(call: dict[str, Any], backup: files.Backup) -> None:
    """Raise where what is read again stands elsewhere in this process."""
    # What moved before this training did so in an earlier one.
    x = call.get("x")
    if (
        not backup.about["epochs_trained"]
        or not backup.state["goes_through"]
        or isinstance(x, types.GeneratorType)  # Made anew by the script.
        or not has_moved(x)
    ):
        return
    msg = (
        "A later training of a model, whose data are read again from their "
        "start, can only resume in a new process. Received: "
        f"{describe(x)}, which has moved on in this one. Start the program "
        "again, or remove the backup."
    )
    raise ValueError(msg)


def _refuse_data(call: dict[str, Any]) -> None:
    """Raise where no training with such a validation can be gone on with."""
    given = call.get("validation_data")
    parts = given if isinstance(given, tuple) else (given,)
    x = parts[0] if parts else None
    if moves_by_itself(x):
        msg = (
            "`validation_data` must keep nothing from one pass to the next "
            f"where a training is backed up. Received: {describe(x)}, which is "
            "consumed, shuffles, draws, caches, or calls what may. Pass "
            "arrays, a PyDataset, or a pipeline that does none of it."
        )
        raise ValueError(msg)
