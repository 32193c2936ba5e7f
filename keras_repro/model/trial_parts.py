"""What a reproducible model knows about its trial, part by part."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from keras_repro.backends import random_streams
from keras_repro.backends.data_passes import Passes
from keras_repro.backends.keras_internals import get_global_seed
from keras_repro.backends.pipeline_passes import PipelinePasses
from keras_repro.backends.reading import Reading
from keras_repro.model import data_order
from keras_repro.model.data_positions import DataPositions
from keras_repro.model.evaluations import Evaluations
from keras_repro.model.initial_state import InitialState
from keras_repro.model.midst import Midst
from keras_repro.model.redraw import Drawer
from keras_repro.model.sample_rng import Training
from keras_repro.model.stored_trial import (
    ALL,
    FIXED_SEED,
    ORDER,
    RANDOM,
    StoredTrial,
)
from keras_repro.model.traces import Traces

_T = TypeVar("_T")


def _require(value: _T | None, otherwise: str) -> _T:
    """A part that there must be by now."""
    if value is None:
        raise RuntimeError(otherwise)
    return value


class Seeds:
    """The seed of a trial, and the seeds that it may come from."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self.of_program = random_streams.seed_from_program()
        self.seed: int | None = None
        # Which part of the trial the seed moves.
        self.vary = ALL

    @property
    def wanted(self) -> int:
        """The seed to begin with: a requested, a global, or its own."""
        for seed in (self.requested, get_global_seed()):
            if seed is not None:
                return seed
        return self.of_program

    @property
    def settled(self) -> int:
        """The seed, where there must be one."""
        return _require(self.seed, "the trial has not begun")

    @property
    def order(self) -> int:
        """What the order of the data is a function of."""
        return self.of(ORDER)

    def of(self, part: str) -> int:
        """The seed that a part of the trial follows."""
        moves = self.vary in (ALL, part)
        return self.settled if moves else FIXED_SEED


class Start:
    """What the trials of a model start from, and how a seed draws it."""

    def __init__(self) -> None:
        self.state: InitialState | None = None
        # A start that was read before there was a model to put it into.
        self.loaded: tuple[InitialState, StoredTrial, str] | None = None
        self.as_built: InitialState | None = None
        self.as_built_seed: int | None = None
        self.drawer = Drawer()
        self.redraw_when_built = True
        self.foreign: set[int] = set()
        # How many of the model's constructors run, one within the other.
        self.constructors = 0
        self.compile_config: Any = None
        self.warned_about_setup = False

    @property
    def captured(self) -> InitialState:
        """The initial state, where there must be one."""
        return _require(self.state, "the model is not built")

    def take_up(self, model: Any) -> None:
        """Begin with what a model holds now, which has not trained yet."""
        self.state = InitialState.capture(model, earlier=self.state)


class Draws:
    """Where the random numbers of a trial come from."""

    def __init__(self) -> None:
        self.streams: random_streams.Streams | None = None
        # The streams begin at a function of the seed alone, since the data
        # drew from them before the model was built.
        self.starts_apart = False
        self.evaluations = Evaluations()
        self.traces = Traces()

    @property
    def own_streams(self) -> random_streams.Streams:
        """The streams, where there must be some."""
        return _require(self.streams, "the model is not built")

    @property
    def position(self) -> random_streams.RngState | None:
        """Where the streams stand."""
        return None if self.streams is None else self.streams.position

    def begin_at(self, start: random_streams.RngState, seed: int) -> None:
        """Have the streams begin there, unless something has drawn."""
        if self.streams is None:
            self.streams = random_streams.Streams(start, seed)
        elif not self.streams.begin_at(start, seed):
            self.starts_apart = True

    def stand_at(self, stored: StoredTrial) -> None:
        """Have the streams stand where those of a file stood."""
        self.own_streams.position = stored.position
        self.own_streams.evaluations = stored.evaluations
        self.starts_apart = stored.starts_apart

    def rewind(self) -> None:
        """Go back to the start of the trial."""
        self.evaluations.rewind()
        if self.streams is not None:
            self.streams.rewind()


