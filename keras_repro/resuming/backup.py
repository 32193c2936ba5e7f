"""`BackupAndRestore`: a training that goes on where it was killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_repro.common.checks import (
    POSITIVE,
    check_flag,
    check_int,
    check_number,
    check_path,
    check_save_freq,
)
from keras_repro.common.locks import hold_lock
from keras_repro.common.text import describe
from keras_repro.resuming import files
from keras_repro.resuming.keeper import EPOCH, Keeper, Plan

_ADVICE = 'Pass a folder of its own, such as "backups".'
# How many trainings of each folder have ended by themselves in this process.
_ended: dict[Path, int] = {}


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
        if save_freq is not False:
            save_freq = check_save_freq("save_freq", save_freq)
        self.save_freq = save_freq
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
            every_seconds = check_number(
                "every_seconds", every_seconds, POSITIVE, "Such as 60."
            )
        self.every_seconds = every_seconds
        self.keep = check_int("keep", keep, 1, 1000)
        if double_checkpoint:
            self.keep = max(self.keep, 2)
        self._check_that_any()
        # Of the present training; it knows the data, and goes with it.
        self._keeper: Keeper | None = None
        self._resumed_from: str | None = None

    def _check_that_any(self) -> None:
        if (
            self.save_freq is False
            and self.every_seconds is None
            and not self.save_before_preemption
        ):
            raise ValueError(
                "`save_freq=False` needs `save_before_preemption=True` or "
                "`every_seconds`. Received: neither, so that nothing would be "
                "backed up."
            )

    @property
    def resumed_from(self) -> str | None:
        """Where the present or last training went on, `None` if it began."""
        return self._resumed_from

    def set_model(self, model: Any) -> None:
        """Take the model, which must be a reproducible one."""
        if not hasattr(model, "_repro"):
            raise ValueError(
                "`BackupAndRestore` must be used with a `ReproducibleModel`: "
                "the data order and the random streams of another model "
                f"cannot be resumed. Received: {describe(model)}. Call "
                "`keras_repro.make_reproducible(model)` first."
            )
        super().set_model(model)

    @contextmanager
    def _keep_training(
        self, model: Any, call: dict[str, Any]
    ) -> Iterator[Keeper]:
        """What a `ReproducibleModel` calls around a `fit`."""
        root = Path.cwd() / self.backup_dir
        root.mkdir(parents=True, exist_ok=True)
        own = root / f"{_ended.get(root, 0):03d}"
        plan = Plan(
            self.save_freq,
            self.every_seconds,
            self.keep,
            self.delete_checkpoint,
        )
        lock = hold_lock(files.lock_path(root), "backed up training")
        try:
            keeper = self._keeper = Keeper(plan, model, call, root, own)
            self._resumed_from = keeper.resumed_from
            with self._watched_signal(keeper):
                try:
                    yield keeper
                except BaseException:
                    keeper.interrupt()
                    raise
                finally:
                    keeper.finish_writing()
                keeper.end()
            _ended[root] = _ended.get(root, 0) + 1
        finally:
            self._keeper = None
            lock.release()
        if self.delete_checkpoint:
            files.remove_root(root)

    @contextmanager
    def _watched_signal(self, keeper: Keeper) -> Iterator[None]:
        """Have SIGTERM end the training after a last backup."""
        is_main = threading.current_thread() is threading.main_thread()
        if not self.save_before_preemption or not is_main:
            yield
            return

        def end(number: int = signal.SIGTERM, frame: Any = None) -> None:
            del frame
            signal.signal(number, before)
            os.kill(os.getpid(), number)

        def note(number: int, frame: Any) -> None:
            # Who asks twice does not want to wait.
            signal.signal(number, end)
            del frame
            keeper.ends = end

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            if keeper.ends is not None:  # After its last batch.
                end()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Take part in the training from here on.

        Raises:
            RuntimeError: If something else than `fit` of a reproducible model
                calls it.
        """
        del logs
        if self._keeper is None:
            raise RuntimeError(
                "`BackupAndRestore` must be given to `fit` of a compiled "
                f"`ReproducibleModel`. Received: {describe(self.model)}, in "
                "whose training it has no part. Leave `fit` as it is."
            )
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
            self._keeper.put_end()
