"""Where trials run: in this process, or on the workers of an executor."""

from __future__ import annotations

import itertools
import sys
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    wait,
)
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import keras  # noqa: TID253

from keras_repro.studies.outcomes import (
    RAISED,
    Answer,
    TrialOutcome,
    TrialTask,
)
from keras_repro.trials.remote import (
    make_environment,
    run_remotely,
    start_worker,
)
from keras_repro.trials.worker import TrialRunner

# How often a trial may lose its worker; it is run alone before the last time.
MOST_DEATHS = 3
_GO_ON = (
    "What has finished is kept where `path` was given: call `run_trials` again "
    "with a new executor, or with `num_workers`, whose workers are started "
    "anew."
)


class Engine(Protocol):
    """Runs trials."""

    notes: list[str]

    def run(
        self, tasks: Iterable[TrialTask]
    ) -> Generator[TrialOutcome, None, None]:
        """Run trials; give their outcomes as they come, in any order."""
        ...

    def close(self) -> None:
        """Give up what is still under way."""
        ...


class LocalEngine:
    """Runs one trial after the other in this process."""

    def __init__(self, runner: TrialRunner) -> None:
        self.notes: list[str] = []
        self._runner = runner

    def run(
        self, tasks: Iterable[TrialTask]
    ) -> Generator[TrialOutcome, None, None]:
        """Run trials, in their order."""
        for task in tasks:
            yield self._runner.run(task)

    def close(self) -> None:
        """Nothing is under way between two trials."""


