"""`diagnose`: a training function, repeated under control, rung by rung."""

from __future__ import annotations

import functools
import inspect
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras  # noqa: TID253

from keras_repro.backends.random_streams import isolate_rng
from keras_repro.common.checks import (
    check_flag,
    check_function,
    check_int,
    check_kind,
)
from keras_repro.common.text import count_of, shorten
from keras_repro.common.whose_code import show_place
from keras_repro.diagnosis.causes import STATE_LEAK, Cause, advise
from keras_repro.diagnosis.explain import Explainer, explain_traps
from keras_repro.diagnosis.first_mismatch import (
    FirstMismatch,
    Process,
    compare_processes,
)
from keras_repro.diagnosis.function_reruns import (
    START,
    WHOLE,
    FunctionLaboratory,
    FunctionRecord,
)
from keras_repro.diagnosis.other_machine import explain_environments
from keras_repro.diagnosis.processes import ERRORS
from keras_repro.diagnosis.result import (
    DIFFERENT,
    EQUAL,
    SKIPPED,
    Diagnosis,
    Rung,
)
from keras_repro.diagnosis.script_reruns import (
    Record,
    ScriptLaboratory,
    make_script,
)
from keras_repro.diagnosis.search import Budget, Search
from keras_repro.diagnosis.suspects import (
    ONE_THREAD,
    Candidate,
    find_candidates,
    last_resorts,
)
from keras_repro.diagnosis.verify import explain_difference
from keras_repro.model.transfer import PicklingError
from keras_repro.runs.run import Run
from keras_repro.watching.model_calls import FIT
from keras_repro.watching.training_calls import BATCH, STEP, TRAINING
from keras_repro.watching.traps import (
    SEED_IGNORED,
    TRAPS,
    VALIDATION_STEERS,
)


def diagnose(
    train: Callable[..., Any],
    model: Any = None,
    *,
    fresh_process: bool = True,
    max_runs: int = 24,
) -> Diagnosis:
    """Find out whether a training is reproducible, and if not, why.

    Calls `train` again and again, and climbs from cheap questions to
    expensive ones: is the initial state equal, the data, one step, a whole
    training, and is it equal in a fresh process? At the first rung that
    differs it stops, and keeps one suspected cause after the other fixed
    until the calls agree.

    Args:
        train: A function that builds a model and trains it, and takes nothing
            it could not do without; or, with `model`, one that takes the model
            and trains it. It must call `fit` or `train_on_batch`.
        model: A `ReproducibleModel`, which is reset before each call, or any
            compiled `keras.Model`.
        fresh_process: Whether to climb the last rung, for which `train` is
            pickled by value and sent to another interpreter.
        max_runs: How many calls experiments may take, beside those that are
            compared; 0 or more.

    Returns:
        The diagnosis. It prints, displays in a notebook, and plots.

    Raises:
        TypeError: If `train` cannot be called like that, `model` is no Keras
            model, or another argument is of the wrong type.
        ValueError: If `train` never trains a model, or `max_runs` is negative.
        Exception: What `train` raises.

    Scope:
        This process, on this machine; the last rung another process on it.
        `train` is called five times or more. The program's random generators
        stand afterwards where they stood before. What else `train` changes
        (files, globals, a plain model) it changes as it always does; a
        `ReproducibleModel` is reset at the end. What a function imported by
        name before (`from numpy.random import rand`) is seen as moved, and
        not where.

    Example:
        >>> import keras, numpy as np
        >>> def train():
        ...     x = np.random.normal(size=(8, 2))  # Nobody has seeded it.
        ...     model = keras.Sequential([keras.layers.Dense(1, "relu")])
        ...     model.compile("sgd", "mse")
        ...     model.fit(x, x[:, :1], verbose=0)
        >>> found = diagnose(train, fresh_process=False)
        >>> found.reproducible, found.causes[0].kind
        (False, 'unseeded')
    """
    _check(train, model)
    fresh_process = check_flag("fresh_process", fresh_process)
    advice = "Leave it out for 24."
    max_runs = check_int("max_runs", max_runs, 0, advice=advice)
    subject = Subject(train=train, model=model)
    seed = getattr(model, "seed", None)
    with (
        isolate_rng(),
        tempfile.TemporaryDirectory(
            prefix="keras-repro-", ignore_cleanup_errors=True
        ) as folder,
    ):
        climb = Climb(
            subject,
            Path(folder),
            Budget(num_runs=max_runs),
            takes_seed=model is None and _takes_seed(train),
        )
        found = climb.run(fresh_process=fresh_process)
    if subject.can_reset:
        model.reset(seed)  # Other seeds may have been tried.
    return found


