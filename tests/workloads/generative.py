"""Models that make images, each with a training step of its own.

The step is written as Keras' guides teach it, once for each backend.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from .workload import (
    BACKEND,
    RNG,
    Kind,
    L,
    Workload,
    compiling,
    fitting,
    note_pass,
    register,
    state_of,
    values_of,
)

IMAGES = RNG.uniform(size=(12, 16)).astype("float32")


@register
class Sampling(L.Layer):
    """Draws a point near a mean."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(11)

    def call(self, inputs: Any) -> Any:
        """Mean and logarithm of the variance to a point."""
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


@functools.cache
def vae_class(base: Any) -> Any:
    """An autoencoder whose code is a distribution."""

    @register
    class Autoencoder(base):
        def __init__(self, width: int = 2, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.width = width
            images = keras.Input((16,))
            x = L.Dense(6, activation="relu")(images)
            self.encoder = keras.Model(
                images, [L.Dense(width)(x), L.Dense(width)(x)]
            )
            self.sampling = Sampling()
            self.decoder = keras.Sequential(
                [
                    keras.Input((width,)),
                    L.Dense(6, activation="relu"),
                    L.Dense(16, activation="sigmoid"),
                ]
            )
            # Of their sum stock Keras gives other last digits from one
            # training to the next on TensorFlow.
            self.trackers = [
                keras.metrics.Mean(name="reconstruction"),
                keras.metrics.Mean(name="divergence"),
            ]

        def get_config(self) -> Any:
            return {**super().get_config(), "width": self.width}

        @property
        def metrics(self) -> Any:
            return self.trackers

        def call(self, images: Any, training: bool = False) -> Any:
            mean, log_variance = self.encoder(images, training=training)
            made = self.decoder(self.sampling((mean, log_variance)))
            return made, mean, log_variance

        def losses_of(self, images: Any, outputs: Any) -> Any:
            note_pass()
            made, mean, log_variance = outputs
            reconstruction = ops.mean(
                ops.sum(ops.square(images - made), axis=-1)
            )
            excess = ops.square(mean) + ops.exp(log_variance) - log_variance
            divergence = 0.5 * ops.mean(ops.sum(excess - 1.0, axis=-1))
            total = reconstruction + 0.1 * divergence
            return total, (reconstruction, divergence)

        def train_step(self, *args: Any) -> Any:
            *state, data = args
            images = keras.utils.unpack_x_y_sample_weight(data)[0]
            return getattr(self, f"_{BACKEND}_step")(images, *state)

        def _tensorflow_step(self, images: Any) -> Any:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                outputs = self(images, training=True)
                total, parts = self.losses_of(images, outputs)
            gradients = tape.gradient(total, self.trainable_weights)
            self.optimizer.apply_gradients(
                zip(gradients, self.trainable_weights, strict=True)
            )
            return self._track(*parts)

        def _torch_step(self, images: Any) -> Any:
            import torch

            self.zero_grad()
            outputs = self(images, training=True)
            total, parts = self.losses_of(images, outputs)
            total.backward()
            weights = list(self.trainable_weights)
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in weights], weights)
            return self._track(*parts)

        def _track(self, *losses: Any) -> Any:
            for tracker, loss in zip(self.trackers, losses, strict=True):
                tracker.update_state(loss)
            return {m.name: m.result() for m in self.metrics}

        def _loss_and_updates(
            self, trainable: Any, others: Any, images: Any
        ) -> Any:
            outputs, others = self.stateless_call(
                trainable, others, images, training=True
            )
            total, parts = self.losses_of(images, outputs)
            return total, (others, parts)

        def _jax_step(self, images: Any, state: Any) -> Any:
            import jax

            trainable, others, slots, metrics = state
            with_gradients = jax.value_and_grad(
                self._loss_and_updates, has_aux=True
            )
            (_, (others, parts)), gradients = with_gradients(
                trainable, others, images
            )
            trainable, slots = self.optimizer.stateless_apply(
                slots, gradients, trainable
            )
            logs, kept = {}, []
            for tracker, loss in zip(self.trackers, parts, strict=True):
                size = len(tracker.variables)
                own, metrics = metrics[:size], metrics[size:]
                own = tracker.stateless_update_state(own, loss)
                logs[tracker.name] = tracker.stateless_result(own)
                kept.extend(own)
            return logs, (trainable, others, slots, kept)

    return Autoencoder


