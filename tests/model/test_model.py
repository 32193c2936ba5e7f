"""What a reproducible model promises beyond the conformance table."""

from __future__ import annotations

import random
import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends import keras_internals
from keras_repro.model import data_order, data_positions
from tests.builders import make_model

pytestmark = pytest.mark.requires_backend()
BACKEND = keras.backend.backend()
L = keras.layers
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


def make(seed: int | None = None, **kwargs: Any) -> Any:
    """A small compiled model with dropout."""
    layers = [L.Dense(6, activation="relu"), L.Dropout(0.2)]
    return make_model(*layers, seed=seed, optimizer="adam", **kwargs)


def make_deferred(seed: int | None = None) -> Any:
    """The same model without an `Input`."""
    return make(seed, shape=None)


def fit(model: Any, **kwargs: Any) -> list[float]:
    """The training losses of two epochs."""
    kwargs = {"epochs": 2, "verbose": 0, **kwargs}
    losses: list[float] = model.fit(X, Y, **kwargs).history["loss"]
    return losses


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """What seed 3 gives."""
    return fit(make(seed=3))


def test_seed_names_the_trial(expected: list[float]) -> None:
    """A seed in the constructor and one in `reset` draw the same trial."""
    model = make(seed=4)
    assert fit(model) != expected
    model.reset(seed=3)
    assert fit(model) == expected
    assert model.seed == 3


def test_draws_by_the_program_change_no_trial(expected: list[float]) -> None:
    """Draws between building and training leave the first trial alone."""
    model = make(seed=3)
    random.random()
    np.random.random(5)
    keras.random.normal((3,))
    assert fit(model) == expected


def test_trial_leaves_the_program_alone() -> None:
    """The program's generators go on as if there had been no training."""

    def draw() -> list[float]:
        noise = keras.ops.convert_to_numpy(keras.random.normal((1,)))
        return [random.random(), np.random.random(), float(noise[0])]

    model = make(seed=3)
    kr.seed_everything(1, deterministic=False)
    draw()
    alone = draw()
    kr.seed_everything(1, deterministic=False)
    draw()
    fit(model)
    model.reset(seed=5)
    model.evaluate(X, Y, verbose=0)
    assert draw() == alone
    assert draw() != alone


def test_evaluation_first_changes_nothing(expected: list[float]) -> None:
    """Evaluating or predicting before training does not steer it."""
    model = make(seed=3)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    assert fit(model) == expected


@pytest.mark.sampled(4)
@pytest.mark.parametrize("first", ["nothing", "evaluate", "reset", "call"])
def test_deferred_build_is_the_same_trial(
    first: str, expected: list[float]
) -> None:
    """A model built late trains as one built early, however it is built."""
    model = make_deferred(seed=3)
    if first == "evaluate":
        model.evaluate(X, Y, verbose=0)
    elif first == "reset":
        model.reset(seed=3)
    elif first == "call":
        model(X[:2])
    assert fit(model) == expected
    model.reset()
    assert fit(model) == expected


def test_validation_data_changes_no_training(expected: list[float]) -> None:
    """Validation inside `fit` draws from a stream of its own."""
    assert fit(make(seed=3), validation_data=(X, Y)) == expected


def test_unseeded_run_can_be_repeated() -> None:
    """The seed that an unseeded model took gives the same run again."""
    random.seed()
    keras_internals._global_state().set_global_attribute(
        "global_random_seed", None
    )
    model = make()
    first = fit(model)
    other = make()
    assert fit(make(seed=model.seed)) == first
    assert model.seed != other.seed
    assert fit(other) != first


def test_training_in_two_parts_equals_one(expected: list[float]) -> None:
    """A second `fit` without reset continues streams and data order."""
    del expected
    whole, parts = make(seed=3), make(seed=3)
    losses = fit(whole, epochs=4)
    assert fit(parts) + fit(parts) == losses
    parts.reset()
    fit(parts)
    assert fit(parts, initial_epoch=2, epochs=4) == losses[2:]
    parts.reset()
    assert fit(parts) != losses[2:]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("way", ["file", "pickle", "clone"])
