"""Where the layers' generators stand in each kind of evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from keras_repro.backends.generators import (
    copy_generator_state,
    put_generator_state,
    start_generator,
)

if TYPE_CHECKING:
    from keras_repro.model.trial import Trial

VALIDATION, TEST, PREDICT = "validation", "test", "predict"


class Evaluations:
    """A position of each generator for each kind of evaluation.

    A kind begins at a function of the trial's own start, goes on from one
    call to the next, and moves neither the training nor another kind.
    """

    def __init__(self) -> None:
        self._positions: dict[str, dict[int, Any]] = {}
        self._kind = ""
        self._outside: list[tuple[Any, Any]] = []

    def rewind(self) -> None:
        """Begin every kind anew."""
        self._positions.clear()

    @contextmanager
    def evaluating(self, trial: Trial, kind: str) -> Iterator[None]:
        """Swap the generators to the position of a kind, and back again."""
        self._kind, self._outside = kind, []
        self.take_up(trial)
        try:
            yield
        finally:
            self._put_back()

    def take_up(self, trial: Trial) -> None:
        """Swap those that are known by now; again when a model is built."""
        if trial.state is None:
            return
        known = {id(generator) for generator, _ in self._outside}
        positions = self._positions.setdefault(self._kind, {})
        for generator, start in trial.captured.generators():
            if id(generator) in known:
                continue
            self._outside.append((generator, copy_generator_state(generator)))
            if id(generator) in positions:
                put_generator_state(generator, positions[id(generator)])
            else:
                start_generator(generator, _derive(start, self._kind))

    def _put_back(self) -> None:
        positions = self._positions.setdefault(self._kind, {})
        for generator, outside in self._outside:
            position = copy_generator_state(generator)
            if position is not None:  # A step that failed can lose it.
                positions[id(generator)] = position
            put_generator_state(generator, outside)
        self._outside = []


def _derive(start: Any, kind: str) -> int:
    if hasattr(start[1], "numpy"):  # A tensor shows its ends alone.
        start = start[0], start[1].numpy().tolist()
    digest = hashlib.sha256(f"{kind}/{start!r}".encode())
    return int.from_bytes(digest.digest()[:4], "little") & 0x7FFFFFFF
