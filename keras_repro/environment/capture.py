"""Versions, hardware and switches: what else changes the bits of a run."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_repro.common.checks import check_flag
from keras_repro.environment.determinism import (
    has_jax_started,
    is_deterministic,
)

# What is known to change results, or which kernels run: always recorded.
_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "HIP_VISIBLE_DEVICES",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "JAX_THREEFRY_PARTITIONABLE",
    "KERAS_BACKEND",
    "LIBTPU_INIT_ARGS",
    "MKL_CBWR",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "PYTHONHASHSEED",
    "TF_CUDNN_DETERMINISTIC",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)
THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPROC",  # Read by XLA on a CPU (jax 0.10): another number, other sums.
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Of other names that begin so, the plain switches are recorded.
_PREFIXES = (
    *("CUBLAS_", "CUDA_", "CUDNN_", "DNNL_", "JAX_", "KERAS_", "KMP_"),
    *("MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_"),
    *("TF_", "TORCH_", "XLA_"),
)
# How much is logged changes no result. Terraform's variables begin with TF_
# too, and some of them hold credentials.
_NOT_RECORDED = re.compile(
    "TF_(CPP_M|VAR_|CLI_|LOG|REATTACH)|NVIDIA_(VISIBLE|DRIVER)|.*(TOKEN|SECRET"
    "|PASS|CREDENTIAL|AUTH|LOGIN|USER|HOST|_PORT|_PIN$|_P?KEY|_[PUG]?ID$)"
)
# Three parts at most, so that no address of a machine looks like a number.
_NUMBER = re.compile(r"[-+]?\d{1,12}(\.\d{1,9}){0,2}")
_VOCABULARY = """
    true false on off yes no none null default auto all void random strict
    disabled enabled active passive static dynamic guided close spread master
    compact scatter balanced granularity fine core thread respect norespect
    verbose noverbose warnings nowarnings fusible compatible pci_bus_id
    tensorflow jax torch numpy openvino cpu gpu cuda rocm tpu metal mps xpu
    highest high medium float64 float32 float16 bfloat16 tensorfloat32 tf32
    bf16 f16 f32 bf16_3x tf32_3x threefry2x32 rbg unsafe_rbg
    sse2 sse41 sse42 sse4_1 sse4_2 avx avx2 avx512 avx512f avx512cd avx512bw
    avx512dq avx512vl avx512_skx avx512_core avx512_core_vnni avx512_core_bf16
    avx512_core_fp16 avx512_core_amx avx2_vnni avx_vnni avx10_1 amx amx_fp16
    fma fma3 f16c neon asimd sve sve2 sve_256 x86_v2 x86_v3 x86_v4 avx512_icl
    avx512_spr nehalem sandybridge haswell zen skylakex cooperlake
    sapphirerapids armv8 neoversen1 neoversev1
"""
_WORDS = frozenset(_VOCABULARY.split())
# What the flags of XLA that may change results are called, part by part.
_FLAG_VOCABULARY = """
    xla tf cpu gpu tpu backend host platform device devices count size level
    deterministic nondeterministic exclude ops allow excess precision disable
    enable use force max min isa prefer vector width multi thread threads eigen
    fast math honor nans infs division functions onednn mkl dnn thunk runtime
    optimization optimized concurrency scheduler latency hiding parallel codegen
    split autotune hlo passes all except extra options triton gemm any softmax
    fusion fusions cublas cublaslt cudnn fmha command buffer graph ftz strict
    conv algorithm picker nchw nhwc layer norm fallback reduce gather combine
    threshold bytes mb rewrite dot merger reduction async collectives collective
    auto jit global lazy compilation cluster clustering names fuel dump to cache
    persistent directory dir cuda data path unsafe llvm
