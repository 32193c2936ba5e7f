"""Two processes of one script, call by call, down to the first mismatch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keras_repro.runs.comparison import compare_runs
from keras_repro.runs.file import load_runs
from keras_repro.runs.run import ROLES, Run
from keras_repro.watching.children import list_children
from keras_repro.watching.model_calls import (
    END,
    HIDDEN,
    RUNS,
    Call,
    load_calls,
)

_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Process:
    """What one process of a script did."""

    calls: tuple[Call, ...] = ()  # In the order in which they began.
    runs: Mapping[str, Run] = field(default_factory=dict)  # By their ids.
    # Those below it that were watched and asked anything of a model, in the
    # order in which they began.
    children: tuple[Process, ...] = ()

    @property
    def has_calls(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.calls or self.children)

    @property
    def every(self) -> tuple[Process, ...]:
        """This one, and those below it."""
        return (self, *self.children)

    def without_end(self) -> Process:
        """What it did itself, without what it left at its end."""
        calls = tuple(one for one in self.calls if one.method != END)
        return Process(calls, self.runs)

    def find_run(self, call: Call) -> Run | None:
        """The run that a `fit` was recorded as."""
        return self.runs.get(call.run_id or "")


def load_process(folder: str | os.PathLike[str]) -> Process:
    """Read what a process, and those below it, did."""
    below = (_load_one(path) for _, path in list_children(folder))
    children = tuple(one for one in below if one.calls)
    return replace(_load_one(folder), children=children)


def _load_one(folder: str | os.PathLike[str]) -> Process:
    path = Path(folder) / RUNS
    runs = load_runs(path) if path.exists() else []
    return Process(load_calls(folder), {run.run_id: run for run in runs})


@dataclass(frozen=True, kw_only=True)
class FirstMismatch:
    """The earliest place at which two processes of a script differ."""

    call: int  # Counted from 1; 0 if none is to be named.
    method: str  # What was called.
    place: str | None  # The line that called.
    # When in the call: `"before"`, `"initial state"`, `"epoch 2"`, `"result"`.
    moment: str
    roles: tuple[str, ...]  # What differs, the first difference in front.
    # The variables, metrics or results that differ.
    places: tuple[str, ...] = ()
    details: tuple[str, ...] = ()  # More, in words.
    # Which of the processes below the script's own, counted from 1; 0 for its
    # own.
    process: int = 0


def compare_processes(a: Process, b: Process) -> FirstMismatch | None:
    """Compare two processes of one script, and those below them."""
    # Own calls one by one, those of processes below by what they are: which
    # worker gets which task races.
    own, below = _compare_own(a, b), _compare_below(a, b)
    if own is None or below is None:
        return own or below
    # A child may have given the data of a later call, or been given them.
    return min(own, below, key=lambda one: _find_began(one, b, a))


def _find_began(found: FirstMismatch, *processes: Process) -> float:
    """When the call of a mismatch began, after the first of all calls."""
    for process in processes:
        first = min(
            (call.began for one in process.every for call in one.calls),
            default=0.0,
        )
        for one in process.every[found.process : found.process + 1]:
            for call in one.calls[found.call - 1 : found.call]:
                return call.began - first
    return 0.0


def _compare_own(a: Process, b: Process) -> FirstMismatch | None:
    for one, other in zip(a.calls, b.calls, strict=False):
        found = _compare_calls(one, other, a, b)
        if found is not None:
            return found
    if len(a.calls) == len(b.calls):
        return None
    longer = max(a.calls, b.calls, key=len)
    shared = min(len(a.calls), len(b.calls))
    return _mismatch(
        longer[shared],
        "before",
        ("calls",),
        details=(
            f"one process made {_count(a.calls)} calls, the other "
            f"{_count(b.calls)}",
        ),
    )


# --- the processes below -----------------------------------------------------


@dataclass(frozen=True)
class _Below:
    """A call of a process below a script's own."""

    call: Call
    process: Process
    number: int  # Of the process, counted from 1.

    @property
    def place(self) -> tuple[str, str, str]:
        """What was asked of which model, and where."""
        # Names of models are numbered in each process, by what it did before.
        call = self.call
        return call.method, call.place, _NUMBER.sub("", call.model)

    @property
    def data(self) -> str | None:
        """Checksum of the arrays that it was given, if that is known."""
        run = self.process.find_run(self.call)
        known = None if run is None else run.header.identity.get("data")
        return self.call.data if run is None else known

    def compare(self, other: _Below) -> FirstMismatch | None:
        """Compare it with a call of another process."""
        found = _compare_calls(
            self.call, other.call, self.process, other.process
        )
        return None if found is None else replace(found, process=other.number)


def _compare_below(a: Process, b: Process) -> FirstMismatch | None:
    """Match the calls by place, model and data; what is left differs."""
    left, others = list(_list_below(a)), list(_list_below(b))
    for is_alike in (_are_equal, _are_of_one_task, _are_of_one_place):
        pairs, left, others = _match(left, others, is_alike)
        if is_alike is not _are_equal and pairs:
            one, other = min(pairs, key=lambda pair: pair[1].call.began)
            return one.compare(other)
    if not (left or others):
        return None
    first = min(others or left, key=lambda one: one.call.began)
    found = _mismatch(
        first.call,
        "before",
        ("calls",),
        details=(
            f"one run made {_count_below(a)} calls in processes below the "
            f"script's own, the other {_count_below(b)}",
        ),
    )
    return replace(found, process=first.number)


