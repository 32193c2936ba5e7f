"""Deterministic kernels: what turns them on, and whether they are on."""

from __future__ import annotations

import os
import sys
from typing import Any

# XLA obeys either; the second refuses what has no deterministic kernel.
XLA_FLAGS = (
    "--xla_gpu_deterministic_ops",
    "--xla_gpu_exclude_nondeterministic_ops",
)
XLA_FLAG = f"{XLA_FLAGS[0]}=true"
YES = ("1", "true")
WORKSPACE = ":4096:8"  # Of CUBLAS_WORKSPACE_CONFIG.


def is_yes(value: str) -> bool:
    """Whether XLA and TensorFlow read a value as "on"."""
    return value.lower() in YES


def is_switch(value: str) -> bool:
    """Whether TensorFlow reads a switch from it, on or off."""
    return value.lower() in (*YES, "0", "false")


def is_workspace(value: str) -> bool:
    """Whether cuBLAS repeats its sums with this workspace."""
    return value in (WORKSPACE, ":16:8")


def is_deterministic(backend: str) -> bool | None:
    """Whether deterministic kernels are on; `None` if it is unknown."""
    framework: Any = sys.modules.get(backend)
    if backend == "tensorflow":
        # TensorFlow 2.16 to 2.21 has no public question for this.
        config = sys.modules.get("tensorflow.python.framework.config")
        probe = getattr(config, "is_op_determinism_enabled", None)
        return None if probe is None else bool(probe())
    if backend == "jax":
        return has_xla_flag() or framework.default_backend() == "cpu"
    if backend == "torch":
        return bool(framework.are_deterministic_algorithms_enabled())
    return None


def has_xla_flag() -> bool:
    """Whether this process' `XLA_FLAGS` ask for deterministic kernels."""
    return read_xla_flags(os.environ.get("XLA_FLAGS", "")) is True


def read_xla_flags(flags: str) -> bool | None:
    """What `XLA_FLAGS` say of deterministic kernels; `None` if nothing."""
    found: dict[str, bool] = {}
    for word in flags.split():
        name, separator, value = word.partition("=")
        if name in XLA_FLAGS:
            found[name] = is_yes(value) or not separator
    return any(found.values()) if found else None


def has_jax_started() -> bool:
    """Whether JAX has chosen its devices, and no longer reads `XLA_FLAGS`."""
    # Private to JAX (0.5 to 0.10). Without it JAX counts as not started: to
    # ask for its devices would start it.
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", None)
    return started is not None and bool(started())
