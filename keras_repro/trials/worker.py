"""A process that runs trials, and keeps the model compiled between them."""

from __future__ import annotations

import pickle
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras  # noqa: TID253
import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import compute_checksum
from keras_repro.backends import owners, random_streams
from keras_repro.backends.generators import (
    copy_generator_state,
    put_generator_state,
)
from keras_repro.common.checks import check_function, check_kind
from keras_repro.common.text import describe
from keras_repro.environment.capture import capture_environment
from keras_repro.model import around_fit, transfer
from keras_repro.model.model import ReproducibleModel
from keras_repro.model.stored_trial import FIXED_SEED
from keras_repro.model.transfer import PicklingError, pack
from keras_repro.model.trial import capture_if_built, require_drawable
from keras_repro.recording.callback import ChecksumCallback
from keras_repro.resuming.several import SeveralBackups
from keras_repro.runs.lines import encode_entry
from keras_repro.runs.run import Run, RunHeader, list_entries
from keras_repro.studies.outcomes import (
    MISUSE,
    RAISED,
    TrialOutcome,
    TrialTask,
    name_worker,
)
from keras_repro.trials.fingerprint import find_generators

Train = Callable[[Any], Any]
DEFAULT_SCORE = "score"
_MODEL = "be a `ReproducibleModel`, or a function that builds one"
MOST_EXAMPLES = 100_000
_MOST_HELD = 2  # Studies of which a worker keeps the model.


class TrialRunner:
    """Runs the trials of one study in this process, on one model."""

    def __init__(self, model: Any, train: Train) -> None:
        must = "be a function of the model"
        advice = "Pass one that fits the model and returns a score."
        check_function("train", train, (model,), must, advice)
        if not isinstance(model, keras.Model):
            advice = "Give its arguments default values."
            check_function("model", model, (), _MODEL, advice)
        self.build = None if isinstance(model, keras.Model) else model
        self.train = train
        # Of the program's own, so that each trial finds them where the study
        # began, as it would alone in a fresh process.
        self._generators = _find_own_generators(train, model)
        self.model = model if self.build is None else _make(self.build)
        _check_model(self.model)
        if not capture_if_built(self.model):
            around_fit.rehearse(self.model, train)
        require_drawable(self.model)
        self._is_known = self._has_run = False

    def run(self, task: TrialTask) -> TrialOutcome:
        """Run one trial, while no training of another thread is running."""
        with owners.held(f"a trial of seed {task.seed}", owners.BLOCK):
            return self._run(task)

    def _run(self, task: TrialTask) -> TrialOutcome:
        worker = name_worker()
        scores: dict[str, float] = {}
        examples: dict[str, tuple[float, ...]] = {}
        problem = {"status": "", "error": "", "traceback": ""}
        if task.after is not None and not self._has_run:
            # What a first training leaves behind is then of another seed.
            with suppress(Exception):
                self.rewind_generators()
                other = replace(task, seed=task.after, backups=None)
                self._train(other, _TrialRecorder())
        self._has_run = True
        recorder = _TrialRecorder()
        started = time.perf_counter()
        try:
            self.rewind_generators()
            scores, examples = self._train(task, recorder)
        except _ScoreError as error:
            told = f"{error} It came under seed {task.seed}."
            problem |= {"status": MISUSE, "error": told}
        except Exception as error:  # noqa: BLE001 - the person's code
            problem |= _describe(error)
        seconds = time.perf_counter() - started
        # Of a model that a failed step left without values there is none.
        failed = problem["status"]
        checksum = "" if failed else compute_checksum(self.model)
        return TrialOutcome(
            seed=task.seed,
            worker=worker,
            scores=scores,
            examples=examples,
            checksum=checksum,
            seconds=seconds,
            lines=tuple(recorder.lines),
            runs=tuple(recorder.run_ids),
            environment=self._take_environment(),
            **problem,
        )

    def _train(
        self, task: TrialTask, recorder: _TrialRecorder
    ) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        model = self.model
        # What `train` uses it makes; `check=` finds what it keeps outside.
        with (
            around_fit.marked(model._repro.progress, "has_all"),
            model.trial(seed=task.seed, vary=task.vary),
        ):
            model._repro.calls.added = (recorder, *_make_backups(task))
            try:
                value = self.train(model)
            finally:
                model._repro.calls.added = ()
        return read_scores(value)

    def rewind_generators(self) -> None:
        """Put the program's own generators where the study began."""
        for generator, state in self._generators:
            put_generator_state(generator, state)

    def _take_environment(self) -> Mapping[str, Any] | None:
        """Of this process, once: that is enough to compare workers."""
        if self._is_known:
            return None
        self._is_known = True
        return capture_environment()

    def pack(self) -> bytes:
        """The study as bytes, for a process that is to run its trials."""
        settings = transfer.read_settings()
        model = self.model if self.build is None else self.build
        try:
            return pack((settings, pack((model, self.train), by_value=True)))
        except PicklingError as error:
            msg = (
                "The model and `train` must be such that they can be sent to "
                f"another process. Received: {describe(self.train)}; {error}. "
                "Make what cannot travel (a pipeline, an open file, a lock) "
                "inside `train`, or pass a function that builds the model."
            )
            raise PicklingError(msg) from error


