"""`spread`: which part of what a seed moves comes from where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

import numpy as np

from keras_repro.common.checks import (
    check_name,
    check_path,
    to_int,
    wrong_value,
)
from keras_repro.model.stored_trial import FIXED_SEED
from keras_repro.studies.results import find_metric
from keras_repro.studies.scores import check_confidence_level
from keras_repro.studies.spread import ALL, SOURCES, TrialSpread, find_spread
from keras_repro.trials.run import read_seeds, run_trials


def spread(
    model: Any,
    train: Callable[[Any], Any],
    seeds: int | Iterable[int] = 30,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    executor: Executor | None = None,
    num_workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TrialSpread:
    """Find which part of the spread of a score comes from where.

    Runs four studies of the same seeds: the seed moves everything, the initial
    weights alone, the order of the data alone, and the random draws alone.
    Compared seed by seed they say which share of the variance each part gives,
    and which the parts give only together.

    Args:
        model: As for `run_trials`.
        train: As for `run_trials`.
        seeds: How many trials each study has, of seeds 1, 2, 3, ..., or the
            seeds; without 0, at which stands what a study does not move.
        metric: The name of the score; `None` for the first one.
        confidence_level: Of each interval, strictly between 0 and 1.
        executor: As for `run_trials`.
        num_workers: As for `run_trials`.
        path: A folder; each study is kept in a folder of its own in it.
        progress: Whether to show a bar for each study.

    Returns:
        The shares, each with its interval, and the studies.

    Raises:
        TypeError: As `run_trials`.
        ValueError: As `run_trials`; if `seeds` hold 0, are fewer than three,
            if `train` returns no such metric, or if fewer than three seeds
            have a finite one in all four studies.
        RuntimeError: As `run_trials`.

    Scope:
        As that of `find_spread`. The order is that of arrays and `tf.data`
        pipelines; a PyDataset draws its order from Python's `random`, which
        counts as a random draw.

    Example:
        >>> import keras, keras_repro as kr, numpy as np
        >>> x = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)
        >>> model = kr.ReproducibleModel(
        ...     [keras.Input((2,)), keras.layers.Dense(1)]
        ... )
        >>> model.compile("sgd", "mse")
        >>> def train(model):
        ...     history = model.fit(x, x[:, :1], epochs=2, verbose=0).history
        ...     return {"loss": history["loss"][-1]}
        >>> found = spread(model, train, seeds=5, progress=False)
        >>> found["initial"].share > 0.9, found["random"].share
        (True, 0.0)
    """
    number = None if isinstance(seeds, (bool, np.bool_)) else to_int(seeds)
    listed = read_seeds(seeds)
    if number is not None:
        listed = tuple(one + 1 for one in listed)
    if FIXED_SEED in listed or len(listed) < 3:
        must = f"be at least three, none of them {FIXED_SEED}"
        raise wrong_value("seeds", must, seeds, "Pass 30.")
    check_confidence_level(confidence_level)
    if metric is not None:
        check_name("metric", metric, "Leave it out for the first one.")
    advice = 'Pass the name of a folder, such as "spread".'
    folder = None if path is None else check_path("path", path, advice)
    studies = {}
    for vary in (ALL, *SOURCES):
        studies[vary] = run_trials(
            model,
            train,
            listed,
            executor=executor,
            num_workers=num_workers,
            path=None if folder is None else folder / vary,
            progress=progress,
            vary=vary,
        )
        # Told after the first study, not after all four.
        metric = find_metric(studies[vary], metric)
    return find_spread(studies, metric, confidence_level=confidence_level)