class PoolEngine:
    """Runs trials on the workers of an executor."""

    def __init__(self, pool: Pool, patience: float) -> None:
        self.notes: list[str] = []
        # The patience: for how many seconds no trial may finish.
        self._pool, self._patience = pool, patience
        self._tickets = itertools.count()
        self._queue: deque[TrialTask] = deque()
        self._pending: dict[Future[Any], TrialTask] = {}
        self._deaths: Counter[int] = Counter()
        self._ready: list[TrialOutcome] = []

    def run(
        self, tasks: Iterable[TrialTask]
    ) -> Generator[TrialOutcome, None, None]:
        """Run trials; give their outcomes as they come."""
        self._queue.extend(tasks)
        try:
            while self._queue or self._pending:
                try:
                    self._submit()
                    self._receive(self._wait())
                except RuntimeError:
                    self._receive_rest()
                    yield from self._ready
                    raise
                ready, self._ready = self._ready, []
                yield from ready
        finally:
            self._withdraw()
            self.notes += self._pool.find_deaths()

    def renew(self) -> None:
        """Go on with fresh processes, where the workers are ours."""
        self._pool.renew()

    def close(self) -> None:
        """Withdraw what has not begun, and end the workers that are ours."""
        self._withdraw()
        self._pool.close()

    def _withdraw(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        self._queue.clear()
        self._ready.clear()

    def _submit(self) -> None:
        while self._queue and self._may_submit(self._queue[0]):
            self._send(self._queue.popleft())

    def _may_submit(self, task: TrialTask) -> bool:
        """Whether it is its turn; one that lost workers runs alone."""
        pending = [sent.seed for sent in self._pending.values()]
        alone = MOST_DEATHS - 1
        if any(self._deaths[seed] >= alone for seed in pending):
            return False
        if self._deaths[task.seed] >= alone:
            return not pending
        return len(pending) < self._pool.window

    def _send(self, task: TrialTask) -> None:
        task = replace(task, ticket=next(self._tickets))
        try:
            future = self._pool.submit(task)
        except BrokenExecutor as error:
            self._mourn([task], error)
            return
        except Exception as error:
            raise _refuse(task, f"{type(error).__name__}: {error}") from error
        if not isinstance(future, Future) or future in self._pending:
            # Of two trials with one future the first would never be heard of.
            raise _refuse(task, f"{future!r:.200} from its `submit`")
        self._pending[future] = task

    def _wait(self) -> Iterable[Future[Any]]:
        done, _ = wait(
            self._pending, self._patience, return_when=FIRST_COMPLETED
        )
        if self._pending and not done:
            raise RuntimeError(
                "The executor must answer for each trial. Received: nothing "
                f"for {self._patience:g} seconds, while it had the trials of "
                f"seeds {_list_seeds(self._pending.values())}. {_GO_ON} Where "
                "a trial takes that long, pass a larger `patience`."
            )
        return done

    def _receive(self, done: Iterable[Future[Any]]) -> None:
        for future in done:
            # What the executor lost with another one is not there any more.
            task = self._pending.pop(future, None)
            if task is None:
                continue
            try:
                answer = future.result()
            except BrokenExecutor as error:
                lost = [task, *self._pending.values()]
                self._pending.clear()
                self._mourn(lost, error)
            except Exception as error:  # noqa: BLE001 - an executor's own kinds
                self._mourn([task], error)
            else:
                self._ready.append(_read_answer(task, answer))

    def _receive_rest(self) -> None:
        """Before the study ends with an error: what has finished is kept."""
        for future in list(self._pending):
            if future.done():
                with suppress(RuntimeError):
                    self._receive([future])

    def _mourn(self, lost: list[TrialTask], error: BaseException) -> None:
        """Trials whose worker died: run them again, but not for ever."""
        lost.sort(key=lambda task: task.seed)
        told = _list_seeds(lost)
        if isinstance(error, BrokenExecutor) and not self._pool.renew():
            raise RuntimeError(
                "The executor must go on when a worker dies. Received: "
                f"{type(error).__name__} ({error}) while the trials of seeds "
                f"{told} were with it. {_GO_ON}"
            ) from error
        again = []
        for task in lost:
            self._deaths[task.seed] += 1
            if self._deaths[task.seed] < MOST_DEATHS or len(lost) > 1:
                again.append(task)
            else:
                self._ready.append(_make_death(task, error))
        if again:
            self.notes.append(
                f"A worker died ({type(error).__name__}) while it had the "
                f"trials of seeds {told}; they were run again."
            )
        self._queue.extendleft(reversed(again))


def _read_answer(task: TrialTask, answer: Any) -> TrialOutcome:
    """The outcome of this very task; a late or doubled answer is of another."""
    if not isinstance(answer, Answer):
        raise _refuse(task, f"{answer!r:.200} as its result")
    if answer.task != task:
        raise _refuse(task, f"the answer for {answer.task!r}")
    content = answer.content
    if isinstance(content, TrialOutcome):
        return content
    raise RuntimeError(
        "A worker must be able to run the trials of this study. Received: "
        f"worker {content.worker}; {content.reason}"
    )


def _refuse(task: TrialTask, received: str) -> RuntimeError:
    return RuntimeError(
        "The executor must run each trial and give its own answer. Received: "
        f"for seed {task.seed} {received}. {_GO_ON}"
    )


def _list_seeds(tasks: Iterable[TrialTask]) -> str:
    return ", ".join(str(task.seed) for task in tasks)


def _make_death(task: TrialTask, error: BaseException) -> TrialOutcome:
    return TrialOutcome(
        seed=task.seed,
        scores={},
        checksum="",
        seconds=0.0,
        worker="",
        runs=(),
        status=RAISED,
        error=f"{type(error).__name__}: its worker died each time it was run, "
        "the last time with no other trial at work. Out of memory?",
        traceback="",
    )


# --- pools -------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """What a worker needs to run trials, and keeps by its key."""

    payload: bytes  # What `TrialRunner.pack` wrote.
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    backend: str = field(default_factory=keras.backend.backend)


class Pool(Protocol):
    """An executor, and how a study gets to its workers."""

    window: int

    def submit(self, task: TrialTask) -> Any:
        """Give the executor a trial to run."""
        ...

    def renew(self) -> bool:
        """Start the workers anew; whether that can be done."""
        ...

    def find_deaths(self) -> list[str]:
        """Deaths that the executor dealt with by itself, in words."""
        ...

    def close(self) -> None:
        """End the workers, if they are ours."""
        ...


def make_pool(
    study: Study, executor: Executor | None, num_workers: int = 1
) -> Pool:
    """Take the executor of the caller, or start processes."""
    if executor is None:
        return LokyPool(study, num_workers)
    client = _find_dask_client(executor)
    if client is None:
        return OwnPool(study, executor)
    return DaskPool(study, executor, client)


# loky takes a worker for leaky that uses 300 MB more after its first task, and
# starts another; here that is Keras and what it has compiled.
_LOKY_SETTINGS = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}


