"""The trial begins with the first step, and no training is special."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from tests.builders import make_model

pytestmark = [
    pytest.mark.requires_backend(),
    pytest.mark.usefixtures("no_global_seed"),
    # What Keras says of such models and data; a word of ours is an error.
    pytest.mark.filterwarnings("ignore:.*does not have a `build:UserWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was:UserWarning"),
]
BACKEND = keras.backend.backend()
L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X.sum(1, keepdims=True)
Train = Callable[[Any], Any]


def fit(model: Any, **kwargs: Any) -> Any:
    """Two epochs of four batches."""
    kwargs = {"batch_size": 8, "epochs": 2, "verbose": 0, **kwargs}
    return model.fit(X, Y, **kwargs).history


class Sampling(L.Layer):  # type: ignore[misc]
    """Adds noise from a generator of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator()

    def call(self, x: Any) -> Any:
        """Always with noise."""
        return x + keras.random.normal(ops.shape(x), seed=self.seeds)


class OwnLoss(kr.ReproducibleModel):
    """A subclass that is compiled with an optimizer alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((4,)), L.Dense(2)])
        self.sampling = Sampling()
        self.decoder = keras.Sequential([keras.Input((2,)), L.Dense(4)])

    def call(self, x: Any) -> Any:
        """Encode, sample, decode."""
        z = self.encoder(x)
        self.add_loss(ops.mean(z**2))
        return self.decoder(self.sampling(z))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """How far the decoded is from the input."""
        del y, sample_weight, training
        return ops.mean((x - y_pred) ** 2) + sum(self.losses)


class Block(L.Layer):  # type: ignore[misc]
    """Has a part that this model never calls."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.used, self.unused = L.Dense(4), L.Dense(4)

    def call(self, x: Any) -> Any:
        """Call one of the two."""
        return self.used(x)


class Deferred(kr.ReproducibleModel):
    """A subclass that its first batch builds."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden, self.out = L.Dense(4, activation="tanh"), L.Dense(1)
        self.dropout = L.Dropout(0.3)

    def call(self, x: Any, training: Any = None) -> Any:
        """Two layers, with dropout between them."""
        return self.out(self.dropout(self.hidden(x), training=training))


def own_loss() -> tuple[Any, Train]:
    """What is compiled with neither loss nor metrics."""
    model = OwnLoss()
    model.compile(optimizer="adam")
    return (
        model,
        lambda model: model.fit(X, batch_size=8, epochs=2, verbose=0).history,
    )


def generator_made_anew() -> tuple[Any, Train]:
    """A generator that draws from NumPy's global generator."""

    def batches() -> Iterator[Any]:
        while True:
            rows = np.random.randint(0, 32, 8)
            yield X[rows], Y[rows]

    def train(model: Any) -> Any:
        return model.fit(
            batches(), steps_per_epoch=3, epochs=2, verbose=0
        ).history

    return make_model(L.Dense(4)), train


def part_never_called() -> tuple[Any, Train]:
    """A sublayer that stays unbuilt."""
    return make_model(Block()), fit


def deferred_subclass() -> tuple[Any, Train]:
    """A model that the first batch builds."""
    model = Deferred()
    model.compile("adam", "mse")
    return model, fit


def deferred_sequential() -> tuple[Any, Train]:
    """The same without a class."""
    return make_model(L.Dense(4), L.Dropout(0.3), shape=None), fit


def batch_by_batch() -> tuple[Any, Train]:
    """A model that `train_on_batch` builds."""
    model = Deferred()
    model.compile("adam", "mse")
    return model, lambda model: [
        float(model.train_on_batch(X[i : i + 8], Y[i : i + 8]))
        for i in (0, 8, 16)
    ]


