"""NumPy's global generator, and its generators without a seed."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from keras_repro.watching.sources.watcher import WORD, Watcher

_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_NOT_DRAWING = frozenset({"get_state", "set_state", "seed"})


def watch_numpy(watcher: Watcher, numpy: Any) -> None:
    """Watch NumPy's global generator, and generators made without a seed."""
    # Private in NumPy 1.26 to 2.5: `mtrand._rand`, the global generator, and
    # `bit_generator.randbits`, its source of entropy.
    module = numpy.random
    _watch_global_numpy(watcher, module)
    patches, audit = watcher.patches, watcher.audit
    inner = module.bit_generator

    def take(name: str, seed: Any) -> Any:
        if seed is None:
            return watcher.draw_number(name)
        if isinstance(seed, (module.Generator, module.BitGenerator)):
            return seed
        if isinstance(seed, inner.ISeedSequence) or audit.is_muted:
            return seed
        return audit.note_seed("", name, seed)

    make = module.default_rng

    @functools.wraps(make)
    def default_rng(seed: Any = None) -> Any:
        return make(take("numpy.random.default_rng", seed))

    patches.replace(module, "default_rng", default_rng)
    for owner, name in (
        *((module, name) for name in _GENERATORS),
        (module, "SeedSequence"),
    ):
        _watch_maker(watcher, (owner,), name, take)
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
    owners: Iterable[Any],
    name: str,
    take: Callable[[str, Any], Any],
) -> None:
    """Watch a class whose first argument is a seed."""
    owners = tuple(owners)
    if not hasattr(owners[0], name):
        return
    original: Any = getattr(owners[0], name)
    full_name = f"numpy.random.{name}"

    outer: Any = type(original)  # Another watch's, where one is under way.

    # Instances stay those of the class itself, and `isinstance` and subclasses
    # work as they did.
    class Meta(outer):  # type: ignore[misc]
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
            if cls is not watched:
                return super().__call__(*args, **kwargs)
            key = "entropy" if name == "SeedSequence" else "seed"
            if args:
                args = (take(full_name, args[0]), *args[1:])
            elif not ({"state", "key", "counter", "pool"} & set(kwargs)):
                kwargs[key] = take(full_name, kwargs.get(key))
            return original(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:  # noqa: N805
            if cls is watched:
                return isinstance(instance, original)
            return bool(super().__instancecheck__(instance))

        def __subclasscheck__(cls, subclass: Any) -> bool:  # noqa: N805
            if cls is watched:
                return issubclass(subclass, original)
            return bool(super().__subclasscheck__(subclass))

    watched = Meta(
        name,
        (original,),
        {"__module__": original.__module__, "__doc__": original.__doc__},
    )
    for owner in owners:
        watcher.patches.replace(owner, name, watched)


def _watch_global_numpy(watcher: Watcher, module: Any) -> None:
    generator = getattr(module.mtrand, "_rand", None)
    if generator is None:
        return
    patches = watcher.patches
    module.seed(_to_words(watcher.entropy.start_of("numpy")))
    watched = _make_watched_state(watcher, module, generator)
    patches.replace(module.mtrand, "_rand", watched)
    for name, value in list(vars(module).items()):
        if getattr(value, "__self__", None) is generator:
            patches.replace(module, name, getattr(watched, name))
            patches.replace(module.mtrand, name, getattr(watched, name))


def _make_watched_state(watcher: Watcher, module: Any, generator: Any) -> Any:
    """The global generator once more, over the same bits, watched."""
    audit, base = watcher.audit, type(generator)
    fresh = base(secrets.randbits(32))

    def draw_with(name: str) -> Callable[..., Any]:
        original = getattr(base, name)

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

    def seed(self: Any, seed: Any = None) -> None:
        if seed is None:
            seed = _to_words(watcher.draw_number("numpy.random.seed"))
        elif not audit.is_muted:
            seed = audit.note_seed("numpy", "numpy.random.seed", seed)
        base.seed(self, seed)

    def get_state(self: Any, legacy: bool = True) -> Any:
        audit.note_state_read("numpy", _key_of(base.get_state(self)))
        return base.get_state(self, legacy)

    def set_state(self: Any, state: Any) -> None:
        base.set_state(self, state)
        audit.note_state_put("numpy", _key_of(base.get_state(self)))

    methods: dict[str, Any] = {
        name: draw_with(name)
        for name, value in vars(module).items()
        if getattr(value, "__self__", None) is generator
        and name not in _NOT_DRAWING
    }
    methods |= {
        "get_state": get_state,
        "set_state": set_state,
        "seed": seed,
        "__module__": base.__module__,
    }
    return type(base.__name__, (base,), methods)(generator._bit_generator)


def _key_of(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return (state[1].tobytes(), *state[2:])