class Data:
    """The data of a trial, and how the present training reads its own."""

    def __init__(self) -> None:
        self.positions = DataPositions()
        self.outline = data_order.DataOutline()
        self.notes: list[str] = []
        self.fed: data_order.FedSamples | None = None
        # What the training validates on, as the caller gave it.
        self.validation: Any = None
        # Whether its data stand elsewhere than where they began.
        self.has_moved: Callable[[], bool] | None = None
        # What it draws samples by, how far it has come, and its passes.
        self.samples: Training | None = None
        self.reading: Reading | None = None
        self.passes: Passes | PipelinePasses | None = None

    def let_go(self) -> None:
        """Keep nothing of a training alive; its arrays are the caller's."""
        self.outline, self.fed = data_order.DataOutline(), None
        if self.reading is not None:
            self.reading.end()
        self.validation = self.reading = self.has_moved = None


class Progress:
    """How far a trial has come."""

    def __init__(self) -> None:
        self.at_start = True
        self.has_trained = False
        # Whether the present training has begun its first step.
        self.has_stepped = False
        self.epochs = 0
        # Where a training was saved that this model may go on with.
        self.saved: StoredTrial | None = None
        # What kinds of steps ran since the reset, and on which batches first.
        self.fed_kinds: set[str] = set()
        self.batches: dict[str, Any] = {}
        # Whether a block moved the weights by what nobody handed over.
        self.is_blind = False
        # Whether the person said that there is nothing to hand over.
        self.has_all = False

    @property
    def midst(self) -> Midst | None:
        """Where in an epoch the next training goes on, if it does."""
        return None if self.saved is None else self.saved.midst

    def leave_start(self) -> None:
        """The weights have been trained."""
        self.has_trained, self.at_start = True, False

    def stand_at(self, stored: StoredTrial) -> None:
        """Have come as far as the trial of a file, which may go on."""
        self.saved, self.epochs = stored, stored.epochs_trained
        self.at_start = stored.at_start
        self.has_trained = stored.has_trained

    def rewind(self) -> None:
        """Go back to the start of the trial."""
        self.at_start, self.saved = True, None
        self.epochs = 0
        self.fed_kinds.clear()


class Calls:
    """Which calls of a model run, and what others add to them."""

    def __init__(self) -> None:
        self.is_running = False
        self.is_evaluating = False
        self.in_block = False
        self.is_rehearsed = False
        self.one_evaluation = threading.RLock()
        # Callbacks that whoever runs trials adds to each `fit`.
        self.added: tuple[Any, ...] = ()
        # Who keeps the present training, so that it can be gone on with.
        self.keeper: Any = None
        # The backups of a training that was interrupted in this process.
        self.kept_series: str | None = None


class Trial:
    """What a reproducible model knows about its trial."""

    # Kept as one plain object outside Keras' attribute tracking; the callback
    # reads the seed and the checksums from it.

    def __init__(self) -> None:
        self.seeds = Seeds()
        self.start = Start()
        self.draws = Draws()
        self.data = Data()
        self.progress = Progress()
        self.calls = Calls()

    @property
    def epoch(self) -> int:
        """The epoch that is being read, or that comes next."""
        if self.data.samples is not None:
            return self.data.samples.epoch
        return self.progress.epochs

    def name(
        self, seed: int, start: random_streams.RngState, vary: str = ALL
    ) -> None:
        """Give the trial its seed, and the streams that begin at `start`."""
        self.seeds.seed, self.seeds.vary = seed, vary
        self.draws.begin_at(start, self.seeds.of(RANDOM))

    def rewind(self) -> None:
        """Stand at the start of the trial."""
        self.progress.rewind()
        self.draws.rewind()
        self.data.positions.rewind()
