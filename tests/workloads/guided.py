"""Models that learn from triples, from a teacher, and from what was hidden.

None is trained by a loss on labels alone: each has a `compute_loss` of its own.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

import keras_repro as kr

from .vision import CLASSES, IMAGES, LOGITS, PatchEncoder, Patches
from .workload import (
    Kind,
    L,
    Workload,
    compiling,
    fitting,
    note_pass,
    register,
)

TRIPLES = [IMAGES, IMAGES[::-1], IMAGES[:, ::-1]]


@register
class Distances(L.Layer):
    """How far the first is from the second, and from the third."""

    def call(self, anchor: Any, near: Any, far: Any) -> Any:
        """Squared distances of what was embedded."""
        return tuple(
            ops.sum(ops.square(anchor - other), axis=-1)
            for other in (near, far)
        )


def make_embedding(kind: Kind) -> Any:
    """One tower for all images of a triple; what comes first is frozen."""
    images = keras.Input((8, 8, 1))
    frozen = L.Conv2D(3, 3, strides=2, activation="relu", trainable=False)
    x = L.Dense(6, activation="relu")(L.Flatten()(frozen(images)))
    return kind.model(images, L.Dense(4)(L.BatchNormalization()(x)))


@functools.cache
def siamese_class(base: Any) -> Any:
    """What is alike shall be nearer than what is not."""

    @register
    class Siamese(base):
        def __init__(
            self, network: Any, margin: float = 0.5, **kwargs: Any
        ) -> None:
            super().__init__(**kwargs)
            self.network, self.margin = network, margin

        def call(self, triple: Any) -> Any:
            note_pass()
            return self.network(triple)

        def compute_loss(
            self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
        ) -> Any:
            near, far = y_pred
            return ops.mean(ops.maximum(near - far + self.margin, 0.0))

        def get_config(self) -> Any:
            config = {"network": self.network, "margin": self.margin}
            return {**super().get_config(), **config}

        @classmethod
        def from_config(cls, config: Any) -> Any:
            read = keras.saving.deserialize_keras_object
            return cls(**{**config, "network": read(config["network"])})

    return Siamese


def make_siamese(kind: Kind) -> Any:
    """Three images go through one tower; the network is handed over."""
    images = [
        keras.Input((8, 8, 1), name=name) for name in ("anchor", "near", "far")
    ]
    tower = make_embedding(kind)
    distances = Distances()(*map(tower, images))
    return siamese_class(kind.model)(kind.model(images, distances))


def make_classifier(kind: Kind, width: int) -> Any:
    """A network that gives logits."""
    return kind.sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(width, 3, strides=2),
            L.LeakyReLU(0.2),
            L.Flatten(),
            L.Dropout(0.2),
            L.Dense(3),
        ]
    )


@functools.cache
def distiller_class(base: Any) -> Any:
    """A student learns the labels, and what its teacher makes of them."""

    @register
    class Distiller(base):
        def __init__(self, student: Any, teacher: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.student, self.teacher = student, teacher

        def compile(
            self, optimizer: Any, hard_loss: Any, soft_loss: Any, heat: float
        ) -> None:
            super().compile(optimizer, metrics=["accuracy"])
            self.hard_loss, self.soft_loss = hard_loss, soft_loss
            self.heat = heat

        def call(self, images: Any, training: bool = False) -> Any:
            note_pass()
            return self.student(images, training=training)

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            allow_empty: bool = False,
        ) -> Any:
            taught = self.teacher(x, training=False)
            soft = [ops.softmax(z / self.heat) for z in (taught, y_pred)]
            return self.hard_loss(y, y_pred) + self.soft_loss(*soft)

        def get_config(self) -> Any:
            config = {"student": self.student, "teacher": self.teacher}
            return {**super().get_config(), **config}

        @classmethod
        def from_config(cls, config: Any) -> Any:
            read = keras.saving.deserialize_keras_object
            parts = {key: read(config[key]) for key in ("student", "teacher")}
            return cls(**{**config, **parts})

    return Distiller


def make_distiller(kind: Kind) -> Any:
    """The teacher has been trained before, and is the same for all."""
    with kr.isolate_rng(3):
        teacher = make_classifier(kind, 6)
        teacher.compile("adam", LOGITS)
        teacher.fit(IMAGES, CLASSES, epochs=2, batch_size=6, verbose=0)
    teacher.trainable = False
    return distiller_class(kind.model)(make_classifier(kind, 2), teacher)


def compile_distiller(model: Any) -> None:
    model.compile("adam", LOGITS, keras.losses.KLDivergence(), heat=3.0)


@register
class HidePatches(L.Layer):
    """Puts a learned token in the place of some patches, drawn anew."""

    def __init__(self, share: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share
        self.seed_generator = keras.random.SeedGenerator(21)

    def build(self, shape: Any) -> None:
        """One token for all that is hidden."""
        self.hidden = round(self.share * shape[1])
        self.token = self.add_weight((1, 1, shape[2]), "normal", name="token")

    def call(self, patches: Any) -> Any:
        """The patches that can be seen, and which ones those are not."""
        shape = ops.shape(patches)[:2]
        drawn = keras.random.uniform(shape, seed=self.seed_generator)
        ranks = ops.argsort(ops.argsort(drawn, axis=1), axis=1)
        hidden = ops.cast(ranks < self.hidden, patches.dtype)[..., None]
        return patches * (1.0 - hidden) + self.token * hidden, hidden

    def get_config(self) -> Any:
        """The share that is hidden."""
        return {**super().get_config(), "share": self.share}


@functools.cache
def masked_autoencoder_class(base: Any) -> Any:
    """Finds out what was hidden; only that counts."""

    @register
    class MaskedAutoencoder(base):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.patches = Patches(2)
            self.hide = HidePatches(0.75)
            self.encoder = PatchEncoder(16, 4)
            self.attention = L.MultiHeadAttention(2, 2, dropout=0.1)
            self.norm = L.LayerNormalization(epsilon=1e-6)
            self.decoder = L.Dense(4)
            self.error = keras.metrics.MeanAbsoluteError(name="error")

        def call(self, images: Any, training: bool | None = None) -> Any:
            patches = self.patches(images)
            seen, hidden = self.hide(patches)
            x = self.norm(self.encoder(seen))
            x = x + self.attention(x, x, training=training)
            return patches, self.decoder(x), hidden

        def compute_loss(
            self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
        ) -> Any:
            patches, made, hidden = y_pred
            # Keras tracks the metric, but nobody else updates it.
            self.error.update_state(patches, made)
            return ops.sum(ops.square(patches - made) * hidden) / ops.sum(
                hidden
            )

        def compute_metrics(self, *unused: Any, **more: Any) -> Any:
            return self.get_metrics_result()

    return MaskedAutoencoder


WORKLOADS = [
    Workload(
        "siamese network",
        make_siamese,
        compiling("adam"),
        fitting(TRIPLES),
        TRIPLES,
    ),
    Workload(
        "distillation",
        make_distiller,
        compile_distiller,
        fitting(IMAGES, CLASSES, validation_split=1 / 3),
        IMAGES,
        CLASSES,
        own_compile=True,
    ),
    Workload(
        "masked autoencoder",
        lambda kind: masked_autoencoder_class(kind.model)(),
        compiling(lambda: keras.optimizers.AdamW(0.01)),
        fitting(IMAGES),
        IMAGES,
    ),
]
