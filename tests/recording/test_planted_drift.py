"""Drifts planted in a training are found where they were planted.

Each case trains a model twice and changes one thing in the second training,
at one batch. The comparison must name the epoch, the batch, what differs first
and the variable. As many trainings without a plant must give no alarm.
"""

import dataclasses
import random

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends.active import get_backend
from keras_repro.backends.variables import iterate_variables, read_variable
from keras_repro.model import data_order
from keras_repro.runs.comparison import group_runs
from keras_repro.runs.run import Run
from tests.builders import make_model

EPOCHS, BATCHES, SIZE = 3, 4, 8
RNG = np.random.default_rng(7)
X = RNG.normal(size=(EPOCHS * BATCHES * SIZE, 5)).astype("float32")[:32]
Y = RNG.normal(size=(32, 1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """One model for all cases: `reset()` makes them cheap."""
    return make_model(
        keras.layers.Dense(6, activation="tanh"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        shape=(5,),
        seed=3,
        optimizer=keras.optimizers.Adam(0.01),
        metrics=["mae"],
    )


def train(model, *plants, **options):
    """Rewind and train; returns the run."""
    checks = kr.ChecksumCallback(every="batch", on_drift="ignore", **options)
    model.reset()
    model.fit(
        X,
        Y,
        epochs=EPOCHS,
        batch_size=SIZE,
        verbose=0,
        callbacks=[*plants, checks],
    )
    return checks.run


@pytest.fixture(scope="module")
def clean(model):
    return train(model)


class Plant(keras.callbacks.Callback):
    """Does something to the model after one batch."""

    def __init__(self, epoch, batch, action):
        super().__init__()
        self.moment = epoch, batch
        self.action = action
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.moment:
            self.action(self.model)


def flip_one_bit(role, number, bit):
    """Flip one bit of one variable of a role; returns action and place."""
    found = []

    def action(model):
        places = [one for one in iterate_variables(model) if one.role == role]
        place = places[number % len(places)]
        value = read_variable(place.variable)
        raw = value.reshape(-1).view(f"u{value.dtype.itemsize}")
        raw[number % raw.size] ^= np.array(1 << bit, raw.dtype)
        get_backend().assign(place.variable, value)
        found.append(place.place)

    return action, found


def find(clean, run):
    found = kr.compare_runs(clean, run)
    assert not found.equal
    return found.first_mismatch


def cases(kind, count):
    """Moments and numbers, drawn once for all backends."""
    rng = random.Random(kind)
    return [
        pytest.param(
            rng.randrange(EPOCHS), rng.randrange(BATCHES), rng.randrange(1000)
        )
        for _ in range(count)
    ]


@pytest.mark.sampled(60)
@pytest.mark.parametrize(("epoch", "batch", "number"), cases("weights", 15))
@pytest.mark.parametrize("role", ["weights", "optimizer"])
def test_one_bit(model, clean, role, epoch, batch, number):
    """One bit of one variable: its moment, its role and its place."""
    action, places = flip_one_bit(role, number, bit=number % 20)
    run = train(model, Plant(epoch, batch, action))
    found = find(clean, run)
    assert (found.epoch, found.batch, found.role) == (epoch, batch, role)
    assert found.places == tuple(places)
    assert [one.place for one in found.differences] == places


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("epoch", "batch", "number"), cases("random", 12))
def test_one_extra_random_draw(model, clean, epoch, batch, number):
    """One number more from any global generator: the random state."""
    draws = [
        random.random,
        np.random.random,
        np.random.standard_normal,
        lambda: keras.random.uniform(()),
    ]
    if keras.backend.backend() == "torch":
        import torch

        draws.append(lambda: torch.rand(()))
    draw = draws[number % len(draws)]
    run = train(model, Plant(epoch, batch, lambda _: draw()))
    found = find(clean, run)
    assert (found.epoch, found.batch, found.role) == (epoch, batch, "random")
    assert found.places == ("random streams",)


@pytest.mark.parametrize(("epoch", "batch", "number"), cases("seed", 4))
def test_a_seed_generator_moved_on(model, clean, epoch, batch, number):
    """A layer's own generator: the random state, and which layer."""
    action, places = flip_one_bit("random", number, bit=0)
    found = find(clean, train(model, Plant(epoch, batch, action)))
    assert (found.epoch, found.batch, found.role) == (epoch, batch, "random")
    assert found.places == tuple(places) == ("layers.2.seed_generator_state",)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("epoch", "batch", "number"), cases("data", 12))
def test_two_samples_swapped(model, clean, epoch, batch, number, monkeypatch):
    """Two samples of one batch in the other order: the data differ first."""
    make_order = data_order.OrderedPasses._make_order

    def swapped(self, of_epoch, num_samples, batch_size):
        order = make_order(self, of_epoch, num_samples, batch_size)
        if of_epoch == epoch:
            one = batch * batch_size + number % batch_size
            other = batch * batch_size + (number + 3) % batch_size
            order[[one, other]] = order[[other, one]]
        return order

    monkeypatch.setattr(data_order.OrderedPasses, "_make_order", swapped)
    found = find(clean, train(model))
    assert (found.epoch, found.batch, found.role) == (epoch, batch, "data")
    assert found.places[0] == "samples fed"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("epoch", "batch", "number"), cases("rate", 6))
