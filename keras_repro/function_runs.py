"""A training function, called again and again in this process, watched.

To a chosen depth: up to its first training step, or to its end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_repro import _backends, data
from keras_repro.attributes import AttributeState
from keras_repro.call_mismatches import (
    Process,
    compare_processes,
    load_process,
)
from keras_repro.calls import FIT, HIDDEN, CallFile
from keras_repro.causes import SAME_ORDER
from keras_repro.checksums import compute_checksum
from keras_repro.experiments import Holds
from keras_repro.laboratory import hold
from keras_repro.notes import DRAW, SEED, Note, NoteFile, load_notes
from keras_repro.plans import Plan, make_keys
from keras_repro.script_calls import (
    Asked,
    CallRecorder,
    checksum_inputs,
    describe_results,
    read_state,
)
from keras_repro.seeding import RngState, capture_rng
from keras_repro.sites import Site
from keras_repro.training import bind
from keras_repro.watching import Watch, inherit_keys

START, WHOLE = "start", "whole"
TRAINING = (FIT, "train_on_batch")
_MOST_BATCHES = 256
_MOST_SAMPLES = 1_000_000
BATCH, STEP = "batch", "step"


class _ReachedError(BaseException):
    """What was asked for is recorded: leave the training function.

    No `Exception`, so that a program's own handlers let it pass.
    """

    def __init__(self, recorder: Any) -> None:
        super().__init__()
        self.recorder = recorder


@dataclass(frozen=True)
class FunctionRecord:
    """What one call of a training function did, and what was noted of it.

    Args:
        plan: What it held still.
        process: What it asked of its models.
        notes: What the audit saw.
        models: `id`s of the models that it trained, in order.
        has_callbacks: Whether a `fit` was given callbacks.
    """

    plan: Plan
    process: Process
    notes: tuple[Note, ...]
    models: tuple[int, ...]
    has_callbacks: bool = False


class FunctionLaboratory:
    """Calls one training function, watched, in this process.

    Args:
        train: The function.
        folder: A private folder, where each call gets one of its own.
        before: Called before each call of `train`.
        written: The function as the person wrote it, whose line stands for
            what nobody sees in it; `train` if it is not given.
    """

    def __init__(
        self,
        train: Callable[..., Any],
        folder: Path,
        before: Callable[[], None] = lambda: None,
        written: Callable[..., Any] | None = None,
    ) -> None:
        self._train, self._folder, self._before = train, folder, before
        self._written = written or train
        self._num_runs = 0
        self.depth = WHOLE
        self.records: list[FunctionRecord] = []

    def begin(self, depth: str) -> None:
        """Start anew with records of a certain depth.

        Args:
            depth: `START` ends a call after its first step, `WHOLE` never.
        """
        self.depth, self.records = depth, []

    def run(
        self, holds: Holds = frozenset(), *, validates: bool = True
    ) -> FunctionRecord:
        """Call the function.

        Args:
            holds: What is held still, as the first record has it.
            validates: `False` takes the validation data out of `fit`.
        """
        self._num_runs += 1
        folder = self._folder / str(self._num_runs)
        folder.mkdir()
        keys = inherit_keys() or make_keys()
        plan = Plan(folder=str(folder), keys=keys)
        if holds:
            plan = hold(plan, self.records[0].plan, holds)
        record = self._call(plan, validates=validates)
        self.records.append(record)
        return record

    def run_another(
        self,
        train: Callable[[], Any],
        before: Callable[[], None] | None = None,
    ) -> FunctionRecord:
        """Call another function once, under the same watch.

        Args:
            train: The function.
            before: Called before it.
        """
        other = FunctionLaboratory(train, self._folder, before or self._before)
        other.depth, other._num_runs = self.depth, self._num_runs
        record = other.run()
        self._num_runs = other._num_runs
        return record

    def repeat(self, holds: Holds) -> FunctionRecord | None:
        """Call it with some things held still as the first call had them."""
        return self.run(holds)

    def agree(self, a: FunctionRecord, b: FunctionRecord) -> bool:
        """Whether two calls did the same, bit for bit."""
        return compare_processes(a.process, b.process) is None

    def _call(self, plan: Plan, *, validates: bool) -> FunctionRecord:
        watch = Watch(plan, NoteFile(plan.folder))
        make = _StartRecorder if self.depth == START else _WholeRecorder
        recorder = make(
            CallFile(plan.folder),
            plan.folder,
            watch.audit,
            shuffle=plan.shuffle,
        )
        recorder.validates = validates
        self._before()
        if "tensorflow" in {one.name for one in _backends.active_generators()}:
            _backends.rewind_kernels()
        watch.start(
            {"keras": lambda keras: recorder.wrap(keras, watch.patches)}
        )
        before = capture_rng()
        try:
            self._train()
        except _ReachedError as reached:
            if reached.recorder is not recorder:  # A watch around us ends.
                raise
        finally:
            moved = _find_moved(before, capture_rng())
            watch.finish()
            watch.stop()
        notes = load_notes(plan.folder)
        return FunctionRecord(
            plan,
            load_process(plan.folder).without_end(),
            (*notes, *self._note_moved(moved, notes)),
            tuple(recorder.models),
            recorder.has_callbacks,
        )

    def _note_moved(
        self, moved: set[str], notes: tuple[Note, ...]
    ) -> Iterator[Note]:
        """Generators that were drawn from by a way that nobody watches.

        Such as a function that the program imported by name before.
        """
        known = {one.name for one in notes if one.kind == DRAW}
        known |= {one.detail for one in notes if one.kind == SEED}
        code = getattr(inspect.unwrap(self._written), "__code__", None)
        file = "" if code is None else code.co_filename
        line = 0 if code is None else code.co_firstlineno
        for name in sorted(moved - known):
            site = Site(file, line)
            yield Note(kind=DRAW, name=name, site=site, order=len(notes))


def _find_moved(before: RngState, after: RngState) -> set[str]:
    """The global generators that do not stand where they stood."""
    moved = {"python"} if before.python != after.python else set()
    if describe_results(before.numpy) != describe_results(after.numpy):
        moved.add("numpy")
    a, b = before.backends.get("torch"), after.backends.get("torch")
    if a is not None and b is not None and (a[0] != b[0]).any():
        moved.add("torch")
    return moved


# --- recorders ---------------------------------------------------------------


class _WholeRecorder(CallRecorder):
    """Records every call, and knows which models were trained."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.models: list[int] = []
        self.has_callbacks = False
        self.validates = True

    def _record_fit(self, asked: Asked) -> Any:
        self.models.append(id(asked.model))
        call = _bind(asked) or {}
        self.has_callbacks = self.has_callbacks or bool(call.get("callbacks"))
        if call and not self.validates:
            asked = replace(asked, args=(), kwargs=_without_validation(call))
        return super()._record_fit(asked)


