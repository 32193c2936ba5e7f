"""Every line that differs between TensorFlow, JAX and PyTorch.

One class per backend behind one protocol, and the few private attributes of
Keras and TensorFlow that have no public equivalent. Each of them is guarded
here, with the versions it was checked with and what happens without it, so
that no other module needs to know which backend runs.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.checksums import view_variable

Order = Callable[[], npt.NDArray[np.int64]]


# --- Keras' own private state -------------------------------------------


def _global_state() -> Any:
    """Keras' thread-local attributes (`keras.src`, Keras 3.12 to 3.15)."""
    from keras.src.backend.common import global_state

    return global_state


def get_global_seed() -> int | None:
    """The seed that `keras.utils.set_random_seed` was given, or `None`."""
    from keras.src.utils import rng_utils

    # Keras 3.12 to 3.15; without it a seed set through Keras is not seen and
    # the model draws a seed of its own.
    getter = getattr(rng_utils, "get_random_seed", None)
    seed = getter() if getter is not None else None
    return None if seed is None else int(seed) % 2**32


def set_global_seed(seed: int) -> None:
    """Set Keras' global seed and nothing else (Keras 3.12 to 3.15).

    `keras.utils.set_random_seed` would load TensorFlow under every backend,
    and seed Python's and NumPy's generators too.
    """
    _global_state().set_global_attribute("global_random_seed", seed)


def get_global_generator() -> Any:
    """Keras' global seed generator, or `None` while nothing has used it."""
    return _global_state().get_global_attribute("global_seed_generator")


def set_global_generator(generator: Any) -> None:
    """Put a `SeedGenerator` (or `None`) in the place of the global one."""
    _global_state().set_global_attribute("global_seed_generator", generator)


@contextmanager
def tensorflow_unloaded() -> Iterator[None]:
    """Have Keras not import TensorFlow in a block, if nobody has so far.

    Under JAX and PyTorch Keras (3.12 to 3.15) imports it, which takes
    seconds, only to ask of a setting whether it is one of TensorFlow's; where
    TensorFlow is not loaded none can be. Without the private flag it loads.
    """
    from keras.src.utils import module_utils

    lazy = module_utils.tensorflow
    if (
        "tensorflow" in sys.modules
        or getattr(lazy, "_available", 0) is not None
    ):
        yield
        return
    lazy._available = False
    try:
        yield
    finally:
        lazy._available = None


def functional_class() -> Any:
    """The class of Functional models, which Keras does not export."""
    from keras.src.models.functional import Functional

    return Functional


def functional_from_config(cls: type, config: Any, custom_objects: Any) -> Any:
    """Revive a Functional model of a class (Keras 3.12 to 3.15)."""
    from keras.src.models import functional

    return functional.functional_from_config(
        cls, config, custom_objects=custom_objects
    )


def flatten_layers(layer: Any, *, recursive: bool = True) -> list[Any]:
    """A layer and the layers in it (private in Keras 3.12 to 3.15).

    `Model.layers` alone would miss the layers inside a wrapper or a cell.
    """
    return list(layer._flatten_layers(recursive=recursive, include_self=True))


def has_unbuilt_compile_parts(model: Any) -> bool:
    """Whether loss or metrics have no variables yet (Keras 3.12 to 3.15).

    Without it, metrics would be built by the first step.
    """
    parts = (
        getattr(model, "_compile_metrics", None),
        getattr(model, "_compile_loss", None),
    )
    return any(part is not None and not part.built for part in parts)


def symbolic_build(model: Any, batch: Any) -> None:
    """Build layers, metrics and loss from the shapes of one batch.

    `Trainer._symbolic_build` is what `fit` itself calls on JAX and PyTorch
    (Keras 3.12 to 3.15). Without it TensorFlow would build inside the first
    step, where the start can no longer be read.
    """
    model._symbolic_build(data_batch=batch)


