"""Where trials run: in this process, or on the workers of an executor."""

from __future__ import annotations

import itertools
import sys
import time
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
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras  # noqa: TID253

from keras_repro.studies.outcomes import (
    RAISED,
    Answer,
    Missing,
    TrialOutcome,
    TrialTask,
    Unfit,
)
from keras_repro.trials.remote import (
    hold_worker,
    make_environment,
    run_remotely,
    start_worker,
)
from keras_repro.trials.worker import TrialRunner

# How often a trial may lose its worker; it is run alone before the last time.
MOST_DEATHS = 3
# How often a trial may come to the worker that it shall avoid, with no other
# trial at work; and for how many seconds that worker is kept busy meanwhile.
_MOST_BOUNCES = 40
_HOLD = 0.3


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


@dataclass(frozen=True)
class _Sent:
    """A task that an executor has.

    Args:
        task: Which.
        target: The worker that the model goes along for; empty if it is on
            its way to nobody.
    """

    task: TrialTask
    target: str = ""


class PoolEngine:
    """Runs trials on the workers of an executor.

    The model travels to a worker once: a worker that lacks it says so, and
    the next task for it brings it along.

    Args:
        pool: Makes the executor, and makes it anew where that can be done.
        payload: What `TrialRunner.pack` wrote.
    """

    def __init__(self, pool: Pool, payload: bytes) -> None:
        self.notes: list[str] = []
        self.num_sent = 0
        self._pool, self._payload = pool, payload
        self._key = uuid.uuid4().hex
        self._tickets = itertools.count()
        self._backend = keras.backend.backend()
        self._queue: deque[TrialTask] = deque()
        self._pending: dict[Future[Any], _Sent] = {}
        self._deaths: Counter[int] = Counter()
        self._bounces: Counter[int] = Counter()
        # Workers that the model is on its way to.
        self._served: set[str] = set()
        self._ready: list[TrialOutcome] = []
        self._held: Future[Any] | None = None

    def run(
        self, tasks: Iterable[TrialTask]
    ) -> Generator[TrialOutcome, None, None]:
        """Run trials; give their outcomes as they come."""
        self._queue.extend(tasks)
        started = time.time()
        try:
            while self._queue or self._pending:
                self._submit()
                done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
                for future in done:
                    self._receive(future)
                ready, self._ready = self._ready, []
                yield from ready
        finally:
            self._withdraw()
            self.notes += self._pool.find_deaths(started)

    def close(self) -> None:
        """Withdraw what has not begun, and end the workers that are ours."""
        self._withdraw()
        self._pool.close()

    def _withdraw(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        self._queue.clear()

    def _submit(self) -> None:
        while self._queue and self._may_submit(self._queue[0]):
            task = self._queue.popleft()
            first = not self._pool.has_payload and not self.num_sent
            self._send(task, carries=first)

    def _may_submit(self, task: TrialTask) -> bool:
        """Whether it is its turn; one that lost workers runs alone."""
        pending = [sent.task.seed for sent in self._pending.values()]
        alone = MOST_DEATHS - 1
        if any(self._deaths[seed] >= alone for seed in pending):
            return False
        if self._deaths[task.seed] >= alone:
            return not pending
        return len(pending) < self._pool.window

    def _send(
        self, task: TrialTask, *, carries: bool = False, target: str = ""
    ) -> None:
        payload = self._payload if carries else None
        self.num_sent += carries
        task = replace(task, ticket=next(self._tickets))
        try:
            future = self._submit_to_pool(
                run_remotely, self._key, self._backend, payload, task
            )
        except BrokenExecutor as error:
            self._mourn([task], error)
        else:
            self._pending[future] = _Sent(task, target)

    def _submit_to_pool(self, *call: Any) -> Future[Any]:
        submit = self._pool.start(self._key, self._backend, self._payload)
        future: Future[Any] = submit(*call)
        return future

    def _receive(self, future: Future[Any]) -> None:
        sent = self._pending.pop(future, None)
        if sent is None:  # Mourned with others a moment ago.
            return
        self._served.discard(sent.target)
        try:
            answer = future.result()
        except BrokenExecutor as error:
            # All that the executor had is lost with it.
            lost = [sent.task, *(one.task for one in self._pending.values())]
            self._pending.clear()
            self._mourn(lost, error)
        except Exception as error:  # noqa: BLE001 - of the executor's own kinds
            self._mourn([sent.task], error)
        else:
            self._take(sent.task, answer)

    def _take(self, task: TrialTask, answer: Answer) -> None:
        if isinstance(answer, Unfit):
            raise _make_unfit(answer)
        if isinstance(answer, TrialOutcome):
            self._ready.append(answer)
        elif isinstance(answer, Missing):
            # One at a time: what comes to it meanwhile goes round once more.
            carries = answer.worker not in self._served
            self._served.add(answer.worker)
            target = answer.worker if carries else ""
            self._send(task, carries=carries, target=target)
        else:
            self._send_elsewhere(task)

    def _send_elsewhere(self, task: TrialTask) -> None:
        """Send a task that came to the worker that it shall avoid once more.

        With something else to do for whoever is free: an executor that finds
        all workers idle may choose the same one for ever.
        """
        if not self._pending:  # Else the others may just be busy.
            self._bounces[task.seed] += 1
        if self._bounces[task.seed] < _MOST_BOUNCES:
            with suppress(BrokenExecutor):
                # Kept, since Dask cancels what nobody has a future of.
                self._held = self._submit_to_pool(
                    hold_worker, _HOLD, next(self._tickets)
                )
        else:
            task = replace(task, avoid=None)
        self._send(task)

    def _mourn(self, lost: list[TrialTask], error: BaseException) -> None:
        """Trials whose worker died: run them again, but not for ever."""
        lost.sort(key=lambda task: task.seed)
        told = ", ".join(str(task.seed) for task in lost)
        if isinstance(error, BrokenExecutor) and not self._pool.revive():
            raise RuntimeError(
                "The executor must go on when a worker dies. Received: "
                f"{type(error).__name__} ({error}) while the trials of seeds "
                f"{told} were with it. What has finished is kept where `path` "
                "was given: call `run_trials` again with a new executor, or "
                "with `num_workers`, whose workers are started anew."
            ) from error
        self._served.clear()
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


def _make_unfit(answer: Unfit) -> RuntimeError:
    return RuntimeError(
        "A worker must be able to run the trials of this study. Received: "
        f"worker {answer.worker}; {answer.reason}"
    )


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


class Pool(Protocol):
    """An executor, and what is known of it."""

    window: int
    has_payload: bool

    def start(self, key: str, backend: str, payload: bytes) -> Any:
        """The executor's `submit`."""
        ...

    def revive(self) -> bool:
        """Start workers anew after a death; whether that can be done."""
        ...

    def find_deaths(self, started: float) -> list[str]:
        """Deaths that the executor dealt with by itself, in words."""
        ...

    def close(self) -> None:
        """End the workers, if they are ours."""
        ...


# loky takes a worker for leaky that uses 300 MB more after its first task, and
# starts another; here that is Keras and what it has compiled.
_LOKY_SETTINGS = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}


