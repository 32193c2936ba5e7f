"""What a person gives is taken as it is meant, or refused with a reason."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keras_repro.common.checks import (
    LARGEST_INT,
    MAX_SEED,
    check_path,
    check_seed,
    is_every,
    read_seed,
    read_whole,
)

ARABIC_SEVEN = "\u0667"  # A digit to Python's `int`, and none to us.


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("9" * 19, 10**19 - 1), (str(MAX_SEED), MAX_SEED)],
)
def test_whole_numbers(text, number):
    """Digits are a number, with zeros in front too."""
    assert read_whole(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " 7", "-1", "+1", "1.0", "1e3", "1_000", "x", ARABIC_SEVEN, "²"],
)
def test_no_whole_numbers(text):
    """What is no plain row of digits is no number."""
    assert read_whole(text) is None


def test_a_number_that_python_refuses_to_read():
    """A very long one is refused, before Python raises an error of its own."""
    digits = "9" * (sys.int_info.default_max_str_digits + 1)
    with pytest.raises(ValueError, match="digits"):
        int(digits)
    assert read_whole(digits) is None
    assert read_whole("9" * 20) is None


def test_seeds_as_text():
    """The largest seed is one; the next number is none."""
    assert read_seed(str(MAX_SEED)) == MAX_SEED == 2**32 - 1
    assert read_seed(str(MAX_SEED + 1)) is None
    assert read_seed("random") is None


@pytest.mark.parametrize("seed", [0, 7, MAX_SEED])
def test_seeds(seed):
    """An integer of Python or of NumPy is a seed."""
    assert check_seed(seed) == seed
    found = check_seed(np.uint32(seed))
    assert (found, type(found)) == (seed, int)


@pytest.mark.parametrize(
    "seed",
    [True, np.True_, 1.0, "1", None, np.array(1), np.float32(1), Fraction(1)],
)
def test_no_seeds(seed):
    """Anything else is refused, with its type."""
    with pytest.raises(TypeError, match="of type"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, np.int64(-1)])
def test_seeds_out_of_range(seed):
    """An integer that is no seed is refused, with what to do."""
    with pytest.raises(ValueError, match=f"Received: {int(seed)}.*modulo"):
        check_seed(seed)


@pytest.mark.parametrize("every", ["epoch", "batch", 1, LARGEST_INT])
def test_every(every):
    """How often a run can be recorded."""
    assert is_every(every)


@pytest.mark.parametrize(
    "every", ["step", "", "1", 0, -1, LARGEST_INT + 1, True, 1.0, None, []]
)
def test_no_every(every):
    """How often none can be, so that each file can be read again."""
    assert not is_every(every)


def test_paths():
    """A name or a path is a path; anything else is refused."""
    assert check_path("a", "a name") == Path("a") == check_path(Path("a"), "x")
    with pytest.raises(TypeError, match=r"Received: 1 \(of .*Pass a name\.$"):
        check_path(1, "a name")
