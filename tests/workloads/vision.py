"""Images: classify, enhance, fine-tune, and learn without labels."""

from __future__ import annotations

import functools
import random
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from .workload import (
    BACKEND,
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

IMAGES = RNG.uniform(size=(12, 8, 8, 1)).astype("float32")
CLASSES = RNG.integers(0, 3, size=12)
SMALL = IMAGES[:, ::2, ::2]


def make_convnet(kind: Kind) -> Any:
    """Augment, convolve, normalize, drop."""
    return kind.sequential(
        [
            keras.Input((8, 8, 1)),
            L.RandomFlip("horizontal"),
            L.RandomTranslation(0.2, 0.2),
            Counted(),
            L.Conv2D(3, 3, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(),
            L.Dropout(0.3),
            L.GlobalAveragePooling2D(),
            L.Dense(3, activation="softmax"),
        ]
    )


@register
class Patches(L.Layer):
    """Cuts images into a row of square patches."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def call(self, images: Any) -> Any:
        """Images of shape `(n, h, w, c)` to `(n, patches, values)`."""
        _, height, width, channels = images.shape
        size = self.size
        rows, columns = height // size, width // size
        x = ops.reshape(images, (-1, rows, size, columns, size, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, rows * columns, size * size * channels))

    def get_config(self) -> Any:
        """The size of a patch."""
        return {**super().get_config(), "size": self.size}


@register
class PatchEncoder(L.Layer):
    """Projects patches, and adds where they were."""

    def __init__(self, patches: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patches, self.width = patches, width
        self.projection = L.Dense(width)
        self.positions = L.Embedding(patches, width)

    def build(self, shape: Any) -> None:
        """Both parts are built here, from what is known."""
        self.projection.build(shape)
        self.positions.build((1, self.patches))

    def call(self, patches: Any) -> Any:
        """Positions are the same in each image."""
        note_pass()
        places = ops.expand_dims(ops.arange(self.patches), 0)
        return self.projection(patches) + self.positions(places)

    def get_config(self) -> Any:
        """As the constructor takes it."""
        config = {"patches": self.patches, "width": self.width}
        return {**super().get_config(), **config}


def make_vit(kind: Kind) -> Any:
    """A vision transformer of one block."""
    images = keras.Input((8, 8, 1))
    x = PatchEncoder(4, 6)(Patches(4)(images))
    y = L.LayerNormalization()(x)
    x = x + L.MultiHeadAttention(2, 3, dropout=0.2)(y, y)
    y = L.Dense(8, activation="gelu")(L.LayerNormalization()(x))
    x = x + L.Dense(6)(L.Dropout(0.2)(y))
    x = L.Dropout(0.3)(L.Flatten()(x))
    return kind.model(images, L.Dense(3)(x))


@register
class Enlarge(L.Layer):
    """Turns channels into finer pixels."""

    def call(self, x: Any) -> Any:
        """`(n, h, w, 4)` to `(n, 2 h, 2 w, 1)`."""
        note_pass()
        _, height, width, _ = x.shape
        x = ops.reshape(x, (-1, height, width, 2, 2))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, 2 * height, 2 * width, 1))


@register
class SmoothL1(keras.losses.Loss):
    """Distance of pixels, round at zero."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One number for each image."""
        distance = ops.sqrt(ops.square(y_true - y_pred) + 1e-4)
        return ops.mean(distance, axis=(1, 2, 3))


@register
class SignalToNoise(keras.metrics.Metric):
    """Peak signal-to-noise ratio over all images so far."""

    def __init__(self, name: str = "psnr", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.total = self.add_variable((), "zeros", name="total")
        self.seen = self.add_variable((), "zeros", name="seen")

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        """Add a batch."""
        error = ops.mean(ops.square(y_true - y_pred), axis=(1, 2, 3))
        self.total.assign_add(ops.sum(-10.0 * ops.log10(error)))
        self.seen.assign_add(ops.sum(ops.ones_like(error)))

    def result(self) -> Any:
        """The mean."""
        return self.total / self.seen


def make_super_resolution(kind: Kind) -> Any:
    """Twice the pixels, with a residual connection."""
    small = keras.Input((4, 4, 1))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(small)
    x = L.Conv2D(4, 3, padding="same")(L.GaussianNoise(0.1)(x)) + x
    return kind.model(small, Enlarge()(x))


def make_transfer(kind: Kind) -> Any:
    """A head on a base that somebody has trained before."""
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(3, 3, strides=2),
            L.BatchNormalization(),
            L.GlobalAveragePooling2D(),
        ],
        name="base",
    )
    images = keras.Input((8, 8, 1))
    x = Counted()(base(L.Rescaling(2.0, -1.0)(images), training=False))
    return kind.model(images, L.Dense(3)(L.Dropout(0.2)(x)))


def compile_transfer(model: Any, rate: float = 0.05) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])


