"""Generators of random numbers are known by their type alone."""

import random
import sys

import keras
import numpy as np
import pytest

from keras_repro.common.generators import name_generator


class Own(random.Random):
    """A person's own generator."""


class Liar:
    """Says that it is a generator, by code of its own."""

    @property
    def __class__(self):
        return random.Random


def test_names():
    """Each library's generators have a name, and so have subclasses."""
    legacy = np.random.RandomState(1)
    found = {
        "python": [random.Random(1), Own(1)],
        "numpy": [np.random.default_rng(1)],
        "numpy_bits": [np.random.PCG64(1)],
        "numpy_legacy": [legacy],
        "keras": [keras.random.SeedGenerator(1)],
    }
    for name, generators in found.items():
        assert [name_generator(one) for one in generators] == [name] * len(
            generators
        )


@pytest.mark.parametrize(
    "value", [None, 0, random, np.random, random.Random, Liar(), "numpy"]
)
def test_no_generators(value):
    """A module, a class, and what only says that it is one are none."""
    assert name_generator(value) is None


def test_libraries_that_are_not_loaded(monkeypatch):
    """Nothing is imported; a module that is not whole is no hindrance."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(sys.modules, "keras", type(sys)("keras"))
    assert name_generator(random.Random(1)) == "python"
    assert name_generator(object()) is None
    assert "torch" not in sys.modules


@pytest.mark.requires_backend("torch")
def test_torch():
    """PyTorch's generator, where PyTorch is loaded."""
    import torch

    assert name_generator(torch.Generator()) == "torch"
