"""PyTorch's global generator, its seeds, threads and loaders."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from keras_repro.environment.determinism import is_deterministic
from keras_repro.watching.sources.watcher import Watcher
from keras_repro.watching.sources.workers import (
    watch_count,
    watch_ops,
    watch_workers,
)

_TORCH_FUNCTIONS = (
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli"),
    *("multinomial", "poisson", "rand_like", "randn_like", "randint_like"),
)
_TORCH_METHODS = (
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_"),
    *("geometric_", "cauchy_", "log_normal_", "multinomial", "bernoulli"),
)
_TORCH_DROPOUTS = (
    *("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d"),
    *("dropout2d", "dropout3d", "rrelu", "gumbel_softmax"),
)
# Not deterministic on a processor or a GPU, by PyTorch's own list.
_OPS = (
    *("index_put_", "index_put", "put_", "index_add_", "index_add"),
    *("scatter_add_", "scatter_add", "scatter_reduce_", "scatter_reduce"),
    *("index_copy_", "index_reduce_"),
)


def watch_torch(watcher: Watcher, torch: Any) -> None:
    """Watch PyTorch's global generator, its seeds, loaders and threads."""
    patches, audit = watcher.patches, watcher.audit
    manual_seed = torch.manual_seed
    manual_seed(watcher.entropy.start_of("torch") % 2**63)

    @patches.in_place_of("manual_seed", torch, torch.random)
    def watched_seed(seed: Any) -> Any:
        return manual_seed(audit.note_seed("torch", "torch.manual_seed", seed))

    def fresh_seed() -> int:
        number = watcher.draw_number("torch.seed") % 2**63
        manual_seed(number)
        return number

    for owner in (torch, torch.random):
        patches.replace(owner, "seed", fresh_seed)
    _watch_torch_generators(watcher, torch)
    _watch_torch_states(watcher, torch)
    # Its functions are written in C++ and cannot be watched from inside, so
    # those that draw are replaced until the generator has been seeded.
    _watch_torch_draws(watcher, torch, manual_seed)
    watch_ops(watcher, torch.Tensor, _OPS, "torch.Tensor")
    watch_count(watcher, torch, "set_num_threads", "torch.set_num_threads")
    watch_workers(
        watcher,
        torch.utils.data.DataLoader,
        "num_workers",
        one=0,
        dropped=("prefetch_factor", "persistent_workers", "worker_init_fn"),
    )
    if watcher.plan.deterministic:
        was_on = bool(is_deterministic("torch"))
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        patches.also_undo(
            lambda: torch.use_deterministic_algorithms(mode=was_on)
        )


def _watch_torch_generators(watcher: Watcher, torch: Any) -> None:
    """Watch `Generator.seed()`; a generator starts at a constant by itself."""

    def seed(self: Any) -> int:
        number = watcher.draw_number("torch.Generator.seed") % 2**63
        self.manual_seed(number)
        return number

    watcher.patches.replace_in_type(torch.Generator, "seed", seed)


def _watch_torch_states(watcher: Watcher, torch: Any) -> None:
    audit = watcher.audit
    get_state, set_state = torch.get_rng_state, torch.set_rng_state

    def get_watched_state() -> Any:
        state = get_state()
        audit.note_state_read("torch", state.numpy().tobytes())
        return state

    def set_watched_state(new_state: Any) -> None:
        audit.note_state_put("torch", new_state.numpy().tobytes())
        set_state(new_state)

    for owner in (torch, torch.random):
        watcher.patches.replace(owner, "get_rng_state", get_watched_state)
        watcher.patches.replace(owner, "set_rng_state", set_watched_state)


def _watch_torch_draws(
    watcher: Watcher, torch: Any, manual_seed: Callable[[int], Any]
) -> None:
    audit = watcher.audit
    # Private in PyTorch 2.5 to 2.13: `_register_builtin`, without which a
    # scripted function could not call what was replaced.
    builtins = getattr(torch.jit, "_builtins", None)
    register = getattr(builtins, "_register_builtin", None)

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name, None)
        if original is None:
            return

        @watcher.patches.in_place_of(name, owner)
        def draw(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("generator") is None and not audit.is_seeded("torch"):
                audit.note_draw("torch")
            value = original(*args, **kwargs)
            if watcher.is_freed("torch"):
                with torch.random.fork_rng(devices=[]):
                    manual_seed(secrets.randbits(63))
                    return original(*args, **kwargs)
            return value

        if owner is torch.nn.functional:
            # As `torch.jit.script_if_tracing` has it (PyTorch 2.5 to 2.13): a
            # scripted function is compiled from the original.
            vars(draw).update(
                __original_fn=original, __script_if_tracing_wrapper=True
            )
        elif register is not None and owner is torch:
            register(draw, f"aten::{name}")

    for name in _TORCH_FUNCTIONS:
        watch(torch, name)
    for name in _TORCH_METHODS:
        watch(torch.Tensor, name)
    for name in _TORCH_DROPOUTS:
        watch(torch.nn.functional, name)
