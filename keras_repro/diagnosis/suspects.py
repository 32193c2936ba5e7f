"""What an audit saw that could make two processes differ, the likeliest first.

Seen is not shown: a candidate becomes a cause only by an experiment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keras_repro.diagnosis import causes
from keras_repro.watching.observations import (
    CLOCK,
    DRAW,
    ENTROPY,
    LISTING,
    OP,
    PARALLEL,
    PROCESS,
    READ,
    SEED,
    THREADS,
    WRITE,
    Note,
)

LIKELY, POSSIBLE, UNLIKELY = 2, 1, 0
# What can be kept fixed. The rest of a name says which of its kind.
HASH, FILES, WORKERS, KERNELS = "hash", "files", "workers", "tensorflow"
CHILDREN = "children"
DETERMINISTIC, ONE_THREAD, NO_SHUFFLE = "deterministic", "threads", "shuffle"
# A process that holds one of these computes something else, so two such
# processes must be compared with each other.
INEXACT = frozenset(
    {KERNELS, CHILDREN, WORKERS, DETERMINISTIC, ONE_THREAD, NO_SHUFFLE}
)
# What these keep fixed may agree by luck without them.
RACING = frozenset({WORKERS, DETERMINISTIC, ONE_THREAD})
# In this order they are kept as the cause where several would do.
_PREFERENCE = (
    "environment",
    *("python", "numpy", "torch", KERNELS, "entropy", "seeds"),
    *("thread_counts", FILES, HASH, "process", "clock", CHILDREN, WORKERS),
    *(DETERMINISTIC, ONE_THREAD, NO_SHUFFLE),
)
_IDENTIFIERS = ("uuid.uuid4", "uuid.uuid1", "secrets")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something that could make two processes differ."""

    hold: str  # How it is kept fixed.
    kind: str  # The kind of cause that it would be.
    weight: int  # `LIKELY`, `POSSIBLE` or `UNLIKELY`.
    # What the audit saw of it in the first process, in order.
    notes: tuple[Note, ...] = ()
    # What was given here in each of the processes, as text.
    values: tuple[str, ...] = ()

    @property
    def places_to_try(self) -> tuple[str, ...]:
        """The places of which one must be told from the others, if any."""
        places = tuple(dict.fromkeys(one.place for one in self.notes))
        has_keras_first = self.notes[:1] and self.notes[0].site.library in (
            "keras",
            "tensorflow",
            "torch",
        )
        is_generator = self.kind in (causes.UNSEEDED, causes.SEEDED_TOO_LATE)
        if len(places) < 2 or has_keras_first or not is_generator:
            return ()
        return places

    @property
    def rank(self) -> tuple[int, int]:
        """A key: those to be kept as the cause come first."""
        return rank_hold(self.hold), -self.weight


def rank_hold(hold: str) -> int:
    """Where a hold stands among those that would do as well."""
    return _PREFERENCE.index(hold.partition(" ")[0])


def is_exact(holds: Iterable[str]) -> bool:
    """Whether a process that holds these repeats an earlier one bit for bit."""
    return not INEXACT.intersection(holds)


def find_candidates(
    # What was noted in each of them.
    processes: Sequence[Sequence[Note]],
    *,
    is_hash_fixed: bool,
    # What was noted in the processes below the first.
    below: Sequence[Sequence[Note]] = (),
) -> list[Candidate]:
    """Find what could make some processes of a script differ."""
    first, second = processes[0], processes[1]
    found = [
        *_find_draws(first),
        *_find_entropy(first),
        *_find_values(first, second),
        *_find_files(processes),
        *_find_below(below),
        *_find_workers(first),
    ]
    if not is_hash_fixed:
        found.append(
            Candidate(hold=HASH, kind=causes.HASH_ORDER, weight=POSSIBLE)
        )
    return sorted(found, key=lambda one: (-one.weight, one.rank))


def last_resorts(notes: Sequence[Note]) -> list[Candidate]:
    """What is kept fixed where all that was seen is not enough."""
    ops = tuple(one for one in notes if one.kind == OP)
    # One thread also ends the race of a kernel that no switch makes
    # deterministic.
    threads = causes.NONDETERMINISTIC_OP if ops else causes.THREAD_COUNT
    return [
        Candidate(hold=hold, kind=kind, weight=UNLIKELY, notes=seen)
        for hold, kind, seen in (
            (DETERMINISTIC, causes.NONDETERMINISTIC_OP, ops),
            (ONE_THREAD, threads, ops),
            (NO_SHUFFLE, causes.UNSEEDED, ()),
        )
    ]


