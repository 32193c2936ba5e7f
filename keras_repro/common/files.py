"""A file of lines: appended to whole under a lock, read without surprises."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_LOCKED_BYTE = 2**31 - 2
# A reader waits as long for a writer's lock, then reads without it.
_PATIENCE = 1.0
NEXT_STEP = "Pass the path of a file that a ChecksumCallback wrote."


def check_writable(path: Path, *, replaced: bool = False) -> None:
    """Refuse a path that cannot be written, before there is anything to write.

    Raises:
        OSError: `IsADirectoryError`, `FileNotFoundError` (no directory) or
            `PermissionError`.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must name a file. Received: '{path}', a directory. Add a "
            'file name, such as "runs.jsonl".'
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "`path` must lie in a directory that exists. Received: "
            f"'{path}'. Create '{path.parent}' first."
        )
    written = path if path.exists() and not replaced else path.parent
    if not os.access(written, os.W_OK):
        raise PermissionError(
            f"`path` must be writable. Received: '{path}', which is not. "
            "Choose another place or change its permissions."
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name first: none is ever half there.

    Raises:
        OSError: If it cannot be written; an older one is as it was.
    """
    check_writable(path, replaced=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def open_to_append(path: Path, *, create: bool = True) -> int:
    """Open a file for `append_line`."""
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
    # Windows would translate line ends without this flag.
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags, 0o666)


def append_line(descriptor: int, data: bytes, *, may_undo: bool) -> int:
    """Append a line whole or not at all.

    A line that somebody else left torn is ended first.

    Raises:
        OSError: If it could not be written whole; what was written of it is
            taken back, where it may and can be.
    """
    start = os.lseek(descriptor, 0, os.SEEK_END)
    torn = _ends_torn(descriptor, start)
    left = b"\n" + data if torn else data
    try:
        while left:
            left = left[_write_some(descriptor, left) :]
    except BaseException:
        if may_undo:
            with suppress(OSError):
                os.ftruncate(descriptor, start)
        raise
    return start + torn


def _write_some(descriptor: int, data: bytes) -> int:
    written = os.write(descriptor, data)
    if not written:
        raise OSError(errno.EIO, "Nothing could be written")
    return written


def _ends_torn(descriptor: int, size: int) -> bool:
    """Whether the last line was cut off before its line break."""
    if size == 0:
        return False
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) != b"\n"


@contextmanager
def locked(descriptor: int) -> Iterator[bool]:
    """Hold a file for one line; other processes wait."""
    try:
        import fcntl
    except ImportError:  # Windows
        with _locked_on_windows(descriptor):
            yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held = True
    except OSError:  # Some network file systems have no locks.
        held = False
    try:
        yield held
    finally:
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def hold_lock(path: Path) -> BinaryIO:
    """Hold a file for as long as this process wants it alone.

    Raises:
        BlockingIOError: If another process holds it.
    """
    file = path.open("ab")
    try:
        _take_lock(file)
    except OSError as error:
        file.close()
        raise BlockingIOError(
            errno.EAGAIN,
            "The study must be run by one process at a time. Received: "
            f"'{path.parent}', which another one is running. Wait for it, or "
            "end it",
        ) from error
    return file


def _take_lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        windows: Any = msvcrt
        file.seek(0)
        windows.locking(file.fileno(), windows.LK_NBLCK, 1)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # Some network file systems have no locks.
        return


@contextmanager
def _locked_on_windows(descriptor: int) -> Iterator[None]:
    import msvcrt

    windows: Any = msvcrt  # Typed as empty on other systems.
    lock = windows.locking
    # A locked byte cannot be read there: take one that no file reaches.
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    lock(descriptor, windows.LK_LOCK, 1)
    try:
        yield
    finally:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        lock(descriptor, windows.LK_UNLCK, 1)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read the lines that a file holds now.

    Raises:
        ValueError: If it is no regular file.
        OSError: `FileNotFoundError`, `IsADirectoryError` and what the system
            raises.

    Scope:
        Reads no further than the file reached at the start, so it ends though
        others append. With locks, no line is seen half-written.
    """
    with open_regular(path) as file:
        for number, (_, raw) in enumerate(iterate_lines(file), start=1):
            line = raw.rstrip(b"\r\n")
            if line:
                yield number, line


def iterate_lines(
    file: BinaryIO, start: int = 0
) -> Iterator[tuple[int, bytes]]:
    """The offsets and the raw lines of a file that is open, from an offset."""
    left = _whole_size(file) - start
    file.seek(start)
    while left > 0 and (line := file.readline(left)):
        yield start, line
        start += len(line)
        left -= len(line)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, if it is one, and no device or pipe."""
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must name a file. Received: '{path}', a directory. "
            f"{NEXT_STEP}"
        )
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        file = open(os.open(path, flags), "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError:
        raise FileNotFoundError(
            "The run's file must exist. Received: "
            f"'{path}', where there is none. {NEXT_STEP}"
        ) from None
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise ValueError(
        f"The file must be a run's file. Received: '{path}', a device or a "
        f"pipe. {NEXT_STEP}"
    )


def _whole_size(file: BinaryIO) -> int:
    """The size when nobody writes, so that no line is seen half-written."""
    try:
        import fcntl
    except ImportError:  # Windows
        return os.fstat(file.fileno()).st_size
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # Somebody writes, or was stopped writing.
            if time.monotonic() > deadline:
                return os.fstat(file.fileno()).st_size
            time.sleep(0.001)
        except OSError:  # Some network file systems have no locks.
            return os.fstat(file.fileno()).st_size
        else:
            size = os.fstat(file.fileno()).st_size
            fcntl.flock(file, fcntl.LOCK_UN)
            return size


class LineFile:
    """JSON lines of a watched process, each written as it comes.

    Opened at once, and by the system's own call: what the program changes
    later is not in the way.

    Args:
        path: The file; made if there is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o600)

    def write(self, *values: Any) -> None:
        """Append a line for each value, at one go."""
        lines = "".join(f"{json.dumps(one)}\n" for one in values)
        with suppress(OSError):  # A full disk is no matter of the program's.
            os.write(self._descriptor, lines.encode())


def read_json_lines(path: Path) -> Iterator[Any]:
    """What a `LineFile` wrote, without a torn end; nothing if there is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    yield from map(json.loads, lines[:-1])