class LokyPool:
    """Fresh processes on this machine, by loky; each starts with the study."""

    def __init__(self, study: Study, num_workers: int) -> None:
        self._study, self._num_workers = study, num_workers
        # One in waiting for each: the next begins when one is done.
        self.window = 2 * num_workers
        self._executor: Any = None

    def submit(self, task: TrialTask) -> Any:
        """Give a worker a trial to run."""
        study = self._study
        if self._executor is None:
            import loky

            self._executor = loky.ProcessPoolExecutor(
                self._num_workers,
                context=loky.backend.get_context("loky"),
                initializer=start_worker,
                initargs=(study.key, study.backend, study.payload),
                env={**_LOKY_SETTINGS, **make_environment(study.backend)},
            )
        return self._executor.submit(
            run_remotely, study.key, study.backend, None, task
        )

    def renew(self) -> bool:
        """Forget the executor; the next task makes another."""
        self.close()
        return True

    def find_deaths(self) -> list[str]:
        """None but those that broke the executor."""
        return []

    def close(self) -> None:
        """End the workers, also in the middle of a trial."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)


class OwnPool:
    """An executor that the caller made, and will shut down."""

    # How many workers there are is not known: enough for a large cluster.
    window = 1000

    def __init__(self, study: Study, executor: Any) -> None:
        self._study, self._executor = study, executor

    def submit(self, task: TrialTask) -> Any:
        """Give the executor a trial to run."""
        study = self._study
        # The study goes along each time; a worker unpacks it once.
        return self._executor.submit(
            run_remotely, study.key, study.backend, study.payload, task
        )

    def renew(self) -> bool:
        """It is the caller's: nobody else can make it anew."""
        return False

    def find_deaths(self) -> list[str]:
        """None that a pool would not raise."""
        return []

    def close(self) -> None:
        """The caller's executor stays open."""


class DaskPool(OwnPool):
    """Dask's executor: it sends the study to each worker once."""

    def __init__(self, study: Study, executor: Any, client: Any) -> None:
        super().__init__(study, executor)
        self._client, self._scattered = client, None
        self._workers: set[str] = set(client.nthreads())

    def submit(self, task: TrialTask) -> Any:
        """Give the cluster a trial to run."""
        study, sent = self._study, self._scattered
        if sent is None or sent.status != "finished":  # Lost with its workers.
            sent = self._client.scatter(study.payload, broadcast=True)
            self._scattered = sent
        # Not pure: what looks as before would get the answer of then.
        return self._executor.submit(
            run_remotely, study.key, study.backend, sent, task, pure=False
        )

    def find_deaths(self) -> list[str]:
        """Workers that are gone; Dask goes on without them."""
        before, self._workers = self._workers, set(self._client.nthreads())
        return [
            f"Worker {address} is gone; Dask ran its trials again elsewhere, "
            "if it had any."
            for address in sorted(before - self._workers)
        ]


def _find_dask_client(executor: Executor) -> Any:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    # `_client`: distributed 2024.1 to 2026.8; without it, or where its answers
    # must be awaited, it is an executor like any other.
    client: Any = getattr(executor, "_client", None)
    is_client = isinstance(client, distributed.Client)
    return client if is_client and not client.asynchronous else None
