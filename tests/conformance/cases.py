"""The table of cases that every `reset()` must hold in.

Each case says how a model is made and trained, what disturbs it in between,
and which ingredient of the reset its twin leaves out, so as to see that the
test can fail.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_repro as kr
from tests.builders import make_model
from tests.model import test_evaluations as evaluations
from tests.model import test_first_step as first_step
from tests.model import test_traces as traces

ALL = ("tensorflow", "jax", "torch")
L = keras.layers
Opt = keras.optimizers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype("float32")
Y = X @ RNG.normal(size=(4, 1)).astype("float32")
IMAGES = RNG.uniform(size=(8, 6, 6, 1)).astype("float32")
TOKENS = RNG.integers(0, 9, size=(12, 5))
SERIES = RNG.normal(size=(8, 3, 2)).astype("float32")


def fit(model: Any, x: Any = X, y: Any = Y, **kwargs: Any) -> Any:
    """Two epochs of three batches."""
    kwargs = {"epochs": 2, "batch_size": 8, "verbose": 0, **kwargs}
    return model.fit(x, y, **kwargs).history


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: What is tried.
        make: Makes the compiled model.
        train: Trains it and returns what must be equal.
        disturb: What happens between the training and the reset.
        without: The ingredient that the twin leaves out of the reset.
        backends: Where the case makes sense.
    """

    name: str
    make: Callable[[], Any]
    train: Callable[[Any], Any] = fit
    disturb: Callable[[Any], None] = lambda model: None
    without: str = "weights"
    backends: tuple[str, ...] = ALL


def mlp(*extra: Any, optimizer: Any = "sgd", **compile_kwargs: Any) -> Any:
    """A small model, with more layers in the middle."""
    layers = (L.Dense(5, activation="tanh"), *extra)
    return make_model(*layers, optimizer=optimizer, **compile_kwargs)


def dropout_mlp(**kwargs: Any) -> Any:
    """The usual model: dropout and Adam."""
    return mlp(L.Dropout(0.3), optimizer="adam", **kwargs)


def _optimizer_cases() -> list[Case]:
    made: dict[str, Callable[[], Any]] = {
        "SGD momentum": lambda: Opt.SGD(0.1, momentum=0.9),
        "Adam": lambda: Opt.Adam(0.01),
        "AdamW": lambda: Opt.AdamW(0.01),
        "Adagrad": lambda: Opt.Adagrad(0.05),
        "Ftrl": lambda: Opt.Ftrl(0.05),
        "Nadam": lambda: Opt.Nadam(0.01),
        "RMSprop": lambda: Opt.RMSprop(0.01),
        "Lamb": lambda: Opt.Lamb(0.01),
        "Lion": lambda: Opt.Lion(0.01),
        "Adafactor": lambda: Opt.Adafactor(0.01),
        "Adadelta": lambda: Opt.Adadelta(1.0),
        "Adamax": lambda: Opt.Adamax(0.01),
        "use_ema": lambda: Opt.Adam(0.01, use_ema=True),
        "use_ema overwriting": lambda: Opt.SGD(
            0.1, use_ema=True, ema_overwrite_frequency=2
        ),
        "gradient accumulation": lambda: Opt.Adam(
            0.01, gradient_accumulation_steps=2
        ),
        "loss scaling": lambda: Opt.LossScaleOptimizer(
            Opt.Adam(0.01), initial_scale=1024.0, dynamic_growth_steps=2
        ),
        "ExponentialDecay": lambda: Opt.SGD(
            Opt.schedules.ExponentialDecay(0.1, 2, 0.5)
        ),
        "clipping and weight decay": lambda: Opt.Adam(
            0.01, clipnorm=0.5, weight_decay=0.01
        ),
    }
    for name in ("Muon", "ScheduleFreeAdamW"):
        if hasattr(Opt, name):
            made[name] = lambda name=name: getattr(Opt, name)(0.01)
    if keras.backend.backend() == "tensorflow" and keras.__version__.startswith(
        "3.12."
    ):
        made.pop("Muon", None)  # There it fails without us.
    without = {"use_ema": "weights"}
    return [
        Case(
            f"optimizer {name}",
            lambda make=make: mlp(optimizer=make()),
            without=without.get(name, "optimizer"),
        )
        for name, make in made.items()
    ]


