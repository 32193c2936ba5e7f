"""Versions, hardware and switches: what else changes the bits of a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

# What is known to change results, or which kernels run.
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "JAX_THREEFRY_PARTITIONABLE",
    "KERAS_BACKEND",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONHASHSEED",
    "TF_CUDNN_DETERMINISTIC",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)
_THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_BACKENDS = ("tensorflow", "jax", "torch")


def capture_environment() -> dict[str, Any]:
    """Capture what a run's bits depend on beside the program and its seed.

    Returns:
        A dict that JSON can hold: versions, processor, threads, switches, and
        the environment variables that change results.

    Scope:
        This process, now. Names of the user and the machine, and paths, are
        left out. No framework is imported for it: what is not in use yet, such
        as a backend that Keras has not loaded, is `None`.

    Example:
        >>> sorted(capture_environment()["versions"])[:2]
        ['h5py', 'jax']
    """
    backend = _active_backend()
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "os": platform.system(),
        "os_release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "versions": _versions(backend),
        "backend": backend,
        "devices": _devices(backend),
        "threads": _threads(backend),
        "dtype_policy": _keras_setting("dtype_policy"),
        "floatx": _keras_setting("floatx"),
        "deterministic": _is_deterministic(),
        "environment_variables": _read_variables(_VARIABLES),
    }


def _loaded_keras() -> Any:
    """Keras if the program has imported it, and imported it whole."""
    keras = sys.modules.get("keras")
    return keras if hasattr(keras, "backend") else None


def _active_backend() -> str | None:
    keras = _loaded_keras()
    return None if keras is None else str(keras.backend.backend())


def _versions(backend: str | None) -> dict[str, str | None]:
    names = ["keras", "numpy", "h5py", *_BACKENDS]
    if backend == "jax":
        names.append("jaxlib")
    idle = {name for name in _BACKENDS if name not in sys.modules}
    # TensorFlow serves `tf.data` under the other backends too, once loaded.
    return {name: None if name in idle else _version(name) for name in names}


def _version(name: str) -> str | None:
    loaded = getattr(sys.modules.get(name), "__version__", None)
    if loaded is not None:
        return str(loaded)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's model, as the system calls it."""
    source = Path("/proc/cpuinfo")
    if source.is_file():
        text = source.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _threads(backend: str | None) -> dict[str, Any]:
    result: dict[str, Any] = _read_variables(_THREAD_VARIABLES)
    tensorflow, torch = map(sys.modules.get, ("tensorflow", "torch"))
    if backend == "tensorflow" and tensorflow is not None:
        threading = tensorflow.config.threading
        result["intra_op"] = threading.get_intra_op_parallelism_threads()
        result["inter_op"] = threading.get_inter_op_parallelism_threads()
    if backend == "torch" and torch is not None:
        result["intra_op"] = torch.get_num_threads()
        result["inter_op"] = torch.get_num_interop_threads()
    return result


def _devices(backend: str | None) -> list[str] | None:
    """Accelerators by their model; `None` where asking would start one."""
    tensorflow, torch = map(sys.modules.get, ("tensorflow", "torch"))
    if backend == "tensorflow" and tensorflow is not None:
        details = tensorflow.config.experimental.get_device_details
        gpus = tensorflow.config.list_physical_devices("GPU")
        return [str(details(gpu).get("device_name", "GPU")) for gpu in gpus]
    if backend == "torch" and torch is not None:
        count = torch.cuda.device_count()
        return [str(torch.cuda.get_device_name(i)) for i in range(count)]
    if backend == "jax" and _jax_has_started():
        devices = sys.modules["jax"].devices()
        return [str(device.device_kind) for device in devices]
    return None


def _jax_has_started() -> bool:
    # Private to JAX (0.5 to 0.10). Without it JAX's devices are not listed:
    # asking for them would start its backend and fix XLA_FLAGS.
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", None)
    return started is not None and bool(started())


def _keras_setting(name: str) -> str | None:
    keras = _loaded_keras()
    if keras is None:
        return None
    value = getattr(keras.config, name)()
    return str(getattr(value, "name", value))


def _is_deterministic() -> bool | None:
    if _loaded_keras() is None:
        return None
    from keras_repro import _backends

    return _backends.get_backend().is_deterministic()


def _read_variables(names: tuple[str, ...]) -> dict[str, str]:
    return {
        name: _without_paths(os.environ[name])
        for name in names
        if name in os.environ
    }


def _without_paths(value: str) -> str:
    """Leave out flags such as `--xla_dump_to=/home/me/dump`."""
    return " ".join(
        word if "/" not in word and "\\" not in word else _cut(word)
        for word in value.split(" ")
    )


def _cut(word: str) -> str:
    flag, separator, _ = word.partition("=")
    return f"{flag}=..." if separator and "/" not in flag else "..."