"""
_FLAG_PARTS = frozenset(_FLAG_VOCABULARY.split())
_INSTRUCTIONS = re.compile(
    "sse4_2|avx|avx2|fma|f16c|avx_vnni|avx10.*|avx512.*|amx.*|asimd|sve.*"
    "|x86_v[234]|neon"
)
_BACKENDS = ("tensorflow", "jax", "torch")


def capture_environment(*, private: bool = False) -> dict[str, Any]:
    """Capture what a run's bits depend on beside the program and its seed.

    Args:
        private: Also record the names of the user and the machine, the working
            directory and the path of the interpreter.

    Returns:
        A dict that JSON can hold: versions, processor, threads, switches, the
        state of the git tree, and the environment variables that change
        results. `docs/environment.md` describes each key.

    Raises:
        TypeError: If `private` is neither True nor False.

    Scope:
        This process, now. Names of the user and the machine, paths and secrets
        are left out unless asked for; what may be one is written `...`. No
        framework is imported and none started for it: what is not in use yet,
        such as a backend that Keras has not loaded, is `None`. Hardware,
        installed versions and git are asked once per process.

    Example:
        >>> environment = capture_environment()
        >>> sorted(environment["versions"])[:2]
        ['h5py', 'jax']
        >>> "user" in environment, "user" in capture_environment(private=True)
        (False, True)
    """
    private = check_flag("private", private)
    backend = _active_backend()
    devices = _devices(backend)
    result = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "hash_randomization": bool(sys.flags.hash_randomization),
        "hash_seed": _hash_seed(),
        "os": platform.system(),
        "os_release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": list(_instructions()),
        "cores": os.cpu_count(),
        "usable_cores": count_usable_cores(),
        "versions": _versions(backend),
        "backend": backend,
        "devices": devices,
        "gpu": _gpu(backend, devices),
        "threads": _threads(backend),
        "blas": {"numpy": _numpy_blas(), "torch": _torch_mkl()},
        "onednn": _onednn(backend),
        "dtype_policy": _keras_setting("dtype_policy"),
        "floatx": _keras_setting("floatx"),
        "tf32": _tf32(backend),
        "matmul_precision": _matmul_precision(backend),
        "jit": _jit(backend),
        "jax": _jax_settings(backend),
        "deterministic": _is_deterministic(backend),
        "environment_variables": _environment_variables(),
        "git": _git(),
    }
    return {**result, **_private()} if private else result


# --- Python, Keras and versions ------------------------------------------


def _loaded_keras() -> Any:
    """Keras if the program has imported it, and imported it whole."""
    keras = sys.modules.get("keras")
    return keras if hasattr(keras, "backend") else None


def _active_backend() -> str | None:
    keras = _loaded_keras()
    return None if keras is None else str(keras.backend.backend())


def _loaded(backend: str | None, name: str) -> Any:
    """The framework `name` if Keras runs on it."""
    return sys.modules.get(name) if backend == name else None


def _versions(backend: str | None) -> dict[str, str | None]:
    names = ["keras", "numpy", "h5py", *_BACKENDS]
    if backend == "jax":
        names.append("jaxlib")
    idle = {name for name in _BACKENDS if name not in sys.modules}
    # TensorFlow serves `tf.data` under the other backends too, once loaded.
    return {name: None if name in idle else _version(name) for name in names}


def _version(name: str) -> str | None:
    loaded = getattr(sys.modules.get(name), "__version__", None)
    return _installed_version(name) if loaded is None else str(loaded)


@functools.cache
def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hash_seed() -> str | None:
    """The seed of Python's string hashes; `None` if each process draws one."""
    if not sys.flags.hash_randomization:
        return "0"
    if sys.flags.ignore_environment:
        return None
    value = os.environ.get("PYTHONHASHSEED")
    if _loaded_keras() is not None:
        value = hash_seed_at_start()
    return value if value is not None and _NUMBER.fullmatch(value) else None


