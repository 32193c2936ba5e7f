"""Two processes of one script, call by call, down to the first mismatch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_repro.runs.comparison import compare_runs
from keras_repro.runs.file import load_runs
from keras_repro.runs.run import ROLES, Run
from keras_repro.watching.model_calls import (
    END,
    HIDDEN,
    RUNS,
    Call,
    load_calls,
)


@dataclass(frozen=True)
class Process:
    """What one process of a script did.

    Args:
        calls: Its calls, in the order in which they began.
        runs: Its runs, by their ids.
    """

    calls: tuple[Call, ...] = ()
    runs: Mapping[str, Run] = field(default_factory=dict)

    @property
    def has_calls(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.calls)

    def without_end(self) -> Process:
        """The same, without what it left at its end."""
        calls = tuple(one for one in self.calls if one.method != END)
        return Process(calls, self.runs)


def load_process(folder: str | os.PathLike[str]) -> Process:
    """Read what a process did."""
    path = Path(folder) / RUNS
    runs = load_runs(path) if path.exists() else []
    return Process(load_calls(folder), {run.run_id: run for run in runs})


@dataclass(frozen=True, kw_only=True)
class FirstMismatch:
    """The earliest place at which two processes of a script differ.

    Args:
        call: Which call, counted from 1; 0 if none is to be named.
        method: What was called.
        place: The line that called, or `None`.
        moment: When in the call: `"before"`, `"initial state"`, `"epoch 2"`,
            `"result"`.
        roles: What differs, what parted first in front.
        places: The variables, metrics or results that differ.
        details: More, in words.
    """

    call: int
    method: str
    place: str | None
    moment: str
    roles: tuple[str, ...]
    places: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def compare_processes(a: Process, b: Process) -> FirstMismatch | None:
    """Compare two processes of one script, call by call."""
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
    first, second = a.runs.get(one.run_id or ""), b.runs.get(other.run_id or "")
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
