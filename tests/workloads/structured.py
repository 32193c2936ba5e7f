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
]
