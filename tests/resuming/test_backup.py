"""What a user sees of `BackupAndRestore`: callbacks, fits, refusals."""

import gc
import weakref

import keras
import numpy as np
import pytest

import keras_repro as kr
from tests.builders import make_model
from tests.resuming.interrupting import (
    InterruptError,
    StopAt,
    as_a_new_process,
    go_on,
    interrupt,
    observe,
    run,
)

pytestmark = pytest.mark.requires_backend
RNG = np.random.default_rng(0)
X = RNG.normal(size=(18, 3)).astype("float32")
Y = RNG.normal(size=(18, 1)).astype("float32")
FIT = {"batch_size": 4, "epochs": 4, "verbose": 0}
CALLBACKS = keras.callbacks


class ClosedLogger(CALLBACKS.CSVLogger):
    """Closes its file after an interruption, of which Keras does not tell."""

    def on_train_abort(self, exception):
        del exception
        self.csv_file.close()


def make(seed=2, optimizer="adam", **options):
    """A model that draws, and whose optimizer remembers."""
    return make_model(
        keras.layers.Dropout(0.4),
        shape=(3,),
        seed=seed,
        optimizer=optimizer,
        **options,
    )


def train(model, **options):
    """Four epochs of five batches."""
    return model.fit(X, Y, **{**FIT, **options}).history


# --- callbacks ---------------------------------------------------------------


# Where it writes, and how it opened that.
NOT_ALIKE = {"filename", "filepath", "append", "append_header"}


def remembered(callback):
    """What a callback of Keras ends with."""
    return {
        name: repr(value)
        for name, value in vars(callback).items()
        if isinstance(value, (int, float, str, list)) and name not in NOT_ALIKE
    }


MADE = {
    "EarlyStopping": lambda _: CALLBACKS.EarlyStopping(
        "loss", patience=1, min_delta=0.2, restore_best_weights=True
    ),
    "ReduceLROnPlateau": lambda _: CALLBACKS.ReduceLROnPlateau(
        "loss", patience=1, min_delta=0.5, cooldown=1
    ),
    "LearningRateScheduler": lambda _: CALLBACKS.LearningRateScheduler(
        lambda epoch, rate: rate * 0.8
    ),
    "ModelCheckpoint": lambda folder: CALLBACKS.ModelCheckpoint(
        folder / "best.weights.h5",
        "loss",
        save_best_only=True,
        save_weights_only=True,
    ),
    "CSVLogger": lambda folder: ClosedLogger(folder / "log.csv"),
    "SwapEMAWeights": lambda _: CALLBACKS.SwapEMAWeights(swap_on_epoch=True),
}


class Own(keras.callbacks.Callback):
    """Changes the learning rate by how many batches it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        if len(self.seen) % 7 == 0:
            optimizer = self.model.optimizer
            optimizer.learning_rate = float(optimizer.learning_rate) * 0.9


class Hidden(Own):
    """The same, from a memory that only itself can read."""

    def __init__(self):
        super().__init__()
        self.seen = Seen()

    def get_state(self):
        return {"seen": list(self.seen.batches)}

    def set_state(self, state):
        self.seen.batches = list(state["seen"])


class Seen:
    """A list in an object."""

    def __init__(self):
        self.batches = []

    def append(self, batch):
        self.batches.append(batch)

    def __len__(self):
        return len(self.batches)


MADE["own"] = lambda _: Own()
MADE["own, with a state"] = lambda _: Hidden()


def with_callback(name, folder):
    """What trains with one of these; its outcome belongs to the result."""
    folder.mkdir(exist_ok=True)

    def train_with(model):
        callback = MADE[name](folder)
        history = train(model, callbacks=[callback])
        files = {
            path.name: path.read_text()
            for path in folder.iterdir()
            if path.suffix == ".csv"
        }
        return history, remembered(callback), files

    return train_with


@pytest.mark.parametrize("number", [7, 16])
@pytest.mark.parametrize("name", MADE)
@pytest.mark.sampled(30)
def test_callbacks_come_to_the_same(name, number, tmp_path):
    """Of Keras or of one's own: outcome, files, and what follows from it."""

    def make_one():
        if name != "SwapEMAWeights":
            return make()
        return make(optimizer=keras.optimizers.Adam(use_ema=True))

    whole = run(make_one, with_callback(name, tmp_path / "whole"))
    train_with = with_callback(name, tmp_path / "halves")
    try:
        interrupt(make_one, train_with, tmp_path / "backups", number)
    except pytest.fail.Exception:
        pytest.skip("it had stopped before")
    place, result = go_on(make_one, train_with, tmp_path / "backups")
    assert place is not None
    assert result == whole


