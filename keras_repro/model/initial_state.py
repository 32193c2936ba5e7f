"""The initial state of a model: capture it, put it back, keep it in HDF5."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import (
    checksum_array,
    combine_checksums,
    find_replicas,
)
from keras_repro.arrays.hdf5 import make_image
from keras_repro.backends.active import get_backend
from keras_repro.backends.keras_internals import (
    flatten_layers,
    optimized_variables,
)
from keras_repro.backends.untracked_state import AttributeState
from keras_repro.backends.variables import (
    VariablePlace,
    find_optimizers,
    handed_over,
    is_handed_over,
    iterate_variables,
    read_variable,
)
from keras_repro.model.tracked import HandedOver

FORMAT = "keras_repro.initial_state/1"
VARIABLE = "variable"  # The kind of a generator that is known by its state.
_UINTS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclasses.dataclass
class Stored:
    """One variable of the initial state.

    Attributes:
        role: `weights`, `optimizer`, `metrics` or `random`.
        place: Where it stands in the model, `layers.2.kernel`.
        shape: Its shape.
        value: All its values, or one 0-d number where all are the same bits.
        twin: Index of an earlier entry with the same values, or `None`.
        source: `drawn` where the model's own initializer gave the values,
            `likely` where that cannot be proven, `given` where somebody put
            them there, else empty. A seed draws the first two anew.
    """

    role: str
    place: str
    shape: tuple[int, ...]
    value: Any
    twin: int | None = None
    source: str = ""

    @property
    def is_constant(self) -> bool:
        """Whether one number stands for all values."""
        return tuple(self.value.shape) != self.shape


class InitialState:
    """What `reset()` goes back to: a host copy, compact.

    A constant array (an Adam slot before training) is one number, and a copy
    of another variable (a moving average before training) is a reference.
    """

    def __init__(self) -> None:
        self.entries: list[Stored] = []
        self._variables: list[Any] = []
        self._trainable: list[tuple[Any, bool]] = []
        self._attributes: AttributeState | None = None
        self._handed_over = HandedOver()

    def __repr__(self) -> str:
        return (
            f"<InitialState of {len(self.entries)} variables, "
            f"{self.nbytes:,} bytes, checksum {self.checksum}>"
        )

    @property
    def nbytes(self) -> int:
        """Host memory of the captured values, in bytes."""
        return sum(
            entry.value.nbytes for entry in self.entries if entry.twin is None
        )

    @property
    def checksum(self) -> str:
        """Checksum of the start of weights and random state."""
        return combine_checksums(
            checksum_array(self.value_of(index))
            for index, entry in enumerate(self.entries)
            if entry.role in {"weights", "random"}
        )

    def value_of(self, index: int) -> npt.NDArray[Any]:
        """The full values of one entry; not to be written to."""
        entry = self.entries[index]
        if entry.twin is not None:
            return self.value_of(entry.twin)
        value: npt.NDArray[Any] = np.asarray(entry.value)
        return (
            np.broadcast_to(value, entry.shape) if entry.is_constant else value
        )

    def values_by_id(self) -> dict[int, npt.NDArray[Any]]:
        """The captured values by `id` of the live variable."""
        return {
            id(variable): self.value_of(index)
            for index, variable in enumerate(self._variables)
        }

    def sources_by_id(self) -> dict[int, str]:
        """Where the captured values came from, by `id` of the variable."""
        return {
            id(variable): entry.source
            for variable, entry in zip(
                self._variables, self.entries, strict=True
            )
        }

    def set_sources(self, sources: dict[int, str]) -> None:
        """Note where the values of weights came from, by `id`."""
        for variable, entry in zip(self._variables, self.entries, strict=True):
            entry.source = sources.get(id(variable), entry.source)

    def unchanged_sources(
        self, values: dict[int, npt.NDArray[Any]]
    ) -> dict[int, str]:
        """Where those values came from, by `id`, that are as captured."""
        return {
            id(variable): entry.source
            for index, (variable, entry) in enumerate(
                zip(self._variables, self.entries, strict=True)
            )
            if id(variable) in values
            and same_bits(values[id(variable)], self.value_of(index))
        }

    def ids_a_seed_draws(self, sources: tuple[str, ...]) -> set[int]:
        """`id`s of generator states and of weights with such a source."""
        return {
            id(variable)
            for variable, entry in zip(
                self._variables, self.entries, strict=True
            )
            if entry.role == "random" or entry.source in sources
        }

    def generators(self) -> Iterator[tuple[Any, tuple[str, Any]]]:
        """Generators of the layers, each with the state that it began with."""
        for index, variable in enumerate(self._variables):
            if self.entries[index].role == "random":
                yield variable, (VARIABLE, self.value_of(index))
        if self._attributes is not None:
            yield from self._attributes.generators()

    def ids_of_the_model(self) -> set[int]:
        """`id`s of the captured weights and generator states."""
        return {
            id(variable)
            for variable, entry in zip(
                self._variables, self.entries, strict=True
            )
            if entry.role in {"weights", "random"}
        }

    # --- capture ---------------------------------------------------------

    @classmethod
    def capture(
        cls, model: Any, earlier: InitialState | None = None
    ) -> InitialState:
        """Read the whole state of a model.

        Args:
            model: A built model.
            earlier: The state before set-up; what has changed since counts
                as given.
        """
        state = cls()
        places = iterate_variables(model)
        for place in places:
            state._append(place, read_variable(place.variable))
        if earlier is not None:
            state._compare_sources(earlier)
        state.capture_flags(model)
        state._capture_attributes(model)
        state._handed_over.follow(handed_over(model))
        return state

    def capture_flags(self, model: Any) -> None:
        """Read the `trainable` flags as they stand."""
        self._trainable = [
            (layer, layer.trainable) for layer in flatten_layers(model)
        ]

    def set_flags(self, flags: dict[Any, bool]) -> None:
        """Take over `trainable` flags of layers."""
        self._trainable = [
            (layer, flags.get(layer, flag)) for layer, flag in self._trainable
        ]

    def _capture_attributes(self, model: Any) -> None:
        tracked = {id(variable) for variable in self._variables}
        self._attributes = AttributeState(flatten_layers(model), tracked)

    def _append(self, place: VariablePlace, value: npt.NDArray[Any]) -> None:
        entry = Stored(place.role, place.place, value.shape, _compact(value))
        if place.role == "optimizer" and not entry.is_constant:
            entry.twin = self._find_equal(value)
            if entry.twin is not None:
                entry.value = value.reshape(-1)[:0]
        self.entries.append(entry)
        self._variables.append(place.variable)

    def _find_equal(self, value: npt.NDArray[Any]) -> int | None:
        if value.ndim == 0:
            return None
        for index, entry in enumerate(self.entries):
            if (
                entry.role == "weights"
                and entry.value.shape == value.shape
                and entry.value.dtype == value.dtype
                and same_bits(entry.value, value)
            ):
                return index
        return None

    def _compare_sources(self, earlier: InitialState) -> None:
        before = {
            id(variable): index
            for index, variable in enumerate(earlier._variables)
        }
        for index, variable in enumerate(self._variables):
            old = before.get(id(variable))
            if old is None:
                continue
            same = same_bits(earlier.value_of(old), self.value_of(index))
            self.entries[index].source = (
                earlier.entries[old].source if same else "given"
            )

    def replace(self, values: dict[int, npt.NDArray[Any]]) -> InitialState:
        """A state with other values for some variables, by `id`."""
        state = InitialState()
        state._trainable = self._trainable
        state._attributes = self._attributes
        state._handed_over = self._handed_over
        for index, variable in enumerate(self._variables):
            entry = self.entries[index]
            new = values.get(id(variable))
            state.entries.append(
                entry
                if new is None
                else dataclasses.replace(entry, value=_compact(new), twin=None)
            )
            state._variables.append(variable)
        return state

    # --- the model may have changed since ----------------------------------

    def follow(self, model: Any) -> None:
        """Take up a new optimizer or new metrics, at their own start.

        Raises:
            ValueError: If weights or random state appeared or went.
        """
        places = iterate_variables(model)
        self._check_structure(places)
        self._handed_over.follow(handed_over(model))
        known = {id(variable): i for i, variable in enumerate(self._variables)}
        fresh = fresh_optimizer_values(model, set(known))
        old, self.entries, self._variables = self.entries, [], []
        moved: dict[int, int] = {}
        for place in places:
            index = known.get(id(place.variable))
            if index is None:
                if not get_backend().is_initialized(place.variable):
                    continue  # A trace that failed has made it, and no more.
                value = fresh.get(id(place.variable))
                self._append(
                    place,
                    read_variable(place.variable) if value is None else value,
                )
                continue
            moved[index] = len(self.entries)
            entry = old[index]
            if entry.twin is not None:
                entry = dataclasses.replace(entry, twin=moved[entry.twin])
            self.entries.append(entry)
            self._variables.append(place.variable)

    def _check_structure(self, places: list[VariablePlace]) -> None:
        roles = {"weights", "random"}
        now = {id(p.variable): p for p in places if p.role in roles}
        then = {
            id(variable): entry
            for variable, entry in zip(
                self._variables, self.entries, strict=True
            )
            if entry.role in roles
        }
        came = [
            p.place
            for key, p in now.items()
            if key not in then and not is_handed_over(p.place)
        ]
        went = [e.place for key, e in then.items() if key not in now]
        reshaped = [
            p.place
            for key, p in now.items()
            if key in then and not _has_shape(p.variable, then[key].shape)
        ]
        if came or went or reshaped:
            msg = (
                "The model must have the variables that its initial state "
                f"was captured with. Received: appeared {came}, gone {went}, "
                f"reshaped {reshaped}. If the change is meant, call "
                "`model.capture_initial_state()` to start from what the "
                "model holds now."
            )
            raise ValueError(msg)

    def changed_places(self) -> list[str]:
        """Places whose variable no longer holds its start."""
        return [
            entry.place
            for index, entry in enumerate(self.entries)
            if entry.role in {"weights", "random"} and self._has_moved(index)
        ]

    def moved(self) -> dict[str, list[Any]]:
        """Weights and optimizer variables that left their start, by role."""
        found: dict[str, list[Any]] = {"weights": [], "optimizer": []}
        for index, entry in enumerate(self.entries):
            variable = self._variables[index]
            if entry.role in found and self._has_moved(index):
                found[entry.role].append(variable)
        return found

    def _has_moved(self, index: int) -> bool:
        variable = self._variables[index]
        return get_backend().is_readable(variable) and not same_bits(
            read_variable(variable), self.value_of(index)
        )

    # --- put back ----------------------------------------------------------

    def restore(self, model: Any) -> None:
        """Assign the whole state in place, bit for bit."""
        backend = get_backend()
        backend.clear_pending(model)
        backend.assign_all(
            [
                (
                    variable,
                    (
                        entry
                        if entry.twin is None
                        else self.entries[entry.twin]
                    ).value,
                )
                for variable, entry in zip(
                    self._variables, self.entries, strict=True
                )
            ]
        )
        # Parents come first, and setting one overwrites its children's.
        for layer, flag in self._trainable:
            if layer.trainable != flag:
                layer.trainable = flag
        if self._attributes is not None:
            self._attributes.restore()
        self._handed_over.restore()
        backend.finish_assign(model)
        model.stop_training = False

    # --- HDF5 ----------------------------------------------------------------

    def write(self, path: Path, extra: dict[str, Any]) -> None:
        """Write the state and some JSON beside it, atomically."""
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            handle, temporary = tempfile.mkstemp(
                dir=path.parent, prefix=f".{path.name}."
            )
        except OSError as error:
            msg = (
                "An initial state must be written to a file in a folder that "
                f"can be written to. Received: {str(path)!r} "
                f"({error.strerror or error}). Choose another path."
            )
            raise type(error)(msg) from error
        os.close(handle)
        try:
            image = make_image(lambda file: self._fill(file, extra))
            Path(temporary).write_bytes(image)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _fill(self, file: Any, extra: dict[str, Any]) -> None:
        text = json.dumps(extra)
        file.attrs["format"] = FORMAT
        file.attrs["extra"] = text
        file.attrs["extra_checksum"] = _text_checksum(text)
        # What was handed over is not the model's; it is handed over again.
        own = [e for e in self.entries if not is_handed_over(e.place)]
        for index, entry in enumerate(own):
            _write_entry(file, index, entry)

    @classmethod
    def read(cls, path: Path) -> tuple[InitialState, dict[str, Any]]:
        """Read a state that is not tied to a model yet, checking it."""
        if not path.exists():
            msg = (
                "An initial state must be read from a file that exists. "
                f"Received: {str(path)!r}. Write one with "
                "`save_initial_state`."
            )
            raise FileNotFoundError(msg)
        try:
            with h5py.File(path, "r") as file:
                _check_format(file, path)
                state = cls()
                state.entries = [
                    _read_entry(file[name], path) for name in sorted(file)
                ]
                return state, _read_extra(file)
        except _DamagedError as error:
            raise ValueError(str(error)) from None
        except (
            OSError,
            KeyError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            msg = (
                "An initial state must be read from an HDF5 file that "
                f"`save_initial_state` wrote. Received: {str(path)!r}, which "
                f"is damaged or something else ({error}). Save the state "
                "again."
            )
            raise ValueError(msg) from error

    def bind(
        self, model: Any, source: str, earlier: InitialState | None
    ) -> InitialState:
        """Tie a state that was read to the variables of a model.

        Optimizer and metrics entries are taken over where they match; an
        optimizer of another kind starts at its own start. What was handed
        over keeps the start that it had in the `earlier` state.

        Raises:
            ValueError: If weights or random state do not match.
        """
        places = iterate_variables(model)
        state = InitialState()
        for roles, strict in (
            ({"weights", "random"}, True),
            ({"optimizer"}, False),
            ({"metrics"}, False),
        ):
            own = [
                p
                for p in places
                if p.role in roles and not is_handed_over(p.place)
            ]
            read = [e for e in self.entries if e.role in roles]
            if not _match(own, read):
                if strict:
                    raise ValueError(_mismatch(own, read, source))
                continue
            indices = {(e.role, e.place): i for i, e in enumerate(self.entries)}
            for place, entry in zip(own, read, strict=True):
                value = self.value_of(indices[entry.role, entry.place])
                state._append(place, np.array(value))
                state.entries[-1].source = entry.source
        if earlier is not None:
            state._keep_handed_over(earlier)
        state.follow(model)
        state.capture_flags(model)
        state._capture_attributes(model)
        return state

    def _keep_handed_over(self, earlier: InitialState) -> None:
        self._handed_over = earlier._handed_over
        for index, entry in enumerate(earlier.entries):
            if is_handed_over(entry.place):
                variable = earlier._variables[index]
                place = VariablePlace(entry.role, entry.place, variable)
                self._append(place, np.array(earlier.value_of(index)))


def fresh_optimizer_values(
    model: Any, known: set[int]
) -> dict[int, npt.NDArray[Any]]:
    """The start of slots that an optimizer made inside its first step.

    An optimizer that was captured before it was built (one of two in a GAN)
    has no slots then. A new one of the same configuration tells what they
    started from.
    """
    values: dict[int, npt.NDArray[Any]] = {}
    for optimizer in find_optimizers(model).values():
        own = optimizer.variables
        seen = [id(v) in known for v in own]
        if not any(seen) or all(seen):
            continue
        twin = type(optimizer).from_config(optimizer.get_config())
        with get_backend().scope(model):
            twin.build(optimized_variables(optimizer))
        for variable, start in zip(own, twin.variables, strict=True):
            if id(variable) not in known:
                values[id(variable)] = read_variable(start)
    return values


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays are equal bit for bit."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(_bits(a), _bits(b)))


def _bits(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    flat = np.ascontiguousarray(value).reshape(-1)
    return flat.view(_UINTS.get(value.dtype.itemsize, np.uint8))


def _has_shape(variable: Any, captured: tuple[int, ...]) -> bool:
    """Whether that was captured of it: one value, or its replicas in a row."""
    shape = tuple(variable.shape)
    # A variable that a failed step has left without a value has no replicas.
    return captured == shape or (
        captured == (len(find_replicas(variable)), *shape)
    )


def _compact(value: npt.NDArray[Any]) -> Any:
    """One number where every element has the same bits."""
    if value.size < 2 or value.dtype.itemsize not in _UINTS:
        return value
    bits = _bits(value)
    if bits[0] != bits[-1] or not (bits == bits[0]).all():
        return get_backend().hold(value)
    return value.reshape(-1)[0:1].reshape(()).copy()


def _write_entry(file: Any, index: int, entry: Stored) -> None:
    raw = np.frombuffer(np.asarray(entry.value).tobytes(), np.uint8)
    dataset = file.create_dataset(f"{index:06d}", data=raw)
    dataset.attrs["role"] = entry.role
    dataset.attrs["place"] = entry.place
    dataset.attrs["shape"] = json.dumps(list(entry.shape))
    dataset.attrs["dtype"] = entry.value.dtype.name
    dataset.attrs["values"] = json.dumps(list(entry.value.shape))
    dataset.attrs["twin"] = -1 if entry.twin is None else entry.twin
    dataset.attrs["source"] = entry.source
    dataset.attrs["checksum"] = checksum_array(np.asarray(entry.value))


class _DamagedError(Exception):
    """A file that is not what it should be, with the whole story told."""


def _text_checksum(text: str) -> str:
    return checksum_array(np.frombuffer(text.encode(), np.uint8))


def _read_extra(file: Any) -> dict[str, Any]:
    text = file.attrs["extra"]
    if _text_checksum(text) != file.attrs["extra_checksum"]:
        msg = "the seed and the streams do not have their checksum"
        raise ValueError(msg)
    extra: dict[str, Any] = json.loads(text)
    return extra


def _read_entry(dataset: Any, path: Path) -> Stored:
    attrs = dataset.attrs
    dtype = _dtype(attrs["dtype"])
    raw = dataset[()].tobytes() if dataset.size else b""
    value = np.frombuffer(raw, dtype).reshape(json.loads(attrs["values"]))
    if checksum_array(value) != attrs["checksum"]:
        msg = (
            "Each variable of an initial state must have the checksum that "
            f"stands beside it. Received: {str(path)!r}, where "
            f"{attrs['place']!r} has {checksum_array(value)} and not "
            f"{attrs['checksum']}. The file is damaged: save the state again."
        )
        raise _DamagedError(msg)
    twin = int(attrs["twin"])
    return Stored(
        role=attrs["role"],
        place=attrs["place"],
        shape=tuple(json.loads(attrs["shape"])),
        value=value.copy(),
        twin=None if twin < 0 else twin,
        source=attrs["source"],
    )


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended


def _check_format(file: Any, path: Path) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        msg = (
            f"An initial state must have the format {FORMAT!r}. Received: "
            f"{str(path)!r} with the format {found!r}. Read it with the "
            "version of keras_repro that wrote it, or save the state again."
        )
        raise _DamagedError(msg)


def _match(own: list[VariablePlace], read: list[Stored]) -> bool:
    return [tuple(p.variable.shape) for p in own] == [
        e.shape for e in read
    ] and [str(p.variable.dtype) for p in own] == [
        e.value.dtype.name for e in read
    ]


def _mismatch(own: list[VariablePlace], read: list[Stored], source: str) -> str:
    ours = {p.place: tuple(p.variable.shape) for p in own}
    theirs = {e.place: e.shape for e in read}
    only_ours = {k: v for k, v in ours.items() if theirs.get(k) != v}
    only_theirs = {k: v for k, v in theirs.items() if ours.get(k) != v}
    return (
        "An initial state must come from a model of the same architecture. "
        f"Received: {source}, where the model has {only_ours} and the state "
        f"has {only_theirs}. Build the model that the state was saved from."
    )
