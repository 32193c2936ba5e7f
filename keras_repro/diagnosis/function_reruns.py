"""A training function, called again and again in this process, watched.

To a chosen depth: up to its first training step, or to its end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_repro.backends.active import active_generators
from keras_repro.backends.random_streams import RngState, capture_rng
from keras_repro.backends.tensorflow import rewind_kernels
from keras_repro.common.whose_code import Site
from keras_repro.diagnosis.first_mismatch import (
    Process,
    compare_processes,
    load_process,
)
from keras_repro.diagnosis.script_reruns import hold
from keras_repro.diagnosis.search import Holds
from keras_repro.watching.children import Start, Starts, find_unwatched
from keras_repro.watching.holds import Plan, make_keys
from keras_repro.watching.model_calls import describe_results
from keras_repro.watching.observations import (
    DRAW,
    SEED,
    Note,
    NoteFile,
    load_notes,
)
from keras_repro.watching.training_calls import (
    ReachedError,
    StartRecorder,
    WholeRecorder,
)
from keras_repro.watching.watch import Watch, inherit_keys

START, WHOLE = "start", "whole"


@dataclass(frozen=True)
class FunctionRecord:
    """What one call of a training function did, and what was noted of it."""

    plan: Plan  # What it kept fixed.
    process: Process  # What it asked of its models.
    notes: tuple[Note, ...]
    models: tuple[int, ...]  # `id`s of the models that it trained, in order.
    has_callbacks: bool = False  # Whether a `fit` was given callbacks.
    # What it started that may have trained.
    unwatched: tuple[Start, ...] = ()


class FunctionLaboratory:
    """Calls one training function, watched, in this process."""

    def __init__(
        self,
        train: Callable[..., Any],
        folder: Path,
        before: Callable[[], None] = lambda: None,
        written: Callable[..., Any] | None = None,
    ) -> None:
        self._train, self._folder, self._before = train, folder, before
        # As the person wrote it: its line stands for what nobody sees in it.
        self._written = written or train
        self._num_runs = 0
        self.depth = WHOLE
        self.records: list[FunctionRecord] = []

    def begin(self, depth: str) -> None:
        """Start anew with records of a certain depth."""
        self.depth, self.records = depth, []

    def run(
        self, holds: Holds = frozenset(), *, validates: bool = True
    ) -> FunctionRecord:
        """Call the function."""
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
        """Call another function once, under the same watch."""
        other = FunctionLaboratory(train, self._folder, before or self._before)
        other.depth, other._num_runs = self.depth, self._num_runs
        record = other.run()
        self._num_runs = other._num_runs
        return record

    def repeat(self, holds: Holds) -> FunctionRecord | None:
        """Call it with some things kept fixed as the first call had them."""
        return self.run(holds)

    def agree(self, a: FunctionRecord, b: FunctionRecord) -> bool:
        """Whether two calls did the same, bit for bit."""
        return compare_processes(a.process, b.process) is None

    def _call(self, plan: Plan, *, validates: bool) -> FunctionRecord:
        watch = Watch(plan, NoteFile(plan.folder))
        starts = Starts(Path(plan.folder), plan, watch.audit, follows=False)
        make = StartRecorder if self.depth == START else WholeRecorder
        recorder = make(
            plan.folder,
            watch.audit,
            shuffle=plan.shuffle,
            note_fork=starts.note_fork,
        )
        recorder.validates = validates
        self._before()
        if "tensorflow" in {one.name for one in active_generators()}:
            rewind_kernels()
        watch.start(
            {"keras": lambda keras: recorder.wrap(keras, watch.patches)}
        )
        starts.patch(watch.patches)
        before = capture_rng()
        try:
            self._train()
        except ReachedError as reached:
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
            tuple(find_unwatched(plan.folder)),
        )

    def _note_moved(
        self, moved: set[str], notes: tuple[Note, ...]
    ) -> Iterator[Note]:
        """Generators that were drawn from by a way that nobody watches."""
        # Such as a function that the program imported by name before.
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