class Doubling(L.Layer):
    """A layer with a Python counter that changes its output."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls = 0

    def call(self, inputs: Any) -> Any:
        self.calls += 1
        return inputs * (1.0 + self.calls)


class HiddenGenerator(L.Layer):
    """A layer that draws its scale from a generator of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept = {"rng": random.Random(3)}

    def call(self, inputs: Any) -> Any:
        return inputs * self.kept["rng"].random()


class ListedGenerators(L.Layer):
    """Seed generators in a dictionary inside a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generators = [keras.random.SeedGenerator(5)]

    def call(self, inputs: Any) -> Any:
        noise = keras.random.normal((1,), seed=self.generators[0])
        return inputs + noise


class GlobalNoise(L.Layer):
    """Draws from the program's global NumPy generator."""

    def call(self, inputs: Any) -> Any:
        return inputs * float(np.random.random())


class RawTensorFlowNoise(L.Layer):
    """Draws from TensorFlow's stateful random ops."""

    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        return inputs + tf.random.normal((1,))


class TorchNoise(L.Layer):
    """Draws from torch's global generator."""

    def call(self, inputs: Any) -> Any:
        import torch

        return inputs + torch.randn(1, device=inputs.device)


class InlineWeights(L.Layer):
    """A layer that keeps no initializer."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(
            shape=(input_shape[-1],), initializer="random_normal"
        )

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale


class Subclassed(kr.ReproducibleModel):
    """A subclass, as of `keras.Model`."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = L.Dense(5, activation="tanh")
        self.drop = L.Dropout(0.3)
        self.out = L.Dense(1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.hidden(inputs), training=training))


def subclassed() -> Any:
    model = Subclassed()
    model.compile("adam", "mse")
    return model


def deferred() -> Any:
    layers = (L.Dense(5), L.Dropout(0.3))
    return make_model(*layers, shape=None, optimizer="adam")


def two_branches() -> Any:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    shared = L.Dense(3, activation="tanh")
    merged = L.Concatenate()([shared(a), shared(b)])
    first = L.Dense(1, name="first")(L.Dropout(0.2)(merged))
    second = L.Dense(1, name="second")(merged)
    model = kr.ReproducibleModel(
        {"a": a, "b": b}, {"first": first, "second": second}
    )
    model.compile("adam", {"first": "mse", "second": "mae"})
    return model


def fit_two_branches(model: Any) -> Any:
    return fit(
        model, {"a": X[:, :2], "b": X[:, 2:]}, {"first": Y, "second": -Y}
    )


def nested() -> Any:
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dropout(0.3)])
    model = kr.ReproducibleModel([keras.Input((4,)), inner, L.Dense(1)])
    model.compile("adam", "mse")
    return model


def adopted() -> Any:
    plain = keras.Sequential(
        [keras.Input((4,)), L.Dense(3), L.Dropout(0.3), L.Dense(1)]
    )
    plain.compile("adam", "mse")
    return kr.make_reproducible(plain)


def normalized() -> Any:
    layer = L.Normalization()
    layer.adapt(X)
    return make_model(layer, optimizer="adam")


def readapt(model: Any) -> None:
    model.layers[0].adapt(X * 3.0 + 1.0)


def image_model(*layers: Any) -> Any:
    return make_model(*layers, L.Flatten(), shape=(6, 6, 1))


def fit_images(model: Any) -> Any:
    return fit(model, IMAGES, np.ones((8, 1), "float32"), batch_size=4)


def recurrent(stateful: Any = None) -> Any:
    layer = (stateful or L.LSTM)(3, stateful=True)
    model = kr.ReproducibleModel(
        [keras.Input((3, 2), batch_size=4), layer, L.Dense(1)]
    )
    model.compile("sgd", "mse")
    return model


def fit_series(model: Any) -> Any:
    return fit(
        model, SERIES, np.ones((8, 1), "float32"), batch_size=4, shuffle=False
    )


