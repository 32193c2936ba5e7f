"""A function of this process, called in fresh ones."""

from __future__ import annotations

import io
import json
import marshal
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import cloudpickle
import keras

from keras_repro.laboratory import Fixes, ScriptLaboratory
from keras_repro.processes import Launcher

_RUNNER = "keras_repro.fresh_runner"


class PicklingError(Exception):
    """A function cannot be sent to another process; the message says why."""


def make_script(
    payload: tuple[Any, tuple[Any, ...]], folder: Path
) -> ScriptLaboratory:
    """Make a script that calls a function, and what runs it.

    Args:
        payload: The function and its arguments; sent by value where they
            were made in the main program or in a notebook.
        folder: A private folder.

    Returns:
        Runs the script in fresh processes, on the backend of this one.

    Raises:
        PicklingError: If the function or an argument cannot be pickled.
    """
    home = folder / "fresh"
    home.mkdir()
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(payload)
    except Exception as error:
        msg = f"it cannot be sent to another process: {error}"
        raise PicklingError(msg) from error
    (home / "payload.pickle").write_bytes(buffer.getvalue())
    paths = [str(Path(one or ".").resolve()) for one in sys.path]
    text = json.dumps([paths, sys.argv])
    (home / "process.json").write_text(text, encoding="utf-8")
    processes = home / "processes"
    processes.mkdir()
    return ScriptLaboratory(
        Launcher([_RUNNER, str(home)]),
        processes,
        Fixes(),
        module=True,
        environment={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps the names of files, which say where something was done."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):
            return marshal.loads, (marshal.dumps(obj),)
        return super().reducer_override(obj)
