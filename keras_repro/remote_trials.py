"""What an executor's worker calls: the first lines, before Keras is there.

A module without Keras, so that a fresh process can be told its backend before
it loads one, and so that a forked one is found out before it hangs.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from keras_repro.own_processes import (
    DeadProcessError,
    OwnProcess,
    end_with_parent,
)
from keras_repro.trial_outcomes import (
    Answer,
    Missing,
    SameWorker,
    TrialTask,
    Unfit,
    name_worker,
)

_IMPORTED_IN = os.getpid()
_of_this_thread = threading.local()


def run_remotely(
    key: str, backend: str, payload: bytes | None, task: TrialTask
) -> Answer:
    """Run a trial in a worker.

    Args:
        key: Names the study; a worker keeps what it was sent under it.
        backend: The Keras backend of the study.
        payload: The model and `train`, or `None` where the worker should
            have them.
        task: The trial.

    Returns:
        Its outcome, or why there is none.
    """
    worker = name_worker()
    if _is_forked():
        return Unfit(worker, _FORKED)
    if threading.current_thread() is not threading.main_thread():
        # Other threads draw from this process' generators while it runs.
        return _run_beside(key, backend, payload, task)
    reason = _find_reason(backend)
    if reason:
        return Unfit(worker, reason)
    if worker == task.avoid:
        return SameWorker(worker)
    from keras_repro import trial_workers

    if payload is not None:
        trial_workers.receive(key, payload)
    elif not trial_workers.has(key):
        return Missing(worker)
    answer = trial_workers.run(key, task)
    return Unfit(worker, answer) if isinstance(answer, str) else answer


def _run_beside(
    key: str, backend: str, payload: bytes | None, task: TrialTask
) -> Answer:
    """Run a trial in a process that this thread has for itself."""
    process = getattr(_of_this_thread, "process", None)
    if process is None:
        process = OwnProcess(make_environment(backend))
        _of_this_thread.process = process
    try:
        answer: Answer = process.call(run_remotely, key, backend, payload, task)
    except DeadProcessError:
        _of_this_thread.process = None
        raise
    return answer


def hold_worker(seconds: float, ticket: int) -> None:
    """Keep a worker busy, so that what comes next goes to another.

    Args:
        seconds: For how long.
        ticket: Of this very call, which none before had.
    """
    del ticket
    time.sleep(seconds)


def start_worker(key: str, backend: str, payload: bytes) -> None:
    """Make a process of our own ready: it gets the model once, as it starts.

    Args:
        key: Names the study.
        backend: The Keras backend of the study.
        payload: The model and `train`.
    """
    end_with_parent()
    if not _find_reason(backend):
        from keras_repro import trial_workers

        # What is wrong with it is said when a trial is to be run.
        trial_workers.receive(key, payload)


def make_environment(backend: str) -> dict[str, str]:
    """What a process that runs trials starts with, on top of what we have.

    Args:
        backend: The Keras backend of the study.
    """
    wanted = {"KERAS_BACKEND": backend}
    # Without one each process would order its sets of strings another way.
    if not os.environ.get("PYTHONHASHSEED"):
        wanted["PYTHONHASHSEED"] = "0"
    # Threads that spin while they wait take the cores from other workers.
    if not os.environ.get("OMP_WAIT_POLICY"):
        wanted["OMP_WAIT_POLICY"] = "passive"
    return wanted


_FORKED = (
    "it was forked from a process that had loaded Keras, whose threads a fork "
    "does not copy. Start fresh processes: pass "
    '`mp_context=multiprocessing.get_context("spawn")` to the executor, or '
    "leave it out and pass `num_workers=`."
)


def _is_forked() -> bool:
    return os.getpid() != _IMPORTED_IN and "keras" in sys.modules


def _find_reason(backend: str) -> str:
    """Why this process can run no trial; empty if it can."""
    keras = sys.modules.get("keras")
    if keras is None:
        os.environ["KERAS_BACKEND"] = backend
        return ""
    if keras.backend.backend() != backend:
        return (
            f"it has loaded Keras on {keras.backend.backend()}, and the study "
            f"runs on {backend}. Set KERAS_BACKEND={backend} where the "
            "workers start."
        )
    return ""