def optimized_variables(optimizer: Any) -> list[Any]:
    """The variables that an optimizer updates (Keras 3.12 to 3.15).

    None before it is built.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", ()))


def compiled_flags(model: Any) -> tuple[Any, dict[Any, bool]]:
    """What tells one `compile` from another, and the flags it has read.

    Keras 3.12 to 3.15. Without it a layer frozen before a new `compile`
    would be unfrozen by the next `reset()`. Keras 3.12 keeps no flags: then
    those count that hold when the new `compile` is noticed.
    """
    config = getattr(model, "_compile_config", None)
    flags = getattr(model, "_compiled_trainable_state", None)
    if flags is None:
        flags = {layer: layer.trainable for layer in flatten_layers(model)}
    return config, dict(flags)


def train_validation_split(
    arrays: tuple[Any, Any, Any], validation_split: float
) -> tuple[Any, Any]:
    """Split arrays as `fit(validation_split=...)` does (Keras 3.12 to 3.15)."""
    from keras.src.trainers.data_adapters import array_slicing

    split: tuple[Any, Any] = array_slicing.train_validation_split(
        arrays, validation_split=validation_split
    )
    return split


def is_eager() -> bool:
    """Whether variables can be read now: no graph or trace is being made.

    Stateless scopes are private in Keras 3.12 to 3.15; reading a variable
    in one would give a symbol.
    """
    from keras.src.backend.common import stateless_scope

    if stateless_scope.in_stateless_scope():
        return False
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return bool(tf.executing_eagerly())
    if name == "torch":
        from keras.src.backend.torch import core

        return str(core.get_device()) != "meta"
    return True


def are_arrays(data: Any) -> bool:
    """Whether `fit` would treat the data as arrays (Keras 3.12 to 3.15)."""
    from keras.src.trainers.data_adapters import array_data_adapter

    return bool(array_data_adapter.can_convert_arrays(data))


def is_tf_dataset(data: Any) -> bool:
    """Whether `fit` would treat the data as a `tf.data` pipeline."""
    return any(
        parent.__name__.startswith("Distributed")
        or parent.__name__ == "DatasetV2"
        for parent in type(data).__mro__
        if parent.__module__.startswith("tensorflow.python.")
    )


def is_torch_loader(data: Any) -> bool:
    """Whether the data is a `torch.utils.data.DataLoader`."""
    return any(
        parent.__name__ == "DataLoader"
        and parent.__module__.startswith("torch.utils.data")
        for parent in type(data).__mro__
    )


def make_ordered_adapter(
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None,
    steps: int | None,
    class_weight: dict[int, float] | None,
    order: Callable[[int, int], npt.NDArray[np.int64]],
) -> Any:
    """Make a data adapter that feeds arrays in an order of our own.

    `fit` takes a `DataAdapter` as it is (Keras 3.12 to 3.15). Keras' own
    array adapter does the checking, the weights and the slicing; only the
    permutation is replaced.

    Args:
        x: Inputs, as `fit` takes them.
        y: Targets.
        sample_weight: Weights of the samples.
        batch_size: Samples a batch; Keras' rule where `None`.
        steps: `steps_per_epoch`.
        class_weight: Weights of the classes.
        order: Called with the number of samples and the batch size each time
            a pass over the data begins; gives the indices, shape
            `(num_samples,)`.
    """
    from keras.src.trainers.data_adapters import array_data_adapter

    class OrderedArrayAdapter(array_data_adapter.ArrayDataAdapter):
        def _next_order(self) -> npt.NDArray[np.int64]:
            return order(self._num_samples, self._batch_size)

        def _get_iterator(self, slice_and_convert: Any, inputs: Any) -> Any:
            # The base class gets NumPy and JAX iterators from this one.
            return self._batches(
                lambda leaf, indices: slice_and_convert(leaf, indices=indices),
                inputs,
            )

        def _batches(self, take: Any, inputs: Any) -> Iterator[Any]:
            indices = self._next_order()
            for start in range(0, self._num_samples, self._batch_size):
                chosen = indices[start : start + self._batch_size]
                yield keras.tree.map_structure(
                    lambda leaf, chosen=chosen: (
                        None if leaf is None else take(leaf, chosen)
                    ),
                    inputs,
                )

        def get_torch_dataloader(self) -> Any:
            return _TorchBatches(self)

        def get_tf_dataset(self) -> Any:
            return _ordered_tf_dataset(self)

    return OrderedArrayAdapter(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=False,
        class_weight=class_weight,
    )


def epoch_orders(
    num_samples: int, batch_size: int | None, num_epochs: int
) -> list[npt.NDArray[Any]]:
    """The orders in which `fit(shuffle=True)` would feed arrays now.

    Draws from the program's generators as `fit` does (Keras 3.12 to 3.15).

    Args:
        num_samples: How many samples there are.
        batch_size: Samples a batch; Keras' rule where `None`.
        num_epochs: How many epochs.
    """
    from keras.src.trainers.data_adapters import array_data_adapter

    adapter = array_data_adapter.ArrayDataAdapter(
        np.arange(num_samples), batch_size=batch_size, shuffle=True
    )
    name = keras.backend.backend()
    if name == "tensorflow":
        pipeline = adapter.get_tf_dataset()  # One for all epochs.
        passes = [iter(pipeline) for _ in range(num_epochs)]
    elif name == "torch":
        loader = adapter.get_torch_dataloader()
        passes = [iter(loader) for _ in range(num_epochs)]
    else:
        passes = [adapter.get_jax_iterator() for _ in range(num_epochs)]
    return [
        np.concatenate(
            [np.asarray(keras.tree.flatten(batch)[0]) for batch in one]
        )
        for one in passes
    ]


class _TorchBatches:
    """An iterable of batches as torch tensors, one pass per `iter`."""

    def __init__(self, adapter: Any) -> None:
        from keras.src.trainers.data_adapters import array_slicing

        self._adapter = adapter
        self._inputs = array_slicing.convert_to_sliceable(
            adapter._inputs, target_backend="torch"
        )

    def __iter__(self) -> Iterator[Any]:
        def take(leaf: Any, indices: npt.NDArray[np.int64]) -> Any:
            rows = leaf.convert_to_torch_compatible(leaf[indices])
            return keras.ops.convert_to_tensor(rows)

        return iter(self._adapter._batches(take, self._inputs))

    def __len__(self) -> int:
        return int(self._adapter.num_batches)


def _ordered_tf_dataset(adapter: Any) -> Any:
    """The pipeline of Keras' array adapter, with the order of the adapter."""
    import tensorflow as tf
    from keras.src.trainers.data_adapters import array_slicing

    inputs = keras.tree.lists_to_tuples(
        array_slicing.convert_to_sliceable(
            adapter._inputs, target_backend="tensorflow"
        )
    )
    size, batch = adapter._num_samples, adapter._batch_size

    def pass_order(_: Any) -> Any:
        indices = tf.numpy_function(adapter._next_order, [], tf.int64)
        return tf.ensure_shape(indices, [size])

    def to_batches(indices: Any) -> Any:
        full = size // batch * batch
        batches = tf.data.Dataset.from_tensor_slices(
            tf.reshape(indices[:full], [-1, batch])
        )
        if full < size:
            rest = tf.data.Dataset.from_tensors(indices[full:])
            batches = batches.concatenate(rest)
        return batches

    def gather(indices: Any, data: Any) -> Any:
        def take(leaf: Any) -> Any:
            if isinstance(leaf, array_slicing.TensorflowSparseWrapper):
                return array_slicing.slice_tensorflow_sparse_wrapper(
                    leaf, indices
                )
            if isinstance(leaf, (list, tuple, dict)):
                return None
            return tf.gather(leaf, indices) if tf.is_tensor(leaf) else leaf

        return keras.tree.traverse(take, data)

    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE
    )
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    orders = tf.data.Dataset.range(1).map(pass_order).flat_map(to_batches)
    data = tf.data.Dataset.from_tensors(inputs).repeat()
    pairs = tf.data.Dataset.zip((orders, data))
    return (
        pairs.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
        .with_options(options)
        .prefetch(tf.data.AUTOTUNE)
    )


