"""`BackupAndRestore`: a training that goes on where it was killed."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.backends.keras_internals import get_global_seed
from keras_repro.backends.random_streams import (
    RngState,
    rng_from_json,
    rng_to_json,
)
from keras_repro.backends.reading import EndedError, Place, Reading
from keras_repro.backends.tensorflow import (
    find_stateful_random_ops,
    traced_functions,
)
from keras_repro.common.checks import (
    POSITIVE,
    check_choice,
    check_flag,
    check_int,
    check_number,
    check_path,
)
from keras_repro.common.files import write_whole
from keras_repro.common.locks import hold_lock
from keras_repro.common.plain_values import UnknownValueError
from keras_repro.common.text import describe, join_words, quote
from keras_repro.model.around_fit import list_callbacks
from keras_repro.model.data_order import outline_data
from keras_repro.model.data_positions import moves_by_itself
from keras_repro.model.initial_state import InitialState
from keras_repro.model.stored_trial import StoredTrial
from keras_repro.model.trial import (
    Trial,
    describe_start,
    go_to,
    go_to_unbuilt,
    is_all_there,
)
from keras_repro.recording.header import identify_model
from keras_repro.recording.recorder import Beside, warn_user
from keras_repro.resuming import files
from keras_repro.resuming.memory import Memory
from keras_repro.resuming.state import (
    Late,
    is_last,
    put_history,
    put_streams,
    read_state,
)

EPOCH = "epoch"
_ADVICE = 'Pass a folder of its own, such as "backups".'
_finished: dict[Path, int] = {}


class BackupAndRestore(keras.callbacks.Callback):
    """Backs a training up; the next one goes on from there, to the same bits.

    Swap it for `keras.callbacks.BackupAndRestore`. Killed and started again,
    the same script trains from the last backup on, also in the middle of an
    epoch, and ends with the weights, optimizer, history and record of a
    training that nobody killed. A backup holds all variables, the metrics so
    far, the trial's random streams, the place in the data, the history, and
    what the other callbacks remember; it is written beside the training.

    Args:
        backup_dir: A folder for backups. Each `fit` has a folder of its own in
            it, so that one callback can serve a loop of trainings.
        save_freq: `"epoch"`, a number of batches, or `False` for none but
            those of the arguments below.
        double_checkpoint: As in Keras: at least two backups are kept.
        delete_checkpoint: Whether the backups go when a training ends by
            itself. Where they stay, the ended training is not run again.
        save_before_preemption: Whether SIGTERM ends the training after a
            last backup. In the main thread alone.
        every_seconds: Back up also when so many seconds have passed.
        keep: How many backups are kept; an older one is used where the newest
            is damaged.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range; in `fit`, if the model is
            not reproducible, or if a backup is of another training.
        OSError: In `fit`, if the folder cannot be written, or another process
            is using it.

    Scope:
        Exact for what `reset()` is exact for; docs/resuming.md lists what is
        read again and what is refused. A callback whose memory cannot be read
        is named in a warning and in the record.

    Example:
        >>> import tempfile, numpy as np
        >>> from keras_repro.model.model import ReproducibleModel
        >>> model = ReproducibleModel(
        ...     [keras.Input((2,)), keras.layers.Dense(1)], seed=1
        ... )
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     backup = BackupAndRestore(folder, delete_checkpoint=False)
        ...     _ = model.fit(x, y, epochs=3, verbose=0, callbacks=[backup])
        ...     model.reset()
        ...     again = model.fit(x, y, epochs=3, verbose=0, callbacks=[backup])
        >>> backup.resumed_from, len(again.history["loss"])
        ('the end', 3)
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int | bool = EPOCH,
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        *,
        save_before_preemption: bool = False,
        every_seconds: float | None = None,
        keep: int = 2,
    ) -> None:
        super().__init__()
        self.backup_dir = check_path("backup_dir", backup_dir, _ADVICE)
        self.save_freq = _check_save_freq(save_freq)
        self.double_checkpoint = check_flag(
            "double_checkpoint", double_checkpoint
        )
        self.delete_checkpoint = check_flag(
            "delete_checkpoint", delete_checkpoint
        )
        self.save_before_preemption = check_flag(
            "save_before_preemption", save_before_preemption
        )
        if every_seconds is not None:
            every_seconds = check_number("every_seconds", every_seconds, POSITIVE, "Such as 60.")
        self.every_seconds = every_seconds
        self.keep = check_int("keep", keep, 1, 1000)
        if double_checkpoint:
            self.keep = max(self.keep, 2)
        if (
            self.save_freq is False
            and every_seconds is None
            and not save_before_preemption
        ):
            raise ValueError(
                "`save_freq=False` needs `save_before_preemption=True` or "
                "`every_seconds`. Received: neither, so that nothing would be "
                "backed up."
            )
        self._keeper: Keeper | None = None

    @property
    def resumed_from(self) -> str | None:
        """Where the present or last training went on, `None` if it began."""
        return None if self._keeper is None else self._keeper.resumed_from

    def set_model(self, model: Any) -> None:
        """Take the model, which must be a reproducible one."""
        if not hasattr(model, "_repro"):
            raise ValueError(
                "`BackupAndRestore` must be used with a `ReproducibleModel`: "
                "the order and the random streams of another training cannot "
                f"be gone on with. Received: {describe(model)}. Call "
                "`keras_repro.make_reproducible(model)` first."
            )
        super().set_model(model)

    @contextmanager
    def keep_training(
        self, model: Any, call: dict[str, Any]
    ) -> Iterator[Keeper]:
        """What a `ReproducibleModel` calls around a `fit`.

        Args:
            model: The model.
            call: The arguments of `fit` by name.
        """
        root = Path(os.path.abspath(self.backup_dir))
        root.mkdir(parents=True, exist_ok=True)
        lock = hold_lock(files.lock_path(root), "training")
        try:
            keeper = self._keeper = Keeper(self, model, call, root)
            with keeper.watched_signal():
                try:
                    yield keeper
                except BaseException:
                    model._repro.kept_series = keeper.series
                    raise
                finally:
                    keeper.finish_writing()
                keeper.end()
            _finished[root] = _finished.get(root, 0) + 1
        finally:
            lock.release()
        if self.delete_checkpoint:
            files.remove_root(root)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Take part in the training from here on."""
        del logs
        if self._keeper is not None:
            self._keeper.begin()

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Count a batch, in order: no other callback may lag behind."""
        del logs, batch
        if self._keeper is not None:
            self._keeper.count_batch()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Put back what a training that had ended left, if that is all."""
        del logs
        if self._keeper is not None:
            self._keeper.put_pending()


class Keeper:
    """Keeps one training: finds its backup, puts it back, writes others.

    Args:
        callback: Says when and where.
        model: The model.
        call: The arguments of `fit` by name.
        root: The folder of all backups.
    """

    def __init__(
        self,
        callback: BackupAndRestore,
        model: Any,
        call: dict[str, Any],
        root: Path,
    ) -> None:
        self._callback, self._model = callback, model
        trial: Trial = model._repro
        self._trial = trial
        self._first_epoch = call.get("initial_epoch") or 0
        self._epochs = call.get("epochs", 1)
        self._memory = Memory(model, list_callbacks(call.get("callbacks")))
        self._late = Late()
        self._writer: Beside | None = None
        self._waiting: files.Backup | None = None
        self._has_failed = self._is_refused = False
        self._reading: Reading | None = None
        self._pending: dict[str, Any] | None = None
        self._place: Place | None = None
        self._batches, self._last_time = 0, time.monotonic()
        self._last_epoch = self._first_epoch
        self.is_preempted = False
        self.notes: list[str] = []
        self.resumed_from: str | None = None
        _refuse_data(call)
        self._data = outline_data(call)
        self._data_checksum = Beside(self._checksum_data)
        self._about = self._describe()
        found = self._find(root)
        if found is None:
            self.series = self._about["series"] = uuid.uuid4().hex
            self._folder = root / f"{_finished.get(root, 0):03d}"
            self._number = files.next_number(self._folder)
            self._start: str | None = None
        else:
            self._folder, backup = found
            self.series = backup.series
            self._number = files.next_number(self._folder)
            self._start = backup.start
            self._take_up(backup)
        self._fit_streams: RngState | None = None
        self._say_unknown()
        self._memory = Memory(model, list_callbacks(call.get("callbacks")))
        if self._pending is not None:
            self._memory.prepare(self._pending["callbacks"])

    # --- which training ------------------------------------------------------

    def _checksum_data(self) -> str | None:
        if self._data.arrays is None:
            return None
        try:
            return compute_checksum(self._data.arrays)
        except (TypeError, ValueError):  # Such as Python objects.
            return None

    def _describe(self) -> dict[str, Any]:
        """What the training is, before anything of it has run."""
        trial = self._trial
        arguments = dict(self._data.arguments)
        state = trial.state
        return {
            "seed": trial.seed,
            "is_seeded": trial.requested_seed is not None
            or get_global_seed() is not None,
            "vary": trial.vary,
            **identify_model(self._model),
            "kind": self._data.kind,
            "num_samples": self._data.num_samples,
            **arguments,
            "epochs_trained": trial.epochs_trained,
            "given": None if state is None else _checksum_given(state),
        }

    def _find(self, root: Path) -> tuple[Path, files.Backup] | None:
        """The backup of this training, if there is one.

        Raises:
            ValueError: If there is one of another training in its place.
        """
        own = root / f"{_finished.get(root, 0):03d}"
        others: dict[Path, list[str]] = {}
        for folder in files.list_folders(root):
            about = files.find_about(folder)
            if about is None:
                continue
            others[folder] = self._compare(about)
            if not others[folder]:
                skipped: list[str] = []
                backup = files.find_whole(folder, skipped)
                _warn_of(skipped)
                return None if backup is None else (folder, backup)
        if own in others:
            msg = (
                "A training can be gone on with as it was begun. Received: a "
                f"backup in {quote(own)} of one with another "
                f"{join_words(others[own])}. Put that back as it was, remove "
                "the backup to begin anew, or name another `backup_dir`."
            )
            raise ValueError(msg)
        skipped = []
        files.find_whole(own, skipped)
        _warn_of(skipped)
        return None

    def _compare(self, other: dict[str, Any]) -> list[str]:
        """What differs between this training and another one."""
        mine = {**self._about, "data": self._data_checksum.result()}
        names = set(mine) | set(other)
        names.discard("is_seeded")
        if not mine["is_seeded"] and not other.get("is_seeded"):
            names.discard("seed")
        if self._trial.kept_series == other.get("series"):
            # Interrupted in this process: the model has trained since.
            names -= {"epochs_trained", "compile", "given"}
        names.discard("series")
        return sorted(
            _WORDS.get(name, name)
            for name in names
            if mine.get(name) != other.get(name)
        )

    def _say_unknown(self) -> None:
        unknown = self._memory.list_unknown()
        if not unknown:
            return
        what = (
            f"callbacks: what {join_words(unknown)} remembers is not backed "
            "up; a training that is gone on with begins without it."
        )
        self.notes.append(what)
        warn_user(
            UserWarning(
                f"{what} Give the callback `get_state` and `set_state`, or "
                "hand it over with `model.track`."
            )
        )

    # --- going on ------------------------------------------------------------

    @property
    def place(self) -> Place | None:
        """Where the training goes on, or `None` if it begins."""
        return self._place

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
        trial.epochs_trained = backup.about["epochs_trained"]
        self._about = {**self._about, **backup.about}
        if not backup.about["epochs_trained"]:
            trial.positions.rewind()
        trial.own_streams.position = rng_from_json(state["fit_streams"])
        self._pending = state
        self._place = place = Place.from_json(state["place"])
        self.resumed_from = str(place)
        if state["has_ended"]:
            self.resumed_from = "the end"
            if state["stopped"]:
                place = Place(**{**place.to_json(), "epoch": self._epochs})
                self._place = place

    def _adopt_start(self) -> None:
        """Have the trial begin as that of the backup did."""
        path, model = self._folder / files.START, self._model
        trial: Trial = model._repro
        is_whole = trial.state is not None and is_all_there(model)
        state, stored = InitialState.read(path, model if is_whole else None)
        if is_whole and not _is_start(trial, state, stored):
            go_to(model, state, stored, str(path))
            trial.has_trained = stored.has_trained
        elif trial.seed != stored.seed:
            go_to_unbuilt(model, stored.seed)
        self._start_checksum = state.checksum

    def _require_start(self) -> None:
        """Raise where what was built since is not the start of the backup."""
        if self._trial.captured.checksum != self._start_checksum:
            msg = (
                "A training can be gone on with from the start that it had. "
                "Received: a model whose first step built other weights. Seed "
                "it as it was, or remove the backup."
            )
            raise ValueError(msg)

    def begin(self) -> None:
        """Take part in the reading from now on; looks have been before."""
        trial = self._trial
        if trial.iterator is None:
            return
        self._traced = traced_functions()
        reading = Reading(trial.iterator, self._before, self._first())
        self._reading = reading
        if not reading.can_wait:
            msg = (
                "This version of Keras reads data in a way of its own, so that "
                f"no training can be backed up. Received: {keras.__version__}. "
                "Use one that docs/guarantees.md names."
            )
            raise RuntimeError(msg)
        pending = self._pending
        if pending is None:
            self._fit_streams = trial.own_streams.position
        else:
            self._fit_streams = rng_from_json(pending["fit_streams"])
            if pending["passes"] is not None and trial.passes is not None:
                trial.passes.begin_at(pending["passes"])
            if self._place is not None:
                reading.begin_at(
                    self._place, goes_through=pending["goes_through"]
                )
            self._late.put(self._model, pending["variables"])
        reading.begin()

    def _first(self) -> int:
        return self._first_epoch if self._place is None else self._place.epoch

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

    # --- backing up ----------------------------------------------------------

    def count_batch(self) -> None:
        """Note that a batch was trained; commit what waited for it."""
        self._batches += 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._write(waiting)

    def _before(self, reading: Reading) -> None:
        """Between two batches: put back, or back up where it is time."""
        if self._pending is not None:
            last = self._pending["last"]
            goes_through = self._pending["goes_through"]
            self.put_pending()
            if goes_through and not is_last(reading, last):
                raise ValueError(_say_other_data())
            self._last_time, self._batches = time.monotonic(), 0
            self._last_epoch = reading.place.epoch
            return
        self._waiting = None  # Its batch never came.
        if self.is_preempted or self._is_time(reading):
            backup = self._read(reading)
            if backup is None:
                return
            if reading.knows_its_end or self.is_preempted:
                self._write(backup)
            else:
                self._waiting = backup
        if self.is_preempted:
            self._end_process()

    def _is_time(self, reading: Reading) -> bool:
        if self._writer is not None and not self._writer.is_done:
            return False  # So that one copy is held at most.
        callback, place = self._callback, reading.place
        frequency = callback.save_freq
        if frequency == EPOCH:
            is_time = place.epoch > self._last_epoch
        else:
            is_time = bool(frequency) and self._batches >= frequency
        seconds = callback.every_seconds
        waited = time.monotonic() - self._last_time
        return is_time or (seconds is not None and waited >= seconds)

    def _read(
        self, reading: Reading, *, has_ended: bool = False
    ) -> files.Backup | None:
        """What a backup holds now; `None` where it would not be exact."""
        if self._is_refused or self._refuse_ops():
            return None
        try:
            state = read_state(self._model, reading, self._memory)
        except UnknownValueError as error:
            self._refuse(f"something holds a {error}, which no file can hold")
            return None
        self._batches, self._last_time = 0, time.monotonic()
        self._last_epoch = reading.place.epoch
        assert self._fit_streams is not None
        state["fit_streams"] = rng_to_json(self._fit_streams)
        state["has_ended"] = has_ended
        state["stopped"] = bool(self._model.stop_training)
        self._about["data"] = self._data_checksum.result()
        return files.Backup(
            self.series, self._number, self._start or "", self._about, state
        )

    def _refuse_ops(self) -> bool:
        ops = find_stateful_random_ops(traced_functions() - self._traced)
        if ops:
            names = join_words(sorted({op.name for op in ops}))
            self._refuse(
                f"the step draws by TensorFlow's own {names}, whose place "
                "nobody can read; draw with a `keras.random.SeedGenerator`"
            )
        return bool(ops)

    def _refuse(self, why: str) -> None:
        self._is_refused = True
        what = f"No backup of this training would be exact: {why}."
        self._trial.data_notes.append(what)
        warn_user(
            RuntimeWarning(f"{what} The training goes on without backups.")
        )

    def _write(self, backup: files.Backup) -> None:
        """Write beside the training, one at a time."""
        self.finish_writing()
        self._number += 1
        state, stored = None, None
        if self._start is None:
            state, stored = self._trial.captured, describe_start(self._model)

        def write() -> None:
            if state is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                state.write(self._folder / files.START, stored)
                self._start = files.checksum_file(self._folder / files.START)
            whole = files.Backup(
                backup.series,
                backup.number,
                self._start or "",
                backup.about,
                backup.state,
            )
            files.write_backup(self._folder, whole, self._callback.keep)

        self._writer = Beside(write)

    def finish_writing(self) -> None:
        """Wait for the writer, and tell of what failed."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.result()
        except OSError as error:
            if self._has_failed:
                return
            self._has_failed = True
            warn_user(
                RuntimeWarning(
                    "A backup could not be written. Received: "
                    f"{quote(self._folder)}, with {type(error).__name__}: "
                    f"{error.strerror or error}. The training goes on; the "
                    "next backup is tried when it is time. Free some space."
                )
            )

    def end(self) -> None:
        """The training has ended by itself."""
        self._trial.kept_series = None
        if self._callback.delete_checkpoint:
            files.remove_training(self._folder)
        elif self._reading is not None and self.resumed_from != "the end":
            backup = self._read(self._reading.ended(), has_ended=True)
            if backup is not None:
                self._write(backup)
                self.finish_writing()

    # --- preemption ----------------------------------------------------------

    @contextmanager
    def watched_signal(self) -> Iterator[None]:
        """Have SIGTERM end the training after a last backup."""
        is_main = threading.current_thread() is threading.main_thread()
        if not self._callback.save_before_preemption or not is_main:
            yield
            return

        def note(number: int, frame: Any) -> None:
            del frame
            if self.is_preempted:  # Twice: at once.
                signal.signal(number, self._handler)
                os.kill(os.getpid(), number)
            self.is_preempted = True

        self._handler = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, self._handler)

    def _end_process(self) -> None:
        """Do what SIGTERM does without us, now that all is written."""
        self.finish_writing()
        signal.signal(signal.SIGTERM, self._handler)
        os.kill(os.getpid(), signal.SIGTERM)


