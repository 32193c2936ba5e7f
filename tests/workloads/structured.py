"""Tables, ratings, graphs, and how sure a model is."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from .workload import (
    RNG,
    Counted,
    Kind,
    L,
    Workload,
    compiling,
    fitting,
    note_pass,
    register,
)

X = RNG.normal(size=(12, 4)).astype("float32")
Y = X @ RNG.normal(size=(4, 1)).astype("float32")
RATINGS = RNG.integers(0, 5, size=(12, 2))
LIKED = RNG.uniform(size=(12, 1)).astype("float32")
COLUMNS = {
    "age": 30.0 + 10.0 * X[:, :1],
    "job": RNG.integers(0, 3, size=(12, 1)),
}


@functools.cache
def recommender_class(base: Any) -> Any:
    """How much a user likes a film: the product of what is learned of both."""

    @register
    class Recommender(base):
        def __init__(
            self, users: int = 5, films: int = 5, width: int = 3, **kwargs: Any
        ) -> None:
            super().__init__(**kwargs)
            self.sizes = {"users": users, "films": films, "width": width}
            kept = {
                "embeddings_initializer": "he_normal",
                "embeddings_regularizer": keras.regularizers.L2(1e-3),
            }
            self.user = L.Embedding(users, width, **kept)
            self.user_bias = L.Embedding(users, 1)
            self.film = L.Embedding(films, width, **kept)
            self.film_bias = L.Embedding(films, 1)

        def call(self, inputs: Any) -> Any:
            note_pass()
            user, film = inputs[:, 0], inputs[:, 1]
            match = ops.sum(
                self.user(user) * self.film(film), axis=1, keepdims=True
            )
            bias = self.user_bias(user) + self.film_bias(film)
            return ops.sigmoid(match + bias)

        def get_config(self) -> Any:
            return {**super().get_config(), **self.sizes}

    return Recommender


def make_wide_and_deep(kind: Kind) -> Any:
    """Columns are prepared inside the model; numbers by what was adapted."""
    age = keras.Input((1,), name="age")
    job = keras.Input((1,), name="job", dtype="int32")
    scale = L.Normalization()
    scale.adapt(COLUMNS["age"])
    columns = L.Concatenate()(
        [scale(age), L.CategoryEncoding(3, output_mode="one_hot")(job)]
    )
    deep = L.Dense(4, activation="relu")(Counted()(columns))
    deep = L.Dropout(0.3)(L.BatchNormalization()(deep))
    merged = L.Concatenate()([L.Dense(2)(columns), deep])
    return kind.model({"age": age, "job": job}, L.Dense(1)(merged))


@register
class GraphConvolution(L.Layer):
    """Each node hears the mean of its neighbours."""

    def __init__(self, units: int, edges: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.edges = np.asarray(edges, "float32")

    def build(self, shape: Any) -> None:
        """One weight for what a node is, one for what it hears."""
        size = (shape[-1], self.units)
        self.own = self.add_weight(size, "glorot_uniform", name="own")
        self.heard = self.add_weight(size, "glorot_uniform", name="heard")

    def call(self, nodes: Any) -> Any:
        """Nodes of shape `(n, nodes, features)`."""
        note_pass()
        around = self.edges / self.edges.sum(axis=1, keepdims=True)
        heard = ops.matmul(ops.convert_to_tensor(around), nodes)
        return ops.matmul(nodes, self.own) + ops.matmul(heard, self.heard)

    def get_config(self) -> Any:
        """As the constructor takes it."""
        config = {"units": self.units, "edges": self.edges.tolist()}
        return {**super().get_config(), **config}


GRAPHS = RNG.normal(size=(12, 4, 2)).astype("float32")
RING = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]


def make_graph(kind: Kind) -> Any:
    """Two rounds of hearing neighbours, over a fixed graph."""
    nodes = keras.Input((4, 2))
    x = ops.relu(GraphConvolution(3, RING)(nodes))
    x = GraphConvolution(2, RING)(L.Dropout(0.3)(x))
    return kind.model(nodes, L.Dense(1)(L.Flatten()(x)))


def make_mc_dropout(kind: Kind) -> Any:
    """Dropout that also draws when it predicts."""
    inputs = keras.Input((4,))
    x = L.Dense(6, activation="relu")(Counted()(inputs))
    x = L.Dropout(0.4)(x, training=True)
    return kind.model(inputs, L.Dense(1)(x))


def make_deferred(kind: Kind) -> Any:
    """Nobody says what it is fed."""
    layers = [Counted(), L.Dense(5, activation="tanh"), L.Dropout(0.3)]
    return kind.sequential([*layers, L.Dense(1)])


@register
def mixture_loss(y_true: Any, parameters: Any) -> Any:
    """How unlikely a value is under a mixture of two normal curves."""
    shares, means, scales = ops.split(parameters, 3, axis=-1)
    scales = ops.softplus(scales) + 0.1
    distance = ops.square((y_true - means) / scales)
    curves = -0.5 * distance - ops.log(scales)
    return -ops.logsumexp(ops.log_softmax(shares) + curves, axis=-1)


def make_mixture_density(kind: Kind) -> Any:
    """The parameters of a distribution instead of a value."""
    return kind.sequential(
        [
            keras.Input((4,)),
            Counted(),
            L.Dense(6, activation="tanh"),
            L.GaussianDropout(0.2),
            L.Dense(6),
        ]
    )


# Each user was shown one to four films; a zero stands where there was none.
SHOWN = RNG.integers(1, 6, size=(12, 4))
SHOWN *= np.arange(4) <= RNG.integers(0, 4, size=(12, 1))
PRAISE = np.where(SHOWN > 0, RNG.integers(0, 3, size=(12, 4)), -1)


@register
def listwise_loss(y_true: Any, y_pred: Any) -> Any:
    """How unlikely it is to praise in this way, among what was shown."""
    shown = ops.cast(y_true >= 0, y_pred.dtype)
    odds = ops.log_softmax(y_pred - 1e4 * (1.0 - shown))
    praise = ops.exp(ops.cast(y_true, y_pred.dtype)) * shown
    praise = praise / ops.sum(praise, axis=-1, keepdims=True)
    return -ops.sum(praise * odds * shown, axis=-1)


def make_ranking(kind: Kind) -> Any:
    """Films are ranked for a user, who then goes on or leaves."""
    user = keras.Input((1,), name="user", dtype="int32")
    films = keras.Input((4,), name="films", dtype="int32")
    taste = L.Flatten()(L.Embedding(12, 4)(Counted()(user)))
    seen = L.Embedding(6, 4, mask_zero=True)(films)
    # Two hashes share few rows, in the place of one row for each user.
    coarse = L.Embedding(3, 4)(L.Lambda(_hash, output_shape=(1,))(user))
    seen = seen + coarse
    scores = L.Dot(axes=(2, 1), name="scores")([L.Dense(4)(seen), taste])
    whole = L.GlobalAveragePooling1D()(L.Dropout(0.2)(seen))
    stays = L.Dense(1, activation="sigmoid", name="stays")
    return kind.model(
        {"user": user, "films": films},
        {"scores": scores, "stays": stays(L.Concatenate()([whole, taste]))},
    )


@register
def _hash(numbers: Any) -> Any:
    return ops.cast(ops.mod(numbers * 7, 3), "int32")


def compile_ranking(model: Any) -> None:
    """Two losses and their weights; means of the weights of the model."""
    model.compile(
        keras.optimizers.Adam(
            0.01,
            use_ema=True,
            ema_overwrite_frequency=2,
            gradient_accumulation_steps=2,
            global_clipnorm=1.0,
        ),
        {"scores": listwise_loss, "stays": "binary_crossentropy"},
        loss_weights={"scores": 1.0, "stays": 0.3},
        weighted_metrics={"stays": ["auc"]},
    )


def train_ranking(model: Any, callbacks: Any = ()) -> Any:
    """Rows count unequally; callbacks lower the rate, stop and go back."""
    train = fitting(
        LISTS,
        ANSWERS,
        sample_weight={"scores": WEIGHTS, "stays": WEIGHTS[::-1]},
        validation_data=(LISTS, ANSWERS),
        epochs=4,
    )
    # No epoch is so much better than the first: it ends after the third.
    watch = {"monitor": "val_loss", "min_delta": 10.0}
    own = [
        keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, **watch),
        keras.callbacks.EarlyStopping(
            restore_best_weights=True, patience=2, **watch
        ),
    ]
    return train(model, [*own, *callbacks])


LISTS = {"user": np.arange(12)[:, None], "films": SHOWN}
ANSWERS = {"scores": PRAISE, "stays": RNG.integers(0, 2, size=(12, 1))}
WEIGHTS = RNG.uniform(0.5, 2.0, size=12).astype("float32")


@register
class Flow(L.Layer):
    """Follows a field that is learned, in small steps."""

    def __init__(self, num_steps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_steps = num_steps

    def build(self, shape: Any) -> None:
        """Where a point is and the time say where it goes."""
        size = shape[-1]
        self.field = L.Dense(size, activation="tanh")
        self.field.build((None, size + 1))

    def call(self, x: Any) -> Any:
        """Euler's method, in a loop of the backend."""
        note_pass()
        length = 1.0 / self.num_steps

        def step(number: Any, point: Any) -> Any:
            time = ops.cast(number, point.dtype) * length
            times = ops.full_like(point[:, :1], 1.0) * time
            change = self.field(ops.concatenate([point, times], axis=-1))
            return point + length * change

        return ops.fori_loop(0, self.num_steps, step, x)

    def get_config(self) -> Any:
        """As the constructor takes it."""
        return {**super().get_config(), "num_steps": self.num_steps}