def _bind(asked: Asked) -> dict[str, Any] | None:
    """All arguments of a call by name; `None` if Keras would refuse it."""
    return bind(asked.original, asked.model, asked.args, asked.kwargs)


def _without_validation(call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `fit` that trains on the same samples only."""
    split = call.pop("validation_split", None)
    if split and call.get("validation_data") is None:
        arrays = (call.get("x"), call.get("y"), call.get("sample_weight"))
        train, _ = _backends.train_validation_split(arrays, split)
        call["x"], call["y"], call["sample_weight"] = train
    call.pop("validation_data", None)
    return call


class _StartRecorder(_WholeRecorder):
    """Records what the first training starts from, and leaves.

    What its model holds, what it is fed, and what one step makes of it.
    """

    def _find_way(self, method: str) -> Callable[..., Any]:
        if method in TRAINING:
            return self._record_start
        return super()._find_way(method)

    def _record_start(self, asked: Asked) -> Any:
        model = asked.model
        self.models.append(id(model))
        call = _bind(asked)
        if call is None:  # Keras says what is wrong with it.
            return asked.run()
        begun = self._begin(asked)
        with self._audit.muted():
            state = read_state(model)
            if state is not None:
                state[HIDDEN] = _read_hidden(model)
            outline = _outline(model, call)
            x, y, _ = outline.arrays or (None, None, None)
            checksum = checksum_inputs((x,), {"y": y})
            traps = tuple(_find_same_order(model, call, outline))
        results = self._audit_step(model, call, outline)
        self._write(
            begun(state=state, data=checksum, results=results, traps=traps)
        )
        raise _ReachedError(self)

    def _audit_step(
        self, model: Any, call: dict[str, Any], outline: data.DataOutline
    ) -> dict[str, str]:
        """What is fed in one pass, and what one step gives."""
        results: dict[str, str] = {}
        if outline.arrays is not None:
            x, y, weights = outline.arrays
            size = call.get("batch_size")
            batch, _ = data.DataPositions().first_batch(x, y, weights, size)
        else:
            batch, results = _read_pass(call.get("x"))
        if batch is None or not model.compiled:
            return results
        train_on_batch = self._originals["train_on_batch"]
        given = batch if isinstance(batch, (tuple, list)) else (batch,)
        value = train_on_batch(model, *given, return_dict=True)
        with self._audit.muted():
            for name, one in describe_results(value).items():
                results[f"{STEP}: {name}"] = one
            for role, places in (read_state(model) or {}).items():
                for place, one in places.items():
                    results[f"{STEP}: {role} {place}"] = one
        return results


def _outline(model: Any, call: dict[str, Any]) -> data.DataOutline:
    """What is fed; a reproducible model knows it, and has ordered it."""
    trial = getattr(model, "_repro", None)
    if trial is not None and trial.data.arrays is not None:
        outline: data.DataOutline = trial.data
        return outline
    return data.outline_data(call)


def _read_hidden(model: Any) -> dict[str, str]:
    """What the layers keep where Keras does not track it."""
    tracked = {id(variable) for variable in model.variables}
    return {
        f"layers.{index}.{name}": text
        for index, layer in enumerate(_backends.flatten_layers(model)[1:])
        for name, text in AttributeState([layer], tracked).describe().items()
    }


def _read_pass(x: Any) -> tuple[Any, dict[str, str]]:
    """Go through the data once: the first batch, and each one's checksum."""
    first, results = None, {}
    for number, batch in enumerate(_iterate(x)):
        if number >= _MOST_BATCHES:
            break
        first = batch if first is None else first
        leaves = [
            keras.ops.convert_to_numpy(leaf)
            for leaf in keras.tree.flatten(batch)
            if leaf is not None
        ]
        results[f"{BATCH} {number + 1}"] = compute_checksum(leaves)
    return first, results


def _iterate(x: Any) -> Iterator[Any]:
    if isinstance(x, keras.utils.PyDataset):
        return (x[index] for index in range(x.num_batches or _MOST_BATCHES))
    try:
        return iter(x)
    except TypeError:
        return iter(())


def _find_same_order(
    model: Any, call: dict[str, Any], outline: data.DataOutline
) -> Iterator[dict[str, str]]:
    """Whether `fit` would feed all epochs in one order though it shuffles."""
    number = outline.num_samples
    if (
        hasattr(model, "_repro")
        or outline.arrays is None
        or not call.get("shuffle", True)
        or (call.get("epochs") or 1) < 2
        or not number
        or not 2 < number <= _MOST_SAMPLES
    ):
        return
    first, second = _backends.epoch_orders(number, call.get("batch_size"), 2)
    if (first == second).all():
        yield {
            "kind": SAME_ORDER,
            "text": "`fit` shuffles, and feeds every epoch in the same order: "
            "Keras does so on TensorFlow once a global seed is set",
        }