_WORDS = {
    "given": "weights that were loaded or assigned",
    "epochs_trained": "number of epochs trained before",
    "compile": "configuration of `compile`",
    "model": "configuration of the model",
    "data": "content of the data",
    "kind": "kind of data",
}


def _warn_of(skipped: list[str]) -> None:
    if skipped:
        warn_user(
            RuntimeWarning(
                "Some backups were passed over, and an older one or the "
                f"beginning is used. {' '.join(skipped)}"
            )
        )


def _is_start(trial: Trial, state: InitialState, stored: StoredTrial) -> bool:
    mine = trial.seed, trial.vary, trial.captured.checksum
    return mine == (stored.seed, stored.vary, state.checksum)


def _checksum_given(state: InitialState) -> str:
    return compute_checksum(
        [
            state.value_of(index)
            for index, entry in enumerate(state.entries)
            if entry.source == "given"
        ]
        or [0]
    )


def _refuse_data(call: dict[str, Any]) -> None:
    """Raise where no training on these data can be gone on with."""
    given = call.get("validation_data")
    parts = given if isinstance(given, tuple) else (given,)
    if parts and parts[0] is not None and moves_by_itself(parts[0]):
        msg = (
            "`validation_data` must not go on from one pass to the next where "
            "a training is backed up. Received: a tf.data pipeline that draws "
            "or shuffles. Shuffle the training data alone."
        )
        raise ValueError(msg)


def _say_other_data() -> str:
    return (
        "A training can be gone on with on the data that it was begun with. "
        "Received: data whose last batch before the backup is another one. "
        "Put them back as they were, or remove the backup."
    )


def _check_save_freq(save_freq: object) -> Any:
    if save_freq is False:
        return False
    if isinstance(save_freq, str):
        return check_choice("save_freq", save_freq, (EPOCH,))
    return check_int("save_freq", save_freq, 1)
