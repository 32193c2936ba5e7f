"""Each call that a script makes of its models: recorded, read again."""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from keras_repro.common.files import LineFile, read_json_lines
from keras_repro.common.whose_code import find_site, library_of
from keras_repro.watching.observations import Audit, get_process
from keras_repro.watching.patches import Patches
from keras_repro.watching.traps import LOADED_RATE, NAN_FEATURES

CALLS, RUNS = "calls.jsonl", "runs.jsonl"
FIT, LOAD, END = "fit", "load_weights", "end"
# The role of what layers keep where Keras does not track it.
HIDDEN = "hidden"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a method of a model, or a model as the script left it."""

    index: int  # Among the calls of the process, counted from 0.
    method: str  # `"fit"`, `"evaluate"` and so on; `"end"` for the end.
    model: str  # The model's name.
    place: str  # The line that called, such as `/home/me/train.py:12`.
    run_id: str | None = None  # The run that a `fit` was recorded as.
    # Checksums of the model's variables before the call, by role and place;
    # `None` where they were not read.
    state: Mapping[str, Mapping[str, str]] | None = None
    data: str | None = None  # Checksum of the arrays it was given.
    # What came out, by name, as text that shows each bit.
    results: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None  # The type of the exception that ended it.
    # What is wrong with it though it may be repeatable.
    traps: tuple[Mapping[str, str], ...] = ()
    began: float = 0.0  # In seconds; it is not compared.


class CallFile:
    """The file of a process's calls, written as they end."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._lines = LineFile(Path(folder) / CALLS)

    def write(self, call: Call) -> None:
        """Append a call."""
        self._lines.write(asdict(call))


def load_calls(folder: str | os.PathLike[str]) -> tuple[Call, ...]:
    """Read the calls of a process, in the order in which they began."""
    calls = [
        Call(**{**one, "traps": tuple(one["traps"])})
        for one in read_json_lines(Path(folder) / CALLS)
    ]
    return tuple(sorted(calls, key=lambda one: one.index))


_now = time.time  # Before it is watched.
_METHODS = (
    *("evaluate", "predict", "train_on_batch"),
    *("test_on_batch", "predict_on_batch"),
)
# Bytes: larger inputs of `predict` and its like are not read.
_MOST_DATA = 1 << 26


@dataclass(frozen=True)
class Asked:
    """A call that a program makes of a model."""

    method: str  # Its name.
    original: Callable[..., Any]  # The method as Keras has it.
    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """Make it."""
        return self.original(self.model, *self.args, **self.kwargs)


