"""Python's own sources of entropy, its clocks and its files, watched.

Each function here replaces some functions of the standard library by ones
that do the same, note it, and can be held still. `Patches` puts them back.
"""

from __future__ import annotations

import datetime
import os
import random
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from keras_repro.audit import Audit
from keras_repro.entropy import Entropy
from keras_repro.notes import CLOCK, LISTING, NETWORK, PROCESS, READ, WRITE
from keras_repro.patches import Patches
from keras_repro.sites import (
    Site,
    caller_is_user,
    find_site,
    is_installed,
)

_NUM_SEED_BYTES = 32


class Watcher:
    """What every source needs.

    Args:
        audit: Where things are noted.
        entropy: Where fresh bytes come from.
        patches: What is replaced, to be put back.
    """

    def __init__(
        self, audit: Audit, entropy: Entropy, patches: Patches
    ) -> None:
        self.audit, self.entropy, self.patches = audit, entropy, patches

    def draw(self, name: str, num_bytes: int) -> bytes:
        """Fresh bytes for a function, noted."""
        site = find_site()
        if not self.audit.is_muted:
            self.audit.note_entropy(name, site)
        return self.entropy.draw(name, _place_of(site), num_bytes)

    def draw_number(self, name: str) -> int:
        """A fresh seed for a function, noted."""
        return int.from_bytes(self.draw(name, _NUM_SEED_BYTES), "little")


def _place_of(site: Site | None) -> str:
    return "" if site is None else f"{site.place}|{site.at}"


# --- random, os, uuid --------------------------------------------------------

_instance = getattr(random, "_inst", None)


def watch_random(watcher: Watcher) -> None:
    """Watch `random`: its global generator, and those made without a seed.

    The global generator starts from the key `python`.
    """
    audit, patches = watcher.audit, watcher.patches
    base, seed_instance = random.Random, random.Random.seed

    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        if a is None:
            value = watcher.draw_number("random.Random")
            return seed_instance(self, value, version)
        if not audit.is_muted:
            a = audit.note_seed("", "random.Random", a)
        return seed_instance(self, a, version)

    class WatchedRandom(base):  # type: ignore[misc, valid-type]
        """The global generator; it is seeded, drawn from and set here."""

        def random(self) -> float:
            audit.note_draw("python")
            return base.random(self)

        def getrandbits(self, k: int, /) -> int:
            audit.note_draw("python")
            return base.getrandbits(self, k)

        def seed(self, a: Any = None, version: int = 2) -> None:
            if a is None:
                a = watcher.draw_number("random.seed")
            elif not audit.is_muted:
                a = audit.note_seed("python", "random.seed", a)
            seed_instance(self, a, version)

        def getstate(self) -> Any:
            state = base.getstate(self)
            audit.note_state_read("python", state)
            return state

        def setstate(self, state: Any) -> None:
            audit.note_state_put("python", state)
            base.setstate(self, state)

    if _instance is None:  # Only in a Python that has no such attribute.
        return
    seed_instance(_instance, watcher.entropy.start_of("python"))
    patches.replace(random.Random, "seed", seed)
    _instance.__class__ = WatchedRandom
    patches.also_undo(lambda: setattr(_instance, "__class__", base))
    for name, value in list(vars(random).items()):
        if getattr(value, "__self__", None) is _instance:
            patches.replace(random, name, getattr(_instance, name))


def watch_system(watcher: Watcher) -> None:
    """Watch what the operating system gives: `os.urandom` and its users."""
    patches = watcher.patches

    def urandom(size: int, /) -> bytes:
        return watcher.draw(_name_caller(), size)

    patches.replace(os, "urandom", urandom)
    if hasattr(random, "_urandom"):  # `SystemRandom` and `secrets`.
        patches.replace(random, "_urandom", urandom)

    def uuid1(node: Any = None, clock_seq: Any = None) -> uuid.UUID:
        if node is not None or clock_seq is not None:
            return _uuid1(node, clock_seq)
        return uuid.UUID(bytes=watcher.draw("uuid.uuid1", 16), version=1)

    _uuid1 = uuid.uuid1
    patches.replace(uuid, "uuid1", uuid1)


def _name_caller() -> str:
    """Who asked for bytes, by the name that a person knows."""
    frame = sys._getframe(2)
    module = str(frame.f_globals.get("__name__", ""))
    if module == "uuid":
        return "uuid.uuid4"
    if module in ("random", "secrets"):
        back = frame.f_back
        while back is not None and back.f_globals.get("__name__") == module:
            back = back.f_back
        name = "" if back is None else str(back.f_globals.get("__name__"))
        return "secrets" if name == "secrets" else "random.SystemRandom"
    return "os.urandom"


# --- clocks and the process --------------------------------------------------

_CLOCKS = (
    *("time", "time_ns", "perf_counter", "perf_counter_ns"),
    *("monotonic", "monotonic_ns", "process_time", "process_time_ns"),
)


def watch_clock(watcher: Watcher) -> None:
    """Watch the clocks that the person's own code reads."""
    audit, patches = watcher.audit, watcher.patches

    def read(name: str, value: Any) -> Any:
        return _give(audit, CLOCK, "clock", name, value)

    def make_clock(name: str) -> Callable[[], Any]:
        original = getattr(time, name)

        def clock() -> Any:
            value = original()
            return read(f"time.{name}", value) if caller_is_user(2) else value

        return clock

    for name in _CLOCKS:
        patches.replace(time, name, make_clock(name))
    for name in ("localtime", "gmtime", "ctime", "asctime", "strftime"):
        patches.replace(time, name, _make_calendar(name, read))
    for owner, name in (
        (datetime.datetime, "now"),
        (datetime.datetime, "utcnow"),
        (datetime.date, "today"),  # Inherited by `datetime`.
    ):
        method = _make_moment(owner, name, read)
        patches.replace_in_type(owner, name, method)


