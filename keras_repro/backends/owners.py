"""Who has the process' global generators: one owner, and those within it.

A training, and a block that draws from streams of its own, puts these in the
place of the program's, for the whole process. Two that overlap would draw from
each other's and put back each other's, so that the second is refused.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from keras_repro.backends.active import get_backend
from keras_repro.backends.interrupts import (
    listen,
    stop_listening,
    undivided,
)

# These are refused beside another of them.
TRAINING, BLOCK = "training", "block"
# These take little time, and wait.
EVALUATION, DRAW = "evaluation", "draw"
_ALONE = (TRAINING, BLOCK)
# Seconds. Whoever has the generators may wait itself for the thread that asks,
# as a training does for the workers that read its data.
_PATIENCE = 10.0

_owners: list[Owner] = []  # Each within the one before.
_waiting: list[Owner] = []
_changed = threading.Condition()


class Owner:
    """One that has the generators, or runs beside the one that has."""

    def __init__(self, what: str, kind: str) -> None:
        # `what` is for messages; `kind` is one of those above.
        self.what, self.kind = what, kind
        # Whether another thread has the generators meanwhile.
        self.is_beside = False
        # What puts back what was there; it is called once.
        self.ends = ExitStack()
        self._thread = threading.current_thread()
        self._task = _current_task()
        self._gives_way = False
        # Threads that have waited for it in vain.
        self._awaited: set[threading.Thread] = set()

    def __str__(self) -> str:
        where = f"{self.what} in thread {self._thread.name!r}"
        name = self._task.get_name() if self._task else None
        return f"{where}, task {name!r}" if name else where

    def enter(self) -> None:
        """Take the generators, as soon as nobody else has them."""
        end = time.monotonic() + _PATIENCE
        with _changed:
            while (other := self._find_other()) is not None:
                if _serves_another() or (
                    self.kind not in _ALONE and self._thread in other._awaited
                ):
                    self.is_beside = True
                    return
                first = self._find_first() if self.kind in _ALONE else None
                if first is not None or not self._wait(end):
                    self._give_up(first or other)
                    return
            if _owners:
                _owners[-1]._gives_way = False
            _owners.append(self)

    def _find_other(self) -> Owner | None:
        """Who has the generators, and does not give way."""
        top = _owners[-1] if _owners else None
        if top is None or self._is_within(top):
            return None
        return None if top._gives_way and self.kind not in _ALONE else top

    def _find_first(self) -> Owner | None:
        """The training or block of somebody else."""
        others = (
            one
            for one in _owners
            if one.kind in _ALONE and not self._is_within(one)
        )
        return next(others, None)

    def _is_within(self, other: Owner) -> bool:
        """Whether this begins and ends while another one has begun."""
        if self._thread is not other._thread:
            return False
        task = other._task
        return (
            # What awaits nothing ends before another task goes on.
            self.kind not in _ALONE
            or task is None
            or task is self._task
            or task.done()
        )

    def _wait(self, end: float) -> bool:
        """Wait for a change; `False` if there was time enough."""
        seconds = end - time.monotonic()
        if seconds <= 0:
            return False
        _waiting.append(self)
        try:
            _changed.notify_all()
            _changed.wait(seconds)
        finally:
            _waiting.remove(self)
        return True

    def _give_up(self, other: Owner) -> None:
        """Run beside another, or refuse to."""
        if self.kind in _ALONE:
            msg = (
                "Only one training, `isolate_rng()` or `trial()` can run in a "
                "process at a time: each puts random streams of its own in "
                f"the place of the program's. Received: {self}, while {other} "
                "runs. Start it when that has ended, or give each training a "
                "process of its own: `run_trials(..., num_workers=2)`."
            )
            raise RuntimeError(msg)
        self.is_beside = True
        other._awaited.add(self._thread)
        warnings.warn(
            f"{self} has waited for {_PATIENCE:g} seconds, and runs while "
            f"{other} does: what either of them draws from a global generator "
            "may be another number the next time. Let the first end, or let "
            "the other run in a process of its own.",
            RuntimeWarning,
            stacklevel=2,
        )

    def leave(self) -> None:
        """Put back what was there; end what was begun within and has not."""
        with _changed:
            is_there = self in _owners
            within = _owners[_owners.index(self) + 1 :] if is_there else []
            with ExitStack() as stack:
                stack.callback(_changed.notify_all)
                for one in (self, *within):
                    stack.callback(one._end)
        if within:
            msg = (
                "Blocks with random streams of their own must end in the "
                f"reverse order of their beginning. Received: the end of "
                f"{self} before that of {within[0]}, which began later. All "
                "generators stand where they stood before the first. Let one "
                "block end before another task or generator begins the next."
            )
            raise RuntimeError(msg)

    def _end(self) -> None:
        try:
            self.ends.close()
        finally:
            if self in _owners:
                _owners.remove(self)


@contextmanager
def held(what: str, kind: str) -> Iterator[Owner]:
    """Have the generators in a block; within one's own others may follow."""
    is_ours, owner = listen(), Owner(what, kind)
    try:
        owner.enter()
        if kind != BLOCK:  # What the program does in one stays.
            owner.ends.callback(get_backend().keep_mode())
        yield owner
    finally:
        try:
            owner.leave()
        finally:
            if is_ours:
                stop_listening()


def is_awaited() -> bool:
    """Whether somebody waits who could run between two steps of a training."""
    return any(one.kind not in _ALONE for one in _waiting)


@undivided
def give_way() -> None:
    """Let one of another thread run, between two steps of our training."""
    with _changed:
        top = _owners[-1] if _owners else None
        if top is None or top.kind != TRAINING:
            return
        if top._thread is not threading.current_thread():
            return
        top._gives_way = True
        _changed.notify_all()
        while _owners[-1] is not top or (top._gives_way and is_awaited()):
            _changed.wait()
        top._gives_way = False


def find_running() -> Owner | None:
    """The training or evaluation that the caller stands in, if it does."""
    here = threading.current_thread()
    around = [one for one in _owners if one._thread is here]
    around = [one for one in around if one.kind != DRAW]
    # Not one around a block that the caller has begun in it.
    return around[-1] if around and around[-1].kind != BLOCK else None


# Where a thread that reads data, or computes what JAX calls, comes from
# (Keras 3.12 to 3.15, TensorFlow 2.16 to 2.21, JAX 0.5 to 0.10). Without these
# names it is taken for one of the program's.
_SERVING = (
    "grain.",
    "jax._src.",
    "keras.src.trainers.data_adapters.",
    "tensorflow.python.ops.script_ops",
    "torch.utils.data.",
)


def _serves_another() -> bool:
    """Whether this thread does a part of a training that another one runs."""
    # It draws from the training's streams, and the training waits for it.
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_SERVING):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return get_backend().is_replica()


def _current_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # No loop runs.
        return None


def _after_fork() -> None:
    """Forget the threads that a child process does not have."""
    global _changed  # noqa: PLW0603 - one of them may have held it
    _changed = threading.Condition()
    here = threading.current_thread()
    _waiting.clear()
    _owners[:] = [one for one in _owners if one._thread is here]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
