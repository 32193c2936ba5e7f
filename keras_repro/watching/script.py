"""An unmodified script, run as the main program of its interpreter.

Runs in the interpreter that the command started: `__main__.py` calls `main`
there. Nothing here loads Keras, NumPy or a backend.
"""

from __future__ import annotations

import atexit
import builtins
import functools
import importlib.machinery
import importlib.util
import io
import json
import os
import random
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from keras_repro.watching.holds import Plan
from keras_repro.watching.import_hooks import ImportHook
from keras_repro.watching.model_calls import Options, Recorder

_IMPORTLIB = "<frozen importlib"
# What stands between the script and Python, or between it and a library.
_FOLDER = str(Path(__file__).parent) + os.sep
_STARTER = str(Path(__file__).parents[1] / "__main__.py")


def main(argv: Sequence[str]) -> None:
    """Run a script as the main program of this interpreter."""
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
        session.note_success()
    except SystemExit as ended:
        if not ended.code:
            session.note_success()
        raise
    except BaseException:
        _hide_our_frames()
        raise


# --- the script as the main program ------------------------------------------


def prepare_script(
    script: str, arguments: Sequence[str]
) -> tuple[types.CodeType, types.ModuleType]:
    """Prepare to run a file, as `python script.py` does."""
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
    """Prepare to run a module, as `python -m name` does."""
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
    """Have an uncaught exception shown as if the script ran by itself."""
    # Python's own way out is kept, so that Ctrl-C still ends the process by
    # its signal, and a hook that the script has set is called as it would be.
    hook: Any = getattr(sys, "excepthook", None)
    is_missing = not hasattr(sys, "excepthook")

    def show(kind: Any, error: BaseException, traceback: Any) -> None:
        del traceback
        _strip(error)
        if is_missing:
            sys.stderr.write("sys.excepthook is missing\n")
            return _display(error)
        try:
            hook(kind, error, error.__traceback__)
        except SystemExit:
            raise
        except BaseException as failed:  # noqa: BLE001 - as Python does
            failed.__context__ = None
            _strip(failed)
            sys.stderr.write("Error in sys.excepthook:\n")
            _display(failed)
            sys.stderr.write("\nOriginal exception was:\n")
            _display(error)
        return None

    sys.excepthook = show


def _strip(error: BaseException) -> None:
    for one in _chain(error, set()):
        one.__traceback__ = _without_our_frames(one.__traceback__)


def _display(error: BaseException) -> None:
    sys.__excepthook__(type(error), error, error.__traceback__)


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
    return filename == _STARTER or filename.startswith(_FOLDER)


class Session(Protocol):
    """What is done around a script."""

    module: bool

    def begin(self) -> None:
        """Before anything of the script runs."""

    def note_script(self, path: str) -> None:
        """Be told which file is the script."""

    def note_success(self) -> None:
        """Be told that the script has come to its end without an error."""

    def end(self) -> None:
        """After the script and all its `atexit` handlers."""


def make_session(text: str) -> Session:
    """Make what the command asks for."""
    if text.startswith("{"):
        return RunSession(Options(**json.loads(text)))
    plan = Plan.read(text)
    _show_hash_seed(plan.shown_hash_seed)
    return WatchSession(plan)


class RunSession:
    """A script with its seeds set and its fits recorded: `keras-repro run`."""

    def __init__(self, options: Options) -> None:
        self.module = options.module
        self._seed = options.seed
        self._recorder = Recorder(options)
        self._has_succeeded = False
        self._hook = ImportHook(
            seed_actions(self._seed) | {"keras": self._on_keras}
        )

    def begin(self) -> None:
        """Have each library seeded, and `fit` recorded, once it is there."""
        self._hook.install()
        random.seed(self._seed)

    def note_script(self, path: str) -> None:
        """Nothing depends on it."""

    def note_success(self) -> None:
        """Nothing is to be gone on with, after the script's own handlers."""
        self._has_succeeded = True

    def end(self) -> None:
        """Put everything back, and say what was recorded."""
        self._hook.remove()
        self._recorder.unwrap()
        if self._has_succeeded:
            self._recorder.remove_backups()
        self._recorder.report()

    def _on_keras(self, keras: Any) -> None:
        seed_keras(self._seed)
        self._recorder.wrap(keras.Model)


def seed_actions(seed: int) -> dict[str, Callable[[Any], None]]:
    """How each library is seeded right after its import, by its name."""
    return {
        "numpy": lambda numpy: numpy.random.seed(seed),
        "torch": lambda torch: torch.manual_seed(seed),
        "tensorflow": lambda tensorflow: tensorflow.random.set_seed(seed),
        "keras": lambda keras: seed_keras(seed),  # noqa: ARG005
    }


