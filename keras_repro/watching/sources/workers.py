"""Pools of workers, how many threads compute, and what may race in them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from keras_repro.common.whose_code import caller_is_user, find_maker, find_site
from keras_repro.watching.observations import OP, PARALLEL, THREADS
from keras_repro.watching.sources.watcher import Watcher

# What they run in parallel for themselves is no doing of the program.
FRAMEWORKS = frozenset({"keras", "tensorflow", "torch", "jax"})


# The class that a module of Python's has, and what says how many they are.
POOLS = {
    "concurrent.futures.process": ("ProcessPoolExecutor", "max_workers"),
    "concurrent.futures.thread": ("ThreadPoolExecutor", "max_workers"),
    "multiprocessing.pool": ("Pool", "processes"),
}


def watch_pool(watcher: Watcher, module: Any) -> None:
    """Watch the pool of workers of one of Python's own modules."""
    name, argument = POOLS[module.__name__]
    watch_workers(watcher, getattr(module, name), argument)


def watch_completion(watcher: Watcher, module: Any) -> None:
    """Watch `concurrent.futures.as_completed`, which gives any order."""
    as_completed = module.as_completed

    @watcher.patches.in_place_of("as_completed", module)
    def in_order(fs: Iterable[Any], timeout: Any = None) -> Iterator[Any]:
        watcher.audit.note(PARALLEL, "concurrent.futures.as_completed")
        if watcher.plan.num_workers is None:
            found: Iterator[Any] = as_completed(fs, timeout)
            return found
        return _wait_in_order(list(fs), timeout)


def _wait_in_order(futures: list[Any], timeout: Any) -> Iterator[Any]:
    for future in futures:
        future.exception(timeout)
        yield future


def watch_workers(
    watcher: Watcher,
    owner: Any,
    argument: str,
    *,
    one: int = 1,
    dropped: tuple[str, ...] = (),
) -> None:
    """Watch a class of workers, as many as an argument says."""
    make = owner.__init__
    signature = inspect.signature(make)

    @watcher.patches.in_place_of("__init__", owner)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            make(self, *args, **kwargs)
            return
        number = bound.arguments.get(argument)
        default = signature.parameters[argument].default
        number = default if number is None else number
        if number is None or number > 1 or (one == 0 and number > 0):
            _note_workers(watcher, self, owner.__name__)
            if watcher.plan.num_workers is not None:
                bound.arguments[argument] = one
                for each in dropped:
                    bound.arguments.pop(each, None)
        make(*bound.args, **bound.kwargs)


def _note_workers(watcher: Watcher, made: Any, name: str) -> None:
    site = find_maker(made)
    if site is not None and site.library not in FRAMEWORKS:
        watcher.audit.note(PARALLEL, name, site=site)


def watch_count(
    watcher: Watcher, owner: Any, attribute: str, name: str
) -> None:
    """Watch a function that sets a number of threads, and hold it."""
    setter, held = getattr(owner, attribute), watcher.plan.num_threads
    if held is not None:
        # Some refuse a number once they have begun to compute.
        with suppress(RuntimeError):
            setter(held)

    @watcher.patches.in_place_of(attribute, owner)
    def set_count(number: int) -> Any:
        site = find_site()
        if site is not None and not watcher.audit.is_muted:
            place = f"{site.place} {name}"
            number = watcher.audit.give("thread_counts", place, number)
            watcher.audit.note(THREADS, name, site=site, value=number)
        return setter(number if held is None else held)


def watch_ops(
    watcher: Watcher, owner: Any, names: Iterable[str], prefix: str
) -> None:
    """Note where a program itself calls ops whose kernels may race."""
    audit = watcher.audit

    def watch(name: str, original: Any) -> None:
        @watcher.patches.in_place_of(name, owner)
        def op(*args: Any, **kwargs: Any) -> Any:
            # Frameworks call them often, and know what they do.
            if caller_is_user():
                audit.note(OP, f"{prefix}.{name}")
            return original(*args, **kwargs)

    for name in names:
        original = getattr(owner, name, None)
        if original is not None:
            watch(name, original)
