"""Two runs, down to the first mismatch.

A mismatch found by comparing is a result: nothing here raises for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_repro.runs import Run, RunHeader, RunRecord

ROLES = ("random", "weights", "optimizer", "metrics")
_SHOWN = 5
_WORDS = {
    "seed": "another seed",
    "model": "another model configuration",
    "compile": "another compile configuration",
    "data": "other data",
    "continues": "another training before it",
}


@dataclass(frozen=True)
class Mismatch:
    """Where two runs that should be equal differ first.

    Args:
        moment: When, in words: `"initial state"`, `"epoch 3, batch 10"`.
        epoch: The epoch, counted from 0, or `None` for the start.
        batch: The batch, or `None` at the end of an epoch.
        roles: What differs: `"identity"`, `"random"`, `"weights"`,
            `"optimizer"`, `"metrics"`, `"records"`, in this order.
        places: The variables, metrics or parts of the identity that differ.
        agreed: What of this moment was still equal, in words.
        details: More on single places, in words.
        previous: The last moment at which all was equal, or `None`.
    """

    moment: str
    epoch: int | None
    batch: int | None
    roles: tuple[str, ...]
    places: tuple[str, ...]
    agreed: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    previous: str | None = None

    def __str__(self) -> str:
        """A few lines for a terminal."""
        lines = [f"First mismatch at: {self.moment}"]
        lines.append(f"  differs: {', '.join(self.roles)}")
        lines.append(f"  places:  {_shorten(self.places)}")
        lines += [f"           {detail}" for detail in self.details[:_SHOWN]]
        lines.append(f"  agreed:  {', '.join(self.agreed) or 'nothing'}")
        if self.previous is not None:
            lines.append(f"  all equal until: {self.previous}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """Whether two runs are bitwise equal, and if not, where first.

    Args:
        a: The first run.
        b: The second run.
        first_mismatch: The earliest place at which they differ, or `None`.
        num_compared: How many moments were compared.
        identity: How they differ before they begin (another seed, other
            data), or `None`.
    """

    a: Run
    b: Run
    first_mismatch: Mismatch | None
    num_compared: int
    identity: Mismatch | None = None

    @property
    def equal(self) -> bool:
        """Whether no mismatch was found."""
        return self.first_mismatch is None

    def __str__(self) -> str:
        """A few lines for a terminal."""
        lines = [f"a: {self.a}", f"b: {self.b}"]
        if self.identity is not None:
            lines += [f"b has {detail}" for detail in self.identity.details]
        if self.first_mismatch is None:
            lines.append(f"Bitwise equal at {self.num_compared} moments.")
        else:
            lines.append(str(self.first_mismatch))
        return "\n".join(lines)


_NOTHING = Mismatch(
    moment="start",
    epoch=None,
    batch=None,
    roles=("records",),
    places=("records",),
    details=("they hold no record of the same moment",),
)


def compare_runs(a: Run, b: Run) -> Comparison:
    """Compare two runs, bit for bit, down to the first mismatch.

    What they did decides; how they differ before they begin, such as another
    seed, is told beside it. A run that ended early differs from one that went
    on.

    Args:
        a: A run, for example from `load_run`.
        b: Another.

    Returns:
        The comparison.

    Raises:
        TypeError: If one of them is not a `Run`.

    Scope:
        What the runs recorded. Moments that only one recorded, because it
        recorded more often, are passed over.
    """
    for name, run in (("a", a), ("b", b)):
        if not isinstance(run, Run):
            raise TypeError(
                f"`{name}` must be a Run. Received: {run!r} (of type "
                f"{type(run).__name__}). Load one with `load_run(path)`."
            )
    pairs = list(_pair_records(a, b))
    identity = compare_identities(a.header, b.header)
    mismatch: Mismatch | None = None
    previous: str | None = None
    for first, second in pairs:
        if mismatch is not None:
            break
        mismatch = compare_records(first, second, previous=previous)
        previous = first.moment
    if mismatch is None:
        mismatch = _compare_length(a, b, previous) if pairs else _NOTHING
    return Comparison(a, b, mismatch, len(pairs), identity)


def compare_identities(
    reference: RunHeader, header: RunHeader
) -> Mismatch | None:
    """Compare what two runs are, before what they did.

    Args:
        reference: The header of the run to compare with.
        header: The other run's header.

    Returns:
        A mismatch of the role `"identity"`, or `None`.
    """
    ours, theirs = dict(header.identity), dict(reference.identity)
    keys = sorted({*ours, *theirs}, key=_position)
    places = tuple(key for key in keys if ours.get(key) != theirs.get(key))
    if not places:
        return None
    return Mismatch(
        moment="start",
        epoch=None,
        batch=None,
        roles=("identity",),
        places=places,
        agreed=tuple(key for key in keys if key not in places),
        details=tuple(
            f"{_WORDS.get(key, key)}: {ours.get(key)}, not {theirs.get(key)}"
            for key in places
        ),
    )


def compare_records(
    reference: RunRecord, record: RunRecord, *, previous: str | None = None
) -> Mismatch | None:
    """Compare two records of the same moment.

    Args:
        reference: The record to compare with.
        record: The other record.
        previous: The last moment at which all was equal, in words.

    Returns:
        A mismatch, or `None` if all that both hold is equal.
    """
    differing: dict[str, list[str]] = {}
    agreed: list[str] = []
    for role in ROLES:
        places, total = _compare_role(role, reference, record)
        if places:
            differing[role] = places
        if total > len(places):
            agreed.append(f"{role} ({total - len(places)} of {total})")
    if not differing:
        return None
    return Mismatch(
        moment=record.moment,
        epoch=record.epoch,
        batch=record.batch,
        roles=tuple(differing),
        places=tuple(place for group in differing.values() for place in group),
        agreed=tuple(agreed),
        details=tuple(_metric_details(reference, record)),
        previous=previous,
    )


def with_note(mismatch: Mismatch, note: str) -> Mismatch:
    """Add a line to a mismatch.

    Args:
        mismatch: The mismatch.
        note: More about it, in words.

    Returns:
        A new mismatch.
    """
    return replace(mismatch, details=(*mismatch.details, note))


def _compare_role(
    role: str, reference: RunRecord, record: RunRecord
) -> tuple[list[str], int]:
    """The places of a role that differ, and how many were compared."""
    ours = dict(record.variables.get(role, {}))
    theirs = dict(reference.variables.get(role, {}))
    if reference.epoch is None and _is_incomplete(role, ours, theirs):
        ours, theirs = {}, {}
    if role == "random" and None not in (record.streams, reference.streams):
        ours["random streams"] = str(record.streams)
        theirs["random streams"] = str(reference.streams)
    if role == "metrics":
        if set(record.metrics) != set(reference.metrics):
            # One was validated and one was not: their states may differ.
            ours, theirs = {}, {}
        shared = set(record.metrics) & set(reference.metrics)
        ours.update(_bits(record.metrics, shared))
        theirs.update(_bits(reference.metrics, shared))
    names = list(dict.fromkeys([*theirs, *ours]))
    places = [name for name in names if ours.get(name) != theirs.get(name)]
    return places, len(names)


def _is_incomplete(
    role: str, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> bool:
    """Whether a role was not complete yet in one of two initial states.

    A first `fit` builds the optimizer, and on some backends the layers, only
    after it has begun; a later one finds them there. Metrics still hold what
    came before, and each epoch resets them.
    """
    if role == "metrics" or not ours or not theirs:
        return True
    return role == "optimizer" and len(ours) != len(theirs)


def _bits(metrics: Mapping[str, float], names: set[str]) -> dict[str, str]:
    """Metrics by name as exact bits, so that NaN equals NaN, 0.0 not -0.0."""
    return {
        f"metric {name!r}": (
            "nan" if math.isnan(value) else struct.pack("<d", value).hex()
        )
        for name, value in metrics.items()
        if name in names
    }


def _metric_details(reference: RunRecord, record: RunRecord) -> Iterator[str]:
    shared = set(record.metrics) & set(reference.metrics)
    ours = _bits(record.metrics, shared)
    theirs = _bits(reference.metrics, shared)
    for name in record.metrics:
        key = f"metric {name!r}"
        if ours.get(key) != theirs.get(key):
            value, other = record.metrics[name], reference.metrics[name]
            yield f"{name} is {value!r}, was {other!r}"


def _pair_records(a: Run, b: Run) -> Iterator[tuple[RunRecord, RunRecord]]:
    """Records of the moments that both runs hold, in order."""
    others = {(record.epoch, record.batch): record for record in b.records}
    for record in a.records:
        other = others.get((record.epoch, record.batch))
        if other is not None:
            yield record, other


def _compare_length(a: Run, b: Run, previous: str | None) -> Mismatch | None:
    """Tell if one of the runs went on for longer."""
    ends = [_last_moment(run) for run in (a, b)]
    if ends[0][0] == ends[1][0]:
        return None
    last = (a if ends[0][0] > ends[1][0] else b).records[-1]
    return Mismatch(
        moment=last.moment,
        epoch=last.epoch,
        batch=last.batch,
        roles=("records",),
        places=("length",),
        agreed=("all that both recorded",),
        details=(f"a ends at {ends[0][1]}, b at {ends[1][1]}",),
        previous=previous,
    )


def _last_moment(run: Run) -> tuple[int, str]:
    """The last whole epoch that a run recorded."""
    last, moment = -1, "its start"
    for record in run.records:
        if record.epoch is not None and record.batch is None:
            last, moment = record.epoch, record.moment
    return last, moment


def _position(key: Any) -> tuple[int, str]:
    """Known parts of the identity first, in their usual order."""
    known = list(_WORDS)
    rank = known.index(key) if key in known else len(known)
    return rank, str(key)


def _shorten(places: tuple[str, ...]) -> str:
    shown = ", ".join(places[:_SHOWN])
    more = len(places) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