def assert_reproducible(
    train: Callable[..., Any], model: Any = None, *, max_runs: int = 24
) -> None:
    """Fail if a training is not reproducible, with the cause in the message.

    For a test suite. As `diagnose`, without the fresh process.

    Args:
        train: As for `diagnose`.
        model: As for `diagnose`.
        max_runs: As for `diagnose`.

    Raises:
        AssertionError: If it is not; the message says where two calls first
            differ, and why.
        TypeError: As `diagnose`.
        ValueError: As `diagnose`.

    Example:
        >>> import keras, numpy as np
        >>> def train():
        ...     keras.utils.set_random_seed(1)
        ...     x = np.random.normal(size=(8, 2))
        ...     model = keras.Sequential([keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        ...     model.fit(x, x[:, :1], verbose=0)
        >>> assert_reproducible(train)
    """
    __tracebackhide__ = True  # What pytest shows ends at the test's line.
    found = diagnose(train, model, fresh_process=False, max_runs=max_runs)
    if not found.reproducible:
        raise AssertionError(say_failure(found))


def say_failure(found: Diagnosis) -> str:
    """What a failed test says."""
    return f"The training must be reproducible.\n{found}"


def _check(train: Any, model: Any) -> None:
    """Refuse what cannot be diagnosed, before anything is called."""
    if model is not None:
        advice = "Leave it out if `train` builds its own."
        check_kind("model", model, keras.Model, advice, must="be a Keras model")
    what = "no arguments" if model is None else "the model alone"
    must = f"be a function, callable with {what}, that trains a model"
    advice = "Give its other arguments default values."
    arguments = () if model is None else (model,)
    check_function("train", train, arguments, must, advice)


