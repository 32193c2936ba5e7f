"""`diagnose`: a training function, repeated under control, rung by rung."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_repro.climbing import Climb, Subject
from keras_repro.diagnoses import Diagnosis
from keras_repro.experiments import Budget
from keras_repro.seeding import isolate_rng


def diagnose(
    train: Callable[..., Any],
    model: Any = None,
    *,
    fresh_process: bool = True,
    max_runs: int = 24,
) -> Diagnosis:
    """Find out whether a training is reproducible, and if not, why.

    Calls `train` again and again, and climbs from cheap questions to dear
    ones: is the initial state equal, the data fed, one step, a whole
    training, and is it equal in a fresh process? At the first rung that
    differs it stops, and holds one suspected cause after the other still
    until the calls agree.

    Args:
        train: A function that builds a model and trains it, and takes nothing
            it could not do without; or, with `model`, one that takes the model
            and trains it. It must call `fit` or `train_on_batch`.
        model: A `ReproducibleModel`, which is reset before each call, or any
            compiled `keras.Model`.
        fresh_process: Whether to climb the last rung, for which `train` is
            pickled by value and sent to another interpreter.
        max_runs: How many calls experiments may take, beside those that are
            compared.

    Returns:
        The diagnosis. It prints, displays in a notebook, and plots.

    Raises:
        TypeError: If `train` cannot be called like that, or `model` is no
            Keras model.
        ValueError: If `train` never trains a model, or `max_runs` is negative.
        Exception: What `train` raises.

    Scope:
        This process, on this machine; the last rung another process on it.
        `train` is called five times or more. The program's random generators
        stand afterwards where they stood before. What else `train` changes
        (files, globals, a plain model) it changes as it always does; a
        `ReproducibleModel` is reset at the end. What a function imported by
        name before (`from numpy.random import rand`) is seen as moved, and
        not where.

    Example:
        >>> import keras, numpy as np
        >>> def train():
        ...     x = np.random.normal(size=(8, 2))  # Nobody has seeded it.
        ...     model = keras.Sequential([keras.layers.Dense(1, "relu")])
        ...     model.compile("sgd", "mse")
        ...     model.fit(x, x[:, :1], verbose=0)
        >>> found = diagnose(train, fresh_process=False)
        >>> found.reproducible, found.causes[0].kind
        (False, 'unseeded')
    """
    _check(train, model)
    if not isinstance(max_runs, int) or max_runs < 0:
        raise ValueError(
            "`max_runs` must be an integer from 0 on. "
            f"Received: {max_runs!r}. Leave it out for 24."
        )
    subject = Subject(train=train, model=model)
    seed = getattr(model, "seed", None)
    with (
        isolate_rng(),
        tempfile.TemporaryDirectory(
            prefix="keras-repro-", ignore_cleanup_errors=True
        ) as folder,
    ):
        climb = Climb(
            subject,
            Path(folder),
            Budget(num_runs=max_runs),
            takes_seed=model is None and _takes_seed(train),
        )
        found = climb.run(fresh_process=fresh_process)
    if subject.can_reset:
        model.reset(seed)  # Other seeds may have been tried.
    return found


def assert_reproducible(
    train: Callable[..., Any], model: Any = None, *, max_runs: int = 24
) -> None:
    """Fail if a training is not reproducible, with the cause in the message.

    For a test suite. As `diagnose`, without the fresh process.

    Args:
        train: As for `diagnose`.
        model: As for `diagnose`.
        max_runs: As for `diagnose`.

    Raises:
        AssertionError: If it is not; the message says where two calls part
            first, and why.
        TypeError: As `diagnose`.
        ValueError: As `diagnose`.

    Example:
        >>> import keras, numpy as np
        >>> def train():
        ...     keras.utils.set_random_seed(1)
        ...     x = np.random.normal(size=(8, 2))
        ...     model = keras.Sequential([keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        ...     model.fit(x, x[:, :1], verbose=0)
        >>> assert_reproducible(train)
    """
    __tracebackhide__ = True  # What pytest shows ends at the test's line.
    found = diagnose(train, model, fresh_process=False, max_runs=max_runs)
    if not found.reproducible:
        raise AssertionError(say_failure(found))


def say_failure(found: Diagnosis) -> str:
    """What a failed test says."""
    return f"The training must be reproducible.\n{found}"


def _check(train: Any, model: Any) -> None:
    """Refuse what cannot be diagnosed, before anything is called."""
    if not callable(train):
        raise TypeError(
            "`train` must be a function that trains a model. Received: "
            f"{train!r} (of type {type(train).__name__}). Wrap the lines that "
            "build and fit it in a function."
        )
    if model is not None and not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. Received: "
            f"{model!r} (of type {type(model).__name__}). Leave it out if "
            "`train` builds its own."
        )
    arguments = () if model is None else (model,)
    try:
        inspect.signature(train).bind(*arguments)
    except TypeError as error:
        what = "the model alone" if model is not None else "no arguments"
        raise TypeError(
            f"`train` must be callable with {what}. Received: a function that "
            f"is not ({error}). Give the others default values."
        ) from error
    except ValueError:
        return  # A function written in C says nothing of itself.


def _takes_seed(train: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(train).parameters
    except ValueError:
        return False