def seed_keras(seed: int, *, deterministic: bool = True) -> None:
    """Seed Keras, and turn the deterministic kernels on."""
    from keras_repro.backends.active import get_backend
    from keras_repro.backends.keras_internals import set_global_seed

    # The other generators stay where they are: each was seeded when it was
    # loaded, and the script may have seeded or used it meanwhile.
    # Not `keras.utils.set_random_seed`, which loads TensorFlow under every
    # backend: the hook seeds it if the script loads it.
    set_global_seed(seed)
    if not deterministic:
        return
    late = get_backend().enable_determinism()
    if late is not None:
        sys.stderr.write(f"keras-repro: {late}\n")


class WatchSession:
    """A script whose every call and draw is recorded: `keras-repro verify`."""

    # `root` is the folder of the script's own process, if this is a child.
    def __init__(self, plan: Plan, root: Path | None = None) -> None:
        self.module = plan.module
        self._plan, self._root = plan, root or Path(plan.folder)
        self._is_child = root is not None
        self._recorder: Any = None
        self._watch: Any = None
        self._trace: Any = None
        self._starts: Any = None

    def begin(self) -> None:
        """Watch everything from now on."""
        from keras_repro.watching.children import Starts
        from keras_repro.watching.model_calls import CallRecorder
        from keras_repro.watching.observations import NoteFile
        from keras_repro.watching.watch import Watch

        plan = self._plan
        num_cores = plan.num_cores or plan.num_threads
        if num_cores is not None and hasattr(os, "sched_setaffinity"):
            usable = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, usable[:num_cores])
        self._watch = watch = Watch(
            plan,
            NoteFile(plan.folder),
            in_own_process=True,
            keeps_files=not self._is_child,
        )
        self._recorder = recorder = CallRecorder(
            plan.folder, watch.audit, shuffle=plan.shuffle
        )
        seeds = {} if plan.seed is None else seed_actions(plan.seed)
        watch.start(
            seeds,
            {"keras": lambda keras: recorder.wrap(keras, watch.patches)},
        )
        self._starts = Starts(self._root, plan, watch.audit)
        self._starts.patch(watch.patches)
        os.register_at_fork(after_in_child=self._go_on_in_child)
        if plan.seed is not None:
            random.seed(plan.seed)

    def note_script(self, path: str) -> None:
        """What lies beside the script is the person's code, wherever it is."""
        self.note_folder(str(Path(path).parent))
        if self._plan.trace:
            from keras_repro.watching.tracing import Trace

            self._trace = Trace(self._plan.folder)
            self._trace.start()

    def note_success(self) -> None:
        """Nothing depends on it."""

    def note_folder(self, folder: str) -> None:
        """What lies in a folder is the person's code."""
        from keras_repro.common.whose_code import add_user_folder

        add_user_folder(folder)
        self._starts.script = folder

    def _go_on_in_child(self) -> None:
        """A forked process writes into a folder of its own, once it must."""
        from keras_repro.common.files import tell_trouble
        from keras_repro.watching.children import make_folder, report
        from keras_repro.watching.observations import NoteFile

        audit, recorder = self._watch.audit, self._recorder

        @functools.cache
        def open_folder() -> Path:
            try:
                with audit.muted():
                    folder = make_folder(self._root)
                    recorder.write_to(folder)
                    audit.write_to(NoteFile(folder))
                    report(folder)
            except OSError as error:  # No matter of the program's.
                tell_trouble(self._root, error)
                return self._root
            return folder

        self._trace = None
        audit.go_on_in_child()
        recorder.go_on_in_child(open_folder)
        self._starts.open = open_folder

    def end(self) -> None:
        """Write what is left, then put everything back."""
        from keras_repro.watching.children import is_worker

        if self._trace is not None:
            self._trace.stop()
        with suppress(OSError):  # The disk may be full, our folder gone.
            if not (self._is_child and is_worker()):
                self._recorder.finish()
            self._watch.finish()
        self._watch.stop()


def begin_child(told: str) -> None:
    """Watch this Python, which a watched script has started."""
    from keras_repro.common.files import tell_trouble
    from keras_repro.watching import children
    from keras_repro.watching.holds import make_keys

    inherited = children.Inherited.read(told)
    root = Path(inherited.plan).parent
    try:
        folder = children.make_folder(root)
    except OSError as error:
        tell_trouble(root, error)
        raise
    plan = Plan.read(inherited.plan)
    plan = replace(
        plan,
        folder=str(folder),
        keys=plan.keys if plan.children else make_keys(),
        replayed=(),
        trace=False,
    )
    session = WatchSession(plan, root)
    session.begin()
    session.note_folder(inherited.script)
    children.report(folder)
    atexit.register(session.end)


def _show_hash_seed(value: str | None) -> None:
    """The script sees `PYTHONHASHSEED` as the person has it."""
    os.environ.pop("PYTHONHASHSEED", None)
    if value is not None:
        os.environ["PYTHONHASHSEED"] = value
