"""What a training took over from an earlier one that was meant to be undone.

Repeatable from process to process, and wrong nevertheless: seen in the states
that two trainings of one model began with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keras_repro.arrays.norms import Norms
from keras_repro.diagnosis.first_mismatch import Process
from keras_repro.runs.run import Run, RunRecord
from keras_repro.watching.model_calls import FIT, Call


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A training that began with something of an earlier one."""

    call: Call  # The later `fit`.
    earlier: Call  # Whose start the weights were put back to.
    places: tuple[str, ...]  # The variables that were not put back.


@dataclass(frozen=True, kw_only=True)
class SharedStart:
    """Weights that begin with the same random values."""

    call: Call  # The first `fit` of their model.
    places: tuple[str, ...]


def find_leaks(process: Process) -> Iterator[Leak]:
    """Find trainings whose weights were put back, and other state was not."""
    earlier: dict[str, list[tuple[Call, Run]]] = {}
    for call, run in _find_fits(process):
        known = earlier.setdefault(call.model, [])
        # Weights that were put back say that a new trial was meant; a training
        # that simply goes on is no leak.
        for one, before in known:
            places = _find_leaked(before, run)
            if places:
                yield Leak(call=call, earlier=one, places=places)
                break
        known.append((call, run))


def find_shared_starts(process: Process) -> Iterator[SharedStart]:
    """Find weights of one model that begin with the same random values."""
    seen: set[str] = set()
    for call, run in _find_fits(process):
        if call.model in seen:
            continue
        seen.add(call.model)
        start = run.records[0]
        groups: dict[str, list[str]] = {}
        for place, checksum in start.variables.get("weights", {}).items():
            norms = start.norms.get("weights", {}).get(place)
            if norms is not None and _is_random(norms):
                groups.setdefault(checksum, []).append(place)
        for places in groups.values():
            # Layers that share one initializer without a seed of its own draw
            # the same numbers, and stay alike where they are fed alike.
            if len(places) > 1:
                yield SharedStart(call=call, places=tuple(places))


def _find_fits(process: Process) -> Iterator[tuple[Call, Run]]:
    for call in process.calls:
        run = process.find_run(call)
        if call.method == FIT and run is not None and run.records:
            yield call, run


def _find_leaked(before: Run, run: Run) -> tuple[str, ...]:
    """What was not put back to where an earlier run began, as its weights."""
    start, end, now = before.records[0], before.records[-1], run.records[0]
    first = _weights(start)
    moved = [
        place
        for place, checksum in _weights(end).items()
        if first.get(place, checksum) != checksum
    ]
    current = _weights(now)
    put_back = [place for place in moved if current.get(place) == first[place]]
    if not moved or 2 * len(put_back) < len(moved):
        return ()
    left = [place for place in moved if place not in put_back]
    return (*left, *_find_other_state(start, now))


def _find_other_state(start: RunRecord, now: RunRecord) -> Iterator[str]:
    """Optimizer and seed generators that are not as they were."""
    has_moved = False
    for role in ("random", "optimizer"):
        first, current = start.variables.get(role), now.variables.get(role, {})
        for place, checksum in (first or {}).items():
            if current.get(place, checksum) != checksum:
                has_moved = has_moved or role == "optimizer"
                yield place
    # Slots are made by the first training; at the start they hold nothing.
    known = start.variables.get("optimizer", {})
    for place, norms in now.norms.get("optimizer", {}).items():
        if has_moved and place not in known and norms.l2 > 0:
            yield place


def _weights(record: RunRecord) -> Mapping[str, str]:
    return record.variables.get("weights", {})


def _is_random(norms: Norms) -> bool:
    """Whether the values are not all the same number."""
    return not math.isclose(norms.largest, abs(norms.mean), rel_tol=1e-6)
