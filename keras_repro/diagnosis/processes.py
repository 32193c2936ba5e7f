"""A script in a process of its own, as it would run alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from keras_repro.common.files import TroubleFile
from keras_repro.watching.holds import Plan

_STARTER = Path(__file__).parents[1] / "__main__.py"
_CHUNK = 1 << 16
# How long an interrupted script may take to end by itself.
_GRACE = 10.0
OUTPUT, ERRORS = "stdout", "stderr"
# Bytes: of what a script prints when it runs again, the end is kept.
_MOST_KEPT = 1 << 18
# How long what a script leaves running may take to end by itself.
_MOMENT, _PAUSE = 2.0, 0.05
_SET_CHILD_SUBREAPER = 36  # Linux' `PR_SET_CHILD_SUBREAPER`.


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a process ended."""

    code: int  # Its exit code; negative if a signal ended it.
    seconds: float
    folder: Path  # Where it wrote what it did.
    # Whether it was ended because it took too long.
    timed_out: bool = False
    # The commands of what it left running, which was ended.
    left: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the script came to its end without an error."""
        return self.code == 0 and not self.timed_out


class Launcher:
    """Starts a script, or a module with its arguments, again and again."""

    def __init__(
        self,
        target: Sequence[str],
        *,
        # Seconds that one process may take.
        timeout: float | None = None,
        # Whether what it leaves running is ended: only in `adopting_orphans`,
        # and where nobody else starts processes in ours.
        ends_left_over: bool = False,
    ) -> None:
        self._target = list(target)
        self._timeout = timeout
        self._ends_left_over = ends_left_over
        self._input = ScriptInput()

    def run(
        self, plan: Plan, environment: Mapping[str, str], *, shown: bool
    ) -> Outcome:
        """Run the script once; where this is interrupted, it has ended too."""
        command = [sys.executable, str(_STARTER), str(plan.write())]
        folder = Path(plan.folder)
        others = set(psutil.Process().children(recursive=True))
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            stdin = stack.enter_context(self._input.open())
            trouble = stack.enter_context(TroubleFile(folder))
            kept = [
                stack.enter_context(KeptOutput(folder / name))
                for name in (() if shown else (OUTPUT, ERRORS))
            ]
            stdout, stderr = (
                (one.handed for one in kept) if kept else (None, None)
            )
            process = subprocess.Popen(
                [*command, *self._target],
                env=dict(environment),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
            self._input.has_started()
            for one in kept:
                one.has_started()
            timed_out = _wait(process, self._timeout)
            seconds = time.monotonic() - started
            left = end_left_over(others) if self._ends_left_over else ()
            if trouble.read():
                raise RecordingError(folder, trouble.read())
        return Outcome(
            code=process.returncode,
            seconds=seconds,
            folder=folder,
            timed_out=timed_out,
            left=left,
        )


class RecordingError(OSError):
    """What a script did could not be recorded, by no fault of its own."""

    def __init__(self, folder: Path, told: str) -> None:
        super().__init__(
            "The temporary folder must stay, and have room, while a script is "
            f"watched. Received: '{folder}', {told}. Make room there, or set "
            "TMPDIR to another place; the script itself is not at fault."
        )


def _wait(process: subprocess.Popen[Any], timeout: float | None) -> bool:
    """Wait for a process; whether it had to be ended."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process)
        return True
    except KeyboardInterrupt:
        # The terminal has told the script as well.
        _let_end(process)
        raise
    except SystemExit:
        # Of `ended_by_signals`: nobody but us was told.
        process.terminate()
        _let_end(process)
        raise
    except BaseException:
        kill_tree(process)
        raise
    return False


