"""The initial state of a model: capture it, put it back, keep it in HDF5."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import (
    checksum_array,
    combine_checksums,
    find_replicas,
)
from keras_repro.arrays.hdf5 import (
    ArrayFile,
    DamagedError,
    FileKind,
    find_dtype,
    make_image,
    naming,
    open_file,
    set_text,
    told,
    write_raw,
)
from keras_repro.backends.active import get_backend
from keras_repro.backends.interrupts import undivided
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
from keras_repro.common.files import write_whole
from keras_repro.common.generators import is_list_of_whole
from keras_repro.model.stored_trial import StoredTrial
from keras_repro.model.tracked import HandedOver

FORMAT = "keras_repro.initial_state/1"
_KIND = FileKind(
    name="An initial state",
    format=FORMAT,
    next_step=(
        "Write one with `save_initial_state`, by this version of keras_repro."
    ),
    has_long_texts=True,
    is_compressed=False,
)
_LONGEST_TRIAL = 1 << 24  # Bytes of JSON; a generator takes some 100.
_ROLES = ("weights", "random", "optimizer", "metrics")
_SOURCES = ("", "drawn", "likely", "given")
_MODEL_ROLES = frozenset({"weights", "random"})
_MOST_AXES = 32  # Of HDF5.
VARIABLE = "variable"  # The kind of a generator that is known by its state.
_UINTS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclasses.dataclass
class Stored:
    """One variable of the initial state."""

    role: str  # "weights", "optimizer", "metrics" or "random".
    place: str  # Such as `layers.2.kernel`.
    shape: tuple[int, ...]
    value: Any  # All, or one 0-d number where all are the same bits.
    twin: int | None = None  # Index of an earlier entry with the same values.
    # "drawn" where the model's own initializer gave the values, "likely" where
    # that cannot be proven, "given" where somebody put them there, else empty.
    # A seed draws the first two anew.
    source: str = ""

    @property
    def is_constant(self) -> bool:
        """Whether one number stands for all values."""
        return tuple(self.value.shape) != self.shape


class InitialState:
    """What `reset()` goes back to: a host copy, compact."""

    # A constant array (an Adam slot before training) is one number, and a copy
    # of another variable (a moving average before training) is a reference.

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
        """Read the whole state of a built model."""
        state = cls()
        places = iterate_variables(model)
        for place in places:
            state._append(place, read_variable(place.variable))
        # That is the state before set-up; what has changed since counts as
        # given.
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
        self._attributes = self._read_attributes(model)

    def _read_attributes(self, model: Any) -> AttributeState:
        """What layers hold now that Keras does not see."""
        tracked = {id(variable) for variable in self._variables}
        return AttributeState(flatten_layers(model), tracked)

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

    @undivided
    def follow(self, model: Any) -> None:
        """Take up a new optimizer or new metrics, at their own start."""
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
                backend = get_backend()
                if not backend.is_initialized(place.variable):
                    continue  # A trace that failed has made it, and no more.
                if not backend.is_readable(place.variable):
                    continue  # A step that failed has lost its value.
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

    # --- beside the variables ------------------------------------------------

    def write_rest(self, model: Any) -> dict[str, Any]:
        """What a model and what was handed over hold beside variables, now."""
        return {
            "attributes": self._read_attributes(model).values(),
            "objects": self._handed_over.write(),
        }

    def put_rest(self, model: Any, written: dict[str, Any]) -> None:
        """Have them hold what `write_rest` told."""
        now = self._read_attributes(model)
        now.with_values(written["attributes"]).restore()
        self._handed_over.put(written["objects"])

    # --- HDF5 ----------------------------------------------------------------

    def write(self, path: Path, trial: StoredTrial) -> None:
        """Write the state and where the trial stands, atomically."""
        write_whole(path, make_image(lambda file: self._fill(file, trial)))

    def _fill(self, file: Any, trial: StoredTrial) -> None:
        # What was handed over is not the model's; it is handed over again.
        own = [e for e in self.entries if not is_handed_over(e.place)]
        extra = {**trial.to_json(), "num_variables": len(own)}
        text = json.dumps(extra)
        set_text(file, "format", FORMAT, _KIND)
        set_text(file, "extra", text, _KIND, _LONGEST_TRIAL)
        set_text(file, "extra_checksum", _text_checksum(text), _KIND)
        for index, entry in enumerate(own):
            _write_entry(file, f"{index:06d}", entry)

    @classmethod
    def read(
        cls, path: Path, model: Any | None = None
    ) -> tuple[InitialState, StoredTrial]:
        """Read a state that is not tied to a model yet, checking it."""
        state = cls()
        with open_file(path, _KIND) as file:
            with told(path, _KIND):
                held = _read_entries(file, state.entries)
                trial = _read_trial(file)
            # What the file claims is compared before any value is read.
            if model is not None:
                state.require_fit(model, str(path))
            with told(path, _KIND):
                for name, entry, shape in zip(
                    file.names, state.entries, held, strict=True
                ):
                    with naming(name):
                        entry.value = file.raw(name, entry.value.dtype, shape)
        return state, trial

    def require_fit(self, model: Any, source: str) -> None:
        """Raise where weights or random state are not those of a model."""
        own, read = self._pair(iterate_variables(model), _MODEL_ROLES)
        if not _match(own, read):
            raise ValueError(_mismatch(own, read, source))

    def _pair(
        self, places: list[VariablePlace], roles: frozenset[str]
    ) -> tuple[list[VariablePlace], list[Stored]]:
        """What a model and what this state has in some roles, in order."""
        return [
            p for p in places if p.role in roles and not is_handed_over(p.place)
        ], [e for e in self.entries if e.role in roles]

    def bind(self, model: Any, earlier: InitialState | None) -> InitialState:
        """Tie a state that was read, and fits, to the variables of a model."""
        # Optimizer and metrics entries are taken over where they match; an
        # optimizer of another kind starts at its own start. What was handed
        # over keeps the start that it had in the `earlier` state.
        places = iterate_variables(model)
        state = InitialState()
        indices = {(e.role, e.place): i for i, e in enumerate(self.entries)}
        for roles in (_MODEL_ROLES, {"optimizer"}, {"metrics"}):
            own, read = self._pair(places, frozenset(roles))
            if not _match(own, read):
                if earlier is not None:
                    state._keep_start(earlier, own)
                continue
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

    def _keep_start(
        self, earlier: InitialState, places: list[VariablePlace]
    ) -> None:
        """Keep where these variables started, if the earlier state knows."""
        known = earlier.values_by_id()
        for place in places:
            if id(place.variable) in known:
                self._append(place, np.array(known[id(place.variable)]))

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
    """The start of slots that an optimizer made inside its first step."""
    # An optimizer that was captured before it was built (one of two in a GAN)
    # has no slots then. A new one of the same configuration tells what they
    # started from.
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


def _write_entry(file: Any, name: str, entry: Stored) -> None:
    value = np.asarray(entry.value)
    dataset = write_raw(file, name, value)
    texts = {
        "role": entry.role,
        "place": entry.place,
        "shape": json.dumps(list(entry.shape)),
        "dtype": value.dtype.name,
        "values": json.dumps(list(value.shape)),
        "source": entry.source,
        "checksum": checksum_array(value),
    }
    for key, text in texts.items():
        set_text(dataset, key, text, _KIND)
    dataset.attrs["twin"] = -1 if entry.twin is None else entry.twin


def _text_checksum(text: str) -> str:
    return checksum_array(np.frombuffer(text.encode(), np.uint8))


def _read_trial(file: ArrayFile) -> StoredTrial:
    text = file.text("extra", longest=_LONGEST_TRIAL)
    if _text_checksum(text) != file.text("extra_checksum"):
        msg = "the seed and the streams do not have their checksum"
        raise DamagedError(msg)
    data = json.loads(text)
    if isinstance(data, dict):
        # Files of the first versions do not say how many there are.
        num_variables = data.pop("num_variables", len(file.names))
        if num_variables != len(file.names):
            msg = f"{num_variables!a} datasets were written, not {file.names}"
            raise DamagedError(msg)
    try:
        return StoredTrial.from_json(data)
    except ValueError as error:
        raise DamagedError(str(error)) from None


def _read_entries(
    file: ArrayFile, entries: list[Stored]
) -> list[tuple[int, ...]]:
    """Read all but the values, and the shapes in which those are held."""
    held = []
    known = set()
    for name in file.names:
        with naming(name):
            entry, shape = _read_entry(file, name)
            _check_entry(entry, shape, entries)
            if (entry.role, entry.place) in known:
                msg = f"{entry.place!a} stands in it twice"
                raise DamagedError(msg)
        known.add((entry.role, entry.place))
        entries.append(entry)
        held.append(shape)
    return held


def _read_entry(file: ArrayFile, name: str) -> tuple[Stored, tuple[int, ...]]:
    twin = file.integer("twin", name)
    entry = Stored(
        role=file.text("role", name),
        place=file.text("place", name),
        shape=_read_shape(file.text("shape", name)),
        value=np.empty(0, find_dtype(file.text("dtype", name))),
        twin=None if twin == -1 else twin,
        source=file.text("source", name),
    )
    return entry, _read_shape(file.text("values", name))


def _read_shape(text: str) -> tuple[int, ...]:
    shape = json.loads(text)
    if not isinstance(shape, list) or not is_list_of_whole(
        shape, min(len(shape), _MOST_AXES), 0, 2**63 - 1
    ):
        msg = f"{text!a:.80} is no shape"
        raise DamagedError(msg)
    return tuple(shape)


def _check_entry(
    entry: Stored, held: tuple[int, ...], earlier: list[Stored]
) -> None:
    """Refuse what `_append` never makes."""
    if entry.role not in _ROLES or entry.source not in _SOURCES:
        msg = f"it is {entry.role!a}, {entry.source!a}"
        raise DamagedError(msg)
    if entry.twin is None:
        # Each value, or one for all of them.
        is_right = held in (entry.shape, ())
    else:
        is_right = held == (0,) and 0 <= entry.twin < len(earlier)
        twin = earlier[entry.twin] if is_right else entry
        is_right = (
            is_right
            and twin.twin is None
            and (twin.role, entry.role) == ("weights", "optimizer")
            and twin.shape == entry.shape
            and twin.value.dtype == entry.value.dtype
        )
    if not is_right:
        msg = (
            f"values of shape {held}, as those of {entry.twin}, cannot stand "
            f"for {entry.shape}"
        )
        raise DamagedError(msg)


def _match(own: list[VariablePlace], read: list[Stored]) -> bool:
    return [
        (p.role, tuple(p.variable.shape), str(p.variable.dtype)) for p in own
    ] == [(e.role, e.shape, e.value.dtype.name) for e in read]


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
