"""The one way in which this package opens, reads and writes files.

Links: a path that a person named may be a link to a file that exists. In a
folder that we manage (a study, snapshots) nothing is read or written through
a link. Nothing but regular files is ever opened: a pipe would be waited for.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from keras_repro.common.locks import size_of_whole_lines
from keras_repro.common.text import quote

NEXT_STEP = "Pass the path of a file that a ChecksumCallback wrote."
_FLAGS = (
    getattr(os, "O_BINARY", 0)  # Windows would translate line ends.
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
# Versions before wrote the number of the process in place of a random name.
_TEMPORARY = re.compile(r"\..+\.([0-9]+|[0-9a-f]{16})\.tmp")
# Characters: of a record of some 300,000 variables.
LONGEST_LINE = 2**26
_MOST_BYTES = 4 * LONGEST_LINE + 4  # Of UTF-8, and one character more.
_LEFT_OVER = 3600.0  # Seconds: nothing takes as long to write.
# Of a file behind a link, what must be as in the file that replaces it.
_MARK = 16
_NEXT_STEPS = {
    errno.ENOSPC: "Make room on the disk",
    errno.EDQUOT: "Make room in your quota",
    errno.EROFS: "Choose a place that can be written to",
    errno.EACCES: "Change its permissions, or choose another place",
    errno.EPERM: "Change its permissions, or choose another place",
    errno.ENOENT: "Create its folder first",
    errno.ENOTDIR: "Choose a name in a folder",
    errno.EMFILE: "Close files, or raise the limit (ulimit -n)",
    errno.ENFILE: "Close files, or end programs that hold many",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EIO: "Look at the disk, or choose another place",
}


@contextmanager
def os_errors_told(path: Path, what: str) -> Iterator[None]:
    """Give an error of the system its path and a next step, and its type."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror != os.strerror(error.errno):
            raise  # Told already.
        step = _NEXT_STEPS.get(error.errno, "Choose another place")
        raise OSError(
            error.errno,
            f"{what}. Received: {quote(path)} ({error.strerror}). {step}",
        ) from error


def follow_link(path: Path) -> Path:
    """The file that a named path leads to; a link must lead to one."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise FileNotFoundError(
            "`path` may be a link to a file only if that exists. Received: "
            f"{quote(path)}, a link to {quote(path.readlink())}, where there "
            "is none. Name the file itself, or remove the link."
        ) from None


def check_writable(path: Path, *, replaced: bool = False) -> Path:
    """Refuse early a path that cannot be written; give the file behind it."""
    # Refused before there is anything to write: also a link to nothing, a
    # device, a pipe, a socket, and a path whose directory is not there.
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must name a file. Received: {quote(path)}, a directory. "
            'Add a file name, such as "runs.jsonl".'
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "`path` must lie in a directory that exists. Received: "
            f"{quote(path)}. Create {quote(path.parent)} first."
        )
    target = follow_link(path)
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, _say_not_regular(path, "Name a file"))
    written = target if target.exists() and not replaced else target.parent
    if not os.access(written, os.W_OK):
        raise PermissionError(
            f"`path` must be writable. Received: {quote(path)}, which is not. "
            "Choose another place or change its permissions."
        )
    return target


# --- writing -----------------------------------------------------------------


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under another name first: none is ever half there."""
    data = content.encode() if isinstance(content, str) else content
    target = check_writable(path, replaced=True)
    # A link stays one: the file behind it is replaced, if it begins as what is
    # written does.
    if target != path:
        _check_alike(path, target, data)
    # What a killed process has left of earlier tries goes.
    begins = f".{target.name}."
    remove_left_over(target.parent, lambda name: name.startswith(begins))
    with os_errors_told(path, "The file must be written whole"):
        replace_whole(target, data)


def _check_alike(path: Path, target: Path, data: bytes) -> None:
    with open_regular(target) as file:
        if file.read(_MARK) in (data[:_MARK], b""):
            return
    raise ValueError(
        "A link must lead to a file of the same kind as the new one. "
        f"Received: {quote(path)}, a link to {quote(target)}, which begins "
        "otherwise than what would replace it. Name another file, or remove "
        "the link."
    )