def test_start_travels(way: str, tmp_path: Any, expected: list[float]) -> None:
    """Saved, pickled and cloned models keep start, seed and streams."""
    model = make(seed=3)
    fit(model)
    if way == "file":
        model.save(tmp_path / "model.keras")
        copy = keras.saving.load_model(tmp_path / "model.keras")
    elif way == "pickle":
        import pickle

        copy = pickle.loads(pickle.dumps(model))
    else:
        copy = model.clone()
    assert copy.seed == 3
    assert fit(copy) == fit(model)
    copy.reset()
    assert fit(copy) == expected
    copy.reset(seed=4)
    assert fit(copy) == fit(make(seed=4))


def test_make_reproducible_of_a_subclass_travels(tmp_path: Any) -> None:
    """A subclass that was adopted keeps its class and its start."""
    base = keras.Sequential([keras.Input((4,)), L.Dense(1)])
    base.compile("adam", "mse")
    weights = base.get_weights()
    model = kr.make_reproducible(base)
    assert model is base
    assert isinstance(model, keras.Sequential)
    first = fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.reset()
    assert all(
        np.array_equal(a, b)
        for a, b in zip(weights, loaded.get_weights(), strict=True)
    )
    assert fit(loaded) == first


def test_trial_block_draws_from_the_trial() -> None:
    """Code in a `trial` block belongs to the trial; the program's goes on."""
    model = make(seed=3)
    results = []
    for seed in (7, 7, 8):
        np.random.seed(1)
        with model.trial(seed=seed):
            inside = np.random.random()
            results.append((inside, fit(model), fit(model)))
        outside = np.random.random()
        np.random.seed(1)
        assert outside == np.random.random()
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert results[0][1] != results[0][2]


def test_trial_block_puts_back_after_an_exception() -> None:
    """An exception in a block leaves the program's generators in place."""
    model = make(seed=3)
    random.seed(5)
    with pytest.raises(KeyError), model.trial():
        {}[random.random()]
    after = random.random()
    random.seed(5)
    assert random.random() == after


def test_reset_retraces_nothing() -> None:
    """Trials by `reset` run the training step that was traced first."""
    traces = []

    class Counting(L.Layer):
        def call(self, inputs: Any) -> Any:
            traces.append(1)
            return inputs

    model = make_model(Counting(), optimizer="adam")
    first = fit(model)
    count = len(traces)
    model.reset()
    second = fit(model)
    model.reset(seed=9)
    model.reset()
    if BACKEND == "torch":  # Eager: each step calls the layer.
        assert len(traces) > count
    else:
        # Drawing a seed makes one copy of each layer, and calls none.
        assert len(traces) == count
    assert first == second
    model.compile("adam", "mse")
    fit(model)
    assert len(traces) > count


