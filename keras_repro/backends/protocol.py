"""What the rest of the package asks of a backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import view_variable
from keras_repro.backends.keras_internals import flatten_layers
from keras_repro.environment.determinism import is_deterministic


class Backend:
    """What the rest of the package asks of a backend."""

    name = "numpy"

    def assign(self, variable: Any, value: npt.NDArray[Any]) -> None:
        """Write values in place; the host array is never aliased."""
        variable.assign(value)

    def view(self, variable: Any) -> npt.NDArray[Any]:
        """The values to be read, in place where the backend allows it."""
        # Only until the next training step: PyTorch then writes into the same
        # memory; TensorFlow and JAX would copy a buffer that somebody still
        # looks at, which costs more than reading it did.
        return view_variable(variable)

    def make_viewer(
        self,
        model: Any,  # noqa: ARG002 - JAX keeps the values there
        variables: list[Any],
        *,
        often: bool = False,  # noqa: ARG002 - TensorFlow compiles for it
    ) -> Callable[[], list[npt.NDArray[Any]]]:
        """Make a function that views all these variables, again and again."""
        return lambda: [self.view(variable) for variable in variables]

    def is_readable(self, variable: Any) -> bool:  # noqa: ARG002
        """Whether a variable has values; a failed step can lose them."""
        return True

    def hold(self, value: npt.NDArray[Any]) -> Any:
        """Keep a large host array in the form that is cheapest to assign."""
        # Whatever is kept has `shape`, `dtype` and `nbytes`, and NumPy reads
        # it.
        return value

    def fill(self, variable: Any, value: npt.NDArray[Any]) -> None:
        """Write one number into every element."""
        self.assign(variable, np.full(variable.shape, value, value.dtype))

    def assign_all(self, pairs: list[tuple[Any, Any]]) -> None:
        """Assign each variable its values, or the one number of them all."""
        for variable, value in pairs:
            if is_one_for_all(variable, value):
                self.fill(variable, value)
            else:
                self.assign(variable, value)

    def clear_pending(self, model: Any) -> None:
        """Forget a half-done step, so that variables can be assigned."""

    def finish_assign(self, model: Any) -> None:
        """Refresh what layers derive from their variables."""
        for layer in flatten_layers(model)[1:]:
            if isinstance(layer, keras.layers.Normalization) and layer.built:
                layer.finalize_state()

    def enable_determinism(self) -> str | None:
        """Turn deterministic kernels on; a string says what came too late."""
        return None

    def is_deterministic(self) -> bool | None:
        """Whether deterministic kernels are on; `None` if it is unknown."""
        return is_deterministic(self.name)

    # Whether a step traced for batches of any size serves those of one too.
    shares_traces = False
    # Whether data are read in a thread, before they are asked for.
    reads_ahead = False

    def outside_traces(self) -> AbstractContextManager[None]:
        """Read and assign within a trace as outside of it, if that can be."""
        return nullcontext()

    def scope(self, model: Any) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Where variables for a model are made, on the devices of its own."""
        return nullcontext()

    def describe_layout(self, model: Any) -> dict[str, Any] | None:  # noqa: ARG002
        """How a training is spread over devices; `None` if it is not."""
        layout = keras.distribution.distribution()
        if layout is None:
            return None
        mesh = layout.device_mesh
        # Private in Keras 3.12 to 3.15; without it the mesh alone is told.
        placed = dict(getattr(layout, "_layout_map", None) or {})
        return {
            "kind": type(layout).__name__,
            "mesh": dict(zip(mesh.axis_names, mesh.shape, strict=True)),
            "devices": [str(one) for one in mesh.devices.flatten()],
            "variables": {key: list(one.axes) for key, one in placed.items()},
        }

    def is_initialized(self, variable: Any) -> bool:  # noqa: ARG002
        """Whether a variable that a trace has made has a value already."""
        return True

    def is_replica(self) -> bool:
        """Whether this thread computes what another one waits for."""
        return False

    def keep_mode(self) -> Callable[[], None]:
        """What puts back how this thread computes now."""
        # A backend's own context managers can be interrupted half-way.
        return lambda: None

    def step_aside(
        self,
        model: Any,  # noqa: ARG002 - JAX keeps the values elsewhere
        args: tuple[Any, ...],
        wait: Callable[[], None],
    ) -> tuple[Any, ...]:
        """Have others use a model in mid-training; gives the step's `args`."""
        # It returns when they have used the values.
        wait()
        return args

    def is_tracing(self, values: Any) -> bool:  # noqa: ARG002
        """Whether a step that is given these values is being traced."""
        return False

    def trace_step(
        self,
        model: Any,  # noqa: ARG002 - TensorFlow asks it
        function: Any,  # noqa: ARG002 - TensorFlow traces it
        args: tuple[Any, ...],
    ) -> Callable[[], tuple[Any, ...]] | None:
        """Trace a step that Keras has made for `args`, without running it."""
        # `None` where all that the step builds is there now; else what gives
        # the same arguments each time, to run it more than once.
        return lambda: args

    def read_threads(self) -> dict[str, int]:
        """How many threads this process was told to use, where it was told."""
        return {}

    def set_threads(self, threads: dict[str, int]) -> None:
        """Use as many as `read_threads` read in another process."""


def is_one_for_all(variable: Any, value: Any) -> bool:
    """Whether one number stands for the values of a whole variable."""
    return tuple(value.shape) != tuple(variable.shape)


LARGE = 2**20
