"""A script in a process of its own, as it would run alone."""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from keras_repro.watching.holds import Plan

_STARTER = Path(__file__).parents[1] / "__main__.py"
_CHUNK = 1 << 16
# How long an interrupted script may take to end by itself.
_GRACE = 10.0
OUTPUT, ERRORS = "stdout", "stderr"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a process ended.

    Args:
        code: Its exit code; negative if a signal ended it.
        seconds: How long it took.
        folder: Where it wrote what it did.
        timed_out: Whether it was ended because it took too long.
    """

    code: int
    seconds: float
    folder: Path
    timed_out: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the script came to its end without an error."""
        return self.code == 0 and not self.timed_out


class Launcher:
    """Starts one script again and again.

    Args:
        target: The script, or a module, and its arguments.
        timeout: Seconds that one process may take; `None` for any.
    """

    def __init__(
        self, target: Sequence[str], *, timeout: float | None = None
    ) -> None:
        self._target = list(target)
        self._timeout = timeout
        self._input = ScriptInput()

    def run(
        self, plan: Plan, environment: Mapping[str, str], *, shown: bool
    ) -> Outcome:
        """Run the script once.

        Raises:
            KeyboardInterrupt: If the person interrupted us; the process has
                ended then.
            SystemExit: If we were asked to end, in `ended_by_signals`; so has
                it then.
        """
        command = [sys.executable, str(_STARTER), str(plan.write())]
        folder = Path(plan.folder)
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            stdin = stack.enter_context(self._input.open())
            stdout, stderr = None, None
            if not shown:
                stdout = stack.enter_context((folder / OUTPUT).open("wb"))
                stderr = stack.enter_context((folder / ERRORS).open("wb"))
            process = subprocess.Popen(
                [*command, *self._target],
                env=dict(environment),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
            self._input.has_started()
            timed_out = _wait(process, self._timeout)
        return Outcome(
            code=process.returncode,
            seconds=time.monotonic() - started,
            folder=folder,
            timed_out=timed_out,
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
    """In a block, what asks this process to end raises `SystemExit`.

    So that the script ends with us, and our files go. For the main thread; a
    signal that somebody handles or ignores stays theirs.
    """

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    ending = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
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


# --- standard input ----------------------------------------------------------


class ScriptInput:
    """Gives every process of a script the standard input that we were given.

    A terminal, a device or a closed input is handed on as it is; a file is
    read from the same place each time; what came through a pipe is kept and
    given again.
    """

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


def copy_output(folder: Path, name: str, target: BinaryIO) -> None:
    """Copy what a process wrote."""
    with (
        contextlib.suppress(FileNotFoundError),
        (folder / name).open("rb") as f,
    ):
        while chunk := f.read(_CHUNK):
            target.write(chunk)
    target.flush()
