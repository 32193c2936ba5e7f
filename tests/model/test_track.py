"""What a person hands over to a model with `track`, in loops of their own."""

import random
import warnings

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.runs.file import load_runs

L = keras.layers
BACKEND = keras.backend.backend()
X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = X.sum(axis=1, keepdims=True)


def make(seed=1):
    return kr.ReproducibleModel(
        [keras.Input((3,)), L.Dense(4, "tanh"), L.Dropout(0.2), L.Dense(1)],
        seed=seed,
    )


def step(model, optimizer):
    """One step as Keras' guides for this backend write it; the loss."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(X, training=True) - Y) ** 2)
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(loss, weights), weights)
    elif BACKEND == "torch":
        import torch

        model.zero_grad()
        target = torch.as_tensor(Y)
        loss = keras.ops.mean((model(X, training=True) - target) ** 2)
        loss.backward()
        weights = list(model.trainable_weights)
        with torch.no_grad():
            optimizer.apply([one.value.grad for one in weights], weights)
    else:
        import jax

        if not optimizer.built:
            optimizer.build(model.trainable_variables)

        def compute_loss(trained, others):
            out, others = model.stateless_call(
                trained, others, X, training=True
            )
            return keras.ops.mean((out - Y) ** 2), others

        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
        trained, others, slots = (
            [one.value for one in group] for group in groups
        )
        (loss, others), gradients = jax.value_and_grad(
            compute_loss, has_aux=True
        )(trained, others)
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        for group, values in zip(groups, (trained, others, slots), strict=True):
            for one, value in zip(group, values, strict=True):
                one.assign(value)
    return float(keras.ops.convert_to_numpy(loss))


def run_blocks(model, optimizer, seeds=(None, None, None)):
    results = []
    for seed in seeds:
        with model.trial(seed):
            results.append([step(model, optimizer) for _ in range(3)])
    return results


def test_a_loop_with_its_optimizer_is_repeated():
    """Its slots are put back, made in the loop or before; nothing is said."""
    model, optimizer = make(), keras.optimizers.Adam(0.1)
    model.track(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        first, second, third = run_blocks(model, optimizer)
        assert first == second == third
        seven, eight, again = run_blocks(model, optimizer, (7, 8, 7))
    assert seven == again != eight
    assert first[0] != first[1]


@pytest.mark.parametrize("gathered", [None, 2])
def test_without_its_optimizer_it_is_refused(gathered):
    """The twin: a trial that would begin with a moved optimizer is none."""
    options = {"gradient_accumulation_steps": gathered}
    model, optimizer = make(), keras.optimizers.Adam(0.1, **options)
    with model.trial():
        for _ in range(2):
            step(model, optimizer)
    for call in (model.reset, model.trial().__enter__):
        with pytest.raises(ValueError, match=r"model\.track\(optimizer"):
            call()
    with pytest.raises(ValueError, match="Make a new one"):
        model.track(optimizer)
    optimizer = keras.optimizers.Adam(0.1, **options)
    model.track(optimizer)
    first, second, third = run_blocks(model, optimizer)
    assert first == second == third


def test_a_loop_without_an_optimizer():
    """Who moves the weights by hand says that there is nothing more."""
    model = make()
    start = model.get_weights()
    kernel = model.layers[0].kernel
    with model.trial():
        kernel.assign(kernel - 1)
    with pytest.raises(ValueError, match="track"):
        model.reset()
    model.track()
    for _ in range(2):
        with model.trial():
            kernel.assign(kernel - 1)
    model.reset()
    for one, before in zip(model.get_weights(), start, strict=True):
        assert np.array_equal(one, before)


def test_an_optimizer_of_the_block():
    """One that the block makes is new in each, and need not be handed over."""
    model, make_optimizer = make(), keras.optimizers.Optimizer.__init__
    results = []
    for _ in range(3):
        with model.trial():
            optimizer = keras.optimizers.Adam(0.1)
            results.append([step(model, optimizer) for _ in range(3)])
    assert results[0] == results[1] == results[2]
    assert keras.optimizers.Optimizer.__init__ is make_optimizer


def test_a_call_trains_nothing():
    """Batch statistics move in it, and no optimizer is asked for."""
    model = kr.ReproducibleModel(
        [keras.Input((3,)), L.BatchNormalization()], seed=1
    )
    start = model.get_weights()
    with model.trial():
        model(X, training=True)
    assert not np.array_equal(model.get_weights()[2], start[2])
    model.reset()
    assert np.array_equal(model.get_weights()[2], start[2])


class Cursor:
    """An iterator whose state a person can read and set."""

    def __init__(self):
        self.place = 0

    def move(self):
        self.place += 1
        return self.place


class WithState(Cursor):
    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]


class WithStateDict(Cursor):
    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def next_of_seeds(generator):
    return np.asarray(keras.ops.convert_to_numpy(generator.next())).tolist()


def move_variable(variable):
    variable.assign(variable + 1)
    return float(keras.ops.convert_to_numpy(variable.value))


def move_metric(metric):
    metric.update_state([1.0, 3.0])
    return float(keras.ops.convert_to_numpy(metric.total.value))


def move_checkpoint(callback):
    callback.best = (callback.best or 0) + 1
    return callback.best


KINDS = {
    "random": (lambda: random.Random(3), lambda one: one.random()),
    "numpy": (lambda: np.random.default_rng(3), lambda one: one.random()),
    "legacy": (lambda: np.random.RandomState(3), lambda one: one.rand()),
    "seeds": (lambda: keras.random.SeedGenerator(3), next_of_seeds),
    "variable": (lambda: keras.Variable(2.0), move_variable),
    "metric": (keras.metrics.Mean, move_metric),
    "state": (WithState, Cursor.move),
    "state dict": (WithStateDict, Cursor.move),
    "callback": (
        lambda: keras.callbacks.ModelCheckpoint("x.keras"),
        move_checkpoint,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_put_back(kind):
    """From where it stood when it was handed over, however it has moved."""
    create, move = KINDS[kind]
    model, tracked, other = make(), create(), create()
    move(tracked), move(other)
    model.track(tracked, tracked)
    first = [move(tracked) for _ in range(3)]
    assert [move(other) for _ in range(3)] == first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Nothing has been trained.
        model.reset()
    assert [move(tracked) for _ in range(3)] == first
    # The twin: what was not handed over goes on.
    assert [move(other) for _ in range(3)] != first


@pytest.mark.parametrize("kind", ["numpy", "variable", "metric", "state"])
def test_handed_over_after_a_training(kind):
    """It begins where it stands; the model's start stays."""
    create, move = KINDS[kind]
    model, tracked = make(), create()
    model.compile("sgd", "mse")
    start = model.get_weights()[0]
    model.fit(X, Y, verbose=0)
    model.track(tracked)
    first = move(tracked)
    model.reset()
    assert move(tracked) == first
    assert np.array_equal(model.get_weights()[0], start)
    model.reset(seed=4)
    assert move(tracked) == first


