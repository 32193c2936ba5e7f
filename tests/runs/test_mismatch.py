"""Two records: which role differs first, and by how much."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.arrays.norms import Norms, compute_norms
from keras_repro.runs.mismatch import (
    DIFFERENT,
    WITHIN,
    Tolerance,
    compare_identities,
    compare_records,
    compare_settings,
    is_within,
    with_note,
)
from tests.builders import make_header, make_record

PLACES = {
    "random": {"layers.1.seed_generator_state": "a"},
    "weights": {"layers.0.kernel": "a", "layers.0.bias": "a"},
    "optimizer": {"optimizer.0": "a", "optimizer.1": "a"},
    "metrics": {"metrics.0": "a"},
}


def make(index=1, epoch=0, change=(), metrics=None, streams=None):
    """A record of all roles, in which some places are changed."""
    variables = {
        role: {
            place: "b" if place in change else checksum
            for place, checksum in group.items()
        }
        for role, group in PLACES.items()
    }
    return make_record(
        index=index,
        epoch=epoch,
        model="kr1:m",
        variables=variables,
        streams=streams,
        metrics=metrics or {},
    )


def test_equal_records():
    """Equal records have no mismatch; one changed place is one."""
    assert compare_records(make(), make()) is None
    assert compare_records(make(), make(change=["optimizer.1"])) is not None


def test_roles_and_places_in_order():
    """Random state comes first, then weights, optimizer, metrics."""
    change = ["metrics.0", "optimizer.1", "layers.0.bias"]
    change.append("layers.1.seed_generator_state")
    found = compare_records(make(), make(epoch=0, change=change))
    assert found.roles == ("random", "weights", "optimizer", "metrics")
    assert found.places == tuple(reversed(change))
    assert found.agreed == ("weights (1 of 2)", "optimizer (1 of 2)")


def test_only_what_differs_is_named():
    """Roles that agree are told as such."""
    found = compare_records(make(), make(change=["layers.0.kernel"]))
    assert (found.roles, found.places) == (("weights",), ("layers.0.kernel",))
    assert "random (1 of 1)" in found.agreed
    assert "optimizer (2 of 2)" in found.agreed


def test_streams_count_where_both_know_them():
    """The trial's random streams are compared if both recorded them."""
    a, b = make(streams="s"), make(streams="t")
    assert compare_records(a, b).places == ("random streams",)
    assert compare_records(a, make()) is None
    assert compare_records(a, make(streams="s")) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        (0.1, 0.1, True),
        (0.1, 0.1 + 2**-56, False),
        (0.0, -0.0, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
    ],
)
def test_metrics_are_compared_by_bits(ours, theirs, equal):
    """One bit of a metric counts; a NaN equals a NaN."""
    a = make(metrics={"loss": theirs})
    found = compare_records(a, make(metrics={"loss": ours}))
    assert (found is None) == equal
    if found is not None:
        assert found.places == ("metric 'loss'",)
        assert found.details == (f"loss is {ours!r}, was {theirs!r}",)


def test_validation_added_on_purpose():
    """A metric that only one run has is no mismatch; a shared one is."""
    a = make(metrics={"loss": 1.0})
    b = make(metrics={"loss": 1.0, "val_loss": 2.0}, change=["metrics.0"])
    assert compare_records(a, b) is None
    worse = replace(b, metrics={"loss": 2.0, "val_loss": 2.0})
    assert compare_records(a, worse).places == ("metric 'loss'",)


def test_initial_state_that_was_not_built_yet():
    """An unbuilt optimizer is no mismatch at the start; later it is."""
    unbuilt = {**PLACES, "optimizer": {"optimizer.0": "a"}, "metrics": {}}
    for epoch, equal in ((None, True), (0, False)):
        a = make(epoch=epoch)
        found = compare_records(a, replace(a, variables=unbuilt))
        assert (found is None) == equal
    a = make(epoch=None)
    assert compare_records(a, make(epoch=None, change=["metrics.0"])) is None
    assert compare_records(a, make(epoch=None, change=["optimizer.0"]))
    assert compare_records(a, make(epoch=None, change=["layers.0.bias"]))


@given(st.sets(st.sampled_from([p for g in PLACES.values() for p in g])))
def test_comparison_is_symmetric(change):
    """Both ways round the same places differ."""
    a, b = make(), make(change=change)
    there, back = compare_records(a, b), compare_records(b, a)
    assert (there is None) == (back is None) == (not change)
    if there is not None:
        assert (there.places, there.agreed) == (back.places, back.agreed)
        assert set(there.places) == change


def test_unknown_part_of_an_identity():
    """A part that only one of them knows differs."""
    header = make_header()
    other = replace(header, identity={**header.identity, "other": 1})
    assert compare_identities(header, other).places == ("other",)


def test_many_places_are_shortened():
    """A terminal gets the first places and the number of the others."""
    change = [p for group in PLACES.values() for p in group]
    text = str(compare_records(make(), make(change=change)))
    assert "and 1 more" in text
    assert "agreed:  nothing" in text


