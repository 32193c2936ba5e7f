"""Each `fit` of a script, given a `ChecksumCallback`.

Loads Keras only once the script has.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `keras-repro run` was asked for.

    Args:
        seed: Seeds every generator.
        log: The file to append the runs to; an absolute path, because the
            script may change its directory.
        every: As in `ChecksumCallback`.
        name: Name of the first `fit`; the second is called `name/2`.
        on_drift: As in `ChecksumCallback`.
        snapshots: As in `ChecksumCallback`.
        module: Whether the script is named as a module, as `python -m` does.
        quiet: Whether to say nothing at the end.
        json: Whether to say it as a JSON object.
    """

    seed: int
    log: str
    every: str | int = "epoch"
    name: str | None = None
    on_drift: str = "ignore"
    snapshots: str | None = None
    module: bool = False
    quiet: bool = False
    json: bool = False

    def to_text(self) -> str:
        """One line, to hand over to another interpreter."""
        return json.dumps(asdict(self))


class Recorder:
    """Gives each `fit` of this process a `ChecksumCallback`.

    Args:
        options: What to record, and where.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.run_ids: list[str] = []
        self._numbers = itertools.count(1)
        self._process = os.getpid()
        self._model_class: Any = None
        self._local = threading.local()

    @property
    def last_run_id(self) -> str | None:
        """Id of the run that ended last in this thread."""
        return getattr(self._local, "run_id", None)

    @last_run_id.setter
    def last_run_id(self, run_id: str | None) -> None:
        self._local.run_id = run_id

    def wrap(self, model_class: Any) -> None:
        """Have every `fit` of a class, and of those below it, recorded."""
        original = model_class.fit

        @functools.wraps(original)
        def fit(model: Any, *args: Any, **kwargs: Any) -> Any:
            return self._fit(original, model, args, kwargs)

        self._model_class = model_class
        # It is inherited there, so that deleting ours puts it back.
        self._own = vars(model_class).get("fit")
        model_class.fit = fit

    def unwrap(self) -> None:
        """Put `fit` back."""
        if self._model_class is None:
            return
        if self._own is None:
            del self._model_class.fit
        else:
            self._model_class.fit = self._own
        self._model_class = None

    def report(self) -> None:
        """Say on stderr how many runs were recorded, and where."""
        if self.options.quiet or os.getpid() != self._process:
            return
        # The script may have closed it, or whoever read it may be gone.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(self._summarize() + "\n")

    def _summarize(self) -> str:
        log, number = self.options.log, len(self.run_ids)
        if self.options.json:
            return json.dumps({"log": log, "run_ids": self.run_ids})
        if not number:
            return "keras-repro: no run recorded; no `keras.Model.fit` began"
        shown = os.path.relpath(log) if _is_below(log, Path.cwd()) else log
        noun = "run" if number == 1 else "runs"
        return f"keras-repro: {number} {noun} recorded in {shown}"

    def _fit(
        self,
        original: Callable[..., Any],
        model: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        from keras_repro.training import bind

        call = bind(original, model, args, kwargs)
        # A forked child has the hook too, and is not the script's process.
        if call is None or os.getpid() != self._process:
            return original(model, *args, **kwargs)
        given = _flatten(call.get("callbacks"))
        if any(_writes_to(one, self.options.log) for one in given):
            return original(model, *args, **kwargs)
        callback = self._make_callback()
        if not hasattr(model, "_repro"):
            # A `ReproducibleModel` knows its data, and has ordered them.
            callback.note_data(call)
        call["callbacks"] = _add_callback(call.get("callbacks"), callback)
        try:
            return original(model, **call)
        except BaseException as error:
            callback.on_train_abort(error)
            raise
        finally:
            if callback.run_id is not None:
                self.run_ids.append(callback.run_id)
            self.last_run_id = callback.run_id

    def _make_callback(self) -> Any:
        from keras_repro.callbacks import ChecksumCallback

        name, number = self.options.name, next(self._numbers)
        if name is not None and number > 1:
            name = f"{name}/{number}"
        return ChecksumCallback(
            self.options.log,
            every=self.options.every,
            name=name,
            on_drift=self.options.on_drift,
            snapshots=self.options.snapshots,
            on_error="warn",
        )


def _flatten(callbacks: Any) -> list[Any]:
    import keras

    if callbacks is None:
        return []
    return list(keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)))


def _add_callback(callbacks: Any, callback: Any) -> Any:
    """A new list with ours at its end; the script's own stays as it is."""
    import keras

    together = [*_flatten(callbacks), callback]
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return together
    # Made anew, so that it knows whether batches may overtake a callback.
    return keras.callbacks.CallbackList(
        together, model=callbacks.model, **(callbacks.params or {})
    )


def _writes_to(callback: Any, log: str) -> bool:
    """Whether it is a `ChecksumCallback` of the script's on the same file."""
    from keras_repro.callbacks import ChecksumCallback

    if not isinstance(callback, ChecksumCallback):
        return False
    path = callback.path
    return path is not None and path.resolve() == Path(log).resolve()


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)
