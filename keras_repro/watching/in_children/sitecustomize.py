"""Has a Python that a watched script starts watched: run at its very start.

Stands first on the search path of such a process alone, and is off it before
anything else is looked for. The `sitecustomize` that would have been found
without us is run in its place.
"""

import json
import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location


def _find_folder() -> str:
    return os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120


def _watch(told: str) -> None:
    """Load this very package, as the starter of the script does, and begin."""
    package = os.path.dirname(os.path.dirname(_find_folder()))  # noqa: PTH120
    starter = os.path.join(package, "__main__.py")  # noqa: PTH118
    spec = spec_from_file_location("_keras_repro_starter", starter)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.load_package()
    from keras_repro.watching.script import begin_child

    begin_child(told)


def _run_own() -> None:
    """Run the `sitecustomize` that Python would have found without us."""
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _tell_failure(told: str) -> None:
    """Say that this process is not watched."""
    folder = os.path.join(os.path.dirname(json.loads(told)["plan"]), "children")  # noqa: PTH118, PTH120
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    with open(os.path.join(folder, f"{os.getpid()}.failed"), "w"):  # noqa: PTH118, PTH123
        pass


def _start() -> None:
    folder = _find_folder()
    sys.path[:] = [one for one in sys.path if os.path.abspath(one) != folder]  # noqa: PTH100
    told = os.environ.pop("KERAS_REPRO_WATCHED", None)
    try:
        if told is not None:
            _watch(told)
    except Exception:  # noqa: BLE001 - such as an environment without msgspec
        with suppress(OSError):
            _tell_failure(told or "{}")
    finally:
        _run_own()


# Not where tools import this file to look at it.
if __name__ == "sitecustomize":
    _start()