def shuffled_pipeline() -> tuple[Any, Train]:
    """A `tf.data` pipeline that shuffles each epoch anew."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(32, 1).batch(8)
    return make_model(
        L.Dense(4), L.Dropout(0.3)
    ), lambda model: model.fit(data, epochs=2, verbose=0).history


KINDS = [
    shuffled_pipeline,
    own_loss,
    generator_made_anew,
    part_never_called,
    deferred_subclass,
    deferred_sequential,
    batch_by_batch,
]


@pytest.mark.sampled(7)
@pytest.mark.parametrize("seeded", [True, False], ids=["global", "unseeded"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_first_training_is_as_every_other(kind: Any, seeded: bool) -> None:
    """Three trainings with a reset between them are one; without, they part."""
    if seeded:
        kr.seed_everything(3, deterministic=False)
    model, train = kind()
    results = []
    for _ in range(3):
        model.reset()
        results.append((train(model), kr.compute_checksum(model)))
    assert results[0] == results[1] == results[2]
    assert (train(model), kr.compute_checksum(model)) != results[0]


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    "kind",
    # A part without a configuration of its own is not drawn.
    [kind for kind in KINDS if kind is not part_never_called],
    ids=lambda kind: kind.__name__,
)
def test_seed_of_an_unseeded_model_repeats_it(kind: Any) -> None:
    """What was recorded of a first training gives it in another model."""
    model, train = kind()
    first = train(model), kr.compute_checksum(model)
    other, train = kind()
    other.reset(seed=model.seed)
    assert (train(other), kr.compute_checksum(other)) == first
    other.reset(seed=model.seed ^ 1)
    assert (train(other), kr.compute_checksum(other)) != first


@pytest.mark.sampled(8)
@pytest.mark.parametrize("made", ["subclass", "seeded", "sequential", "taken"])
@pytest.mark.parametrize("seeded", [True, False], ids=["global", "unseeded"])
def test_first_call_is_of_the_start(made: str, seeded: bool) -> None:
    """The call that builds a model gives what the built one gives."""
    if seeded:
        kr.seed_everything(1, deterministic=False)
    model = {
        "subclass": Deferred,
        "seeded": lambda: Deferred(seed=3),
        "sequential": lambda: kr.ReproducibleModel([L.Dense(1)]),
        "taken": lambda: kr.make_reproducible(keras.Sequential([L.Dense(1)])),
    }[made]()
    first = ops.convert_to_numpy(model(X))
    assert first.tobytes() == ops.convert_to_numpy(model(X)).tobytes()
    start = kr.compute_checksum(model)
    model.compile("sgd", "mse")
    fit(model)
    model.reset()
    assert kr.compute_checksum(model) == start


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow", "torch")
def test_first_gradient_is_of_the_start() -> None:
    """A gradient that is taken of the first call moves the captured start."""
    model = Deferred()
    if BACKEND == "torch":
        target = ops.convert_to_tensor(Y)
        ops.mean((model(X) - target) ** 2).backward()
        first = [v.value.grad.clone() for v in model.trainable_variables]
        model.zero_grad()
        ops.mean((model(X) - target) ** 2).backward()
        second = [v.value.grad for v in model.trainable_variables]
    else:
        import tensorflow as tf

        def gradient() -> Any:
            with tf.GradientTape() as tape:
                loss = ops.mean((model(X) - Y) ** 2)
            return tape.gradient(loss, model.trainable_variables)

        first, second = gradient(), gradient()
    for one, other in zip(first, second, strict=True):
        assert (np.array(one) == np.array(other)).all()


class Fails(keras.callbacks.Callback):  # type: ignore[misc]
    """Fails before the first step."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Fail."""
        raise InterruptedError


def test_a_first_step_that_fails_is_none() -> None:
    """The next training is still the first one."""
    expected = fit(make_model(L.Dense(4), L.Dropout(0.3), seed=2))
    model = make_model(L.Dense(4), L.Dropout(0.3), seed=2)
    with pytest.raises(InterruptedError):
        fit(model, callbacks=[Fails()])
    assert fit(model) == expected
    model.reset()
    with pytest.raises(Exception):  # noqa: B017, PT011 - a backend's own
        model.fit(X[:, :3], Y, verbose=0)
    assert fit(model) == expected


