"""What an executor's worker calls: the first lines, before Keras is there.

A module without Keras, so that a fresh process can be told its backend before
it loads one, and so that a forked one is found out before it hangs.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from keras_repro.studies.outcomes import (
    Answer,
    TrialTask,
    Unfit,
    name_worker,
)

_IMPORTED_IN = os.getpid()
_of_this_thread = threading.local()


def run_remotely(
    key: str, backend: str, payload: bytes | None, task: TrialTask
) -> Answer:
    """Run a trial in a worker, which may have the study since it started."""
    if _is_forked():
        return Answer(task, Unfit(name_worker(), _FORKED))
    if threading.current_thread() is not threading.main_thread():
        # Other threads draw from this process' generators while it runs.
        return _run_beside(key, backend, payload, task)
    reason = _find_reason(backend)
    if reason:
        return Answer(task, Unfit(name_worker(), reason))
    from keras_repro.trials import worker

    if payload is not None:
        worker.receive(key, payload)
    outcome = worker.run(key, task)
    if isinstance(outcome, str):
        return Answer(task, Unfit(name_worker(), outcome))
    return Answer(task, outcome)


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


def start_worker(key: str, backend: str, payload: bytes) -> None:
    """Make a process of our own ready: it gets the model once, as it starts."""
    end_with_parent()
    if not _find_reason(backend):
        from keras_repro.trials import worker

        # What is wrong with it is said when a trial is to be run.
        worker.receive(key, payload)


def make_environment(backend: str) -> dict[str, str]:
    """What a process that runs trials starts with, on top of what we have."""
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


_START = "from keras_repro.trials.remote import serve; serve()"
_WATCH_EVERY = 0.5


class DeadProcessError(RuntimeError):
    """The process ended in the middle of a call."""


class OwnProcess:
    """A fresh process for calls in turn, which ends with this object or us."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": paths},
        )

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there; raises what it raised, or that it ended."""
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            msg = "the process has no pipes"
            raise RuntimeError(msg)
        try:
            pickle.dump((function, args), requests)
            requests.flush()
            succeeded, value = pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            msg = f"the process of a trial ended with exit code {code}"
            raise DeadProcessError(msg) from error
        if not succeeded:
            raise value
        return value

    def __del__(self) -> None:
        """Let the process end: it has nothing more to read."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()


def serve() -> None:
    """Make the calls that come in, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    # What the program prints goes where it is seen, and not between answers.
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    end_with_parent()
    while _answer_one(requests, answers):
        pass


def _answer_one(requests: BinaryIO, answers: BinaryIO) -> bool:
    try:
        # Of the process that started this one.
        function, args = pickle.load(requests)
    except EOFError:
        return False
    try:
        answer = pickle.dumps((True, function(*args)))
    except Exception as error:  # noqa: BLE001 - raised where it was asked for
        answer = pickle.dumps((False, RuntimeError(repr(error))))
    answers.write(answer)
    answers.flush()
    return True


def end_with_parent() -> None:
    """End this process with the one that started it, and by nothing else."""
    # Ctrl-C reaches all processes of a terminal; whoever started us ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_EVERY)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()
