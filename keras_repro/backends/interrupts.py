"""Sections that an interrupt from the keyboard waits for.

Half of a section that puts streams in or takes them out would leave the
program with another's generators. While a section may run, a handler of ours
stands where Python's own stood: it raises where the program, Keras or a step
runs, and asks again a little later where a section does, or what would drop the
interrupt.
"""

from __future__ import annotations

import _thread
import functools
import gc
import inspect
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_AGAIN_AFTER = 0.01  # Seconds.
# The frame of a context manager that is a generator is there while it is
# entered or left, and not while its block runs.
_FOLDERS = ("keras_repro.backends.", "keras_repro.model.")
# It drops whatever is raised while it converts logs (Keras 3.12 to 3.15), and
# there a step that was begun is waited for: an interrupt would often be lost.
_DROPS_ALL = "keras.src.utils.python_utils"


def undivided(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Have a function run to its end before an interrupt is heard."""

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        is_ours = listen()
        try:
            return function(*args, **kwargs)
        finally:
            if is_ours:
                stop_listening()

    return run


def listen() -> bool:
    """Have interrupts wait for sections; tell if `stop_listening` is due."""
    # Not in another thread, where no signal is heard, nor where a program has
    # a handler of its own.
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return False
    signal.signal(signal.SIGINT, _on_interrupt)
    return True


def stop_listening() -> None:
    """Put Python's handler back, unless the program has set another one."""
    if signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if not _must_wait(frame):
        signal.default_int_handler(number, frame)
    # Asked again in here, it would be heard before this handler has ended. The
    # classes of `threading` take locks, which the section may hold.
    _thread.start_new_thread(_interrupt_later, ())


def _interrupt_later() -> None:
    time.sleep(_AGAIN_AFTER)
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        # It also ends what the main thread waits for, as a key would.
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _must_wait(frame: FrameType | None) -> bool:
    """Whether a section, or what drops interrupts, is under way at a frame."""
    if frame is not None and frame.f_globals.get("__name__") == "contextlib":
        return True  # On its way into one, or out of it.
    # Python drops what is raised while it collects garbage.
    collecting = {getattr(one, "__code__", None) for one in gc.callbacks}
    while frame is not None:
        name, code = frame.f_globals.get("__name__", ""), frame.f_code
        is_entered = code.co_flags & inspect.CO_GENERATOR
        if (
            name in (__name__, _DROPS_ALL)
            or (is_entered and name.startswith(_FOLDERS))
            or code in collecting
            or code.co_name == "__del__"
        ):
            return True
        frame = frame.f_back
    return False