def test_reset_is_refused_while_training() -> None:
    """A reset from a callback raises and leaves the training be."""
    model = make(seed=3)

    class Resets(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.reset()

    with pytest.raises(RuntimeError, match="Received: a call while"):
        fit(model, callbacks=[Resets()])
    model.reset()


@pytest.mark.parametrize(
    ("seed", "error"),
    [(-1, ValueError), (2**32, ValueError), ("1", TypeError), (1.0, TypeError)],
)
def test_bad_seed_changes_nothing(seed: Any, error: type[Exception]) -> None:
    """A bad seed is refused everywhere, and the model stays as it was."""
    model = make(seed=3)
    before = kr.compute_checksum(model)
    with pytest.raises(error, match="Received"):
        model.reset(seed=seed)
    with pytest.raises(error, match="Received"):
        make(seed=seed)
    with pytest.raises(error, match="Received"):
        kr.make_reproducible(keras.Sequential([L.Dense(1)]), seed=seed)
    assert kr.compute_checksum(model) == before
    assert model.seed == 3


def test_make_reproducible_wants_a_model() -> None:
    """Anything but a Keras model is refused by name."""
    with pytest.raises(TypeError, match="Received: 3"):
        kr.make_reproducible(3)


def test_unbuilt_model_says_what_to_do() -> None:
    """What needs a start says that the model must be built."""
    model = make_deferred()
    assert model.initial_state is None
    for call in (
        model.capture_initial_state,
        lambda: model.save_initial_state("x"),
        lambda: model.load_initial_state("x"),
        lambda: model.trial().__enter__(),
    ):
        with pytest.raises(ValueError, match=r"needs a built model\. Received"):
            call()


def test_pretrained_weights_stay_under_every_seed() -> None:
    """A seed draws the new layers, and leaves loaded ones as they are."""
    body = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    body.set_weights([np.full((4, 3), 0.25), np.zeros(3)])
    head = L.Dense(1)
    model = kr.ReproducibleModel([keras.Input((4,)), body, head], seed=1)
    drawn = head.get_weights()[0]
    model.reset(seed=2)
    assert (body.get_weights()[0] == 0.25).all()
    assert not np.array_equal(head.get_weights()[0], drawn)


@pytest.mark.parametrize("shuffle", [True, "batch"])
def test_order_is_a_function_of_seed_and_epoch(shuffle: Any) -> None:
    """Batches come in the order that seed and epoch give, on each backend."""
    seen: list[list[int]] = []

    class Recording(kr.ReproducibleModel):
        def __init__(self) -> None:
            super().__init__(seed=11)
            self.dense = L.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

        def train_step(self, *args: Any) -> Any:
            batch = args[-1][0]
            rows = keras.ops.convert_to_numpy(batch)[:, 0]
            seen.append(rows.astype(int).tolist())
            return super().train_step(*args)

    model = Recording()
    model.compile("sgd", "mse", run_eagerly=True)
    rows = np.arange(10, dtype="float32")[:, None]
    model.fit(rows, rows, epochs=2, batch_size=4, shuffle=shuffle, verbose=0)
    expected = []
    for epoch in range(2):
        order = (
            data_order.epoch_order(11, epoch, 10)
            if shuffle is True
            else data_order.epoch_order_within_batches(11, epoch, 10, 4)
        )
        expected += [order[i : i + 4].tolist() for i in (0, 4, 8)]
    assert seen == expected
    assert seen[:3] != seen[3:]
    assert sorted(row for batch in seen[:3] for row in batch) == list(range(10))


def test_order_is_held_still() -> None:
    """Golden orders: another NumPy or version must not move them."""
    assert data_order.epoch_order(42, 0, 8).tolist() == GOLDEN_ORDERS[0]
    assert data_order.epoch_order(42, 1, 8).tolist() == GOLDEN_ORDERS[1]
    assert data_order.epoch_order(43, 0, 8).tolist() != GOLDEN_ORDERS[0]


GOLDEN_ORDERS = ([5, 0, 3, 2, 7, 4, 1, 6], [7, 4, 0, 2, 1, 5, 3, 6])


@pytest.mark.slow
def test_pandas_and_nested_inputs_train() -> None:
    """What Keras takes as arrays keeps working, and repeats."""
    pandas = pytest.importorskip("pandas")
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    out = L.Dense(1)(L.Concatenate()([a, b]))
    model = kr.ReproducibleModel({"a": a, "b": b}, out, seed=3)
    model.compile("sgd", "mse")
    frame = pandas.DataFrame(X)
    arrays = {"a": X[:, :2], "b": X[:, 2:]}
    frames = {"a": frame[[0, 1]], "b": frame[[2, 3]]}
    results = []
    for inputs in (arrays, frames):
        model.reset()
        history = model.fit(
            inputs, Y, epochs=2, batch_size=7, validation_split=0.25, verbose=0
        )
        results.append(history.history)
    assert results[0] == results[1]


def test_data_that_cannot_be_rewound_is_named() -> None:
    """A generator is consumed, and the trial's notes say so."""

    def batches() -> Any:
        while True:
            yield X[:8], Y[:8]

    model = make(seed=3)
    model.fit(batches(), steps_per_epoch=2, epochs=1, shuffle=False, verbose=0)
    assert "generator is consumed" in model._repro.data.notes[0]
    fit(model)
    assert model._repro.data.notes == []


def test_setup_after_build_becomes_the_start() -> None:
    """Weights assigned before the first training are what reset gives."""
    model = make(seed=3)
    model.layers[0].kernel.assign(np.ones((4, 6)))
    first = fit(model)
    model.reset()
    assert (model.layers[0].get_weights()[0] == 1.0).all()
    assert fit(model) == first


@pytest.mark.slow
def test_application_model_is_adopted() -> None:
    """A model from `keras.applications` gets the same powers, in place."""
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=2, alpha=0.35
    )
    assert kr.make_reproducible(model) is model
    model.compile("adam", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).uniform(size=(8, 32, 32, 3))
    labels = np.arange(8) % 2

    def train() -> Any:
        return model.fit(images, labels, batch_size=4, verbose=0).history

    first = train()
    assert train() != first
    model.reset()
    assert train() == first


@pytest.mark.slow
def test_frozen_before_compile_stays_frozen() -> None:
    """Flags that a later `compile` has read belong to the start."""
    model = make(seed=3)
    fit(model)
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    model.reset()
    assert model.layers[0].trainable is False
    start = model.layers[0].get_weights()[0]
    fit(model)
    assert np.array_equal(model.layers[0].get_weights()[0], start)