def test_another_learning_rate(model, clean, epoch, batch, number):
    """A learning rate that changes on the way: the optimizer, by its name."""

    def action(model):
        model.optimizer.learning_rate = 0.02 + number / 1000

    found = find(clean, train(model, Plant(epoch, batch, action)))
    assert (found.epoch, found.batch, found.role) == (epoch, batch, "optimizer")
    assert found.places == ("optimizer.learning_rate",)


def test_another_learning_rate_from_the_start(model, clean):
    """Compiled with another rate: the initial state, and the configuration."""
    model.reset()
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    run = train(model)
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    found = kr.compare_runs(clean, run)
    assert found.first_mismatch.role == "initial state"
    assert found.first_mismatch.places == ("optimizer.learning_rate",)
    assert any("learning_rate" in one for one in found.identity.details)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", range(6))
def test_another_library_version(model, clean, number):
    """Another version in the header is named, and is no mismatch."""
    library = ("keras", "numpy", keras.backend.backend())[number % 3]
    run = train(model)
    environment = dict(run.header.environment)
    versions = {**environment["versions"], library: f"0.{number}"}
    environment["versions"] = versions
    header = dataclasses.replace(run.header, environment=environment)
    other = Run(header, run.records, run.end)
    found = kr.compare_runs(clean, other)
    assert found.equal
    assert [one.key for one in found.environment] == [f"versions.{library}"]
    assert found.environment[0].b == f"0.{number}"
    assert kr.compare_runs(clean, run).environment == ()


@pytest.mark.slow
def test_no_alarm_without_a_plant(model, clean):
    """As many trainings without a plant are all equal, also live."""
    runs = [train(model, reference=clean) for _ in range(15)]
    plain = keras.callbacks.Callback()
    runs += [train(model, plain, reference=clean) for _ in range(65)]
    groups = group_runs([clean, *runs])
    assert groups.agree
    assert all(kr.compare_runs(clean, run).equal for run in runs)


def test_the_alarm_is_told_as_it_happens(model, clean):
    """The callback names the same place while the training runs."""
    action, places = flip_one_bit("weights", 5, bit=1)
    checks = kr.ChecksumCallback(every="batch", reference=clean)
    plant = Plant(1, 2, action)
    model.reset()
    with pytest.warns(kr.DriftWarning, match="epoch 2, batch 3"):
        model.fit(
            X,
            Y,
            epochs=EPOCHS,
            batch_size=SIZE,
            verbose=0,
            callbacks=[plant, checks],
        )
    assert checks.mismatch.places == tuple(places)
