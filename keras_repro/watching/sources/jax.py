"""The seeds of JAX' keys."""

from __future__ import annotations

import functools
from typing import Any

from keras_repro.watching.sources.watcher import Watcher


def watch_jax(watcher: Watcher, jax: Any) -> None:
    """Watch the seeds of JAX' keys."""
    audit = watcher.audit

    def watch(name: str) -> None:
        original = getattr(jax.random, name)

        @functools.wraps(original)
        def make(seed: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(seed, int) and not audit.is_muted:
                seed = audit.note_seed("", f"jax.random.{name}", seed)
            return original(seed, *args, **kwargs)

        watcher.patches.replace(jax.random, name, make)

    for name in ("PRNGKey", "key"):
        watch(name)