@pytest.mark.slow
def test_callbacks_find_a_built_model() -> None:
    """What is captured before the first callback is what training starts at."""
    found: list[str] = []

    class Looks(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            found.append(kr.compute_checksum(self.model))

    model = Deferred(seed=1)
    model.compile("adam", "mse")
    fit(model, callbacks=[Looks()])
    model.reset()
    fit(model, callbacks=[Looks()])
    assert found[0] == found[1]


@pytest.mark.slow
def test_what_a_callback_sets_is_traced() -> None:
    """Nothing is traced before the callbacks that set it have run."""

    class Scaled(Deferred):
        factor = 1.0

        def call(self, x: Any, training: Any = None) -> Any:
            return super().call(x * self.factor, training=training)

    class Sets(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            self.model.factor = 2.0

    results = []
    for callbacks in ([Sets()], []):
        model = Scaled(seed=1)
        model.compile("sgd", "mse")
        results.append(fit(model, callbacks=callbacks))
    assert results[0] != results[1]


class GrowsLate(kr.ReproducibleModel):
    """Makes a layer in its third step; no start can hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.count = L.Dense(1), 0
        self.late = L.Dense(1, trainable=False)

    def call(self, x: Any) -> Any:
        """With a second layer, from the third call on."""
        y = self.first(x)
        return y + self.late(x) if self.count > 2 else y

    def train_step(self, *args: Any) -> Any:
        """Count the steps."""
        self.count += 1
        return super().train_step(*args)


@pytest.mark.requires_backend("torch")
def test_a_start_that_is_not_whole_is_told() -> None:
    """What appears in a later step is named, and a reset refuses."""
    model = GrowsLate()
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.warns(
        UserWarning, match="not whole: it lacks grows_late/.*kernel"
    ):
        fit(model)
    with pytest.raises(ValueError, match="appeared"):
        model.reset()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("built", [True, False], ids=["built", "deferred"])
def test_traces_are_as_many_as_those_of_keras(built: bool) -> None:
    """No step is traced, or on PyTorch run, once more than by plain Keras."""

    class Plain(keras.Model):  # type: ignore[misc]
        calls = steps = 0

        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = L.Dense(4), L.Dense(1)

        def call(self, x: Any, training: Any = None) -> Any:
            type(self).calls += bool(training)
            return self.out(self.hidden(x))

        def train_step(self, *args: Any) -> Any:
            type(self).steps += 1
            return super().train_step(*args)

    class Ours(kr.ReproducibleModel, Plain):
        pass

    counts = []
    for cls in (Plain, Ours):
        cls.calls = cls.steps = 0
        model = cls()
        if built:
            model.build((None, 4))
        model.compile("sgd", "mse")
        fit(model)
        counts.append((cls.calls, cls.steps))
    plain, ours = counts
    if BACKEND == "tensorflow":
        # Keras makes metrics within a trace there, and traces once more.
        assert (1, 1) <= ours <= plain
    else:
        assert ours == plain


@pytest.mark.slow
def test_nested_models_follow_the_seed_of_the_whole() -> None:
    """A part that nobody gave a seed is drawn with the whole; others stay."""

    def make(**kwargs: Any) -> tuple[Any, Any]:
        part = kr.ReproducibleModel([keras.Input((4,)), L.Dense(3)], **kwargs)
        inputs = keras.Input((4,))
        whole = kr.ReproducibleModel(inputs, L.Dense(1)(part(inputs)))
        whole.compile("sgd", "mse")
        return whole, part

    whole, part = make()
    start, of_part = kr.compute_checksum(whole), kr.compute_checksum(part)
    first = fit(whole)
    other, _ = make()
    other.reset(seed=whole.seed)
    assert kr.compute_checksum(other) == start
    assert fit(other) == first
    with pytest.warns(UserWarning, match="has not trained"):
        part.reset()
    assert kr.compute_checksum(part) == of_part
    whole.reset(seed=4)
    assert kr.compute_checksum(part) != of_part

    whole, part = make(seed=5)
    of_part = kr.compute_checksum(part)
    whole.reset(seed=4)
    assert kr.compute_checksum(part) == of_part


class Holding(L.Layer):  # type: ignore[misc]
    """A program that swaps every class name holds our models in its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.part = kr.ReproducibleModel([L.Dense(3, "relu"), L.Dense(2)])

    def build(self, shape: Any) -> None:
        """The part is built here."""
        self.part.build(shape)

    def call(self, x: Any) -> Any:
        """The part does it all."""
        return self.part(x)


def test_a_seed_draws_a_model_in_a_layer_under_any_global_seed() -> None:
    """What a seed gives does not depend on what the program set."""

    def draw(seed: int) -> str:
        model = kr.ReproducibleModel(
            [keras.Input((4,)), Holding(), L.Dense(1)], seed=seed
        )
        start = kr.compute_checksum(model)
        model.reset(seed=seed + 1)
        model.reset(seed=seed)
        assert kr.compute_checksum(model) == start
        return start

    without = draw(4)
    assert draw(5) != without
    for program_seed in (4, 9):
        keras.utils.set_random_seed(program_seed)
        assert draw(4) == without


@pytest.mark.parametrize(
    "layer",
    [
        # Keras makes a second initializer for it, with other axes.
        lambda: L.EinsumDense("ab,bcd->acd", (2, 3)),
        # Its embedding's initializer is kept, that of its weight is not.
        lambda: Positions(),  # noqa: PLW0108 - it is made below
    ],
    ids=["EinsumDense", "own weight"],
)
def test_a_seed_draws_every_weight_that_was_drawn(layer: Any) -> None:
    """Two models of one seed are one, whatever made their first weights."""

    def draw(seed: int) -> Any:
        inputs = keras.Input((4,))
        model = kr.ReproducibleModel(inputs, layer()(inputs))
        model.reset(seed=seed)
        return [value.tolist() for value in model.get_weights()]

    first, other = draw(8), draw(9)
    assert draw(8) == first
    assert all(a != b for a, b in zip(first, other, strict=True) if np.any(a))


def test_what_was_assigned_stays_under_every_seed() -> None:
    """The twin: a value that its initializer does not give was put there."""
    given = L.Dense(4)
    given.build((None, 4))
    given.set_weights([np.full((4, 4), 0.5), np.ones(4)])
    inputs = keras.Input((4,))
    model = kr.ReproducibleModel(inputs, given(inputs))
    model.reset(seed=8)
    assert model.get_weights()[0].tolist() == np.full((4, 4), 0.5).tolist()
    assert model.get_weights()[1].tolist() == [1.0] * 4


class Positions(L.Layer):  # type: ignore[misc]
    """A weight with an initializer of its own, beside a part that keeps one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = L.Dense(4)

    def build(self, shape: Any) -> None:
        """Add the weight."""
        self.weight = self.add_weight((4,), initializer="random_normal")
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        """Add it."""
        return self.dense(x) + self.weight


@pytest.mark.requires_backend("tensorflow")
@pytest.mark.filterwarnings("ignore:.*has not trained undoes:UserWarning")
def test_a_function_of_ones_own_begins_at_the_start() -> None:
    """A model that the program's own trace builds is captured within it."""
    import tensorflow as tf

    model, optimizer = Deferred(seed=1), keras.optimizers.SGD(0.1)

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = ops.mean((model(X, training=False) - Y) ** 2)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    first = [float(step()) for _ in range(3)]
    model.reset()
    assert [float(step()) for _ in range(3)] == first
    again = ops.mean((Deferred(seed=1)(X, training=False) - Y) ** 2)
    assert np.isclose(float(again), first[0])


class OnlySteps(kr.ReproducibleModel):
    """No `call`; its parts are built by its own step alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = kr.ReproducibleModel([L.Dense(4, activation="relu")])
        self.head = kr.ReproducibleModel([keras.Input((4,)), L.Dense(1)])
        self.tracker = keras.metrics.Mean(name="loss")
        self.own = keras.optimizers.Adam(0.01)

    @property
    def metrics(self) -> list[Any]:
        """What `fit` resets."""
        return [self.tracker]

    def train_step(self, data: Any) -> Any:
        """Build the encoder, and the slots of an optimizer of its own."""
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean((self.head(self.encoder(x)) - y) ** 2)
        weights = self.encoder.trainable_weights + self.head.trainable_weights
        self.own.apply(tape.gradient(loss, weights), weights)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
def test_what_only_a_step_builds_has_a_start() -> None:
    """Also its parts, and an optimizer that Keras does not know of."""
    model = OnlySteps()
    model.compile("sgd")
    results = []
    for _ in range(3):
        results.append((fit(model), kr.compute_checksum(model)))
        assert int(model.own.iterations) == 8
        model.reset()
        assert int(model.own.iterations) == 0
    assert results[0] == results[1] == results[2]
    under = {}
    for seed in (7, 9, 7):
        model.reset(seed=seed)
        result = fit(model)
        assert under.setdefault(seed, result) == result
    assert under[7] != under[9]


TEXT = np.array([["a b"], ["b c"], ["c a"]] * 4)


def text_vectorization() -> tuple[Any, Any]:
    """Has a lookup within, which Keras never calls built."""
    layer = L.TextVectorization(max_tokens=9, output_sequence_length=3)
    layer.adapt(TEXT)
    return layer, [L.Embedding(9, 2), L.Flatten()]


def string_lookup() -> tuple[Any, Any]:
    """A vocabulary, as one-hot rows."""
    return L.StringLookup(vocabulary=["a b"], output_mode="one_hot"), []


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
@pytest.mark.parametrize("make", [text_vectorization, string_lookup])
def test_text_layers_have_a_start(make: Any) -> None:
    """A model of strings goes back to its start, without a word."""
    import tensorflow as tf

    text, layers = make()
    inputs = values = keras.Input((1,), dtype="string")
    for layer in (text, *layers, L.Dense(1)):
        values = layer(values)
    model = kr.ReproducibleModel(inputs, values)
    model.compile("sgd", "mse")
    losses = [
        model.reset()
        or model.fit(tf.constant(TEXT), Y[:12], epochs=2, verbose=0).history[
            "loss"
        ]
        for _ in range(3)
    ]
    assert losses[0] == losses[1] == losses[2]
    assert losses[0][0] != losses[0][1]