def serialize_pipeline(dataset: Any) -> bytes:
    """The graph of a `tf.data` pipeline, from which it can be made anew.

    Private in TensorFlow 2.16 to 2.21; where it fails (captured variables,
    more than 2 GB of tensors) the pipeline cannot be rewound.

    Raises:
        Exception: Whatever TensorFlow raises for a pipeline it cannot write.
    """
    import tensorflow as tf

    policy = tf.data.experimental.ExternalStatePolicy.FAIL
    for choice in (policy, tf.data.experimental.ExternalStatePolicy.IGNORE):
        try:
            graph = dataset._as_serialized_graph(external_state_policy=choice)
        except tf.errors.FailedPreconditionError:
            continue
        return bytes(graph.numpy())
    msg = "the pipeline has state of its own"
    raise ValueError(msg)


def restart_pipeline(dataset: Any, graph: bytes, seed: int) -> Any:
    """Make a `tf.data` pipeline anew, standing at its start.

    A shuffle keeps the position of its generator in a resource that only
    its dataset op holds, so the graph is given generators of its own, with
    the seeds that the pipeline was made with. A pipeline that was made
    without any seed gets its seeds from `seed`.
    """
    import tensorflow as tf
    from tensorflow.python.data.ops import dataset_ops

    parsed = tf.compat.v1.GraphDef.FromString(graph)
    by_name = {node.name: node for node in parsed.node}
    for number, node in enumerate(list(parsed.node)):
        position = _SEED_GENERATOR_INPUT.get(node.op)
        if position is not None:
            seeds = [by_name[name.split(":")[0]] for name in node.input[2:4]]
            _give_seed(seeds, seed + number)
            node.input[position] = _add_generator(parsed, node)
    for function in parsed.library.function:
        for number, node in enumerate(function.node_def):
            if node.op in _STATEFUL_RANDOM_OPS and not (
                node.attr["seed"].i or node.attr["seed2"].i
            ):
                node.attr["seed"].i = seed + number + 1
    variant = tf.raw_ops.DatasetFromGraph(graph_def=parsed.SerializeToString())
    # TensorFlow 2.16 to 2.21 has no public way from a variant to a dataset.
    remade = dataset_ops._VariantDataset(variant, dataset.element_spec)
    return remade.with_options(dataset.options())


