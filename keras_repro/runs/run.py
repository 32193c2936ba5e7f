"""The `Run` record: what one trial was, and what it held at each moment.

Plain immutable values; what is a line of a file is the schema of that line too.
`file.py` reads and writes them, `comparison.py` compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from keras_repro.arrays.norms import Norms
from keras_repro.common.checks import LARGEST_INT
from keras_repro.common.lines import Number, to_floats, to_named_floats

FORMAT = "keras_repro.run/2"
RUN_ID = re.compile(r"[0-9A-Za-z_.-]{1,64}")
FINISHED = "finished"
INTERRUPTED = "interrupted"
FAILED = "failed"
DRIFTED = "drifted"
# Checksums by role and place.
Variables = Mapping[str, Mapping[str, str]]
ROLES = ("random", "weights", "optimizer", "metrics")

RunId = Annotated[str, Meta(pattern=rf"\A{RUN_ID.pattern}\Z")]
Every = (
    Annotated[str, Meta(pattern=r"\A(epoch|batch)\Z")]
    | Annotated[int, Meta(ge=1, le=LARGEST_INT)]
)
Count = Annotated[int, Meta(ge=0, le=LARGEST_INT)]
STATUSES = (FINISHED, INTERRUPTED, FAILED, DRIFTED)
Status = Annotated[str, Meta(pattern=rf"\A({'|'.join(STATUSES)})\Z")]
if TYPE_CHECKING:
    Triple = Norms
else:
    Triple = tuple[Number, Number, Number]


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """What a run is: written before the first step.

    Args:
        run_id: Names the run; unique in every file.
        started: Time of the start, ISO 8601, UTC.
        identity: What makes two runs comparable: `seed`, `model`, `compile`,
            `data`, `continues`.
        every: How often it records: `"epoch"`, `"batch"`, or a number.
        name: The name that the person gave, or `None`.
        environment: As `capture_environment` gives it.
        model: Class and checksum of the configuration.
        compile: Configuration of the optimizers, the loss and the metrics, as
            plain values by name.
        data: What was fed: `kind`, `num_samples`, `batch_size`, `shuffle`,
            and `arrays`, the shape and dtype of each.
        variables: Role, place, shape and dtype of each variable at the start.
        notes: What of this run cannot be rewound, and what its epochs are
            given alike.
        snapshots: Name of the folder beside the file that holds the weights
            themselves, or `None`.
        format: The version of the file's format.
    """

    run_id: RunId
    started: str
    identity: Mapping[str, Any]
    every: Every = "epoch"
    name: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    compile: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    variables: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    snapshots: str | None = None
    format: str = FORMAT

    @property
    def seed(self) -> int | None:
        """The seed of the trial, or `None` if nobody set one."""
        seed = self.identity.get("seed")
        return None if seed is None else int(seed)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The checksum of the data, where it was not known at the start."""

    # Large arrays are read beside the training, so their checksum follows the
    # header; a reader puts it into the header's identity.
    run_id: RunId
    checksum: str  # Of the arrays given to `fit`.


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The state of a run at one moment.

    Args:
        run_id: The run it belongs to.
        index: 0 for the initial state, then 1, 2, 3.
        epoch: The epoch, counted from 0; `None` for the initial state.
        batch: The last batch trained; `None` at the end of an epoch.
        model: Checksum of the model, as `compute_checksum(model)`.
        roles: Checksum of each role.
        variables: By role, the checksum of each variable by its place.
        step: How many batches this run had trained, or `None` where nobody
            counted.
        layers: Checksum of each layer's weights and seed generators, by its
            place, such as `layers.2`.
        norms: By role, how large each variable is, by its place.
        streams: Checksum of the random streams, or `None`.
        fed: With batches recorded, checksum of the samples fed since the
            record before, in their order; `None` where others fed them.
        metrics: The metrics that Keras reported.
        snapshot: Name of the file in the header's folder that holds the
            weights themselves, or `None`.
    """

    run_id: RunId
    index: Count
    epoch: Count | None
    batch: Count | None
    model: str
    roles: Mapping[str, str]
    variables: Variables
    step: Count | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[str, Mapping[str, Triple]] = field(default_factory=dict)
    streams: str | None = None
    fed: str | None = None
    metrics: Mapping[str, Number] = field(default_factory=dict)
    snapshot: str | None = None

    def __post_init__(self) -> None:
        """Make numbers of the words for NaN and the infinities."""
        norms = {
            role: {
                place: one if type(one) is Norms else Norms(*to_floats(one))
                for place, one in some.items()
            }
            for role, some in self.norms.items()
        }
        object.__setattr__(self, "norms", norms)
        object.__setattr__(self, "metrics", to_named_floats(self.metrics))

    @property
    def moment(self) -> str:
        """When it was taken, in words; epochs counted from 1 as Keras does."""
        if self.epoch is None:
            return "initial state"
        if self.batch is None:
            return f"epoch {self.epoch + 1}"
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}"


@dataclass(frozen=True, kw_only=True)
class RunResume:
    """Where a run that was killed went on, in another process or call."""

    # What was recorded behind that place before counts no more: it was trained,
    # and recorded, once more.
    run_id: RunId
    resumed: str  # ISO 8601, UTC.
    num_records: Count  # How many of before count.
    epoch: Count  # That it went on in, counted from 0.
    batch: Count

    @property
    def moment(self) -> str:
        """Where it was, in words; counted from 1 as Keras does."""
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}"


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended.

    Args:
        run_id: The run it belongs to.
        status: `"finished"`; `"interrupted"` by the person (Ctrl-C) or the
            program's end; `"failed"` with an exception; `"drifted"` (stopped
            or refused because of drift).
        ended: Time of the end, ISO 8601, UTC.
        num_records: How many records were written.
        exception: Type of the exception that ended it, such as
            `"ValueError"`, or `None`.
    """

    run_id: RunId
    status: Status
    ended: str
    num_records: Count
    exception: str | None = None


