"""What a trial gave, as it travels between processes and to disk."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from keras_repro.common.checks import MAX_SEED
from keras_repro.common.lines import Number, to_floats, to_named_floats

RAISED = "raised"
MISUSE = "misuse"
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Status = Annotated[str, Meta(pattern=rf"\A(|{RAISED}|{MISUSE})\Z")]


def name_worker() -> str:
    """Name this process among the workers of a study."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, kw_only=True)
class TrialBackups:
    """Where the trainings of a trial are backed up, and how often."""

    folder: str  # Of this trial alone.
    save_freq: str | int  # As in `BackupAndRestore`.


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """One trial that is to be run."""

    seed: int
    vary: str
    # A seed that a worker which has run no trial begins with.
    after: int | None = None
    # Of this very sending, so that its answer is known from others.
    ticket: int = 0
    backups: TrialBackups | None = None


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """What is kept of a trial: the schema of its line too."""

    seed: Seed
    scores: Mapping[str, Number]  # What `train` returned; empty if it raised.
    checksum: str  # Of the trained model.
    seconds: Number  # From its reset to the end of `train`.
    worker: str  # Where it ran, as `host:process`.
    runs: tuple[str, ...]  # Ids of those that it recorded.
    # Empty if all went well; `RAISED` if `train` raised; `MISUSE` if what it
    # returned is no score.
    status: Status
    error: str  # What went wrong, on one line.
    traceback: str
    # Losses per test example, by the name of the score that is their mean.
    examples: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make numbers of the words for NaN and the infinities."""
        object.__setattr__(self, "scores", to_named_floats(self.scores))
        [seconds] = to_floats([self.seconds])
        object.__setattr__(self, "seconds", seconds)
        names = to_named_floats(dict.fromkeys(self.examples, 0.0))
        losses = [tuple(to_floats(one)) for one in self.examples.values()]
        examples = dict(zip(names, losses, strict=True))
        object.__setattr__(self, "examples", examples)


@dataclass(frozen=True, kw_only=True)
class TrialOutcome(TrialLine):
    """What a trial gave."""

    # The runs that it recorded, as lines of a run's file.
    lines: tuple[str, ...] = ()
    # Of the worker, with the first outcome from it.
    environment: Mapping[str, Any] | None = None

    def to_line(self) -> TrialLine:
        """What of it is kept."""
        kept = {one.name: getattr(self, one.name) for one in fields(TrialLine)}
        return TrialLine(**kept)


def gather_scores(
    outcomes: Iterable[TrialLine],
) -> dict[str, npt.NDArray[np.float64]]:
    """The scores of trials that went well."""
    done = list(outcomes)
    names = dict.fromkeys(name for one in done for name in one.scores)
    return {
        name: np.array([one.scores.get(name, np.nan) for one in done])
        for name in names
    }


def gather_examples(
    outcomes: Iterable[TrialLine],
) -> dict[str, npt.NDArray[np.float64]]:
    """Losses per test example, a row for each trial; NaN where it has none."""
    done = list(outcomes)
    found = {}
    for name in dict.fromkeys(name for one in done for name in one.examples):
        sizes = {
            len(one.examples[name]) for one in done if name in one.examples
        }
        if len(sizes) > 1:
            raise ValueError(
                "`train` must return the losses of the same test examples "
                f"under each seed. Received: {name!r} of {min(sizes)} and of "
                f"{max(sizes)} examples. Evaluate all trials on one test set."
            )
        none = (math.nan,) * sizes.pop()
        found[name] = np.array([one.examples.get(name, none) for one in done])
    return found


@dataclass(frozen=True)
class Unfit:
    """A worker that can run no trial of this study."""

    worker: str
    reason: str  # Why, and what to do.


@dataclass(frozen=True)
class Answer:
    """What a worker answers."""

    task: TrialTask
    content: TrialOutcome | Unfit
