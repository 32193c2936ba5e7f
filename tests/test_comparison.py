"""The first place where two runs differ, and what still agreed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.comparison import (
    compare_identities,
    compare_records,
    compare_runs,
    with_note,
)
from keras_repro.runs import Run, RunHeader, RunRecord

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
    return RunRecord(
        run_id="r1",
        index=index,
        epoch=epoch,
        batch=None,
        model="kr1:m",
        roles={},
        variables=variables,
        streams=streams,
        metrics=metrics or {},
    )


def make_header(seed=1):
    identity = {"seed": seed, "model": "kr1:a"}
    return RunHeader(run_id="r1", started="x", identity=identity)


def make_run(*records, seed=1):
    return Run(make_header(seed=seed), records)


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
    unbuilt = {**PLACES, "optimizer": {"optimizer.0": "z"}, "metrics": {}}
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


def test_first_mismatch_of_runs():
    """The earliest moment is named, and the last that was equal."""
    a = make_run(make(0, None), make(1, 0), make(2, 1), make(3, 2))
    change = ["layers.0.bias"]
    b = make_run(
        make(0, None), make(1, 0), make(2, 1, change), make(3, 2, change)
    )
    assert compare_runs(a, a).equal
    assert str(compare_runs(a, a)).endswith("Bitwise equal at 4 moments.")
    found = compare_runs(a, b)
    assert not found.equal
    assert found.first_mismatch.epoch == 1
    assert found.first_mismatch.previous == "epoch 1"
    text = str(found)
    for words in ("epoch 2", "weights", "layers.0.bias", "optimizer (2 of 2)"):
        assert words in text


def test_runs_that_recorded_at_other_moments():
    """Moments of one run alone are passed over; with none shared it says so."""
    each = make_run(make(0, None), make(1, 0), make(2, 1))
    batch = replace(make(1, 0), batch=3)
    finer = make_run(make(0, None), batch, make(2, 0), make(3, 1))
    assert compare_runs(each, finer).equal
    nothing = compare_runs(each, make_run(batch))
    assert nothing.first_mismatch.roles == ("records",)


def test_a_run_that_ended_early_differs():
    """Runs of other lengths are not equal, in either order."""
    short = make_run(make(0, None), make(1, 0))
    long = make_run(make(0, None), make(1, 0), make(2, 1))
    for a, b in ((short, long), (long, short)):
        found = compare_runs(a, b).first_mismatch
        assert (found.epoch, found.roles) == (1, ("records",))
    start = make_run(make(0, None))
    assert not compare_runs(start, long).equal


def test_identities():
    """Another seed is told as what it is, beside the first mismatch."""
    a, b = make_run(make(0, None)), make_run(make(0, None), seed=2)
    assert compare_identities(a.header, a.header) is None
    found = compare_identities(a.header, b.header)
    assert (found.roles, found.places) == (("identity",), ("seed",))
    assert found.agreed == ("model",)
    both = compare_runs(a, b)
    assert both.equal
    assert "b has another seed: 2, not 1" in str(both)
    assert compare_runs(a, a).identity is None


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


def test_only_runs_can_be_compared():
    """A path is not a run; the error says how to load one."""
    run = make_run(make())
    with pytest.raises(TypeError, match=r"`b` must be a Run. Received: 'x'"):
        compare_runs(run, "x")
    with pytest.raises(TypeError, match=r"`a` must be a Run"):
        compare_runs(None, run)