def test_notes():
    """A note is added to a copy."""
    found = compare_records(make(), make(change=["optimizer.0"]))
    assert with_note(found, "why").details == ("why",)
    assert found.details == ()


def test_identities():
    """Another seed is told as what it is, and so are other settings."""
    one = make_header()
    other = replace(make_header(seed=2), compile={"optimizer": {"rate": 0.2}})
    one = replace(one, compile={"optimizer": {"rate": 0.1}})
    assert compare_identities(one, one) is None
    found = compare_identities(one, other)
    assert (found.roles, found.places) == (("identity",), ("seed",))
    assert found.agreed == ("model",)
    assert found.details == (
        "another seed: 2, not 1",
        "compile.optimizer.rate: 0.2, not 0.1",
    )
    assert list(compare_settings("x", {}, {})) == []


def test_a_renamed_variable_is_the_same_variable():
    """As many variables under other names are paired by their position."""
    renamed = {**PLACES, "weights": {"layers.0.w": "a", "layers.0.b": "a"}}
    assert compare_records(make(), replace(make(), variables=renamed)) is None
    renamed["weights"]["layers.0.b"] = "z"
    found = compare_records(make(), replace(make(), variables=renamed))
    assert found.places == ("layers.0.bias",)
    fewer = {**PLACES, "weights": {"layers.0.kernel": "a"}}
    found = compare_records(make(), replace(make(), variables=fewer))
    assert found.places == ("layers.0.bias",)


def test_samples_fed_part_first():
    """Other samples come before all that follows from them."""
    a = replace(make(), fed="x")
    b = replace(make(change=["layers.0.bias"]), fed="y")
    found = compare_records(a, b)
    assert found.roles == ("data", "weights")
    assert found.places == ("samples fed", "layers.0.bias")
    assert compare_records(a, make()) is None


ARRAYS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30).map(
    np.array
)


@given(ARRAYS, st.floats(0, 0.1), st.floats(0, 1.0), st.randoms())
def test_close_arrays_have_close_norms(a, rtol, atol, rng):
    """What is close element by element is close by its norms."""
    shifts = np.array([rng.uniform(-1, 1) for _ in a])
    b = a + 0.999 * shifts * atol
    a = b + (a - b)
    near = b + (a - b) + 0.999 * shifts * rtol * np.abs(b)
    if not np.allclose(near, b, rtol=rtol, atol=atol):
        return
    slack = Tolerance(rtol=rtol * (1 + 1e-9) + 1e-12, atol=atol + 1e-9)
    assert slack.covers_norms(compute_norms(near), compute_norms(b), a.size)


def test_far_arrays_have_far_norms():
    """The twin: what is far apart is not covered."""
    tolerance = Tolerance(rtol=1e-3)
    one = compute_norms(np.arange(1.0, 9))
    assert tolerance.covers_norms(one, one, 8)
    for other in (
        np.arange(1.0, 9) * 1.01,
        np.arange(1.0, 9)[::-1] * -1,
        np.array([1.0] * 7 + [np.nan]),
    ):
        assert not tolerance.covers_norms(one, compute_norms(other), 8)


OUTLINES = {
    ("weights", "layers.0.bias"): {"shape": [4], "dtype": "float32"},
    ("optimizer", "optimizer.0"): {"shape": [], "dtype": "int32"},
}


@pytest.mark.parametrize(
    ("role", "place", "status"),
    [
        ("weights", "layers.0.bias", WITHIN),
        ("optimizer", "optimizer.0", DIFFERENT),  # An integer.
        ("random", "layers.1.seed_generator_state", DIFFERENT),
    ],
)
def test_what_a_tolerance_is_for(role, place, status):
    """Floats may be close; integers and random state are equal or not."""
    tolerance = Tolerance(rtol=1e-3)
    a = replace(make(), norms={role: {place: Norms(2.0, 1.0, 1.0)}})
    b = replace(
        make(change=[place]), norms={role: {place: Norms(2.0001, 1.0, 1.0)}}
    )
    found = compare_records(a, b, tolerance=tolerance, outlines=OUTLINES)
    assert [one.status for one in found.differences] == [status]
    assert is_within(found, a, b, tolerance) == (status == WITHIN)
    bare = compare_records(a, b)
    assert [one.status for one in bare.differences] == [DIFFERENT]


def test_metrics_within_a_tolerance():
    """A metric may be close too; without norms nothing can be."""
    tolerance = Tolerance(rtol=1e-3)
    a, b = (make(metrics={"loss": value}) for value in (1.0, 1.0001))
    found = compare_records(a, b, tolerance=tolerance)
    assert is_within(found, a, b, tolerance)
    assert not is_within(found, a, b, Tolerance(rtol=1e-6))
    changed = make(change=["layers.0.bias"])
    found = compare_records(make(), changed, tolerance=tolerance)
    assert not is_within(found, make(), changed, tolerance)
