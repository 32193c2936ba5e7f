"""`run_trials`: one training under many seeds, here or on many machines."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import (
    Callable,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import keras  # noqa: TID253
import numpy as np

from keras_repro.common.checks import (
    MOST_TRIALS,
    MOST_WORKERS,
    SECONDS,
    SHARE,
    check_flag,
    check_int,
    check_kind,
    check_number,
    check_path,
    to_int,
    wrong_type,
    wrong_value,
)
from keras_repro.common.text import clean, describe, quote
from keras_repro.environment.capture import capture_environment
from keras_repro.model.transfer import find_own_parts
from keras_repro.model.trial import check_vary, find_seed
from keras_repro.recording.header import describe_model
from keras_repro.studies.files import StudyFolder, StudyPlan, make_results
from keras_repro.studies.identity import (
    StudyIdentity,
    find_written,
    list_unread,
)
from keras_repro.studies.outcomes import (
    MISUSE,
    TrialLine,
    TrialOutcome,
    TrialTask,
    gather_scores,
)
from keras_repro.studies.results import TrialResults, check_seeds
from keras_repro.studies.scores import compute_mean, t_interval
from keras_repro.studies.stopping import HalfWidth, Settled
from keras_repro.trials.backups import StudyBackups, check_backup
from keras_repro.trials.check import check_elsewhere, tell_differences
from keras_repro.trials.executors import (
    Engine,
    LocalEngine,
    PoolEngine,
    Study,
    make_pool,
)
from keras_repro.trials.fingerprint import fingerprint
from keras_repro.trials.worker import TrialRunner

_FOLDER = 'Pass the name of a folder, such as "study".'


class TrialWarning(UserWarning):
    """Something of a study that a person should know."""


def run_trials(
    model: Any,
    train: Callable[[Any], Any],
    seeds: int | Iterable[int] = 30,
    *,
    executor: Executor | None = None,
    num_workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
    backup: str | int | None = None,
    progress: bool = True,
    vary: str = "all",
    until: Any = None,
    check: float = 0.0,
    patience: float = 86_400.0,
) -> TrialResults:
    """Train one model under many seeds, each trial from that seed's start.

    Before each trial the model is reset to what the seed draws, in place, so
    that nothing is compiled again; `train` runs inside the trial's own random
    streams. What a trial gives is a function of its seed alone: alone, in any
    order, in any process.

    Args:
        model: A compiled `ReproducibleModel`, or a function without arguments
            that builds one.
        train: Fits the model that it is given, and returns a score or a dict
            of scores by name; a score may be an array of losses per test
            example, whose mean it then is. What it makes anew each time
            (callbacks, pipelines) is each trial's own.
        seeds: How many trials, of seeds 0, 1, 2, ..., or the seeds; at most
            1,000,000.
        executor: Any `concurrent.futures.Executor` with fresh processes;
            `None` runs the trials here, or in `num_workers` processes.
        num_workers: How many processes to start on this machine, by loky: from
            1 to 1,024.
        path: A folder for the study. Each trial is on disk as soon as it has
            finished; called again, the study goes on where it was.
        backup: How often the trainings within a trial are backed up in
            `path`: each `"epoch"`, or a number of batches. A trial that was
            killed then goes on from its last backup, to the same bits.
        progress: Whether to show a bar with the mean and its interval so far,
            where standard error is a terminal or a notebook.
        vary: What the seeds move: `"all"`, or `"initial"` weights, `"order"`
            of the data or `"random"` draws alone, as for `reset`.
        until: When to stop before the last seed: `Settled(baseline)`, when
            the difference to another study is settled, or `HalfWidth(0.1)`.
        check: Share of the trials that is repeated in another process, their
            checksums compared; of 0.1 every tenth.
        patience: For how many seconds no trial may finish on any worker
            before the study ends with an error that names the seeds.

    Returns:
        The trials in the order of `seeds`: scores, checksums, the recorded
        runs, and what went wrong.

    Raises:
        TypeError: If an argument, or what `train` returns, is of the wrong
            type.
        ValueError: If an argument has a wrong value, if `path` holds another
            study, or if `backup` comes without `path` or with an executor
            whose workers may be on other machines.
        RuntimeError: If `train` raised under every seed, if the workers
            cannot run the trials, or if the executor loses one, refuses it or
            gives another answer. What has finished is then kept in `path`.

    Scope:
        A `train` that raises under some seeds is reported in `.failures`, and
        the others are kept; a study on disk tries them again. The model, if
        one was given, stands afterwards at its start, with the seed that it
        had. Equal bits on other machines need the same versions, kind of
        processor and threads; `check` tells.

    Example:
        >>> import keras, keras_repro as kr, numpy as np
        >>> x = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)
        >>> model = kr.ReproducibleModel(
        ...     [keras.Input((2,)), keras.layers.Dense(1)]
        ... )
        >>> model.compile("sgd", "mse")
        >>> def train(model):
        ...     history = model.fit(x, x[:, :1], epochs=2, verbose=0).history
        ...     return {"loss": history["loss"][-1]}
        >>> results = run_trials(model, train, seeds=3, progress=False)
        >>> results.seeds, results.scores["loss"].shape
        ((0, 1, 2), (3,))
        >>> again = run_trials(model, train, seeds=[2], progress=False)
        >>> bool(again.scores["loss"][0] == results.scores["loss"][2])
        True
    """
    listed = read_seeds(seeds)
    vary = check_vary(vary)
    num_workers, check, patience = check_arguments(
        executor, num_workers, until, check, patience
    )
    folder_path = None if path is None else check_path("path", path, _FOLDER)
    backup = check_backup(backup, folder_path, executor)
    progress = check_flag("progress", progress)
    study = _Study(listed, vary, until)
    runner = TrialRunner(model, train)
    with ExitStack() as stack:
        stack.enter_context(_kept_start(runner))
        if folder_path is not None:
            study.open(folder_path, lambda: _identify(runner, vary), backup)
            stack.callback(study.close)
        study.warn()
        engine, workers = stack.enter_context(
            _make_engines(runner, executor, num_workers, patience, check)
        )
        bar = stack.enter_context(TrialBar(len(listed), shown=progress))
        study.run(engine, bar)
        if check and workers is not None:
            study.check(workers, check)
        study.warn()
    return study.make_results()


class _Study:
    """The outcomes of a study as they come in."""

    def __init__(self, seeds: Sequence[int], vary: str, until: Any) -> None:
        if isinstance(until, Settled):
            until.check(seeds, vary)
        self._seeds, self._vary, self._until = seeds, vary, until
        self._outcomes: dict[int, TrialLine] = {}
        self._environments: dict[str, Mapping[str, Any]] = {}
        self._folder: StudyFolder | None = None
        self._backups: StudyBackups | None = None
        # What the study was when it was taken up, and what tells that anew.
        self._begun: tuple[StudyIdentity, Callable[[], StudyIdentity]] | None
        self._begun = None
        self._notes: list[str] = []
        self._num_told = 0
        # How many of the seeds, from the first on, are done.
        self._num_done = 0
        self._stops_at: int | None = None

    def open(
        self,
        path: Path,
        identify: Callable[[], StudyIdentity],
        backup: str | int | None,
    ) -> None:
        """Take up a study on disk, or begin one."""
        identity = identify()
        self._begun = identity, identify
        self._folder = StudyFolder(
            path, identity, capture_environment(), self._make_plan()
        )
        content = self._folder.content
        wanted = set(self._seeds)
        for seed, outcome in content.outcomes.items():
            if seed in wanted and not outcome.status:
                self._outcomes[seed] = outcome
        self._backups = StudyBackups(path, backup)
        self._remove_backups(self._outcomes)
        self._notes += content.notes
        self._num_told = len(self._notes)
        for text in self._folder.warnings:
            self._note(text)
        for name in list_unread(identity):
            self._note(
                f"What `{name}` holds cannot be read: a change of it would go "
                "unnoticed when the study goes on."
            )

    def close(self) -> None:
        """Let go of the folder."""
        if self._folder is not None:
            self._folder.close()

    def run(self, engine: Engine, bar: TrialBar) -> None:
        """Run the trials that are not done yet, until they are or may stop."""
        self._advance(bar)
        left = [seed for seed in self._seeds if seed not in self._outcomes]
        if left and self._stops_at is None:
            self._check_writable(left[0])
        backups = self._backups
        tasks = [
            TrialTask(
                seed=seed,
                vary=self._vary,
                backups=None if backups is None else backups.plan(seed),
            )
            for seed in left
        ]
        # Closed, it withdraws what has not begun.
        with closing(engine.run(tasks)) as outcomes:
            while self._stops_at is None:
                outcome = next(outcomes, None)
                if outcome is None:
                    break
                self._take(outcome)
                self._advance(bar)
        self._take_notes(engine)

    def _check_writable(self, seed: int) -> None:
        folder = self._folder
        if folder is not None and not folder.is_writable:
            raise PermissionError(
                "`path` must be a folder that can be written to, unless it "
                f"holds all `seeds`. Received: {quote(folder.path)}, which "
                f"cannot be, without seed {seed}. Copy the folder to another "
                "place and pass that, or ask for the seeds that it holds."
            )

    def _take(self, outcome: TrialOutcome) -> None:
        if outcome.status == MISUSE:
            raise TypeError(outcome.error)
        kept: TrialLine = outcome
        if self._folder is not None:
            kept = outcome.to_line()  # The runs are on disk then.
            self._folder.keep(kept, outcome.lines)
            self._find_written(self._folder)
        self._outcomes[outcome.seed] = kept
        if not outcome.status:
            self._remove_backups({outcome.seed})
        if outcome.environment is not None:
            self._add_environment(outcome.worker, outcome.environment)

    def _remove_backups(self, seeds: Container[int]) -> None:
        """Those of trials that are kept; one that raised may go on."""
        folder, backups = self._folder, self._backups
        if backups is not None and folder is not None and folder.is_writable:
            backups.remove(seeds)

    def _find_written(self, folder: StudyFolder) -> None:
        """After the first trial: what it left changed is no input of it."""
        if self._begun is not None:
            (before, identify), self._begun = self._begun, None
            folder.note_written(find_written(before, identify()))

    def _add_environment(
        self, worker: str, environment: Mapping[str, Any]
    ) -> None:
        """Say of a new worker how it differs from the first."""
        if self._environments:
            first, other = next(iter(self._environments.items()))
            for text in tell_differences(first, other, worker, environment):
                self._note(text)
        self._environments[worker] = environment

    def _advance(self, bar: TrialBar) -> None:
        """Go on to the next seeds in order; ask of each whether to stop."""
        bar.show(self._outcomes.values())
        while self._num_done < len(self._seeds) and self._stops_at is None:
            if self._seeds[self._num_done] not in self._outcomes:
                return
            self._num_done += 1
            if self._until is not None and self._is_met():
                self._stops_at = self._num_done

    def _is_met(self) -> bool:
        done = [self._outcomes[seed] for seed in self._seeds[: self._num_done]]
        done = [one for one in done if not one.status]
        scores = gather_scores(done)
        if not scores:
            return False
        if isinstance(self._until, Settled):
            return self._until.is_met(scores, [one.seed for one in done])
        return bool(self._until.is_met(scores))

    def check(self, engine: PoolEngine, share: float) -> None:
        """Repeat a share of the trials in other processes."""
        done = [one for one in self._list_outcomes() if not one.status]
        for text in check_elsewhere(
            engine, done, share, self._vary, self._environments
        ):
            self._note(text)
        self._take_notes(engine)

    def _take_notes(self, engine: Engine) -> None:
        for text in engine.notes:
            self._note(text)
        engine.notes.clear()

    def _note(self, text: str) -> None:
        """Keep what there is to say, once, also on disk."""
        if text in self._notes:
            return
        self._notes.append(text)
        if self._folder is not None and self._folder.is_writable:
            self._folder.note(text)

    def warn(self) -> None:
        """Tell what was noted since the last time."""
        for text in self._notes[self._num_told :]:
            warnings.warn(text, TrialWarning, stacklevel=3)
        self._num_told = len(self._notes)

    def _list_outcomes(self) -> list[TrialLine]:
        """Those that count: up to where the study stopped, in order."""
        seeds = self._seeds[: self._stops_at]
        return [
            self._outcomes[seed] for seed in seeds if seed in self._outcomes
        ]

    def _is_watched(self, outcomes: Sequence[TrialLine]) -> bool | None:
        """Whether one may have looked at them and gone on, or stopped."""
        seeds = [one.seed for one in outcomes]
        if self._folder is None:
            return self._make_plan().is_watched(seeds)
        return self._folder.is_watched(seeds)

    def _make_plan(self) -> StudyPlan:
        until = self._until
        if until is None:
            return StudyPlan.make(self._seeds)
        if isinstance(until, HalfWidth):
            return StudyPlan.make(self._seeds, "width", repr(until))
        return StudyPlan.make(self._seeds, "rule")

    def make_results(self) -> TrialResults:
        """The results; there must be at least one score."""
        outcomes = self._list_outcomes()
        if outcomes and all(one.status for one in outcomes):
            first = outcomes[0]
            raise RuntimeError(
                "`train` must return a score under at least one seed. "
                f"Received: {len(outcomes)} trials that all failed, the first "
                f"(seed {first.seed}) with {first.error}\n{first.traceback}"
            )
        path = None
        if self._folder is not None:
            self._folder.check(outcomes)
            path = self._folder.path
        return make_results(
            outcomes,
            notes=self._notes,
            vary=self._vary,
            path=path,
            watched=self._is_watched(outcomes),
        )


# --- around the study --------------------------------------------------------


@contextmanager
def _make_engines(
    runner: TrialRunner,
    executor: Executor | None,
    num_workers: int | None,
    patience: float,
    check: float,
) -> Iterator[tuple[Engine, PoolEngine | None]]:
    """What runs the trials, and the workers, if there are any."""
    has_workers = executor is not None or num_workers is not None
    if not has_workers and not check:
        yield LocalEngine(runner), None
        return
    # Without workers of its own the study is checked in another one.
    pool = make_pool(Study(runner.pack()), executor, num_workers or 1)
    with closing(PoolEngine(pool, patience)) as workers:
        yield workers if has_workers else LocalEngine(runner), workers


@contextmanager
def _kept_start(runner: TrialRunner) -> Iterator[None]:
    """Leave the model at its start, with the seed that it had."""
    model = runner.model
    seed, vary = find_seed(model), model._repro.seeds.vary
    try:
        yield
    finally:
        runner.rewind_generators()
        # Refused where `train` changed the layers, which has been told.
        with suppress(ValueError):
            model.reset(seed=seed, vary=vary)


def _identify(runner: TrialRunner, vary: str) -> StudyIdentity:
    ignored = (runner.model,)
    build = runner.build
    return StudyIdentity(
        train=fingerprint(runner.train, ignore=ignored),
        build=None if build is None else fingerprint(build),
        parts={
            name: fingerprint(part, ignore=ignored)
            for name, part in sorted(find_own_parts(runner.model).items())
        },
        model=describe_model(runner.model),
        vary=vary,
        backend=keras.backend.backend(),
    )


def read_seeds(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """The seeds of a study, each in range and there once."""
    advice = "Pass 30, or `range(30)`."
    must = f"name at least one trial, and at most {MOST_TRIALS:,}"
    if isinstance(seeds, (bool, np.bool_)):
        what = "be a number of trials, or the seeds themselves"
        raise wrong_type("seeds", what, seeds, advice)
    number = to_int(seeds)
    if number is not None and not 1 <= number <= MOST_TRIALS:
        raise wrong_value("seeds", must, number, advice)
    listed = check_seeds(seeds if number is None else range(number))
    if not listed:
        raise wrong_value("seeds", must, seeds, advice)
    return listed


def check_arguments(
    executor: Any, num_workers: Any, until: Any, check: Any, patience: Any
) -> tuple[int | None, float, float]:
    """Check the number of workers, the share to repeat and the patience."""
    if executor is not None:
        check_kind(
            "executor",
            executor,
            Executor,
            "Of a Dask client, pass `client.get_executor()`; else "
            "`num_workers=2`.",
            must="be a `concurrent.futures.Executor`",
        )
    if num_workers is not None:
        advice = "Pass 2, or leave it out to run the trials here."
        num_workers = check_int(
            "num_workers", num_workers, 1, MOST_WORKERS, advice=advice
        )
    if executor is not None and num_workers is not None:
        raise ValueError(
            "`executor` and `num_workers` must not both be given: an executor "
            f"has its own workers. Received: {describe(executor)} and "
            f"{num_workers}. Leave one out."
        )
    if until is not None and not _is_rule(until):
        must = "be a rule such as `HalfWidth(0.1)`"
        advice = "Leave it out to run all seeds."
        raise wrong_type("until", must, until, advice)
    advice = "Pass 0.1 to repeat every tenth trial."
    check = check_number("check", check, SHARE, advice)
    advice = "Pass 3600.0 where a trial takes minutes."
    return (
        num_workers,
        check,
        check_number("patience", patience, SECONDS, advice),
    )


def _is_rule(until: Any) -> bool:
    if isinstance(until, type):  # The class where an object of it is meant.
        return False
    with suppress(Exception):  # What its own attributes raise.
        return callable(until.is_met)
    return False


class TrialBar:
    """Shows the number of trials done, their mean and its interval so far."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._bar = _make_bar(total) if shown else None

    def __enter__(self) -> Self:
        """Show the bar."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def show(self, outcomes: Iterable[TrialLine]) -> None:
        """Show these outcomes."""
        if self._bar is None or self._bar.disable:
            return
        listed = list(outcomes)
        self._bar.set_postfix_str(say_so_far(listed), refresh=False)
        self._bar.update(len(listed) - self._bar.n)


def say_so_far(outcomes: list[TrialLine]) -> str:
    """The first score's mean, with its interval; how many trials failed."""
    done = [one for one in outcomes if not one.status]
    words = []
    if done:
        name, scores = next(iter(gather_scores(done).items()))
        scores = scores[np.isfinite(scores)]
        words.append(f"{clean(name, 20)} {_say_mean(scores)}")
    failed = len(outcomes) - len(done)
    if failed:
        words.append(f"{failed} failed")
    return ", ".join(words)


def _say_mean(scores: Any) -> str:
    if not len(scores):
        return "none finite"
    mean = f"{compute_mean(scores):.4g}"
    if len(scores) < 2:
        return mean
    # It is looked at after each trial.
    interval = t_interval(scores, watched=True)
    if math.isinf(interval.half_width):
        return mean
    return f"{mean} [{interval.low:.4g}, {interval.high:.4g}]"


def _make_bar(total: int) -> Any:
    with warnings.catch_warnings():
        # Without its widgets tqdm falls back to text, and says so.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(
            total=total,
            desc="trials",
            unit="trial",
            # `None` leaves it out where standard error is no terminal.
            disable=False if _is_notebook() else None,
            dynamic_ncols=True,
        )


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs us; it may be loaded for other reasons."""
    find_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if find_shell is None else find_shell()
    return getattr(shell, "kernel", None) is not None
