"""The values of a script's variables, line by line."""

import copy
import sys

import numpy as np
import pytest

from keras_repro.watching.tracing import (
    TRACE,
    Trace,
    digest_value,
    find_first_difference,
)

pytestmark = pytest.mark.no_backend


def trace(tmp_path, name, text, **given):
    """Run a text as a file of the person's, traced; its folder."""
    folder = tmp_path / name
    folder.mkdir()
    before = sys.gettrace()
    tracing = Trace(folder)
    code = compile(text, str(tmp_path / "script.py"), "exec")
    tracing.start()
    try:
        exec(code, {"__name__": "script", **given})
    finally:
        tracing.stop()
        sys.settrace(before)
    return folder


def test_where_two_traces_part(tmp_path):
    """The line at which a variable differs first is named, and no later."""
    text = "same = [1, 2.5]\nchosen = source()[0]\nafter = chosen * 2\n"
    one, same, other = (
        trace(tmp_path, name, text, source=given.lower)
        for name, given in (("one", "ab"), ("same", "ab"), ("other", "ba"))
    )
    assert find_first_difference(one, same) is None
    place, name = find_first_difference(one, other)
    assert (place.rpartition(":")[2], name) == ("2", "chosen")


def test_inside_a_function(tmp_path):
    """A function's own variables are traced as well."""
    text = "def pick(names):\n    return names[0]\nsame = 1\npick('{}')\n"
    one = trace(tmp_path, "one", text.format("ab"))
    other = trace(tmp_path, "other", text.format("ba"))
    place, name = find_first_difference(one, other)
    assert (place.rpartition(":")[2], name) == ("1", "names")


def test_order_of_a_set_matters_where_it_is_used(tmp_path):
    """A set is equal whatever its order; a list of it is not."""
    text = "kept = {{1, 2}}\nlisted = {}\n"
    one = trace(tmp_path, "one", text.format([1, 2]))
    other = trace(tmp_path, "other", text.format([2, 1]))
    place, name = find_first_difference(one, other)
    assert (place.rpartition(":")[2], name) == ("2", "listed")


def test_one_is_longer(tmp_path):
    """A trace that goes on where the other ends parts there."""
    one = trace(tmp_path, "one", "a = 1\n")
    other = trace(tmp_path, "other", "a = 1\nb = 2\n")
    assert find_first_difference(one, other)[1] == "b"
    assert (
        find_first_difference(tmp_path / "none", tmp_path / "none either")
        is None
    )


def test_trace_is_bounded(tmp_path):
    """A loop of many turns does not fill the disk."""
    folder = trace(tmp_path, "loop", "for i in range(100_000):\n    x = i\n")
    assert (folder / TRACE).stat().st_size < 200_000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, 1),
        (0.0, -0.0),
        ([1, 2], [2, 1]),
        ([1, 2], (1, 2)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([1.0, 2.0]), np.array([2.0, 1.0])),
        (np.float32(1), np.float64(1)),
        ("a" * 100, "a" * 99 + "b"),
        ({1, 2}, {1, 3}),
    ],
)
def test_what_differs_has_another_digest(one, other):
    """Plain values and arrays are told apart, and equal to themselves."""
    assert digest_value(one) != digest_value(other)
    assert digest_value(one) == digest_value(copy.deepcopy(one))


def test_what_has_an_identity_is_passed_over():
    """Objects, modules and functions have no digest."""
    for value in (object(), sys, print, np.random.default_rng(1)):
        assert digest_value(value) is None
    assert digest_value({"a", "b"}) == digest_value({"b", "a"})