def _make_backups(task: TrialTask) -> list[Any]:
    wanted = task.backups
    if wanted is None:
        return []
    return [SeveralBackups(Path(wanted.folder), wanted.save_freq)]


def read_scores(
    value: Any,
) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
    """What `train` returned, as numbers by name, and losses per example."""
    if not isinstance(value, Mapping):
        return {DEFAULT_SCORE: _read_number(value, DEFAULT_SCORE)}, {}
    if not value:
        raise _ScoreError(_say_score(value))
    scores: dict[str, float] = {}
    examples: dict[str, tuple[float, ...]] = {}
    for key in value:
        name, losses = _read_name(key), _read_losses(value[key], key)
        if losses is None:
            scores[name] = _read_number(value[key], key)
        else:
            examples[name] = tuple(losses.tolist())
            scores[name] = float(np.mean(losses))
    return scores, examples


def _read_losses(value: Any, name: str) -> npt.NDArray[np.float64] | None:
    """Losses per test example; `None` of what is no row of numbers."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 1 or shape[0] in (0, 1):
        return None
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value))
        _refuse_complex(array, value, name)
        losses = array.astype(np.float64)
    except _ScoreError:
        raise
    except Exception as error:
        raise _ScoreError(_say_score(value)) from error
    if losses.size > MOST_EXAMPLES:
        raise _ScoreError(
            f"The losses {name!r} must be of at most {MOST_EXAMPLES:,} test "
            f"examples. Received: {losses.size:,}. Return the mean of each "
            "group of them, which is then an example."
        )
    return losses


class _ScoreError(TypeError):
    """What `train` returned is no score."""


def _read_name(name: object) -> str:
    if isinstance(name, str) and name:
        return name
    raise _ScoreError(
        "The names of the scores that `train` returns must be strings. "
        f"Received: {describe(name)}."
    )


def _read_number(value: Any, name: str) -> float:
    if value is None or isinstance(value, (str, bytes)):
        raise _ScoreError(_say_score(value))
    _refuse_complex(value, value, name)
    try:
        return float(value)
    except Exception:  # noqa: BLE001 - converters raise what they like
        pass
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value))
        _refuse_complex(array, value, name)
        return float(array.astype(np.float64).reshape(()))
    except _ScoreError:
        raise
    except Exception as error:
        raise _ScoreError(_say_score(value)) from error


def _refuse_complex(array: Any, value: Any, name: str) -> None:
    """A float would lose its imaginary part, with no more than a warning."""
    kind = str(getattr(array, "dtype", ""))
    if isinstance(array, complex) or "complex" in kind:
        raise _ScoreError(
            f"The score {name!r} must be a real number. Received: "
            f"{describe(value, typed=True)}. Return its absolute value, or its "
            "real and its imaginary part as two scores."
        )


def _say_score(value: Any) -> str:
    return (
        "`train` must return a score, or a dict of scores by name. Received: "
        f"{describe(value, typed=True)}. Return a number, "
        'for example `model.evaluate(x, y)` or `{"rmse": rmse}`; by name also '
        "an array of losses per test example."
    )


class _TrialRecorder(ChecksumCallback):
    """Records each `fit` of a trial, and compares it with nothing."""

    def __init__(self) -> None:
        super().__init__(on_drift="ignore")
        self.lines: list[str] = []
        self.run_ids: list[str] = []

    def _find_reference(self, header: RunHeader) -> Run | None:
        del header
        return None

    def _keep(self, run: Run) -> None:
        self.lines.extend(map(encode_entry, list_entries(run)))
        self.run_ids.append(run.run_id)


def _make(build: Callable[[], Any]) -> Any:
    """Build a model, the same in each process, whatever was drawn before."""
    with random_streams.isolate_rng(FIXED_SEED):
        return build()


def _check_model(model: Any) -> None:
    advice = (
        "Use `ReproducibleModel` in the place of `keras.Sequential`, or "
        "`make_reproducible(model)`."
    )
    check_kind("model", model, ReproducibleModel, advice, must=_MODEL)
    if model._repro.calls.in_block:
        msg = (
            "`run_trials` must be called between the trials of a model. "
            f"Received: {model.name!r}, in the middle of one. Call it outside "
            "of `train` and of `with model.trial()`, or on a clone."
        )
        raise RuntimeError(msg)
    if not model.compiled:
        msg = (
            "`model` must be compiled before its trials. Received: "
            f"{model.name!r}, which is not. Call `model.compile(...)`."
        )
        raise ValueError(msg)


def _find_own_generators(train: Train, model: Any) -> list[tuple[Any, Any]]:
    states = []
    for _, generator in find_generators(train, ignore=(model,)):
        state = copy_generator_state(generator)
        if state is not None:
            states.append((generator, state))
    return states


def _describe(error: Exception) -> dict[str, str]:
    """An exception as text: it may be of a class that cannot travel."""
    lines = traceback.format_exception(error)
    return {
        "status": RAISED,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(lines),
    }


# --- a worker of an executor -------------------------------------------------


class _Held(NamedTuple):
    """A study that was sent here: its runner, or why there is none."""

    settings: dict[str, Any]
    runner: TrialRunner | None
    reason: str = ""


_held: OrderedDict[str, _Held] = OrderedDict()


def receive(key: str, payload: bytes) -> None:
    """Take in a study, unless it is here already."""
    if key not in _held:
        _held[key] = _unpack(payload)
    while len(_held) > _MOST_HELD:
        _held.popitem(last=False)


def _unpack(payload: bytes) -> _Held:
    # Of the program that runs the study, which may run anything here.
    settings, content = pickle.loads(payload)
    try:
        transfer.apply_settings(settings)
        model, train = pickle.loads(content)
        return _Held(settings, TrialRunner(model, train))
    except Exception as error:  # noqa: BLE001 - of many kinds
        reason = (
            "the model and `train` cannot be loaded there: "
            f"{type(error).__name__}: {error}. Have the same packages and "
            "modules on all workers, or pass a function that builds the model."
        )
        return _Held(settings, None, reason)


def run(key: str, task: TrialTask) -> TrialOutcome | str:
    """Run a trial of a study that was sent here."""
    _held.move_to_end(key)
    held = _held[key]
    if held.runner is None:
        return held.reason
    # Another study may have run here since.
    transfer.apply_settings(held.settings)
    return held.runner.run(task)
