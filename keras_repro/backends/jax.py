"""JAX: immutable values, buffers that a step gives away, XLA's flags."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.backends.protocol import LARGE, Backend
from keras_repro.environment.determinism import (
    XLA_FLAG,
    has_jax_started,
    has_xla_flag,
)


class JaxBackend(Backend):
    """JAX: values are immutable, and a step donates its buffers."""

    name = "jax"

    def is_readable(self, variable: Any) -> bool:
        value = getattr(variable, "_value", None)  # Keras 3.12 to 3.15.
        return value is not None and not value.is_deleted()

    def hold(self, value: npt.NDArray[Any]) -> Any:
        import jax
        import jax.numpy as jnp

        if value.nbytes < LARGE:
            return value
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return jnp.array(value, copy=True)

    def assign(self, variable: Any, value: Any) -> None:
        import jax
        import jax.numpy as jnp

        # A step donates the buffer of a variable, so that it may never be
        # the memory of the host copy.
        if isinstance(value, jax.Array):
            variable.assign(self._copy_over(value, variable))
        else:
            variable.assign(jnp.array(value, copy=True))

    def _copy_over(self, held: Any, variable: Any) -> Any:
        """Copy into the buffer that the variable gives up, if it has one."""
        # Twice as fast as a new buffer, whose pages must be made first. As
        # after a training step, the old `variable.value` is gone.
        import jax.numpy as jnp

        if not self.is_readable(variable):
            return jnp.array(np.asarray(held), copy=True)
        old = variable.value
        if old.devices() != held.devices() or old.dtype != held.dtype:
            return jnp.array(np.asarray(held), copy=True)
        return _jax_copy_over()(held, old)

    def fill(self, variable: Any, value: npt.NDArray[Any]) -> None:
        import jax.numpy as jnp

        shape = tuple(variable.shape)
        if math.prod(shape) * value.itemsize < LARGE:
            # Several operations of JAX take longer than one small transfer.
            self.assign(variable, np.full(shape, value, value.dtype))
        else:
            variable.assign(jnp.full(shape, value, value.dtype))

    def assign_all(self, pairs: list[tuple[Any, Any]]) -> None:
        small: list[tuple[Any, Any]] = []
        large: list[tuple[Any, Any]] = []
        for variable, value in pairs:
            is_small = math.prod(variable.shape) * value.itemsize < LARGE
            (small if is_small else large).append((variable, value))
        super().assign_all(large)
        # In one call, which takes a fifth of transfers one by one. Nobody else
        # holds what it gives.
        copies = _jax_copies()(
            [
                np.broadcast_to(value, tuple(variable.shape))
                for variable, value in small
            ]
        )
        for (variable, _), value in zip(small, copies, strict=True):
            variable.assign(value)

    def make_viewer(
        self,
        model: Any,
        variables: list[Any],
        *,
        often: bool = False,  # noqa: ARG002 - reading is quick in any case
    ) -> Callable[[], list[npt.NDArray[Any]]]:
        # While `fit` runs, Keras (3.12 to 3.15) keeps the values in
        # `_jax_state`, in the order of these lists. Without it they are read
        # from the variables, which `callback.model` has to sync first.
        places = {
            id(variable): (name, index)
            for name, listed in _list_jax_state(model).items()
            for index, variable in enumerate(listed)
        }

        def view_all() -> list[npt.NDArray[Any]]:
            state = getattr(model, "_jax_state", None)
            if not state or model._jax_state_synced or len(state) < 4:
                return [self.view(variable) for variable in variables]
            return [
                np.asarray(state[name][index])
                for name, index in (places[id(one)] for one in variables)
            ]

        if all(id(variable) in places for variable in variables):
            return view_all
        return super().make_viewer(model, variables)

    def is_tracing(self, values: Any) -> bool:
        import jax

        leaves = jax.tree_util.tree_leaves(values)
        return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)

    def trace_step(
        self,
        model: Any,  # noqa: ARG002
        function: Any,  # noqa: ARG002
        args: tuple[Any, ...],  # noqa: ARG002
    ) -> Callable[[], tuple[Any, ...]] | None:
        # A pure step makes no variables: Keras has built all before it.
        return None

    def step_aside(
        self, model: Any, args: tuple[Any, ...], wait: Callable[[], None]
    ) -> tuple[Any, ...]:
        # Keras 3.12 to 3.15 hands the values to each step, and lets callbacks
        # that ask for the model have them meanwhile. Without these methods
        # others find a model without values, as in Keras itself.
        names = _list_jax_state(model)
        get_state = getattr(model, "_get_jax_state", None)
        if get_state is None or len(args[0]) != len(names):
            return super().step_aside(model, args, wait)
        model._jax_state = dict(zip(names, args[0], strict=True))
        model._jax_state_synced = False
        model.jax_state_sync()
        wait()
        state = get_state(
            **dict.fromkeys(names, True), purge_model_variables=True
        )
        model._jax_state_synced = False
        return (state, *args[1:])

    def clear_pending(self, model: Any) -> None:
        # Keras 3.12 to 3.15. Left in place after an error, the next read
        # through a callback would write deleted buffers over the variables.
        model._jax_state = None
        model._jax_state_synced = True

    def enable_determinism(self) -> str | None:
        import jax

        if has_xla_flag():
            return None
        if not has_jax_started():
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} {XLA_FLAG}".strip()
            return None
        if jax.default_backend() == "cpu":
            return None
        return (
            "JAX has started, so it no longer reads XLA_FLAGS. Start the "
            f"program with XLA_FLAGS={XLA_FLAG} in its environment."
        )


def _list_jax_state(model: Any) -> dict[str, list[Any]]:
    """The variables of a model in the order in which Keras hands them on."""
    optimizer = getattr(model, "optimizer", None)
    return {
        "trainable_variables": model.trainable_variables,
        "non_trainable_variables": model.non_trainable_variables,
        "optimizer_variables": [] if optimizer is None else optimizer.variables,
        "metrics_variables": model.metrics_variables,
    }


@functools.cache
def _jax_copy_over() -> Any:
    import jax
    import jax.numpy as jnp

    return jax.jit(
        lambda source, target: jnp.copy(source),  # noqa: ARG005 - donated
        donate_argnums=1,
        keep_unused=True,
    )


@functools.cache
def _jax_copies() -> Any:
    import jax
    import jax.numpy as jnp

    return jax.jit(lambda values: [jnp.copy(one) for one in values])
