"""What a run's file, its snapshots and its end hold, whatever goes wrong.

The models are real, and so are the files that vanish under them.
"""

import errno
import json
import os
import shutil
import threading
import time

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.arrays.checksums import checksum_array, combine_checksums
from keras_repro.backends.active import get_backend
from keras_repro.backends.variables import iterate_variables, read_variable
from keras_repro.model import data_order
from keras_repro.recording import callback
from keras_repro.recording.recorder import ModelReader, read_looks
from keras_repro.runs.file import load_run, load_runs
from keras_repro.runs.snapshots import open_snapshot, snapshot_folder

SEED, SAMPLES, SIZE = 11, 18, 4
BATCHES, EPOCHS = 5, 3
RNG = np.random.default_rng(3)
X = RNG.normal(size=(SAMPLES, 3)).astype("float32")
Y = (2 * X).astype("float32")
MOMENTS = ["initial state", "epoch 1", "epoch 2", "epoch 3"]


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch):
    """Each test begins as a process does."""
    monkeypatch.setattr(callback, "_MEMORY", callback._Memory())


def compared_with(checks):
    """The run that the last one was compared with, or `None`."""
    return checks._baseline.run


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "runs"
    made.mkdir()
    return made


@pytest.fixture
def path(folder):
    return folder / "runs.jsonl"


