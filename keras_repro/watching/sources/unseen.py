"""Where a program leaves what can be watched: the network, compiled code."""

from __future__ import annotations

import os
from typing import Any

from keras_repro.common.whose_code import is_installed
from keras_repro.watching.observations import NATIVE, NETWORK

EVENTS = frozenset({"socket.connect", "ctypes.dlopen", "import"})
_HERE = ("127.", "::1", "localhost")


def describe_event(event: str, args: tuple[Any, ...]) -> tuple[str, str] | None:
    """The kind and the name of what one of Python's audit events tells."""
    if event == "socket.connect":
        address = args[1]
        # Within this machine, and where no machine is named, nothing leaves.
        if not isinstance(address, tuple) or not isinstance(address[0], str):
            return None
        host = address[0]
        return None if host.startswith(_HERE) else (NETWORK, host)
    path = args[0] if event == "ctypes.dlopen" else args[1]
    # An import tells a file where that is a library; Python's own and those
    # of packages are what every program uses.
    if not path or is_installed(os.fsdecode(path)):
        return None
    return NATIVE, os.fsdecode(path)
