"""Two runs, down to the first mismatch; many runs, by what agrees.

A mismatch found by comparing is a result: nothing here raises for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_repro.common.checks import (
    NOT_NEGATIVE,
    check_items,
    check_kind,
    check_number,
)
from keras_repro.common.json import to_plain
from keras_repro.environment.differences import (
    EnvironmentDifference,
    find_differences,
)
from keras_repro.reports.document import Document
from keras_repro.reports.figures import plot
from keras_repro.reports.result import Described, Result
from keras_repro.runs.agreement import (
    Agreement,
    list_agreements,
    measure_exactly,
    note_differences,
)
from keras_repro.runs.documents import describe_comparison, describe_groups
from keras_repro.runs.file import load_run
from keras_repro.runs.mismatch import (
    DIFFERENT,
    EQUAL,
    WITHIN,
    Mismatch,
    Tolerance,
    compare_identities,
    compare_records,
    is_within,
)
from keras_repro.runs.plots import picture_comparison
from keras_repro.runs.run import Run, RunRecord


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """Whether two runs are bitwise equal, and if not, where first.

    Args:
        a: The first run.
        b: The second run.
        status: `"bitwise equal"`, `"within tolerance"` or `"different"`, of
            all that both runs recorded.
        first_mismatch: The earliest place at which bits differ, or `None`.
        first_beyond: The earliest place beyond the tolerances, or `None`.
        num_compared: How many moments were compared.
        rtol: The relative tolerance.
        atol: The absolute tolerance.
        identity: How they differ before they begin (another seed, other
            data), or `None`.
        environment: How their environments differ, the likeliest to matter
            first.
        notes: What else is not alike and is no mismatch, in words: more
            epochs in one of them, other metrics, renamed layers.
        agreements: Part by part and epoch by epoch, for tables and plots.
    """

    a: Run
    b: Run
    status: str
    first_mismatch: Mismatch | None
    first_beyond: Mismatch | None = None
    num_compared: int
    rtol: float = 0.0
    atol: float = 0.0
    identity: Mismatch | None = None
    environment: tuple[EnvironmentDifference, ...] = ()
    notes: tuple[str, ...] = ()
    agreements: tuple[Agreement, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether they are bitwise equal."""
        return self.status == EQUAL

    @property
    def agree(self) -> bool:
        """Whether they are equal, or within the tolerances."""
        return self.status != DIFFERENT

    def describe(self) -> Document:
        """All that the comparison says of itself."""
        return describe_comparison(self)

    def _list_values(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "equal": self.equal,
            "agree": self.agree,
            "rtol": self.rtol,
            "atol": self.atol,
            "num_compared": self.num_compared,
            "a": _outline_run(self.a),
            "b": _outline_run(self.b),
            "first_mismatch": _mismatch_to_json(self.first_mismatch),
            "first_beyond": _mismatch_to_json(self.first_beyond),
            "identity": _mismatch_to_json(self.identity),
            "environment": [to_plain(one) for one in self.environment],
            "notes": list(self.notes),
            "agreements": [to_plain(one) for one in self.agreements],
        }

    def plot(self) -> Any:
        """Draw the distance of each part of the model over the epochs.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        return plot(picture_comparison(self))


@dataclass(frozen=True, kw_only=True)
class RunGroups(Described):
    """Which of many runs agree with which.

    Args:
        runs: The runs, in the order given.
        groups: The positions of the runs of each group, the largest group
            first; runs of one group are equal in all that they share.
        comparisons: For each group after the first, its first run compared
            with the first run of the first group.
    """

    runs: tuple[Run, ...]
    groups: tuple[tuple[int, ...], ...]
    comparisons: tuple[Comparison, ...]

    @property
    def agree(self) -> bool:
        """Whether all runs are in one group."""
        return len(self.groups) <= 1

    def describe(self) -> Document:
        """All that the groups say of themselves."""
        return describe_groups(self)

    def _list_values(self) -> dict[str, Any]:
        return {
            "agree": self.agree,
            "runs": [_outline_run(run) for run in self.runs],
            "groups": [list(group) for group in self.groups],
            "comparisons": [one.to_json() for one in self.comparisons],
        }


def compare_runs(
    a: Run | str | os.PathLike[str],
    b: Run | str | os.PathLike[str],
    rtol: float = 0.0,
    atol: float = 0.0,
) -> Comparison:
    """Compare two runs down to the first mismatch.

    What they did decides. How they differ before they begin (another seed),
    in their environments and in their length is told beside it.

    Args:
        a: A run, or the file of one, of which the last run is taken.
        b: Another.
        rtol: Relative tolerance for weights, optimizer and metrics, as in
            `numpy.allclose(a, b)`. Random state, data and integers are
            compared bit for bit in any case.
        atol: Absolute tolerance.

    Returns:
        The comparison. Where both runs kept snapshots, the first mismatch is
        measured exactly, else by the norms of the variables, which can tell
        that two arrays are apart but not that all their elements are close.

    Raises:
        TypeError: If one of them is no run and no path, or a tolerance no
            number.
        FileNotFoundError: If there is no such file.
        ValueError: If a tolerance is negative or not finite, or a file or a
            snapshot is damaged.

    Scope:
        What the runs recorded. Moments that only one recorded, because it
        recorded more often or for longer, are passed over.

    Example:
        >>> from keras_repro.runs.run import RunHeader
        >>> run = Run(RunHeader(run_id="1", started="", identity={}))
        >>> compare_runs(run, run).status
        'different'
    """
    tolerance = _check_tolerance(rtol, atol)
    return _Matcher(_take("a", a), _take("b", b), tolerance).compare()


def _take(name: str, run: Any) -> Run:
    """A run, or the last one of a file."""
    if isinstance(run, str | os.PathLike):
        return load_run(run)
    advice = "Pass a run, or the path of a file of runs."
    must = "be a run or the path of a file"
    taken: Run = check_kind(name, run, Run, advice, must=must)
    return taken


def group_runs(
    runs: Sequence[Run], rtol: float = 0.0, atol: float = 0.0
) -> RunGroups:
    """Sort runs into groups that agree.

    Args:
        runs: Two runs or more.
        rtol: Relative tolerance, as of `compare_runs`.
        atol: Absolute tolerance.

    Returns:
        The groups. A run joins the first group whose first run it agrees
        with, in the order given.

    Raises:
        TypeError: If one of them is not a `Run`.
        ValueError: If there are fewer than two, or as `compare_runs`.
    """
    advice = "Load all runs of a file with `load_runs(path)`."
    runs = tuple(check_items("runs", runs, Run, advice))
    if len(runs) < 2:
        raise ValueError(
            "`runs` must hold two runs or more. Received: "
            f"{len(runs)}. {advice}"
        )
    tolerance = _check_tolerance(rtol, atol)
    rtol, atol = tolerance.rtol, tolerance.atol
    groups: list[list[int]] = []
    for index, run in enumerate(runs):
        for group in groups:
            if compare_runs(runs[group[0]], run, rtol, atol).agree:
                group.append(index)
                break
        else:
            groups.append([index])
    groups.sort(key=len, reverse=True)
    first, *others = groups
    return RunGroups(
        runs=runs,
        groups=tuple(tuple(group) for group in groups),
        comparisons=tuple(
            compare_runs(runs[first[0]], runs[other[0]], rtol, atol)
            for other in others
        ),
    )


def _check_tolerance(rtol: object, atol: object) -> Tolerance:
    advice = "Leave it out to compare bit for bit."
    return Tolerance(
        rtol=check_number("rtol", rtol, NOT_NEGATIVE, advice),
        atol=check_number("atol", atol, NOT_NEGATIVE, advice),
    )


class _Matcher:
    """Walks through two runs, moment by moment."""

    def __init__(self, a: Run, b: Run, tolerance: Tolerance) -> None:
        self.a, self.b, self.tolerance = a, b, tolerance
        self.pairs = list(_pair_records(a, b))
        self.outlines = {
            (str(one.get("role")), str(one.get("place"))): one
            for run in (b, a)
            for one in run.header.variables
        }
        self.identity = compare_identities(a.header, b.header)

    def compare(self) -> Comparison:
        first = beyond = None
        agreements: list[Agreement] = []
        previous: str | None = None
        for one, other in self.pairs:
            found = self._compare(one, other, previous)
            first = first or found
            if found is not None and beyond is None:
                within = is_within(found, one, other, self.tolerance)
                beyond = None if within else found
            if first is None:
                previous = one.moment
            if one.batch is None:
                agreements += list_agreements(one, found)
        if not self.pairs:
            first = beyond = _NOTHING
        first, beyond = self._measured(first), self._measured(beyond)
        status = WITHIN if first is not None else EQUAL
        return Comparison(
            a=self.a,
            b=self.b,
            status=DIFFERENT if beyond is not None else status,
            first_mismatch=first,
            first_beyond=beyond,
            num_compared=len(self.pairs),
            rtol=self.tolerance.rtol,
            atol=self.tolerance.atol,
            identity=self.identity,
            environment=find_differences(
                self.a.header.environment, self.b.header.environment
            ),
            notes=tuple(note_differences(self.a, self.b, self.pairs)),
            agreements=tuple(agreements),
        )

    def _compare(
        self, one: RunRecord, other: RunRecord, previous: str | None
    ) -> Mismatch | None:
        found = compare_records(
            one,
            other,
            previous=previous,
            tolerance=self.tolerance,
            outlines=self.outlines,
        )
        if found is None:
            return None
        if self.tolerance and one.snapshot and other.snapshot:
            found = measure_exactly(
                found, (self.a, one), (self.b, other), self.tolerance
            )
        if one.epoch is not None and self._has_other_data(found):
            found = replace(found, roles=("data", *found.roles))
        return found

    def _has_other_data(self, found: Mismatch) -> bool:
        """Whether other data were given: then the data differ first."""
        data = [run.header.identity.get("data") for run in (self.a, self.b)]
        return (
            None not in data and data[0] != data[1]
        ) and "data" not in found.roles

    def _measured(self, mismatch: Mismatch | None) -> Mismatch | None:
        """The mismatch with exact sizes, from the first snapshot after it."""
        if mismatch is None or any(one.exact for one in mismatch.differences):
            return mismatch
        moments = {
            (one.epoch, one.batch): index
            for index, (one, _) in enumerate(self.pairs)
        }
        start = moments.get((mismatch.epoch, mismatch.batch), len(self.pairs))
        for one, other in self.pairs[start:]:
            if one.snapshot and other.snapshot:
                return measure_exactly(
                    mismatch, (self.a, one), (self.b, other), self.tolerance
                )
        return mismatch


_NOTHING = Mismatch(
    moment="start",
    epoch=None,
    batch=None,
    roles=("records",),
    places=("records",),
    details=("they hold no record of the same moment",),
)


def _pair_records(a: Run, b: Run) -> Iterator[tuple[RunRecord, RunRecord]]:
    others = {(record.epoch, record.batch): record for record in b.records}
    for record in a.records:
        other = others.get((record.epoch, record.batch))
        if other is not None:
            yield record, other


# --- plain values ---------------------------------------------------------


def _outline_run(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.header.name,
        "started": run.header.started,
        "seed": run.header.identity.get("seed"),
        "status": None if run.end is None else run.end.status,
        "num_records": len(run.records),
        "checksum": run.checksum,
    }


def _mismatch_to_json(mismatch: Mismatch | None) -> dict[str, Any] | None:
    if mismatch is None:
        return None
    return {"role": mismatch.role, **to_plain(mismatch)}