@pytest.mark.sampled(2)
@pytest.mark.parametrize("is_kept", [False, True])
def test_nothing_keeps_the_data_alive(is_kept, tmp_path):
    """Neither the model nor the callback, once `fit` has returned."""
    model, x = make(), X.copy()
    alive = weakref.ref(x)
    callbacks = [kr.BackupAndRestore(tmp_path)] if is_kept else []
    model.fit(x, Y, callbacks=callbacks, **FIT)
    del x
    gc.collect()
    assert alive() is None


class Forgetful(keras.callbacks.Callback):
    """Remembers in an object that nobody can read."""

    def __init__(self):
        super().__init__()
        self.seen = Seen()


def test_a_memory_that_nobody_can_read_is_named(tmp_path):
    """In a warning, once, and in the run's record."""
    checks = kr.ChecksumCallback(tmp_path / "runs.jsonl")
    backup = kr.BackupAndRestore(tmp_path / "backups")
    with pytest.warns(UserWarning, match=r"Forgetful \(seen\)") as told:
        train(make(), callbacks=[Forgetful(), backup, checks])
    assert sum("Forgetful" in str(one.message) for one in told) == 1, [
        str(o.message) for o in told
    ]
    assert "Forgetful" in repr(checks.run.header)


# --- the model and the fits --------------------------------------------------


def test_the_same_model_goes_on(tmp_path):
    """As in a notebook: interrupted, and fitted again."""
    whole = run(make, train)
    as_a_new_process()
    model = make()
    stop = StopAt(7)
    backup = kr.BackupAndRestore(tmp_path, save_freq=2)
    with pytest.raises(InterruptError):
        train(model, callbacks=[backup, stop])
    history = train(model, callbacks=[backup])
    assert backup.resumed_from == "epoch 2, batch 2"
    assert observe(model, history) == whole
    model.reset()
    assert train(model) == history


def test_reset_after_going_on_is_the_start(tmp_path):
    """`reset()` goes to the start of the training, not to the backup."""
    interrupt(make, train, tmp_path, 7)
    whole = run(make, train)
    as_a_new_process()
    model = make()
    train(model, callbacks=[kr.BackupAndRestore(tmp_path, save_freq=2)])
    model.reset()
    assert observe(model, train(model)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [7, 27, 51])
def test_a_loop_of_trainings_goes_on(number, tmp_path):
    """Those that had ended are not trained again; each has its folder."""

    def loop(model, backup=None, *more):
        histories = []
        for seed in (1, 2, 3):
            model.reset(seed=seed)
            callbacks = [backup, *more] if backup else []
            histories.append(train(model, callbacks=callbacks))
        return histories

    options = {"save_freq": 2, "delete_checkpoint": False}
    whole = run(make, loop)
    as_a_new_process()
    with pytest.raises(InterruptError):
        loop(make(), kr.BackupAndRestore(tmp_path, **options), StopAt(number))
    as_a_new_process()
    model, counter = make(), StopAt()
    again = loop(model, kr.BackupAndRestore(tmp_path, **options), counter)
    assert observe(model, again) == whole
    within = (number - 1) % 20 // 2 * 2  # Of what is trained, backed up.
    assert counter.count == 60 - (number - 1) // 20 * 20 - within


@pytest.mark.slow
def test_an_ended_training_is_not_run_again(tmp_path):
    """Its backup stays where `delete_checkpoint=False`; more epochs go on."""
    options = {"delete_checkpoint": False}
    first = run(make, train, kr.BackupAndRestore(tmp_path, **options))
    counter = StopAt()
    backup = kr.BackupAndRestore(tmp_path, **options)
    assert run(make, train, backup, counter) == first
    assert (backup.resumed_from, counter.count) == ("the end", 0)

    def longer(model):
        return train(model, epochs=6)

    result = run(
        make, longer, kr.BackupAndRestore(tmp_path, **options), counter
    )
    assert result == run(make, longer)
    assert 10 < counter.count <= 30  # From a backup before the end on.


