"""What a verification or a diagnosis found: whether runs agree, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_repro.common.json import to_plain
from keras_repro.diagnosis.causes import Cause
from keras_repro.diagnosis.documents import (
    describe_diagnosis,
    describe_verification,
    picture_diagnosis,
    say_amounts,
    say_unwatched,
)
from keras_repro.diagnosis.first_mismatch import FirstMismatch
from keras_repro.reports.document import Document
from keras_repro.reports.figures import plot
from keras_repro.reports.result import Described, Result

EQUAL, DIFFERENT, SKIPPED, NOT_REACHED = "equal", "different", "-", ""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One question of a diagnosis, from cheap to dear."""

    name: str  # What is compared.
    # `"equal"`, `"different"`, `"-"` where it does not apply, or empty where
    # the diagnosis stopped before.
    status: str = NOT_REACHED
    told: str = ""  # More, in words.
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Result):
    """Whether a training is reproducible, and if not, at which rung and why.

    Args:
        reproducible: Whether it is equal on all rungs that apply.
        rungs: The rungs, from cheap to dear; none after the first that
            differs was climbed.
        first_mismatch: Where two calls first differ, or `None`.
        causes: What an experiment has shown, the most certain first.
        suspects: What was only seen.
        traps: What is repeatable, and wrong nevertheless.
        unwatched: What `train` started in other processes that may have
            trained there, which was not compared.
        num_calls: How many calls of models were compared.
        num_epochs: How many epochs were recorded in them.
        seconds: How long the diagnosis took.
    """

    reproducible: bool
    rungs: tuple[Rung, ...]
    first_mismatch: FirstMismatch | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Cause, ...] = ()
    traps: tuple[Cause, ...] = ()
    unwatched: tuple[str, ...] = ()
    num_calls: int = 0
    num_epochs: int = 0
    seconds: float = 0.0

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        seconds = f"({self.seconds:.1f} s)"
        if self.first_mismatch is None and (
            self.reproducible or self.unwatched
        ):
            equal = f"equal on every rung, in {say_amounts(self)}"
            if not self.unwatched:
                return f"Reproducible: {equal} {seconds}."
            return (
                f"Equal as far as was watched: {equal} {seconds}; "
                f"{say_unwatched(self.unwatched)}."
            )
        rung = next(
            (one.name for one in self.rungs if one.status == DIFFERENT), ""
        )
        if not self.causes:
            return f"Not reproducible: {rung} differs {seconds}."
        kinds = ", ".join(dict.fromkeys(one.kind for one in self.causes))
        return f"Not reproducible: {rung} differs, by {kinds} {seconds}."

    def describe(self) -> Document:
        """All that the diagnosis says of itself."""
        return describe_diagnosis(self)

    def _list_values(self) -> dict[str, Any]:
        values: dict[str, Any] = to_plain(self)
        return values

    def plot(self) -> Any:
        """Draw the rungs as a ladder, with what was found beside it.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        return plot(picture_diagnosis(self))


@dataclass(frozen=True, kw_only=True)
class Verification(Described):
    """What a verification found.

    Args:
        reproducible: Whether all runs are bitwise equal, and all that may
            have trained was watched.
        first_mismatch: Where two of them first differ, or `None`.
        causes: What an experiment has shown to make them differ, the most
            certain first; empty where they are equal.
        suspects: What was only seen and could make them differ.
        traps: What is repeatable, and wrong nevertheless.
        harmless: What was kept fixed, or left free again, without any effect.
        unwatched: The processes that may have trained and were not watched:
            what they trained was not compared.
        unseen: What else the script used that cannot be seen.
        left: What the script left running, and was ended.
        num_calls: How many calls each run made of its models.
        num_epochs: How many epochs were recorded in them.
        num_processes: In how many processes they were made.
        num_runs: How many runs there were, experiments among them.
        seconds: How long it took.
        fixes: What was asked to be kept fixed in every run, in words.
    """

    reproducible: bool
    first_mismatch: FirstMismatch | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[Cause, ...] = ()
    traps: tuple[Cause, ...] = ()
    harmless: tuple[str, ...] = ()
    unwatched: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    num_calls: int = 0
    num_epochs: int = 0
    num_processes: int = 1
    num_runs: int = 2
    seconds: float = 0.0
    fixes: tuple[str, ...] = ()

    def describe(self) -> Document:
        """All that the verification says of itself."""
        return describe_verification(self)

    def _list_values(self) -> dict[str, Any]:
        values: dict[str, Any] = to_plain(self)
        return values
