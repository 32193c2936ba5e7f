"""State that data objects keep: generators, counters, orders, caches.

A data set may hold a generator, shuffle a list of indices in place, count its
epochs or fill a cache, and so may what it holds in turn: a source, a sampler,
a transform. A bounded walk finds them, so that they can be put back. What it
cannot see is said in docs/guarantees.md.
"""

from __future__ import annotations

import collections
import copy
import functools
import itertools
import operator
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any, cast

import keras
import numpy as np
import xxhash

from keras_repro.backends.generators import (
    copy_generator_state,
    put_generator_state,
)
from keras_repro.common.generators import require_generator_state
from keras_repro.common.plain_values import require_plain
from keras_repro.common.whose_code import (
    is_own_class,
    is_own_function,
    package_of_class,
)

_MOST_OBJECTS = 2000
_MOST_ITEMS = 1000
# Bytes of an array; a larger one is not kept but named.
LARGE = 1 << 28
# What holds a function that a pipeline calls (TensorFlow 2.16 to 2.21).
_HOLDERS = ("EagerFunc", "_GeneratorState")
# What reading moves in objects of Keras and PyTorch, and nobody sets.
_MOVED = frozenset(
    {
        "_iterator",
        "batch_index",
        "index_array",
        "index_generator",
        "total_batches_seen",
    }
)
# Of these, what is made anew for each pass.
_ITERATORS = frozenset({"_iterator", "index_generator"})
# A generator that Grain (0.2) seeds anew for each element.
_SEEDED_EACH_TIME = frozenset({"_generator_cache"})
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, dict, set, collections.deque)
# Their objects hold no state of a data set, or hand it out otherwise.
_CLOSED = frozenset({"jax", "jaxlib", "keras_repro", "numpy", "pandas"}) | {
    "scipy",
    "tensorflow",
}