_SEED_GENERATOR_INPUT = {"ShuffleDatasetV3": 4, "ShuffleAndRepeatDatasetV2": 5}


def _give_seed(constants: list[Any], seed: int) -> None:
    """Replace the two zeros of an unseeded op."""
    import tensorflow as tf

    values = [tf.make_ndarray(c.attr["value"].tensor) for c in constants]
    if not any(value.item() for value in values):
        tensor = tf.make_tensor_proto(seed + 1, dtype=tf.int64)
        constants[0].attr["value"].tensor.CopyFrom(tensor)


def _add_generator(graph: Any, shuffle: Any) -> str:
    """Add a seed generator of its own for one shuffle; returns its name."""
    import tensorflow as tf

    again = shuffle.attr["reshuffle_each_iteration"].b
    flag = graph.node.add()
    flag.name = f"{shuffle.name.replace('/', '_')}_reshuffle"
    flag.op = "Const"
    flag.attr["dtype"].type = tf.bool.as_datatype_enum
    flag.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(again))
    generator = graph.node.add()
    generator.name = f"{shuffle.name.replace('/', '_')}_generator"
    generator.op = "AnonymousSeedGenerator"
    generator.input.extend([*shuffle.input[2:4], flag.name])
    return str(generator.name)


# --- generators of the backends ------------------------------------------


