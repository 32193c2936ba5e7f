"""For notebooks: `%load_ext keras_repro`, then `%%repro` on top of a cell."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras_repro.common.text import count_of
from keras_repro.watching.patches import Patches

_TRAINING = ("fit", "train_on_batch")


class RerunWarning(UserWarning):
    """A cell that is run again trains a model that was trained before."""


@dataclass
class _Cell:
    """A cell that has been run."""

    # The models that it has trained.
    trained: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    # Their checksums as its last run left them, in order.
    results: list[str] = field(default_factory=list)


class ReproMagic:
    """The cell magic, with a memory of the cells that it has run."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._cells: dict[str, _Cell] = {}
        # Checksums of models as the last cell left them.
        self._left: weakref.WeakKeyDictionary[Any, str] = (
            weakref.WeakKeyDictionary()
        )

    def repro(self, line: str, cell: str) -> None:
        """Run a cell, and say what a second run of it does to its models.

        Where the cell was run before, and trains the same model again that
        was not reset since, a `RerunWarning` says so. At the end it is told
        whether the models are the same, bit for bit, as the last time.
        """
        if line.strip():
            raise ValueError(
                "`%%repro` takes no arguments. "
                f"Received: {line.strip()!r}. Put the code below it."
            )
        known = self._cells.setdefault(self._name_cell(cell), _Cell())
        trained: list[Any] = []
        patches = Patches()
        hook = self._watch(known, trained, patches)
        try:
            result = self._shell.run_cell(cell)
        finally:
            hook.remove()
            patches.undo()
        if result.success and trained:
            self._tell_results(known, trained)

    def _name_cell(self, cell: str) -> str:
        """The cell's own id where the notebook sends one, else its text."""
        parent = getattr(self._shell, "parent_header", None) or {}
        name = parent.get("metadata", {}).get("cellId")
        return str(name) if name else cell

    def _watch(self, known: _Cell, trained: list[Any], patches: Patches) -> Any:
        from keras_repro.watching.import_hooks import ImportHook

        def on_keras(keras: Any) -> None:
            for method in _TRAINING:
                original = getattr(keras.Model, method)
                patches.replace(
                    keras.Model,
                    method,
                    self._make(original, known, trained),
                )

        hook = ImportHook({"keras": on_keras})
        hook.install(also_loaded=True)
        return hook

    def _make(
        self, original: Callable[..., Any], known: _Cell, trained: list[Any]
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def train(model: Any, *args: Any, **kwargs: Any) -> Any:
            if all(one is not model for one in trained):
                self._check(known, model)
                trained.append(model)
            return original(model, *args, **kwargs)

        return train

    def _check(self, known: _Cell, model: Any) -> None:
        """Warn where this cell has trained a model, and nobody reset it."""
        from keras_repro.arrays.checksums import compute_checksum

        if model not in known.trained or not model.built:
            return
        steps = _count_steps(model)
        made = count_of(steps, "step")
        if compute_checksum(model) == self._left.get(model):
            told = "is trained already"
            told += f" for {made}: it goes on from there" if steps else ""
        elif steps:
            told = f"has other weights since, and the optimizer of {made}"
        else:
            return
        warnings.warn(
            f"This cell was run before and trains {model.name!r} again, which "
            f"{told}. Call `model.reset()` first (of a "
            "`keras_repro.ReproducibleModel`), or build and compile the model "
            "in this cell.",
            RerunWarning,
            stacklevel=3,
        )

    def _tell_results(self, known: _Cell, trained: list[Any]) -> None:
        from keras_repro.arrays.checksums import compute_checksum

        results = [compute_checksum(model) for model in trained]
        known.trained.update(trained)
        self._left.update(zip(trained, results, strict=True))
        if known.results:
            same = results == known.results
            told = "the same models" if same else "other models"
            how = "bit for bit" if same else f"now {', '.join(results)}"
            print(f"keras-repro: {told} as the last time, {how}")
        known.results = results


def _count_steps(model: Any) -> int:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    from keras_repro.backends.variables import count_steps

    return count_steps(optimizer)


def load_ipython_extension(ipython: Any) -> None:
    """Have `%%repro`, as `%load_ext keras_repro` asks for."""
    magic = ReproMagic(ipython)
    ipython.register_magic_function(magic.repro, "cell", "repro")


def unload_ipython_extension(ipython: Any) -> None:
    """Forget `%%repro`, as `%unload_ext keras_repro` asks for."""
    ipython.magics_manager.magics["cell"].pop("repro", None)