def test_the_folder_goes_with_the_training(tmp_path):
    """By default nothing stays."""
    run(make, train, kr.BackupAndRestore(tmp_path / "backups", save_freq=2))
    assert not (tmp_path / "backups").exists()


OTHER = {
    "learning rate": (
        lambda: make(optimizer=keras.optimizers.Adam(0.5)),
        train,
        "configuration of `compile`",
    ),
    "seed": (lambda: make(seed=3), train, "seed"),
    "batch size": (make, lambda m: train(m, batch_size=6), "batch_size"),
    "order": (make, lambda m: train(m, shuffle=False), "shuffle"),
    "data": (make, lambda m: m.fit(X + 1, Y, **FIT), "content of the data"),
    "rows": (make, lambda m: m.fit(X[:9], Y[:9], **FIT), "num_samples|data"),
    "loss": (lambda: make(loss="mae"), train, "configuration of `compile`"),
}


@pytest.mark.sampled(20)
@pytest.mark.parametrize("name", OTHER)
def test_another_training_is_refused(name, tmp_path):
    """What differs is named, and the backup stays."""
    interrupt(make, train, tmp_path, 7)
    make_other, train_other, named = OTHER[name]
    with pytest.raises(ValueError, match=f"another .*({named})"):
        go_on(make_other, train_other, tmp_path)
    place, result = go_on(make, train, tmp_path)
    assert place == "epoch 2, batch 2"
    assert result == run(make, train)


def test_a_plain_model_is_refused(tmp_path):
    """The order and the streams of its training cannot be gone on with."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="make_reproducible"):
        train(model, callbacks=[kr.BackupAndRestore(tmp_path / "backups")])


def test_two_of_them_are_refused(tmp_path):
    """One keeps a training."""
    pair = [kr.BackupAndRestore(tmp_path / name) for name in "ab"]
    with pytest.raises(ValueError, match="2 of BackupAndRestore"):
        train(make(), callbacks=pair)


# --- the record --------------------------------------------------------------


def test_the_record_goes_on_under_its_id(tmp_path):
    """One run, which says where it went on; it is equal to a whole one."""
    whole = kr.ChecksumCallback(tmp_path / "whole.jsonl", every="batch")
    run(make, train, whole)
    path = tmp_path / "halves.jsonl"

    def train_recorded(model):
        checks = kr.ChecksumCallback(path, every="batch")
        return train(model, callbacks=[checks])

    interrupt(make, train_recorded, tmp_path / "backups", 7)
    first = kr.load_run(path)
    go_on(make, train_recorded, tmp_path / "backups")
    found = kr.load_run(path)
    assert found.run_id == first.run_id
    assert found.finished
    assert [one.moment for one in found.resumed] == ["epoch 2, batch 2"]
    assert kr.compare_runs(whole.run, found).equal


def test_without_a_file_the_record_goes_on_too(tmp_path):
    """What was recorded before lies in the backup."""
    whole = kr.ChecksumCallback(every="batch")
    run(make, train, whole)
    found = []

    def train_recorded(model):
        found.append(kr.ChecksumCallback(every="batch"))
        return train(model, callbacks=[found[-1]])

    interrupt(make, train_recorded, tmp_path / "backups", 7)
    go_on(make, train_recorded, tmp_path / "backups")
    assert kr.compare_runs(whole.run, found[-1].run).equal


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow", "jax")
def test_steps_at_once_and_several_optimizers_slots(tmp_path):
    """`steps_per_execution`, accumulated gradients and averages."""

    def make_one():
        optimizer = keras.optimizers.Adam(
            use_ema=True, gradient_accumulation_steps=2
        )
        return make(optimizer=optimizer, steps_per_execution=2)

    whole = run(make_one, train)
    interrupt(make_one, train, tmp_path, 5)
    place, result = go_on(make_one, train, tmp_path)
    assert place is not None
    assert result == whole