def text_model() -> Any:
    model = kr.ReproducibleModel(
        [
            keras.Input((5,), dtype="int32"),
            L.Embedding(9, 3),
            L.LSTM(3),
            L.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def fit_text(model: Any) -> Any:
    return fit(model, TOKENS, np.ones((12, 1), "float32"))


def attention() -> Any:
    inputs = keras.Input((3, 2))
    x = L.MultiHeadAttention(2, 2, dropout=0.3)(inputs, inputs)
    model = kr.ReproducibleModel(inputs, L.Dense(1)(L.Flatten()(x)))
    model.compile("adam", "mse")
    return model


def fit_attention(model: Any) -> Any:
    return fit(model, SERIES, np.ones((8, 1), "float32"), batch_size=4)


def spatial() -> Any:
    return make_model(L.SpatialDropout1D(0.4), L.Flatten(), shape=(3, 2))


def mixed() -> Any:
    model = kr.ReproducibleModel(
        [
            keras.Input((4,)),
            L.Dense(5, dtype="mixed_float16"),
            L.Dense(1, dtype="float32"),
        ]
    )
    model.compile(
        Opt.LossScaleOptimizer(Opt.Adam(0.01), dynamic_growth_steps=2), "mse"
    )
    return model


class StopError(Exception):
    """What an interrupted training raises here."""


class Abort(keras.callbacks.Callback):
    """Raises at one moment of a training."""

    def __init__(self, at: str, error: type[BaseException] = StopError) -> None:
        super().__init__()
        self.at, self.error = at, error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.at == "first batch" or (self.at == "batch" and batch == 1):
            raise self.error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.at == "epoch":
            raise self.error


def abort(
    at: str, error: type[BaseException] = StopError
) -> Callable[[Any], None]:
    def disturb(model: Any) -> None:
        try:
            fit(model, callbacks=[Abort(at, error)])
        except error:
            return
        raise AssertionError

    return disturb


def bad_batch(model: Any) -> None:
    """An error inside the executing step, fatal to JAX's buffers."""
    try:
        fit(model, X[:, :3], Y)
    except Exception:  # noqa: BLE001 - each backend raises its own
        return
    raise AssertionError


def other_model(model: Any) -> None:
    plain = keras.Sequential([keras.Input((4,)), L.Dropout(0.5), L.Dense(1)])
    plain.compile("adam", "mse")
    plain.fit(X, Y, verbose=0)
    del model


def program_draws(model: Any) -> None:
    random.random()
    np.random.random(7)
    keras.random.normal((2,))
    keras.utils.set_random_seed(99)
    del model


def evaluates(model: Any) -> None:
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    model.test_on_batch(X, Y)


def other_optimizer(model: Any) -> None:
    model.compile("rmsprop", "mse")
    fit(model)
    model.compile("adam", "mse")


def toggles(model: Any) -> None:
    model.layers[0].trainable = False


def lowers_rate(model: Any) -> None:
    model.optimizer.learning_rate = 1e-5


def train_on_batches(model: Any) -> Any:
    return [float(np.ravel(model.train_on_batch(X, Y))[0]) for _ in range(3)]


class Batches(keras.utils.PyDataset):
    """A dataset with random augmentation from a generator of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(4)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        part = slice(index * 6, index * 6 + 6)
        return X[part] + self.rng.normal(size=4).astype("float32"), Y[part]


def fit_dataset(dataset: Any, shuffle: bool = True) -> Callable[[Any], Any]:
    return lambda model: (
        model.fit(dataset, epochs=2, verbose=0, shuffle=shuffle).history
    )


def fit_validated(data: Any) -> Callable[[Any], Any]:
    """Arrays, until the loss on other data is no better."""

    def train(model: Any) -> Any:
        stop = C.EarlyStopping(patience=0, restore_best_weights=True)
        return fit(model, epochs=6, validation_data=data, callbacks=[stop])

    return train


def fit_both(data: Any) -> Callable[[Any], Any]:
    """The same object for training and validation."""
    return lambda model: (
        model.fit(data, epochs=2, validation_data=data, verbose=0).history
    )


def fit_loader() -> Callable[[Any], Any]:
    kept: dict[str, Any] = {}

    def train(model: Any) -> Any:
        import torch

        if not kept:
            data = torch.utils.data.TensorDataset(
                torch.from_numpy(X), torch.from_numpy(Y)
            )
            kept["loader"] = torch.utils.data.DataLoader(
                data,
                batch_size=8,
                shuffle=True,
                generator=torch.Generator().manual_seed(3),
            )
        return fit_dataset(kept["loader"], shuffle=False)(model)

    return train


def fit_pipeline(**shuffle: Any) -> Callable[[Any], Any]:
    """A `tf.data` pipeline that is made once and used by every training."""
    kept: list[Any] = []

    def train(model: Any) -> Any:
        import tensorflow as tf

        if not kept:
            pairs = tf.data.Dataset.from_tensor_slices((X, Y))
            kept.append(pairs.shuffle(20, **shuffle).batch(8).prefetch(1))
        return fit_dataset(kept[0], shuffle=False)(model)

    return train


def fit_noisy_pipeline() -> Callable[[Any], Any]:
    """Random ops without a seed inside `map`."""
    kept: list[Any] = []

    def train(model: Any) -> Any:
        import tensorflow as tf

        if not kept:
            pairs = tf.data.Dataset.from_tensor_slices((X, Y))
            noisy = pairs.map(lambda x, y: (x + tf.random.normal((4,)), y))
            kept.append(noisy.batch(8))
        return fit_dataset(kept[0], shuffle=False)(model)

    return train


def fit_augmenting_pipeline() -> Callable[[Any], Any]:
    """A Keras layer that draws, inside `map`."""
    kept: list[Any] = []

    def train(model: Any) -> Any:
        import tensorflow as tf

        if not kept:
            turn = L.RandomRotation(0.3)
            pairs = tf.data.Dataset.from_tensor_slices(
                (IMAGES, np.ones((8, 1), "float32"))
            )
            turned = pairs.batch(4).map(
                lambda x, y: (turn(x, training=True), y)
            )
            kept.append(turned)
        return fit_dataset(kept[0], shuffle=False)(model)

    return train


class CustomStep(kr.ReproducibleModel):
    """A subclass whose training step is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


def custom_step() -> Any:
    model = CustomStep()
    model.compile("adam", "mse")
    return model


class TwoOptimizers(kr.ReproducibleModel):
    """Two parts, each with an optimizer, and no `call` in the step."""

    def __init__(self) -> None:
        super().__init__()
        self.one = keras.Sequential([keras.Input((4,)), L.Dense(1)])
        self.two = keras.Sequential([keras.Input((4,)), L.Dense(1)])

    def compile(self, one: Any, two: Any) -> None:  # type: ignore[override]
        super().compile(loss="mse")
        self.first_optimizer, self.second_optimizer = one, two

    def call(self, inputs: Any) -> Any:
        return self.one(inputs) + self.two(inputs)

    def train_step(self, data: Any) -> Any:
        x, y = data
        losses = {}
        for name, part, optimizer in (
            ("one", self.one, self.first_optimizer),
            ("two", self.two, self.second_optimizer),
        ):
            losses[name] = self._step(part, optimizer, x, y)
        return losses

    def _step(self, part: Any, optimizer: Any, x: Any, y: Any) -> Any:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(part(x) - y))
            grads = tape.gradient(loss, part.trainable_weights)
            optimizer.apply_gradients(
                zip(grads, part.trainable_weights, strict=True)
            )
            return loss
        import torch

        self.zero_grad()
        loss = torch.mean(torch.square(part(x) - y))
        loss.backward()
        weights = part.trainable_weights
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in weights], weights)
        return loss