class CallRecorder:
    """Records what a program asks of its models."""

    def __init__(
        self,
        # Where the calls are written, and the runs of `fit`.
        folder: str | os.PathLike[str],
        audit: Audit,
        *,
        # `False` has `fit` not shuffle arrays.
        shuffle: bool | None = None,
        # Called once in a forked process that calls a model, whose calls are
        # not recorded.
        note_fork: Callable[[], None] | None = None,
    ) -> None:
        self._audit, self._shuffle = audit, shuffle
        self._note_fork = note_fork
        self._fits = Recorder(Options(seed=0, log="", quiet=True))
        self._keras: Any = None
        self._originals: dict[str, Callable[..., Any]] = {}
        self._under_way = threading.local()
        self._begin_process(lambda: folder)
        self.write_to(folder)

    def _begin_process(
        self, prepare: Callable[[], str | os.PathLike[str]]
    ) -> None:
        self._prepare = prepare
        self._process = get_process()
        self._numbers = itertools.count()
        self._repeats: dict[tuple[str, str], Iterator[int]] = {}

    def write_to(self, folder: str | os.PathLike[str]) -> None:
        """Write calls and runs elsewhere from now on."""
        self._file = CallFile(folder)
        self._fits.write_to(str(Path(folder) / RUNS))

    def go_on_in_child(self, prepare: Callable[[], Path]) -> None:
        """In a forked child: it counts anew, and has files of its own."""
        # It is called before each call, and is to have us write there.
        self._begin_process(prepare)

    def wrap(self, keras: Any, patches: Patches) -> None:
        """Have the calls of every model recorded."""
        self._keras = keras
        model_class = keras.Model
        self._fits.wrap(model_class)
        patches.also_undo(self._fits.unwrap)
        for method in (FIT, LOAD, *_METHODS):
            original = getattr(model_class, method)
            self._originals[method] = original
            patches.replace(model_class, method, self._make(method, original))

    def _make(
        self, method: str, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        record = self._find_way(method)

        @functools.wraps(original)
        def call(model: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_asked(sys._getframe(1)):
                return original(model, *args, **kwargs)
            asked = Asked(method, original, model, args, kwargs)
            depth = self._depth
            self._under_way.depth = depth + 1
            try:
                return record(asked)
            finally:
                self._under_way.depth = depth

        return call

    @property
    def _depth(self) -> int:
        """How many recorded calls are under way in this thread."""
        depth: int = getattr(self._under_way, "depth", 0)
        return depth

    def _find_way(self, method: str) -> Callable[..., Any]:
        """How a call of this method is recorded."""
        ways = {FIT: self._record_fit, LOAD: self._record_loading}
        return ways.get(method, self._record)

    def _is_asked(self, frame: FrameType | None) -> bool:
        """Whether a call counts: not what Keras itself does within another."""
        if get_process() != self._process:
            if self._note_fork is not None:
                self._note_fork()
                self._note_fork = None
            return False
        while frame is not None and library_of(frame) == "keras_repro":
            frame = frame.f_back
        # What Keras calls otherwise, as its wrappers for scikit-learn do, is
        # what the program has asked for.
        is_kerass = frame is not None and library_of(frame) == "keras"
        return not (is_kerass and self._depth)

    # --- one call ------------------------------------------------------------

    def _begin(self, asked: Asked) -> Callable[..., Call]:
        """What is known of a call before it runs; it is given the rest."""
        self._prepare()
        return functools.partial(
            Call,
            index=next(self._numbers),
            method=asked.method,
            model=asked.model.name,
            place=find_place(),
            began=_now(),
        )

    def _record_fit(self, asked: Asked) -> Any:
        begun = self._begin(asked)
        if self._shuffle is not None:
            given = {**asked.kwargs, "shuffle": self._shuffle}
            asked = replace(asked, kwargs=given)
        self._fits.last_run_id = None
        with self._audit.muted():
            inputs = asked.args[0] if asked.args else asked.kwargs.get("x")
            traps = [make_trap(NAN_FEATURES, t) for t in _find_nan(inputs)]
            traps += _find_in_data(asked)
        error = None
        try:
            return asked.run()
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._write(
                begun(
                    run_id=self._fits.last_run_id,
                    error=error,
                    traps=tuple(traps),
                )
            )

    def _record(self, asked: Asked) -> Any:
        begun = self._begin(asked)
        with self._audit.muted():
            number = self._count(asked.method, asked.model)
            state = read_state(asked.model) if _is_read(number) else None
            data = checksum_inputs(asked.args, asked.kwargs)
        results: Mapping[str, str] = {}
        error = None
        try:
            value = asked.run()
            with self._audit.muted():
                results = describe_results(value)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._write(
                begun(state=state, data=data, results=results, error=error)
            )
        return value

    def _record_loading(self, asked: Asked) -> Any:
        """Weights loaded with their optimizer bring its rate back."""
        from keras_repro.watching.traps import read_rate

        begun = self._begin(asked)
        with self._audit.muted():
            before = read_rate(asked.model)
        result = asked.run()
        with self._audit.muted():
            after = read_rate(asked.model)
        traps = []
        if before is not None and after is not None and before != after:
            # Rates are single precision, and shown as they were typed.
            told = f"the learning rate was {before:.6g}, and is {after:.6g} now"
            traps.append(make_trap(LOADED_RATE, told))
        self._write(begun(traps=tuple(traps)))
        return result

    def _count(self, method: str, model: Any) -> int:
        key = method, model.name
        return next(self._repeats.setdefault(key, itertools.count()))

    def _write(self, call: Call) -> None:
        with self._audit.muted():
            self._file.write(call)

    # --- the end -------------------------------------------------------------

    def finish(self) -> None:
        """Record what every model holds that the program still has."""
        if self._keras is None or get_process() != self._process:
            return
        with self._audit.muted():
            models = _find_models(self._keras.Model)
            if models:
                self._prepare()
            for model in models:
                with suppress(Exception):  # A step that failed lost values.
                    self._file.write(
                        Call(
                            index=next(self._numbers),
                            method=END,
                            model=model.name,
                            place="",
                            state=read_state(model),
                        )
                    )


def make_trap(kind: str, text: str) -> dict[str, str]:
    """A trap as a call has it."""
    return {"kind": kind, "text": text}


def _find_nan(inputs: Any) -> list[str]:
    from keras_repro.watching.traps import find_nan_features

    with suppress(Exception):  # Whatever a program gives to `fit`.
        return list(find_nan_features(inputs))
    return []


def _find_in_data(asked: Asked) -> list[dict[str, str]]:
    from keras_repro.backends.keras_internals import bind
    from keras_repro.watching.traps import find_in_data

    with suppress(Exception):  # Whatever a program gives to `fit`.
        call = bind("fit", asked.args, asked.kwargs) or {}
        return [make_trap(*one) for one in find_in_data(asked.model, call)]
    return []


def find_place() -> str:
    """The line of the program that calls, or nothing."""
    site = find_site()
    return "" if site is None else site.place


def _is_read(number: int) -> bool:
    """Whether the variables are read before this call of its kind."""
    # Reading them before every one of many thousand steps would take longer
    # than the steps: the first 16, then ever fewer.
    return number < 16 or number % (1 << (number.bit_length() - 4)) == 0


def read_state(model: Any) -> dict[str, dict[str, str]] | None:
    """Checksums of a model's variables, by role and place."""
    from keras_repro.recording.recorder import ModelReader, read_looks

    if not model.built:
        return None
    (readings,) = read_looks([ModelReader(model).look()])
    state: dict[str, dict[str, str]] = {}
    for one in readings:
        # Metrics hold at a call's start what came before it.
        if one.role != "metrics":
            state.setdefault(one.role, {})[one.place] = one.checksum
    return state


def checksum_inputs(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Checksum of the arrays that a call is given, if it is given arrays."""
    from keras_repro.arrays.checksums import compute_checksum
    from keras_repro.backends.data_adapters import are_arrays
    from keras_repro.backends.keras_internals import list_leaves

    arrays = (args[0] if args else kwargs.get("x"), kwargs.get("y"))
    if arrays[0] is None or not are_arrays((*arrays, None)):
        return None
    size = sum(getattr(leaf, "nbytes", 0) for leaf in list_leaves(arrays))
    if size > _MOST_DATA:
        return None
    with suppress(TypeError, ValueError):  # Such as Python objects.
        return compute_checksum(arrays)
    return None


def describe_results(value: Any) -> dict[str, str]:
    """What came out: numbers as their bits, arrays as their checksums."""
    if isinstance(value, Mapping):
        named = {str(name): one for name, one in value.items()}
    elif isinstance(value, (list, tuple)):
        named = {f"[{i}]": one for i, one in enumerate(value)}
    else:
        named = {"value": value}
    return {name: _describe_result(one) for name, one in named.items()}


def _describe_result(value: Any) -> str:
    from keras_repro.arrays.checksums import compute_checksum

    if isinstance(value, float):
        return value.hex()
    try:
        return compute_checksum(value)
    except (TypeError, ValueError):
        return repr(type(value))


def _find_models(model_class: type) -> list[Any]:
    """The models that the program still holds, in the order of their names."""
    # Names are unique in a process, and the same in the next one.
    import gc

    from keras_repro.backends.keras_internals import flatten_layers

    every = gc.get_objects()
    # By their classes, since there are many objects of few.
    kinds = {one for one in set(map(type, every)) if model_class in one.__mro__}
    found = [one for one in every if type(one) in kinds]
    inner = {
        id(layer) for model in found for layer in flatten_layers(model)[1:]
    }
    return sorted(
        (one for one in found if id(one) not in inner and one.built),
        key=lambda one: str(one.name),
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `keras-repro run` was asked for."""

    seed: int  # Seeds every generator.
    # The file to append the runs to; an absolute path, because the script may
    # change its directory.
    log: str
    # This, `on_drift` and `snapshots` as in `ChecksumCallback`.
    every: str | int = "epoch"
    name: str | None = None  # Of the first `fit`; the second is `name/2`.
    on_drift: str = "ignore"
    snapshots: str | None = None
    module: bool = False  # Whether the script is named as a module.
    quiet: bool = False  # Whether to say nothing at the end.
    json: bool = False  # Whether to say it as a JSON object.
    # The folder to back trainings up in, an absolute path too.
    backup: str | None = None
    save_freq: str | int = "epoch"  # As in `BackupAndRestore`.

    def to_text(self) -> str:
        """One line, to hand over to another interpreter."""
        return json.dumps(asdict(self))


class Recorder:
    """Gives each `fit` of this process a `ChecksumCallback`."""

    # Where trainings are backed up, it gives it what does that too. A plain
    # model is made reproducible for it, at its first `fit`.

    def __init__(self, options: Options) -> None:
        self.options = options
        self.run_ids: list[str] = []
        self._numbers = itertools.count(1)
        self._process = get_process()
        self._wrapped: list[tuple[Any, Any]] = []
        self._backups: Any = None
        # Models that we have made reproducible.
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        self._local = threading.local()

    def write_to(self, log: str) -> None:
        """Record from now on in another file, for the present process."""
        self.options = replace(self.options, log=log)
        self.run_ids = []
        self._process = get_process()

    @property
    def last_run_id(self) -> str | None:
        """Id of the run that ended last in this thread."""
        return getattr(self._local, "run_id", None)

    @last_run_id.setter
    def last_run_id(self, run_id: str | None) -> None:
        self._local.run_id = run_id

    def wrap(self, model_class: Any) -> None:
        """Have every `fit` of a class, and of those below it, recorded."""
        self._wrap(model_class, self._fit)
        if self.options.backup is not None:
            self._begin_backups(Path(self.options.backup))

    def _wrap(self, model_class: Any, call: Callable[..., Any]) -> None:
        original = model_class.fit

        @functools.wraps(original)
        def fit(model: Any, *args: Any, **kwargs: Any) -> Any:
            return call(original, model, args, kwargs)

        # It may be inherited there, so that deleting ours puts it back.
        self._wrapped.append((model_class, vars(model_class).get("fit")))
        model_class.fit = fit

    def _begin_backups(self, folder: Path) -> None:
        from keras_repro.model.model import ReproducibleModel
        from keras_repro.resuming.several import SeveralBackups

        self._backups = SeveralBackups(folder, self.options.save_freq)
        # The backups must be there before a model of ours prepares its `fit`.
        self._wrap(ReproducibleModel, self._fit_reproducible)

    def unwrap(self) -> None:
        """Put `fit` back."""
        while self._wrapped:
            model_class, own = self._wrapped.pop()
            if own is None:
                del model_class.fit
            else:
                model_class.fit = own

    def remove_backups(self) -> None:
        """Of a script that has come to its end, in its own process."""
        backups = self._backups  # None where Keras was never loaded.
        if backups is not None and get_process() == self._process:
            backups.remove()

    def report(self) -> None:
        """Say on stderr how many runs were recorded, and where."""
        if self.options.quiet or get_process() != self._process:
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
        from keras_repro.backends.keras_internals import bind, unbind
        from keras_repro.model.around_fit import add_callbacks, list_callbacks

        call = bind("fit", args, kwargs)
        # A forked child has the hook too, and is not the script's process.
        if call is None or get_process() != self._process:
            return original(model, *args, **kwargs)
        given = list_callbacks(call.get("callbacks"))
        added = self._list_backups(given)
        callback = None
        if not any(_writes_to(one, self.options.log) for one in given):
            callback = self._make_callback()
            if not hasattr(model, "_repro"):
                # A `ReproducibleModel` knows its data, and has ordered them.
                callback.note_data(call)
            added = [callback, *added]
        if not added:
            return original(model, *args, **kwargs)
        call["callbacks"] = add_callbacks(call.get("callbacks"), *added)
        with self._noted(callback), self._prepared(model, call):
            args, kwargs = unbind("fit", call, len(args))
            return original(model, *args, **kwargs)

    @contextmanager
    def _noted(self, callback: Any) -> Iterator[None]:
        """Know the run that a callback of ours records."""
        try:
            yield
        except BaseException as error:
            if callback is not None:
                callback.on_train_abort(error)
            raise
        finally:
            if callback is not None:
                if callback.run_id is not None:
                    self.run_ids.append(callback.run_id)
                self.last_run_id = callback.run_id

    def _fit_reproducible(
        self,
        original: Callable[..., Any],
        model: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """What `ReproducibleModel.fit` does while trainings are backed up."""
        from keras_repro.model.model import ReproducibleModel

        if model in self._made:  # Prepared below a `fit` of the script's own.
            above: Any = super(ReproducibleModel, model)
            return above.fit(*args, **kwargs)
        return self._fit(original, model, args, kwargs)

    def _list_backups(self, given: list[Any]) -> list[Any]:
        """What backs a training up, unless the script does that itself."""
        import keras

        if self._backups is None:
            return []
        if any(hasattr(one, "_keep_training") for one in given):
            return []
        if any(isinstance(o, keras.callbacks.BackupAndRestore) for o in given):
            msg = (
                "`--backup` must be alone in backing a training up. Received: "
                "a `keras.callbacks.BackupAndRestore` in the script. Leave "
                "that callback or `--backup` out."
            )
            raise ValueError(msg)
        return [self._backups]

    def _prepared(
        self, model: Any, call: dict[str, Any]
    ) -> AbstractContextManager[None]:
        """What is around the `fit` of a model that was no reproducible one."""
        from keras_repro.model.around_fit import training
        from keras_repro.model.model import make_reproducible

        if self._backups is None or not getattr(model, "compiled", False):
            return nullcontext()
        if not hasattr(model, "_repro"):
            self._made.add(make_reproducible(model))
        return training(model, call) if model in self._made else nullcontext()

    def _make_callback(self) -> Any:
        from keras_repro.recording.callback import ChecksumCallback

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


def _writes_to(callback: Any, log: str) -> bool:
    """Whether it is a `ChecksumCallback` of the script's on the same file."""
    from keras_repro.recording.callback import ChecksumCallback

    if not isinstance(callback, ChecksumCallback):
        return False
    path = callback.path
    return path is not None and path.resolve() == Path(log).resolve()


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)
