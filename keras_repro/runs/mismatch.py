"""Two records of one moment: which role differs first, and by how much."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_repro.arrays.norms import ArrayDifference, Norms
from keras_repro.common.json import list_differing
from keras_repro.common.text import shorten
from keras_repro.runs.run import ROLES, RunHeader, RunRecord, Variables

EQUAL = "bitwise equal"
WITHIN = "within tolerance"
DIFFERENT = "different"

_SHOWN = 5
_EXACT_DTYPES = ("int", "uint", "bool")
_WORDS = {
    "seed": "another seed",
    "vary": "a seed that moves other parts",
    "model": "another model configuration",
    "compile": "another compile configuration",
    "data": "other data",
    "fit": "other arguments of `fit`",
    "continues": "another training before it",
    "layout": "other devices, or another layout on them",
}


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far two runs may be apart and still be called close."""

    rtol: float = 0.0  # As in `numpy.allclose`.
    atol: float = 0.0

    def __bool__(self) -> bool:
        """Whether anything but equal bits is allowed."""
        return bool(self.rtol or self.atol)

    def covers(self, a: float, b: float, scale: float | None = None) -> bool:
        """Whether two numbers are close; NaN is close to NaN."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        bound = self.atol + self.rtol * abs(b if scale is None else scale)
        return abs(a - b) <= bound and math.isfinite(a) and math.isfinite(b)

    def covers_norms(self, a: Norms, b: Norms, size: int) -> bool:
        """Whether two arrays may be close: necessary, but not sufficient."""
        # Arrays that are close have norms that are close in this sense.
        root = math.sqrt(max(size, 1))
        wide = Tolerance(rtol=self.rtol, atol=self.atol * root)
        return (
            wide.covers(a.l2, b.l2)
            and self.covers(a.largest, b.largest)
            and self.covers(a.mean, b.mean, scale=b.l2 / root)
        )


@dataclass(frozen=True, kw_only=True)
class VariableDifference:
    """One variable that differs between two records."""

    role: str  # `weights`, `random`, `optimizer` or `metrics`.
    place: str  # Such as `layers.2.kernel`.
    a: Norms | None = None  # In the first run, if they were recorded.
    b: Norms | None = None
    status: str = DIFFERENT  # Or `WITHIN`.
    # Where both runs kept snapshots.
    exact: ArrayDifference | None = None


@dataclass(frozen=True)
class Mismatch:
    """Where two runs that should be equal differ first.

    Args:
        moment: When, in words: `"initial state"`, `"epoch 3, batch 10"`.
        epoch: The epoch, counted from 0, or `None` for the start.
        batch: The batch, or `None` at the end of an epoch.
        roles: What differs, the first difference in front: `"identity"`,
            `"data"`, `"random"`, `"weights"`, `"optimizer"`, `"metrics"`,
            `"records"`.
        places: The variables, metrics or parts of the identity that differ.
        agreed: What of this moment was still equal, in words.
        details: More on single places, in words.
        previous: The last moment at which all was equal, or `None`.
        differences: The variables that differ, with their sizes.
    """

    moment: str
    epoch: int | None
    batch: int | None
    roles: tuple[str, ...]
    places: tuple[str, ...]
    agreed: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    previous: str | None = None
    differences: tuple[VariableDifference, ...] = ()

    @property
    def role(self) -> str:
        """The role that differs first; `"initial state"` before any step."""
        if self.roles[0] in {"identity", "records"} or self.epoch is not None:
            return self.roles[0]
        return "initial state"

    def __str__(self) -> str:
        """A few lines for a terminal."""
        lines = [f"First mismatch at: {self.moment}"]
        lines.append(f"  differs: {', '.join(self.roles)}")
        lines.append(f"  places:  {shorten(self.places, _SHOWN)}")
        lines += [f"           {detail}" for detail in self.details[:_SHOWN]]
        lines.append(f"  agreed:  {', '.join(self.agreed) or 'nothing'}")
        if self.previous is not None:
            lines.append(f"  all equal until: {self.previous}")
        return "\n".join(lines)


def compare_identities(
    reference: RunHeader, header: RunHeader
) -> Mismatch | None:
    """Compare what two runs are, before what they did."""
    ours, theirs = dict(header.identity), dict(reference.identity)
    keys = sorted({*ours, *theirs}, key=_position)
    places = tuple(
        key
        for key in keys
        if ours.get(key) != theirs.get(key)
        and not _is_unknown(key, ours.get(key), theirs.get(key))
    )
    if not places:
        return None
    return Mismatch(
        moment="start",
        epoch=None,
        batch=None,
        roles=("identity",),
        places=places,
        agreed=tuple(key for key in keys if key not in places),
        details=(
            *(
                f"{_WORDS.get(key, key)}: {ours.get(key)}, "
                f"not {theirs.get(key)}"
                for key in places
            ),
            *compare_settings("compile", reference.compile, header.compile),
            *compare_settings("data", reference.data, header.data),
        ),
    )


def _is_unknown(key: str, ours: Any, theirs: Any) -> bool:
    """Whether one run cannot say what it was fed: no sign of a difference."""
    return key in ("data", "fit") and not (ours and theirs)


def compare_settings(
    prefix: str, reference: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[str]:
    """Tell in words which entries of two nested settings differ."""
    for key, was, now in list_differing(reference, settings):
        yield f"{prefix}.{key}: {now}, not {was}"


def compare_records(
    reference: RunRecord,
    record: RunRecord,
    *,
    previous: str | None = None,
    tolerance: Tolerance | None = None,
    outlines: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> Mismatch | None:
    """Compare two records of the same moment."""
    if _are_alike(reference, record):
        return None
    differing: dict[str, list[str]] = {}
    agreed: list[str] = []
    for role in ("data", *ROLES):
        places, total = _compare_role(role, reference, record)
        if places:
            differing[role] = places
        if total > len(places):
            agreed.append(f"{role} ({total - len(places)} of {total})")
    if not differing:
        return None
    measure = _Measure(tolerance or Tolerance(), outlines or {})
    return Mismatch(
        moment=record.moment,
        epoch=record.epoch,
        batch=record.batch,
        roles=tuple(differing),
        places=tuple(place for group in differing.values() for place in group),
        agreed=tuple(agreed),
        details=tuple(_metric_details(reference, record)),
        previous=previous,
        differences=tuple(measure.differences(reference, record, differing)),
    )


def is_within(
    mismatch: Mismatch,
    reference: RunRecord,
    record: RunRecord,
    tolerance: Tolerance,
) -> bool:
    """Whether all that differs between two records is within a tolerance."""
    measured = {one.place for one in mismatch.differences}
    metrics = {
        _metric_place(name)
        for name in set(record.metrics) & set(reference.metrics)
        if tolerance.covers(reference.metrics[name], record.metrics[name])
    }
    return all(one.status == WITHIN for one in mismatch.differences) and all(
        place in measured or place in metrics for place in mismatch.places
    )


def pair_places(
    reference: Variables, record: Variables, role: str
) -> list[tuple[str, str | None, str | None]]:
    """Pair the variables of a role in two records, by place or position."""
    theirs, ours = reference.get(role, {}), record.get(role, {})
    if theirs.keys() == ours.keys():
        return [(place, place, place) for place in theirs]
    if len(theirs) == len(ours):  # A renamed variable is the same variable.
        return [(a, a, b) for a, b in zip(theirs, ours, strict=True)]
    every = dict.fromkeys([*theirs, *ours])
    return [
        (
            place,
            place if place in theirs else None,
            place if place in ours else None,
        )
        for place in every
    ]


def with_note(mismatch: Mismatch, note: str) -> Mismatch:
    """Add a line to a mismatch."""
    return replace(mismatch, details=(*mismatch.details, note))


def _are_alike(reference: RunRecord, record: RunRecord) -> bool:
    """A quick look, which settles nearly all records of equal runs."""
    return (
        reference.variables == record.variables
        and reference.streams == record.streams
        and reference.fed == record.fed
        and list(reference.metrics) == list(record.metrics)
        and _bits(reference.metrics) == _bits(record.metrics)
    )


def _compare_role(
    role: str, reference: RunRecord, record: RunRecord
) -> tuple[list[str], int]:
    """The places of a role that differ, and how many were compared."""
    pairs: dict[str, tuple[str | None, str | None]] = {}
    if role == "data":
        if None not in (reference.fed, record.fed):
            pairs["samples fed"] = reference.fed, record.fed
    elif not _is_incomplete(role, reference, record):
        theirs = reference.variables.get(role, {})
        ours = record.variables.get(role, {})
        for place, a, b in pair_places(
            reference.variables, record.variables, role
        ):
            if reference.epoch is None and None in (a, b):
                continue  # Built in the first step: nothing to compare yet.
            pairs[place] = (
                None if a is None else theirs[a],
                None if b is None else ours[b],
            )
    if role == "random" and None not in (record.streams, reference.streams):
        pairs["random streams"] = reference.streams, record.streams
    if role == "metrics":
        shared = set(record.metrics) & set(reference.metrics)
        theirs, ours = _bits(reference.metrics), _bits(record.metrics)
        for name in record.metrics:
            if name in shared:
                place = _metric_place(name)
                pairs[place] = theirs[place], ours[place]
    places = [place for place, (a, b) in pairs.items() if a != b]
    return places, len(pairs)


def _is_incomplete(role: str, reference: RunRecord, record: RunRecord) -> bool:
    """Whether a role's variables say nothing about two records."""
    if role != "metrics":
        # A first `fit` builds the optimizer, and on some backends the layers,
        # only after it has begun; a later one finds them there.
        return reference.epoch is None and not (
            reference.variables.get(role) and record.variables.get(role)
        )
    # Metrics still hold at the start what came before, and each epoch resets
    # them; and where one run has other metrics, their variables are others.
    return reference.epoch is None or set(record.metrics) != set(
        reference.metrics
    )