def _make_calendar(
    name: str, read: Callable[[str, Any], Any]
) -> Callable[..., Any]:
    """`time.strftime` and its like, which read the clock if not told a time."""
    original = getattr(time, name)
    num_told = 2 if name == "strftime" else 1

    def calendar(*args: Any) -> Any:
        value = original(*args)
        is_told = len(args) >= num_told and args[num_told - 1] is not None
        if is_told or not caller_is_user(2):
            return value
        return read(f"time.{name}", value)

    return calendar


def _make_moment(
    owner: type, name: str, read: Callable[[str, Any], Any]
) -> classmethod[Any, Any, Any]:
    original = vars(owner)[name]

    def moment(cls: type, *args: Any, **kwargs: Any) -> Any:
        value = original.__get__(None, cls)(*args, **kwargs)
        if not caller_is_user(2):
            return value
        return read(f"{owner.__name__}.{name}", value)

    return classmethod(moment)


def watch_process(watcher: Watcher) -> None:
    """Watch the process id, where the person's own code asks for it."""
    audit = watcher.audit

    def make(name: str) -> Callable[[], int]:
        original: Callable[[], int] = getattr(os, name)

        def get() -> int:
            value = original()
            if not caller_is_user(2):
                return value
            result: int = _give(audit, PROCESS, "process", f"os.{name}", value)
            return result

        return get

    for name in ("getpid", "getppid"):
        watcher.patches.replace(os, name, make(name))


def _give(audit: Audit, kind: str, replay: str, name: str, value: Any) -> Any:
    site = find_site()
    if site is None or audit.is_muted:
        return value
    audit.note(kind, name, site=site)
    return audit.give(replay, f"{site.place} {name}", value)


# --- files -------------------------------------------------------------------

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READING_TOO = os.O_RDWR | os.O_APPEND
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib", "/usr/share/")
_CODE = (".py", ".pyc", ".so", ".pyi", ".pth", ".pyd", ".dll")
_LISTINGS = {"os.listdir": 0, "os.scandir": 0, "glob.glob": 0}
_CHANGES = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
}


class FileWatcher:
    """Notes the files that a process reads and writes.

    By Python's own audit events, which nothing can take back: for a process
    of ours alone.

    Args:
        audit: Where things are noted.
        keep: Called with the path of what is about to be written.
        folder: Our own, which is passed over.
    """

    def __init__(
        self, audit: Audit, keep: Callable[[str], None], folder: str
    ) -> None:
        self._audit, self._keep = audit, keep
        self._folder = os.path.abspath(folder)  # noqa: PTH100 - as below
        self._seen: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Begin to watch; there is no way to stop."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if type(path) is str and not path.endswith(_CODE):
                self._note_open(path, flags)
        elif event == "os.mkdir" and _is_folder(args[0]):
            return  # It fails, and changes nothing.
        elif event in _CHANGES:
            for position in _CHANGES[event]:
                self._note_path(WRITE, args[position])
        elif event in _LISTINGS:
            self._note_path(LISTING, args[0] if args else None)
        elif event == "sqlite3.connect":
            self._note_path(READ, args[0])
            self._note_path(WRITE, args[0])
        elif event == "socket.connect" and isinstance(args[1], tuple):
            self._note_connection(args[1])

    def _note_open(self, path: str, flags: int) -> None:
        if not flags & _WRITING:
            self._note_path(READ, path)
            return
        if flags & _READING_TOO and not flags & os.O_TRUNC:
            self._note_path(READ, path)
        self._note_path(WRITE, path)

    def _note_path(self, kind: str, path: Any) -> None:
        audit = self._audit
        if audit.is_muted:
            return
        name = None
        with suppress(Exception), audit.muted():
            name = self._name_file(path)
            if name is not None and kind == WRITE:
                self._keep(name)
        if name is not None and (kind, name) not in self._seen:
            self._seen.add((kind, name))
            audit.note(kind, name)

    def _name_file(self, path: Any) -> str | None:
        """Its absolute path; `None` where it is none of the program's."""
        # Not `Path`: it is called for every file that is opened, and links
        # are to stay what they are.
        given = os.fsdecode("." if path is None else path)
        name = os.path.abspath(given)  # noqa: PTH100
        if name.startswith((*_SYSTEM, self._folder)) or is_installed(name):
            return None
        return name

    def _note_connection(self, address: tuple[Any, ...]) -> None:
        host = str(address[0])
        if not host.startswith(("127.", "::1", "localhost")):
            with suppress(Exception):
                self._audit.note(NETWORK, f"{host}:{address[1]}")

    def note(self, path: str | os.PathLike[str], *, writes: bool) -> None:
        """Note a file that a library opens without telling Python."""
        if not writes:
            self._note_path(READ, path)
        else:
            self._note_path(WRITE, path)


def _is_folder(path: Any) -> bool:
    try:
        return Path(path).is_dir()
    except (TypeError, ValueError):
        return False
