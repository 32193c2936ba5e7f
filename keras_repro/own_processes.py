"""A process beside a thread, in which nothing else runs.

The global generators of a process are drawn from by all its threads: in a
worker of Dask the thread of the network draws from Python's. What must not be
disturbed runs in a process of its own.
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

_START = "from keras_repro.own_processes import serve; serve()"
_WATCH_EVERY = 0.5


class DeadProcessError(RuntimeError):
    """The process ended in the middle of a call."""


class OwnProcess:
    """A fresh process that makes calls, one after the other.

    It ends with this object, and with the process that made it.

    Args:
        environment: Environment variables on top of this process' own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": paths},
        )

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there.

        Args:
            function: One that can be imported there.
            *args: What can be pickled.

        Returns:
            What it returned.

        Raises:
            DeadProcessError: If the process ends before the function does.
            RuntimeError: If the function raised; with what it raised.
        """
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
