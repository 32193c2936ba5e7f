"""A training that is interrupted, and gone on with by a fresh model."""

import functools
import random
import re

import keras
import pytest

import keras_repro as kr
from keras_repro.backends.random_streams import checksum_rng
from keras_repro.backends.variables import iterate_variables, read_variable
from keras_repro.resuming import backup as backups


class InterruptError(Exception):
    """What ends a training in the place of a kill."""


class StopAt(keras.callbacks.Callback):
    """Interrupts a training at a batch, counted over all trainings."""

    def __init__(self, number=None):
        super().__init__()
        self.number, self.count = number, 0

    def on_train_batch_end(self, batch, logs=None):
        """What a process that is killed was to write is written."""
        self.count += 1
        if self.model._repro.calls.keeper is not None:
            self.model._repro.calls.keeper.finish_writing()
        if self.count == self.number:
            raise InterruptError

    def get_state(self):
        """It counts anew where a training goes on."""

    def set_state(self, state):
        """There is nothing to put back."""


def hand_callbacks(model, more):
    """Have each `fit` of a model be given more callbacks, ours first."""
    fit = type(model).fit

    @functools.wraps(fit)
    def fit_with(*args, callbacks=(), **kwargs):
        return fit(model, *args, callbacks=[*more, *callbacks], **kwargs)

    object.__setattr__(model, "fit", fit_with)


def observe(model, trained):
    """All of a trained model that must be equal."""
    values = {
        # Without the numbers that Keras counts in each process.
        f"{place.role} {number} {re.sub(r'_[0-9]+', '', place.place)}": (
            read_variable(place.variable).tobytes()
        )
        for number, place in enumerate(iterate_variables(model))
        if place.role != "metrics"
    }
    trial = model._repro
    return {
        "trained": repr(trained),
        "streams": checksum_rng(trial.draws.own_streams.position),
        "epochs": trial.progress.epochs,
        "stopping": model.stop_training,
        **values,
    }


def parting(a, b):
    """The names under which two results differ."""
    return [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]


def as_a_new_process():
    """Forget what a process knows of its trainings."""
    backups._ended.clear()
    kr.seed_everything(5, deterministic=False)


def run(make, train, *callbacks):
    """Train a fresh model, on fresh data."""
    as_a_new_process()
    model = make()
    if callbacks:
        hand_callbacks(model, callbacks)
    return observe(model, train(model))


def interrupt(make, train, folder, number, **options):
    """Train a fresh model up to a batch."""
    backup = kr.BackupAndRestore(folder, **{"save_freq": 2, **options})
    with pytest.raises(InterruptError):
        run(make, train, backup, StopAt(number))


def go_on(make, train, folder, **options):
    """Train a fresh model from the backup on; where that was, and results."""
    backup = kr.BackupAndRestore(folder, **{"save_freq": 2, **options})
    result = run(make, train, backup)
    return backup.resumed_from, result


def differs(make, train, folder, number=None, **options):
    """What of a training is another one after an interruption.

    Without a number that is at some batch, another one for each folder's name.
    """
    counter = StopAt()
    whole = run(make, train, counter)
    somewhere = random.Random(folder.name).randint(3, counter.count - 1)
    interrupt(make, train, folder, number or somewhere, **options)
    place, result = go_on(make, train, folder, **options)
    # A second training may have been interrupted before it had a backup.
    assert place is not None or number is None
    return parting(whole, result)