def two_optimizers() -> Any:
    model = TwoOptimizers()
    model.compile(Opt.Adam(0.01), Opt.SGD(0.1, momentum=0.9))
    return model


def with_callbacks(make: Callable[[], list[Any]]) -> Callable[[Any], Any]:
    return lambda model: fit(
        model, callbacks=make(), validation_data=(X, Y), epochs=3
    )


def predict_thrice(model: Any) -> list[Any]:
    """Three predictions, which must not be one."""
    drawn = [model.predict(X, verbose=0).tolist() for _ in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]
    return drawn


def fit_generator(model: Any) -> Any:
    """Train on batches that a new generator draws."""

    def batches() -> Any:
        while True:
            rows = np.random.randint(0, 20, 8)
            yield X[rows], Y[rows]

    history = model.fit(
        batches(), steps_per_epoch=2, epochs=2, shuffle=False, verbose=0
    )
    return history.history


C = keras.callbacks
DROPOUT_CASES = [
    Case(
        f"layer {layer.__name__}",
        lambda layer=layer: mlp(layer(0.3)),
        without="random",
        backends=("tensorflow", "jax"),
    )
    for layer in (L.Dropout, L.GaussianNoise, L.AlphaDropout)
]
CASES: list[Case] = [
    Case("plain dense", mlp),
    *_optimizer_cases(),
    *DROPOUT_CASES,
    Case(
        "layer Dropout unseeded on torch",
        lambda: mlp(L.Dropout(0.3)),
        without="streams",
        backends=("torch",),
    ),
    Case(
        "layer Dropout seeded",
        lambda: mlp(L.Dropout(0.3, seed=1)),
        without="random",
    ),
    Case(
        "layer SpatialDropout1D",
        spatial,
        fit_attention,
        without="random",
        backends=("tensorflow", "jax"),
    ),
    Case("layer BatchNormalization", lambda: mlp(L.BatchNormalization())),
    Case("layer Normalization adapted before", normalized),
    Case(
        "layer Normalization adapted again between", normalized, disturb=readapt
    ),
    Case(
        "layers RandomFlip and RandomRotation",
        lambda: image_model(L.RandomFlip(), L.RandomRotation(0.2)),
        fit_images,
        without="random",
    ),
    Case(
        "layer RandomCrop",
        lambda: image_model(L.RandomCrop(4, 4), L.GlobalAveragePooling2D()),
        fit_images,
        without="random",
    ),
    Case("Embedding and LSTM", text_model, fit_text, without="optimizer"),
    # Stock Keras cannot train a stateful layer on PyTorch.
    Case(
        "stateful LSTM", recurrent, fit_series, backends=("tensorflow", "jax")
    ),
    Case(
        "stateful GRU",
        lambda: recurrent(L.GRU),
        fit_series,
        backends=("tensorflow", "jax"),
    ),
    Case(
        "MultiHeadAttention with dropout",
        attention,
        fit_attention,
        without="optimizer",
    ),
    Case("deferred build", deferred, without="optimizer"),
    Case("subclass", subclassed, without="optimizer"),
    Case(
        "several inputs and outputs, shared layer",
        two_branches,
        fit_two_branches,
        without="optimizer",
    ),
    Case("nested model", nested, without="optimizer"),
    Case("make_reproducible", adopted, without="optimizer"),
    Case("custom train_step", custom_step, without="optimizer"),
    Case(
        "two optimizers",
        two_optimizers,
        without="optimizer",
        backends=("tensorflow", "torch"),
    ),
    Case("mixed precision", mixed, without="optimizer"),
    Case("weights from an inline initializer", lambda: mlp(InlineWeights())),
    Case(
        "SeedGenerators in a list",
        lambda: mlp(ListedGenerators(), run_eagerly=True),
        backends=("tensorflow", "torch"),
    ),
    Case(
        "hidden random.Random",
        lambda: mlp(HiddenGenerator(), run_eagerly=True),
        without="attributes",
        backends=("tensorflow", "torch"),
    ),
    Case(
        "a Python counter",
        lambda: mlp(Doubling(), run_eagerly=True),
        without="attributes",
        backends=("tensorflow", "torch"),
    ),
    Case(
        "np.random inside a layer",
        lambda: mlp(GlobalNoise(), run_eagerly=True),
        without="streams",
        backends=("tensorflow", "torch"),
    ),
    Case(
        "tf.random inside a layer, eagerly",
        lambda: mlp(RawTensorFlowNoise(), run_eagerly=True),
        without="streams",
        backends=("tensorflow",),
    ),
    Case(
        "tf.random inside a layer, traced",
        lambda: mlp(RawTensorFlowNoise()),
        without="kernels",
        backends=("tensorflow",),
    ),
    Case(
        "torch.randn inside a layer",
        lambda: mlp(TorchNoise()),
        without="streams",
        backends=("torch",),
    ),
    Case(
        "LearningRateScheduler",
        dropout_mlp,
        with_callbacks(lambda: [C.LearningRateScheduler(lambda e, r: r * 0.5)]),
        without="optimizer",
    ),
    Case(
        "ReduceLROnPlateau",
        dropout_mlp,
        with_callbacks(
            lambda: [C.ReduceLROnPlateau("loss", 0.5, patience=0, min_delta=10)]
        ),
        without="optimizer",
    ),
    Case(
        "EarlyStopping with restore",
        dropout_mlp,
        with_callbacks(
            lambda: [
                C.EarlyStopping(
                    "loss", patience=0, min_delta=10, restore_best_weights=True
                )
            ]
        ),
        without="optimizer",
    ),
    Case(
        "SwapEMAWeights",
        lambda: mlp(optimizer=Opt.Adam(0.05, use_ema=True)),
        with_callbacks(lambda: [C.SwapEMAWeights(swap_on_epoch=True)]),
        without="weights",
    ),
    Case("data order", mlp, without="order"),
    Case(
        "shuffle='batch'",
        mlp,
        lambda m: fit(m, shuffle="batch"),
        without="order",
    ),
    Case("shuffle=False", dropout_mlp, lambda m: fit(m, shuffle=False)),
    Case(
        "validation_split",
        dropout_mlp,
        lambda m: fit(m, validation_split=0.2),
        without="order",
    ),
    Case(
        "sample_weight",
        dropout_mlp,
        lambda m: fit(m, sample_weight=np.linspace(0, 1, 20)),
        without="order",
    ),
    Case(
        "class_weight",
        dropout_mlp,
        lambda m: fit(
            m, X, (Y > 0).astype("float32"), class_weight={0: 1.0, 1: 3.0}
        ),
        without="order",
    ),
    Case(
        "steps_per_epoch",
        dropout_mlp,
        lambda m: fit(m, steps_per_epoch=1, epochs=2),
        without="order",
    ),
    Case("train_on_batch", dropout_mlp, train_on_batches, without="optimizer"),
    Case(
        "PyDataset with a generator of its own",
        mlp,
        fit_dataset(Batches()),
        without="data",
    ),
    Case(
        "DataLoader with a generator",
        mlp,
        fit_loader(),
        without="data",
        backends=("torch",),
    ),
    Case("tf.data shuffled", mlp, fit_pipeline(), without="data"),
    Case(
        "PyDataset as validation, with EarlyStopping",
        dropout_mlp,
        fit_validated(Batches()),
        without="data",
    ),
    Case(
        "PyDataset as data and validation",
        mlp,
        fit_both(Batches()),
        without="data",
    ),
    Case(
        "tf.data shuffled with a seed",
        mlp,
        fit_pipeline(seed=3),
        without="data",
    ),
    Case(
        "tf.data with RandomRotation in a map",
        image_model,
        fit_augmenting_pipeline(),
    ),
    Case("tf.data with random ops in a map", mlp, fit_noisy_pipeline()),
    Case(
        "run_eagerly",
        lambda: dropout_mlp(run_eagerly=True),
        without="optimizer",
    ),
    Case(
        "jit_compile",
        lambda: dropout_mlp(jit_compile=True),
        without="optimizer",
        backends=("tensorflow", "jax"),
    ),
    Case(
        "steps_per_execution",
        lambda: dropout_mlp(steps_per_execution=2),
        without="optimizer",
        backends=("tensorflow", "jax"),
    ),
    Case(
        "abort in the middle of an epoch", dropout_mlp, disturb=abort("batch")
    ),
    Case("abort in the first batch", dropout_mlp, disturb=abort("first batch")),
    Case("abort between epochs", dropout_mlp, disturb=abort("epoch")),
    Case(
        "KeyboardInterrupt",
        dropout_mlp,
        disturb=abort("batch", KeyboardInterrupt),
    ),
    Case("error inside the step", dropout_mlp, disturb=bad_batch),
    Case(
        "another model in between",
        dropout_mlp,
        disturb=other_model,
        without="optimizer",
    ),
    Case(
        "random draws by the program",
        dropout_mlp,
        disturb=program_draws,
        without="order",
    ),
    Case(
        "evaluate and predict in between",
        dropout_mlp,
        disturb=evaluates,
        without="order",
    ),
    Case(
        "recompile with another optimizer",
        dropout_mlp,
        disturb=other_optimizer,
        without="weights",
    ),
    Case("trainable toggled", dropout_mlp, disturb=toggles),
    Case(
        "compiled with an optimizer alone",
        lambda: first_step.own_loss()[0],
        train=lambda m: fit(m, y=None),
        disturb=lambda m: m.predict(X, verbose=0),
        without="order",
    ),
    Case(
        "a generator that draws from NumPy",
        mlp,
        train=fit_generator,
        disturb=program_draws,
        without="streams",
    ),
    Case(
        "a part that is never called",
        lambda: mlp(first_step.Block()),
        without="weights",
    ),
    Case(
        "a subclass that its first batch builds",
        lambda: first_step.deferred_subclass()[0],
        without="weights",
    ),
    Case(
        "Monte Carlo predictions and a training",
        lambda: mlp(evaluations.AlwaysDropout(0.4, seed=2)),
        train=lambda m: (predict_thrice(m), fit(m), predict_thrice(m)),
        disturb=evaluates,
        without="evaluations",
    ),
    Case(
        "draws in Python while it is traced",
        lambda: mlp(traces.Jitter("python")),
        disturb=program_draws,
        without="weights",
    ),
    Case(
        "learning rate assigned",
        dropout_mlp,
        disturb=lowers_rate,
        without="optimizer",
    ),
    Case(
        "clear_session in between",
        dropout_mlp,
        disturb=lambda m: keras.utils.clear_session(),
        without="optimizer",
    ),
    Case(
        "another seed in between",
        dropout_mlp,
        disturb=lambda m: (m.reset(seed=3), fit(m)) and m.reset(seed=m_seed(m)),
        without="order",
    ),
]


def m_seed(model: Any) -> int:
    """The seed that the case was made with."""
    return int(model.first_seed)