def _find_draws(notes: Sequence[Note]) -> Iterator[Candidate]:
    """Global generators that were drawn from before anybody seeded them."""
    drawn = _by(notes, DRAW)
    for generator, sites in drawn.items():
        by_program = [one for one in sites if not one.site.is_importing]
        used = tuple(by_program or sites)
        seeded = any(
            one.kind == SEED
            and one.detail == generator
            and one.order > used[0].order
            for one in notes
        )
        yield Candidate(
            hold=generator,
            kind=causes.SEEDED_TOO_LATE if seeded else causes.UNSEEDED,
            weight=LIKELY if by_program else UNLIKELY,
            notes=used,
        )


def _find_entropy(notes: Sequence[Note]) -> Iterator[Candidate]:
    """Fresh entropy, place by place."""
    for note in notes:
        if note.kind != ENTROPY:
            continue
        weight = POSSIBLE if note.name in _IDENTIFIERS else LIKELY
        if note.site.is_importing or note.site.library == "tempfile":
            weight = UNLIKELY
        yield Candidate(
            hold=f"entropy {note.name} {note.place}",
            kind=causes.ENTROPY,
            weight=weight,
            notes=(note,),
        )


def _find_below(below: Sequence[Sequence[Note]]) -> Iterator[Candidate]:
    """What processes below draw, which is held in all of them at once."""
    # Which one gets which task races, so they have no places of their own.
    drawn = [
        one
        for notes in below
        for one in (*_find_draws(notes), *_find_entropy(notes))
        if one.weight > UNLIKELY
    ]
    if drawn:
        likeliest = min(drawn, key=lambda c: (-c.weight, c.notes[0].order))
        yield replace(likeliest, hold=CHILDREN, notes=likeliest.notes[:1])


_VALUES = {
    SEED: ("seeds", causes.VARYING_SEED, LIKELY),
    THREADS: ("thread_counts", causes.THREAD_COUNT, LIKELY),
    PROCESS: ("process", causes.ENTROPY, POSSIBLE),
    CLOCK: ("clock", causes.CLOCK, POSSIBLE),
}


def _find_values(
    first: Sequence[Note], second: Sequence[Note]
) -> Iterator[Candidate]:
    """Values that a process can be given again, place by place."""
    others = {(one.kind, one.name, one.place): one for one in second}
    found: dict[str, Candidate] = {}
    for note in first:
        other = others.get((note.kind, note.name, note.place))
        if note.kind not in _VALUES or other is None:
            continue
        if note.kind in (SEED, THREADS) and other.values == note.values:
            continue
        kind, cause, weight = _VALUES[note.kind]
        hold = f"{kind} {note.place}"
        candidate = Candidate(
            hold=hold,
            kind=cause,
            weight=weight,
            notes=(note,),
            values=(*note.values[:1], *other.values[:1]),
        )
        found.setdefault(hold, candidate)
    yield from found.values()


def _find_files(
    processes: Sequence[Sequence[Note]],
) -> Iterator[Candidate]:
    """Files that a process read and an earlier one had written."""
    written: set[str] = set()
    by_each: list[set[str]] = []
    found: list[Note] = []
    for notes in processes:
        own: set[str] = set()
        for note in notes:
            if note.kind == WRITE:
                own.add(note.name)
            elif _is_left(note, written) and note.name not in own:
                found.append(note)
        written |= own
        by_each.append(own)
    by_program = [one for one in found if not one.site.is_importing]
    if found:
        yield Candidate(
            hold=FILES,
            kind=causes.EXTERNAL_STATE,
            weight=LIKELY if by_program else POSSIBLE,
            notes=tuple(by_program or found),
        )
        return
    # What was written under one name each time may be read where nobody sees.
    again = {path for path in set.intersection(*by_each) if Path(path).exists()}
    writes = tuple(
        one for one in processes[0] if one.kind == WRITE and one.name in again
    )
    if writes:
        yield Candidate(
            hold=FILES,
            kind=causes.EXTERNAL_STATE,
            weight=POSSIBLE,
            notes=writes,
        )


def _is_left(note: Note, written: set[str]) -> bool:
    """Whether a note is of reading what an earlier process wrote."""
    if note.kind == READ:
        return note.name in written
    if note.kind != LISTING:
        return False
    return any(str(Path(path).parent) == note.name for path in written)


def _find_workers(notes: Sequence[Note]) -> Iterator[Candidate]:
    found = [one for one in notes if one.kind == PARALLEL]
    if not found:
        return
    in_order = all(one.detail == "in order" for one in found)
    found.sort(key=lambda one: one.detail == "in order")
    yield Candidate(
        hold=WORKERS,
        kind=causes.PARALLEL_LOADING,
        weight=POSSIBLE if in_order else LIKELY,
        notes=tuple(found),
    )


def _by(notes: Sequence[Note], kind: str) -> dict[str, list[Note]]:
    found: dict[str, list[Note]] = defaultdict(list)
    for note in notes:
        if note.kind == kind:
            found[note.name].append(note)
    return found