@functools.cache
def hash_seed_at_start() -> str | None:
    """`PYTHONHASHSEED` as the interpreter read it, where that can be seen."""
    try:
        started_with = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return os.environ.get("PYTHONHASHSEED") or None
    for line in started_with:
        name, _, value = line.partition(b"=")
        if name == b"PYTHONHASHSEED":
            return value.decode() or None
    return None


def _keras_setting(name: str) -> str | None:
    keras = _loaded_keras()
    if keras is None:
        return None
    value = getattr(keras.config, name)()
    return str(getattr(value, "name", value))


# --- processor and threads -----------------------------------------------


@functools.cache
def _processor() -> str:
    """The processor's model, as the system calls it."""
    model = _processor_entries("model name")
    return model[0] if model else platform.processor() or platform.machine()


@functools.cache
def _instructions() -> tuple[str, ...]:
    """The vector instructions that numerical libraries choose kernels by."""
    found = " ".join(_processor_entries("flags", "features")).split()
    return tuple(sorted(filter(_INSTRUCTIONS.fullmatch, found or _simd())))


def _processor_entries(*names: str) -> list[str]:
    """What Linux says of the first processor under one of these names."""
    source = Path("/proc/cpuinfo")
    if not source.is_file():
        return []
    text = source.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in names:
            return [value.strip()]
    return []


def _simd() -> list[str]:
    """Where the system does not tell: what NumPy found."""
    simd = _numpy_config("SIMD Extensions")
    return [
        name.lower()
        for key in ("baseline", "found")
        for name in simd.get(key, ())
    ]


def count_usable_cores() -> int | None:
    """How many cores this process may use; `None` where nobody knows."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _threads(backend: str | None) -> dict[str, Any]:
    result: dict[str, Any] = _read_variables(THREAD_VARIABLES)
    if tensorflow := _loaded(backend, "tensorflow"):
        threading = tensorflow.config.threading
        result["intra_op"] = threading.get_intra_op_parallelism_threads()
        result["inter_op"] = threading.get_inter_op_parallelism_threads()
    if torch := _loaded(backend, "torch"):
        result["intra_op"] = torch.get_num_threads()
        result["inter_op"] = torch.get_num_interop_threads()
    return result


# --- GPUs ----------------------------------------------------------------


def _devices(backend: str | None) -> list[str] | None:
    """Accelerators by their model; `None` where asking would start one."""
    if tensorflow := _loaded(backend, "tensorflow"):
        details = tensorflow.config.experimental.get_device_details
        gpus = tensorflow.config.list_physical_devices("GPU")
        return [str(details(gpu).get("device_name", "GPU")) for gpu in gpus]
    if torch := _loaded(backend, "torch"):
        return _torch_devices(torch)
    if backend == "jax" and has_jax_started():
        devices = sys.modules["jax"].devices()
        return [str(d.device_kind) for d in devices if d.platform != "cpu"]
    return None


def _torch_devices(torch: Any) -> list[str] | None:
    count = torch.cuda.device_count()
    if count and not torch.cuda.is_initialized():
        return None  # The name of a device would start CUDA.
    if not count and torch.backends.mps.is_available():
        return ["mps"]
    return [str(torch.cuda.get_device_name(i)) for i in range(count)]


def _gpu(backend: str | None, devices: list[str] | None) -> dict[str, Any]:
    """Driver, CUDA and cuDNN in use; `None` each where no GPU is in use."""
    cuda = cudnn = None
    if not devices:
        return {"driver": None, "cuda": None, "cudnn": None}
    if tensorflow := _loaded(backend, "tensorflow"):
        build = tensorflow.sysconfig.get_build_info()
        cuda, cudnn = build.get("cuda_version"), build.get("cudnn_version")
    if torch := _loaded(backend, "torch"):
        cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    if jax := _loaded(backend, "jax"):
        client = jax.devices()[0].client
        cuda = _search(r"cuda (\d+)", str(client.platform_version))
        cudnn = next(filter(None, map(_installed_version, _CUDNN_WHEELS)), None)
    return {"driver": _driver(), "cuda": _text(cuda), "cudnn": _text(cudnn)}


_CUDNN_WHEELS = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")


@functools.cache
def _driver() -> str | None:
    """The version of NVIDIA's driver."""
    source = Path("/proc/driver/nvidia/version")
    try:
        text = source.read_text(encoding="utf-8", errors="replace")
    except OSError:
        query = ("--query-gpu=driver_version", "--format=csv,noheader")
        text = _run("nvidia-smi", *query) or ""
    return _search(r"(?:^|Kernel Module(?: for \S+)?\s+)(\d[\d.]+)", text)


