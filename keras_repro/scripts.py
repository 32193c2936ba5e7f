"""An unmodified Keras script, run with its seeds set and its fits recorded.

Runs in the interpreter that `keras-repro run` started: `__main__.py` calls
`main` there. Nothing here loads Keras, NumPy or a backend: each is seeded
right after the script itself has imported it.
"""

from __future__ import annotations

import atexit
import builtins
import importlib.machinery
import importlib.util
import io
import json
import random
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from keras_repro.script_fits import Options, Recorder

_IMPORTLIB = "<frozen importlib"
_OURS = {
    str(Path(__file__).with_name(f"{name}.py"))
    for name in ("__main__", "script_fits", "scripts")
}


def main(argv: Sequence[str]) -> None:
    """Run a script as the main program of this interpreter.

    Args:
        argv: The options, as `Options.to_text` gives them; the script or the
            module; its own arguments.

    Raises:
        SystemExit: As the script exits; with 2 if it cannot be found.
        BaseException: What the script raises; its traceback, as Python prints
            it, shows no frame of ours.
    """
    options = Options(**json.loads(argv[0]))
    recorder = Recorder(options)
    put_back = install(options.seed, recorder)
    random.seed(options.seed)
    script, arguments = argv[1], list(argv[2:])
    try:
        prepare = prepare_module if options.module else prepare_script
        code, module = prepare(script, arguments)
        # Before those of the script, so called after them: they may train.
        atexit.register(recorder.report)
        atexit.register(put_back)
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


# --- seeds, each as soon as there is something to seed -------------------


def install(seed: int, recorder: Recorder) -> Callable[[], None]:
    """Have each library seeded, and `fit` recorded, once it is imported.

    Args:
        seed: The seed of the generators.
        recorder: Records the fits.

    Returns:
        A function that puts everything back.
    """

    def on_keras(keras: Any) -> None:
        seed_keras(seed)
        recorder.wrap(keras.Model)

    hook = ImportHook(
        {
            "numpy": lambda numpy: numpy.random.seed(seed),
            "torch": lambda torch: torch.manual_seed(seed),
            "tensorflow": lambda tensorflow: tensorflow.random.set_seed(seed),
            "keras": on_keras,
        }
    )
    sys.meta_path.insert(0, hook)

    def put_back() -> None:
        with suppress(ValueError):  # The script may have removed it.
            sys.meta_path.remove(hook)
        recorder.unwrap()

    return put_back


class ImportHook:
    """Calls a function right after a module was imported.

    Finds nothing itself: it asks the finders behind it, and the loader that
    one of them gives forgets about us once it has run.

    Args:
        actions: By the name of a module, what to call with it.
    """

    def __init__(self, actions: dict[str, Callable[[Any], None]]) -> None:
        self._actions = actions

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module that is waited for; `None` for any other."""
        if name not in self._actions:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: importlib.machinery.ModuleSpec | None = find(
                name, path, target
            )
            if spec is not None:
                self._follow(spec.loader, self._actions[name])
                return spec
        return None

    def _follow(self, loader: Any, action: Callable[[Any], None]) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            del loader.exec_module  # The class has its own.
            execute(module)
            action(module)

        # A loader that takes no attributes is none of Python's own.
        with suppress(AttributeError):
            loader.exec_module = exec_module


def seed_keras(seed: int) -> None:
    """Seed Keras, and turn the deterministic kernels on.

    The other generators stay where they are: each was seeded when it was
    loaded, and the script may have seeded or used it meanwhile.

    Args:
        seed: From 0 to `2**32 - 1`.
    """
    from keras_repro import _backends

    # Not `keras.utils.set_random_seed`, which loads TensorFlow under every
    # backend: the hook seeds it if the script loads it.
    _backends.set_global_seed(seed)
    late = _backends.get_backend().enable_determinism()
    if late is not None:
        sys.stderr.write(f"keras-repro: {late}\n")
