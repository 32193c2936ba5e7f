"""Two processes of one script, down to the first call that differs."""

from dataclasses import replace

import pytest

from keras_repro.diagnosis.first_mismatch import (
    Process,
    compare_processes,
    load_process,
)
from keras_repro.watching.model_calls import (
    CALLS,
    END,
    FIT,
    Call,
    CallFile,
    load_calls,
)
from tests.builders import make_record, make_run

pytestmark = pytest.mark.no_backend

STEP = Call(
    index=0,
    method="train_on_batch",
    model="m",
    place="/a.py:3",
    state={"weights": {"layers.0.kernel": "k0"}, "random": {"s": "s0"}},
    data="d0",
    results={"loss": "0x1.8p+0"},
)


def compare(*calls):
    """Compare a process of one call with one of other calls."""
    return compare_processes(Process((STEP,)), Process(calls))


def test_equal():
    """Nothing is found where nothing differs, whatever the model's name."""
    assert compare(STEP) is None
    assert compare(replace(STEP, model="m_1")) is None
    assert compare_processes(Process(), Process()) is None


@pytest.mark.parametrize(
    ("changes", "moment", "roles", "places"),
    [
        (
            {"state": {"weights": {"layers.0.kernel": "k1"}}},
            "before",
            ("random", "weights"),
            ("s", "layers.0.kernel"),
        ),
        ({"data": "d1"}, "before", ("data",), ()),
        (
            {"results": {"loss": "0x1.8p+1"}},
            "result",
            ("results",),
            ("loss",),
        ),
        ({"error": "ValueError"}, "result", ("error",), ()),
        ({"place": "/a.py:4"}, "before", ("calls",), ()),
        ({"method": "predict"}, "before", ("calls",), ()),
    ],
)
def test_what_differs(changes, moment, roles, places):
    """The moment, the role and the place of what differs are named."""
    found = compare(replace(STEP, **changes))
    assert (found.moment, found.roles, found.places) == (moment, roles, places)
    assert (found.call, found.place) == (1, changes.get("place", "/a.py:3"))


@pytest.mark.parametrize("unknown", ["state", "data"])
def test_what_was_not_read_is_no_difference(unknown):
    """Where one process did not look, nothing is compared."""
    assert compare(replace(STEP, **{unknown: None})) is None


def test_the_first_difference_counts():
    """What comes after the first mismatch is not told."""
    second = replace(STEP, index=1, data="d1")
    third = replace(STEP, index=2, results={})
    found = compare_processes(
        Process((STEP, second, third)),
        Process((STEP, replace(second, data="d2"), replace(third, error="E"))),
    )
    assert (found.call, found.roles) == (2, ("data",))


def test_more_calls_in_one():
    """A process that goes on where the other has ended differs there."""
    end = Call(index=1, method=END, model="m", place="", state={})
    found = compare(STEP, replace(STEP, index=1))
    assert (found.call, found.roles) == (2, ("calls",))
    assert "1 calls, the other 2" in found.details[0]
    longer = compare(STEP, end)
    assert (longer.method, longer.place) == (END, None)


def test_what_is_left_at_the_end():
    """A model that no recorded call used is compared as it was left."""
    ends = [
        Call(index=0, method=END, model="m", place="", state={"weights": w})
        for w in ({"k": "0"}, {"k": "1"})
    ]
    found = compare_processes(*(Process((one,)) for one in ends))
    assert (found.moment, found.places) == ("the end", ("k",))


def below(*children, calls=(STEP,)):
    """A process above others, each with calls of its own."""
    processes = tuple(
        one if isinstance(one, Process) else Process(one) for one in children
    )
    return Process(calls, {}, processes)


A, B = (
    replace(STEP, place="/a.py:9", data=data, results={"loss": data})
    for data in ("a", "b")
)


def test_tasks_of_workers_are_matched_by_what_they_are():
    """Which process made a call, and as which one, is no difference."""
    two = below((A, replace(B, index=1, model="m_1")))
    apart = below((A,), (B,))
    swapped = below((B,), (A,))
    for one, other in ((two, apart), (apart, swapped), (swapped, two)):
        assert compare_processes(one, other) is None
    told = [one.has_calls for one in (below((A,), calls=()), below(calls=()))]
    assert told == [True, False]


def test_what_differs_below():
    """The call of that place and those data is named, and who made it."""
    changed = replace(B, results={"loss": "c"})
    found = compare_processes(below((A,), (B,)), below((changed,), (A,)))
    assert (found.process, found.place, found.roles) == (
        1,
        "/a.py:9",
        ("results",),
    )
    # With other data, by its place.
    found = compare_processes(
        below((A,), (B,)), below((A,), (replace(B, data="c"),))
    )
    assert (found.process, found.roles) == (2, ("data",))


def test_alike_calls_are_counted_below():
    """Two equal calls are not one, in whichever processes."""
    assert compare_processes(below((A, A)), below((A,), (A,))) is None
    found = compare_processes(below((A,)), below((A,), (A,)))
    assert found.roles == ("calls",)
    assert "made 1 calls in processes below" in found.details[0]


def test_the_earlier_of_two_mismatches():
    """What began first is told, in whichever process."""
    changed = replace(STEP, results={"loss": "x"})
    for times, process in (((1.0, 2.0), 0), ((2.0, 1.0), 1)):
        own, other = times
        sides = [
            below(
                (replace(B, results=results, began=other),),
                calls=(replace(step, began=own),),
            )
            for step, results in ((STEP, {"loss": "b"}), (changed, {}))
        ]
        assert compare_processes(*sides).process == process


def make_fit(checksum, *, data=None, epochs=1):
    """A process with one `fit`."""
    weights = {"weights": {"k": checksum}}
    records = [
        make_record(index=epoch, epoch=epoch, variables=weights)
        for epoch in range(epochs)
    ]
    run = make_run(*records, identity={"data": data})
    call = Call(
        index=0, method=FIT, model="m", place="/a.py:1", run_id=run.run_id
    )
    return Process((call,), {run.run_id: run})


def test_fits():
    """A fit is compared epoch by epoch, its data first, and its length."""
    assert compare_processes(make_fit("0"), make_fit("0")) is None
    found = compare_processes(make_fit("0"), make_fit("1"))
    assert (found.moment, found.roles) == ("epoch 1", ("weights",))
    found = compare_processes(make_fit("0", data="a"), make_fit("1", data="b"))
    assert found.roles == ("data", "weights")
    found = compare_processes(make_fit("0"), make_fit("0", epochs=2))
    assert found.roles == ("epochs",)


def test_file_and_back(tmp_path):
    """What was written comes back in order; a torn line is left out."""
    file = CallFile(tmp_path)
    calls = [
        replace(STEP, index=1, traps=({"kind": "nan_features", "text": "a"},)),
        replace(STEP, index=0, state=None, error="ValueError"),
    ]
    for call in calls:
        file.write(call)
    with (tmp_path / CALLS).open("a") as torn:
        torn.write('{"index": 2, "met')
    assert load_calls(tmp_path) == (calls[1], calls[0])
    assert load_process(tmp_path).calls == (calls[1], calls[0])
    assert load_process(tmp_path / "nothing") == Process()
    assert not Process().has_calls