def _takes_seed(train: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(train).parameters
    except ValueError:
        return False


_log = logging.getLogger(__name__)
STATE, DATA, ONE_STEP, WHOLE_FIT, FRESH = (
    "initial state",
    "data",
    "one step",
    "whole fit",
    "fresh process",
)
_RUNGS = (STATE, DATA, ONE_STEP, WHOLE_FIT, FRESH)
_TWO_SEEDS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The diagnosed function, and the model that it is given, or `None`."""

    train: Callable[..., Any]
    model: Any = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the function is called with."""
        return () if self.model is None else (self.model,)

    @property
    def can_reset(self) -> bool:
        """Whether its model can be taken back to its start."""
        return hasattr(self.model, "reset")

    def call(self) -> Any:
        """Train once."""
        return self.train(*self.arguments)

    def reset(self) -> None:
        """Take its model back to its start, if that can be done."""
        if self.can_reset:
            self.model.reset()


class Climb:
    """One diagnosis under way."""

    # `folder` is private and empty.
    def __init__(
        self,
        subject: Subject,
        folder: Path,
        budget: Budget,
        *,
        takes_seed: bool,
    ) -> None:
        self._subject, self._folder, self._budget = subject, folder, budget
        self._takes_seed = takes_seed
        inner = folder / "calls"
        inner.mkdir()
        self._laboratory = FunctionLaboratory(
            subject.call, inner, subject.reset, subject.train
        )
        self._started = self._lap = time.monotonic()
        self._rungs = {name: Rung(name=name) for name in _RUNGS}
        self._start: FunctionRecord | None = None

    def run(self, *, fresh_process: bool) -> Diagnosis:
        """Climb until a rung differs."""
        laboratory = self._laboratory
        laboratory.begin(START)
        first, second = laboratory.run(), laboratory.run()
        self._check(first)
        self._start = first
        mismatch = compare_processes(first.process, second.process)
        reached = _find_rung(mismatch)
        for name in (STATE, DATA, ONE_STEP):
            if name == reached:
                break
            self._note(name, *_judge_rung(name, first))
        if mismatch is not None:
            return self._explain(reached, first, second, mismatch)
        laboratory.begin(WHOLE)
        first, second = laboratory.run(), laboratory.run()
        mismatch = compare_processes(first.process, second.process)
        if mismatch is not None:
            return self._explain(WHOLE_FIT, first, second, mismatch)
        fits = sum(one.method == FIT for one in first.process.calls)
        self._note(WHOLE_FIT, EQUAL, f"{fits} fits" if fits != 1 else "")
        if fresh_process:
            return self._compare_fresh(first)
        self._note(FRESH, SKIPPED, "not asked for")
        return self._conclude(first.process)

    def _check(self, record: FunctionRecord) -> None:
        if not record.models:
            raise ValueError(
                "`train` must train a model by `fit` or `train_on_batch`. "
                "Received: a function that called neither. Diagnose the one "
                "that trains."
            )

    def _note(self, name: str, status: str, told: str = "") -> None:
        now = time.monotonic()
        self._rungs[name] = Rung(
            name=name, status=status, told=told, seconds=now - self._lap
        )
        self._lap = now

    # --- a rung that differs -------------------------------------------------

    def _explain(
        self,
        rung: str,
        first: FunctionRecord,
        second: FunctionRecord,
        mismatch: FirstMismatch,
    ) -> Diagnosis:
        leak = self._find_leak(rung, first, second, mismatch)
        if leak is not None:
            self._note(rung, DIFFERENT, "the model goes on where it ended")
            return self._conclude(
                first.process, mismatch=mismatch, causes=(leak,)
            )
        seen = find_candidates([first.notes, second.notes], is_hash_fixed=True)
        # No process can change its number of threads once it computes.
        resorts = [
            one for one in last_resorts(first.notes) if one.hold != ONE_THREAD
        ]
        causes, suspects = self._experiment(first, mismatch, seen, resorts)
        self._note(rung, DIFFERENT, ", ".join(mismatch.roles))
        return self._conclude(
            first.process, mismatch=mismatch, causes=causes, suspects=suspects
        )

    def _experiment(
        self,
        first: FunctionRecord,
        mismatch: FirstMismatch,
        seen: list[Candidate],
        resorts: list[Candidate],
    ) -> tuple[tuple[Cause, ...], tuple[Cause, ...]]:
        search = Search(self._laboratory, first, self._budget)
        findings = search.run(seen, resorts)
        explainer = Explainer(mismatch, Path.cwd())
        shown, open_ones = explainer.explain([*seen, *resorts], findings)
        if not findings.agreed and not findings.open:
            shown = [explainer.give_up(findings)]
        return tuple(shown), tuple(open_ones)

    def _find_leak(
        self,
        rung: str,
        first: FunctionRecord,
        second: FunctionRecord,
        mismatch: FirstMismatch,
    ) -> Cause | None:
        """Whether one model was trained twice, and not put back between."""
        shared = set(first.models) & set(second.models)
        is_start = rung == STATE or mismatch.moment == "initial state"
        if not shared or not is_start or "data" in mismatch.roles:
            return None
        told = "nothing put back"
        if self._subject.can_reset:
            told = "`reset()` does not put back"
        return Cause(
            kind=STATE_LEAK,
            location=None
            if mismatch.place is None
            else show_place(mismatch.place, Path.cwd()),
            library="keras",
            evidence=f"both calls train the same model, and {told}: "
            f"{shorten(mismatch.places, 6)}",
            advice=advise(STATE_LEAK),
        )

    # --- a fresh process -----------------------------------------------------

    def _compare_fresh(self, here: FunctionRecord) -> Diagnosis:
        """The last rung: the same in another interpreter?"""
        subject = self._subject
        subject.reset()
        try:
            laboratory = make_script(
                (subject.train, subject.arguments), self._folder
            )
        except PicklingError as error:
            self._note(FRESH, SKIPPED, str(error))
            return self._conclude(here.process)
        there = laboratory.run(shown=False)
        if not there.outcome.succeeded:
            text = (there.outcome.folder / ERRORS).read_text(errors="replace")
            last = text.strip().splitlines()[-1:] or ["it said nothing"]
            self._note(FRESH, SKIPPED, f"it failed there: {last[0]}")
            return self._conclude(here.process)
        process = there.process.without_end()
        mismatch = compare_processes(here.process, process)
        if mismatch is None:
            self._note(FRESH, EQUAL)
            return self._conclude(here.process)
        again = laboratory.run(shown=False)
        differing = compare_processes(there.process, again.process)
        if differing is not None:
            return self._explain_fresh(here, laboratory, there, differing)
        told = "fresh processes agree with each other, but not with this one"
        self._note(FRESH, DIFFERENT, told)
        causes = explain_environments(here.process, process)
        return self._conclude(
            here.process,
            mismatch=mismatch,
            causes=tuple(causes) or (_blame_this_process(),),
        )

    def _explain_fresh(
        self,
        here: FunctionRecord,
        laboratory: ScriptLaboratory,
        there: Record,
        mismatch: FirstMismatch,
    ) -> Diagnosis:
        found = explain_difference(
            laboratory, there, mismatch, self._budget, _log.info
        )
        self._note(FRESH, DIFFERENT, "each process gives another result")
        return self._conclude(
            here.process,
            mismatch=mismatch,
            causes=found.causes,
            suspects=found.suspects,
        )

    # --- the end -------------------------------------------------------------

    def _conclude(
        self,
        process: Process,
        *,
        mismatch: FirstMismatch | None = None,
        causes: tuple[Cause, ...] = (),
        suspects: tuple[Cause, ...] = (),
    ) -> Diagnosis:
        wrong = explain_traps(process, Path.cwd())
        wrong += self._find_start_traps()
        if mismatch is None:
            wrong += self._find_steering(process)
            wrong += self._find_ignored_seed(process)
        unique = {(one.kind, one.location): one for one in wrong}.values()
        leaks = tuple(one for one in unique if one.kind == STATE_LEAK)
        unwatched = tuple(
            one.describe(Path.cwd())
            for one in self._laboratory.records[0].unwatched
        )
        runs = process.runs.values()
        return Diagnosis(
            reproducible=mismatch is None and not unwatched,
            rungs=tuple(self._rungs.values()),
            first_mismatch=mismatch,
            causes=causes,
            suspects=(*suspects, *leaks),
            traps=tuple(one for one in unique if one.kind in TRAPS),
            unwatched=unwatched,
            num_calls=len(process.calls),
            num_epochs=sum(len(one.epochs) for one in runs),
            seconds=time.monotonic() - self._started,
        )

    def _find_start_traps(self) -> list[Cause]:
        """Traps that the first rungs have seen."""
        if self._start is None:
            return []
        return explain_traps(self._start.process, Path.cwd())

    def _find_steering(self, process: Process) -> list[Cause]:
        """Whether the same training without validation gives other weights."""
        whole = self._laboratory.records[0]
        fits = [one for one in process.calls if one.method == FIT]
        validating = [
            call for call in fits if _validates(process.runs[call.run_id or ""])
        ]
        if not validating or whole.has_callbacks:
            return []
        without = self._laboratory.run(validates=False).process
        others = [one for one in without.calls if one.method == FIT]
        for call, other in zip(fits, others, strict=False):
            run = process.runs[call.run_id or ""]
            changed = without.runs[other.run_id or ""]
            if _last_weights(run) != _last_weights(changed):
                return [
                    _make_trap(
                        VALIDATION_STEERS,
                        call.place,
                        "without its validation data the training ends with "
                        "other weights",
                    )
                ]
        return []

    def _find_ignored_seed(self, process: Process) -> list[Cause]:
        """Whether another seed gives the very same training."""
        trained = next(c for c in process.calls if c.method in TRAINING)
        subject, run = self._subject, self._laboratory.run_another
        if self._takes_seed:
            one, other = (
                run(functools.partial(subject.train, seed=seed))
                for seed in _TWO_SEEDS
            )
        elif subject.can_reset:
            one, other = (
                run(
                    subject.call,
                    functools.partial(subject.model.reset, seed=seed),
                )
                for seed in _TWO_SEEDS
            )
        else:
            return []
        if _outcomes(one.process) != _outcomes(other.process):
            return []
        told = f"seed {_TWO_SEEDS[0]} and seed {_TWO_SEEDS[1]} give the same"
        return [_make_trap(SEED_IGNORED, trained.place, f"{told} training")]


def _find_rung(mismatch: FirstMismatch | None) -> str:
    """The rung that a mismatch of the first step belongs to."""
    if mismatch is None:
        return ""
    if mismatch.moment != "result" or "results" not in mismatch.roles:
        return DATA if mismatch.roles[0] == "data" else STATE
    if any(place.startswith(BATCH) for place in mismatch.places):
        return DATA
    is_step = any(place.startswith(STEP) for place in mismatch.places)
    return ONE_STEP if is_step else STATE


def _judge_rung(name: str, record: FunctionRecord) -> tuple[str, str]:
    """Whether a rung that did not differ applied at all, and how."""
    call = record.process.calls[-1]
    batches = [one for one in call.results if one.startswith(BATCH)]
    steps = [one for one in call.results if one.startswith(STEP)]
    if name == STATE:
        if call.state is None:
            return SKIPPED, "the model is built by its first batch"
        return EQUAL, count_of(sum(map(len, call.state.values())), "variable")
    if name == DATA:
        if batches:
            return EQUAL, count_of(len(batches), "batch")
        if call.data is None:
            return SKIPPED, "neither arrays nor anything to go through twice"
        return EQUAL, "the arrays"
    if not steps:
        return SKIPPED, "no step could be made"
    return EQUAL, ""


def _validates(run: Run) -> bool:
    return any(name.startswith("val_") for name in run.history())


def _last_weights(run: Run) -> str | None:
    return run.records[-1].roles.get("weights") if run.records else None


def _outcomes(process: Process) -> list[Any]:
    """What the calls of a process gave, whatever drew for it."""
    outcomes: list[Any] = []
    for call in process.calls:
        run = process.find_run(call)
        weights = None if run is None else _last_weights(run)
        outcomes.append((call.method, weights, call.results))
    return outcomes


def _make_trap(kind: str, place: str, told: str) -> Cause:
    return Cause(
        kind=kind,
        location=show_place(place, Path.cwd()) if place else None,
        library="keras",
        evidence=told,
        advice=advise(kind),
    )


def _blame_this_process() -> Cause:
    return Cause(
        kind=STATE_LEAK,
        location=None,
        library=None,
        evidence="fresh processes agree with each other and have the same "
        "environment: this process holds something that they do not, such as "
        "a changed global, a setting or an earlier training",
        advice="Restart the kernel, or have `train` set all that it needs.",
    )
