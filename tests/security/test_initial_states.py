"""An initial state from anywhere: taken up whole, or refused with a reason.

A load that is refused leaves the model as a twin that never loaded.
"""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.arrays.checksums import checksum_array
from keras_repro.backends import random_streams
from keras_repro.backends.random_streams import checksum_rng
from tests import builders
from tests.security import hostile

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = X[:, :1] * 2
ASSET = "assets/initial_state.h5"


def make_model(seed=1):
    """A model with a generator, batch statistics and slots, that trained."""
    model = builders.make_model(
        *(L.Dense(3), L.Dropout(0.3, seed=2), L.BatchNormalization()),
        seed=seed,
        optimizer=keras.optimizers.Adam(0.05),
    )
    model.build((None, 4))
    model.optimizer.build(model.trainable_variables)
    # A slot that is a copy of a weight, as a moving average before training.
    model.optimizer.variables[2].assign(np.array(model.layers[0].kernel))
    model.capture_initial_state()
    fit(model)
    model.evaluate(X, Y, verbose=0)
    return model


def fit(model, epochs=2):
    """Steps in an order and with dropout that are drawn."""
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0).history


def look(model):
    """What a load that is refused must leave alone."""
    trial = model._repro
    return (
        kr.compute_checksum(model),
        kr.compute_checksum(model.optimizer),
        model.initial_state.checksum,
        [entry.source for entry in model.initial_state.entries],
        (model.seed, trial.seeds.vary, trial.seeds.requested),
        (
            trial.progress.at_start,
            trial.progress.has_trained,
            trial.progress.epochs,
        ),
        trial.draws.starts_apart,
        checksum_rng(trial.draws.own_streams.start),
        checksum_rng(trial.draws.position),
        {
            kind: checksum_rng(position)
            for kind, position in trial.draws.own_streams.evaluations.items()
        },
        repr(trial.draws.evaluations.write(trial_generators(model))),
    )


