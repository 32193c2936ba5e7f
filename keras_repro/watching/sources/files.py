"""The files that a process reads and writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from keras_repro.common.whose_code import find_site, is_installed
from keras_repro.watching.observations import (
    LISTING,
    READ,
    WRITE,
    Audit,
    get_process,
)
from keras_repro.watching.sources.unseen import EVENTS, describe_event
from keras_repro.watching.sources.watcher import Watcher

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READING_TOO = os.O_RDWR | os.O_APPEND
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib", "/usr/share/")
_CODE = (".py", ".pyc", ".so", ".pyi", ".pth", ".pyd", ".dll")
_LISTINGS = frozenset({"os.listdir", "os.scandir", "glob.glob"})
# Which arguments of an event are paths, and which the folder of each.
_CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
}
_SEEN_EVENTS = frozenset(
    {"open", "sqlite3.connect", *_LISTINGS, *_CHANGES, *EVENTS}
)


class FileWatcher:
    """Notes the files that a process of ours reads and writes."""

    def __init__(
        self, audit: Audit, keep: Callable[[str], None], folder: str
    ) -> None:
        self._audit, self._keep = audit, keep
        self._folder = os.path.abspath(folder)  # noqa: PTH100 - as below
        self._process = get_process()

    def start(self) -> None:
        """Begin to watch; there is no way to stop."""
        # Python's own audit events: nothing can take a hook back.
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _SEEN_EVENTS:
            return
        if event in EVENTS:
            with suppress(Exception):  # As below.
                self._note_unseen(event, args)
            return
        # An exception from here would be one of what the program does; where
        # Python itself opens its script, there is no frame.
        with suppress(Exception):
            # The import of a module opens and lists a lot, and is no reading.
            caller = sys._getframe(1).f_code.co_filename
            if not caller.startswith("<frozen importlib"):
                self._note_event(event, args)

    def _note_unseen(self, event: str, args: tuple[Any, ...]) -> None:
        if self._audit.is_muted:
            return
        with self._audit.muted():
            found = describe_event(event, args)
            site = None if found is None else find_site()
        # What a library does by itself is not what the program has used.
        if found is not None and site and not is_installed(site.file):
            self._audit.note(*found, site=site)

    def _note_event(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if type(path) is str and not path.endswith(_CODE):
                self._note_open(path, flags)
        elif event in _CHANGES:
            if event == "os.mkdir" and _is_folder(args[0]):
                return  # It fails, and changes nothing.
            for position, folder in _CHANGES[event]:
                path = args[position]
                if folder is not None:
                    path = _join_folder(path, args[folder])
                self._note_path(WRITE, path)
        elif event in _LISTINGS:
            # Without an argument it is the current folder.
            self._note_path(LISTING, (args and args[0]) or ".")
        else:  # "sqlite3.connect"
            self._note_path(READ, args[0])
            self._note_path(WRITE, args[0])

    def _note_open(self, path: str, flags: int) -> None:
        if not flags & _WRITING:
            self._note_path(READ, path)
            return
        # What must not exist, or is emptied, holds nothing of an earlier run.
        if flags & _READING_TOO and not flags & (os.O_TRUNC | os.O_EXCL):
            self._note_path(READ, path)
        self._note_path(WRITE, path)

    def _note_path(self, kind: str, path: Any) -> None:
        audit = self._audit
        # What a child writes, its parent's copies are none of.
        if path is None or audit.is_muted or get_process() != self._process:
            return
        name = None
        with audit.muted():
            name = self._name_file(path)
            if name is not None and kind == WRITE:
                self._keep(name)
        if name is not None:
            audit.note(kind, name)

    def _name_file(self, path: Any) -> str | None:
        """Its absolute path; `None` where it is none of the program's."""
        # Not `Path`: it is called for every file that is opened, and links
        # are to stay what they are.
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        if name.startswith((*_SYSTEM, self._folder)) or is_installed(name):
            return None
        return name

    def note(self, path: object, *, writes: bool) -> None:
        """Note a file that a library opens without telling Python."""
        self._note_path(WRITE if writes else READ, path)


def _join_folder(path: Any, descriptor: int) -> Any:
    """A path that is relative to an open folder; -1 stands for none."""
    if descriptor == -1:
        return path
    with suppress(OSError, TypeError, ValueError):
        folder = Path(f"/proc/self/fd/{descriptor}").readlink()
        return str(folder / os.fsdecode(path))
    return None


def _is_folder(path: Any) -> bool:
    try:
        return Path(path).is_dir()
    except (TypeError, ValueError):
        return False


def watch_h5py(watcher: Watcher, h5py: Any) -> None:
    """Watch the files that HDF5 opens, of which Python hears nothing."""
    files = watcher.files
    if files is None:
        return
    make = h5py.File.__init__

    @watcher.patches.in_place_of("__init__", h5py.File)
    def init(self: Any, name: Any, mode: str = "r", **kwargs: Any) -> None:
        if isinstance(name, (str, bytes)) or hasattr(name, "__fspath__"):
            if mode in ("r", "r+", "a"):
                files.note(name, writes=False)
            if mode != "r":
                files.note(name, writes=True)
        make(self, name, mode, **kwargs)
