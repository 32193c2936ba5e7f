"""What is done around a script: seeded and recorded, or watched.

Nothing here loads Keras, NumPy or a backend: each is seeded, recorded and
watched right after the script itself has imported it.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from keras_repro.import_hooks import ImportHook
from keras_repro.plans import Plan
from keras_repro.script_fits import Options, Recorder


class Session(Protocol):
    """What is done around a script."""

    module: bool

    def begin(self) -> None:
        """Before anything of the script runs."""

    def note_script(self, path: str) -> None:
        """Be told which file is the script."""

    def end(self) -> None:
        """After the script and all its `atexit` handlers."""


def make_session(text: str) -> Session:
    """Make what the command asks for.

    Args:
        text: As `Options.to_text` gives it, or the path of a plan.
    """
    if text.startswith("{"):
        return RunSession(Options(**json.loads(text)))
    return WatchSession(Plan.read(text))


class RunSession:
    """A script with its seeds set and its fits recorded: `keras-repro run`.

    Args:
        options: What was asked for.
    """

    def __init__(self, options: Options) -> None:
        self.module = options.module
        self._seed = options.seed
        self._recorder = Recorder(options)
        self._hook = ImportHook(
            seed_actions(self._seed) | {"keras": self._on_keras}
        )

    def begin(self) -> None:
        """Have each library seeded, and `fit` recorded, once it is there."""
        self._hook.install()
        random.seed(self._seed)

    def note_script(self, path: str) -> None:
        """Nothing depends on it."""

    def end(self) -> None:
        """Put everything back, and say what was recorded."""
        self._hook.remove()
        self._recorder.unwrap()
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
    """Seed Keras, and turn the deterministic kernels on.

    The other generators stay where they are: each was seeded when it was
    loaded, and the script may have seeded or used it meanwhile.

    Args:
        seed: From 0 to `2**32 - 1`.
        deterministic: Whether to turn them on.
    """
    from keras_repro import _backends

    # Not `keras.utils.set_random_seed`, which loads TensorFlow under every
    # backend: the hook seeds it if the script loads it.
    _backends.set_global_seed(seed)
    if not deterministic:
        return
    late = _backends.get_backend().enable_determinism()
    if late is not None:
        sys.stderr.write(f"keras-repro: {late}\n")


class WatchSession:
    """A script whose every call and draw is recorded: `keras-repro verify`.

    Args:
        plan: What to hold still, and where to write.
    """

    def __init__(self, plan: Plan) -> None:
        self.module = plan.module
        self._plan = plan
        self._recorder: Any = None
        self._watch: Any = None
        self._trace: Any = None

    def begin(self) -> None:
        """Watch everything from now on."""
        from keras_repro.calls import CallFile
        from keras_repro.notes import NoteFile
        from keras_repro.script_calls import CallRecorder
        from keras_repro.watching import Watch

        plan = self._plan
        _show_hash_seed(plan.shown_hash_seed)
        num_cores = plan.num_cores or plan.num_threads
        if num_cores is not None and hasattr(os, "sched_setaffinity"):
            usable = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, usable[:num_cores])
        self._watch = watch = Watch(
            plan, NoteFile(plan.folder), watches_files=True
        )
        self._recorder = recorder = CallRecorder(
            CallFile(plan.folder),
            plan.folder,
            watch.audit,
            shuffle=plan.shuffle,
        )
        seeds = {} if plan.seed is None else seed_actions(plan.seed)
        watch.start(
            seeds,
            {"keras": lambda keras: recorder.wrap(keras, watch.patches)},
        )
        if plan.seed is not None:
            random.seed(plan.seed)

    def note_script(self, path: str) -> None:
        """What lies beside the script is the person's code, wherever it is."""
        from keras_repro.sites import add_user_folder

        add_user_folder(str(Path(path).parent))
        if self._plan.trace:
            from keras_repro.tracing import Trace

            self._trace = Trace(self._plan.folder)
            self._trace.start()

    def end(self) -> None:
        """Write what is left, then put everything back."""
        if self._trace is not None:
            self._trace.stop()
        with suppress(OSError):  # The disk may be full, our folder gone.
            self._recorder.finish()
            self._watch.finish()
        self._watch.stop()


def _show_hash_seed(value: str | None) -> None:
    """The script sees `PYTHONHASHSEED` as the person has it."""
    os.environ.pop("PYTHONHASHSEED", None)
    if value is not None:
        os.environ["PYTHONHASHSEED"] = value