class TensorFlowGenerator:
    """TensorFlow's eager seed: the seed and the stream of op seeds.

    Both live in the private context (TensorFlow 2.16 to 2.21). Without them
    TensorFlow's raw random ops would not be kept apart from the program's.
    """

    name = "tensorflow"

    @staticmethod
    def _context() -> Any:
        from tensorflow.python.eager import context

        return context.context()

    def capture(self) -> Any:
        context = self._context()
        # There is no stream before somebody sets a seed.
        stream = getattr(context, "_rng", None)
        return context._seed, None if stream is None else stream.getstate()

    def restore(self, state: Any) -> None:
        context = self._context()
        seed, stream = state
        context._seed = seed
        if stream is not None:
            context._rng = random.Random()
            context._rng.setstate(_as_tuple(stream))

    def seed(self, seed: int) -> None:
        context = self._context()
        context._seed = seed
        context._rng = random.Random(seed)


class TorchGenerator:
    """Torch's global generators, on the CPU and on every CUDA device."""

    name = "torch"

    def capture(self) -> Any:
        import torch

        cuda = (
            [np.asarray(s) for s in torch.cuda.get_rng_state_all()]
            if torch.cuda.is_available() and torch.cuda.is_initialized()
            else []
        )
        return torch.get_rng_state().numpy().copy(), cuda

    def restore(self, state: Any) -> None:
        import torch

        cpu, cuda = state
        torch.set_rng_state(torch.from_numpy(np.array(cpu, np.uint8)))
        for index, device_state in enumerate(cuda):
            torch.cuda.set_rng_state(
                torch.from_numpy(np.array(device_state, np.uint8)), index
            )

    def seed(self, seed: int) -> None:
        import torch

        torch.manual_seed(seed)


def rewind_kernels() -> None:
    """Take TensorFlow's stateful kernels back, also in traced functions."""
    TensorFlowGenerator._context().clear_kernel_cache()


_STATEFUL_RANDOM_OPS = frozenset(
    {
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "TruncatedNormal",
    }
)


def traced_functions() -> frozenset[str]:
    """Names of the functions that TensorFlow has traced so far.

    From the private context (TensorFlow 2.16 to 2.21); without it stateful
    random ops inside traced functions are not noticed, nor rewound.
    """
    if "tensorflow" not in sys.modules:
        return frozenset()
    names = getattr(TensorFlowGenerator._context(), "list_function_names", None)
    return frozenset() if names is None else frozenset(names())


def have_stateful_random_ops(names: frozenset[str]) -> bool:
    """Whether one of these traced functions draws from stateful kernels."""
    if not names:
        return False
    context = TensorFlowGenerator._context()
    return any(
        node.op in _STATEFUL_RANDOM_OPS
        for name in names
        for node in context.get_function_def(name).node_def
    )


def _as_tuple(value: Any) -> Any:
    """Lists back to the tuples that `random.setstate` insists on."""
    if isinstance(value, (list, tuple)):
        return tuple(_as_tuple(item) for item in value)
    return value


def active_generators() -> list[Any]:
    """The backend generators that this process has loaded."""
    found: list[Any] = []
    if "tensorflow" in sys.modules:
        found.append(TensorFlowGenerator())
    if "torch" in sys.modules:
        found.append(TorchGenerator())
    return found


# --- one class per backend -----------------------------------------------


