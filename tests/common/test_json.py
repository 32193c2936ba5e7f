"""Nested settings as flat ones, and what of two differs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.common.json import (
    flatten,
    list_differing,
    make_visible,
    to_plain,
)
from keras_repro.common.lines import to_floats

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NESTS = st.dictionaries(
    st.text(st.characters(exclude_characters=".")),
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.text(st.characters(exclude_characters=".")), inner
            )
        ),
        max_leaves=8,
    ),
)


def test_flatten():
    """Mappings are opened; lists only where that is asked for."""
    nested = {"a": {"b": [1, {"c": 2}]}, "d": (3,), "e": {}, "f": []}
    assert flatten(nested) == {"a.b": [1, {"c": 2}], "d": (3,), "f": []}
    assert flatten(nested, lists=True) == {"a.b.0": 1, "a.b.1.c": 2, "d.0": 3}
    assert flatten([{"x": 1}], lists=True, prefix="p.") == {"p.0.x": 1}
    assert flatten({}) == {}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [("a", 1, 2)]),
        ({"a": 1}, {"a": 1.0}, [("a", 1, 1.0)]),
        ({"a": 1}, {"a": True}, [("a", 1, True)]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": (1, 2)}, {"a": [1, 2]}, []),
        ({"a": [1, 2]}, {"a": [1, 3]}, [("a", [1, 2], [1, 3])]),
        ({"a": {"b": 1}}, {}, [("a.b", 1, None)]),
        ({}, {"a": 1}, [("a", None, 1)]),
    ],
)
def test_list_differing(before, after, expected):
    """What JSON would hold alike is alike, and nothing else."""
    assert list_differing(before, after) == expected


def test_list_differing_in_lists():
    """With lists opened it is the one entry that differs."""
    before, after = {"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}
    assert list_differing(before, after, lists=True) == [("a.1.b", 2, 3)]


@given(NESTS, NESTS, st.booleans())
def test_same_settings_do_not_differ(one, other, lists):
    """A copy by way of JSON is the same; what differs is found in both."""
    copy = json.loads(json.dumps(one))
    assert list_differing(one, copy, lists=lists) == []
    found = list_differing(one, other, lists=lists)
    swapped = list_differing(other, one, lists=lists)
    assert {(key, repr(a), repr(b)) for key, a, b in found} == {
        (key, repr(a), repr(b)) for key, b, a in swapped
    }


def test_to_plain():
    """What strict JSON cannot hold becomes text."""
    assert to_plain({1: (float("inf"), None)}) == {"1": ["inf", None]}
    assert to_plain({"a": 0.5}) == {"a": 0.5}
    assert to_plain("caf\udce9") == make_visible("caf\udce9") == r"caf\udce9"


def test_to_floats():
    """What stands for a number in JSON is that number."""
    assert to_floats([1, 0.5, "-inf"]) == [1.0, 0.5, float("-inf")]
