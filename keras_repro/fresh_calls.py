"""A function of this process, called in fresh ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import keras

from keras_repro.laboratory import Fixes, ScriptLaboratory
from keras_repro.pickling import pack
from keras_repro.processes import Launcher

_RUNNER = "keras_repro.fresh_runner"


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
    (home / "payload.pickle").write_bytes(pack(payload))
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