class Backend:
    """What the rest of the package asks of a backend."""

    name = "numpy"

    def assign(self, variable: Any, value: npt.NDArray[Any]) -> None:
        """Write values in place; the host array is never aliased."""
        variable.assign(value)

    def view(self, variable: Any) -> npt.NDArray[Any]:
        """The values, seen in place where the backend allows it.

        Only to be read, and only until the next training step: PyTorch then
        writes into the same memory; TensorFlow and JAX would copy a buffer
        that somebody still looks at, which costs more than reading it did.
        """
        return view_variable(variable)

    def make_viewer(
        self,
        model: Any,  # noqa: ARG002 - JAX keeps the values there
        variables: list[Any],
        *,
        often: bool = False,  # noqa: ARG002 - TensorFlow compiles for it
    ) -> Callable[[], list[npt.NDArray[Any]]]:
        """Make a function that views all these variables, again and again.

        Args:
            model: Their model.
            variables: The variables.
            often: Whether to prepare for a call at each batch.
        """
        return lambda: [self.view(variable) for variable in variables]

    def is_readable(self, variable: Any) -> bool:  # noqa: ARG002
        """Whether a variable has values; a failed step can lose them."""
        return True

    def hold(self, value: npt.NDArray[Any]) -> Any:
        """Keep a large host array in the form that is cheapest to assign.

        Whatever is kept has `shape`, `dtype` and `nbytes`, and NumPy reads it.
        """
        return value

    def fill(self, variable: Any, value: npt.NDArray[Any]) -> None:
        """Write one number into every element."""
        self.assign(variable, np.full(variable.shape, value, value.dtype))

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
        return None

    # Whether a step traced for batches of any size serves those of one too.
    shares_traces = False

    def read_threads(self) -> dict[str, int]:
        """How many threads this process was told to use, where it was told."""
        return {}

    def set_threads(self, threads: dict[str, int]) -> None:
        """Use as many as `read_threads` read in another process."""


class HeldTensor:
    """A host copy inside TensorFlow, which assigns it without copying.

    A variable shares the buffer until the first step writes to it, and
    TensorFlow copies it then: it never writes to a buffer that is shared.
    """

    def __init__(self, value: npt.NDArray[Any]) -> None:
        import tensorflow as tf

        self.shape, self.dtype, self.nbytes = (
            value.shape,
            value.dtype,
            value.nbytes,
        )
        with tf.device("CPU:0"):
            self.tensor = tf.constant(value)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """The values, as NumPy asks for them."""
        del copy  # TensorFlow gives a copy in any case.
        values: npt.NDArray[Any] = self.tensor.numpy()
        return values if dtype is None else values.astype(dtype)


class TensorFlowBackend(Backend):
    """TensorFlow: variables are assigned by an op."""

    name = "tensorflow"
    shares_traces = True

    def hold(self, value: npt.NDArray[Any]) -> Any:
        return HeldTensor(value) if value.nbytes >= _LARGE else value

    def assign(self, variable: Any, value: Any) -> None:
        held = isinstance(value, HeldTensor)
        variable.assign(value.tensor if held else value)

    def view(self, variable: Any) -> npt.NDArray[Any]:
        import tensorflow as tf

        held = variable.value
        if not isinstance(held, tf.Variable):
            return view_variable(variable)
        # A third of what `read_value` takes outside a function.
        read = tf.raw_ops.ReadVariableOp
        return np.asarray(read(resource=held.handle, dtype=held.dtype))

    def make_viewer(
        self, model: Any, variables: list[Any], *, often: bool = False
    ) -> Callable[[], list[npt.NDArray[Any]]]:
        import tensorflow as tf

        held = [variable.value for variable in variables]
        if not often or not all(isinstance(one, tf.Variable) for one in held):
            return super().make_viewer(model, variables)
        joined = [
            i
            for i, one in enumerate(held)
            if one.dtype == tf.float32 and one.shape.num_elements() < _LARGE
        ]
        if len(joined) < 2:
            return super().make_viewer(model, variables)
        read_joined = _join_floats([held[i] for i in joined])
        sizes = [held[i].shape.num_elements() for i in joined]
        ends = list(itertools.accumulate(sizes))
        shapes = [tuple(held[i].shape) for i in joined]
        parts = list(zip(joined, [0, *ends], ends, shapes, strict=False))
        others = set(range(len(held))).difference(joined)

        def view_all() -> list[npt.NDArray[Any]]:
            values = np.asarray(read_joined())
            views: list[Any] = [None] * len(held)
            for i, start, end, shape in parts:
                views[i] = values[start:end].reshape(shape)
            for i in others:
                views[i] = self.view(variables[i])
            return views

        return view_all

    def fill(self, variable: Any, value: npt.NDArray[Any]) -> None:
        import tensorflow as tf

        variable.assign(tf.fill(variable.shape, tf.constant(value)))

    def enable_determinism(self) -> str | None:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        return None

    def is_deterministic(self) -> bool | None:
        from tensorflow.python.framework import config

        # TensorFlow 2.16 to 2.21 has no public question for this.
        probe = getattr(config, "is_op_determinism_enabled", None)
        return None if probe is None else bool(probe())

    def read_threads(self) -> dict[str, int]:
        import tensorflow as tf

        threading = tf.config.threading
        return {
            "intra_op": threading.get_intra_op_parallelism_threads(),
            "inter_op": threading.get_inter_op_parallelism_threads(),
        }

    def set_threads(self, threads: dict[str, int]) -> None:
        import tensorflow as tf

        if threads == self.read_threads():
            return
        # Refused once TensorFlow has started: then they stay as they are.
        with suppress(RuntimeError):
            threading = tf.config.threading
            threading.set_intra_op_parallelism_threads(threads["intra_op"])
            threading.set_inter_op_parallelism_threads(threads["inter_op"])


