"""What a study gave: a score per seed and metric, and how the trials went.

Plain values that know how to sum themselves up. `trials/run.py` makes
them, `comparison.py` compares two of them.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_repro.common.checks import (
    MAX_SEED,
    MOST_TRIALS,
    check_flag,
    check_function,
    check_items,
    check_kind,
    check_name,
    check_path,
    check_seed,
    iterate,
    to_int,
    wrong_type,
    wrong_value,
)
from keras_repro.common.files import write_whole
from keras_repro.common.json import to_plain
from keras_repro.common.text import clean, describe
from keras_repro.reports.document import Document
from keras_repro.reports.result import Result
from keras_repro.studies.documents import describe_summary
from keras_repro.studies.scores import (
    Scores,
    Summary,
    check_confidence_level,
    check_numbers,
    rank_of,
    summarize,
)
from keras_repro.studies.wording import say_rank, say_seeds

if TYPE_CHECKING:
    from keras_repro.runs.run import Run


FORMAT = "keras_repro.trial_results/1"
# What begins so, a spreadsheet takes for a formula.
_COMPUTED = ("=", "+", "-", "@", "\t", "\n")


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """A trial whose training raised."""

    seed: int
    error: str  # Type and message, such as `"ValueError: ..."`.
    traceback: str = ""  # As Python prints it.


# What the rows of a study hold, by their names.
_KINDS = {
    "checksums": str,
    "workers": str,
    "failures": TrialFailure,
    "notes": str,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResults(Result):
    """What a study gave: trials are runs that differ only in their seed.

    Args:
        seeds: The seeds of the trials that finished, in the study's order; at
            most 1,000,000.
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
        watched: `False` if the seeds were fixed before the first trial and
            are all done, `True` if not, since one may have looked at the
            study and gone on or stopped; `None` if nobody recorded that, or
            `HalfWidth` stopped it.
        examples: Losses per test example, by the name of the score that is
            their mean, shape `(num_trials, num_examples)`.
        run_source: Loads the recorded runs of each trial, or `None`.

    Raises:
        ValueError: If seeds are negative, too large or repeated, or if there
            is not one value for each seed.
        TypeError: If a seed is not an integer, or another argument is of the
            wrong type.

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
        rmse  19.00  [18.24, 19.76]  0.61   19.00  18.97  18.20  19.90
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
    watched: bool | None = None
    examples: Mapping[str, Scores] = field(default_factory=dict)
    run_source: Callable[[], tuple[tuple[Run, ...], ...]] | None = field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        seeds = check_seeds(self.seeds)
        fields: dict[str, Any] = {
            "seeds": seeds,
            "scores": _check_named_scores(self.scores, len(seeds)),
            "vary": check_name("vary", self.vary, "Leave it out for 'all'."),
            "examples": _check_examples(self.examples, len(seeds)),
        }
        for name, losses in fields["examples"].items():
            scores = fields["scores"][find_metric(self, name)]
            _check_means(name, losses, scores)
        if self.watched is not None:
            fields["watched"] = check_flag("watched", self.watched)
        if self.seconds is not None:
            fields["seconds"] = _freeze(self.seconds, "seconds", len(seeds))
        if self.name is not None:
            advice = "Leave it out for a study without a name."
            fields["name"] = check_name("name", self.name, advice)
        for name, kind in _KINDS.items():
            advice = "Leave it out where there are none."
            found = check_items(name, getattr(self, name), kind, advice)
            fields[name] = tuple(found)
        for name in ("checksums", "workers"):
            if fields[name] and len(fields[name]) != len(seeds):
                raise _wrong_length(name, len(fields[name]), len(seeds))
        if self.run_source is not None:
            must = "be a function without arguments that gives the runs"
            advice = "Leave it out where there are none."
            check_function("run_source", self.run_source, (), must, advice)
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
    ) -> TrialSummary:
        """Sum the scores up.

        The intervals of a study that was watched hold at every number of
        trials at once; else they hold for this number alone.

        Args:
            metric: The name of one score; `None` for all of them.
            confidence_level: Share of such intervals that should cover the
                mean over all seeds, strictly between 0 and 1.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If there is no such metric, or one is out of range.
        """
        names = self.metrics if metric is None else [find_metric(self, metric)]
        confidence_level = check_confidence_level(confidence_level)
        return TrialSummary(
            results=self,
            confidence_level=confidence_level,
            metrics={
                name: summarize_scores(
                    self.scores[name],
                    confidence_level=confidence_level,
                    watched=bool(self.watched),
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
            TypeError: If `seed` is not an integer, or `metric` is not a str.
            ValueError: If the trial or the metric is unknown, or if its score
                is not finite.
        """
        seed = check_seed(seed)
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
            Results of these trials; failures of others are left out. That
            their number was fixed beforehand is known of all of them alone.

        Raises:
            TypeError: If one is not an integer.
            ValueError: If no trial with such a seed finished.
        """
        chosen = check_seeds(seeds)
        places = find_places(self, chosen)
        source = self.run_source
        return replace(
            self,
            seeds=chosen,
            scores={name: one[places] for name, one in self.scores.items()},
            examples={name: one[places] for name, one in self.examples.items()},
            seconds=None if self.seconds is None else self.seconds[places],
            checksums=tuple(
                self.checksums[one] for one in places if self.checksums
            ),
            workers=tuple(self.workers[one] for one in places if self.workers),
            failures=(),
            watched=self.watched
            if self.watched or len(chosen) == self.num_trials
            else None,
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
        return self.summary(metric).plot()

    def to_csv(self, path: str | Path) -> None:
        """Write a line per trial: seed, scores, seconds, checksum, worker.

        Args:
            path: The file. Floats read back to the same bits; what is unknown
                is left empty. A text that a spreadsheet would compute (it
                begins with `=`, `+`, `-`, `@` or a tab) is written after a
                `'`.

        Raises:
            TypeError: If `path` is not a path.
            OSError: If the file cannot be written.
        """
        target = check_path("path", path, 'Pass a name such as "trials.csv".')
        columns = make_columns(self)
        rows = [columns, *zip(*columns.values(), strict=True)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            map(_to_cell, row) for row in rows
        )
        write_whole(target, text.getvalue())

    def _list_values(self) -> dict[str, Any]:
        seconds = None if self.seconds is None else self.seconds.tolist()
        scores = {name: one.tolist() for name, one in self.scores.items()}
        return {
            "format": FORMAT,
            "name": self.name,
            "vary": self.vary,
            "watched": self.watched,
            "seeds": list(self.seeds),
            "scores": to_plain(scores),
            "num_examples": {
                name: one.shape[1] for name, one in self.examples.items()
            },
            "seconds": to_plain(seconds),
            "checksums": list(self.checksums),
            "workers": list(self.workers),
            "failures": to_plain(self.failures),
            "notes": list(self.notes),
        }

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

    def describe(self) -> Document:
        """The summary of all scores."""
        return self.summary().describe()


def check_seeds(seeds: object) -> tuple[int, ...]:
    """Seeds as a tuple of different integers, each in range."""
    advice = "Give each trial its own seed, for example `range(30)`."
    found = []
    # No more of them, since a row of numbers need not end.
    given = iterate("seeds", seeds, "hold integers", advice)
    for one in islice(given, MOST_TRIALS + 1):
        seed = to_int(one)
        if seed is None:
            raise wrong_type("seeds", "hold integers", seeds, advice)
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(
                "`seeds` must lie between 0 and 2**32 - 1. "
                f"Received: seed {describe(seed)}. {advice}"
            )
        found.append(seed)
    if len(found) > MOST_TRIALS:
        must = f"hold at most {MOST_TRIALS:,} integers"
        raise wrong_value("seeds", must, seeds, advice)
    if len(set(found)) < len(found):
        twice = [one for one, times in Counter(found).items() if times > 1]
        raise ValueError(
            "`seeds` must differ from each other. Received more than once: "
            f"{say_seeds(twice)}. {advice}"
        )
    return tuple(found)


def _pick_runs(
    results: TrialResults, places: list[int]
) -> tuple[tuple[Run, ...], ...]:
    """No lambda, so that what is selected can be pickled."""
    return tuple(results.runs[place] for place in places)


def _check_named_scores(scores: Any, length: int) -> dict[str, Scores]:
    """Scores by name, one for each seed."""
    advice = 'Pass them by name, such as {"rmse": [19.1, 18.2]}.'
    check_kind("scores", scores, Mapping, advice, must="map names to scores")
    return {
        name: _freeze(values, f"scores[{name!r}]", length)
        for name, values in scores.items()
        if check_name("scores", name, advice)
    }


def _check_examples(examples: Any, length: int) -> dict[str, Scores]:
    """Losses per test example, a row for each seed."""
    advice = "Leave it out where there are none."
    check_kind("examples", examples, Mapping, advice)
    found = {}
    for name, values in examples.items():
        array = check_numbers("examples", values)
        check_name("examples", name, advice)
        if array.ndim != 2 or len(array) != length or array.shape[1] < 2:
            raise ValueError(
                "`examples` must hold, for each score, a row for each of "
                f"{length} `seeds` with the losses of two examples or more. "
                f"Received: an array of shape {array.shape}. {advice}"
            )
        array.flags.writeable = False
        found[name] = array
    return found


def _check_means(name: str, losses: Scores, scores: Scores) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(losses.mean(axis=1) - scores)
        largest = np.abs(losses).max(axis=1)
        wrong = np.isfinite(scores) & ~(off <= 1e-6 * largest)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(
            f"Each score `{clean(name)}` must be the mean of its losses per "
            f"test example. Received: {scores[place]:g}, and losses of mean "
            f"{losses[place].mean():g}, at position {place}. Give the losses "
            "of all trials, or of none."
        )


def _freeze(values: Any, name: str, length: int) -> Scores:
    array = check_numbers(clean(name), values)
    if array.shape != (length,):
        raise _wrong_length(name, array.shape, length)
    array.flags.writeable = False
    return array


def _wrong_length(name: str, received: object, length: int) -> ValueError:
    return ValueError(
        f"`{clean(name)}` must hold one value for each of {length} `seeds`. "
        f"Received: {received}. Give NaN where a trial has none."
    )


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Where one trial stands among all of its study."""

    seed: int
    metric: str
    score: float
    # 1.0 for the lowest score; equal scores share the mean of their ranks.
    rank: float
    num_scores: int  # How many are finite.
    # Percent of the scores below it, equal ones counted half.
    percentile: float
    # How many standard deviations above the mean; NaN if all are equal.
    z: float

    def to_json(self) -> dict[str, Any]:
        """The rank as plain values that strict JSON can hold."""
        return {**to_plain(self)}

    def __str__(self) -> str:
        """One sentence."""
        return say_rank(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialSummary(Result):
    """The scores of a study in few numbers, by metric."""

    results: TrialResults
    # Of a metric without any finite score each number is NaN.
    metrics: Mapping[str, Summary]
    confidence_level: float  # That of the intervals.

    def __getitem__(self, metric: str) -> Summary:
        return self.metrics[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def describe(self) -> Document:
        """The scores in few numbers, and each trial."""
        return describe_summary(self)

    def _list_values(self) -> dict[str, Any]:
        return {
            "num_trials": self.results.num_trials,
            "num_failures": len(self.results.failures),
            "name": self.results.name,
            "vary": self.results.vary,
            "watched": self.results.watched,
            "confidence_level": self.confidence_level,
            "metrics": to_plain(self.metrics),
        }


def summarize_scores(
    scores: Scores, *, confidence_level: float = 0.95, watched: bool = False
) -> Summary:
    """Sum scores up, as `summarize`; NaN for all if none of them is finite."""
    if np.isfinite(scores).any():
        return summarize(
            scores, confidence_level=confidence_level, watched=watched
        )
    names = ("mean", "std", "median", "iqm", "min", "max")
    return Summary(
        num_scores=0,
        num_missing=len(scores),
        interval=None,
        **dict.fromkeys(names, math.nan),
    )


def rank_score(results: TrialResults, place: int, metric: str) -> Rank:
    """Say where a trial stands among all with a finite score."""
    seed, scores = results.seeds[place], results.scores[metric]
    finite = np.isfinite(scores)
    if not finite[place]:
        raise ValueError(
            f"The score of seed {seed} must be finite to have a rank. "
            f"Received: {scores[place]} for `{clean(metric)}`. Ask for another "
            "seed or metric."
        )
    found = rank_of(scores[finite], int(np.count_nonzero(finite[:place])))
    return Rank(
        seed=seed,
        metric=metric,
        score=float(scores[place]),
        rank=found.rank,
        num_scores=int(np.count_nonzero(finite)),
        percentile=found.percentile,
        z=found.z,
    )


def find_metric(results: TrialResults, metric: str | None) -> str:
    """The name of a score of a study; the first one for `None`."""
    if metric is None and results.scores:
        return results.metrics[0]
    if metric is not None and not isinstance(metric, str):
        advice = "Leave it out for the first one."
        raise wrong_type("metric", "be a str or None", metric, advice)
    if metric is not None and metric in results.scores:
        return metric
    known = ", ".join(f"`{clean(one)}`" for one in results.metrics)
    raise ValueError(
        "`metric` must name a score that the study has: "
        f"{clean(known or 'it has none', 500)}. Received: "
        f"{describe(metric)}. Choose one that it has."
    )


def find_places(results: TrialResults, seeds: Iterable[int]) -> list[int]:
    """The positions of the trials with these seeds, which finished."""
    wanted = tuple(seeds)
    places = {seed: place for place, seed in enumerate(results.seeds)}
    unknown = [seed for seed in wanted if seed not in places]
    if unknown:
        raise ValueError(
            "`seed` must be that of a trial that finished: "
            f"{say_seeds(results.seeds)}. Received: {say_seeds(unknown)}. "
            "Choose among `results.seeds`."
        )
    return [places[seed] for seed in wanted]


def _to_cell(value: Any) -> Any:
    if isinstance(value, str):
        text = value.replace("\r", r"\r")  # Python 3.11 does not quote it.
        return f"'{text}" if text.startswith(_COMPUTED) else text
    return repr(value) if isinstance(value, float) else value


def make_columns(results: TrialResults) -> dict[str, list[Any]]:
    """All that is known of each trial, by the name of its column."""
    empty = [None] * results.num_trials
    seconds = results.seconds
    others = {
        "seconds": empty if seconds is None else seconds.tolist(),
        "checksum": list(results.checksums) or empty,
        "worker": list(results.workers) or empty,
    }
    columns: dict[str, list[Any]] = {"seed": list(results.seeds)}
    for name, scores in results.scores.items():
        title = name
        while title in columns or title in others:
            title += " (score)"
        columns[title] = scores.tolist()
    return columns | others