# --- libraries and modes -------------------------------------------------

_MKL = r"Math Kernel Library Version (\S+?)-Product"
_ONEDNN = r"MKL-DNN v([\d.]+)"
# What makes TensorFlow 2.18 to 2.21 turn oneDNN on by itself, under Linux.
_ONEDNN_DEFAULTS = {
    *("avx512_vnni", "avx512_bf16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16"),
}


@functools.cache
def _numpy_config(section: str) -> Mapping[str, Any]:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    found = config.get(section, {})
    return found if isinstance(found, Mapping) else {}


@functools.cache
def _numpy_blas() -> str | None:
    blas = _numpy_config("Build Dependencies").get("blas", {})
    name, version = blas.get("name"), blas.get("version")
    return f"{name} {version}" if name else None


def _torch_build(pattern: str) -> str | None:
    """The version of a library that PyTorch, if loaded, was built with."""
    return None if "torch" not in sys.modules else _search_torch(pattern)


@functools.cache
def _search_torch(pattern: str) -> str | None:
    config = getattr(sys.modules["torch"], "__config__", None)
    return None if config is None else _search(pattern, config.show())


def _torch_mkl() -> str | None:
    version = _torch_build(_MKL)
    return None if version is None else f"MKL {version}"


def _onednn(backend: str | None) -> dict[str, Any]:
    if torch := _loaded(backend, "torch"):
        mkldnn = torch.backends.mkldnn
        enabled = bool(mkldnn.is_available() and mkldnn.enabled)
        return {"enabled": enabled, "version": _torch_build(_ONEDNN)}
    used = _tensorflow_onednn() if backend == "tensorflow" else None
    return {"enabled": used, "version": None}


def _tensorflow_onednn() -> bool | None:
    """Whether TensorFlow uses oneDNN; `None` where its default is unknown."""
    value = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower()
    if value in ("1", "true", "0", "false"):
        return value in ("1", "true")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    return not _ONEDNN_DEFAULTS.isdisjoint(_instructions())


def _tf32(backend: str | None) -> dict[str, bool | None]:
    """Whether float32 products on a GPU may be rounded to TF32."""
    matmul = convolution = None
    if tensorflow := _loaded(backend, "tensorflow"):
        config = tensorflow.config.experimental
        matmul = convolution = config.tensor_float_32_execution_enabled()
    if torch := _loaded(backend, "torch"):
        matmul = _torch_tf32(torch.backends.cuda.matmul)
        # PyTorch before 2.9 has no `conv`.
        cudnn = torch.backends.cudnn
        convolution = _torch_tf32(getattr(cudnn, "conv", cudnn))
    return {"matmul": matmul, "convolution": convolution}


def _torch_tf32(part: Any) -> bool:
    # The older name raises once the newer one was used.
    precision = getattr(part, "fp32_precision", None)
    return bool(part.allow_tf32) if precision is None else precision == "tf32"


def _matmul_precision(backend: str | None) -> str | None:
    """The precision of float32 products, as the backend calls it."""
    if jax := _loaded(backend, "jax"):
        return _text(jax.config.jax_default_matmul_precision)
    if torch := _loaded(backend, "torch"):
        try:
            return str(torch.get_float32_matmul_precision())
        except RuntimeError:  # It was set by its newer name, per library.
            return None
    return None


