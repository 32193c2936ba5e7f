"""The clocks and the process id, where the person's own code asks for them."""

from __future__ import annotations

import datetime
import os
import time
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
    for name in _CLOCKS:
        _watch(watcher, CLOCK, time, name)
    for name in ("localtime", "gmtime", "ctime", "asctime", "strftime"):
        num_told = 2 if name == "strftime" else 1
        _watch(watcher, CLOCK, time, name, num_told)
    for owner, name in (
        (datetime.datetime, "now"),
        (datetime.datetime, "utcnow"),
        (datetime.date, "today"),  # Inherited by `datetime`.
    ):
        method = _make_moment(watcher.audit, owner, name)
        watcher.patches.replace_in_type(owner, name, method)


def watch_process(watcher: Watcher) -> None:
    """Watch the process id, where the person's own code asks for it."""
    for name in ("getpid", "getppid"):
        _watch(watcher, PROCESS, os, name)


def _watch(
    watcher: Watcher,
    kind: str,
    module: Any,
    name: str,
    # With so many arguments it is told a time, and reads none.
    num_told: int | None = None,
) -> None:
    original = getattr(module, name)

    def read(*args: Any) -> Any:
        value = original(*args)
        is_told = len(args) == num_told and args[-1] is not None
        if is_told or not caller_is_user():
            return value
        return _give(watcher.audit, kind, f"{module.__name__}.{name}", value)

    watcher.patches.replace(module, name, read)


def _make_moment(
    audit: Audit, owner: type, name: str
) -> classmethod[Any, Any, Any]:
    original = vars(owner)[name]

    def moment(cls: type, *args: Any, **kwargs: Any) -> Any:
        value = original.__get__(None, cls)(*args, **kwargs)
        if not caller_is_user():
            return value
        return _give(audit, CLOCK, f"{owner.__name__}.{name}", value)

    return classmethod(moment)


def _give(audit: Audit, kind: str, name: str, value: Any) -> Any:
    site = find_site()
    if site is None or audit.is_muted:
        return value
    audit.note(kind, name, site=site)
    return audit.give(kind, f"{site.place} {name}", value)
