"""How far a training has read its data: counted, waited for, and gone to.

Keras goes over an `EpochIterator`, whose private `_enumerate_iterator` gives
each step its number and the iterator to take batches from (Keras 3.12 to
3.15). Without that method no training is stopped between two batches, and
none goes on from there.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from keras_repro.common.generators import is_whole
from keras_repro.common.json import check_fields

_MOST = 2**53


@dataclass(frozen=True)
class Place:
    """Between two batches of a training: what comes next."""

    epoch: int  # Counted from 0, as Keras does.
    batch: int  # Of the epoch.
    num_epochs: int  # How many this training has read.
    num_passes: int  # How many passes over the data have ended.
    in_pass: int  # How many batches the present pass has given.
    num_batches: int | None  # Of a pass, once that is known.

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The place that `to_json` wrote."""

        def is_count(value: object) -> bool:
            return is_whole(value, 0, _MOST)

        def is_size(value: object) -> bool:
            return value is None or is_whole(value, 1, _MOST)

        names = ("epoch", "batch", "num_epochs", "num_passes", "in_pass")
        check_fields(
            data, {**dict.fromkeys(names, is_count), "num_batches": is_size}
        )
        return cls(**data)


@dataclass
class _Pass:
    """What is known of the present pass over the data."""

    source: Any = None
    seen: Any = None
    given: int = 0
    last: list[Any] = field(default_factory=list)


class EndedError(ValueError):
    """Data ended before the place that was to be gone to."""

    def __init__(self, place: Place) -> None:
        super().__init__(
            "A training can only resume on the data that it was begun "
            f"with. Received: data that end before {place}. Make them as they "
            "were, or remove the backup."
        )


