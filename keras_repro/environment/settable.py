"""What a recorded environment may set in a new process.

A run's file may come from anybody, and an environment variable can make a
process load code, read a file or write one. So a value that stands in a file
is set only if its name is listed here and the value is one that this switch
can have.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from keras_repro.common.checks import MAX_SEED
from keras_repro.environment.capture import THREAD_VARIABLES
from keras_repro.environment.determinism import is_switch, is_workspace

_MOST_THREADS = 1024
_MOST_DEVICES = 64

_Check = Callable[[str], bool]


def is_settable(name: object, value: object) -> bool:
    """Whether to set it, or with `None` to unset it, runs and reads nothing."""
    check = _CHECKS.get(name) if isinstance(name, str) else None
    if check is None:
        return False
    return value is None or (isinstance(value, str) and check(value))


# --- kinds of value ----------------------------------------------------------


def _pattern(text: str) -> _Check:
    compiled = re.compile(text, re.ASCII)
    return lambda value: compiled.fullmatch(value) is not None


def _one_of(text: str) -> _Check:
    words = frozenset(text.split())
    return lambda value: value.lower() in words


def _whole(lowest: int, highest: int) -> _Check:
    is_number = _pattern(r"\d{1,10}")
    return lambda value: is_number(value) and lowest <= int(value) <= highest


def _list_of(check: _Check, *, longest: int = 32) -> _Check:
    def check_all(value: str) -> bool:
        words = value.split(",")
        return len(words) <= longest and all(map(check, words))

    return check_all


def _flags(known: dict[str, _Check]) -> _Check:
    """Each flag by itself; XLA takes what is none for the name of a file."""
    is_flag = _pattern(r"--\w+(=[\w.+-]*)?")

    def check_flags(value: str) -> bool:
        words = value.split(" ")
        parts = [word.partition("=") for word in words if word]
        return all(is_flag(word) for word in words if word) and all(
            name in known and (known[name](given) if equals else True)
            for name, equals, given in parts
        )

    return check_flags


_THREADS = _whole(0, _MOST_THREADS)
_FEATURES = _pattern(r"[A-Z0-9_]{1,24}([ ,]{1,2}[A-Z0-9_]{1,24}){0,63}")
_ISA = _one_of(
    "default all sse41 avx avx2 avx2_vnni avx2_vnni_2 avx512_core "
    "avx512_core_vnni avx512_core_bf16 avx512_core_fp16 avx512_core_amx "
    "avx512_core_amx_fp16 avx10_1_512 avx10_1_512_amx avx10_1_512_amx_fp16"
)

# --- the lists ---------------------------------------------------------------

_XLA_FLAGS = {
    f"--xla_{name}": check
    for names, check in (
        (
            "cpu_multi_thread_eigen cpu_enable_fast_math cpu_use_onednn "
            "cpu_enable_fast_min_max cpu_fast_math_honor_nans "
            "cpu_fast_math_honor_infs cpu_fast_math_honor_division "
            "cpu_fast_math_honor_functions cpu_use_thunk_runtime "
            "cpu_enable_concurrency_optimized_scheduler cpu_use_mkl_dnn "
            "cpu_strict_dot_conv_math gpu_deterministic_ops gpu_ftz "
            "gpu_exclude_nondeterministic_ops gpu_enable_fast_min_max "
            "gpu_enable_triton_gemm gpu_triton_gemm_any "
            "gpu_enable_cublaslt gpu_enable_latency_hiding_scheduler "
            "allow_excess_precision gpu_strict_conv_algorithm_picker",
            is_switch,
        ),
        ("force_host_platform_device_count", _whole(1, _MOST_DEVICES)),
        ("backend_optimization_level gpu_autotune_level", _whole(0, 5)),
        ("cpu_prefer_vector_width", _one_of("64 128 256 512")),
        ("cpu_parallel_codegen_split_count", _whole(1, _MOST_THREADS)),
        (
            "cpu_max_isa",
            _one_of(
                "sse4_2 avx avx2 avx512 avx512_vnni avx512_bf16 amx "
                "amx_fp16 neon sve"
            ),
        ),
    )
    for name in names.split()
}
_TF_XLA_FLAGS = {
    "--tf_xla_auto_jit": _one_of("-1 0 1 2 fusible"),
    "--tf_xla_cpu_global_jit": is_switch,
}
_CHECKS: dict[str, _Check] = {
    "PYTHONHASHSEED": lambda value: (
        value == "random" or _whole(0, MAX_SEED)(value)
    ),
    "KERAS_BACKEND": _one_of("tensorflow jax torch"),
    **dict.fromkeys(
        (
            "TF_DETERMINISTIC_OPS",
            "TF_CUDNN_DETERMINISTIC",
            "TF_ENABLE_ONEDNN_OPTS",
            "NVIDIA_TF32_OVERRIDE",
            "JAX_ENABLE_X64",
            "JAX_THREEFRY_PARTITIONABLE",
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
            "OMP_DYNAMIC",
            "MKL_DYNAMIC",
        ),
        is_switch,
    ),
    **dict.fromkeys(THREAD_VARIABLES, _THREADS),
    "OMP_NUM_THREADS": _list_of(_THREADS, longest=4),
    "JAX_NUM_CPU_DEVICES": _whole(1, _MOST_DEVICES),
    "JAX_DEFAULT_MATMUL_PRECISION": _one_of(
        "default high highest bfloat16 tensorfloat32 float32 bf16_bf16_f32 "
        "bf16_bf16_f32_x3 bf16_bf16_f32_x6 tf32_tf32_f32 tf32_tf32_f32_x3 "
        "f32_f32_f32"
    ),
    "JAX_DEFAULT_PRNG_IMPL": _one_of("threefry2x32 rbg unsafe_rbg"),
    "JAX_PLATFORMS": _list_of(_one_of("cpu gpu cuda rocm tpu"), longest=5),
    "CUBLAS_WORKSPACE_CONFIG": is_workspace,
    "CUDA_VISIBLE_DEVICES": _pattern(r"(-1|\d{1,3}(,\d{1,3}){0,31})?"),
    "HIP_VISIBLE_DEVICES": _pattern(r"(-1|\d{1,3}(,\d{1,3}){0,31})?"),
    "ATEN_CPU_CAPABILITY": _one_of("default avx2 avx512 vsx zvector sve256"),
    "DNNL_MAX_CPU_ISA": _ISA,
    "ONEDNN_MAX_CPU_ISA": _ISA,
    "MKL_CBWR": _pattern(
        r"(AUTO|COMPATIBLE|SSE2|SSSE3|SSE4_1|SSE4_2|AVX|AVX2|AVX512"
        r"|AVX512_E1)(,STRICT)?"
    ),
    "NPY_DISABLE_CPU_FEATURES": _FEATURES,
    "NPY_ENABLE_CPU_FEATURES": _FEATURES,
    "OPENBLAS_CORETYPE": _pattern(r"[A-Za-z0-9]{2,20}"),
    "TF_XLA_FLAGS": _flags(_TF_XLA_FLAGS),
    "XLA_FLAGS": _flags(_XLA_FLAGS),
}