def train_transfer(model: Any, callbacks: Any = ()) -> Any:
    """First the head alone; then all of it, slowly."""
    histories = []
    for trainable, rate in ((False, 0.05), (True, 0.001)):
        model.get_layer("base").trainable = trainable
        compile_transfer(model, rate)
        train = fitting(IMAGES, CLASSES)
        histories.append(train(model, callbacks))
    return histories


@functools.cache
def contrastive_class(base: Any) -> Any:
    """Two views of each image shall be near each other; it has no `call`."""

    @register
    class Contrastive(base):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first = _augmenter(0.1)
            self.second = _augmenter(0.3)
            self.encoder = keras.Sequential(
                [
                    keras.Input((8, 8, 1)),
                    L.Conv2D(3, 3, strides=2, activation="relu"),
                    L.Flatten(),
                    L.Dense(4),
                ]
            )
            self.projection = keras.Sequential(
                [keras.Input((4,)), L.Dense(4, activation="relu"), L.Dense(3)]
            )
            self.loss_tracker = keras.metrics.Mean(name="contrast")
            self.built = True

        @property
        def metrics(self) -> Any:
            return [self.loss_tracker]

        def contrast(self, images: Any) -> Any:
            note_pass()
            one, two = (
                ops.normalize(
                    self.projection(
                        self.encoder(view(images, training=True), training=True)
                    )
                )
                for view in (self.first, self.second)
            )
            similar = ops.matmul(one, ops.transpose(two)) / 0.2
            labels = ops.arange(ops.shape(images)[0])
            losses = [
                ops.mean(
                    keras.losses.sparse_categorical_crossentropy(
                        labels, logits, from_logits=True
                    )
                )
                for logits in (similar, ops.transpose(similar))
            ]
            return (losses[0] + losses[1]) / 2.0

        def train_step(self, data: Any) -> Any:
            images = keras.utils.unpack_x_y_sample_weight(data)[0]
            weights = [
                *self.encoder.trainable_weights,
                *self.projection.trainable_weights,
            ]
            if BACKEND == "tensorflow":
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    loss = self.contrast(images)
                gradients = tape.gradient(loss, weights)
                self.optimizer.apply_gradients(
                    zip(gradients, weights, strict=True)
                )
            else:
                import torch

                self.zero_grad()
                loss = self.contrast(images)
                loss.backward()
                gradients = [weight.value.grad for weight in weights]
                with torch.no_grad():
                    self.optimizer.apply(gradients, weights)
            self.loss_tracker.update_state(loss)
            return {"contrast": self.loss_tracker.result()}

    return Contrastive


def _augmenter(strength: float) -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.RandomFlip("horizontal"),
            L.RandomTranslation(strength, strength),
            L.GaussianNoise(strength),
        ]
    )


@register
class Mixture(L.Layer):
    """Mixes an image with changed copies; draws with Python and NumPy."""

    def call(self, images: Any, training: bool = False) -> Any:
        """The draws are made where this body runs: in a trace, or each time."""
        note_pass()
        if not training:
            return images
        shares = np.random.dirichlet([1.0, 1.0])
        mixed = images * float(shares[0])
        change = random.choice([ops.square, ops.sqrt, lambda x: 1.0 - x])
        return mixed + float(shares[1]) * change(images)