class Reading:
    """What one `fit` reads, with a say before each batch."""

    def __init__(
        self,
        iterator: Any,  # Keras' `EpochIterator` of the training.
        before: Callable[[Reading], None],  # Called before each batch is read.
        first_epoch: int,  # The epoch that Keras begins with.
        # Told each iterator that TensorFlow's own steps take from.
        follow: Callable[[Any], None] | None = None,
        *,
        keeps_last: bool = True,  # Whether the last batch shall be known.
    ) -> None:
        self._iterator, self._before = iterator, before
        self._follow, self._keeps_last = follow, keeps_last
        # Of the present step: how many batches, and whether it was taken.
        self._width, self._is_taken, self._is_over = 1, False, False
        # Whether steps are told of; else nobody knows whether one was taken.
        self._is_told = False
        self._epoch, self._num_epochs = first_epoch - 1, -1
        self._batch = self._num_passes = 0
        self._pass = _Pass()
        self._start: Place | None = None
        self._goes_through = False
        self._enumerate: Any = getattr(iterator, "_enumerate_iterator", None)

    @property
    def can_wait(self) -> bool:
        """Whether this version of Keras lets us wait between two batches."""
        return self._enumerate is not None

    @property
    def place(self) -> Place:
        """Where the training stands."""
        size = self._iterator._num_batches
        return Place(
            epoch=self._epoch,
            batch=self._batch,
            num_epochs=self._num_epochs,
            num_passes=self._num_passes,
            in_pass=self._pass.given,
            num_batches=None if size is None else int(size),
        )

    @property
    def num_ended(self) -> int:
        """How many epochs this training has trained to their end."""
        return max(self._num_epochs + self._has_ended(), 0)

    @property
    def here(self) -> Place | None:
        """Where the training stands, also within a step, if that is known."""
        if self._num_epochs < 0 or not self._is_told:
            return None
        here, given = self.place, self._width if self._is_taken else 0
        here = replace(
            here, batch=here.batch + given, in_pass=here.in_pass + given
        )
        has_ended = self._has_ended()
        if has_ended:
            here = replace(here, epoch=here.epoch + 1, batch=0)
        if here.in_pass == here.num_batches or (
            has_ended and not self._iterator.steps_per_epoch
        ):
            here = replace(here, num_passes=here.num_passes + 1, in_pass=0)
        return here

    def note_step(self) -> None:
        """Know that the step was taken."""
        self._is_taken, self._is_over = True, False

    def note_begin(self) -> None:
        """Know that a step begins; where it fails, the epoch is over."""
        self._is_over = self._is_told = True

    def _has_ended(self) -> bool:
        """Whether the present epoch has."""
        if self._is_over or not self._is_taken:
            return self._is_over
        iterator, width = self._iterator, self._width
        steps, size = iterator.steps_per_epoch, iterator._num_batches
        return bool(  # An epoch also ends with the data.
            (steps and self._batch + width >= steps)
            or (size and self._pass.given + width >= size)
        )

    @property
    def is_sure(self) -> bool:
        """Whether it is known that the batch before which we stand exists."""
        # Where Keras has counted an epoch it counted one step too many.
        size = self._iterator.data_adapter.num_batches
        return size is not None and self._pass.given < int(size)

    @property
    def is_beginning(self) -> bool:
        """Whether threads may be drawing the order of this pass just now."""
        # Keras' enqueuers (3.12 to 3.15) draw it when the epoch begins.
        adapter = self._iterator.data_adapter
        return not self._batch and bool(getattr(adapter, "enqueuer", None))

    @property
    def last_batch(self) -> Any:
        """The batch that was read last; `None` where nobody can see it."""
        return self._pass.last[0] if self._pass.last else None

    def begin(self) -> None:
        """Take part from now on; looks at the data have been before."""
        self._iterator._enumerate_iterator = self._steps

    def end(self) -> None:
        """Take no part any more, so that nothing keeps the data alive."""
        vars(self._iterator).pop("_enumerate_iterator", None)

    def begin_at(self, place: Place, *, goes_through: bool) -> None:
        """Have the first step be that of a place."""
        # `goes_through`: whether all that was read before is read again; else
        # the data themselves begin there.
        self._start, self._goes_through = place, goes_through
        if not goes_through:
            self._iterator._num_batches = place.num_batches

    def ended(self) -> Reading:
        """This, standing behind the last epoch."""
        self._epoch, self._num_epochs = self._epoch + 1, self._num_epochs + 1
        self._batch = self._pass.given = 0
        return self

    def _steps(self) -> Iterator[tuple[int, int, Any]]:
        """What Keras is given in the place of its own steps."""
        self._epoch, self._num_epochs = self._epoch + 1, self._num_epochs + 1
        self._is_taken = self._is_over = False
        start, self._start = self._start, None
        if start is not None:
            self._num_epochs = start.num_epochs
            if self._goes_through:
                self.read_through(start.num_epochs)
        for begin, end, source in self._enumerate():
            seen = self._look_at(source)
            if start is not None:
                if begin < start.batch:
                    if self._goes_through and not self._take(seen, begin, end):
                        raise EndedError(start)
                    continue
                if not self._goes_through:
                    self._stand_at(start)
                start = None
            self._batch, self._width = begin, end - begin + 1
            self._before(self)
            yield begin, end, seen
            self._pass.given += self._width
            self._is_taken = False
        self._is_over = True

    def _stand_at(self, start: Place) -> None:
        """Count on from a place that the data themselves begin at."""
        self._num_passes, self._pass.given = start.num_passes, start.in_pass
        # Keras has counted the steps of this epoch alone.
        self._iterator._steps_seen += start.in_pass - start.batch

    def _look_at(self, source: Any) -> Any:
        """Notice a new pass; give what shows which batch was read last."""
        if source is not self._pass.source:
            if self._pass.source is not None:
                self._num_passes += 1
            self._pass = one = _Pass(source, source)
            if type(source).__module__.startswith("tensorflow."):
                # A compiled step of TensorFlow takes the batches itself.
                if self._follow is not None:
                    self._follow(source)
            elif self._keeps_last:
                one.seen = _remember(source, one.last)
        return self._pass.seen

    def read_through(self, num_epochs: int) -> None:
        """Read some epochs as Keras does, and drop what is read."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Said in the first place.
            for _ in range(num_epochs):
                with self._iterator.catch_stop_iteration():
                    for begin, end, source in self._enumerate():
                        if not self._take(self._look_at(source), begin, end):
                            raise StopIteration

    def _take(self, source: Any, begin: int, end: int) -> bool:
        """Read the batches of a step; whether there was one."""
        count = sum(1 for _ in itertools.islice(source, end - begin + 1))
        self._pass.given += count
        return count > 0


def _remember(source: Any, last: list[Any]) -> Iterator[Any]:
    for batch in source:
        last[:] = [batch]
        yield batch
