"""Text and series: classify, translate, and go on where a batch ended."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .vision import LOGITS
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
WAVES = RNG.normal(size=(12, 64, 1)).astype("float32")
# Nothing is said where a zero stands.
SAID = RNG.integers(1, 4, size=(12, 3)) * ([[1, 1, 0], [1, 1, 1]] * 6)
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


@register
class SwitchLayer(L.Layer):
    """Each token goes to one expert, as long as that one has room."""

    def __init__(
        self, experts: int, width: int, room: int = 6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sizes = {"experts": experts, "width": width, "room": room}
        self.router = L.Dense(experts)
        self.experts = [
            keras.Sequential(
                [L.Dense(width, activation="relu"), L.Dense(width)]
            )
            for _ in range(experts)
        ]
        self.seed_generator = keras.random.SeedGenerator(17)

    def call(self, x: Any, training: bool = False) -> Any:
        """Tokens of shape `(n, length, width)`; noise helps to choose."""
        note_pass()
        experts, width, room = self.sizes.values()
        tokens = noisy = ops.reshape(x, (-1, width))
        if training:
            shape = ops.shape(tokens)
            noisy = tokens * keras.random.uniform(
                shape, 0.9, 1.1, seed=self.seed_generator
            )
        odds = ops.softmax(self.router(noisy))
        gate, chosen = ops.top_k(odds, 1)
        chosen = ops.one_hot(chosen[:, 0], experts)
        # Experts shall be chosen equally often.
        share, mean = ops.mean(chosen, axis=0), ops.mean(odds, axis=0)
        self.add_loss(0.1 * experts * ops.sum(share * mean))
        place = ops.cumsum(chosen, axis=0) * chosen
        # Who comes too late has no seat.
        seats = place[..., None] == ops.arange(1.0, room + 1.0)
        seats = ops.cast(seats, x.dtype)
        given = ops.einsum("ter,tw->erw", seats, tokens)
        made = [expert(given[i]) for i, expert in enumerate(self.experts)]
        back = ops.einsum("ter,erw->tw", seats, ops.stack(made))
        return ops.reshape(gate * back, ops.shape(x))

    def get_config(self) -> Any:
        """As the constructor takes it."""
        return {**super().get_config(), **self.sizes}


def make_switch_transformer(kind: Kind) -> Any:
    """Attention, and experts in the place of the dense layers."""
    tokens = keras.Input((5,), dtype="int32")
    x = TokenAndPosition(5, 9, 4)(tokens)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 2)(x, x))
    x = L.LayerNormalization()(x + SwitchLayer(3, 4)(x))
    x = L.Dropout(0.2)(L.GlobalAveragePooling1D()(x))
    return kind.model(tokens, L.Dense(2, activation="softmax")(x))


@register
class GatedConvolution(L.Layer):
    """Hears the past alone, further back with each dilation."""

    def __init__(self, filters: int, dilation: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = {"filters": filters, "dilation": dilation}
        options = {"padding": "causal", "dilation_rate": dilation}
        self.signal = L.Conv1D(filters, 2, activation="tanh", **options)
        self.gate = L.Conv1D(filters, 2, activation="sigmoid", **options)
        self.back = L.Conv1D(filters, 1)

    def build(self, shape: Any) -> None:
        """All three see as many channels as they make."""
        for part in (self.signal, self.gate, self.back):
            part.build(shape)

    def call(self, x: Any) -> Any:
        """A sum, as in WaveNet."""
        return x + self.back(self.signal(x) * self.gate(x))

    def get_config(self) -> Any:
        """As the constructor takes it."""
        return {**super().get_config(), **self.sizes}


def make_speech(kind: Kind) -> Any:
    """Spectra of a wave become letters, said anywhere in it."""
    waves = keras.Input((64, 1))
    x = L.STFTSpectrogram(
        mode="log", frame_length=8, frame_step=4, fft_length=8
    )(waves)
    x = L.Conv1D(4, 1)(L.BatchNormalization()(Counted()(x)))
    for dilation in (1, 2):
        x = GatedConvolution(4, dilation)(x)
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    return kind.model(waves, L.Dense(5)(L.Dropout(0.2)(x)))


@register
class CausalBlock(L.Layer):
    """A transformer block in which nobody sees what comes after."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.attention = L.MultiHeadAttention(2, width)
        self.network = L.Dense(width, activation="gelu")
        self.norm = L.LayerNormalization()
        self.drop = L.Dropout(0.1)

    def call(self, x: Any, training: bool = False) -> Any:
        """The mask is made of the shape."""
        note_pass()
        heard = self.attention(x, x, use_causal_mask=True)
        x = self.norm(x + self.drop(heard, training=training))
        return x + self.network(x)

    def get_config(self) -> Any:
        """As the constructor takes it."""
        return {**super().get_config(), "width": self.width}


def make_gpt(kind: Kind) -> Any:
    """What comes next, and (for nobody) what each token became."""
    tokens = keras.Input((4,), dtype="int32")
    x = CausalBlock(4)(TokenAndPosition(4, 9, 4)(tokens))
    return kind.model(tokens, [L.Dense(9)(x), x])


class Writer(keras.callbacks.Callback):
    """Writes after each epoch, with what was learned until then."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[list[int]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draws among the three likeliest tokens, by NumPy."""
        text = [1]
        while len(text) < 4:
            padded = np.array([text + [0] * (4 - len(text))])
            logits, _ = self.model.predict(padded, verbose=0)
            logits = logits[0, len(text) - 1].astype("float64")
            best = np.argsort(logits)[-3:]
            odds = np.exp(logits[best]) / np.exp(logits[best]).sum()
            text.append(int(np.random.choice(best, p=odds)))
        self.texts.append(text)


def train_gpt(model: Any, callbacks: Any = ()) -> Any:
    """What was written belongs to what a training gives."""
    writer = Writer()
    train = fitting(TOKENS[:, :-1], TOKENS[:, 1:])
    return train(model, [writer, *callbacks]), writer.texts


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
    Workload(
        "switch transformer",
        make_switch_transformer,
        compiling("adam", "sparse_categorical_crossentropy"),
        fitting(TOKENS, SENTIMENT),
        TOKENS,
        SENTIMENT,
    ),
    Workload(
        "speech recognition",
        make_speech,
        compiling("adam", keras.losses.CTC()),
        fitting(WAVES, SAID),
        WAVES,
        SAID,
    ),
    Workload(
        "text generation",
        make_gpt,
        compiling("adam", [LOGITS, None]),
        train_gpt,
        TOKENS[:, :-1],
        TOKENS[:, 1:],
    ),
]
