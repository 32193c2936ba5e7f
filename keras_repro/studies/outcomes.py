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
    """Where the trainings of a trial are backed up, and how often.

    Args:
        folder: The folder of this trial alone.
        save_freq: As in `BackupAndRestore`.
    """

    folder: str
    save_freq: str | int


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """One trial that is to be run.

    Args:
        seed: Its seed.
        vary: What the seed moves.
        after: A seed that a worker which has run no trial begins with.
        ticket: Of this very sending, so that its answer is known from others.
        backups: Of its trainings, if there are to be any.
    """

    seed: int
    vary: str
    after: int | None = None
    ticket: int = 0
    backups: TrialBackups | None = None


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """What is kept of a trial: the schema of its line too.

    Args:
        seed: Its seed.
        scores: What `train` returned, by name; empty if it raised.
        checksum: Checksum of the trained model.
        seconds: How long it took, from its reset to the end of `train`.
        worker: Where it ran, as `host:process`.
        runs: Ids of the runs that it recorded.
        status: Empty if all went well; `RAISED` if `train` raised; `MISUSE`
            if what it returned is no score.
        error: What went wrong, on one line.
        traceback: Where.
        examples: Losses per test example, by the name of the score that is
            their mean; empty where there are none.
    """

    seed: Seed
    scores: Mapping[str, Number]
    checksum: str
    seconds: Number
    worker: str
    runs: tuple[str, ...]
    status: Status
    error: str
    traceback: str
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
    """What a trial gave.

    Args:
        lines: The runs that it recorded, as lines of a run's file.
        environment: Of the worker, with the first outcome from it.
    """

    lines: tuple[str, ...] = ()
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
    """The losses per test example, a row for each trial; NaN where it has none.

    Raises:
        ValueError: If two trials have losses of another number of examples.
    """
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
    """A worker that can run no trial of this study.

    Args:
        worker: Which.
        reason: Why, and what to do.
    """

    worker: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """What a worker answers.

    Args:
        task: Which it was given.
        content: What came of it.
    """

    task: TrialTask
    content: TrialOutcome | Unfit
