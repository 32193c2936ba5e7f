"""The initial state: captured, kept in a file, checked, and put back."""

import hashlib
import json
import warnings

import h5py
import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends.random_streams import checksum_rng
from keras_repro.backends.variables import iterate_variables, read_variable
from tests import builders

pytestmark = pytest.mark.usefixtures("no_global_seed")
L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = X[:, :1] * 2
FIT = {"batch_size": 4, "verbose": 0}
ROLES = {"weights", "random", "optimizer"}


def make_model(seed=1, units=3, layers=(), inputs=True, **options):
    """A model under 40 weights, with a seeded dropout."""
    return builders.make_model(
        *(L.Dense(units), L.Dropout(0.3, seed=2), *layers),
        shape=(4,) if inputs else None,
        seed=seed,
        optimizer=keras.optimizers.Adam(0.05),
        **{"run_eagerly": True, **options},
    )


def fit(model, **options):
    return model.fit(X, Y, **{**FIT, **options}).history["loss"]


def snapshot(model):
    """All that an error must leave alone."""
    return (
        values(model),
        model.initial_state and model.initial_state.checksum,
        model.seed,
        model._repro.progress.at_start,
        model._repro.progress.has_trained,
        model._repro.progress.epochs,
        checksum_rng(model._repro.draws.position),
    )


def values(model, roles=ROLES):
    return {
        (place.role, place.place): read_variable(place.variable).tobytes()
        for place in iterate_variables(model)
        if place.role in roles
    }


def weights(model):
    return values(model, {"weights"})


def filled(model, value):
    """Weights of the right shapes that no initializer gives."""
    return [
        np.full(w.shape, value, w.dtype) + np.arange(w.size).reshape(w.shape)
        for w in model.get_weights()
    ]


def checksum_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.h5"


# --- capture -----------------------------------------------------------------


def test_no_state_before_build():
    """There is no initial state until there are variables."""
    model = make_model(inputs=False)
    assert model.initial_state is None
    model.build((None, 4))
    assert model.initial_state is not None


@pytest.mark.parametrize(
    "use",
    [
        lambda model, path: model.capture_initial_state(),
        lambda model, path: model.save_initial_state(path),
        lambda model, path: model.load_initial_state(path),
        lambda model, path: model.trial().__enter__(),
    ],
    ids=["capture", "save", "load", "trial"],
)
def test_needs_a_built_model(use, path):
    """What needs variables says so, and how to get them."""
    model = make_model(inputs=False)
    with pytest.raises(ValueError, match=r"built model\. Received: 'sequen"):
        use(model, path)
    assert not path.exists()
    model.build((None, 4))
    model.save_initial_state(path)
    use(model, path)


def test_captured_when_built():
    """The state holds the start, and training does not move it."""
    model = make_model()
    start, checksum = values(model), model.initial_state.checksum
    fit(model)
    assert values(model) != start
    assert model.initial_state.checksum == checksum
    model.reset()
    assert values(model, {"weights", "random"}) == {
        key: value
        for key, value in start.items()
        if key[0] in {"weights", "random"}
    }


@pytest.mark.parametrize("how", ["build", "call", "add"])
def test_late_build_captures_at_once(how):
    """What is assigned after a late build comes after the start."""
    if how == "add":
        model = kr.ReproducibleModel(seed=1)
        for layer in (keras.Input((4,)), L.Dense(1)):
            model.add(layer)
    else:
        model = make_model(inputs=False)
        model.build((None, 4)) if how == "build" else model(X)
    start = weights(model)
    assert weights(model) == start
    model.layers[-1].bias.assign([7.0])
    with pytest.warns(UserWarning, match="has not trained"):
        model.reset()
    assert weights(model) == start


@pytest.mark.parametrize("how", ["build", "call", "add"])
@pytest.mark.parametrize("seed", [None, 1])
def test_asking_for_the_seed_changes_nothing(how, seed):
    """Weights that a person has seen stay, whatever is read later."""
    if how == "add":
        model = kr.ReproducibleModel(seed=seed)
        for layer in (keras.Input((4,)), L.Dense(1)):
            model.add(layer)
    else:
        model = make_model(seed=seed, inputs=False)
        model.build((None, 4)) if how == "build" else model(X)
    start = weights(model)
    assert isinstance(model.seed, int)
    assert model.initial_state is not None
    assert weights(model) == start


