"""What a person gives is taken as it is meant, or refused with a reason."""

import sys
from enum import Enum
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from keras_repro.common.checks import (
    LARGEST_INT,
    MAX_SEED,
    SHARE,
    check_choice,
    check_every,
    check_flag,
    check_function,
    check_int,
    check_items,
    check_name,
    check_number,
    check_path,
    check_seed,
    iterate,
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
    """An integer of Python or of NumPy is a seed, an array of one too."""
    assert check_seed(seed) == seed
    for given in (np.uint32(seed), np.array(seed)):
        found = check_seed(given)
        assert (found, type(found)) == (seed, int)


@pytest.mark.parametrize(
    "seed",
    [
        *(True, np.True_, 1.0, "1", None, np.float32(1), Fraction(1)),
        *(np.array([1]), np.array(True), np.array(1.0)),
    ],
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
    assert check_every(every) == every
    found = check_every(np.int64(3))
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize(
    "every", ["step", "", "1", 0, -1, LARGEST_INT + 1, True, 1.0, None, []]
)
def test_no_every(every):
    """How often none can be, so that each file can be read again."""
    is_kind = isinstance(every, (str, int)) and every is not True
    with pytest.raises(ValueError if is_kind else TypeError, match="`every`"):
        check_every(every)


def test_paths():
    """A name or a path is a path; anything else is refused."""
    told = "Pass a name."
    for given in ("a", Path("a")):
        assert check_path("file", given, told) == Path("a")
    for given in (1, b"a", None):
        with pytest.raises(TypeError, match=r"`file` .*: .* \(of .*a name\.$"):
            check_path("file", given, told)
    for given in ("", "a\0b", "\ud800", "x" * 5000, "\0"):
        with pytest.raises(ValueError, match=r"`file` must.*Received: '.*name"):
            check_path("file", given, told)


# --- the others --------------------------------------------------------------


def test_flags():
    """True and False, of NumPy too; nothing that merely counts as one."""
    for given in (True, np.True_):
        assert check_flag("a", given) is True
    for given in (1, 0, "no", None, np.array(True), np.int64(1)):
        with pytest.raises(TypeError, match="`a` must be True or False"):
            check_flag("a", given)


def test_integers():
    """Within bounds, which the error tells."""
    assert check_int("a", np.int8(3), 1, 3) == 3
    assert check_int("a", 10**30, 1) == 10**30
    for given in (0, 4, 10**5000):
        with pytest.raises(ValueError, match=r"`a` .* from 1 to 3\. Received:"):
            check_int("a", given, 1, 3)
    with pytest.raises(ValueError, match="from 1 on"):
        check_int("a", 0, 1)


def test_numbers():
    """Real ones, as floats that JSON can hold."""
    for given in (1, 0.25, np.float32(0.5), Fraction(1, 3), np.int64(0)):
        found = check_number("a", given, SHARE, "Pass one.")
        assert (found, type(found)) == (float(given), float)
    for given in (1.5, -1, float("nan"), 10**400):
        with pytest.raises(ValueError, match="`a` must be a share"):
            check_number("a", given, SHARE, "Pass one.")
    for given in (True, "0.5", 1j, None, [0.5], np.True_):
        with pytest.raises(TypeError, match="`a` must be a share"):
            check_number("a", given, SHARE, "Pass one.")


def test_words():
    """One of several, and any that is not empty."""
    named = Enum("Named", {"X": "x", "EPOCH": "epoch"}, type=str)
    for given in ("x", np.str_("x"), named.X):
        for found in (
            check_choice("a", given, ("x", "y")),
            check_name("a", given, "Pass one."),
        ):
            assert (found, type(found)) == ("x", str)
    assert check_every(named.EPOCH) == "epoch"
    for given in ("z", ""):
        with pytest.raises(ValueError, match="one of 'x', 'y'"):
            check_choice("a", given, ("x", "y"))
    with pytest.raises(ValueError, match="not empty"):
        check_name("a", "", "Pass one.")
    for given in (None, 1, b"x", ["x"], np.array(["x"])):
        with pytest.raises(TypeError, match="Received"):
            check_choice("a", given, ("x", "y"))
        with pytest.raises(TypeError, match="Received"):
            check_name("a", given, "Pass one.")


def test_rows():
    """Each thing in a row is looked at as it comes: the row may be endless."""
    assert check_items("a", iter((1, 2)), int, "Pass some.") == [1, 2]
    for given, kind in ((count(), str), ([1, "x"], int), (3, int), ("xy", str)):
        with pytest.raises(TypeError, match=r"`a` must hold .*Received"):
            check_items("a", given, kind, "Pass some.")
    assert [*iterate("a", {1: 2}, "hold keys", "Pass some.")] == [1]


def test_functions():
    """By what they say of themselves; some say nothing."""
    for given in (print, int, lambda one: one, lambda one, two=2: one):
        assert check_function("a", given, (1,), "be one", "Write one.") is given
    for given in (3, lambda: 0, lambda one, two: one, len):
        arguments = (1, 2) if given is len else (1,)
        with pytest.raises(TypeError, match=r"`a` must be one\. Received: "):
            check_function("a", given, arguments, "be one", "Write one.")