@dataclass(frozen=True)
class Run:
    """One trial as recorded.

    Args:
        header: What the run is.
        records: Its records in order, the initial state first.
        end: How it ended, or `None` if it is still running or was killed.
        torn: Whether a half-written line of it was dropped on reading.
        path: The file it was read from, or `None`.
        resumed: Where it was killed and went on.
    """

    header: RunHeader
    records: tuple[RunRecord, ...] = ()
    end: RunEnd | None = None
    torn: bool = False
    path: Path | None = field(default=None, compare=False)
    resumed: tuple[RunResume, ...] = ()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.header.run_id

    @property
    def finished(self) -> bool:
        """Whether training came to its end, and all its records are here."""
        return (
            self.end is not None
            and self.end.status == FINISHED
            and self.end.num_records == len(self.records)
        )

    @property
    def checksum(self) -> str | None:
        """The model's checksum in the last record."""
        return self.records[-1].model if self.records else None

    @property
    def epochs(self) -> tuple[RunRecord, ...]:
        """The records at the ends of epochs."""
        return tuple(
            record
            for record in self.records
            if record.epoch is not None and record.batch is None
        )

    def history(self) -> dict[str, list[float]]:
        """The metrics of each epoch, as `History.history` has them."""
        result: dict[str, list[float]] = {}
        for record in self.epochs:
            for name, value in record.metrics.items():
                result.setdefault(name, []).append(value)
        return result

    def plot(self) -> Any:
        """Draw the metrics and the norms of the layers over the epochs.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        from keras_repro.runs.plots import plot_run

        return plot_run(self)

    def __str__(self) -> str:
        """One line for a terminal."""
        status = "not ended" if self.end is None else self.end.status
        if self.resumed:
            places = ", ".join(one.moment for one in self.resumed)
            status = f"{status}, resumed at {places}"
        return (
            f"run {self.run_id[:8]}, seed {self.header.seed}, "
            f"{len(self.records)} records, {status}"
        )


def list_entries(
    run: Run,
) -> Iterator[RunHeader | RunRecord | RunResume | RunEnd]:
    """What a file of a run holds, in its order, without what counts no more."""
    yield run.header
    position = 0
    for one in run.resumed:
        yield from run.records[position : one.num_records]
        yield one
        position = one.num_records
    yield from run.records[position:]
    if run.end is not None:
        yield run.end


def find_layer(place: str) -> str:
    """The layer that a variable stands in; `"model"` for the model's own.

    Example:
        >>> find_layer("layers.1.layers.0.kernel")
        'layers.1.layers.0'
    """
    head, found, rest = place.rpartition("layers.")
    return f"{head}{found}{rest.partition('.')[0]}" if found else "model"
