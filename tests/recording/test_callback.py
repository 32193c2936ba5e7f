"""The callback records every run, and tells of drift and of nothing else.

With plain Keras models; what a `ReproducibleModel` adds is a stand-in here.
"""

import copy
import dataclasses
import gc
import json
import os
import pickle
import types
import warnings
import weakref

import keras
import numpy as np
import pytest

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.backends.random_streams import capture_rng, checksum_rng
from keras_repro.model.data_order import outline_data
from keras_repro.recording import callback, header, recorder
from keras_repro.recording.callback import (
    ChecksumCallback,
    DriftError,
    DriftWarning,
)
from keras_repro.runs.comparison import compare_runs
from keras_repro.runs.file import find_first_finished, load_run, load_runs
from tests.builders import make_record, make_run, save_run

X = np.linspace(-1, 1, 24, dtype="float32").reshape(12, 2)
Y = X[:, :1] * 2
DATA = outline_data({"x": X, "y": Y})
OTHER_DATA = outline_data({"x": X + 1, "y": Y})
POSITION = capture_rng()
MOVED = dataclasses.replace(POSITION, keras=np.array([7, 7]))
EAGER = {"run_eagerly": True, "jit_compile": False}


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch):
    """Each test begins as a process does, and leaves no seed behind."""
    monkeypatch.setattr(callback, "_MEMORY", callback._Memory())


