"""What `run_trials` was asked for: read, or told what it must be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from keras_repro.trial_results import check_seeds


def read_seeds(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """The seeds of a study.

    Args:
        seeds: How many, or which.

    Raises:
        TypeError: If they are no integers.
        ValueError: If there is none, one is out of range or there twice.
    """
    if isinstance(seeds, bool):
        raise TypeError(
            "`seeds` must be a number of trials, or the seeds themselves. "
            f"Received: {seeds!r}. Pass 30, or `range(30)`."
        )
    listed = check_seeds(
        range(seeds) if isinstance(seeds, (int, np.integer)) else seeds
    )
    if not listed:
        raise ValueError(
            "`seeds` must name at least one trial. Received: "
            f"{seeds!r}. Pass 30, or `range(30)`."
        )
    return listed


def read_path(path: str | os.PathLike[str]) -> Path:
    """The folder of a study.

    Args:
        path: Its name.

    Raises:
        TypeError: If it is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            "`path` must be a str or an os.PathLike. Received: "
            f"{path!r} (of type {type(path).__name__}). Pass the name of a "
            'folder, such as "study".'
        )
    return Path(path)


def check_arguments(
    executor: Any, num_workers: Any, until: Any, check: Any
) -> None:
    """Check where, how long and how surely a study shall run.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it has a wrong value, or if two exclude each other.
    """
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            "`executor` must be a `concurrent.futures.Executor`. Received: "
            f"{executor!r} (of type {type(executor).__name__}). Of a Dask "
            "client, pass `client.get_executor()`; else `num_workers=2`."
        )
    if executor is not None and num_workers is not None:
        raise ValueError(
            "`executor` and `num_workers` must not both be given: an executor "
            f"has its own workers. Received: {executor!r} and {num_workers!r}. "
            "Leave one out."
        )
    is_count = isinstance(num_workers, int) and not isinstance(
        num_workers, bool
    )
    if num_workers is not None and not (is_count and num_workers >= 1):
        raise ValueError(
            "`num_workers` must be an integer of 1 or more. Received: "
            f"{num_workers!r}. Pass 2, or leave it out to run the trials here."
        )
    if until is not None and not callable(getattr(until, "is_met", None)):
        raise TypeError(
            "`until` must be a rule such as `HalfWidth(0.1)`. Received: "
            f"{until!r} (of type {type(until).__name__})."
        )
    if isinstance(check, bool) or not isinstance(check, (int, float)):
        raise TypeError(
            "`check` must be a number from 0 to 1. Received: "
            f"{check!r} (of type {type(check).__name__}). Pass 0.1 to repeat "
            "every tenth trial."
        )
    if not 0 <= check <= 1:
        raise ValueError(
            "`check` must be a share from 0 to 1. Received: "
            f"{check!r}. Pass 0.1 to repeat every tenth trial."
        )