class DataState:
    """How a data object, and what it holds, stands at one moment."""

    # `root` is the data object, or the functions that give the data; copies of
    # what is equal are shared with `like`, an earlier state of it.

    def __init__(self, root: Any, like: DataState | None = None) -> None:
        self._kept: dict[tuple[str, int], _Kept] = {}
        self._like = {} if like is None else like._kept
        self.consumed: list[str] = []
        self.too_large: list[str] = []
        self._seen: set[int] = set()
        self._todo: collections.deque[tuple[str, Any, bool]]
        self._todo = collections.deque([("", root, True)])
        while self._todo and len(self._seen) < _MOST_OBJECTS:
            name, value, is_own = self._todo.popleft()
            if type(value) not in _PLAIN and id(value) not in self._seen:
                self._seen.add(id(value))
                self._look(name, value, is_own=is_own)
        del self._like, self._seen, self._todo

    @property
    def generators(self) -> list[str]:
        """The names of generators of its own."""
        kept = self._kept.values()
        names = {one.name for one in kept if isinstance(one, _Generator)}
        return sorted(names - _SEEDED_EACH_TIME)

    def restore(self, but: frozenset[int] = frozenset()) -> None:
        """Put back everything but variables, by `id`, that others put back."""
        for kept in self._kept.values():
            if id(getattr(kept.owner, "state", None)) not in but:
                kept.put_back()

    def is_same(self, other: DataState) -> bool:
        """Whether another state of the object is equal, bit for bit."""
        return self._kept.keys() == other._kept.keys() and all(
            kept.is_same(other._kept[key]) for key, kept in self._kept.items()
        )

    def shares_with(self, other: DataState) -> bool:
        """Whether two data objects hold something that moves in common."""
        return any(
            kind != _Array.kind for kind, _ in self._kept.keys() & other._kept
        )

    def update(self, other: DataState) -> None:
        """Take what another state, of another object, knows of the same."""
        for key in self._kept.keys() & other._kept:
            self._kept[key] = other._kept[key]

    def adopt(
        self, left: DataState, now: DataState
    ) -> tuple[DataState, list[str]]:
        """This state with what was set since `left`, and the names of that."""
        # `left` is how a trial left the object, `now` how it stands.
        result, names = copy.copy(self), []
        result._kept = dict(self._kept)
        for key, kept in now._kept.items():
            before = left._kept.get(key)
            if before is None:
                result._kept[key] = kept
            elif isinstance(kept, _Attributes):
                mine = copy.copy(result._kept.get(key, before))
                mine.value = dict(mine.value)
                names += cast("_Attributes", mine).take_up(kept, before)
                result._kept[key] = mine
            # Where generators stand is no setting.
            elif not isinstance(kept, _Generator) and not kept.is_same(before):
                result._kept[key] = kept
                names.append(kept.name)
        return result, sorted(set(names) - _MOVED)

    def moves_to(self, now: DataState) -> list[Any]:
        """What `now`, a later state, has otherwise, as plain values."""
        moves = [
            [place, kept.name, kept.move_to(now._kept[key])]
            for place, (key, kept) in enumerate(self._kept.items())
            if key in now._kept and not kept.is_same(now._kept[key])
        ]
        require_plain(moves)
        return moves

    def moved_to(self, moves: Any) -> DataState:
        """The state that `moves_to` was given, of the same object anew."""
        result, listed = copy.copy(self), list(self._kept.items())
        result._kept = dict(self._kept)
        for place, name, move in moves:
            if place >= len(listed) or listed[place][1].name != name:
                msg = f"the data have no {name!a:.80} there"
                raise ValueError(msg)
            key, kept = listed[place]
            mine = copy.copy(kept)
            mine.take_move(move)
            result._kept[key] = mine
        return result

    def _look(self, name: str, value: Any, *, is_own: bool) -> None:
        """Keep one object; note what it holds in turn."""
        state = copy_generator_state(value)
        if state is not None:
            self._keep(_Generator(name, value, state))
        elif isinstance(value, np.ndarray) or _is_tensor(value):
            if is_own:
                self._keep_array(name, value)
        elif isinstance(value, (*_CONTAINERS, tuple, frozenset)):
            if is_own and isinstance(value, _CONTAINERS):
                self._keep(_Items(name, value))
            items = value.values() if isinstance(value, dict) else value
            self._follow(name, itertools.islice(items, _MOST_ITEMS), is_own)
        elif isinstance(value, FUNCTIONS):
            if isinstance(value, types.FunctionType):
                is_own = is_own_function(value)
            self._follow(name, held_by_function(value), is_own)
        elif name and hasattr(value, "__next__") and not is_data(value):
            if is_own and name not in _MOVED:
                self.consumed.append(name)
        elif not name or _is_open(value):
            self._look_within(name, value)

    def _look_within(self, name: str, value: Any) -> None:
        """Keep the attributes of an object."""
        is_own = isinstance(value, keras.utils.PyDataset) or (
            is_own_class(type(value)) and not isinstance(value, keras.Layer)
        )
        attributes = getattr(value, "__dict__", {})
        if not name or is_own or is_data(value):
            # Nothing here keeps the data object itself alive.
            self._keep(_Attributes(name, attributes, dict(attributes)))
        slots = [
            slot
            for base in type(value).__mro__
            for slot in _as_names(vars(base).get("__slots__", ()))
            if hasattr(value, slot)
        ]
        held = {**{slot: getattr(value, slot) for slot in slots}, **attributes}
        for key, one in held.items():
            self._follow(key, (one,), is_own)

    def _follow(self, name: str, items: Iterable[Any], is_own: bool) -> None:
        self._todo.extend((name, item, is_own) for item in items)

    def _keep(self, kept: _Kept) -> None:
        self._kept[kept.kind, id(kept.owner)] = kept

    def _keep_array(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and not value.flags.writeable:
            return
        if value.nbytes > LARGE:
            self.too_large.append(name)
            return
        known = self._like.get((_Array.kind, id(value)))
        if isinstance(known, _Array) and known.is_current():
            self._keep(known)
        else:
            self._keep(_Array(name, value))


class _Kept:
    """One thing that was found, and how it stood."""

    kind = ""

    def __init__(self, name: str, owner: Any, value: Any) -> None:
        self.name, self.owner, self.value = name, owner, value

    def put_back(self) -> None:
        """Have it stand so again."""
        raise NotImplementedError

    def is_same(self, other: _Kept) -> bool:
        """Whether it stood so then."""
        return is_equal(self.value, other.value)

    def move_to(self, now: _Kept) -> Any:
        """How it stands in another state, as a plain value."""
        return now.value

    def take_move(self, move: Any) -> None:
        """Stand as `move_to` told."""
        self.value = move


class _Generator(_Kept):
    kind = "generator"

    def take_move(self, move: Any) -> None:
        require_generator_state(*move)
        self.value = move

    def put_back(self) -> None:
        put_generator_state(self.owner, self.value)


class _Array(_Kept):
    """An array, or a tensor of PyTorch, whose values may change in place."""

    kind = "array"

    def __init__(self, name: str, owner: Any) -> None:
        is_tensor = _is_tensor(owner)
        value = owner.detach().clone() if is_tensor else owner.copy()
        super().__init__(name, owner, value)
        self._digest = _digest(value)

    def take_move(self, move: Any) -> None:
        self.value, self._digest = move, _digest(move)

    def put_back(self) -> None:
        if self.is_current():
            return
        if _is_tensor(self.owner):
            self.owner.detach().copy_(self.value)
        else:
            np.copyto(self.owner, self.value)

    def is_current(self) -> bool:
        """Whether it stands so now."""
        if self._digest is None:
            return is_equal(self.owner, self.value)
        return self._digest == _digest(self.owner)


class _Items(_Kept):
    """A container whose items may change in place."""

    kind = "items"

    def __init__(self, name: str, owner: Any) -> None:
        super().__init__(name, owner, owner.copy())

    def put_back(self) -> None:
        if not _are_same_items(self.owner, self.value):
            self.owner.clear()
            fill = "extend" if hasattr(self.owner, "extend") else "update"
            getattr(self.owner, fill)(self.value)

    def is_same(self, other: _Kept) -> bool:
        return _are_same_items(self.value, other.value)

    def move_to(self, now: _Kept) -> Any:
        places = self._places()
        if isinstance(now.value, (dict, set)) or not all(
            id(item) in places for item in now.value
        ):
            return {"items": now.value}
        return {"order": [places[id(item)] for item in now.value]}

    def take_move(self, move: Any) -> None:
        if "items" in move:
            self.value = move["items"]
        else:
            items = list(self.value)
            self.value = type(self.value)(items[at] for at in move["order"])

    def _places(self) -> dict[int, int]:
        """Where the items stood, which may be objects of any kind."""
        if isinstance(self.value, (dict, set)):
            return {}
        return {id(item): at for at, item in enumerate(self.value)}


class _Attributes(_Kept):
    """The attributes of an object: those there are, and what each is."""

    kind = "attributes"

    def put_back(self) -> None:
        # Not by `setattr`, which may be the object's own and refuse.
        now = self.owner
        for name in [name for name in now if name not in self.value]:
            del now[name]
        for name, value in self.value.items():
            if name not in now or not _is_one(now[name], value):
                now[name] = value

    def is_same(self, other: _Kept) -> bool:
        changes = _list_changes(self.value, other.value)
        return _ITERATORS.issuperset(changes)

    def move_to(self, now: _Kept) -> Any:
        changes = _list_changes(self.value, now.value)
        moved = sorted(set(changes) - _ITERATORS)
        return {
            "set": {n: now.value[n] for n in moved if n in now.value},
            "gone": [n for n in moved if n not in now.value],
        }

    def take_move(self, move: Any) -> None:
        self.value = {**self.value, **move["set"]}
        for name in move["gone"]:
            self.value.pop(name, None)

    def take_up(self, now: _Kept, before: _Kept) -> list[str]:
        """Take up what was set since, and name it."""
        changes = _list_changes(now.value, before.value)
        names = [name for name in changes if name not in _MOVED]
        for name in names:
            self.value.pop(name, None)
            if name in now.value:
                self.value[name] = now.value[name]
        return names


def _list_changes(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The names of the attributes that are others."""
    absent = object()
    return [
        name
        for name in {**a, **b}
        if not _is_one(a.get(name, absent), b.get(name, absent))
    ]


FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def held_by_function(function: Any) -> Iterator[Any]:
    """What a function keeps from where it was made."""
    if isinstance(function, types.MethodType):
        yield function.__self__
    elif isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
    else:
        yield from function.__defaults__ or ()
        for cell in function.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # Not filled yet.
                continue


def _is_open(value: Any) -> bool:
    """Whether to look at what an object holds."""
    if isinstance(value, (type, types.ModuleType)) or hasattr(value, "_repro"):
        return False  # A reproducible model puts back what it holds itself.
    package = package_of_class(type(value))
    if package in ("keras", "torch"):
        return isinstance(value, keras.Layer) or is_data(value)
    if type(value).__name__ in _HOLDERS:
        return True
    return package not in _CLOSED and package not in sys.stdlib_module_names


def is_data(value: Any) -> bool:
    """Whether its library reads batches or samples from it."""
    if isinstance(value, keras.utils.PyDataset):
        return True
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(
        value, (data.DataLoader, data.Sampler, data.Dataset)
    )


def _as_names(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_one(a: Any, b: Any) -> bool:
    """Whether two values of an attribute are one object, or plain and equal."""
    return a is b or (
        type(a) is type(b) and type(a) in _PLAIN and is_equal(a, b)
    )


def _are_same_items(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return _are_same_items(list(a), list(b)) and _are_same_items(
            list(a.values()), list(b.values())
        )
    if isinstance(a, set):
        return bool(a == b)
    return len(a) == len(b) and all(map(operator.is_, a, b))


def is_equal(a: Any, b: Any) -> bool:
    """Whether two values are equal, bit for bit where they are arrays."""
    if _is_tensor(a) and _is_tensor(b):
        torch: Any = sys.modules["torch"]
        return a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return False
        if a.dtype.hasobject:
            return all(map(operator.is_, a.flat, b.flat))
        return bool(np.array_equal(_bits(a), _bits(b)))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_equal(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(is_equal, a, b))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def _digest(array: Any) -> tuple[Any, ...] | None:
    """What tells numbers from others in a sixth of the time of comparing."""
    if _is_tensor(array) or array.dtype.hasobject:
        return None
    content: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = xxhash.xxh3_128_digest(content)
    return array.shape, array.dtype, digest


def _bits(array: Any) -> Any:
    """Integers for the values of an array, so that NaN equals itself."""
    width = array.dtype.itemsize
    if array.dtype.kind in "fiub" and width in (1, 2, 4, 8):
        return array.view(f"u{width}")
    return array