class LokyPool:
    """Fresh processes on this machine, made by loky.

    Args:
        num_workers: How many.
    """

    has_payload = True

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        # One in waiting for each: the next begins when one is done.
        self.window = 2 * num_workers
        self._executor: Any = None

    def start(self, key: str, backend: str, payload: bytes) -> Any:
        """The executor's `submit`; its workers get the model as they start."""
        if self._executor is None:
            import loky

            self._executor = loky.ProcessPoolExecutor(
                self._num_workers,
                context=loky.backend.get_context("loky"),
                initializer=start_worker,
                initargs=(key, backend, payload),
                env={**_LOKY_SETTINGS, **make_environment(backend)},
            )
        return self._executor.submit

    def revive(self) -> bool:
        """Forget the executor that broke; the next task makes another."""
        self.close()
        return True

    def find_deaths(self, started: float) -> list[str]:
        """None but those that broke the executor."""
        del started
        return []

    def close(self) -> None:
        """End the workers, also in the middle of a trial."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)


class OwnPool:
    """An executor that the caller made, and will shut down.

    Args:
        executor: Any `concurrent.futures.Executor`.
    """

    has_payload = False
    # How many workers there are is not known: enough for a large cluster.
    window = 1000

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def start(self, key: str, backend: str, payload: bytes) -> Any:
        """The executor's `submit`."""
        del key, backend, payload
        return self._executor.submit

    def revive(self) -> bool:
        """It is the caller's: nobody else can make it anew."""
        return False

    def find_deaths(self, started: float) -> list[str]:
        """Workers that Dask lost and whose trials it ran again by itself."""
        client = _find_dask_client(self._executor)
        if client is None or client.asynchronous:
            return []
        events = client.get_events("all")
        return [
            f"Worker {event['worker']} died; Dask ran its trials again "
            "elsewhere."
            for stamp, event in events
            if stamp >= started
            and event.get("action") == "remove-worker"
            and not event.get("expected", True)
            and event.get("processing-tasks")
        ]

    def close(self) -> None:
        """The caller's executor stays open."""


def _find_dask_client(executor: Executor) -> Any:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    # `_client`: distributed 2024.1 to 2026.8; without it such deaths are not
    # told of, though the trials are run again all the same.
    client = getattr(executor, "_client", None)
    return client if isinstance(client, distributed.Client) else None