def _let_end(process: subprocess.Popen[Any]) -> None:
    """Give a process the time to end by itself, and end what is left then."""
    with contextlib.suppress(
        subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit
    ):
        process.wait(_GRACE)
    kill_tree(process)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """In a block, what asks this process to end raises `SystemExit`."""

    def end(number: int, _: Any) -> None:
        # So that the script ends with us, and our files go.
        raise SystemExit(128 + number)

    ending = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    # In the main thread; one that somebody handles or ignores stays theirs.
    before = {
        one: signal.signal(one, end)
        for one in ending
        if signal.getsignal(one) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def kill_tree(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it has started."""
    # The number of one that has ended may be another's.
    if process.poll() is None:
        _kill(psutil.Process(process.pid).children(recursive=True))
        process.kill()
        process.wait()


def _kill(processes: Sequence[psutil.Process]) -> None:
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.kill()


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """In a block, what the processes below us leave behind becomes ours."""
    # So a process whose parent has gone is still found: on Linux alone.
    adopted = _set_subreaper(True)
    try:
        yield
    finally:
        if adopted:
            _set_subreaper(False)


def _set_subreaper(value: bool) -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        result: int = libc.prctl(_SET_CHILD_SUBREAPER, int(value), 0, 0, 0)
    except (OSError, AttributeError, TypeError):
        return False
    return result == 0


def end_left_over(others: AbstractSet[psutil.Process]) -> tuple[str, ...]:
    """End what runs below us beside some; the commands of what was ended."""
    # Helpers that end by themselves once nobody needs them have a moment to.
    until = time.monotonic() + _MOMENT
    while left := _find_running(others):
        if time.monotonic() > until:
            break
        time.sleep(_PAUSE)
    commands = tuple(map(_read_command, left))
    _kill(left)
    for one in left:
        with contextlib.suppress(OSError):  # Of those that were adopted.
            os.waitpid(one.pid, 0)
    return commands


def _find_running(others: AbstractSet[psutil.Process]) -> list[psutil.Process]:
    """What runs below us, beside some; what has ended is collected."""
    below = set(psutil.Process().children(recursive=True)) - others
    _, running = psutil.wait_procs(below, timeout=0)
    return sorted(running, key=lambda one: one.pid)


def _read_command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(filter(None, process.cmdline()))
    return f"process {process.pid}"


# --- pipes -------------------------------------------------------------------


class _Pipe:
    """A pipe to a process, served by a thread until it is told to stop."""

    def __init__(self, *, is_read: bool) -> None:
        ends = os.pipe()
        self._own, self.handed = ends if is_read else ends[::-1]
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def has_started(self) -> None:
        """The process has its end of the pipe, so we let go of ours."""
        os.close(self.handed)
        self.handed = -1
        self._thread.start()

    def stop(self) -> None:
        """End, whatever the process has read or written."""
        os.write(self._stop, b".")
        if self._thread.ident is not None:
            self._thread.join()
        for descriptor in (
            *(self._own, self.handed),
            *(self._stopping, self._stop),
        ):
            if descriptor >= 0:
                os.close(descriptor)

    def _run(self) -> None:
        raise NotImplementedError


class KeptOutput(_Pipe):
    """Reads what a process writes, and keeps the end of it in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(is_read=True)
        self._path = path
        self._kept, self._num_left_out = b"", 0

    def __enter__(self) -> KeptOutput:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        told = b""
        if self._num_left_out:
            told = b"[%d bytes before are left out]\n" % self._num_left_out
        # A trouble that is under way is told instead of this one.
        with contextlib.suppress(*(() if kind is None else (OSError,))):
            self._path.write_bytes(told + self._kept)

    def _run(self) -> None:
        """Read to the end; to what is there, once the process has ended."""
        while True:
            # What the process has left running may hold the pipe open.
            both = [self._own, self._stopping]
            ready, _, _ = select.select(both, [], [])
            if self._own not in ready:
                return
            chunk = os.read(self._own, _CHUNK)
            if not chunk:
                return
            self._kept += chunk
            if len(self._kept) > 2 * _MOST_KEPT:
                self._leave_out()

    def _leave_out(self) -> None:
        self._num_left_out += len(self._kept) - _MOST_KEPT
        self._kept = self._kept[-_MOST_KEPT:]


# --- standard input ----------------------------------------------------------


class ScriptInput:
    """Gives every process of a script the standard input that we have."""

    # A terminal, a device or a closed input is handed on as it is; a file is
    # read from the same place each time; what came by a pipe is kept and given
    # again.
    def __init__(self) -> None:
        self._descriptor = _find_input()
        self._start = 0
        self._kept: IO[bytes] | None = None
        self._pump: _Pump | None = None
        if self._descriptor is None:
            return
        mode = os.fstat(self._descriptor).st_mode
        self._is_file = stat.S_ISREG(mode)
        if self._is_file:
            self._start = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        elif os.name == "posix" and not stat.S_ISCHR(mode):
            self._kept = tempfile.TemporaryFile()  # noqa: SIM115 - kept open

    @contextlib.contextmanager
    def open(self) -> Iterator[int | None]:
        """The standard input of one process."""
        if self._descriptor is None:
            yield subprocess.DEVNULL
        elif self._kept is not None:
            self._pump = _Pump(self._descriptor, self._kept)
            try:
                yield self._pump.handed
            finally:
                self._pump.stop()
                self._pump = None
        else:
            if self._is_file:
                os.lseek(self._descriptor, self._start, os.SEEK_SET)
            yield self._descriptor

    def has_started(self) -> None:
        """The process has its end of the pipe, so we let go of ours."""
        if self._pump is not None:
            self._pump.has_started()


def _find_input() -> int | None:
    try:
        descriptor = sys.stdin.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor


class _Pump(_Pipe):
    """Gives one process what came already, then what comes."""

    def __init__(self, source: int, kept: IO[bytes]) -> None:
        super().__init__(is_read=False)
        self._source, self._kept = source, kept

    def _run(self) -> None:
        try:
            os.set_blocking(self._own, False)
            self._kept.seek(0)
            while chunk := self._kept.read(_CHUNK):
                if not self._give(chunk):
                    return
            while chunk := self._take():
                self._kept.write(chunk)
                if not self._give(chunk):
                    return
        finally:
            os.close(self._own)
            self._own = -1

    def _take(self) -> bytes:
        """What comes next; nothing at its end, or when we are to stop."""
        ready, _, _ = select.select([self._source, self._stopping], [], [])
        return b"" if self._stopping in ready else os.read(self._source, _CHUNK)

    def _give(self, chunk: bytes) -> bool:
        """Write all of it; whether the process still wants more."""
        while chunk:
            ready, _, _ = select.select([self._stopping], [self._own], [])
            if ready:
                return False
            try:
                chunk = chunk[os.write(self._own, chunk) :]
            except BlockingIOError:
                continue
            except OSError:  # It has closed its input, or ended.
                return False
        return True


def show_output(folder: Path, name: str) -> None:
    """Write what a process wrote to our standard error, whatever that is."""
    with (
        contextlib.suppress(FileNotFoundError),
        (folder / name).open(errors="backslashreplace", newline="") as file,
    ):
        sys.stderr.write(file.read())
    sys.stderr.flush()
