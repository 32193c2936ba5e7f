"""`sample_rng`: random numbers that belong to one sample of one epoch.

Which data are read now is known for the process, since whoever reads them may
be a thread of Keras, of TensorFlow or of Grain, of which nothing is known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_repro.backends.random_streams import make_generator
from keras_repro.common.checks import LARGEST_INT, check_int, check_seed

_PURPOSE = "sample"
_EXPLICIT = "Pass `seed=` and `epoch=` too."


class Use:
    """One use of data: by which seed and epoch their samples draw."""

    def __init__(
        self,
        # Knows the seed, which a build may still name, and the epoch.
        trial: Any,
        kind: str = "",  # Of an evaluation; else a training or a block.
        *,
        # Whether code that can draw gives the data; arrays are none.
        is_code: bool,
        # Whether each pass is read within its epoch.
        is_counted: bool = True,
    ) -> None:
        self._trial, self.is_counted = trial, is_counted
        self.purpose = f"{_PURPOSE}/{kind}" if kind else _PURPOSE
        self.thread = threading.get_ident()
        self._is_code = is_code
        # Whether other threads may read for it now.
        self.is_read = is_code and bool(kind)

    @property
    def seed(self) -> int:
        """The seed of the trial's data."""
        return int(self._trial.seeds.order)

    @property
    def epoch(self) -> int:
        """The epoch that is read, or that comes next."""
        return int(self._trial.epoch)

    def begin_pass(self) -> None:
        """A pass over the data begins."""
        self.is_read = self._is_code

    def end_pass(self) -> None:
        """What is read of the pass from now on is used for nothing."""
        self.is_read = False


class Training(Use):
    """A training, which counts its epochs from that of its first pass."""

    epoch = 0

    def __init__(
        self, trial: Any, first: int, *, is_code: bool, is_counted: bool
    ) -> None:
        super().__init__(trial, is_code=is_code, is_counted=is_counted)
        self.epoch, self._first, self._num_passes = first, first, 0

    def begin_pass(self) -> None:
        """The next epoch begins, or the first."""
        super().begin_pass()
        self.epoch = self._first + self._num_passes
        self._num_passes += 1


_uses: list[Use] = []  # The innermost last.
if hasattr(os, "register_at_fork"):
    # A worker stays when the epoch does not.
    os.register_at_fork(after_in_child=_uses.clear)


@contextmanager
def in_use(use: Use) -> Iterator[None]:
    """Have samples that are read in a block draw for this use of data."""
    _uses.append(use)
    try:
        yield
    finally:
        _uses.remove(use)


def sample_rng(
    index: int, *, seed: int | None = None, epoch: int | None = None
) -> np.random.Generator:
    """A generator that belongs to one sample, whoever reads it and when.

    Draw the augmentation of a sample from it, in `__getitem__` of a
    `PyDataset`, in the data set of a PyTorch loader, or in a `map` of Grain
    or `tf.data`: it is the same with one worker or eight, in whatever order,
    and after a resume, and another one in each epoch and under each seed.

    Args:
        index: Which sample it is, or which batch if one generator serves all
            of it: a number that is another one for each.
        seed: `None` takes that of the trial whose data are being read.
        epoch: `None` takes the epoch that is being read, counted from the
            start of the trial. With several passes in one epoch, or in worker
            processes, say which pass it is.

    Returns:
        A new NumPy generator; two calls for one sample give equal ones.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If one is out of range.
        RuntimeError: If the seed or the epoch is to be found, and is not
            known: outside of `fit`, `evaluate`, `predict` and `trial()` of a
            `ReproducibleModel`, in a worker process, where passes do not end
            with epochs (`steps_per_epoch`), or where two calls read at once.

    Scope:
        With `seed` and `epoch` it is a function of the three numbers alone.
        Evaluations draw by seeds of their own, and in the epoch that the
        training has come to; in a `trial()` block the epochs are those of
        `fit`, so that a loop of your own passes `epoch`.

    Example:
        >>> first = sample_rng(7, seed=1, epoch=0).normal(size=2)
        >>> again = sample_rng(7, seed=1, epoch=0).normal(size=2)
        >>> later = sample_rng(7, seed=1, epoch=1).normal(size=2)
        >>> bool((first == again).all()), bool((first == later).any())
        (True, False)
    """
    index = check_int("index", index, 0, LARGEST_INT)
    if epoch is not None:
        epoch = check_int("epoch", epoch, 0, LARGEST_INT)
    if seed is not None:
        seed = check_seed(seed)
        if epoch is not None:
            return make_generator(seed, _PURPOSE, epoch, index)
    use = _find_use()
    if epoch is None:
        epoch = _find_epoch(use)
    if seed is not None:
        return make_generator(seed, _PURPOSE, epoch, index)
    return make_generator(use.seed, use.purpose, epoch, index)


def _find_use() -> Use:
    """What the calling thread reads for."""
    here = threading.get_ident()
    own = [use for use in _uses if use.thread == here]
    if own:
        return own[-1]
    read = [use for use in _uses if use.is_read]
    if len(read) > 1:
        msg = (
            "`sample_rng(index)` in a thread that reads data must be called "
            "while one call reads: it cannot know for which one. Received: a "
            f"call while {len(read)} do, such as an evaluation in the midst "
            f"of an epoch. {_EXPLICIT}"
        )
        raise RuntimeError(msg)
    if not _uses:
        msg = (
            "`sample_rng(index)` must be called while data are read in `fit`, "
            "`evaluate`, `predict` or a `trial()` block of a "
            "`ReproducibleModel`, in its own process: they give the seed and "
            "the epoch. Received: a call outside of these, or in a worker "
            f"process. {_EXPLICIT}"
        )
        raise RuntimeError(msg)
    return (read or _uses)[-1]


def _find_epoch(use: Use) -> int:
    if not use.is_counted:
        msg = (
            "`sample_rng(index)` must be called for data of which each pass is "
            "an epoch. Received: a call with `steps_per_epoch` or "
            "`validation_steps`, where data are read on across epochs, and "
            "ahead. Pass `epoch=` too, such as the number of the pass, or "
            "leave the steps out."
        )
        raise RuntimeError(msg)
    return use.epoch