def replace_whole(target: Path, data: bytes) -> None:
    """Put a file, whole and on the disk, in place of what is there."""
    folder = target.parent
    temporary = folder / f".{target.name}.{os.urandom(8).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    """Let the new name outlive a power cut; Windows opens no folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_left_over(
    folder: Path,
    belongs: Callable[[str], bool] = lambda _: True,
    *,
    age: float = _LEFT_OVER,
) -> None:
    """Remove temporary files that nobody can be writing any more."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and belongs(entry.name):
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if time.time() - found.st_mtime >= age:
                        Path(entry.path).unlink()


def open_to_append(
    path: Path, *, create: bool = True, managed: bool = False
) -> int:
    """Open a file for `append_line`, `managed` as in `open_regular`."""
    target = path if managed else follow_link(path)
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
    try:
        return _open(target, flags, path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def append_line(descriptor: int, data: bytes, *, may_undo: bool) -> int:
    """Append a line whole or not at all, and end a line that was left torn."""
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
    if size == 0:
        return False
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) != b"\n"


# --- reading -----------------------------------------------------------------


def read_lines(
    path: Path, *, managed: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Read the lines that a file holds now: with locks, none half-written."""
    with open_regular(path, managed=managed) as file:
        # No further than the file reaches now: it ends though others append.
        for number, (_, raw) in enumerate(iterate_lines(file), start=1):
            line = raw.rstrip(b"\r\n")
            if line:
                yield number, line


def iterate_lines(
    file: BinaryIO, start: int = 0
) -> Iterator[tuple[int, bytes]]:
    """The offsets and the raw lines of a file that is open, from an offset."""
    left = size_of_whole_lines(file) - start
    file.seek(start)
    # Of a line longer than any that is written there is the beginning, which
    # is longer than what a reader takes.
    while left > 0 and (line := file.readline(min(left, _MOST_BYTES))):
        yield start, line
        start += len(line)
        left -= len(line)


def open_regular(path: Path, *, managed: bool = False) -> BinaryIO:
    """Open a file to read it, if it is one, and no device or pipe."""
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must name a file. Received: {quote(path)}, a directory. "
            f"{NEXT_STEP}"
        )
    # `managed` says that it lies in a folder of ours, where no link may be.
    target = path if managed else Path(os.path.realpath(path))
    try:
        with os_errors_told(path, "The file must be one that can be read"):
            descriptor = _open(target, os.O_RDONLY, path)
    except FileNotFoundError:
        raise FileNotFoundError(
            "The run's file must exist. Received: "
            f"{quote(path)}, where there is none. {NEXT_STEP}"
        ) from None
    return open(descriptor, "rb")  # noqa: PTH123


def _open(target: Path, flags: int, path: Path) -> int:
    """Open a regular file, and nothing else."""
    try:
        descriptor = os.open(target, flags | _FLAGS, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO) or target.is_symlink():
            raise ValueError(_say_not_regular(path, NEXT_STEP)) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise ValueError(_say_not_regular(path, NEXT_STEP))


def _say_not_regular(path: Path, next_step: str) -> str:
    what = "a link" if path.is_symlink() else "a device or a pipe"
    return (
        f"The file must be a regular one. Received: {quote(path)}, {what}. "
        f"{next_step}"
    )


# --- lines of a watched process ----------------------------------------------


class LineFile:
    """JSON lines of a watched process, each written as it comes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Opened at once, and by the system's own call: what the program changes
        # later is not in the way.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o600)
        self._trouble = _open_trouble(Path(path))

    def write(self, *values: Any) -> None:
        """Append a line for each value, at one go."""
        data = "".join(f"{json.dumps(one)}\n" for one in values).encode()
        told = errno.ENOSPC  # The rest of a line that was written in part.
        try:
            if os.write(self._descriptor, data) == len(data):
                return
        except OSError as error:  # No matter of the program's.
            told = error.errno or told
        if self._trouble is not None:
            _tell(self._trouble, told)


def tell_trouble(folder: Path, error: OSError) -> None:
    """Say that something could not be written, in the file for that."""
    trouble = _open_trouble(folder / _TROUBLE)
    if trouble is not None:
        _tell(trouble, error.errno or errno.EIO)
        os.close(trouble)


def _tell(trouble: int, number: int) -> None:
    with suppress(OSError):
        os.pwrite(trouble, os.strerror(number).encode(), 0)


_TROUBLE, _TROUBLE_SIZE = "trouble", 256


def _open_trouble(path: Path) -> int | None:
    """The file for troubles: beside one, or two folders above a child's."""
    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    for folder in (path.parent, path.parent.parent.parent):
        with suppress(OSError):
            return os.open(folder / _TROUBLE, flags)
    return None


class TroubleFile:
    """Takes what a watched process cannot write elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Has its room from the start, so that it can be told on a full disk,
        # and stays open, so that it can be read though its folder is gone.
        self._file = (folder / _TROUBLE).open("w+b")
        self._file.write(b" " * _TROUBLE_SIZE)
        self._file.flush()

    def __enter__(self) -> TroubleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self) -> str:
        """What went wrong; nothing if nothing did."""
        if not (self._folder / _TROUBLE).is_file():
            return "it was removed meanwhile"
        self._file.seek(0)
        return self._file.read().decode(errors="replace").strip()


def read_json_lines(path: Path) -> Iterator[Any]:
    """What a `LineFile` wrote, without a torn end; nothing if there is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    yield from map(json.loads, lines[:-1])