def test_keras_is_left_as_it_was() -> None:
    """A training leaves Keras' global seed generator where it stood."""
    kr.seed_everything(3, deterministic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(make(seed=3))
    assert keras_internals.get_global_generator() is None


class Wrapper(kr.ReproducibleModel):
    """A subclass that is functional inside."""

    def __init__(self, seed: int | None = None) -> None:
        inputs = keras.Input((4,))
        super().__init__(inputs, L.Dense(1)(inputs), seed=seed)


def test_functional_subclass_keeps_its_class_whole() -> None:
    """A subclass may be functional inside, and is the class that was called."""
    model = Wrapper(seed=3)
    assert type(model) is Wrapper
    assert isinstance(model, keras_internals.functional_class())
    model.compile("sgd", "mse")
    first = fit(model)
    assert fit(model) != first
    model.reset()
    assert fit(model) == first
    assert model.seed == 3


def test_pipeline_that_cannot_be_restarted_is_named(monkeypatch: Any) -> None:
    """Where TensorFlow cannot write a pipeline the trial's notes say so."""
    tf = pytest.importorskip("tensorflow")

    def refuse(dataset: Any) -> bytes:
        raise ValueError(dataset)

    pipeline = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    model = make(seed=3)
    model.fit(pipeline, verbose=0, shuffle=False)
    assert model._repro.data.notes == []
    other = make(seed=3)
    monkeypatch.setattr(data_positions, "serialize_pipeline", refuse)
    other.fit(pipeline.take(1), verbose=0, shuffle=False)
    assert "cannot be written as a graph" in other._repro.data.notes[0]


class Plain(keras.Model):
    """A subclass of Keras' own class."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("built", [True, False])
def test_subclass_is_adopted(built: bool) -> None:
    """A plain subclass, built or not, gets `reset` and stays itself."""
    model = Plain()
    if built:
        model(X[:1])
    assert kr.make_reproducible(model, seed=3) is model
    assert isinstance(model, Plain)
    assert isinstance(model, kr.ReproducibleModel)
    assert kr.make_reproducible(model) is model
    assert not isinstance(Plain(), kr.ReproducibleModel)
    model.compile("sgd", "mse")
    first = fit(model)
    assert fit(model) != first
    model.reset()
    assert fit(model) == first


def make_normalized() -> Any:
    """A model whose last digits depend on how its step was traced."""
    return make_model(L.Dense(6), L.BatchNormalization(), seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [13, 20, 40])
def test_batches_of_an_earlier_trial_leave_no_trace(size: int) -> None:
    """Also where one traced function could serve batches of both sizes."""

    def train(model: Any) -> tuple[Any, ...]:
        model.fit(X, Y, batch_size=20, epochs=2, verbose=0)
        return (
            kr.compute_checksum(model),
            model.evaluate(X, Y, batch_size=20, verbose=0),
            model.predict(X, batch_size=20, verbose=0).tobytes(),
        )

    fresh = train(make_normalized())
    model = make_normalized()
    model.fit(X, Y, batch_size=size, verbose=0)
    model.evaluate(X, Y, batch_size=size, verbose=0)
    model.predict(X, batch_size=size, verbose=0)
    model.reset()
    assert train(model) == fresh
    model.reset()
    assert train(model) == fresh


class TypeOfState(keras.callbacks.Callback):
    """Looks at what Keras keeps of a training on JAX between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[type] = set()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """See it without `self.model`, which would sync it."""
        del batch, logs
        self.seen.add(type(self._model._jax_state))


@pytest.mark.requires_backend("jax")
def test_the_state_of_each_step_is_not_tracked() -> None:
    """Plain Keras searches it for layers, a fifth of a short step."""
    seen, losses = {}, {}
    for kind in (kr.ReproducibleModel, keras.Sequential):
        keras.utils.set_random_seed(0)
        model = kind([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        look = TypeOfState()
        history = model.fit(
            X, Y, batch_size=20, shuffle=False, verbose=0, callbacks=[look]
        )
        losses[kind], seen[kind] = history.history["loss"], look.seen
    assert seen[kr.ReproducibleModel] == {dict}
    assert seen[keras.Sequential] != {dict}
    assert losses[kr.ReproducibleModel] == losses[keras.Sequential]