@pytest.mark.requires_backend("torch")
def test_objects_of_torch():
    """A generator, and another library's optimizer in a loop of its own."""
    import torch

    model, noise = make(), torch.Generator().manual_seed(1)
    model(X)
    parameters = [one.value for one in model.trainable_weights]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
    model.track(optimizer, noise)

    def train():
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            shift = torch.rand(8, 3, generator=noise)
            loss = ((model(X + shift.numpy()) - torch.as_tensor(Y)) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    results = []
    for _ in range(3):
        with model.trial():
            results.append(train())
    assert results[0] == results[1] == results[2]
    with model.trial():
        train()
        assert train() != results[0]


@pytest.mark.parametrize("wrong", [3, "adam", None, [1], object(), Cursor()])
def test_another_kind_is_refused(wrong):
    """And then nothing is taken over."""
    model, generator = make(), random.Random(1)
    with pytest.raises(TypeError, match=r"(?s)`objects` must be .* Received: "):
        model.track(generator, wrong)
    first = generator.random()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.reset()
    assert generator.random() != first


def test_the_record_and_the_clone_have_it(tmp_path):
    """A run's record holds its checksum; a clone goes on with copies."""
    model, noise = make(), np.random.default_rng(3)
    model.compile("sgd", "mse")
    model.track(noise, keras.optimizers.SGD(0.5))
    checks = kr.ChecksumCallback(tmp_path / "runs.jsonl")
    draws = []

    class Draw(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            draws.append(noise.random())

    def train():
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[Draw(), checks])
        return draws[-2:]

    first = train()
    model.reset()
    assert train() == first
    assert checks.mismatch is None
    recorded = load_runs(tmp_path / "runs.jsonl")[0].records[-1].variables
    assert "tracked.0" in recorded["random"]
    assert any(one.startswith("tracked.1.") for one in recorded["optimizer"])
    copy = model.clone()
    model.reset()
    noise.random()
    with pytest.warns(kr.DriftWarning, match="tracked.0"):
        train()
    copy.reset()


def test_files_hold_the_model_alone(tmp_path):
    """A model that was handed something over is saved, loaded and restored."""
    model, seeds = make(), keras.random.SeedGenerator(3)
    model.compile("sgd", "mse")
    model.track(seeds, keras.Variable(1.0), keras.metrics.Mean())
    history = model.fit(X, Y, verbose=0).history
    first = next_of_seeds(seeds)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.reset()
    assert loaded.fit(X, Y, verbose=0).history == history
    model.save_initial_state(tmp_path / "start.h5")
    model.load_initial_state(tmp_path / "start.h5")
    assert next_of_seeds(seeds) == first
    assert model.fit(X, Y, verbose=0).history == history


def make_pipeline():
    """Data of the backend's own library that shuffle anew at each pass."""
    if BACKEND == "torch":
        import torch

        return torch.utils.data.DataLoader(
            torch.arange(8),
            shuffle=True,
            generator=torch.Generator().manual_seed(3),
        )
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.range(8).shuffle(8, seed=3)


def test_data_of_a_block():
    """A pass over data goes on within a block, and begins with the next."""
    model, data = make(), make_pipeline()

    def passes():
        return [[int(one) for one in data] for _ in range(2)]

    results = []
    for seed in (None, 5, None):
        with model.trial(seed):
            results.append(passes())
    assert results[0] == results[1] == results[2]
    assert results[0][0] != results[0][1]
    # The twin: outside a block the program's own data go on.
    assert passes() != passes()
    with model.trial():
        assert passes() == results[0]


def test_a_loop_of_ones_own_in_a_study():
    """`train` makes what it uses; nothing needs to be handed over."""

    def train(model):
        for one in model.trainable_weights:
            one.assign(0.5 * keras.ops.convert_to_numpy(one.value))
        return float(np.sum(model.get_weights()[0]))

    model = make()
    model.compile("sgd", "mse")
    scores = [
        kr.run_trials(model, train, seeds=seeds, progress=False).scores
        for seeds in ([1, 2], [2, 1])
    ]
    (first,), (second,) = (list(one.values()) for one in scores)
    assert list(first) == list(reversed(second))
    assert first[0] != first[1]


def test_a_block_that_fails_is_looked_at_too():
    """Its optimizer has moved all the same."""
    model, optimizer = make(), keras.optimizers.SGD(0.1)

    def fail():
        with model.trial():
            step(model, optimizer)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ValueError, match="track"):
        model.reset()
