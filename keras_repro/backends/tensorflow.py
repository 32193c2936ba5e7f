"""TensorFlow: variables, the eager seed, stateful kernels, `tf.data`."""

from __future__ import annotations

import inspect
import itertools
import random
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import (
    checksum_array,
    combine_checksums,
    find_replicas,
    view_variable,
)
from keras_repro.backends.protocol import LARGE, Backend, is_one_for_all
from keras_repro.common.generators import is_python_state, is_whole


def serialize_pipeline(dataset: Any) -> bytes:
    """The graph of a `tf.data` pipeline, from which it can be made anew."""
    # Private in TensorFlow 2.16 to 2.21; where it fails (captured variables,
    # more than 2 GB of tensors) the pipeline cannot be rewound.
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


class PipelineGraph(NamedTuple):
    """The graph of a pipeline, read once for all that is asked of it."""

    nodes: list[Any]  # The ops.
    functions: dict[str, Any]  # By name.

    @classmethod
    def parse(cls, graph: bytes) -> PipelineGraph:
        """Read what `serialize_pipeline` wrote."""
        import tensorflow as tf

        parsed = tf.compat.v1.GraphDef.FromString(graph)
        functions = parsed.library.function
        return cls(
            list(parsed.node), {one.signature.name: one for one in functions}
        )

    @property
    def inner(self) -> list[Any]:
        """The ops of its functions."""
        return [op for one in self.functions.values() for op in one.node_def]


def is_fixed_pipeline(graph: PipelineGraph) -> bool:
    """Whether no op of a pipeline keeps anything from one pass to the next."""
    return not any(list_moving_ops(graph))


def list_moving_ops(graph: PipelineGraph) -> tuple[list[str], list[str]]:
    """The ops of a pipeline, and of its functions, that keep something."""
    # By TensorFlow's private registry of ops (2.16 to 2.21), which calls the
    # sources of pipelines stateful too.
    from tensorflow.python.framework import op_def_registry

    ops = [node.op for node in graph.nodes]
    inner = [node.op for node in graph.inner]
    asked = {*ops, *inner} - {*_KEEP_NOTHING, *graph.functions}
    found = {op: op_def_registry.get(op) for op in asked}
    moving = {op for op, one in found.items() if one is None or one.is_stateful}
    return (
        [op for op in ops if op in moving],
        [op for op in inner if op in moving],
    )


def holds_datasets(graph: PipelineGraph) -> bool:
    """Whether elements of a pipeline are pipelines that were made before it."""
    named = {node.name: node for node in graph.nodes}
    sources = ("TensorDataset", "TensorSliceDataset")
    todo = [
        name
        for node in graph.nodes
        if node.op in sources
        for name in node.input
    ]
    seen: set[str] = set()
    while todo:
        name = todo.pop().lstrip("^").partition(":")[0]
        node = named.get(name)
        if node is None or name in seen:
            continue
        if "Dataset" in node.op:
            return True
        seen.add(name)
        todo.extend(node.input)
    return False


def checksum_structure(graph: PipelineGraph) -> str:
    """Checksum of what a pipeline does, and of the numbers it does it by."""
    # Not of names, which another process chooses otherwise, nor of the values
    # that `checksum_constants` is of.
    texts = sorted(
        _describe_node(node, graph.functions)
        for node in [*graph.nodes, *graph.inner]
    )
    return checksum_array(np.frombuffer("\n".join(texts).encode(), np.uint8))


def _describe_node(node: Any, functions: dict[str, Any]) -> str:
    parts = ["function" if node.op in functions else node.op]
    for name, value in sorted(node.attr.items()):
        is_named = name.startswith("_") or name in _NAMES
        if is_named or value.HasField("func") or value.list.func:
            continue
        tensor = value.tensor
        if (
            tensor.tensor_shape.dim
            or tensor.string_val
            or tensor.dtype == _HANDLE
        ):
            continue
        written = value.SerializeToString(deterministic=True)
        parts.append(f"{name}={written.hex()}")
    return " ".join(parts)


_HANDLE = 20  # The number of `tf.resource`: a place in this process.
_NAMES = frozenset({"container", "metadata", "shared_name", "token"})


def checksum_constants(graph: PipelineGraph) -> str:
    """Checksum of the values in a pipeline: data, and names of files."""
    # Not of single numbers, among which are seeds that TensorFlow drew.
    tensors = [
        node.attr["value"].tensor
        for node in [*graph.nodes, *graph.inner]
        if node.op == "Const"
    ]
    parts = [
        np.frombuffer(one.SerializeToString(deterministic=True), np.uint8)
        for one in tensors
        if one.tensor_shape.dim or one.string_val
    ]
    return combine_checksums(sorted(map(checksum_array, parts)))


