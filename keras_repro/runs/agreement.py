"""What two runs share, part by part; how far apart the rest is, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from keras_repro.arrays.norms import compare_arrays, is_close, relate_norms
from keras_repro.runs.mismatch import (
    DIFFERENT,
    EQUAL,
    WITHIN,
    Mismatch,
    Tolerance,
    VariableDifference,
    pair_places,
)
from keras_repro.runs.run import ROLES, Run, RunRecord, find_layer
from keras_repro.runs.snapshots import Snapshot, find_snapshot, open_snapshot


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How one part of the model agrees at the end of one epoch."""

    epoch: int | None  # Counted from 0; `None` for the initial state.
    part: str  # A layer (`layers.2`), or `random`, `optimizer`, `metrics`.
    status: str  # `EQUAL`, `WITHIN` or `DIFFERENT`.
    # How far apart its variables are by their norms (`relate_norms`), at most;
    # 0.0 if equal, `None` if no norms were recorded.
    distance: float | None


def list_agreements(
    record: RunRecord, found: Mismatch | None
) -> Iterator[Agreement]:
    """How each part of a model agrees at one moment."""
    parts: dict[str, list[VariableDifference]] = {
        part: []
        for role in ROLES
        for place in record.variables.get(role, {})
        for part in (find_part(role, place),)
    }
    roles = () if found is None else found.roles
    for difference in () if found is None else found.differences:
        part = find_part(difference.role, difference.place)
        parts.setdefault(part, []).append(difference)
    for part, differing in parts.items():
        status = EQUAL
        if differing:
            far = any(one.status == DIFFERENT for one in differing)
            status = DIFFERENT if far else WITHIN
        elif part in roles:  # Random streams, metrics: no variable differs.
            status = DIFFERENT
        yield Agreement(
            epoch=record.epoch,
            part=part,
            status=status,
            distance=_measure_distance(differing),
        )


def find_part(role: str, place: str) -> str:
    """The part of a model that a variable belongs to, for tables."""
    return role if role != "weights" else find_layer(place)


def _measure_distance(differing: list[VariableDifference]) -> float | None:
    if not differing:
        return 0.0
    distances = [
        relate_norms(one.a, one.b)
        for one in differing
        if one.a is not None and one.b is not None
    ]
    return max(distances, default=None)


def measure_exactly(
    mismatch: Mismatch,
    a: tuple[Run, RunRecord],
    b: tuple[Run, RunRecord],
    tolerance: Tolerance,
) -> Mismatch:
    """Measure the variables of a mismatch in snapshots."""
    one_path, other_path = find_snapshot(*a), find_snapshot(*b)
    if one_path is None or other_path is None:
        gone = "a snapshot is missing, so sizes come from the norms"
        return replace(mismatch, details=(*mismatch.details, gone))
    with open_snapshot(one_path) as first, open_snapshot(other_path) as second:
        known = set(first.keys()) & set(second.keys())
        differences = tuple(
            _measured_difference(
                one,
                _read_recorded(one, first, a[1]),
                _read_recorded(one, second, b[1]),
                tolerance,
            )
            if (one.role, one.place) in known
            else one
            for one in mismatch.differences
        )
    record = a[1]
    details = mismatch.details
    if (record.epoch, record.batch) != (mismatch.epoch, mismatch.batch):
        details = (*details, f"exact sizes were measured at {record.moment}")
    return replace(mismatch, differences=differences, details=details)


def _read_recorded(
    one: VariableDifference, snapshot: Snapshot, record: RunRecord
) -> npt.NDArray[Any]:
    known = record.variables.get(one.role, {}).get(one.place)
    return snapshot.read(one.role, one.place, known)


def _measured_difference(
    one: VariableDifference,
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    tolerance: Tolerance,
) -> VariableDifference:
    if a.shape != b.shape or a.dtype != b.dtype:
        return one
    within = (
        bool(tolerance)
        and one.role != "random"
        and a.dtype.kind not in "biu"
        and is_close(a, b, rtol=tolerance.rtol, atol=tolerance.atol)
    )
    return replace(
        one,
        status=WITHIN if within else DIFFERENT,
        exact=compare_arrays(a, b),
    )


# --- what is not alike and is no mismatch --------------------------------


def note_differences(
    a: Run, b: Run, pairs: list[tuple[RunRecord, RunRecord]]
) -> Iterator[str]:
    """Tell what is not alike in two runs and is no mismatch."""
    yield from _note_ends(a, b)
    yield from _note_metrics(pairs)
    yield from _note_names(a, b, pairs)
    for name, run in (("a", a), ("b", b)):
        if run.torn:
            yield f"a half-written line of {name} was dropped"


def _note_ends(a: Run, b: Run) -> Iterator[str]:
    counts = [_count_epochs(run) for run in (a, b)]
    if counts[0] != counts[1]:
        longer = "ab"[counts[1] > counts[0]]
        more, common = abs(counts[0] - counts[1]), min(counts)
        yield (
            f"{longer} went on for {more} more epoch{'s' * (more > 1)}: "
            f"{common} are in both"
        )
    for name, run in (("a", a), ("b", b)):
        if run.end is None:
            yield f"{name} has no end: it is still running, or was killed"
        elif run.end.num_records != len(run.records):
            yield (
                f"{name} has {len(run.records)} of its "
                f"{run.end.num_records} records"
            )
        elif not run.finished:
            error = f" by {run.end.exception}" if run.end.exception else ""
            yield f"{name} did not finish: {run.end.status}{error}"


def _count_epochs(run: Run) -> int:
    return max(
        (one.epoch + 1 for one in run.epochs if one.epoch is not None),
        default=0,
    )


def _note_metrics(pairs: list[tuple[RunRecord, RunRecord]]) -> Iterator[str]:
    names = [
        dict.fromkeys(name for pair in pairs for name in pair[side].metrics)
        for side in (0, 1)
    ]
    for side, own in enumerate(names):
        alone = [name for name in own if name not in names[1 - side]]
        if alone:
            yield (
                f"only {'ab'[side]} has the metric{'s' * (len(alone) > 1)} "
                f"{', '.join(alone)}"
            )


def _note_names(
    a: Run, b: Run, pairs: list[tuple[RunRecord, RunRecord]]
) -> Iterator[str]:
    renamed = dict.fromkeys(
        (place, other)
        for one, two in pairs[-1:]
        for role in ("weights", "random", "optimizer")
        for _, place, other in pair_places(one.variables, two.variables, role)
        if None not in (place, other) and place != other
    )
    for place, other in renamed:
        yield f"renamed: {place} of a is {other} of b"
    classes = [run.header.model.get("class") for run in (a, b)]
    if classes[0] != classes[1]:
        yield f"the class of the model is {classes[0]} in a, {classes[1]} in b"