def _jit(backend: str | None) -> bool | None:
    """Whether the backend compiles of its own accord."""
    if tensorflow := _loaded(backend, "tensorflow"):
        return bool(tensorflow.config.optimizer.get_jit())
    if jax := _loaded(backend, "jax"):
        return not jax.config.jax_disable_jit
    return None


def _jax_settings(backend: str | None) -> dict[str, Any] | None:
    jax = _loaded(backend, "jax")
    if jax is None:
        return None
    names = ("enable_x64", "default_prng_impl", "threefry_partitionable")
    return {name: getattr(jax.config, f"jax_{name}", None) for name in names}


def _is_deterministic(backend: str | None) -> bool | None:
    if backend is None or (backend == "jax" and not has_jax_started()):
        return None
    return is_deterministic(backend)


# --- environment variables -----------------------------------------------


def _environment_variables() -> dict[str, str]:
    others = [
        name
        for name in sorted(os.environ)
        if name.startswith(_PREFIXES) and _is_plain_switch(name)
    ]
    return _read_variables((*_VARIABLES, *others))


def _is_plain_switch(name: str) -> bool:
    """Whether neither its name nor its value can hold a secret."""
    if name in THREAD_VARIABLES or _NOT_RECORDED.match(name):
        return False
    return name.isupper() and "..." not in _without_secrets(os.environ[name])


def _read_variables(names: tuple[str, ...]) -> dict[str, str]:
    return {
        name: _without_secrets(os.environ[name])
        for name in names
        if name in os.environ
    }


def _without_secrets(value: str) -> str:
    """Keep numbers, known words and known flags; cut the rest."""
    parts = re.split(r"([\s,:;=]+)", value)
    parts[::2] = [part if _is_plain(part) else "..." for part in parts[::2]]
    return "".join(parts)


def _is_plain(part: str) -> bool:
    return (
        part.lower() in _WORDS
        or not part
        or _NUMBER.fullmatch(part) is not None
        or _is_known_flag(part)
    )


def _is_known_flag(part: str) -> bool:
    name = part.lstrip("-")
    return name != part and _FLAG_PARTS.issuperset(name.split("_"))


# --- git, and what is private --------------------------------------------


def _git() -> dict[str, Any] | None:
    """Commit of the program, and whether tracked files were changed."""
    directory = _program_directory()
    return None if directory is None else _ask_git(directory)


def _program_directory() -> str | None:
    """Where the running script lies, or else the current directory."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None and not _is_installed(script):
        return str(Path(script).resolve().parent)
    return _working_directory()


def _working_directory() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # It was removed.
        return None


@functools.cache
def _is_installed(script: str) -> bool:
    """Whether it is a tool such as pytest or Jupyter, not the program."""
    path = Path(script).resolve()
    names = ("stdlib", "purelib", "platlib", "scripts")
    homes = [Path(sysconfig.get_path(name)).resolve() for name in names]
    return any(home in path.parents for home in homes)


@functools.cache
def _ask_git(directory: str) -> dict[str, Any] | None:
    text = _run(
        *("git", "-C", directory, "-c", "core.fsmonitor=false"),
        *("status", "--porcelain=v2", "--branch", "--untracked-files=no"),
    )
    commit = _search(r"^# branch\.oid ([0-9a-f]+)$", text or "")
    if text is None or commit is None:
        return None
    dirty = any(not line.startswith("#") for line in text.splitlines())
    return {"commit": commit, "dirty": dirty}


def _run(*command: str) -> str | None:
    """What a command prints; `None` if it is absent, fails or hangs."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            timeout=2,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _private() -> dict[str, Any]:
    import getpass

    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # A container without users.
        user = None
    return {
        "user": user,
        "host": platform.node(),
        "cwd": _working_directory(),
        "executable": sys.executable,
    }


def _search(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return None if found is None else found[1]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
