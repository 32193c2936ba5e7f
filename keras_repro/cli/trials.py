"""The command `keras-repro trials`: run a study, show it, compare studies."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_repro.cli.arguments import MisuseError

if TYPE_CHECKING:
    from keras_repro.studies.results import TrialResults


DONE, SOME_FAILED = 0, 1
NOT_SETTLED, SETTLED = 0, 1


def find_switches(options: Namespace) -> dict[str, str]:
    """What must stand in the environment before Python and Keras start."""
    from keras_repro.environment.switches import find_backend, switches_for

    environment = {**os.environ}
    if options.backend is not None:
        environment["KERAS_BACKEND"] = options.backend
    backend = find_backend(environment)
    wanted = {
        "KERAS_BACKEND": backend,
        **switches_for(0, backend, environment),
    }
    return {
        name: value
        for name, value in wanted.items()
        if os.environ.get(name) != value
    }


def run_study(options: Namespace) -> TrialResults:
    """Run the trials of a script's function."""
    module = _load(options.target, options.arguments)
    train = _find(module, options.target.rpartition(":")[2], "train")
    model = _find(module, options.model, "model")
    from keras_repro.studies.stopping import HalfWidth
    from keras_repro.trials.run import run_trials

    until = None
    if options.until is not None:
        until = HalfWidth(options.until, metric=options.metric)
    try:
        return run_trials(
            model,
            train,
            seeds=options.seeds,
            num_workers=options.workers,
            path=options.path,
            progress=not options.quiet,
            vary=options.vary,
            until=until,
            check=options.check,
        )
    except (TypeError, RuntimeError) as error:
        raise MisuseError(str(error)) from error


def load_studies(paths: Sequence[str]) -> dict[str, TrialResults]:
    """Load studies, by the names of their folders."""
    from keras_repro.studies.files import load_trials

    loaded = [load_trials(path) for path in paths]
    names = [one.name or path for one, path in zip(loaded, paths, strict=True)]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        raise MisuseError(
            "`trials compare` must be given different studies. Received: "
            f"{', '.join(paths)}. Name each folder once."
        )
    return dict(zip(names, loaded, strict=True))


def compare_studies(options: Namespace) -> Any:
    """Compare two studies, or several with the first."""
    from keras_repro.studies.comparison import compare_trials

    if len(options.paths) < 2:
        raise MisuseError(
            "`trials compare` must be given two studies or more. Received: "
            f"{', '.join(options.paths)}. Name another folder."
        )
    return compare_trials(
        load_studies(options.paths),
        metric=options.metric,
        margin=options.margin,
    )


# --- the script --------------------------------------------------------------


def _load(target: str, arguments: Sequence[str]) -> ModuleType:
    """Import a script, or a module, as a module that is not the main one."""
    place, found, _ = target.rpartition(":")
    if not found or not place:
        raise MisuseError(
            "`trials` must be given a script and its function, as "
            f"`train.py:train`. Received: '{target}'."
        )
    sys.argv = [place, *arguments]
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return _import(place)
    file = Path(place).resolve()
    if not file.is_file():
        raise MisuseError(
            "`trials` must be given a script that exists. Received: "
            f"'{place}'. Check its name."
        )
    sys.path.insert(0, str(file.parent))
    name = file.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name}_script"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise MisuseError(f"'{place}' cannot be imported.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise MisuseError(
            "`trials` must be given a script, or a module that can be "
            f"imported. Received: '{name}'. A script's name ends in .py."
        ) from error


def _find(module: ModuleType, name: str, kind: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = getattr(module, name)
    except AttributeError:
        option = " (another name: --model NAME)" if kind == "model" else ""
        raise MisuseError(
            f"The script must have a {kind} called `{name}`{option}. Received: "
            f"'{module.__file__}', which has none."
        ) from None
    return found
