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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
        others = {os.getpid(), *_descendants(os.getpid())}
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            stdin = stack.enter_context(self._input.open())
            trouble = stack.enter_context(TroubleFile(folder))
            kept = [
                stack.enter_context(KeptOutput(folder / name))
                for name in (() if shown else (OUTPUT, ERRORS))
            ]
            stdout, stderr = (
                (one.write_end for one in kept) if kept else (None, None)
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
    for pid in _descendants(process.pid):
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.kill()
    process.wait()


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


def end_left_over(others: Iterable[int]) -> tuple[str, ...]:
    """End what runs below us beside some; the commands of what was ended."""
    # Helpers that end by themselves once nobody needs them have a moment to.
    until = time.monotonic() + _MOMENT
    while left := _find_running(others):
        if time.monotonic() > until:
            break
        time.sleep(_PAUSE)
    commands = tuple(map(_read_command, left))
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    for pid in left:
        with contextlib.suppress(OSError):  # Of those that were adopted.
            os.waitpid(pid, 0)
    return commands


def _find_running(others: Iterable[int]) -> list[int]:
    """What runs below us, beside some; what has ended is collected."""
    found = []
    for pid in set(_descendants(os.getpid())).difference(others):
        with contextlib.suppress(OSError):
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue
        found.append(pid)
    return sorted(found)


def _read_command(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return " ".join(os.fsdecode(one) for one in words if one)
    return f"process {pid}"


def _descendants(pid: int) -> list[int]:
    """What a process has started, and what that has; where `/proc` tells."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(
                int(path.parent.name)
            )
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


# --- output ------------------------------------------------------------------


class KeptOutput:
    """Reads what a process writes, and keeps the end of it in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept, self._num_left_out = b"", 0
        self._read_end, self.write_end = os.pipe()
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> KeptOutput:
        return self

    def has_started(self) -> None:
        """The process has its end of the pipe, so we let go of ours."""
        os.close(self.write_end)
        self.write_end = -1
        self._thread.start()

    def __exit__(self, kind: object, *_: object) -> None:
        os.write(self._stop, b".")
        if self._thread.ident is not None:
            self._thread.join()
        for descriptor in (
            *(self._read_end, self.write_end),
            *(self._stopping, self._stop),
        ):
            if descriptor >= 0:
                os.close(descriptor)
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
            both = [self._read_end, self._stopping]
            ready, _, _ = select.select(both, [], [])
            if self._read_end not in ready:
                return
            chunk = os.read(self._read_end, _CHUNK)
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
                yield self._pump.read_end
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
            self._pump.start()


def _find_input() -> int | None:
    try:
        descriptor = sys.stdin.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor


class _Pump:
    """Gives one process what came already, then what comes."""

    def __init__(self, source: int, kept: IO[bytes]) -> None:
        self._source, self._kept = source, kept
        self.read_end, self._write_end = os.pipe()
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        os.close(self.read_end)
        self.read_end = -1
        self._thread.start()

    def stop(self) -> None:
        """End, whether the process has read all or nothing."""
        os.write(self._stop, b".")
        if self._thread.ident is not None:
            self._thread.join()
        else:
            os.close(self._write_end)
        for descriptor in (self.read_end, self._stopping, self._stop):
            if descriptor >= 0:
                os.close(descriptor)

    def _run(self) -> None:
        try:
            os.set_blocking(self._write_end, False)
            self._kept.seek(0)
            while chunk := self._kept.read(_CHUNK):
                if not self._give(chunk):
                    return
            while chunk := self._take():
                self._kept.write(chunk)
                if not self._give(chunk):
                    return
        finally:
            os.close(self._write_end)

    def _take(self) -> bytes:
        """What comes next; nothing at its end, or when we are to stop."""
        ready, _, _ = select.select([self._source, self._stopping], [], [])
        return b"" if self._stopping in ready else os.read(self._source, _CHUNK)

    def _give(self, chunk: bytes) -> bool:
        """Write all of it; whether the process still wants more."""
        while chunk:
            ready, _, _ = select.select([self._stopping], [self._write_end], [])
            if ready:
                return False
            try:
                chunk = chunk[os.write(self._write_end, chunk) :]
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
