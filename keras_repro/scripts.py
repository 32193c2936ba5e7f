"""An unmodified script, run as the main program of its interpreter.

Runs in the interpreter that the command started: `__main__.py` calls `main`
there. Nothing here loads Keras, NumPy or a backend.
"""

from __future__ import annotations

import atexit
import builtins
import importlib.machinery
import importlib.util
import io
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_repro.sessions import make_session

_IMPORTLIB = "<frozen importlib"
# What stands between the script and Python, or between it and a library.
_FOLDER = Path(__file__).parent
_OURS = {
    *(
        str(_FOLDER / f"{name}.py")
        for name in ("__main__", "script_fits", "scripts", "script_calls")
    ),
    *map(str, (_FOLDER / "sources").glob("*.py")),
}


def main(argv: Sequence[str]) -> None:
    """Run a script as the main program of this interpreter.

    Args:
        argv: What is asked for, as `make_session` takes it; the script or the
            module; its own arguments.

    Raises:
        SystemExit: As the script exits; with 2 if it cannot be found.
        BaseException: What the script raises; its traceback, as Python prints
            it, shows no frame of ours.
    """
    session = make_session(argv[0])
    session.begin()
    script, arguments = argv[1], list(argv[2:])
    try:
        prepare = prepare_module if session.module else prepare_script
        code, module = prepare(script, arguments)
        session.note_script(str(module.__file__))
        # Before those of the script, so called after them: they may train.
        atexit.register(session.end)
        sys.modules["__main__"] = module
        exec(code, vars(module))
    except SystemExit:
        raise
    except BaseException:
        _hide_our_frames()
        raise


# --- the script as the main program ------------------------------------------


def prepare_script(
    script: str, arguments: Sequence[str]
) -> tuple[types.CodeType, types.ModuleType]:
    """Prepare to run a file, as `python script.py` does.

    Args:
        script: The file.
        arguments: Its arguments.

    Returns:
        The code, and the module to run it in.
    """
    sys.argv[:] = [script, *arguments]
    path = str(Path(script).absolute())
    # As Python does it: the folder of the file that a link leads to.
    _put_first_on_path(str(Path(script).resolve().parent))
    with io.open_code(path) as file:
        source = file.read()
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    module = _make_main(loader, None, path)
    # A script has its own future imports, and none of ours.
    return compile(source, path, "exec", dont_inherit=True), module


def prepare_module(
    name: str, arguments: Sequence[str]
) -> tuple[types.CodeType, types.ModuleType]:
    """Prepare to run a module, as `python -m name` does.

    Args:
        name: Its name, in dots; of a package, its `__main__` is meant.
        arguments: Its arguments.

    Returns:
        The code, and the module to run it in.

    Raises:
        SystemExit: If there is no such module, or it has no code.
    """
    sys.argv[:] = ["-m", *arguments]
    _put_first_on_path(str(Path.cwd()))
    spec = _find_module(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = _find_module(f"{spec.name}.__main__")
    get_code = getattr(spec and spec.loader, "get_code", None)
    code = get_code(spec.name) if spec is not None and get_code else None
    if spec is None or code is None:
        sys.stderr.write(
            "keras-repro: `-m` must name a module that Python finds, or a "
            f"package with a `__main__`. Received: {name!r}. Check with "
            f"`python -m {name}`.\n"
        )
        raise SystemExit(2)
    sys.argv[0] = str(spec.origin)
    return code, _make_main(spec.loader, spec, str(spec.origin))


def _find_module(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None
        raise  # A package above it imports what is missing.


def _make_main(
    loader: Any, spec: importlib.machinery.ModuleSpec | None, path: str
) -> types.ModuleType:
    module = types.ModuleType("__main__")
    vars(module).update(
        __annotations__={},
        __builtins__=builtins,
        __cached__=None if spec is None else spec.cached,
        __file__=path,
        __loader__=loader,
        __package__=None if spec is None else spec.parent,
        # With it, the processes that the script spawns import it by name.
        __spec__=spec,
    )
    return module


def _put_first_on_path(folder: str) -> None:
    if not sys.flags.safe_path:
        sys.path.insert(0, folder)


def _hide_our_frames() -> None:
    """Have an uncaught exception shown as if the script ran by itself.

    Python's own way out is kept, so that Ctrl-C still ends the process by
    its signal; a hook that the script has set is called as it would be.
    """
    hook = sys.excepthook

    def show(kind: Any, error: BaseException, traceback: Any) -> None:
        del traceback
        for one in _chain(error, set()):
            one.__traceback__ = _without_our_frames(one.__traceback__)
        hook(kind, error, error.__traceback__)

    sys.excepthook = show


def _chain(error: BaseException | None, seen: set[int]) -> list[BaseException]:
    """An exception and all that it came from."""
    if error is None or id(error) in seen:
        return []
    seen.add(id(error))
    return [
        error,
        *_chain(error.__cause__, seen),
        *_chain(error.__context__, seen),
    ]


def _without_our_frames(
    traceback: types.TracebackType | None,
) -> types.TracebackType | None:
    kept: list[types.TracebackType] = []
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not _is_ours(filename) and not filename.startswith(_IMPORTLIB):
            kept.append(traceback)
        traceback = traceback.tb_next
    following: types.TracebackType | None = None
    for one in reversed(kept):
        one.tb_next = following
        following = one
    return following


def _is_ours(filename: str) -> bool:
    return filename in _OURS