def make_flow(kind: Kind) -> Any:
    """A network as deep as one likes, with the weights of one layer."""
    inputs = keras.Input((4,))
    x = Flow(4)(L.GaussianNoise(0.1)(inputs))
    return kind.model(inputs, L.Dense(1)(x))


WORKLOADS = [
    Workload(
        "recommender",
        lambda kind: recommender_class(kind.model)(),
        compiling("adam", "binary_crossentropy"),
        fitting(RATINGS, LIKED),
        RATINGS,
        LIKED,
    ),
    Workload(
        "wide and deep",
        make_wide_and_deep,
        compiling("adam", "mse", metrics=["mae"]),
        fitting(COLUMNS, Y),
        COLUMNS,
        Y,
    ),
    Workload(
        "graph network",
        make_graph,
        compiling("adam", "mse"),
        fitting(GRAPHS, Y, validation_split=1 / 3),
        GRAPHS,
        Y,
    ),
    Workload(
        "Monte Carlo dropout",
        make_mc_dropout,
        compiling("adam", "mse"),
        fitting(X, Y),
        X,
        Y,
    ),
    Workload(
        "deferred build",
        make_deferred,
        compiling("adam", "mse"),
        fitting(X, Y),
        X,
        Y,
    ),
    Workload(
        "mixture density",
        make_mixture_density,
        compiling("adam", mixture_loss),
        fitting(X, Y),
        X,
        Y,
    ),
    Workload(
        "ranking",
        make_ranking,
        compile_ranking,
        train_ranking,
        LISTS,
        ANSWERS,
    ),
    Workload(
        "continuous depth",
        make_flow,
        compiling("adam", "mse"),
        fitting(X, Y),
        X,
        Y,
    ),
]