def test_capture_initial_state_moves_the_start():
    """After `capture_initial_state` a reset goes there, under any seed."""
    model = make_model()
    first = weights(model)
    fit(model)
    kept = weights(model)
    assert kept != first
    model.capture_initial_state()
    losses = fit(model)
    model.reset()
    assert weights(model) == kept
    assert fit(model) == losses
    model.reset(seed=9)
    assert weights(model) == kept
    assert fit(model) != losses


def test_repr_and_checksum():
    """The state shows its size, and another start has another checksum."""
    one, same, other = (make_model(seed).initial_state for seed in (1, 1, 2))
    assert repr(one) == (
        f"<InitialState of {len(one.entries)} variables, "
        f"{one.nbytes:,} bytes, checksum {one.checksum}>"
    )
    assert one.checksum == same.checksum
    assert one.checksum != other.checksum


def test_memory_with_adam():
    """One host copy of the weights; Adam's slots cost next to nothing."""
    model = kr.ReproducibleModel([keras.Input((64,)), L.Dense(64)], seed=1)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.capture_initial_state()
    size = sum(weight.nbytes for weight in model.get_weights())
    slots = sum(read_variable(v).nbytes for v in model.optimizer.variables)
    assert slots >= 2 * size
    assert 0.9 * size <= model.initial_state.nbytes <= 1.1 * size
    # Slots that hold something are kept in full.
    for number, slot in enumerate(model.optimizer.variables[2:]):
        slot.assign(np.arange(slot.value.shape[-1]) + 100.0 * number + slot)
    model.capture_initial_state()
    assert model.initial_state.nbytes > 2.9 * size


# --- HDF5 --------------------------------------------------------------------


def test_round_trip(path):
    """A state that was saved is the same start in another model."""
    model = make_model()
    start = weights(model)
    model.save_initial_state(path)
    losses = fit(model, epochs=2)
    other = make_model(seed=5)
    assert weights(other) != start
    other.load_initial_state(str(path))
    assert (other.seed, weights(other)) == (1, start)
    assert other.initial_state.checksum == model.initial_state.checksum
    assert fit(other, epochs=2) == losses
    other.reset()
    assert fit(other, epochs=2) == losses
    other.reset(seed=5)
    assert fit(other, epochs=2) != losses


def test_round_trip_in_the_middle(path):
    """The file holds the start, not what was trained since."""
    model = make_model()
    losses = fit(model)
    trained = weights(model)
    model.save_initial_state(path)
    assert weights(model) == trained
    other = make_model(seed=5)
    other.load_initial_state(path)
    assert weights(other) != trained
    assert fit(other) == losses


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_keep_their_bits(path, dtype):
    """Variables of any dtype are captured, saved and put back bitwise."""
    model = kr.ReproducibleModel(
        [keras.Input((4,)), L.Dense(3, dtype=dtype)], seed=1
    )
    start = weights(model)
    assert {e.value.dtype.name for e in model.initial_state.entries} == {dtype}
    model.save_initial_state(path)
    model.layers[0].kernel.assign(model.layers[0].kernel * 2)
    assert weights(model) != start
    model.capture_initial_state()
    model.load_initial_state(path)
    assert weights(model) == start
    model.reset()
    assert weights(model) == start


def test_save_replaces_an_older_file(path):
    """A newer state takes the place of the older one, and leaves no other."""
    make_model(1).save_initial_state(path)
    before = checksum_of(path)
    make_model(2).save_initial_state(path)
    assert checksum_of(path) != before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# --- bad files ---------------------------------------------------------------


def flip_one_bit(file):
    file[min(file)][0] ^= 1


def other_format(file):
    file.attrs["format"] = "keras_repro.initial_state/99"


def no_format(file):
    del file.attrs["format"]


def drop_variable(file):
    del file[min(file)]


def shorten_variable(file):
    name = min(file)
    attributes, rest = dict(file[name].attrs), file[name][:-4]
    del file[name]
    file.create_dataset(name, data=rest).attrs.update(attributes)