def compared_with(checks):
    """The run that the last one was compared with, or `None`."""
    return checks._baseline.run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def make_model(seed=1, units=2, rate=0.1, **options):
    """A model under 20 weights with a seeded dropout."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(units),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, "mse", **{**EAGER, **options})
    return model


def fit(model, *checks, x=X, epochs=1, **options):
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, **options}
    model.fit(x, Y, epochs=epochs, callbacks=list(checks), **arguments)
    runs = [one.run for one in checks if isinstance(one, ChecksumCallback)]
    return runs[0] if runs else None


class Stepwise(keras.callbacks.Callback):
    """Changes one variable of the model at one moment."""

    def __init__(self, epoch=0):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            bias = self.model.layers[0].bias
            bias.assign(bias + 1e-3)


def give_trial(model, *, seed=1, epochs=0, data=DATA, notes=(), draws=POSITION):
    """What a ReproducibleModel tells of its trial."""
    trial = types.SimpleNamespace(
        seeds=types.SimpleNamespace(seed=seed, vary="all"),
        draws=types.SimpleNamespace(position=draws),
        data=types.SimpleNamespace(outline=data, notes=[*notes], fed=None),
        progress=types.SimpleNamespace(epochs=epochs),
        calls=types.SimpleNamespace(keeper=None),
    )
    object.__setattr__(model, "_repro", trial)
    return model


def test_what_is_recorded(path):
    """Header, initial state, epochs and end, with the checksums by hand."""
    model = make_model()
    start = compute_checksum(model)
    checks = ChecksumCallback(path, name="n")
    run = fit(model, checks, epochs=2)
    assert load_run(path) == run
    assert [record.moment for record in run.records] == [
        "initial state",
        "epoch 1",
        "epoch 2",
    ]
    assert run.records[0].model == start
    assert run.checksum == compute_checksum(model)
    assert run.checksum != start
    assert (run.header.seed, run.header.name, run.finished) == (1, "n", True)
    assert run.history() == model.history.history
    assert run.header.environment["backend"] == keras.backend.backend()
    assert list(run.records[1].variables["weights"]) == [
        "layers.0.kernel",
        "layers.0.bias",
        "layers.2.kernel",
        "layers.2.bias",
    ]
    assert set(run.records[1].roles) == {
        "weights",
        "random",
        "optimizer",
        "metrics",
    }


def test_watching_changes_nothing():
    """A watched training gives the bits of an unwatched one."""
    results = []
    for checks in ([], [ChecksumCallback(every="batch")]):
        model = make_model()
        fit(model, *checks)
        results.append(compute_checksum(model))
    assert results[0] == results[1]


def test_equal_runs_and_drift_across_processes(path):
    """A later process is silent if equal, and told of drift if not."""
    first = fit(make_model(), ChecksumCallback(path), epochs=2)
    checks = ChecksumCallback(path, on_drift="raise")
    fit(make_model(), checks, epochs=2)
    assert compared_with(checks) == first
    assert checks.mismatch is None
    checks = ChecksumCallback(path)
    with pytest.warns(DriftWarning, match=r"at: epoch 1\n"):
        fit(make_model(), Stepwise(), checks, epochs=2)


def test_drift_is_told_once_with_its_place(path):
    """The first mismatch names the epoch, the variables, what agreed."""
    fit(make_model(), ChecksumCallback(path), epochs=4)
    checks = ChecksumCallback(path)
    with pytest.warns(DriftWarning) as caught:
        fit(make_model(), checks, Stepwise(1), epochs=4)
    [told] = [one for one in caught if one.category is DriftWarning]
    found = told.message.mismatch
    assert found is checks.mismatch
    assert (found.epoch, found.previous) == (2, "epoch 2")
    assert found.roles[0] == "weights"
    assert "layers.0.bias" in found.places
    assert any(words.startswith("random") for words in found.agreed)
    assert "the data given to `fit` are not known" in str(told.message)


def test_other_initial_weights_are_drift():
    """One changed weight is told before the first step."""
    fit(make_model(), ChecksumCallback())
    model = make_model()
    model.layers[0].bias.assign([0.0, 1e-6])
    checks = ChecksumCallback(on_drift="raise")
    with pytest.raises(DriftError, match="initial state") as caught:
        fit(model, checks)
    assert caught.value.mismatch.places == ("layers.0.bias",)
    assert caught.value.mismatch.roles == ("weights",)
    assert checks.run.end.status == "drifted"


def test_random_state_is_watched():
    """A seed generator that has moved on is told as random state."""
    fit(make_model(), ChecksumCallback())
    model = make_model()
    keras.ops.convert_to_numpy(model.layers[1].seed_generator.next())
    checks = ChecksumCallback(on_drift="ignore")
    fit(model, checks)
    assert checks.mismatch.moment == "initial state"
    assert checks.mismatch.roles == ("random",)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"units": 3},
        {"rate": 0.2},
        {"loss_weights": [2.0]},
    ],
    ids=["seed", "units", "learning rate", "compile"],
)
def test_a_change_made_on_purpose_is_no_alarm(path, change):
    """Another seed, model or compile configuration is a new baseline."""
    fit(make_model(), ChecksumCallback(path))
    checks = ChecksumCallback(path, on_drift="raise")
    fit(make_model(**change), checks)
    assert compared_with(checks) is None
    named = ChecksumCallback(path, name="n", on_drift="ignore")
    fit(make_model(), named)
    fit(make_model(**change), named)
    assert named.mismatch.roles == ("identity",)
    assert named.mismatch.moment == "start"


@pytest.mark.alike
@pytest.mark.parametrize(
    ("other", "found"), [("caf\udce9", True), ("n", False)]
)
def test_a_name_that_is_no_text_is_found_again(path, other, found):
    """Also from its file alone, as a new process does it."""
    name = ChecksumCallback(name="caf\udce9").name
    save_run(make_run(make_record(), name=name), path)
    name = ChecksumCallback(name=other).name
    run = find_first_finished(path, lambda header: header.name == name)
    assert (run is not None) == found


def test_every_that_no_file_can_hold(path):
    """It is refused before there is a file."""
    with pytest.raises(
        ValueError, match=r"every.*Received: 9223372036854775808"
    ):
        ChecksumCallback(path, every=2**63)
    assert ChecksumCallback(path, every=2**63 - 1).every == 2**63 - 1


@pytest.mark.slow
def test_named_runs_must_be_equal(path):
    """With a name, other data are told; equal runs are not."""
    checks = ChecksumCallback(path, name="alpha=0.4", on_drift="ignore")
    fit(give_trial(make_model()), checks)
    fit(give_trial(make_model()), checks)
    assert checks.mismatch is None
    fit(give_trial(make_model(), data=OTHER_DATA), checks, x=X + 1)
    assert checks.mismatch.places == ("data",)
    assert "other data" in str(checks.mismatch)
    other = ChecksumCallback(path, name="alpha=0.2", on_drift="raise")
    fit(give_trial(make_model(seed=2), seed=2), other)
    assert compared_with(other) is None


@pytest.mark.slow
def test_what_a_trial_tells(path):
    """Seed, data, notes and streams of a ReproducibleModel are recorded."""
    trial = {"seed": 5, "notes": ["a generator"]}
    run = fit(give_trial(make_model(), **trial), ChecksumCallback(path))
    assert run.header.seed == 5
    assert run.header.identity["data"] == compute_checksum((X, Y, None))
    assert run.header.notes == ("a generator",)
    assert run.records[0].streams == checksum_rng(POSITION)
    checks = ChecksumCallback(path, on_drift="ignore")
    fit(give_trial(make_model(), draws=MOVED, **trial), checks)
    assert checks.mismatch.places == ("random streams",)
    assert "noted: a generator" in str(checks.mismatch)
    other = ChecksumCallback(path, on_drift="raise")
    fit(give_trial(make_model(), seed=5, data=OTHER_DATA), other)
    assert compared_with(other) is None


def test_data_without_a_checksum():
    """Data that have none are noted, and the training goes on."""
    objects = np.array([{}, {}], object)
    data = outline_data({"x": objects, "y": objects})
    run = fit(give_trial(make_model(), data=data), ChecksumCallback())
    assert run.header.identity["data"] is None
    assert "The data have no checksum." in run.header.notes[0]


@pytest.mark.slow
def test_training_that_goes_on_is_not_a_first_fit():
    """A second fit without a rewind is a run of its own, with its own twin."""
    checks = ChecksumCallback(on_drift="raise")
    for _ in range(2):
        model = make_model()
        first = fit(model, checks)
        assert first.header.identity["continues"] is None
        second = fit(model, checks)
        assert second.header.identity["continues"]["iterations"] == [3]
    assert compared_with(checks).header.identity == second.header.identity
    assert not compare_runs(first, second).equal
    fit(give_trial(make_model(), epochs=2), checks)
    assert checks.run.header.identity["continues"]["epochs"] == 2


def test_gathered_gradients_are_steps_too():
    """A training goes on also where no step was taken yet, as Keras counts."""
    model = make_model()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=9)
    model.compile(optimizer, "mse", **EAGER)
    checks = ChecksumCallback()
    assert fit(model, checks).header.identity["continues"] is None
    continues = fit(model, checks).header.identity["continues"]
    assert continues["iterations"] == [3]


def test_a_run_that_nobody_seeded(monkeypatch):
    """Without a seed nothing must be equal, unless a name says so."""
    monkeypatch.setattr(header, "get_global_seed", lambda: None)
    checks = ChecksumCallback(on_drift="raise")
    fit(make_model(1), checks)
    fit(make_model(2), checks)
    assert compared_with(checks) is None
    named = ChecksumCallback(name="n", on_drift="ignore")
    fit(make_model(1), named)
    fit(make_model(2), named)
    assert named.mismatch.moment == "initial state"


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"steps_per_execution": 2},
            marks=pytest.mark.requires_backend("tensorflow", "jax"),
        ),
    ],
)
def test_recording_batches(options):
    """Compiled training too is read in mid-epoch, and is the same."""
    compiled = {"run_eagerly": False, "jit_compile": "auto", **options}
    runs, models = [], []
    for every in ("batch", 2, "epoch"):
        models.append(make_model(**compiled))
        runs.append(fit(models[-1], ChecksumCallback(every=every)))
    moments = [[one.moment for one in run.records] for run in runs]
    each, two, epoch = moments
    assert epoch == ["initial state", "epoch 1"]
    assert set(epoch) < set(two)
    if not options:
        assert two == ["initial state", "epoch 1, batch 2", "epoch 1"]
        assert each[1:4] == [f"epoch 1, batch {i}" for i in (1, 2, 3)]
    assert compare_runs(runs[0], runs[1]).equal
    assert compare_runs(runs[0], runs[2]).equal
    assert len({one.model for one in runs[0].records[:-1]}) == len(each) - 1
    assert len({compute_checksum(model) for model in models}) == 1


def test_drift_in_mid_epoch():
    """With batches recorded the batch is named."""
    checks = ChecksumCallback(every="batch", on_drift="ignore")
    fit(make_model(), checks)
    changed = X.copy()
    changed[4:8] += 1
    fit(make_model(), checks, x=changed)
    assert (checks.mismatch.epoch, checks.mismatch.batch) == (0, 1)
    assert checks.mismatch.previous == "epoch 1, batch 1"


def test_stopping_on_drift(path):
    """With "stop" the training ends and the run is no baseline."""
    fit(make_model(), ChecksumCallback(path), epochs=3)
    checks = ChecksumCallback(path, on_drift="stop")
    with pytest.warns(DriftWarning):
        fit(make_model(), Stepwise(), checks, epochs=3)
    assert len(checks.run.records) < 4
    assert load_run(path).end.status == "drifted"
    model = make_model()
    fit(model, ChecksumCallback(path, on_drift="stop"), epochs=3)
    assert len(model.history.epoch) == 3


@pytest.mark.slow
def test_a_reference_overrides(path, tmp_path):
    """A given run or file is what counts, whatever its identity."""
    reference = fit(make_model(seed=2), ChecksumCallback(path))
    for given in (reference, path, str(path)):
        checks = ChecksumCallback(reference=given, on_drift="ignore")
        fit(make_model(seed=2), checks)
        assert compared_with(checks) == reference
        assert checks.mismatch is None
        fit(make_model(seed=1), checks)
        assert checks.mismatch.places[0] == "seed"
    same = fit(make_model(seed=1), ChecksumCallback(path))
    checks = ChecksumCallback(reference=path, on_drift="raise")
    fit(make_model(seed=1), checks)
    assert compared_with(checks) == same


def test_interrupted_runs_are_ended(path):
    """After an exception the run is ended, and is never a baseline."""

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    checks = ChecksumCallback(path)
    assert checks.run is None
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(make_model(), checks, Fail())
    fit(make_model(), checks)
    assert [run.finished for run in load_runs(path)] == [False, False, True]
    assert load_run(path, index=0).end.status == "interrupted"
    assert load_run(path, index=0).end.num_records == 2
    assert compared_with(checks) is None
    checks.on_train_abort(ValueError("too late"))
    assert load_run(path).finished
    checks.close()
    assert len(load_runs(path)) == 3


def test_abort_tells_drift_from_an_interrupt(path):
    """A model that tells of an exception ends the run with its reason."""
    for error, status in (
        (ValueError("x"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (DriftError("x", None), "drifted"),
    ):
        checks = ChecksumCallback(path)
        checks.set_model(make_model())
        checks.on_train_begin()
        checks.on_train_abort(error)
        assert load_run(path).end.status == status


@pytest.mark.slow
def test_validation_added_later_is_no_alarm():
    """Validation data change no weight, so they are no drift."""
    checks = ChecksumCallback(on_drift="raise")
    fit(make_model(), checks)
    fit(make_model(), checks, validation_data=(X, Y))
    assert "val_loss" in checks.run.records[-1].metrics
    assert compared_with(checks) is not None


class Subclass(keras.Model):
    """A model without a configuration, built late."""

    def __init__(self, units):
        super().__init__()
        self.hidden, self.out = keras.layers.Dense(units), keras.layers.Dense(1)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


@pytest.mark.slow
def test_models_without_a_configuration():
    """A subclass is known by its class and the shapes of its weights."""
    checks = ChecksumCallback(on_drift="raise")
    for units, known in ((2, False), (2, True), (3, False)):
        keras.utils.set_random_seed(1)
        model = Subclass(units)
        model(X[:1])
        model.compile("sgd", lambda t, p: keras.ops.abs(t - p), **EAGER)
        fit(model, checks)
        assert (compared_with(checks) is not None) == known


def test_a_model_that_is_built_late():
    """Without an Input the runs of two equal models are equal too."""
    checks = ChecksumCallback(on_drift="raise")
    for _ in range(2):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("adam", "mse", **EAGER)
        fit(model, checks)
    assert compared_with(checks) is not None
    assert checks.run.records[-1].variables["weights"]


def test_memory_forgets_the_oldest():
    """The memory of a process has a limit."""
    memory = callback._Memory(limit=2)
    runs = [
        fit(make_model(seed), ChecksumCallback(name=f"n{seed}"))
        for seed in (1, 2)
    ]
    for run in runs:
        memory.keep(run)
    assert memory.find(runs[0].header) is None
    assert memory.find(runs[1].header) == runs[1]


def test_another_environment_is_explained(path):
    """With drift, what else differs between the two machines is told."""
    fit(make_model(), ChecksumCallback(path))
    text = path.read_text(encoding="utf-8")
    version = json.dumps(keras.__version__)
    path.write_text(
        text.replace(f'"keras":{version}', '"keras":"3.0"'), encoding="utf-8"
    )
    checks = ChecksumCallback(path, on_drift="ignore")
    fit(make_model(), checks, x=X + 1)
    expected = f"environment: versions.keras is {keras.__version__}, was 3.0"
    assert any(one.startswith(expected) for one in checks.mismatch.details)


def test_errors_and_warnings_travel(path):
    """Drift keeps its mismatch on the way between processes."""
    checks = ChecksumCallback(name="n", on_drift="ignore")
    fit(make_model(), checks)
    fit(make_model(2), checks)
    for cls in (DriftError, DriftWarning):
        found = pickle.loads(pickle.dumps(cls("text", checks.mismatch)))
        assert (str(found), found.mismatch) == ("text", checks.mismatch)


def test_metrics_that_are_no_numbers():
    """Only single numbers are recorded."""
    logs = {"loss": np.float32(0.1), "text": "x", "many": [1, 2]}
    assert dict(recorder._read_metrics(logs)) == {"loss": float(logs["loss"])}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"every": "step"}, ValueError),
        ({"every": 0}, ValueError),
        ({"every": True}, TypeError),
        ({"every": 1.5}, TypeError),
        ({"name": ""}, ValueError),
        ({"checksum_data": "no"}, TypeError),
        ({"on_drift": "shout"}, ValueError),
        ({"name": 3}, TypeError),
        ({"path": 3}, TypeError),
        ({"path": "no/such/file"}, FileNotFoundError),
        ({"path": os.curdir}, IsADirectoryError),
        ({"reference": 3}, TypeError),
        ({"reference": "no-such-file"}, FileNotFoundError),
    ],
)
def test_bad_arguments(arguments, error):
    """Misuse is told at construction: what must hold, what came, what next."""
    with pytest.raises(error, match=r"must .*Received: .*\. "):
        ChecksumCallback(**arguments)


def test_bad_files(path):
    """A file of another kind, or a reference that never ended, is refused."""
    path.write_text("epoch,loss\n", encoding="utf-8")
    for arguments in ({"path": path}, {"reference": path}):
        with pytest.raises(ValueError, match="Received"):
            ChecksumCallback(**arguments)
    assert path.read_text(encoding="utf-8") == "epoch,loss\n"
    path.unlink()
    checks = ChecksumCallback(path)
    checks.set_model(make_model())
    checks.on_train_begin()
    with pytest.raises(ValueError, match="finished run"):
        ChecksumCallback(reference=path)


def test_ignoring_gives_no_warning():
    """With "ignore" the mismatch is kept and nothing is said."""
    checks = ChecksumCallback(on_drift="ignore")
    fit(make_model(), checks)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DriftWarning)
        fit(make_model(), checks, x=X * 2)
    assert checks.mismatch is not None


@pytest.mark.slow
def test_a_callback_can_be_copied(path):
    """Before and after a training, as tuners do; and the copy records."""
    checks = ChecksumCallback(path, every="batch")
    for _ in range(2):
        other = copy.deepcopy(checks)
        run = fit(make_model(), other)
        assert run.finished
        fit(make_model(), checks)
    assert len(load_runs(path)) == 4
    assert checks.mismatch is None


def test_data_are_not_kept_alive(path):
    """After a training nothing of ours holds the arrays."""
    data = np.array(X)
    model = make_model()
    checks = ChecksumCallback(path, every="batch")
    checks.note_data({"x": data, "y": Y})
    fit(model, checks, x=data)
    assert checks.run.header.identity["data"] is not None
    watched = weakref.ref(data)
    del data
    gc.collect()
    assert watched() is None


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "left_out", ["nothing", "epochs", "shuffle", "seed", "what is fed"]
)
def test_one_order_for_all_epochs(left_out):
    """Noted where Keras shuffles so, or would; `fit` draws as it did."""
    checks, weights = ChecksumCallback(), []
    given = {
        "epochs": 1 if left_out == "epochs" else 2,
        "shuffle": left_out != "shuffle",
    }
    is_tensorflow = keras.backend.backend() == "tensorflow"
    for callbacks in ([], [checks]):
        model = make_model()
        if left_out == "seed" and is_tensorflow:
            import tensorflow as tf

            tf.random.set_seed(None)
        if left_out != "what is fed":
            checks.note_data({"x": X, "y": Y, **given})
        fit(model, *callbacks, **given)
        weights.append([one.tobytes() for one in model.get_weights()])
    assert weights[0] == weights[1] or left_out == "seed"
    is_noted = is_tensorflow and left_out in ("nothing", "what is fed")
    notes = checks.run.header.notes
    assert ["same order" in note for note in notes] == [True] * is_noted


def test_a_warning_names_the_line_of_the_user():
    """The place of a warning is the call of `fit`, not a line of ours."""
    checks = ChecksumCallback(name="place")
    fit(make_model(), checks)
    with pytest.warns(DriftWarning) as caught:
        fit(make_model(seed=2), checks)
    told = [one for one in caught if one.category is DriftWarning]
    assert [one.filename for one in told] == [__file__]
