"""What one training took over from another that was to be undone."""

import pytest

from keras_repro.arrays.norms import Norms
from keras_repro.diagnosis.first_mismatch import Process
from keras_repro.diagnosis.leaks import find_leaks, find_shared_starts
from keras_repro.watching.model_calls import FIT, Call
from tests import builders

pytestmark = pytest.mark.no_backend

SOME = Norms(l2=2.0, mean=0.1, largest=1.0)
NOTHING = Norms(l2=0.0, mean=0.0, largest=0.0)


def make_record(epoch, norms=SOME, **variables):
    """A record that holds checksums by role and place."""
    return builders.make_record(
        epoch=epoch,
        variables=variables,
        norms={
            role: dict.fromkeys(places, norms)
            for role, places in variables.items()
        },
    )


def make_process(*fits):
    """A process whose fits each began and ended with some variables."""
    calls, runs = [], {}
    for number, (start, end) in enumerate(fits):
        run_id = f"run{number}"
        runs[run_id] = builders.make_run(start, end, run_id=run_id)
        calls.append(
            Call(
                index=number,
                method=FIT,
                model="model",
                place=f"a.py:{number}",
                run_id=run_id,
            )
        )
    return Process(tuple(calls), runs)


FIRST = (
    make_record(
        None, weights={"k": "0"}, random={"s": "0"}, optimizer={"i": "0"}
    ),
    make_record(1, weights={"k": "1"}, random={"s": "1"}),
)


@pytest.mark.parametrize(
    ("start", "leaked"),
    [
        # All put back, as `reset` does.
        ({"weights": {"k": "0"}, "optimizer": {"i": "0"}}, None),
        # The weights alone: the optimizer goes on, with what it has made.
        (
            {"weights": {"k": "0"}, "optimizer": {"i": "9", "m": "5"}},
            ("i", "m"),
        ),
        # A seed generator goes on.
        (
            {
                "weights": {"k": "0"},
                "random": {"s": "1"},
                "optimizer": {"i": "0"},
            },
            ("s",),
        ),
        # Nothing was put back: it simply trains on.
        ({"weights": {"k": "1"}, "optimizer": {"i": "9"}}, None),
        # Other weights were loaded: no trial is repeated.
        ({"weights": {"k": "7"}, "optimizer": {"i": "9"}}, None),
    ],
)
def test_what_was_put_back(start, leaked):
    """A leak is what was not put back where the weights were."""
    second = make_record(None, **start), FIRST[1]
    found = list(find_leaks(make_process(FIRST, second)))
    if leaked is None:
        assert found == []
        return
    (leak,) = found
    assert leak.places == leaked
    assert (leak.earlier.place, leak.call.place) == ("a.py:0", "a.py:1")


def test_statistics_that_were_left():
    """Most of what moved was put back; the rest has leaked."""
    first = (
        make_record(None, weights={"a": "0", "b": "0", "mean": "0"}),
        make_record(1, weights={"a": "1", "b": "1", "mean": "1"}),
    )
    second = make_record(None, weights={"a": "0", "b": "0", "mean": "1"})
    (leak,) = find_leaks(make_process(first, (second, first[1])))
    assert leak.places == ("mean",)


def test_a_training_that_changed_nothing():
    """Where nothing moved, nothing can have been put back."""
    same = (
        make_record(None, weights={"k": "0"}),
        make_record(1, weights={"k": "0"}),
    )
    assert list(find_leaks(make_process(same, same))) == []


def test_weights_that_start_alike():
    """Equal random values are told; equal zeros and ones are not."""
    start = make_record(None, weights={"a": "0", "b": "0", "c": "1"})
    (found,) = find_shared_starts(make_process((start, start)))
    assert found.places == ("a", "b")
    zeros = make_record(None, NOTHING, weights={"a": "0", "b": "0"})
    assert list(find_shared_starts(make_process((zeros, zeros)))) == []
    ones = Norms(l2=3.0, mean=1.0, largest=1.0)
    start = make_record(None, ones, weights={"a": "0", "b": "0"})
    assert list(find_shared_starts(make_process((start, start)))) == []


def test_only_the_first_start_counts():
    """Weights that were trained to be equal are none of an initializer's."""
    first = make_record(None, weights={"a": "0", "b": "1"})
    later = make_record(None, weights={"a": "2", "b": "2"})
    process = make_process((first, later), (later, later))
    assert list(find_shared_starts(process)) == []
