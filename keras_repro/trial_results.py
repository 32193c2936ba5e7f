"""What a study gave: a score per seed and metric, and how the trials went.

Plain values that know how to sum themselves up. `trials.py` makes them,
`trial_comparisons.py` compares two of them.
"""

from __future__ import annotations

import csv
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_repro.phrases import clean
from keras_repro.plain import to_plain
from keras_repro.trial_phrases import say_seeds
from keras_repro.trial_summaries import (
    Rank,
    TrialSummary,
    find_metric,
    find_places,
    make_columns,
    rank_score,
    summarize_scores,
)

if TYPE_CHECKING:
    from keras_repro.runs import Run

FORMAT = "keras_repro.trial_results/1"

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """A trial whose training raised.

    Args:
        seed: Its seed.
        error: Type and message, such as `"ValueError: ..."`.
        traceback: Where it was raised, as Python prints it; may be empty.
    """

    seed: int
    error: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResults:
    """What a study gave: trials are runs that differ only in their seed.

    Args:
        seeds: The seeds of the trials that finished, in the study's order.
        scores: By name, one score per trial, shape `(num_trials,)`; NaN where
            a trial gave none.
        checksums: Checksum of each trained model; empty if unknown.
        seconds: How long each trial took, shape `(num_trials,)`, or `None`.
        workers: Where each trial ran; empty if unknown.
        failures: The trials that raised.
        notes: What else there is to say.
        name: The name of the study, or `None`.
        vary: What the seeds moved: `"all"`, `"initial"`, `"order"` or
            `"random"`.
        run_source: Loads the recorded runs of each trial, or `None`.

    Raises:
        ValueError: If seeds are negative, too large or repeated, or if there
            is not one value for each seed.
        TypeError: If a seed is not an integer.

    Example:
        >>> results = TrialResults(
        ...     seeds=range(5),
        ...     scores={"rmse": [19.1, 18.2, 19.9, 18.8, 19.0]},
        ...     name="none",
        ... )
        >>> print(results)
        5 trials, seeds 0 to 4 (none)
        <BLANKLINE>
               mean    95% interval   std  median    iqm    min    max
        rmse  19.00  [18.27, 19.79]  0.61   19.00  18.97  18.20  19.90
        >>> results.rank(1).rank
        1.0
        >>> results.typical_seed()
        4
    """

    seeds: tuple[int, ...]
    scores: Mapping[str, Scores]
    checksums: tuple[str, ...] = ()
    seconds: Scores | None = None
    workers: tuple[str, ...] = ()
    failures: tuple[TrialFailure, ...] = ()
    notes: tuple[str, ...] = ()
    name: str | None = None
    vary: str = "all"
    run_source: Callable[[], tuple[tuple[Run, ...], ...]] | None = field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        seeds = check_seeds(self.seeds)
        scores = {
            str(name): _freeze(values, f"scores[{name!r}]", len(seeds))
            for name, values in self.scores.items()
        }
        seconds = self.seconds
        if seconds is not None:
            seconds = _freeze(seconds, "seconds", len(seeds))
        fields: dict[str, Any] = {
            "seeds": seeds,
            "scores": scores,
            "seconds": seconds,
        }
        for name in ("checksums", "workers", "failures", "notes"):
            fields[name] = tuple(getattr(self, name))
        for name in ("checksums", "workers"):
            if fields[name] and len(fields[name]) != len(seeds):
                raise _wrong_length(name, len(fields[name]), len(seeds))
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def num_trials(self) -> int:
        """How many trials finished."""
        return len(self.seeds)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores."""
        return tuple(self.scores)

    @cached_property
    def runs(self) -> tuple[tuple[Run, ...], ...]:
        """The recorded runs of each trial, loaded when first asked for."""
        if self.run_source is None:
            return ((),) * self.num_trials
        return tuple(map(tuple, self.run_source()))

    def summary(
        self,
        metric: str | None = None,
        *,
        confidence_level: float = 0.95,
        num_resamples: int | None = None,
        seed: int = 0,
    ) -> TrialSummary:
        """Sum the scores up.

        Args:
            metric: The name of one score; `None` for all of them.
            confidence_level: Share of such intervals that should cover the
                mean over all seeds, strictly between 0 and 1.
            num_resamples: How many resamples to draw for the interval.
            seed: Seed of the resampling alone.

        Raises:
            ValueError: If there is no such metric.
        """
        names = self.metrics if metric is None else [find_metric(self, metric)]
        return TrialSummary(
            results=self,
            confidence_level=confidence_level,
            metrics={
                name: summarize_scores(
                    self.scores[name],
                    confidence_level=confidence_level,
                    num_resamples=num_resamples,
                    seed=seed,
                )
                for name in names
            },
        )

    def rank(self, seed: int, metric: str | None = None) -> Rank:
        """Say where one trial stands among all.

        Args:
            seed: The seed of the trial.
            metric: The name of the score; `None` for the first one.

        Raises:
            ValueError: If the trial or the metric is unknown, or if its score
                is not finite.
        """
        (place,) = find_places(self, [seed])
        return rank_score(self, place, find_metric(self, metric))

    def typical_seed(self, metric: str | None = None) -> int:
        """The seed whose score is closest to the median; the first of these.

        Args:
            metric: The name of the score; `None` for the first one.

        Raises:
            ValueError: If the metric is unknown or has no finite score.
        """
        name = find_metric(self, metric)
        scores = self.scores[name]
        finite = np.isfinite(scores)
        if not finite.any():
            raise ValueError(
                f"At least one score must be finite. Received: {len(scores)} "
                f"trials, none with a finite `{clean(name)}`. Ask for another "
                "metric."
            )
        distances = np.abs(scores - np.median(scores[finite]))
        return self.seeds[int(np.argmin(np.where(finite, distances, np.inf)))]

    def select(self, seeds: Iterable[int]) -> TrialResults:
        """The results of some of the trials, in the order given.

        Args:
            seeds: Their seeds.

        Returns:
            Results of these trials; failures of others are left out.

        Raises:
            ValueError: If no trial with such a seed finished.
        """
        chosen = check_seeds(seeds)
        places = find_places(self, chosen)
        source = self.run_source
        return replace(
            self,
            seeds=chosen,
            scores={name: one[places] for name, one in self.scores.items()},
            seconds=None if self.seconds is None else self.seconds[places],
            checksums=tuple(
                self.checksums[one] for one in places if self.checksums
            ),
            workers=tuple(self.workers[one] for one in places if self.workers),
            failures=(),
            run_source=source and partial(_pick_runs, self, places),
        )

    def plot(self, metric: str | None = None) -> Any:
        """Draw the scores, their mean with its interval, and the median.

        Args:
            metric: The name of one score; `None` for all of them.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ValueError: If there is no such metric.
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        from keras_repro.trial_plots import plot_summary

        return plot_summary(self.summary(metric))

    def to_csv(self, path: str | Path) -> None:
        """Write a line per trial: seed, scores, seconds, checksum, worker.

        Args:
            path: The file. Floats read back to the same bits; what is unknown
                is left empty.
        """
        columns = make_columns(self)
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                writer.writerow(
                    repr(one) if isinstance(one, float) else one for one in row
                )

    def to_json(self, path: str | Path | None = None) -> dict[str, Any]:
        """The results as plain values that strict JSON can hold.

        Args:
            path: A file to write them to as well, or `None`.
        """
        seconds = None if self.seconds is None else self.seconds.tolist()
        scores = {name: one.tolist() for name, one in self.scores.items()}
        plain: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "vary": self.vary,
            "seeds": list(self.seeds),
            "scores": to_plain(scores),
            "seconds": to_plain(seconds),
            "checksums": list(self.checksums),
            "workers": list(self.workers),
            "failures": to_plain(self.failures),
            "notes": list(self.notes),
        }
        if path is not None:
            text = json.dumps(plain, indent=1, allow_nan=False)
            Path(path).write_text(f"{text}\n", "utf-8")
        return plain

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame` with a row per trial, columns as in `to_csv`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`to_dataframe` needs pandas, which is not installed. Install "
                "it with `pip install pandas`."
            ) from error
        return pd.DataFrame(make_columns(self))

    def __str__(self) -> str:
        """What a terminal shows."""
        return str(self.summary())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from keras_repro.trial_pages import write_results_fragment

        return write_results_fragment(self)


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as a tuple of different integers.

    Args:
        seeds: Integers from 0 to 2**32 - 1, each once.

    Raises:
        ValueError: If one is out of range or there twice.
        TypeError: If one is not an integer.

    Example:
        >>> check_seeds(range(3))
        (0, 1, 2)
    """
    advice = "Give each trial its own seed, for example `range(30)`."
    try:
        found = tuple(map(operator.index, seeds))
    except TypeError as error:
        raise TypeError(
            f"`seeds` must hold integers. Received: {clean(repr(seeds))}. "
            f"{advice}"
        ) from error
    wrong = [one for one in found if not 0 <= one < 2**32]
    if wrong:
        raise ValueError(
            "`seeds` must lie between 0 and 2**32 - 1. "
            f"Received: {say_seeds(wrong)}. {advice}"
        )
    if len(set(found)) < len(found):
        twice = [one for one, times in Counter(found).items() if times > 1]
        raise ValueError(
            "`seeds` must differ from each other. Received more than once: "
            f"{say_seeds(twice)}. {advice}"
        )
    return found


def _pick_runs(
    results: TrialResults, places: list[int]
) -> tuple[tuple[Run, ...], ...]:
    """No lambda, so that what is selected can be pickled."""
    return tuple(results.runs[place] for place in places)


def _freeze(values: Any, name: str, length: int) -> Scores:
    """A copy that nobody changes."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{clean(name)}` must hold numbers. Received: "
            f"{clean(repr(values))}. Give one for each seed."
        ) from error
    if array.shape != (length,):
        raise _wrong_length(name, array.shape, length)
    array.flags.writeable = False
    return array


def _wrong_length(name: str, received: object, length: int) -> ValueError:
    return ValueError(
        f"`{clean(name)}` must hold one value for each of {length} seeds. "
        f"Received: {received}. Give NaN where a trial has none."
    )