def trial_generators(model):
    return [layer.seed_generator.state for layer in model.layers[1:2]]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The file of a good state, of a model in the midst of its training."""
    path = tmp_path_factory.mktemp("good") / "start.h5"
    make_model().save_initial_state(path)
    return path


@pytest.fixture
def path(good, tmp_path):
    """A copy of the good file, to be harmed."""
    return shutil.copy(good, tmp_path / "start.h5")


@pytest.fixture(scope="module")
def models():
    """A model that all these loads are tried on, and one that never loads."""
    return make_model(5), make_model(5)


def refused(models, path, named=""):
    """The load is refused, and both models train on alike."""
    model, twin = models
    before = look(model)
    assert before == look(twin)
    with pytest.raises(ValueError, match="Received: ") as caught:
        model.load_initial_state(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert look(model) == before
    assert fit(model, 1) == fit(twin, 1)
    assert look(model) == look(twin) != before


def change_trial(content, change):
    """Change what is told of the trial, with a checksum that fits."""
    data = json.loads(content.attrs["extra"])
    data = change(data) or data
    text = json.dumps(data)
    content.attrs["extra"] = text
    content.attrs["extra_checksum"] = checksum_array(
        np.frombuffer(text.encode(), np.uint8)
    )


# --- the good file -------------------------------------------------------


def test_a_good_file_is_taken_up(good):
    """The twin of all that follows: the unharmed file changes the model."""
    model, other = make_model(5), make_model()
    before = look(model)
    model.load_initial_state(good)
    assert model.seed == 1
    assert look(model) != before
    other.reset()
    assert fit(model) == fit(other)


def test_a_file_of_before_is_taken_up(path, good):
    """One that does not say how many datasets it has, nor all of the trial."""
    later = ("num_variables", "vary", "starts_apart", "evaluations_random")

    def forget(data):
        return {k: v for k, v in data.items() if k not in later}

    with h5py.File(path, "r+") as content:
        change_trial(content, forget)
    model, other = make_model(5), make_model(5)
    model.load_initial_state(path)
    other.load_initial_state(good)
    assert fit(model) == fit(other)


def test_no_load_while_fit_runs(path):
    """A load in the midst of a training is refused, and changes nothing."""
    model, twin = make_model(5), make_model(5)
    told = []

    class Load(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(RuntimeError, match="Received: a call") as error:
                model.load_initial_state(path)
            told.append(error)

    options = {"batch_size": 4, "epochs": 2, "verbose": 0}
    losses = model.fit(X, Y, callbacks=[Load()], **options).history
    assert losses == twin.fit(X, Y, **options).history
    assert len(told) == 2
    assert look(model) == look(twin)


# --- datasets ------------------------------------------------------------


def attribute(name, value, dataset=hostile.FIRST):
    def change(content):
        content[dataset].attrs[name] = value

    return change


def last_gone(content):
    del content[max(content)]


def last_copied(content):
    """One slot more, under a name and a place that could be ours."""
    name = hostile.next_name(content)
    content.copy(max(content), name)
    content[name].attrs["place"] = "metrics.9"


def all_gone(content):
    for name in list(content):
        del content[name]


def no_trial(content):
    del content.attrs["extra"]


def other_checksum(content):
    content.attrs["extra_checksum"] = "kr1:0"


def deep_trial(content):
    set_trial_text(content, "[" * 10**5)


def deep_trial_closed(content):
    set_trial_text(content, "[" * 10**5 + "]" * 10**5)


def set_trial_text(content, text):
    content.attrs["extra"] = text
    content.attrs["extra_checksum"] = checksum_array(
        np.frombuffer(text.encode(), np.uint8)
    )


def find_twin(content):
    return next(n for n, d in content.items() if d.attrs["twin"] >= 0)


def twin_of(place):
    """Have the slot that is a copy of a weight be one of something else."""

    def change(content):
        name = find_twin(content)
        content[name].attrs["twin"] = np.int64(
            int(name) if place == "itself" else place
        )

    return change


def cycle_of_two(content):
    name = find_twin(content)
    first = content[f"{int(name) - 1:06d}"].attrs
    first.update({"twin": np.int64(int(name)), "values": "[0]"})
    content[name].attrs["twin"] = np.int64(int(name) - 1)


def shaped(place, shape, held):
    """Have a variable claim another shape, also of the values held."""

    def change(content):
        for dataset in content.values():
            if dataset.attrs["place"] == place:
                values = dataset[()].view("float32").reshape(json.loads(held))
                dataset.attrs.update(
                    shape=shape, values=held, checksum=checksum_array(values)
                )

    return change


# One number that is to stand for 32 gigabytes of them.
huge_constant = shaped("layers.2.gamma", f"[{2**33}]", "[]")


def same_bytes(content):
    """Each dataset claims the bytes of all: together more than there are."""
    raw = np.zeros(2**16, "uint8")
    content.create_dataset(hostile.next_name(content), data=raw)
    for _ in range(40):
        content[hostile.next_name(content)] = content[max(content)]


OWN_HARM = {
    **{
        one.__name__: one
        for one in (
            *(last_gone, last_copied, no_trial, other_checksum, deep_trial),
            *(deep_trial_closed, cycle_of_two, same_bytes),
            all_gone,
        )
    },
    "twin of itself": twin_of("itself"),
    "twin of a later one": twin_of(99),
    "twin before all": twin_of(-2),
    "twin of another shape": twin_of(1),
    "unknown role": attribute("role", "statistics"),
    "unknown source": attribute("source", "found"),
    "fixed text": attribute("role", np.bytes_(b"weights")),
    "no shape": attribute("shape", "4"),
    "shape of text": attribute("shape", '["4", 3]'),
    "shape of flags": attribute("shape", "[true]"),
    "negative shape": attribute("shape", "[-4, -3]"),
    "endless shape": attribute("shape", "[" + "9" * 4000 + "]"),
    "many axes": attribute("shape", "[" + "1, " * 40 + "1]"),
    "nested shape": attribute("shape", "[" * 2000),
    "other shape held": attribute("values", "[3]"),
    "huge shape held": attribute("values", f"[{2**40}]"),
    "twin in text": attribute("twin", "0"),
    "twins": attribute("twin", np.array([0, 1])),
    "dtype of objects": attribute("dtype", "object"),
    "dtype of many": attribute("dtype", "(1000000,)float64"),
    "dtype of dates": attribute("dtype", "M8[s]"),
    "other dtype": attribute("dtype", "float64"),
}


def test_a_constant_takes_the_memory_of_the_model(models, path):
    """What one number stands for is made only where it fits a variable."""
    with h5py.File(path, "r+") as content:
        huge_constant(content)
    refused(models, path, f"layers.2.gamma': ({2**33},)")


@pytest.mark.sampled(6, alike=True)
@pytest.mark.parametrize("harm", [*hostile.HARM, *OWN_HARM])
def test_hostile_datasets(models, path, harm):
    """Links, foreign storage, bombs, cycles: refused by name, on a copy."""
    with h5py.File(path, "r+") as content:
        {**hostile.HARM, **OWN_HARM}[harm](content)
    whole = (all_gone, no_trial, other_checksum, deep_trial, deep_trial_closed)
    is_whole = OWN_HARM.get(harm) in (*whole, last_gone, last_copied)
    refused(models, path, "" if is_whole else "dataset '")


def test_what_lies_elsewhere_is_not_read(path, models, tmp_path):
    """Even where the values in the other file are the right ones."""
    with (
        h5py.File(path, "r+") as content,
        h5py.File(tmp_path / "other.h5", "w") as other,
    ):
        content.copy(hostile.FIRST, other)
        del content[hostile.FIRST]
        content[hostile.FIRST] = h5py.ExternalLink("other.h5", hostile.FIRST)
    with h5py.File(path) as content:
        assert content[hostile.FIRST].size  # The twin: HDF5 would follow.
    refused(models, path, f"dataset '{hostile.FIRST}'")


# --- the trial -----------------------------------------------------------


def put(*keys, value):
    """Put a value somewhere into what is told of the trial."""

    def change(data):
        *way, last = keys
        for key in way:
            data = data[key]
        data[last] = value

    return change


def drop(*keys):
    def change(data):
        *way, last = keys
        for key in way:
            data = data[key]
        del data[last]

    return change


NAN, INF = float("nan"), float("inf")
ZEROS = [0] * 624
BAD_TRIALS = {
    "no object": lambda data: [1],
    "unknown field": put("more", value=1),
    **{
        f"no {name}": drop(name)
        for name in ("seed", "start", "position", "epochs_trained", "random")
    },
    "seed below": put("seed", value=-1),
    "seed above": put("seed", value=2**32),
    "seed float": put("seed", value=1.0),
    "seed flag": put("seed", value=True),
    "seed text": put("seed", value="1"),
    "no seed": put("seed", value=None),
    "vary": put("vary", value="nothing"),
    "vary list": put("vary", value=["all"]),
    "epochs below": put("epochs_trained", value=-1),
    "epochs NaN": put("epochs_trained", value=NAN),
    "epochs infinite": put("epochs_trained", value=INF),
    "epochs float": put("epochs_trained", value=1.5),
    "epochs huge": put("epochs_trained", value=10**30),
    "epochs text": put("epochs_trained", value="2"),
    "at_start": put("at_start", value="no"),
    "has_trained": put("has_trained", value=2),
    "starts_apart": put("starts_apart", value=None),
    "count": put("num_variables", value=3),
    "count text": put("num_variables", value="all"),
    "random few": put("random", value=[]),
    "random many": put("random", value=[[1, 2], [3, 4]]),
    "random none": put("random", value=[None]),
    "random long": put("random", 0, value=[1, 2, 3]),
    "random float": put("random", 0, value=[1.5, 2.0]),
    "random huge": put("random", 0, value=[10**30, 0]),
    "random wide": put("random", 0, value=[2**63, 0]),
    "random text": put("random", 0, value=["1", "2"]),
    "random nested": put("random", 0, value=[[1], [2]]),
    "random ragged": put("random", 0, value=[1, [2]]),
    "random object": put("random", value={"0": [1, 2]}),
    "evaluations list": put("evaluations", value=[]),
    "evaluations of a kind": put("evaluations", value={"other": {}}),
    "evaluations broken": put("evaluations", "test", value={}),
    "evaluations_random list": put("evaluations_random", value=[1]),
    "evaluations_random kind": put("evaluations_random", value={"a": [None]}),
    "evaluations_random few": put("evaluations_random", "test", value=[]),
    "evaluations_random long": put(
        "evaluations_random", "test", value=[[1, 2, 3]]
    ),
    "evaluations_random none": put("evaluations_random", "test", value=None),
}
BAD_STREAMS = {
    "no object": ([], 7),
    "python none": (["python"], None),
    "python version": (["python", 0], 2),
    "python short": (["python", 1], ZEROS),
    "python long": (["python", 1], [1] * 626),
    "python zeros": (["python", 1], [0] * 625),
    "python place": (["python", 1, 624], 625),
    "python place below": (["python", 1, 624], -1),
    "python word above": (["python", 1, 5], 2**32),
    "python word below": (["python", 1, 5], -1),
    "python word float": (["python", 1, 5], 1.0),
    "python word text": (["python", 1, 5], "1"),
    "python word flag": (["python", 1, 5], True),
    "python kept NaN": (["python", 2], NAN),
    "python kept text": (["python", 2], "0.5"),
    "numpy none": (["numpy"], None),
    "numpy other": (["numpy", 0], "PCG64"),
    "numpy short": (["numpy", 1], [1] * 623),
    "numpy zeros": (["numpy", 1], ZEROS),
    "numpy nested": (["numpy", 1], [[1]] * 624),
    "numpy place": (["numpy", 2], 625),
    "numpy place far": (["numpy", 2], 10**9),
    "numpy place below": (["numpy", 2], -1),
    "numpy has kept": (["numpy", 3], 2),
    "numpy kept NaN": (["numpy", 4], NAN),
    "numpy kept infinite": (["numpy", 4], INF),
    "keras short": (["keras"], [1]),
    "keras long": (["keras"], [1, 2, 3]),
    "keras huge": (["keras"], [2**40, 0]),
    "keras float": (["keras"], [1.0, 2.0]),
    "keras text": (["keras"], "12"),
    "backends list": (["backends"], []),
    "backends unknown": (["backends", "mxnet"], []),
    "torch none": (["backends", "torch"], None),
    "torch few": (["backends", "torch"], [[0] * 5056]),
    "torch zeros": (["backends", "torch"], [[0] * 5056, []]),
    "torch short": (["backends", "torch"], [[1] * 5055, []]),
    "torch words": (["backends", "torch"], [[256] * 5056, []]),
    "torch cuda": (["backends", "torch", 1], [[0] * 15]),
    "tensorflow none": (["backends", "tensorflow"], None),
    "tensorflow no stream": (["backends", "tensorflow"], [7, None]),
    "tensorflow seed": (["backends", "tensorflow"], ["7", None]),
    "tensorflow words": (
        ["backends", "tensorflow"],
        [7, [3, [0] * 625, None]],
    ),
    "tensorflow stream": (["backends", "tensorflow"], [7, [3, [1], None]]),
}


@pytest.mark.sampled(6, alike=True)
@pytest.mark.parametrize("bad", BAD_TRIALS)
def test_hostile_trials(models, path, bad):
    """Counts, flags, seeds, states: each of its type, length and range."""
    with h5py.File(path, "r+") as content:
        change_trial(content, BAD_TRIALS[bad])
    refused(models, path)


def has_way(data, keys):
    """Whether there is something to be put in the place of."""
    for key in keys[:-1]:
        if isinstance(data, dict) and key not in data:
            return False
        data = data[key]
    return True


@pytest.mark.sampled(20, alike=True)
@pytest.mark.parametrize("where", ["start", "position", "evaluations"])
@pytest.mark.parametrize("bad", BAD_STREAMS)
def test_hostile_streams(models, path, bad, where):
    """A position from which no later training could draw is refused."""
    keys, value = BAD_STREAMS[bad]
    way = (*([where] if where != "evaluations" else [where, "test"]), *keys)
    with h5py.File(path, "r+") as content:
        if not has_way(json.loads(content.attrs["extra"]), way):
            pytest.skip("this backend has no such stream")
        change_trial(content, put(*way, value=value))
    refused(models, path, where)


def test_without_the_check_a_later_fit_raises(path, monkeypatch):
    """The twin: it is the check that keeps such a stream out."""
    model = make_model(5)
    with h5py.File(path, "r+") as content:
        change_trial(content, put("position", "python", 0, value=7))
        change_trial(content, put("start", "python", 0, value=7))
    monkeypatch.setattr(random_streams, "check_fields", lambda *_: None)
    model.load_initial_state(path)
    with pytest.raises(ValueError, match="state with version 7"):
        fit(model)


def test_the_largest_numbers_are_gone_on_with(path):
    """The twin: what is just within the ranges is taken up, and trains."""
    with h5py.File(path, "r+") as content:
        change_trial(content, put("seed", value=2**32 - 1))
        change_trial(content, put("epochs_trained", value=2**31 - 1))
        change_trial(content, put("start", "python", 1, 624, value=624))
        change_trial(content, put("start", "numpy", 2, value=624))
        change_trial(content, put("start", "keras", value=[2**31 - 1, 0]))
        change_trial(content, put("position", "numpy", 4, value=0.5))
    model = make_model(5)
    model.load_initial_state(path)
    assert model.seed == 2**32 - 1
    assert np.isfinite(fit(model)["loss"]).all()
    model.reset()
    assert np.isfinite(fit(model)["loss"]).all()


# --- .keras files --------------------------------------------------------


def put_asset(source, target, harm):
    """A copy of a `.keras` file with a changed initial state in it."""
    state = target.with_suffix(".h5")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == ASSET:
                state.write_bytes(data)
                with h5py.File(state, "r+") as content:
                    harm(content)
                data = state.read_bytes()
            new.writestr(name, data)
    return target


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    make_model().save(path)
    return path


def in_trial(change):
    return lambda content: change_trial(content, change)


IN_KERAS = {
    **{
        name: hostile.HARM[name]
        for name in (
            *("external_link", "virtual", "external", "never written"),
            *("inflated", "stray", "gone", "loop", "other values"),
        )
    },
    **{
        name: OWN_HARM[name]
        for name in ("huge shape held", "twin of itself", "last_gone")
    },
    "streams": in_trial(put("position", "numpy", 2, value=700)),
    "epochs": in_trial(put("epochs_trained", value=NAN)),
}


@pytest.mark.sampled(20, alike=True)
@pytest.mark.parametrize("harm", IN_KERAS)
def test_hostile_keras_files(saved, tmp_path, harm):
    """`load_model` raises for a bad initial state, as a load of one does."""
    path = put_asset(saved, tmp_path / "m.keras", IN_KERAS[harm])
    with pytest.raises(ValueError, match=r"An initial state must.*Received"):
        keras.saving.load_model(path)


@pytest.mark.slow
def test_good_keras_files(saved, tmp_path):
    """The twin: the same file, taken apart and put together again, loads."""
    path = put_asset(saved, tmp_path / "m.keras", lambda content: None)
    model, other = keras.saving.load_model(path), make_model()
    assert model.seed == other.seed
    assert kr.compute_checksum(model) == kr.compute_checksum(other)
    assert fit(model) == fit(other)
    model.reset()
    other.reset()
    assert fit(model) == fit(other)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "harm",
    [
        huge_constant,
        in_trial(put("random", value=[])),
        shaped("layers.3.kernel", "[1, 3]", "[1, 3]"),
    ],
    ids=["huge", "generators", "shape"],
)
def test_a_keras_file_that_does_not_fit_its_model(saved, tmp_path, harm):
    """Refused at each use, until the person says what the start is."""
    path = put_asset(saved, tmp_path / "m.keras", harm)
    model = keras.saving.load_model(path)
    for _ in range(2):
        with pytest.raises(ValueError, match="Received: initial_state"):
            fit(model)
    model.capture_initial_state()
    losses = fit(model)
    model.reset()
    assert fit(model) == losses