class JaxBackend(Backend):
    """JAX: values are immutable, and a step donates its buffers."""

    name = "jax"
    flags = (
        "--xla_gpu_deterministic_ops=true",
        "--xla_gpu_exclude_nondeterministic_ops=true",
    )

    def is_readable(self, variable: Any) -> bool:
        value = getattr(variable, "_value", None)  # Keras 3.12 to 3.15.
        return value is not None and not value.is_deleted()

    def hold(self, value: npt.NDArray[Any]) -> Any:
        import jax
        import jax.numpy as jnp

        if value.nbytes < _LARGE:
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
        """Copy into the buffer that the variable gives up, if it has one.

        Twice as fast as a new buffer, whose pages must be made first. As
        after a training step, the old `variable.value` is gone.
        """
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
        if math.prod(shape) * value.itemsize < _LARGE:
            # Several operations of JAX take longer than one small transfer.
            self.assign(variable, np.full(shape, value, value.dtype))
        else:
            variable.assign(jnp.full(shape, value, value.dtype))

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

    def clear_pending(self, model: Any) -> None:
        # Keras 3.12 to 3.15. Left in place after an error, the next read
        # through a callback would write deleted buffers over the variables.
        model._jax_state = None
        model._jax_state_synced = True

    def enable_determinism(self) -> str | None:
        import jax
        from jax._src import xla_bridge

        flags = os.environ.get("XLA_FLAGS", "")
        if any(flag in flags for flag in self.flags):
            return None
        # jax 0.4 to 0.10; without the probe the flag is set and hoped for.
        probe = getattr(xla_bridge, "backends_are_initialized", None)
        started = bool(probe()) if probe is not None else False
        if not started:
            os.environ["XLA_FLAGS"] = f"{flags} {self.flags[0]}".strip()
            return None
        if jax.default_backend() == "cpu":
            return None
        return (
            "JAX has started, so it no longer reads XLA_FLAGS. Start the "
            f"program with XLA_FLAGS={self.flags[0]} in its environment."
        )

    def is_deterministic(self) -> bool | None:
        import jax

        flags = os.environ.get("XLA_FLAGS", "")
        has_flag = any(flag in flags for flag in self.flags)
        return has_flag or jax.default_backend() == "cpu"


def _list_jax_state(model: Any) -> dict[str, list[Any]]:
    """The variables of a model in the order in which Keras hands them on."""
    optimizer = getattr(model, "optimizer", None)
    return {
        "trainable_variables": model.trainable_variables,
        "non_trainable_variables": model.non_trainable_variables,
        "optimizer_variables": [] if optimizer is None else optimizer.variables,
        "metrics_variables": model.metrics_variables,
    }


