"""Everything that could make a process differ, watched from its start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from keras_repro.watching.files_before import KeptFiles
from keras_repro.watching.holds import Plan
from keras_repro.watching.import_hooks import ImportHook
from keras_repro.watching.observations import Audit, NoteFile, load_values
from keras_repro.watching.sources.clocks import watch_clock, watch_process
from keras_repro.watching.sources.files import FileWatcher, watch_h5py
from keras_repro.watching.sources.jax import watch_jax
from keras_repro.watching.sources.keras import watch_keras
from keras_repro.watching.sources.numpy import watch_numpy
from keras_repro.watching.sources.standard import (
    watch_random,
    watch_system,
)
from keras_repro.watching.sources.tensorflow import watch_tensorflow
from keras_repro.watching.sources.torch import watch_torch
from keras_repro.watching.sources.watcher import Watcher
from keras_repro.watching.sources.workers import (
    POOLS,
    watch_completion,
    watch_pool,
)

Action = Callable[[Any], None]
# Such as a diagnosis within a script that is verified; the innermost last.
_under_way: list[Watcher] = []


def inherit_keys() -> dict[str, str] | None:
    """Keys from the watch that is under way; `None` where there is none."""
    # What is unseeded in there is then held where that watch holds it.
    return _under_way[-1].entropy.derive_keys() if _under_way else None


@contextmanager
def _all_muted() -> Iterator[None]:
    """What we do to a library ourselves is noted by nobody."""
    with ExitStack() as stack:
        for one in _under_way:
            stack.enter_context(one.audit.muted())
        yield


class Watch:
    """The audit of a process, and what the plan keeps fixed in it."""

    def __init__(
        self,
        plan: Plan,
        file: NoteFile,
        *,
        # Whether it is watched to its end: files and forks too, for ever.
        in_own_process: bool = False,
        # Whether files are kept before they are written.
        keeps_files: bool = True,
    ) -> None:
        self.audit = Audit(file, _load_replayed(plan))
        self._files: FileWatcher | None = None
        if in_own_process:
            keep = KeptFiles(plan.folder).keep if keeps_files else _keep_none
            self._files = FileWatcher(self.audit, keep, plan.folder)
        self._watcher = Watcher(self.audit, plan, self._files)
        self.patches = self._watcher.patches

    def start(self, *more: Mapping[str, Action]) -> None:
        """Begin to watch; libraries are watched once they are imported."""
        try:
            for outer in _under_way:
                self.patches.also_undo(outer.audit.forget_seeding())
            with _all_muted():
                self._start(more)
        except BaseException:
            self.stop()
            raise
        _under_way.append(self._watcher)
        self.patches.also_undo(lambda: _under_way.remove(self._watcher))

    def _start(self, more: Iterable[Mapping[str, Action]]) -> None:
        for watch in STANDARD:
            watch(self._watcher)
        if self._files is not None:
            self._files.start()
            self._watcher.entropy.follow_forks()
        watching = {
            name: self._make_action(watch) for name, watch in BY_MODULE.items()
        }
        hook = ImportHook(_join_actions(watching, *more))
        self.patches.also_undo(hook.remove)
        hook.install(also_loaded=True)

    def _make_action(self, watch: Callable[[Watcher, Any], None]) -> Action:
        def act(module: Any) -> None:
            with self.audit.muted(), _all_muted():
                watch(self._watcher, module)

        return act

    def finish(self) -> None:
        """Write what is left to write."""
        self.audit.finish()

    def stop(self) -> None:
        """Put everything back."""
        self.patches.undo()


def _keep_none(path: str) -> None:
    """What a process below writes is not put back."""


def _load_replayed(plan: Plan) -> dict[tuple[str, str], list[Any]]:
    if plan.reference is None:
        return {}
    return {
        key: values
        for key, values in load_values(plan.reference).items()
        if f"{key[0]} {key[1].rpartition(' ')[0]}" in plan.replayed
    }


def _join_actions(
    *many: Mapping[str, Action],
) -> dict[str, Action]:
    """One action for each module, which does all of them in order."""
    names = dict.fromkeys(name for actions in many for name in actions)

    def join(name: str) -> Action:
        parts = [actions[name] for actions in many if name in actions]

        def act(module: Any) -> None:
            for part in parts:
                part(module)

        return act

    return {name: join(name) for name in names}


# At once.
STANDARD: tuple[Callable[[Watcher], None], ...] = (
    *(watch_random, watch_system),
    *(watch_clock, watch_process),
)
# After the import of the module that is named.
BY_MODULE: dict[str, Callable[[Watcher, Any], None]] = {
    **dict.fromkeys(POOLS, watch_pool),
    "concurrent.futures": watch_completion,
    "h5py": watch_h5py,
    "jax": watch_jax,
    "keras": watch_keras,
    "numpy": watch_numpy,
    "tensorflow": watch_tensorflow,
    "torch": watch_torch,
}
