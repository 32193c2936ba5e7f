"""Do other workers give the same? Trials repeated, their checksums compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_repro.common.text import clean, join_words
from keras_repro.environment.differences import find_differences
from keras_repro.studies.outcomes import (
    TrialLine,
    TrialOutcome,
    TrialTask,
)
from keras_repro.trials.executors import PoolEngine

_MAY_MATTER = 2
_MOST_DIFFERENCES = 4
# How many of each trial are sent at once, as long as they say nothing. The
# executor may give one to the worker that it took before; of two at once
# another worker gets one, if there is one.
_ROUNDS = (1, 2, 2)

Pair = tuple[TrialLine, TrialOutcome]


def check_elsewhere(
    engine: PoolEngine,
    outcomes: Sequence[TrialLine],
    share: float,
    vary: str,
    environments: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """Repeat a share of the trials, each on another worker than before."""
    known = dict(environments)
    pairs = _repeat(engine, choose_trials(outcomes, share), vary, known)
    num_same = sum(one.worker == other.worker for one, other in pairs)
    if num_same:
        yield (
            f"{num_same} of {len(pairs)} repeated trials ran where they had "
            "run before: the executor gave them to no other worker. They say "
            "nothing of other machines."
        )
    different = [pair for pair in pairs if not _agree(*pair)]
    for pair in different:
        yield _say_mismatch(*pair)
    if not different:
        return
    yield from _name_worker(pairs, different)
    one, other = different[0][0].worker, different[0][1].worker
    if one in known and other in known:
        yield from tell_differences(one, known[one], other, known[other])


def _repeat(
    engine: PoolEngine,
    chosen: Sequence[TrialLine],
    vary: str,
    known: dict[str, Mapping[str, Any]],
) -> list[Pair]:
    """Repeat trials; again, a few times, what came to the same worker."""
    engine.renew()
    first = {one.seed: one for one in chosen}
    again: dict[int, TrialOutcome] = {}
    left = list(first)
    for copies in _ROUNDS:
        tasks = [
            # A worker that has run none begins with another seed, also where
            # one is repeated alone: what depends on the seed that came first,
            # such as a constant of a compiled function, shows.
            TrialTask(seed=seed, vary=vary, after=seed ^ 1)
            for seed in left
            for _ in range(copies)
        ]
        for outcome in engine.run(tasks):
            if outcome.environment is not None:
                known[outcome.worker] = outcome.environment
            if _says_nothing(first[outcome.seed], again.get(outcome.seed)):
                again[outcome.seed] = outcome
        left = [one for one in left if _says_nothing(first[one], again[one])]
        if not left:
            break
    return [(first[seed], again[seed]) for seed in sorted(first)]


def _says_nothing(one: TrialLine, other: TrialOutcome | None) -> bool:
    """Whether a trial has not been repeated, or where it ran before."""
    if other is None:
        return True
    return one.worker == other.worker and _agree(one, other)


def choose_trials(
    outcomes: Sequence[TrialLine], share: float
) -> list[TrialLine]:
    """Choose trials, spread evenly over the study."""
    number = min(math.ceil(share * len(outcomes) - 1e-9), len(outcomes))
    return [
        outcomes[(2 * place + 1) * len(outcomes) // (2 * number)]
        for place in range(number)
    ]


def tell_differences(
    one: str,
    environment: Mapping[str, Any],
    other: str,
    other_environment: Mapping[str, Any],
) -> Iterator[str]:
    """In what two workers differ that is likely to change results."""
    found = [
        difference
        for difference in find_differences(environment, other_environment)
        if difference.weight >= _MAY_MATTER
    ]
    for difference in found[:_MOST_DIFFERENCES]:
        yield (
            f"Worker {other} differs from worker {one}: `{difference.key}` is "
            f"{clean(difference.b, 60)} there, not {clean(difference.a, 60)}. "
            f"{difference.sentence}"
        )


def _agree(one: TrialLine, other: TrialLine) -> bool:
    return not other.status and one.checksum == other.checksum


def _say_mismatch(one: TrialLine, other: TrialLine) -> str:
    found = clean(other.error) if other.status else clean(other.checksum)
    return (
        f"Seed {one.seed} gave {clean(one.checksum)} on worker {one.worker} "
        f"and {found} on worker {other.worker}: they compute differently, or "
        "`train` depends on more than its seed. `keras-repro verify` and "
        "`diagnose` find out why."
    )


def _name_worker(
    pairs: Sequence[Pair], different: Sequence[Pair]
) -> Iterator[str]:
    """Name the worker that differs from several others which agree."""
    partners: dict[str, set[str]] = defaultdict(set)
    for one, other in different:
        partners[one.worker].add(other.worker)
        partners[other.worker].add(one.worker)
    agreeing = {
        outcome.worker
        for pair in pairs
        if pair not in different
        for outcome in pair
    }
    for worker, others in sorted(partners.items()):
        in_all = all(
            worker in (one.worker, other.worker) for one, other in different
        )
        if (
            in_all
            and worker not in agreeing
            and (len(others) > 1 or others <= agreeing)
        ):
            yield (
                f"Worker {worker} computes differently from "
                f"{join_words(sorted(others))}: it is in every mismatch "
                f"({len(different)} of {len(pairs)} repeated trials)."
            )
