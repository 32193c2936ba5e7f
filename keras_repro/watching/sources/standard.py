"""Python's own sources of entropy, watched: `random`, `os.urandom`, `uuid`."""

from __future__ import annotations

import os
import random
import sys
import uuid
from typing import Any

from keras_repro.watching.sources.watcher import Watcher, methods_of

_instance = getattr(random, "_inst", None)


def watch_random(watcher: Watcher) -> None:
    """Watch `random`: its global generator, and those made without a seed."""
    if _instance is None:  # Only in a Python that has no such attribute.
        return
    patches = watcher.patches
    base: Any = type(_instance)  # Another watch's, where one is under way.
    seed_instance = random.Random.seed
    watched = _make_watched_class(watcher, base)

    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        seed_instance(self, watcher.take_seed("random.Random", a), version)

    seed_instance(_instance, watcher.entropy.start_of("python"))
    patches.replace(random.Random, "seed", seed)
    _instance.__class__ = watched
    patches.also_undo(lambda: setattr(_instance, "__class__", base))
    for name in methods_of(_instance, random):
        patches.replace(random, name, getattr(_instance, name))


def _make_watched_class(watcher: Watcher, base: Any) -> Any:
    audit = watcher.audit
    seed_instance = random.Random.seed
    fresh = random.Random()

    class WatchedRandom(base):  # type: ignore[misc]
        """The global generator; it is seeded, drawn from and set here."""

        def random(self) -> float:
            audit.note_draw("python")
            value: float = base.random(self)
            return fresh.random() if watcher.is_freed("python") else value

        def getrandbits(self, k: int, /) -> int:
            audit.note_draw("python")
            value: int = base.getrandbits(self, k)
            if watcher.is_freed("python"):
                return fresh.getrandbits(k)
            return value

        def seed(self, a: Any = None, version: int = 2) -> None:
            a = watcher.take_seed("random.seed", a, "python")
            seed_instance(self, a, version)

        def getstate(self) -> Any:
            state = base.getstate(self)
            audit.note_state_read("python", state)
            return state

        def setstate(self, state: Any) -> None:
            audit.note_state_put("python", state)
            base.setstate(self, state)

    return WatchedRandom


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