@dataclass(frozen=True)
class _Measure:
    """How far apart the variables of two records are, by their norms."""

    tolerance: Tolerance
    outlines: Mapping[tuple[str, str], Mapping[str, Any]]

    def differences(
        self,
        reference: RunRecord,
        record: RunRecord,
        differing: Mapping[str, list[str]],
    ) -> Iterator[VariableDifference]:
        for role in ROLES:
            wanted = set(differing.get(role, ()))
            if not wanted:
                continue
            for place, a, b in pair_places(
                reference.variables, record.variables, role
            ):
                if place in wanted:
                    yield self._difference(
                        role,
                        place,
                        _find_norms(reference, role, a),
                        _find_norms(record, role, b),
                    )

    def _difference(
        self, role: str, place: str, a: Norms | None, b: Norms | None
    ) -> VariableDifference:
        within = (
            a is not None and b is not None and self._covers(role, place, a, b)
        )
        return VariableDifference(
            role=role,
            place=place,
            a=a,
            b=b,
            status=WITHIN if within else DIFFERENT,
        )

    def _covers(self, role: str, place: str, a: Norms, b: Norms) -> bool:
        if not self.tolerance or role == "random":
            return False
        outline = self.outlines.get((role, place), {})
        if str(outline.get("dtype", "float32")).startswith(_EXACT_DTYPES):
            return False
        size = math.prod(outline.get("shape", ()))
        return self.tolerance.covers_norms(a, b, size)


def _find_norms(
    record: RunRecord, role: str, place: str | None
) -> Norms | None:
    return None if place is None else record.norms.get(role, {}).get(place)


def _metric_place(name: str) -> str:
    return f"metric {name!r}"


def _bits(metrics: Mapping[str, float]) -> dict[str, str]:
    """Metrics by place as exact bits, so that NaN equals NaN, 0.0 not -0.0."""
    return {
        _metric_place(name): (
            "nan" if math.isnan(value) else struct.pack("<d", value).hex()
        )
        for name, value in metrics.items()
    }


def _metric_details(reference: RunRecord, record: RunRecord) -> Iterator[str]:
    ours, theirs = _bits(record.metrics), _bits(reference.metrics)
    for name in record.metrics:
        place = _metric_place(name)
        if place in theirs and ours[place] != theirs[place]:
            value, other = record.metrics[name], reference.metrics[name]
            yield f"{name} is {value!r}, was {other!r}"


def _position(key: Any) -> tuple[int, str]:
    """Known parts of the identity first, in their usual order."""
    known = list(_WORDS)
    rank = known.index(key) if key in known else len(known)
    return rank, str(key)