def _join_floats(variables: list[Any]) -> Callable[[], Any]:
    """Make a function that reads many small variables as one tensor.

    One compiled call takes a quarter of the time of a call for each.
    """
    import tensorflow as tf

    def join() -> Any:
        return tf.concat([tf.reshape(one, [-1]) for one in variables], 0)

    compiled: Callable[[], Any]
    try:
        compiled = tf.function(join, jit_compile=True).get_concrete_function()
        compiled()
    except (tf.errors.OpError, ValueError):  # A build without XLA.
        compiled = tf.function(join).get_concrete_function()
    return compiled


@functools.cache
def _jax_copy_over() -> Any:
    import jax
    import jax.numpy as jnp

    return jax.jit(
        lambda source, target: jnp.copy(source),  # noqa: ARG005 - donated
        donate_argnums=1,
        keep_unused=True,
    )


class TorchBackend(Backend):
    """PyTorch: variables are parameters, copied into."""

    name = "torch"

    def assign(self, variable: Any, value: npt.NDArray[Any]) -> None:
        import torch

        if value.dtype.kind in "biuf" and value.dtype.isnative:
            target = variable.value
            with torch.no_grad():
                host = torch.from_numpy(np.ascontiguousarray(value))
                target.copy_(host.reshape(target.shape))
        else:
            variable.assign(value)

    def fill(self, variable: Any, value: npt.NDArray[Any]) -> None:
        import torch

        with torch.no_grad():
            variable.value.fill_(value.item())

    def enable_determinism(self) -> str | None:
        import torch

        setting = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False
        late = torch.cuda.is_available() and torch.cuda.is_initialized()
        if late and setting not in (":4096:8", ":16:8"):
            return (
                "CUDA has started, so CUBLAS_WORKSPACE_CONFIG comes too late. "
                "Start the program with CUBLAS_WORKSPACE_CONFIG=:4096:8 in "
                "its environment."
            )
        return None

    def is_deterministic(self) -> bool | None:
        import torch

        return bool(torch.are_deterministic_algorithms_enabled())

    def read_threads(self) -> dict[str, int]:
        import torch

        return {"intra_op": torch.get_num_threads()}

    def set_threads(self, threads: dict[str, int]) -> None:
        import torch

        if threads != self.read_threads():
            torch.set_num_threads(threads["intra_op"])


_LARGE = 2**20
# Keras 3.12 to 3.15 sets this at each training step on JAX, to a dict of the
# arrays. To look for layers and variables in it, of which it holds none,
# takes a fifth of the step of a small network.
UNTRACKED = frozenset({"_jax_state"})
_BACKENDS: dict[str, type[Backend]] = {
    "tensorflow": TensorFlowBackend,
    "jax": JaxBackend,
    "torch": TorchBackend,
}


def get_backend() -> Backend:
    """The backend that Keras runs on in this process."""
    return _BACKENDS.get(keras.backend.backend(), Backend)()


def copy_generator_state(generator: Any) -> tuple[str, Any] | None:
    """State of a generator object that somebody keeps, or `None`.

    Knows `random.Random`, NumPy's `Generator` and `RandomState`,
    `torch.Generator` and Keras' `SeedGenerator`.
    """
    if isinstance(generator, random.Random):
        return "python", generator.getstate()
    if isinstance(generator, np.random.Generator):
        return "numpy", copy.deepcopy(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return "numpy_legacy", generator.get_state()
    if isinstance(generator, keras.random.SeedGenerator):
        return "keras", np.array(generator.state)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(generator, torch.Generator):
        return "torch", generator.get_state().clone()
    return None


def put_generator_state(generator: Any, state: tuple[str, Any]) -> None:
    """Write what `copy_generator_state` gave back into the same object."""
    kind, value = state
    if kind == "python":
        generator.setstate(value)
    elif kind == "numpy":
        generator.bit_generator.state = copy.deepcopy(value)
    elif kind == "keras":
        get_backend().assign(generator.state, value)
    else:
        generator.set_state(value)