def _list_below(process: Process) -> Iterator[_Below]:
    for number, one in enumerate(process.children, 1):
        for call in one.calls:
            yield _Below(call, one, number)


def _match(
    some: Sequence[_Below],
    others: Sequence[_Below],
    is_alike: Callable[[_Below, _Below], bool],
) -> tuple[list[tuple[_Below, _Below]], list[_Below], list[_Below]]:
    """Pair calls of one place that are alike; give those that are left."""
    waiting: dict[tuple[str, str, str], list[_Below]] = {}
    for other in others:
        waiting.setdefault(other.place, []).append(other)
    pairs, left = [], []
    for one in some:
        group = waiting.get(one.place, [])
        found = next((each for each in group if is_alike(one, each)), None)
        if found is None:
            left.append(one)
        else:
            group.remove(found)
            pairs.append((one, found))
    return pairs, left, [one for group in waiting.values() for one in group]


def _are_equal(one: _Below, other: _Below) -> bool:
    return one.data == other.data and one.compare(other) is None


def _are_of_one_task(one: _Below, other: _Below) -> bool:
    return one.data == other.data


def _are_of_one_place(one: _Below, other: _Below) -> bool:
    return one.place == other.place


def _count_below(process: Process) -> int:
    return sum(_count(one.calls) for one in process.children)


# --- a call ------------------------------------------------------------------


def _count(calls: Sequence[Call]) -> int:
    return sum(one.method != END for one in calls)


def _compare_calls(
    one: Call, other: Call, a: Process, b: Process
) -> FirstMismatch | None:
    if (one.method, one.place) != (other.method, other.place):
        told = f"{one.method} at {one.place}, {other.method} at {other.place}"
        return _mismatch(other, "before", ("calls",), details=(told,))
    before = _compare_states(one, other) or _compare_data(one, other)
    if before is not None:
        return before
    found = _compare_calls_of_fit(one, other, a, b)
    if found is not None:
        return found
    places = _differing(one.results, other.results)
    if places:
        shown = tuple(
            f"{name}: {one.results.get(name)}, {other.results.get(name)}"
            for name in places[:3]
        )
        return _mismatch(other, "result", ("results",), places, shown)
    if one.error != other.error:
        told = f"ended by {one.error or 'itself'}, {other.error or 'itself'}"
        return _mismatch(other, "result", ("error",), details=(told,))
    return None


def _compare_states(one: Call, other: Call) -> FirstMismatch | None:
    if one.state is None or other.state is None:
        return None
    differing = {
        role: places
        for role in (*ROLES, HIDDEN)
        if (
            places := _differing(
                one.state.get(role, {}), other.state.get(role, {})
            )
        )
    }
    if not differing:
        return None
    moment = "the end" if one.method == END else "before"
    places = tuple(place for group in differing.values() for place in group)
    return _mismatch(other, moment, tuple(differing), places)


def _compare_data(one: Call, other: Call) -> FirstMismatch | None:
    if None in (one.data, other.data) or one.data == other.data:
        return None
    told = f"{one.data}, {other.data}"
    return _mismatch(other, "before", ("data",), details=(told,))


def _compare_calls_of_fit(
    one: Call, other: Call, a: Process, b: Process
) -> FirstMismatch | None:
    first, second = a.find_run(one), b.find_run(other)
    if first is None or second is None:
        return None
    return compare_fits(other, first, second)


def compare_fits(call: Call, first: Run, second: Run) -> FirstMismatch | None:
    """Compare two runs of one `fit`."""
    data = [run.header.identity.get("data") for run in (first, second)]
    comparison = compare_runs(first, second)
    found = comparison.first_mismatch
    if found is not None and found.role != "records":
        roles = found.roles
        if None not in data and data[0] != data[1] and "data" not in roles:
            roles = ("data", *roles)
        return _mismatch(call, found.moment, roles, found.places, found.details)
    if len(first.records) != len(second.records):
        told = f"{len(first.epochs)} epochs, {len(second.epochs)} epochs"
        return _mismatch(call, "its end", ("epochs",), details=(told,))
    return None


def _differing(
    one: Mapping[str, str], other: Mapping[str, str]
) -> tuple[str, ...]:
    every = dict.fromkeys([*one, *other])
    return tuple(name for name in every if one.get(name) != other.get(name))


def _mismatch(
    call: Call,
    moment: str,
    roles: tuple[str, ...],
    places: tuple[str, ...] = (),
    details: tuple[str, ...] = (),
) -> FirstMismatch:
    return FirstMismatch(
        call=call.index + 1,
        method=call.method,
        place=call.place or None,
        moment=moment,
        roles=roles,
        places=places,
        details=details,
    )
