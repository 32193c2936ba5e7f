"""The seeds of JAX' keys."""

from __future__ import annotations

from typing import Any

from keras_repro.watching.sources.watcher import Watcher


def watch_jax(watcher: Watcher, jax: Any) -> None:
    """Watch the seeds of JAX' keys."""
    audit = watcher.audit

    def watch(name: str) -> None:
        original = getattr(jax.random, name)

        @watcher.patches.in_place_of(name, jax.random)
        def make(seed: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(seed, int):
                seed = audit.note_seed("", f"jax.random.{name}", seed)
            return original(seed, *args, **kwargs)

    for name in ("PRNGKey", "key"):
        watch(name)