def list_python_functions(graph: PipelineGraph) -> list[Any]:
    """The functions of Python that the ops of a pipeline call."""
    # From TensorFlow's private registry of them (2.16 to 2.21); without it
    # what they keep is not rewound.
    from tensorflow.python.ops import script_ops

    registry = getattr(script_ops, "_py_funcs", None)
    found = [
        registry.get(node.attr["token"].s.decode())
        for node in [*graph.nodes, *graph.inner]
        if "token" in node.attr and registry is not None
    ]
    return [function for function in found if function is not None]


_KEEP_NOTHING = frozenset(
    {
        *("RangeDataset", "TensorDataset", "TensorSliceDataset"),
        *("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2"),
        *("TFRecordDataset", "TFRecordDatasetV2", "TextLineDataset"),
        *("Assert", "_Retval"),
    }
)


def restart_pipeline(dataset: Any, graph: bytes, seed: int) -> Any:
    """Make a `tf.data` pipeline anew, standing at its start."""
    # A shuffle keeps the position of its generator in a resource that only its
    # dataset op holds, so the graph is given generators of its own, with the
    # seeds that the pipeline was made with, or from `seed` where it was made
    # without any.
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
            if node.op in STATEFUL_RANDOM_OPS and not (
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


class TensorFlowGenerator:
    """TensorFlow's eager seed: the seed and the stream of op seeds."""

    # Both live in the private context (TensorFlow 2.16 to 2.21). Without them
    # TensorFlow's raw random ops would not be kept apart from the program's.
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

    @staticmethod
    def is_state(state: object) -> bool:
        """Whether `restore` takes it, as JSON holds it."""
        if not isinstance(state, list) or len(state) != 2:
            return False
        seed, stream = state
        # With a seed there is a stream, from which each op draws its own.
        if stream is None:
            return seed is None
        return is_python_state(stream) and (
            seed is None or is_whole(seed, -(2**63), 2**63 - 1)
        )

    def restore(self, state: Any) -> None:
        context = self._context()
        seed, stream = state
        context._seed = seed
        if stream is not None:
            context._rng = random.Random()
            version, numbers, gauss = stream  # Lists, if it was read.
            context._rng.setstate((version, tuple(numbers), gauss))

    def seed(self, seed: int) -> None:
        context = self._context()
        context._seed = seed
        context._rng = random.Random(seed)


def rewind_kernels() -> None:
    """Take TensorFlow's stateful kernels back, also in traced functions."""
    TensorFlowGenerator._context().clear_kernel_cache()


STATEFUL_RANDOM_OPS = frozenset(
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
    """Names of the functions that TensorFlow has traced so far."""
    # From the private context (TensorFlow 2.16 to 2.21); without it stateful
    # random ops inside traced functions are not noticed, nor rewound.
    if "tensorflow" not in sys.modules:
        return frozenset()
    names = getattr(TensorFlowGenerator._context(), "list_function_names", None)
    return frozenset() if names is None else frozenset(names())


class StatefulOp(NamedTuple):
    """A random op of a traced function, whose position its kernel keeps."""

    name: str
    function: str
    is_compiled_by_xla: bool


def find_stateful_random_ops(names: frozenset[str]) -> set[StatefulOp]:
    """Such ops in these traced functions, and in all that they call."""
    found: set[StatefulOp] = set()
    if not names:
        return found
    context = TensorFlowGenerator._context()
    seen: set[tuple[str, bool]] = set()
    todo = [(name, False) for name in names]
    while todo:
        name, is_xla = todo.pop()
        definition = context.get_function_def(name)
        is_xla = is_xla or definition.attr["_XlaMustCompile"].b
        if (name, is_xla) in seen:
            continue
        seen.add((name, is_xla))
        for node in definition.node_def:
            if node.op in STATEFUL_RANDOM_OPS:
                found.add(StatefulOp(node.op, name, is_xla))
            for value in node.attr.values():
                called = [value.func, *value.list.func]
                todo.extend((one.name, is_xla) for one in called if one.name)
    return found


class HeldTensor:
    """A host copy inside TensorFlow, which assigns it without copying."""

    # A variable shares the buffer until the first step writes to it, and
    # TensorFlow copies it then: it never writes to a buffer that is shared.

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
        del copy  # TensorFlow gives a copy in any case.
        values: npt.NDArray[Any] = self.tensor.numpy()
        return values if dtype is None else values.astype(dtype)


class TensorFlowBackend(Backend):
    """TensorFlow: variables are assigned by an op."""

    name = "tensorflow"
    shares_traces = True
    reads_ahead = True

    def hold(self, value: npt.NDArray[Any]) -> Any:
        return HeldTensor(value) if value.nbytes >= LARGE else value

    def assign(self, variable: Any, value: Any) -> None:
        value = value.tensor if isinstance(value, HeldTensor) else value
        replicas = find_replicas(variable)
        if not replicas:
            variable.assign(value)
            return
        # Each for itself: what a strategy assigns it adds up, or divides.
        apart = len(value.shape) > len(variable.shape)
        for number, one in enumerate(replicas):
            one.assign(value[number] if apart else value)

    def view(self, variable: Any) -> npt.NDArray[Any]:
        import tensorflow as tf

        held = variable.value
        if not isinstance(held, tf.Variable) or find_replicas(variable):
            return view_variable(variable)
        # A third of what `read_value` takes outside a function.
        read = tf.raw_ops.ReadVariableOp
        return np.asarray(read(resource=held.handle, dtype=held.dtype))

    def make_viewer(
        self, model: Any, variables: list[Any], *, often: bool = False
    ) -> Callable[[], list[npt.NDArray[Any]]]:
        import tensorflow as tf

        held = [variable.value for variable in variables]
        if (
            not often
            or not all(isinstance(one, tf.Variable) for one in held)
            or any(map(find_replicas, variables))
        ):
            return super().make_viewer(model, variables)
        joined = [
            i
            for i, one in enumerate(held)
            if one.dtype == tf.float32 and one.shape.num_elements() < LARGE
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

        self.assign(variable, tf.fill(variable.shape, tf.constant(value)))

    def assign_all(self, pairs: list[tuple[Any, Any]]) -> None:
        import tensorflow as tf

        filled: dict[Any, Any] = {}
        for variable, value in pairs:
            if isinstance(value, HeldTensor):
                tensor = value.tensor
            elif is_one_for_all(variable, value):
                # Variables share it until a step writes to them.
                key = variable.shape, value.dtype.name, value.tobytes()
                if key not in filled:
                    filled[key] = tf.fill(variable.shape, tf.constant(value))
                tensor = filled[key]
            else:
                tensor = tf.constant(value)
            held = variable.value
            # Not one that a strategy keeps on several devices.
            if type(held).__name__ == "ResourceVariable":
                # A third of what `assign` takes outside a function.
                write = tf.raw_ops.AssignVariableOp
                write(resource=held.handle, value=tensor)
            else:
                self.assign(variable, tensor)

    def enable_determinism(self) -> str | None:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        return None

    def outside_traces(self) -> AbstractContextManager[None]:
        import tensorflow as tf

        # The replicas of a strategy make their variables together.
        if tf.distribute.has_strategy():
            return nullcontext()
        scope: AbstractContextManager[None] = tf.init_scope()
        return scope

    def describe_layout(self, model: Any) -> dict[str, Any] | None:
        # Private in Keras 3.12 to 3.15: set where one was chosen.
        strategy = getattr(model, "_distribute_strategy", None)
        if strategy is None:
            return super().describe_layout(model)
        return {
            "kind": type(strategy).__name__,
            "devices": list(strategy.extended.worker_devices),
        }

    def scope(self, model: Any) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = model.distribute_strategy.scope()
        return scope

    def is_initialized(self, variable: Any) -> bool:
        # Keras 3.12 to 3.15: `None` until a trace is left, and `value` is then
        # what would be drawn.
        value = getattr(variable, "_value", None)
        return value is not None and bool(value.is_initialized())

    def is_replica(self) -> bool:
        import tensorflow as tf

        distribute = tf.distribute
        return bool(
            distribute.has_strategy()
            and not distribute.in_cross_replica_context()
        )

    def is_tracing(self, values: Any) -> bool:  # noqa: ARG002
        import tensorflow as tf

        return not tf.executing_eagerly()

    def trace_step(
        self, model: Any, function: Any, args: tuple[Any, ...]
    ) -> Callable[[], tuple[Any, ...]] | None:
        import tensorflow as tf

        (data,) = args
        if hasattr(function, "get_concrete_function"):
            function.get_concrete_function(data)
            return None
        # What Keras 3.12 to 3.15 compiles lies within the function that it
        # makes. Where it does not, the step runs and is looked at.
        inner = inspect.getclosurevars(function).nonlocals
        by_iterator: Any = inner.get("multi_step_on_iterator")
        by_batch: Any = inner.get("one_step_on_data")
        is_iterator = isinstance(
            data, (tf.data.Iterator, tf.distribute.DistributedIterator)
        )
        if is_iterator and hasattr(by_iterator, "get_concrete_function"):
            by_iterator.get_concrete_function(data)
            return None
        if isinstance(data, tf.distribute.DistributedIterator) or (
            "predict" in getattr(function, "__qualname__", "")
        ):
            return lambda: args
        batches = list(
            itertools.islice(data, getattr(model, "steps_per_execution", 1))
        )
        if not batches:
            raise StopIteration
        compiled: Any = None if by_batch is None else inspect.unwrap(by_batch)
        if hasattr(compiled, "get_concrete_function"):
            compiled.get_concrete_function(batches[0])
        return lambda: (iter(batches),)

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


def _join_floats(variables: list[Any]) -> Callable[[], Any]:
    """Make a function that reads many small variables as one tensor."""
    # One compiled call takes a quarter of the time of a call for each.
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
