"""Text and series: classify, translate, and go on where a batch ended."""

from __future__ import annotations

from typing import Any

import keras
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

TOKENS = RNG.integers(0, 9, size=(12, 5))
SENTIMENT = RNG.integers(0, 2, size=12)
SERIES = RNG.normal(size=(8, 3, 2)).astype("float32")
NEXT = SERIES.sum(axis=(1, 2))[:, None]
LETTERS = keras.utils.to_categorical(RNG.integers(0, 4, size=(12, 5)), 4)


@register
class TokenAndPosition(L.Layer):
    """What a token is and where it stands."""

    def __init__(
        self, length: int, vocabulary: int, width: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sizes = {
            "length": length,
            "vocabulary": vocabulary,
            "width": width,
        }
        self.tokens = L.Embedding(vocabulary, width)
        self.places = L.Embedding(length, width)

    def build(self, shape: Any) -> None:
        """Both embeddings are built here."""
        self.tokens.build(shape)
        self.places.build(shape)

    def call(self, tokens: Any) -> Any:
        """The sum of both."""
        places = ops.arange(self.sizes["length"])
        return self.tokens(tokens) + self.places(places)

    def get_config(self) -> Any:
        """As the constructor takes it."""
        return {**super().get_config(), **self.sizes}


@register
class TransformerBlock(L.Layer):
    """Attention and two dense layers, each with dropout and a sum.

    Without a `build`: its parts are built where they are first called.
    """

    def __init__(self, width: int, rate: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.rate = width, rate
        self.attention = L.MultiHeadAttention(2, width)
        self.network = keras.Sequential(
            [L.Dense(2 * width, activation="relu"), L.Dense(width)]
        )
        self.norms = [L.LayerNormalization(), L.LayerNormalization()]
        self.drops = [L.Dropout(rate), L.Dropout(rate)]

    def call(self, x: Any, training: bool | None = None) -> Any:
        """The order of the layers is that of the first transformers."""
        note_pass()
        y = self.drops[0](self.attention(x, x), training=training)
        x = self.norms[0](x + y)
        y = self.drops[1](self.network(x), training=training)
        return self.norms[1](x + y)

    def get_config(self) -> Any:
        """As the constructor takes it."""
        config = {"width": self.width, "rate": self.rate}
        return {**super().get_config(), **config}


def make_text_transformer(kind: Kind) -> Any:
    """A classifier of short texts."""
    tokens = keras.Input((5,), dtype="int32")
    x = TransformerBlock(4)(TokenAndPosition(5, 9, 4)(tokens))
    x = L.Dropout(0.1)(L.GlobalAveragePooling1D()(x))
    return kind.model(tokens, L.Dense(2, activation="softmax")(x))


def make_seq2seq(kind: Kind) -> Any:
    """An encoder hands its states to a decoder, which is told each letter."""
    source = keras.Input((None, 4), name="source")
    *_, hidden, cell = L.LSTM(5, return_state=True)(source)
    target = keras.Input((None, 4), name="target")
    letters, *_ = L.LSTM(5, return_sequences=True, return_state=True)(
        target, initial_state=[hidden, cell]
    )
    outputs = L.Dense(4, activation="softmax")(Counted()(letters))
    return kind.model([source, target], outputs)


def make_series(kind: Kind) -> Any:
    """A recurrent layer that keeps its state from batch to batch."""
    return kind.sequential(
        [
            keras.Input((3, 2), batch_size=4),
            L.LSTM(3, stateful=True),
            Counted(),
            L.Dense(1),
        ]
    )


PAIR = [LETTERS, LETTERS[:, ::-1]]
WORKLOADS = [
    Workload(
        "text transformer",
        make_text_transformer,
        compiling("adam", "sparse_categorical_crossentropy"),
        fitting(TOKENS, SENTIMENT),
        TOKENS,
        SENTIMENT,
    ),
    Workload(
        "sequence to sequence",
        make_seq2seq,
        compiling("rmsprop", "categorical_crossentropy", metrics=["accuracy"]),
        fitting(PAIR, PAIR[1]),
        PAIR,
        PAIR[1],
    ),
    Workload(
        "stateful series",
        make_series,
        compiling("adam", "mse"),
        fitting(SERIES, NEXT, shuffle=False),
        # Stock Keras cannot train a stateful layer on PyTorch.
        backends=("tensorflow", "jax"),
    ),
]
