"""Agreements as a table, and distances on an axis of powers of ten.

What the table of a page and the picture share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_repro.runs.mismatch import EQUAL

if TYPE_CHECKING:
    from keras_repro.runs.agreement import Agreement
    from keras_repro.runs.comparison import Comparison


# Parts of a training that are no layer.
OTHER_PARTS = ("random", "optimizer", "metrics")

_FARTHEST = 300  # Powers of ten beyond which an axis does not go.
_MOST_TICKS = 7


@dataclass(frozen=True)
class Grid:
    """Agreements by epoch and part."""

    epochs: tuple[int | None, ...]  # `None` for the initial state.
    parts: tuple[str, ...]  # Layers first, in the order of the model.
    cells: dict[tuple[int | None, str], Agreement]

    def line(self, part: str) -> list[Agreement | None]:
        """The agreements of a part, epoch by epoch."""
        return [self.cells.get((epoch, part)) for epoch in self.epochs]

    def select(self, positions: Iterable[int]) -> Grid:
        """The same with some of the epochs, by their positions."""
        epochs = tuple(self.epochs[position] for position in positions)
        return Grid(epochs, self.parts, self.cells)

    def keep(self, parts: Iterable[str]) -> Grid:
        """The same with some of the parts."""
        return Grid(self.epochs, tuple(parts), self.cells)

    def layers(self) -> Grid:
        """The same with the layers alone."""
        return self.keep(one for one in self.parts if one not in OTHER_PARTS)

    def find_first(self) -> int | None:
        """The position of the first epoch at which a part is not equal."""
        unequal = {
            epoch
            for (epoch, _), one in self.cells.items()
            if one.status != EQUAL
        }
        positions = (n for n, one in enumerate(self.epochs) if one in unequal)
        return next(positions, None)

    def differs(self, part: str) -> bool:
        """Whether a part is not equal at one of the epochs."""
        return any(
            one is not None and one.status != EQUAL for one in self.line(part)
        )

    def farthest(self, part: str) -> float:
        """The largest distance of a part; -1 if none was measured."""
        distances = [
            math.inf if math.isnan(one.distance) else one.distance
            for one in self.line(part)
            if one is not None and one.distance is not None
        ]
        return max(distances, default=-1.0)


def arrange(agreements: Iterable[Agreement]) -> Grid:
    """Arrange agreements by epoch and part."""
    cells = {(one.epoch, one.part): one for one in agreements}
    epochs = sorted({epoch for epoch, _ in cells}, key=count_epochs)
    parts = dict.fromkeys(part for _, part in cells)
    layers = [part for part in parts if part not in OTHER_PARTS]
    others = [part for part in OTHER_PARTS if part in parts]
    return Grid(tuple(epochs), (*layers, *others), cells)


def count_epochs(epoch: int | None) -> int:
    """How many epochs were done then: 0 at the start."""
    return 0 if epoch is None else epoch + 1


def thin_out(count: int, keep: Iterable[int], limit: int) -> list[int]:
    """Choose some of many positions, evenly, with some that must stay."""
    if count <= limit:
        return list(range(count))
    chosen = {0, count - 1}
    for position in keep:
        chosen.update({position - 1, position, position + 1})
    chosen = {one for one in chosen if 0 <= one < count}
    room = limit - len(chosen)
    chosen.update(
        n * (count - 1) // max(room - 1, 1) for n in range(max(room, 0))
    )
    return sorted(chosen)


def thin_epochs(grid: Grid, comparison: Comparison, most: int) -> Grid:
    """The same with some of the epochs; those of the mismatches stay."""
    epochs = list(grid.epochs)
    marked = (comparison.first_mismatch, comparison.first_beyond)
    keep = [
        epochs.index(one.epoch)
        for one in marked
        if one is not None and one.epoch in epochs
    ]
    first = grid.find_first()
    if first is not None:
        keep.append(first)
    return grid.select(thin_out(len(epochs), keep, most))


@dataclass(frozen=True)
class Axis:
    """Where distances stand on an axis of powers of ten."""

    # Zero and infinity have no power of ten, so they stand on levels of their
    # own: below all others what is equal, a little above it what differs though
    # its norms do not, and on top what is not finite.
    low: int
    high: int
    has_alike: bool = False
    has_infinite: bool = False

    @property
    def gap(self) -> float:
        """How far a level of its own is from the others."""
        return max(0.5, 0.12 * (self.high - self.low))

    @property
    def bottom(self) -> float:
        """The level of what is equal."""
        return self.low - self.gap * (2 if self.has_alike else 1)

    @property
    def top(self) -> float:
        """The highest level."""
        return self.high + self.gap * self.has_infinite

    def place(self, agreement: Agreement | None) -> float | None:
        """Where an agreement stands, in powers of ten; `None` if unknown."""
        if agreement is None or agreement.distance is None:
            return None
        distance = agreement.distance
        if not math.isfinite(distance):
            return self.high + self.gap
        if distance > 0:
            return _power(distance)
        return self.bottom if agreement.status == EQUAL else self.low - self.gap

    def levels(self) -> list[tuple[float, str]]:
        """The levels that are no power of ten, with their names."""
        named = [(self.bottom, "equal")]
        if self.has_alike:
            named.append((self.low - self.gap, "norms alike"))
        if self.has_infinite:
            named.append((self.top, "not finite"))
        return named

    def ticks(self) -> list[int]:
        """The powers of ten to mark."""
        step = max(1, math.ceil((self.high - self.low) / (_MOST_TICKS - 1)))
        return list(range(self.low, self.high + 1, step))


def find_axis(agreements: Sequence[Agreement | None]) -> Axis | None:
    """Find the axis on which all agreements have their place."""
    known = [
        (one.status, one.distance)
        for one in agreements
        if one is not None and one.distance is not None
    ]
    if all(status == EQUAL and not size for status, size in known):
        return None
    powers = [
        _power(size) for _, size in known if size > 0 and math.isfinite(size)
    ] or [0.0]
    low, high = math.floor(min(powers)), math.ceil(max(powers))
    return Axis(
        low=low,
        high=max(high, low + 1),
        has_alike=any(one != EQUAL and size == 0 for one, size in known),
        has_infinite=not all(math.isfinite(size) for _, size in known),
    )


def _power(distance: float) -> float:
    return min(max(math.log10(distance), -_FARTHEST), _FARTHEST)
