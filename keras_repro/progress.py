"""A bar that shows how far a study is, and what it says so far."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np

from keras_repro.phrases import clean
from keras_repro.statistics import t_interval
from keras_repro.trial_outcomes import TrialOutcome, gather_scores


class TrialBar:
    """Shows the number of trials done, their mean and its interval so far.

    Args:
        total: How many trials there may be.
        shown: Whether to show anything. A bar is drawn where standard error
            is a terminal, and in notebooks; logs stay free of it.
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self._bar = _make_bar(total) if shown else None

    def __enter__(self) -> Self:
        """Show the bar."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def show(self, outcomes: Iterable[TrialOutcome]) -> None:
        """Show these outcomes.

        Args:
            outcomes: All that there are so far.
        """
        if self._bar is None or self._bar.disable:
            return
        listed = list(outcomes)
        self._bar.set_postfix_str(say_so_far(listed), refresh=False)
        self._bar.update(len(listed) - self._bar.n)


def say_so_far(outcomes: list[TrialOutcome]) -> str:
    """The first score's mean, with the t interval; how many trials failed.

    Args:
        outcomes: Of the trials so far.
    """
    done = [one for one in outcomes if not one.status]
    words = []
    if done:
        name, scores = next(iter(gather_scores(done).items()))
        scores = scores[np.isfinite(scores)]
        words.append(f"{clean(name, 20)} {_say_mean(scores)}")
    failed = len(outcomes) - len(done)
    if failed:
        words.append(f"{failed} failed")
    return ", ".join(words)


def _say_mean(scores: Any) -> str:
    if not len(scores):
        return "none finite"
    mean = f"{float(np.mean(scores)):.4g}"
    if len(scores) < 2:
        return mean
    interval = t_interval(scores)
    return f"{mean} [{interval.low:.4g}, {interval.high:.4g}]"


def _make_bar(total: int) -> Any:
    with warnings.catch_warnings():
        # Without its widgets tqdm falls back to text, and says so.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(
            total=total,
            desc="trials",
            unit="trial",
            # `None` leaves it out where standard error is no terminal.
            disable=False if _is_notebook() else None,
            dynamic_ncols=True,
        )


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs us; it may be loaded for other reasons."""
    find_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if find_shell is None else find_shell()
    return getattr(shell, "kernel", None) is not None
