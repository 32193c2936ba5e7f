"""The clocks and the process id, where the person's own code asks for them."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Any

from keras_repro.common.whose_code import caller_is_user, find_site
from keras_repro.watching.observations import CLOCK, PROCESS, Audit
from keras_repro.watching.sources.watcher import Watcher

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
            return read(f"time.{name}", value) if caller_is_user() else value

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
        if is_told or not caller_is_user():
            return value
        return read(f"time.{name}", value)

    return calendar


def _make_moment(
    owner: type, name: str, read: Callable[[str, Any], Any]
) -> classmethod[Any, Any, Any]:
    original = vars(owner)[name]

    def moment(cls: type, *args: Any, **kwargs: Any) -> Any:
        value = original.__get__(None, cls)(*args, **kwargs)
        if not caller_is_user():
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
            if not caller_is_user():
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