def make_mixture(kind: Kind) -> Any:
    """A classifier whose first layer draws in Python."""
    return kind.sequential(
        [
            keras.Input((8, 8, 1)),
            Mixture(),
            L.Conv2D(2, 3, strides=2, activation="relu"),
            L.Flatten(),
            L.Dense(3, activation="softmax"),
        ]
    )


def find_shades(images: Any) -> Any:
    """Which of three shades each pixel has, one-hot."""
    shades = np.digitize(images[..., 0], [0.3, 0.6])
    return keras.utils.to_categorical(shades, 3)


class Cuts(keras.utils.PyDataset):
    """Images, flipped or not, and which class each of their pixels has."""

    def __init__(self, images: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.rng = np.random.default_rng(6)

    def __len__(self) -> int:
        return len(self.images) // 4

    def __getitem__(self, index: int) -> Any:
        images = self.images[index * 4 : index * 4 + 4]
        if self.rng.random() < 0.5:
            images = images[:, :, ::-1]
        return images, find_shades(images)


def make_segmentation(kind: Kind) -> Any:
    """Down to few pixels and up again, with what was seen on the way."""
    images = keras.Input((8, 8, 1))
    wide = L.Conv2D(3, 3, padding="same", activation="relu")(images)
    x = L.MaxPooling2D(2)(L.BatchNormalization()(Counted()(wide)))
    x = L.SeparableConv2D(4, 3, padding="same", activation="relu")(x)
    x = L.Conv2DTranspose(4, 3, padding="same")(L.SpatialDropout2D(0.2)(x))
    x = L.Concatenate()([L.UpSampling2D(2)(L.GroupNormalization(2)(x)), wide])
    convolve = L.SpectralNormalization(L.Conv2D(3, 3, padding="same"))
    return kind.model(images, L.Softmax()(convolve(x)))


_CUTS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def train_segmentation(model: Any, callbacks: Any = ()) -> Any:
    """One dataset to train on, and one to validate with, for each model."""
    if model not in _CUTS:
        _CUTS[model] = Cuts(IMAGES[:8]), Cuts(IMAGES[8:])
    data, validation = _CUTS[model]
    return model.fit(
        data,
        validation_data=validation,
        epochs=2,
        verbose=0,
        callbacks=list(callbacks),
    ).history


_CLASSIFY = "sparse_categorical_crossentropy"
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
WORKLOADS = [
    Workload(
        "convnet",
        make_convnet,
        compiling("adam", _CLASSIFY, metrics=["accuracy"]),
        fitting(IMAGES, CLASSES, validation_split=1 / 3),
        IMAGES,
        CLASSES,
    ),
    Workload(
        "vision transformer",
        make_vit,
        compiling(lambda: keras.optimizers.AdamW(0.01), LOGITS),
        fitting(IMAGES, CLASSES),
        IMAGES,
        CLASSES,
    ),
    Workload(
        "super-resolution",
        make_super_resolution,
        lambda model: model.compile(
            "adam", SmoothL1(), metrics=[SignalToNoise()]
        ),
        fitting(SMALL, IMAGES, validation_data=(SMALL[:4], IMAGES[:4])),
        SMALL,
        IMAGES,
    ),
    Workload(
        "transfer learning",
        make_transfer,
        compile_transfer,
        train_transfer,
        IMAGES,
        CLASSES,
    ),
    Workload(
        "contrastive learning",
        lambda kind: contrastive_class(kind.model)(),
        compiling("adam"),
        fitting(IMAGES),
        backends=("tensorflow", "torch"),
    ),
    Workload(
        "mixed images",
        make_mixture,
        compiling("sgd", _CLASSIFY),
        fitting(IMAGES, CLASSES),
        IMAGES,
        CLASSES,
        draws_in_trace=True,
    ),
    Workload(
        "segmentation",
        make_segmentation,
        compiling(
            "rmsprop",
            keras.losses.Dice(axis=(1, 2)),
            metrics=[keras.metrics.OneHotMeanIoU(3)],
        ),
        train_segmentation,
        IMAGES,
        find_shades(IMAGES),
    ),
]