def make_layers():
    return [
        keras.Input((3,)),
        keras.layers.Dense(4, activation="tanh"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(3),
    ]


@pytest.fixture(scope="module")
def model():
    """One model for all: `reset()` makes its trainings cheap."""
    made = kr.ReproducibleModel(make_layers(), seed=SEED)
    made.compile(keras.optimizers.Adam(0.01), "mse")
    return made


def train(model, *watchers, x=X, y=Y, **options):
    """Rewind and train; returns the history."""
    model.reset()
    arguments = {"epochs": EPOCHS, "batch_size": SIZE, "verbose": 0, **options}
    return model.fit(x, y, callbacks=list(watchers), **arguments).history


@pytest.fixture(scope="module")
def intact(model):
    """History and run of a training of which nothing is lost."""
    checks = kr.ChecksumCallback()
    return train(model, checks), checks.run


class At(keras.callbacks.Callback):
    """Does something once, at one moment."""

    def __init__(self, action, epoch=1, batch=None):
        super().__init__()
        self.action, self.moment = action, (epoch, batch)
        self.epoch, self.epochs = None, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.epochs += 1
        if self.moment == (epoch, None):
            self.action(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if self.moment == (self.epoch, batch):
            self.action(self.model)


def fail(error):
    """An action that raises."""

    def action(_):
        raise error

    return action


def move_a_bias(model):
    """Change one weight a little."""
    bias = model.layers[-1].bias
    value = read_variable(bias) + np.float32(1e-3)
    get_backend().assign(bias, value)


# --- a file that can no longer be written --------------------------------


def lose_directory(path, patch):
    # A snapshot may be under way in it, so it is moved and not emptied.
    path.parent.rename(path.parent.with_name("elsewhere"))
    return path.parent.mkdir


def lose_file(path, patch):
    path.unlink()
    path.mkdir()
    return path.rmdir


def plant_pipe(path, patch):
    path.unlink()
    os.mkfifo(path)
    return path.unlink


def fill_disk(path, patch):
    write = os.write

    def refuse(descriptor, content):
        if content.startswith(b'{"type"'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    patch.setattr(os, "write", refuse)
    return lambda: patch.setattr(os, "write", write)


LOSSES = pytest.mark.parametrize(
    "lose", [lose_directory, lose_file, plant_pipe, fill_disk]
)


class Losing(At):
    """Takes the file away at the start of the second epoch."""

    def __init__(self, lose, path, patch):
        super().__init__(self.act)
        self.arguments = lose, path, patch

    def act(self, _):
        lose, path, patch = self.arguments
        self.mend = lose(path, patch)


def told(caught):
    """What was told of the run, and not by some library."""
    kinds = (RuntimeWarning, kr.DriftWarning)
    return [str(one.message) for one in caught if one.category in kinds]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("snapshots", [None, "epoch"])
@pytest.mark.parametrize("every", ["epoch", "batch"])
@LOSSES
def test_a_lost_file_is_told_once(
    model, path, intact, monkeypatch, lose, every, snapshots
):
    """With "warn" the training goes on, and what is left is in memory."""
    history, expected = intact
    checks = kr.ChecksumCallback(path, every=every, snapshots=snapshots)
    losing = Losing(lose, path, monkeypatch)
    with pytest.warns(RuntimeWarning) as caught:
        assert train(model, losing, checks) == history
    [message] = told(caught)
    assert "must be writable" in message
    assert str(path) in message
    assert "kept in memory alone" in message
    run = checks.run
    assert run.end.status == "finished"
    # What went with the file is missing, and a run without it is not whole.
    assert run.finished == (lose is fill_disk)
    found = {one.moment: one.model for one in run.records}
    wanted = {one.moment: one.model for one in expected.records}
    assert {k: found[k] for k in MOMENTS[2:]} == {
        k: wanted[k] for k in MOMENTS[2:]
    }
    if lose is fill_disk:
        assert {k: found[k] for k in MOMENTS} == wanted
        assert load_run(path).end is None
    losing.mend()
    # The next training tries the file again, and nothing is told.
    assert train(model, checks) == history
    again = load_run(path)
    assert again == checks.run
    assert {k.moment for k in again.records} >= set(MOMENTS)
    assert again.run_id != run.run_id


def test_a_file_that_stays_is_whole(model, path, intact):
    """The twin: without a loss nothing is told, and the file has it all."""
    checks = kr.ChecksumCallback(path)
    assert train(model, At(lambda _: None), checks) == intact[0]
    assert load_run(path) == checks.run
    assert [one.moment for one in checks.run.records] == MOMENTS
    assert load_run(path).checksum == intact[1].checksum


@pytest.mark.sampled(3)
@LOSSES
def test_a_file_lost_before_the_next_training(
    model, path, intact, monkeypatch, lose
):
    """A file that is gone at the start is told as one that goes later."""
    checks = kr.ChecksumCallback(path)
    train(model, checks)
    mend = lose(path, monkeypatch)
    with pytest.warns(RuntimeWarning) as caught:
        assert train(model, checks) == intact[0]
    [message] = told(caught)
    assert "must be writable" in message
    assert checks.run.finished
    mend()
    train(model, checks)
    assert load_run(path).finished


@LOSSES
def test_a_lost_file_raises(model, path, intact, monkeypatch, lose):
    """With "raise" one clear error stops the training, and harms nothing."""
    checks = kr.ChecksumCallback(path, on_error="raise")
    losing = Losing(lose, path, monkeypatch)
    with pytest.raises(OSError, match="must be writable") as caught:
        train(model, losing, checks)
    message = str(caught.value)
    assert message.count("must be writable") == 1
    assert 'as on_error="raise" asks' in message
    assert str(path) in message
    assert losing.epochs == 2
    assert checks.run.end.status == "failed"
    assert checks.run.end.exception == type(caught.value).__name__
    losing.mend()
    assert train(model, checks) == intact[0]
    assert load_run(path).finished
    assert load_run(path).checksum == intact[1].checksum


# --- snapshots -----------------------------------------------------------


def read_snapshot(path, run, record):
    """The arrays of a record's snapshot, by role and place."""
    name = snapshot_folder(path, run.run_id) / record.snapshot
    with open_snapshot(name) as snapshot:
        assert snapshot.run_id == run.run_id
        return {key: snapshot.read(*key) for key in snapshot.keys()}  # noqa: SIM118


def test_snapshots_hold_the_weights(model, path):
    """One file per record, with the bits that the record's checksums name."""
    checks = kr.ChecksumCallback(path, snapshots="epoch", every="batch")
    train(model, checks)
    weights = model.get_weights()
    run = load_run(path)
    kept = [one for one in run.records if one.snapshot]
    assert [one.moment for one in kept] == MOMENTS
    folder = snapshot_folder(path, run.run_id)
    assert run.header.snapshots == folder.relative_to(path.parent).as_posix()
    assert sorted(one.name for one in folder.iterdir()) == [
        one.snapshot for one in kept
    ]
    arrays = [read_snapshot(path, run, one) for one in kept]
    for record, found in zip(kept, arrays, strict=True):
        assert {
            place: checksum_array(array) for (_, place), array in found.items()
        } == dict(record.variables["weights"])
    last = [array.tobytes() for array in arrays[-1].values()]
    assert last == [array.tobytes() for array in weights]
    # The twin: an epoch before, every one of them was another.
    before = [array.tobytes() for array in arrays[-2].values()]
    assert not set(before) & set(last)


@pytest.mark.slow
def test_a_snapshot_that_fails_is_told_once(model, path, intact):
    """Where only the snapshots cannot be written, that is told, and once."""
    checks = kr.ChecksumCallback(path, snapshots="epoch")

    def block(_):
        # The second snapshot is written beside the training; let it end.
        checks._recording._log.close()
        folder = snapshot_folder(path, checks.run_id)
        shutil.rmtree(folder)
        folder.write_text("in the way", encoding="utf-8")

    with pytest.warns(RuntimeWarning) as caught:
        assert train(model, At(block), checks) == intact[0]
    [message] = told(caught)
    assert "must be writable" in message
    assert [one.moment for one in checks.run.records] == MOMENTS
    assert checks.run.checksum == intact[1].checksum
    with pytest.raises(OSError, match="must be writable"):
        train(
            model,
            At(block),
            checks := kr.ChecksumCallback(
                path, snapshots="epoch", on_error="raise"
            ),
        )
    assert train(model, checks) == intact[0]


# --- the data ------------------------------------------------------------


@pytest.fixture
def slow_data(monkeypatch):
    """Data that count as large, with a checksum that takes a while."""
    go_on = threading.Event()
    compute = callback._checksum_data

    def wait(outline):
        assert go_on.wait(60)
        return compute(outline)

    monkeypatch.setattr(callback, "_SMALL_DATA", 0)
    monkeypatch.setattr(callback, "_checksum_data", wait)
    return go_on


def release(go_on):
    """Let the checksum be computed once the training has begun."""
    go_on.clear()
    return At(lambda _: go_on.set(), epoch=0, batch=1)


def read_types(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["type"] for line in lines]


@pytest.mark.parametrize("every", ["epoch", "batch"])
def test_large_data_are_read_beside(model, path, intact, slow_data, every):
    """Their checksum follows within the first epoch, and is the same one."""
    checks = kr.ChecksumCallback(path, every=every)
    seen = []
    see = At(lambda _: seen.append(load_run(path).header.identity["data"]), 1)
    before = At(
        lambda _: seen.append(load_run(path).header.identity["data"]), 0
    )
    train(model, release(slow_data), before, see, checks)
    expected = intact[1].header.identity
    assert seen == [None, expected["data"]]
    assert expected["data"] == kr.compute_checksum((X, Y, None))
    run = load_run(path)
    assert run.header.identity == expected
    assert run == checks.run
    types = read_types(path)
    assert types.count("data") == 1
    num_records = 1 + (BATCHES if every == "batch" else 0)
    assert types[: num_records + 2] == [
        "header",
        *["record"] * num_records,
        "data",
    ]
    assert kr.compare_runs(run, intact[1]).equal


def test_small_data_need_no_line_of_their_own(model, path):
    """The twin: what is read at once stands in the header."""
    train(model, kr.ChecksumCallback(path))
    assert "data" not in read_types(path)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("every", ["epoch", "batch"])
def test_drift_is_found_with_large_data(model, path, slow_data, every):
    """What was recorded before the data were known is compared too."""
    train(model, release(slow_data), kr.ChecksumCallback(path, every=every))
    quiet = kr.ChecksumCallback(path, every=every, on_drift="raise")
    train(model, release(slow_data), quiet)
    assert compared_with(quiet) is not None
    plant = At(move_a_bias, epoch=0, batch=0)
    checks = kr.ChecksumCallback(path, every=every)
    with pytest.warns(kr.DriftWarning) as caught:
        train(model, release(slow_data), plant, checks)
    assert len(told(caught)) == 1
    expected = (0, 0 if every == "batch" else None)
    assert (checks.mismatch.epoch, checks.mismatch.batch) == expected
    plant = At(move_a_bias, epoch=0, batch=0)
    checks = kr.ChecksumCallback(path, every=every, on_drift="raise")
    with pytest.raises(kr.DriftError):
        train(model, release(slow_data), plant, checks)
    assert plant.epochs == 1
    assert (checks.mismatch.epoch, checks.mismatch.batch) == expected
    assert load_run(path).end.status == "drifted"


def test_other_large_data_are_a_new_baseline(model, path, slow_data):
    """Data changed on purpose raise no alarm, large or small."""
    checks = kr.ChecksumCallback(path, on_drift="raise")
    train(model, release(slow_data), checks)
    train(model, release(slow_data), checks, x=X + 1)
    assert compared_with(checks) is None
    assert len(load_runs(path)) == 2


@pytest.mark.slow
def test_data_left_unread(model):
    """With checksum_data=False other data are not told apart."""
    checks = kr.ChecksumCallback(
        checksum_data=False, on_drift="ignore", every="batch"
    )
    train(model, checks)
    assert checks.run.header.identity["data"] is None
    assert {one.fed for one in checks.run.records} == {None}
    train(model, checks)
    assert compared_with(checks) is not None
    assert checks.mismatch is None
    train(model, checks, x=X + 1)
    assert compared_with(checks) is not None
    assert checks.mismatch.epoch == 0
    # The twin: read, they are.
    checks = kr.ChecksumCallback(on_drift="raise")
    train(model, checks)
    train(model, checks, x=X + 1)
    assert compared_with(checks) is None


# --- the end -------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("planted"), "failed"),
        (kr.DriftError("planted", None), "drifted"),
    ],
)
def test_how_a_run_ended(model, path, error, status):
    """The file says what ended the training, as soon as it has."""
    checks = kr.ChecksumCallback(path)
    with pytest.raises(type(error)):
        train(model, At(fail(error)), checks)
    end = load_run(path).end
    assert (end.status, end.exception) == (status, type(error).__name__)
    assert end.num_records == len(load_run(path).records) == 2
    train(model, checks)
    end = load_run(path).end
    assert (end.status, end.exception) == ("finished", None)
    assert compared_with(checks) is None


def make_plain(**options):
    keras.utils.set_random_seed(SEED)
    made = keras.Sequential(make_layers())
    made.compile(keras.optimizers.Adam(0.01), "mse", **options)
    return made


def fit_plain(model, *watchers, epochs=2):
    model.fit(
        X,
        Y,
        epochs=epochs,
        batch_size=SIZE,
        verbose=0,
        shuffle=False,
        callbacks=list(watchers),
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("by", ["close", "fit"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("planted")])
def test_how_a_run_of_plain_keras_ended(path, error, by):
    """Keras tells no callback: the end is written later, as interrupted."""
    eager = {"run_eagerly": True, "jit_compile": False}
    checks = kr.ChecksumCallback(path)
    with pytest.raises(type(error)):
        fit_plain(make_plain(**eager), At(fail(error)), checks)
    assert load_run(path).end is None
    if by == "close":
        checks.close()
    else:
        fit_plain(make_plain(**eager), checks)
    end = load_run(path, index=0).end
    assert (end.status, end.exception) == ("interrupted", None)
    assert end.num_records == 2


# --- counting ------------------------------------------------------------


@pytest.fixture(scope="module")
def fast():
    """A model that trains two batches in one call."""
    made = kr.ReproducibleModel(make_layers(), seed=SEED)
    made.compile(keras.optimizers.Adam(0.01), "mse", steps_per_execution=2)
    return made


@pytest.mark.parametrize("every", ["epoch", "batch", 3])
def test_steps_count_batches(model, every):
    """Each record says how many batches the run had trained."""
    checks = kr.ChecksumCallback(every=every)
    train(model, checks, epochs=2)
    check_steps(checks.run, BATCHES)
    batches = [one.batch for one in checks.run.records if one.epoch == 1]
    expected = {"epoch": [], "batch": [0, 1, 2, 3, 4], 3: [2]}[every]
    assert batches == [*expected, None]


@pytest.mark.sampled(6)
@pytest.mark.requires_backend("tensorflow", "jax")
@pytest.mark.parametrize("samples", [SAMPLES, SAMPLES - SIZE])
@pytest.mark.parametrize("every", ["epoch", "batch", 3])
def test_steps_count_batches_of_many_a_call(model, fast, every, samples):
    """So they do where Keras trains several batches in one call."""
    checks = kr.ChecksumCallback(every=every)
    arrays = {"x": X[:samples], "y": Y[:samples]}
    train(fast, checks, epochs=2, **arrays)
    check_steps(checks.run, -(-samples // SIZE))
    one_a_call = kr.ChecksumCallback(on_drift="ignore")
    train(model, one_a_call, epochs=2, **arrays)
    steps = [one.step for one in one_a_call.run.records]
    ends = [one.step for one in checks.run.records if one.batch is None]
    assert ends == steps


def check_steps(run, num_batches):
    for record in run.records:
        epoch = record.epoch or 0
        if record.epoch is None:
            assert record.step == 0
        elif record.batch is None:
            assert record.step == (epoch + 1) * num_batches
        else:
            assert record.batch < num_batches
            assert record.step == epoch * num_batches + record.batch + 1


# --- what was fed --------------------------------------------------------

SEEN = []


class Spy(keras.layers.Layer):
    """Notes the inputs that a training truly gets."""

    def call(self, inputs):
        if not keras.backend.is_keras_tensor(inputs):
            try:
                SEEN.append(np.array(keras.ops.convert_to_numpy(inputs)))
            except Exception:  # noqa: BLE001 - a symbol of some kind
                return inputs
        return inputs


@pytest.fixture(scope="module")
def watched():
    """A model that trains eagerly, so that its inputs can be seen."""
    made = kr.ReproducibleModel(
        [keras.Input((3,)), Spy(), keras.layers.Dense(3)], seed=SEED
    )
    made.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
    return made


class ClearSeen(keras.callbacks.Callback):
    """Forgets what was seen while the model was built."""

    def on_train_begin(self, logs=None):
        SEEN.clear()


def checksum_fed(batches):
    """The checksum of some batches of inputs, whose targets follow."""
    return combine_checksums(
        checksum_array(array) for x in batches for array in (x, 2 * x)
    )


def order_by_hand(shuffle, samples, steps, epochs):
    """The inputs of each batch, epoch by epoch, from the orders alone."""
    passes = data_order.OrderedPasses(SEED, 0, shuffle)
    stream = []
    while len(stream) < epochs * steps:
        order = passes(samples, SIZE)
        stream += [X[order[i : i + SIZE]] for i in range(0, samples, SIZE)]
    return [stream[i * steps : (i + 1) * steps] for i in range(epochs)]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("every", ["batch", 2])
@pytest.mark.parametrize(
    ("samples", "steps"), [(SAMPLES, None), (14, 2)], ids=["passes", "steps"]
)
@pytest.mark.parametrize("shuffle", [True, "batch", False])
def test_what_was_fed(watched, shuffle, samples, steps, every):
    """The checksum is of the samples that the model got, in their order."""
    checks = kr.ChecksumCallback(every=every)
    arrays = {"x": X[:samples], "y": Y[:samples]}
    options = {"shuffle": shuffle, "steps_per_epoch": steps}
    train(watched, ClearSeen(), checks, **arrays, **options)
    expected = order_by_hand(shuffle, samples, steps or BATCHES, EPOCHS)
    by_hand = [array.tobytes() for epoch in expected for array in epoch]
    assert [array.tobytes() for array in SEEN] == by_hand
    stride = 1 if every == "batch" else every
    found = [one for one in checks.run.records if one.batch is not None]
    assert len(found) == EPOCHS * (len(expected[0]) // stride)
    for record in found:
        end = record.batch + 1
        fed = expected[record.epoch][end - stride : end]
        assert record.fed == checksum_fed(fed)
    others = [one for one in checks.run.records if one.batch is None]
    assert {one.fed for one in others} == {None}
    # The twin: the same samples in another order have another checksum.
    turned = [array[::-1] for array in expected[0][:stride]]
    assert checksum_fed(turned) != found[0].fed
    if shuffle:
        assert len({one.fed for one in found}) > len(found) // EPOCHS


@pytest.mark.requires_backend("tensorflow", "jax")
def test_what_was_fed_by_many_a_call(fast):
    """With several batches in one call, what all of them were fed."""
    checks = kr.ChecksumCallback(every="batch")
    train(fast, checks)
    expected = order_by_hand(True, SAMPLES, BATCHES, EPOCHS)
    found = [one for one in checks.run.records if one.batch is not None]
    assert [one.batch for one in found] == [1, 3, 4] * EPOCHS
    for record in found:
        start = {1: 0, 3: 2, 4: 4}[record.batch]
        fed = expected[record.epoch][start : record.batch + 1]
        assert record.fed == checksum_fed(fed)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[:SIZE], Y[:SIZE]


def make_pipeline():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)


@pytest.mark.parametrize(
    "make",
    [
        Batches,
        pytest.param(
            make_pipeline, marks=pytest.mark.requires_backend("tensorflow")
        ),
    ],
)
def test_what_others_fed_is_not_known(watched, make):
    """Of a pipeline or a PyDataset there is no checksum."""
    checks = kr.ChecksumCallback(every="batch")
    options = {"y": None, "batch_size": None, "shuffle": False, "epochs": 1}
    train(watched, checks, x=make(), **options)
    assert checks.run.header.identity["data"] is None
    assert {one.fed for one in checks.run.records} == {None}
    assert len(checks.run.records) > 3


class Scaled(Batches):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def __getitem__(self, index):
        return self.scale * X[:SIZE], Y[:SIZE]


@pytest.mark.parametrize("name", [None, "scaled"])
def test_unknown_data_are_told_with_a_drift(model, name):
    """Runs without a name get the advice to have one, and no others."""
    checks = kr.ChecksumCallback(name=name)
    options = {"y": None, "batch_size": None, "epochs": 1, "shuffle": False}
    train(model, checks, x=Scaled(1), **options)
    with pytest.warns(kr.DriftWarning, match="not known here") as caught:
        train(model, checks, x=Scaled(2), **options)
    (told,) = [one for one in caught if one.category is kr.DriftWarning]
    assert ("give the runs" in str(told.message)) == (name is None)


# --- random state --------------------------------------------------------


@pytest.mark.slow
def test_live_random_state_of_plain_keras():
    """With batches recorded, one draw too many is found where it was."""
    runs = []
    eager = {"run_eagerly": True, "jit_compile": False}
    for draw in (None, None, np.random.random):
        plants = [At(lambda _, d=draw: d(), 0, 2)] if draw else []
        checks = kr.ChecksumCallback(every="batch", on_drift="ignore")
        fit_plain(make_plain(**eager), *plants, checks)
        runs.append(checks.run)
    assert None not in {one.streams for one in runs[0].records}
    assert kr.compare_runs(runs[0], runs[1]).equal
    found = kr.compare_runs(runs[0], runs[2]).first_mismatch
    assert (found.epoch, found.batch, found.role) == (0, 2, "random")
    assert found.places == ("random streams",)
    checks = kr.ChecksumCallback()
    fit_plain(make_plain(**eager), checks)
    assert {one.streams for one in checks.run.records} == {None}


def test_an_error_before_the_first_epoch(model, intact):
    """What another callback raises at the start reaches the caller as it is."""

    class Refuse(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            msg = "planted"
            raise ValueError(msg)

    checks = kr.ChecksumCallback()
    with pytest.raises(ValueError, match="planted"):
        train(model, checks, Refuse())
    end = checks.run.end
    assert (end.status, end.exception) == ("failed", "ValueError")
    assert train(model, checks) == intact[0]


# --- reading -------------------------------------------------------------


def test_reading_makes_no_copy(model):
    """A view has no memory of its own: two of them share the variable's."""
    view = get_backend().view
    train(model, epochs=1)
    floats = [
        place.variable
        for place in iterate_variables(model)
        if place.variable.dtype == "float32" and place.variable.shape
    ]
    assert len(floats) >= 12
    for variable in floats:
        one, other = view(variable), view(variable)
        assert not one.flags.owndata
        assert np.shares_memory(one, other)
        # The twin: what is copied shares nothing.
        assert not np.shares_memory(one, read_variable(variable))
        assert not np.shares_memory(one, one.copy())


class Holding(keras.callbacks.Callback):
    """Keeps views of all variables, and copies to compare them with."""

    def __init__(self):
        super().__init__()
        self.held = []

    def on_train_batch_end(self, batch, logs=None):
        view = get_backend().view
        for place in iterate_variables(self.model):
            if place.role == "weights":
                seen = view(place.variable)
                self.held.append((seen, seen.copy()))


def test_holding_what_was_read_changes_nothing(model, intact):
    """Views kept alive leave the training alone; PyTorch writes into them."""
    holding, checks = Holding(), kr.ChecksumCallback()
    assert train(model, holding, checks) == intact[0]
    assert checks.run.checksum == intact[1].checksum
    assert len(holding.held) == 4 * BATCHES * EPOCHS
    *earlier, last = [
        holding.held[i : i + 4] for i in range(0, len(holding.held), 4)
    ]
    stayed = {
        seen.tobytes() == copy.tobytes()
        for group in earlier
        for seen, copy in group
    }
    assert all(seen.tobytes() == copy.tobytes() for seen, copy in last)
    assert stayed == {keras.backend.backend() != "torch"}


def special_values(count):
    """NaNs of many payloads, signalling ones too, -0.0 and subnormals."""
    bits = [0x7F800001, 0x7FA00001, 0xFF812345, 0x7FC00000, 0xFFC00123]
    bits += [0x80000000, 0x00000000, 0x00000001, 0x807FFFFF, 0x00400000]
    bits += [0x7F800000, 0xFF800000, 0x3F800000]
    return np.resize(np.array(bits, "uint32"), count).view("float32")


@pytest.fixture
def strange():
    """A model with a small and a large frozen layer of special values."""
    made = kr.ReproducibleModel(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, trainable=False),
            keras.layers.Dense(3),
            keras.layers.Dense(6000, trainable=False),
        ],
        seed=SEED,
    )
    assigned = {}
    for number in (0, 2):
        for name in ("kernel", "bias"):
            variable = getattr(made.layers[number], name)
            value = special_values(np.prod(variable.shape))
            value = value.reshape(variable.shape)
            get_backend().assign(variable, value)
            assigned[f"layers.{number}.{name}"] = checksum_array(value)
    made.capture_initial_state()
    made.compile("sgd", "mse")
    return made, assigned


@pytest.mark.parametrize("often", [False, True])
def test_reading_keeps_every_bit(strange, often):
    """Also through the reader that is compiled for many readings."""
    made, assigned = strange
    [readings] = read_looks([ModelReader(made, often=often).look()])
    found = {one.place: one.checksum for one in readings}
    assert {place: found[place] for place in assigned} == assigned
    # The twin: the payload of one NaN less, and it is another value.
    bias = made.layers[0].bias
    with np.errstate(invalid="ignore"):
        quiet = special_values(3) * np.float32(1)
    get_backend().assign(bias, quiet)
    [readings] = read_looks([ModelReader(made, often=often).look()])
    found = {one.place: one.checksum for one in readings}
    differing = [place for place in assigned if found[place] != assigned[place]]
    assert differing == ["layers.0.bias"]
    assert found["layers.0.bias"] == checksum_array(quiet)


def test_recording_keeps_every_bit(strange):
    """Also while the training runs: frozen values are recorded unchanged."""
    made, assigned = strange
    checks = kr.ChecksumCallback(every="batch")
    made.reset()
    made.fit(
        X,
        np.zeros((SAMPLES, 6000), "float32"),
        batch_size=SIZE,
        verbose=0,
        callbacks=[checks],
    )
    records = checks.run.records
    assert len(records) == BATCHES + 2
    for record in records:
        weights = record.variables["weights"]
        assert {place: weights[place] for place in assigned} == assigned
    moved = {one.variables["weights"]["layers.1.kernel"] for one in records}
    assert len(moved) > 1


def test_drift_found_at_the_very_end(path, monkeypatch):
    """With no epoch to settle in, drift is found at the end, and told once."""
    monkeypatch.setattr(callback, "_SMALL_DATA", -1)
    read = callback._checksum_data

    def read_slowly(data):
        time.sleep(0.5)
        return read(data)

    monkeypatch.setattr(callback, "_checksum_data", read_slowly)
    own = kr.ReproducibleModel(make_layers(), seed=SEED)
    own.compile("sgd", "mse")
    train(own, kr.ChecksumCallback(path, name="n"), epochs=1)
    strict = kr.ChecksumCallback(path, name="n", on_drift="raise")
    own.reset(seed=SEED + 1)
    with pytest.raises(kr.DriftError):
        own.fit(X, Y, epochs=0, verbose=0, callbacks=[strict])
    ends = [run.end.status for run in load_runs(path)]
    assert ends == ["finished", "drifted"]
