"""Who may write a file now: one line at a time, or a study for long."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from keras_repro.common.text import quote

_LOCKED_BYTE = 2**31 - 2
# A reader waits as long for a writer's lock, then reads without it.
_PATIENCE = 1.0
# How a file system says that it has no locks, as some of a network do.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def locked(descriptor: int) -> Iterator[bool]:
    """Hold a file for one line while other processes wait."""
    try:
        import fcntl
    except ImportError:  # Windows
        with _locked_on_windows(descriptor):
            yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held = True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = False
    try:
        # Not held where the file system has no locks.
        yield held
    finally:
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


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


def size_of_whole_lines(file: BinaryIO) -> int:
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
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return os.fstat(file.fileno()).st_size
        else:
            size = os.fstat(file.fileno()).st_size
            fcntl.flock(file, fcntl.LOCK_UN)
            return size


def hold_lock(path: Path, what: str = "study") -> Any:
    """Hold a folder of files until `release()`, or the end of the process."""
    from filelock import FileLock, Timeout

    # Versions before held `flock` on the same file: they see each other.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            errno.EAGAIN,
            f"The {what} must be run by one process at a time. Received: "
            f"{quote(path.parent)}, which another one is running. Wait for it, "
            "or end it",
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise OSError(
            error.errno,
            f"A {what} must lie where files can be locked, so that no two "
            f"processes run it. Received: {quote(path.parent)}, on a file "
            "system that has no locks. Choose a folder on a local disk, and "
            f"copy it when the {what} is done",
        ) from error
    return lock