@functools.cache
def gan_class(base: Any) -> Any:
    """Two networks against each other, each with an optimizer."""

    @register
    class Adversaries(base):
        def __init__(self, width: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.width = width
            self.generator = keras.Sequential(
                [
                    keras.Input((width,)),
                    L.Dense(6),
                    L.LeakyReLU(0.2),
                    L.Dense(16, activation="sigmoid"),
                ]
            )
            self.discriminator = keras.Sequential(
                [
                    keras.Input((16,)),
                    L.Dense(6),
                    L.LeakyReLU(0.2),
                    L.Dropout(0.3),
                    L.Dense(1),
                ]
            )
            self.seed_generator = keras.random.SeedGenerator(5)
            self.d_tracker = keras.metrics.Mean(name="d_loss")
            self.g_tracker = keras.metrics.Mean(name="g_loss")
            self.built = True

        def get_config(self) -> Any:
            return {**super().get_config(), "width": self.width}

        def compile(
            self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any
        ) -> None:
            super().compile(optimizer=g_optimizer)
            self.d_optimizer, self.loss_fn = d_optimizer, loss_fn
            g_optimizer.build(self.generator.trainable_variables)
            d_optimizer.build(self.discriminator.trainable_variables)
            if BACKEND == "jax":
                # The step is given what the model knows of, and no more.
                self.d_slots = d_optimizer.variables

        @property
        def metrics(self) -> Any:
            return [self.d_tracker, self.g_tracker]

        def call(self, latent: Any) -> Any:
            return self.generator(latent)

        def train_step(self, *args: Any) -> Any:
            note_pass()
            *state, data = args
            images = keras.utils.unpack_x_y_sample_weight(data)[0]
            return getattr(self, f"_{BACKEND}_step")(images, *state)

        def d_loss(self, images: Any, made: Any) -> Any:
            """The discriminator shall tell the made from the real."""
            both = ops.concatenate([made, images])
            is_made = ops.concatenate(
                [ops.ones_like(made[:, :1]), ops.zeros_like(images[:, :1])]
            )
            guesses = self.discriminator(both, training=True)
            return self.loss_fn(is_made, guesses)

        def g_loss(self, latent: Any) -> Any:
            """What the generator makes shall pass for real."""
            guesses = self.discriminator(self.generator(latent), training=True)
            return self.loss_fn(ops.zeros_like(guesses), guesses)

        def draw(self, images: Any, seed: Any = None) -> Any:
            """Latent vectors; from Keras' global generator without a seed."""
            size = ops.shape(images)[0]
            return keras.random.normal((size, self.width), seed=seed)

        def _tensorflow_step(self, images: Any) -> Any:
            import tensorflow as tf

            made = self.generator(self.draw(images, self.seed_generator))
            weights = self.discriminator.trainable_weights
            with tf.GradientTape() as tape:
                d_loss = self.d_loss(images, made)
            gradients = tape.gradient(d_loss, weights)
            self.d_optimizer.apply_gradients(
                zip(gradients, weights, strict=True)
            )
            latent = self.draw(images)
            weights = self.generator.trainable_weights
            with tf.GradientTape() as tape:
                g_loss = self.g_loss(latent)
            gradients = tape.gradient(g_loss, weights)
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
            return self._track(d_loss, g_loss)

        def _torch_step(self, images: Any) -> Any:
            import torch

            made = self.generator(self.draw(images, self.seed_generator))
            self.zero_grad()
            d_loss = self.d_loss(images, made.detach())
            d_loss.backward()
            weights = self.discriminator.trainable_weights
            with torch.no_grad():
                gradients = [v.value.grad for v in weights]
                self.d_optimizer.apply(gradients, weights)
            self.zero_grad()
            g_loss = self.g_loss(self.draw(images))
            g_loss.backward()
            weights = self.generator.trainable_weights
            with torch.no_grad():
                gradients = [v.value.grad for v in weights]
                self.optimizer.apply(gradients, weights)
            return self._track(d_loss, g_loss)

        def _track(self, d_loss: Any, g_loss: Any) -> Any:
            self.d_tracker.update_state(d_loss)
            self.g_tracker.update_state(g_loss)
            return {m.name: m.result() for m in self.metrics}

        def _jax_step(self, images: Any, state: Any) -> Any:
            values = values_of(self, state)
            made = self._stateless(
                values, lambda: self.generator(self._draw_on_jax(images))
            )
            steps = (
                (
                    self.discriminator,
                    self.d_optimizer,
                    self.d_tracker,
                    lambda: self.d_loss(images, made),
                ),
                (
                    self.generator,
                    self.optimizer,
                    self.g_tracker,
                    lambda: self.g_loss(self._draw_on_jax(images)),
                ),
            )
            for part, optimizer, tracker, loss in steps:
                self._descend(values, part, optimizer, tracker, loss)
            logs = self._stateless(
                values, lambda: {m.name: m.result() for m in self.metrics}
            )
            return logs, state_of(self, values)

        def _draw_on_jax(self, images: Any) -> Any:
            # There a step may draw from generators of the model alone.
            return self.draw(images, self.seed_generator)

        def _descend(
            self,
            values: dict[int, Any],
            part: Any,
            optimizer: Any,
            tracker: Any,
            loss: Any,
        ) -> None:
            import jax

            weights = part.trainable_variables

            def changed(given: Any) -> Any:
                inner = {
                    **values,
                    **dict(zip(map(id, weights), given, strict=True)),
                }
                return self._stateless(inner, loss), inner

            now = [values[id(variable)] for variable in weights]
            (result, inner), gradients = jax.value_and_grad(
                changed, has_aux=True
            )(now)
            values.update(inner)
            slots = optimizer.variables
            now, new_slots = optimizer.stateless_apply(
                [values[id(slot)] for slot in slots], gradients, now
            )
            values.update(zip(map(id, weights), now, strict=True))
            values.update(zip(map(id, slots), new_slots, strict=True))
            self._stateless(values, lambda: tracker.update_state(result))

        def _stateless(self, values: dict[int, Any], compute: Any) -> Any:
            """Compute with given values, and take over what that changes."""
            variables = [*self.variables, *self.metrics_variables]
            known = {id(v): v for v in variables if id(v) in values}
            with keras.StatelessScope(
                state_mapping=[(v, values[key]) for key, v in known.items()]
            ) as scope:
                result = compute()
            for key, variable in known.items():
                values[key] = scope.get_current_value(variable)
            return result

    return Adversaries


@functools.cache
def critic_class(base: Any) -> Any:
    """A critic whose slope is held near one: a gradient of a gradient."""

    @register
    class Wasserstein(base):
        def __init__(self, width: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.width = width
            self.generator = keras.Sequential(
                [
                    keras.Input((width,)),
                    L.Dense(6, use_bias=False),
                    L.BatchNormalization(),
                    L.LeakyReLU(0.2),
                    L.Dense(16, activation="sigmoid"),
                ]
            )
            self.critic = keras.Sequential(
                [keras.Input((16,)), L.Dense(6, activation="tanh"), L.Dense(1)]
            )
            self.seed_generator = keras.random.SeedGenerator(8)
            self.built = True

        def get_config(self) -> Any:
            return {**super().get_config(), "width": self.width}

        def compile(self, critic_optimizer: Any, optimizer: Any) -> None:
            super().compile(optimizer)
            self.critic_optimizer = critic_optimizer

        def call(self, latent: Any) -> Any:
            return self.generator(latent)

        def make_images(self, size: Any) -> Any:
            latent = keras.random.normal(
                (size, self.width), seed=self.seed_generator
            )
            return self.generator(latent, training=True)

        def critic_loss(self, images: Any, made: Any) -> Any:
            real, fake = self.critic(images), self.critic(made)
            shares = keras.random.uniform(
                (ops.shape(images)[0], 1), seed=self.seed_generator
            )
            slopes = self.find_slopes(images + shares * (made - images))
            norms = ops.sqrt(ops.sum(ops.square(slopes), axis=1))
            penalty = ops.mean(ops.square(norms - 1.0))
            return ops.mean(fake) - ops.mean(real) + 10.0 * penalty

        def find_slopes(self, images: Any) -> Any:
            if BACKEND == "tensorflow":
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    tape.watch(images)
                    values = self.critic(images)
                return tape.gradient(values, images)
            import torch

            images = images.detach().requires_grad_()
            values = self.critic(images).sum()
            return torch.autograd.grad(values, images, create_graph=True)[0]

        def train_step(self, data: Any) -> Any:
            note_pass()
            images = keras.utils.unpack_x_y_sample_weight(data)[0]
            size = ops.shape(images)[0]
            for _ in range(2):
                made = ops.stop_gradient(self.make_images(size))
                loss = self.descend(
                    self.critic,
                    self.critic_optimizer,
                    functools.partial(self.critic_loss, images, made),
                )
            fooled = self.descend(
                self.generator,
                self.optimizer,
                lambda: -ops.mean(self.critic(self.make_images(size))),
            )
            return {"critic": loss, "generator": fooled}

        def descend(self, part: Any, optimizer: Any, compute: Any) -> Any:
            weights = part.trainable_weights
            if BACKEND == "tensorflow":
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    loss = compute()
                gradients = tape.gradient(loss, weights)
                optimizer.apply_gradients(zip(gradients, weights, strict=True))
                return loss
            import torch

            self.zero_grad()
            loss = compute()
            loss.backward()
            with torch.no_grad():
                optimizer.apply([v.value.grad for v in weights], weights)
            return loss.detach()

    return Wasserstein


def compile_critic(model: Any) -> None:
    model.compile(*(keras.optimizers.Adam(0.01, beta_1=0.5) for _ in range(2)))


def compile_gan(model: Any) -> None:
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.optimizers.RMSprop(0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )


def _make_denoiser() -> Any:
    noisy, variance = keras.Input((16,)), keras.Input((1,))
    waves = L.Lambda(_waves, output_shape=(4,))(variance)
    x = L.Dense(6, activation="swish")(L.Concatenate()([noisy, waves]))
    x = L.Dense(6, activation="swish")(L.BatchNormalization()(x))
    return keras.Model([noisy, variance], L.Dense(16)(x))


@register
def _waves(variance: Any) -> Any:
    """How noisy an image is, as sines and cosines of two frequencies."""
    angles = 6.28 * variance * ops.convert_to_tensor([[1.0, 4.0]])
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


@functools.cache
def diffusion_class(base: Any) -> Any:
    """A network learns to find the noise in images; its mean makes images."""

    @register
    class Diffusion(base):
        def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.momentum = momentum
            self.normalizer = L.Normalization()
            self.network = _make_denoiser()
            self.ema_network = keras.models.clone_model(self.network)
            self.ema_network.trainable = False
            self.seed_generator = keras.random.SeedGenerator(3)
            self.tracker = keras.metrics.Mean(name="noise_loss")

        def get_config(self) -> Any:
            return {**super().get_config(), "momentum": self.momentum}

        @property
        def metrics(self) -> Any:
            return [self.tracker]

        def schedule(self, times: Any) -> Any:
            """Shares of noise and signal, which move along a quarter circle."""
            angles = 0.2 + times * 1.2
            return ops.sin(angles), ops.cos(angles)

        def call(self, images: Any, training: bool = False) -> Any:
            """Find the noise that was added to images, and what was added."""
            note_pass()
            images = self.normalizer(images)
            shape = ops.shape(images)
            noise = keras.random.normal(shape, seed=self.seed_generator)
            times = keras.random.uniform(
                (shape[0], 1), seed=self.seed_generator
            )
            noise_share, signal_share = self.schedule(times)
            noisy = signal_share * images + noise_share * noise
            network = self.network if training else self.ema_network
            found = network([noisy, noise_share**2], training=training)
            return found, noise

        def noise_loss(self, outputs: Any) -> Any:
            found, noise = outputs
            return ops.mean(ops.abs(found - noise))

        def train_step(self, *args: Any) -> Any:
            *state, data = args
            images = keras.utils.unpack_x_y_sample_weight(data)[0]
            return getattr(self, f"_{BACKEND}_step")(images, *state)

        def _tensorflow_step(self, images: Any) -> Any:
            import tensorflow as tf

            weights = self.network.trainable_weights
            with tf.GradientTape() as tape:
                loss = self.noise_loss(self(images, training=True))
            gradients = tape.gradient(loss, weights)
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
            return self._finish(loss)

        def _torch_step(self, images: Any) -> Any:
            import torch

            weights = self.network.trainable_weights
            self.zero_grad()
            loss = self.noise_loss(self(images, training=True))
            loss.backward()
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in weights], weights)
                return self._finish(loss)

        def _finish(self, loss: Any) -> Any:
            for mean, weight in self._pairs():
                mean.assign(
                    self.momentum * mean + (1.0 - self.momentum) * weight
                )
            self.tracker.update_state(loss)
            return {"noise_loss": self.tracker.result()}

        def _pairs(self) -> Any:
            return zip(
                self.ema_network.weights, self.network.weights, strict=True
            )

        def _jax_step(self, images: Any, state: Any) -> Any:
            import jax

            def compute(trainable: Any, others: Any) -> Any:
                outputs, others = self.stateless_call(
                    trainable, others, images, training=True
                )
                return self.noise_loss(outputs), others

            trainable, others, slots, metrics = state
            (loss, others), gradients = jax.value_and_grad(
                compute, has_aux=True
            )(trainable, others)
            trainable, slots = self.optimizer.stateless_apply(
                slots, gradients, trainable
            )
            metrics = self.tracker.stateless_update_state(metrics, loss)
            values = values_of(self, (trainable, others, slots, metrics))
            for mean, weight in self._pairs():
                values[id(mean)] = (
                    self.momentum * values[id(mean)]
                    + (1.0 - self.momentum) * values[id(weight)]
                )
            logs = {"noise_loss": self.tracker.stateless_result(metrics)}
            return logs, state_of(self, values)

    return Diffusion


def make_diffusion(kind: Kind) -> Any:
    """The images' mean and spread are known before the training."""
    model = diffusion_class(kind.model)()
    model.normalizer.adapt(IMAGES)
    return model


_SLOTS = (
    "The slots of the second optimizer are saved as weights of the model, and "
    "Keras loads them before anybody has compiled it."
)
WORKLOADS = [
    Workload(
        "variational autoencoder",
        lambda kind: vae_class(kind.model)(),
        compiling("adam"),
        fitting(IMAGES),
        IMAGES,
    ),
    Workload(
        "adversarial networks",
        lambda kind: gan_class(kind.model)(),
        compile_gan,
        fitting(IMAGES),
        IMAGES[:, :3],
        own_compile=True,
        cannot_load=_SLOTS if BACKEND == "jax" else "",
    ),
    Workload(
        "gradient penalty",
        lambda kind: critic_class(kind.model)(),
        compile_critic,
        fitting(IMAGES),
        IMAGES[:, :3],
        # A step that returns what it changed would need another penalty.
        backends=("tensorflow", "torch"),
        own_compile=True,
    ),
    Workload(
        "diffusion",
        make_diffusion,
        compiling("adamw"),
        fitting(IMAGES),
        IMAGES,
    ),
]