def drop_attribute(file):
    del file[min(file)].attrs["dtype"]


def unknown_dtype(file):
    file[min(file)].attrs["dtype"] = "float33"


def stray_group(file):
    file.create_group("stray")


def drop_extra(file):
    del file.attrs["extra"]


def tear_extra(file):
    file.attrs["extra"] = file.attrs["extra"][:40]


def change_extra(file):
    extra = json.loads(file.attrs["extra"])
    file.attrs["extra"] = json.dumps({**extra, "seed": 99})


def thin_extra(file):
    extra = json.loads(file.attrs["extra"])
    del extra["position"]
    file.attrs["extra"] = json.dumps(extra)


DAMAGES = {
    flip_one_bit: "checksum",
    other_format: "format",
    no_format: "format",
    drop_variable: "'000000': it is not there",
    shorten_variable: "damaged",
    drop_attribute: "damaged",
    unknown_dtype: "damaged",
    stray_group: "damaged",
    drop_extra: "damaged",
    tear_extra: "damaged",
    change_extra: "damaged",
    thin_extra: "damaged",
}


def refused(model, path, error, match):
    """The load fails as it must, and neither model nor file has changed."""
    before = snapshot(model)
    on_disk = checksum_of(path) if path.is_file() else None
    with pytest.raises(error) as caught:
        model.load_initial_state(path)
    assert snapshot(model) == before
    assert (checksum_of(path) if path.is_file() else None) == on_disk
    assert "Received: " in str(caught.value)
    assert match in str(caught.value)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damaged_file(path, damage):
    """A file that is not what was written is refused, whatever broke."""
    make_model(1).save_initial_state(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    model = make_model(2)
    fit(model)
    refused(model, path, ValueError, DAMAGES[damage])
    # The twin: an undamaged file is taken.
    make_model(1).save_initial_state(path)
    model.load_initial_state(path)
    assert model.seed == 1


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" * 9])
def test_not_an_hdf5_file(path, content):
    """Another kind of file is named as such."""
    path.write_bytes(content)
    refused(make_model(2), path, ValueError, str(path))


def test_torn_file(path):
    """Half a file is no state."""
    make_model(1).save_initial_state(path)
    path.write_bytes(path.read_bytes()[:9000])
    refused(make_model(2), path, ValueError, str(path))


def test_missing_file(path):
    """A file that is not there is a `FileNotFoundError` with its name."""
    refused(make_model(2), path, FileNotFoundError, str(path))


def test_folder_instead_of_file(tmp_path):
    """A folder cannot be read as a state."""
    refused(make_model(2), tmp_path, (ValueError, OSError), str(tmp_path))


@pytest.mark.parametrize(
    "other",
    [
        lambda: make_model(units=4),
        lambda: make_model(layers=[L.Dense(3)]),
        lambda: make_model(layers=[L.BatchNormalization()]),
    ],
    ids=["other width", "one layer more", "another kind of layer"],
)
def test_other_architecture(path, other):
    """A state of another model is refused, and both sides are listed."""
    other().save_initial_state(path)
    model = make_model(2)
    fit(model)
    refused(model, path, ValueError, "layers.")
    make_model(1).save_initial_state(path)
    model.load_initial_state(path)


def test_other_optimizer_is_no_other_architecture(path):
    """Another optimizer starts at its own start."""
    make_model(1).save_initial_state(path)
    model = make_model(1)
    start = weights(model)
    model.compile("sgd", "mse")
    losses = fit(model)
    model.load_initial_state(path)
    assert weights(model) == start
    assert fit(model) == losses
    assert fit(model) != losses


@pytest.mark.sampled(2)
@pytest.mark.parametrize("inputs", [True, False], ids=["built", "late"])
def test_slots_that_the_file_lacks_go_back_to_their_start(path, inputs):
    """What an optimizer of another kind has trained is no start of it."""
    donor = make_model(1)
    donor.compile("sgd", "mse")
    donor.save_initial_state(path)
    model, fresh = (make_model(1, inputs=inputs) for _ in range(2))
    for one in (model, fresh):
        one(X)
    fresh.load_initial_state(path)
    expected = fit(fresh)
    fit(model)
    model.load_initial_state(path)
    assert fit(model) == expected
    assert fit(model) != expected


@pytest.mark.parametrize("wrong", [3, None, b"x.h5", ["x.h5"]], ids=repr)
@pytest.mark.parametrize("use", ["save_initial_state", "load_initial_state"])
def test_wrong_type_of_path(use, wrong):
    """A path is a string or a path object."""
    model = make_model()
    before = snapshot(model)
    with pytest.raises(TypeError, match=r"`path` must be .*Received: "):
        getattr(model, use)(wrong)
    assert snapshot(model) == before


@pytest.mark.parametrize("where", ["missing folder", "folder", "below a file"])
def test_unwritable_path(tmp_path, where):
    """Where nothing can be written, nothing is lost and nothing is left."""
    (tmp_path / "file").write_text("kept")
    path = {
        "missing folder": tmp_path / "missing" / "x.h5",
        "folder": tmp_path,
        "below a file": tmp_path / "file" / "x.h5",
    }[where]
    model = make_model()
    before = snapshot(model)
    with pytest.raises(OSError, match="Received: ") as caught:
        model.save_initial_state(path)
    assert str(path) in str(caught.value)
    assert snapshot(model) == before
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


# --- the structure changed ---------------------------------------------------


def add_layer(model):
    model.add(L.Dense(2))


def pop_layer(model):
    model.pop()


def enable_lora(model):
    model.layers[0].enable_lora(2)


def quantize(model):
    with warnings.catch_warnings():
        # Keras says that an `InputLayer` and a `Dropout` have no weights.
        warnings.filterwarnings("ignore", ".*`quantize` method implemented")
        model.quantize("int8")


CHANGES = {
    add_layer: ("appeared ['layers.3.kernel', 'layers.3.bias'], gone []"),
    pop_layer: ("appeared [], gone ['layers.2.kernel', 'layers.2.bias']"),
    enable_lora: (
        "appeared ['layers.0.lora_kernel_a', 'layers.0.lora_kernel_b']"
    ),
    quantize: "kernel_scale",
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changed_structure_after_training(change):
    """A trained model whose variables changed is refused, and told why."""
    model = make_model()
    fit(model)
    model.reset()  # The twin: before the change it can be reset.
    fit(model)
    change(model)
    before = weights(model)
    with pytest.raises(ValueError, match="Received: ") as caught:
        model.reset()
    assert CHANGES[change] in str(caught.value)
    assert "capture_initial_state()" in str(caught.value)
    assert weights(model) == before
    model.capture_initial_state()
    model.reset()
    assert weights(model) == before


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changed_structure_before_training(change):
    """Changing the layers of an untrained model is set-up."""
    model = make_model()
    change(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Or it may say what it undoes.
        model.reset()
    start = weights(model)
    model.reset()
    assert weights(model) == start


# --- set-up before training --------------------------------------------------


def test_reset_before_training_warns_once():
    """Undoing what somebody assigned is told once, by name."""
    model = make_model()
    start = weights(model)
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="has not trained") as caught:
        model.reset()
    caught = [w for w in caught if "has not trained" in str(w.message)]
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "layers.0.bias." in text
    assert "kernel" not in text
    assert "capture_initial_state()" in text
    assert caught[0].filename == __file__
    assert weights(model) == start
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    model.reset()  # Warnings are errors here.
    assert weights(model) == start


def test_reset_of_an_untouched_model_is_silent():
    """Where nothing is lost, nothing is said."""
    model = make_model()
    start = weights(model)
    model.reset()
    model.predict(X, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.reset()
    assert weights(model) == start


def load_from_file(model, new, path):
    donor = make_model(seed=8)
    if model.optimizer.built:
        donor.optimizer.build(donor.trainable_variables)
    donor.set_weights(new)
    donor.save_weights(path.with_suffix(".weights.h5"))
    with warnings.catch_warnings():
        # Keras says that an optimizer without slots has none to load.
        warnings.filterwarnings("ignore", "Skipping variable loading")
        model.load_weights(path.with_suffix(".weights.h5"))


def set_directly(model, new, path):
    model.set_weights(new)


def assign_each(model, new, path):
    for variable, value in zip(model.weights, new, strict=True):
        variable.assign(value)


SETUPS = [load_from_file, set_directly]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("setup", [*SETUPS, assign_each])
@pytest.mark.parametrize("inputs", [True, False], ids=["built", "late"])
@pytest.mark.parametrize("seed", [None, 9])
def test_setup_before_training_is_the_start(path, setup, inputs, seed):
    """What was loaded before any training survives every reset."""
    model = make_model(inputs=inputs)
    if not inputs:
        model.build((None, 4))
    new = filled(model, 0.5)
    setup(model, new, path)
    fit(model)
    model.reset(seed=seed)
    got = model.get_weights()
    assert [a.tolist() for a in got] == [a.tolist() for a in new]
    fit(model)
    assert model.get_weights()[0].tolist() != new[0].tolist()


@pytest.mark.parametrize("setup", SETUPS)
def test_setup_without_training_is_the_start(path, setup):
    """A reset right after loading goes to what was loaded, silently."""
    model = make_model()
    new = filled(model, 0.5)
    setup(model, new, path)
    model.reset()
    assert model.get_weights()[0].tolist() == new[0].tolist()
    model.reset(seed=3)
    assert model.get_weights()[0].tolist() == new[0].tolist()


@pytest.mark.parametrize("setup", SETUPS)
def test_loading_after_training_is_not_the_start(path, setup):
    """After training has begun, loading moves nothing."""
    model = make_model()
    start = weights(model)
    fit(model)
    setup(model, filled(model, 0.5), path)
    assert weights(model) != start
    model.reset()
    assert weights(model) == start


def fail_before_compile(model):
    plain = make_model(1)
    assert type(model) is type(plain)
    model.compiled = False
    try:
        with pytest.raises(ValueError, match="compile"):
            model.fit(X, Y, verbose=0)
    finally:
        model.compiled = True


def fail_on_data(model):
    with pytest.raises(ValueError, match="cardinality"):
        model.fit(X, Y[:3], verbose=0)


@pytest.mark.parametrize("fail", [fail_before_compile, fail_on_data])
def test_failed_call_is_no_training(fail):
    """A `fit` that never took a step leaves the model untrained."""
    model = make_model()
    fail(model)
    new = filled(model, 0.5)
    model.set_weights(new)
    fit(model)
    model.reset()
    assert model.get_weights()[0].tolist() == new[0].tolist()


# Keras says that an optimizer without slots has none to load.
@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")
@pytest.mark.parametrize("copy", ["clone", "keras file"])
def test_copy_of_an_untrained_model_is_untrained(tmp_path, copy):
    """What is loaded into a fresh copy becomes the start of the copy."""
    model = make_model()
    if copy == "clone":
        other = model.clone()
    else:
        model.save(tmp_path / "m.keras")
        other = keras.saving.load_model(tmp_path / "m.keras")
    assert other.initial_state.checksum == model.initial_state.checksum
    new = filled(model, 0.5)
    other.set_weights(new)
    fit(other)
    other.reset()
    assert other.get_weights()[0].tolist() == new[0].tolist()


@keras.saving.register_keras_serializable("test_initial_state")
class Pair(keras.Model):
    """A plain model of two of ours, of which it calls the first."""

    def __init__(self, first, second, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = first, second

    def call(self, x):
        return self.first(x)

    def get_config(self):
        kept = {"first": self.first, "second": self.second}
        return {
            name: keras.saving.serialize_keras_object(one)
            for name, one in kept.items()
        }

    @classmethod
    def from_config(cls, config):
        loaded = map(keras.saving.deserialize_keras_object, config.values())
        return cls(*loaded)


# Keras says of the second that it is not built.
@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")
@pytest.mark.filterwarnings("ignore:.*`build..` was called:UserWarning")
def test_one_of_two_models_was_never_built(tmp_path):
    """In a file, the one has a start and the other has none."""
    unbuilt = kr.ReproducibleModel([keras.layers.Dense(1)])
    pair = Pair(make_model(), unbuilt)
    pair(np.ones((2, 4), "float32"))
    pair.save(tmp_path / "pair.keras")
    loaded = keras.saving.load_model(tmp_path / "pair.keras")
    wanted = pair.first.initial_state.checksum
    assert loaded.first.initial_state.checksum == wanted
    assert not loaded.second.built


# --- while it trains ---------------------------------------------------------


class CallInside(keras.callbacks.Callback):
    """Calls the model in the middle of an epoch."""

    def __init__(self, method, *args):
        super().__init__()
        self.method, self.args, self.error = method, args, None

    def on_train_batch_end(self, batch, logs=None):
        try:
            getattr(self.model, self.method)(*self.args)
        except RuntimeError as error:
            self.error = str(error)


@pytest.mark.parametrize(
    ("method", "args"),
    [("reset", ()), ("reset", (3,)), ("capture_initial_state", ())],
)
def test_refused_while_fit_runs(method, args):
    """A reset in the middle of a training is refused, and changes nothing."""
    model = make_model()
    losses = fit(model)
    trained = values(model)
    model.reset()
    inside = CallInside(method, *args)
    assert fit(model, callbacks=[inside]) == losses
    assert "Received: a call while `fit` runs" in inside.error
    assert values(model) == trained
    getattr(model, method)(*args)  # Allowed again.
    assert values(model) != trained or method == "capture_initial_state"


class BreakEvaluation(keras.callbacks.Callback):
    """Interrupts an evaluation."""

    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt

    on_predict_batch_end = on_test_batch_end


@pytest.mark.sampled(4)
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_reset_after_an_interrupted_evaluation(trained, method):
    """A reset repairs a model that an interrupt left without values."""
    model = make_model()
    start = weights(model)
    losses = fit(model)
    model.reset()
    if not trained:
        model = make_model()
    data = {"x": X, "y": Y} if method == "evaluate" else {"x": X}
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(
            **data, batch_size=4, verbose=0, callbacks=[BreakEvaluation()]
        )
    model.reset()
    assert weights(model) == start
    assert fit(model) == losses
    assert fit(model) != losses


def test_interrupted_evaluation_steers_no_training():
    """Random layers go on as if the evaluation had not been."""
    model = make_model(layers=[NoiseAlways()])
    fit(model)
    before = values(model, {"random"})
    with pytest.raises(KeyboardInterrupt):
        model.evaluate(
            X, Y, batch_size=4, verbose=0, callbacks=[BreakEvaluation()]
        )
    if keras.backend.backend() == "jax":
        model.reset()  # JAX gave the values away.
        fit(model)
    assert values(model, {"random"}) == before
    fit(model)
    assert values(model, {"random"}) != before


class NoiseAlways(L.Layer):
    """Adds noise in evaluation too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)

    def call(self, inputs):
        return inputs + keras.random.normal((1,), seed=self.generator)


FULL_DISK = """
import resource, signal, sys
import keras, numpy as np
import keras_repro as kr

model = kr.ReproducibleModel([keras.Input((50,)), keras.layers.Dense(500)])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
try:
    model.save_initial_state("state.h5")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.alike
@pytest.mark.slow
def test_full_disk(tmp_path, run_python):
    """A state that cannot be written whole is an error, and not there."""
    pytest.importorskip("resource")
    script = tmp_path / "full_disk.py"
    script.write_text(FULL_DISK, encoding="utf-8")
    files = {script}
    assert run_python(script, 50_000).stdout.split()[-1] == "OSError"
    assert set(tmp_path.iterdir()) == files
    # The twin: with room enough it is there.
    run_python(script, 10_000_000)
    assert (tmp_path / "state.h5").exists()


@pytest.mark.parametrize("units", [3, 70_000])  # Also more than a megabyte.
@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, np.nan])
def test_one_number_for_all_is_put_back_bit_for_bit(value, units):
    """The sign of a zero too, whatever way the size is filled by."""
    model = kr.ReproducibleModel([keras.Input((4,)), L.Dense(units)])
    wanted = np.full((4, units), value, "float32")
    model.layers[0].kernel.assign(wanted)
    model.capture_initial_state()
    model.layers[0].kernel.assign(np.full((4, units), 2.0, "float32"))
    assert read_variable(model.layers[0].kernel).tobytes() != wanted.tobytes()
    with pytest.warns(UserWarning, match="kernel"):
        model.reset()
    assert read_variable(model.layers[0].kernel).tobytes() == wanted.tobytes()
