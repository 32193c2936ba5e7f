"""NumPy's global generator, and its generators without a seed."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_repro.watching.sources.watcher import WORD, Watcher, methods_of

_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_NOT_DRAWING = frozenset({"get_state", "set_state", "seed"})


def watch_numpy(watcher: Watcher, numpy: Any) -> None:
    """Watch NumPy's global generator, and generators made without a seed."""
    # Private in NumPy 1.26 to 2.5: `mtrand._rand`, the global generator, and
    # `bit_generator.randbits`, its source of entropy.
    module = numpy.random
    _watch_global_numpy(watcher, module)
    patches = watcher.patches
    inner = module.bit_generator

    made = (module.Generator, module.BitGenerator, inner.ISeedSequence)

    def take(name: str, seed: Any) -> Any:
        return seed if isinstance(seed, made) else watcher.take_seed(name, seed)

    make = module.default_rng

    @patches.in_place_of("default_rng", module)
    def default_rng(seed: Any = None) -> Any:
        return make(take("numpy.random.default_rng", seed))

    for name in (*_GENERATORS, "SeedSequence"):
        _watch_maker(watcher, (module,), name, take)
    _watch_maker(
        watcher, (module, module.mtrand), "RandomState", _as_words(take)
    )
    if hasattr(inner, "randbits"):

        def randbits(count: int) -> int:
            drawn = watcher.draw("numpy.random", (count + 7) // 8)
            return int.from_bytes(drawn, "little") >> (-count % 8)

        patches.replace(inner, "randbits", randbits)


def _as_words(take: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """As an old generator wants a large seed: in words of 32 bits."""

    def take_words(name: str, seed: Any) -> Any:
        taken = take(name, seed)
        return _to_words(taken) if seed is None else taken

    return take_words


def _to_words(number: int) -> list[int]:
    return [(number >> shift) % WORD for shift in range(0, 256, 32)]


def _watch_maker(
    watcher: Watcher,
    owners: Sequence[Any],
    name: str,
    take: Callable[[str, Any], Any],
) -> None:
    """Watch a class whose first argument is a seed."""
    original: Any = getattr(owners[0], name, None)
    if original is None:
        return
    full_name = f"numpy.random.{name}"
    key = "entropy" if name == "SeedSequence" else "seed"

    def make(*args: Any, **kwargs: Any) -> Any:
        if args:
            args = (take(full_name, args[0]), *args[1:])
        elif not ({"state", "key", "counter", "pool"} & set(kwargs)):
            kwargs[key] = take(full_name, kwargs.get(key))
        return original(*args, **kwargs)

    watched = _stand_in(original, make)
    for owner in owners:
        watcher.patches.replace(owner, name, watched)


def _stand_in(original: Any, make: Callable[..., Any]) -> Any:
    """A class that makes instances of another, and is it to all who ask."""
    outer: Any = type(original)  # Another watch's, where one is under way.

    # Instances stay those of the class itself, and `isinstance` and subclasses
    # work as they did.
    class Meta(outer):  # type: ignore[misc]
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
            if cls is not watched:
                return super().__call__(*args, **kwargs)
            return make(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:  # noqa: N805
            if cls is watched:
                return isinstance(instance, original)
            return bool(super().__instancecheck__(instance))

        def __subclasscheck__(cls, subclass: Any) -> bool:  # noqa: N805
            if cls is watched:
                return issubclass(subclass, original)
            return bool(super().__subclasscheck__(subclass))

    watched = Meta(
        original.__name__,
        (original,),
        {"__module__": original.__module__, "__doc__": original.__doc__},
    )
    return watched


def _watch_global_numpy(watcher: Watcher, module: Any) -> None:
    generator = getattr(module.mtrand, "_rand", None)
    if generator is None:
        return
    module.seed(_to_words(watcher.entropy.start_of("numpy")))
    names = methods_of(generator, module)
    drawing = [name for name in names if name not in _NOT_DRAWING]
    watched = _make_watched_state(watcher, generator, drawing)
    watcher.patches.replace(module.mtrand, "_rand", watched)
    for name in names:
        for owner in (module, module.mtrand):
            watcher.patches.replace(owner, name, getattr(watched, name))


def _make_watched_state(
    watcher: Watcher, generator: Any, drawing: Iterable[str]
) -> Any:
    """The global generator once more, over the same bits, watched."""
    audit, base = watcher.audit, type(generator)
    fresh = base(secrets.randbits(32))

    def seed(self: Any, seed: Any = None) -> None:
        taken = watcher.take_seed("numpy.random.seed", seed, "numpy")
        base.seed(self, _to_words(taken) if seed is None else taken)

    def get_state(self: Any, legacy: bool = True) -> Any:
        audit.note_state_read("numpy", _key_of(base.get_state(self)))
        return base.get_state(self, legacy)

    def set_state(self: Any, state: Any) -> None:
        base.set_state(self, state)
        audit.note_state_put("numpy", _key_of(base.get_state(self)))

    methods: dict[str, Any] = {
        "get_state": get_state,
        "set_state": set_state,
        "seed": seed,
        "__module__": base.__module__,
    }
    for name in drawing:
        methods[name] = _watch_draw(watcher, getattr(base, name), fresh)
    return type(base.__name__, (base,), methods)(generator._bit_generator)


def _watch_draw(
    watcher: Watcher, original: Callable[..., Any], fresh: Any
) -> Callable[..., Any]:
    """A method of the global generator; `fresh` draws where it is let to."""
    audit = watcher.audit

    @functools.wraps(original)
    def draw(self: Any, *args: Any, **kwargs: Any) -> Any:
        if audit.is_seeded("numpy"):
            return original(self, *args, **kwargs)
        audit.note_draw("numpy")
        with audit.muted():  # Some draw by way of others, such as `rand`.
            value = original(self, *args, **kwargs)
        if watcher.is_freed("numpy"):
            return original(fresh, *args, **kwargs)
        return value

    return draw


def _key_of(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return (state[1].tobytes(), *state[2:])
