"""Two environments: what differs, sorted by how likely it is to matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class EnvironmentDifference:
    """One entry in which two environments differ."""

    key: str  # In dots: `versions.keras`, `threads.intra_op`.
    a: Any  # `None` where it is not there, as `b`.
    b: Any
    # How likely it is to change results: 3 for almost surely, 2 for likely, 1
    # for sometimes, 0 for hardly ever.
    weight: int
    sentence: str  # What it may do, and what helps.


def find_differences(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[EnvironmentDifference, ...]:
    """What differs between two environments, or whatever files hold of them."""
    first, second = _Flat(a), _Flat(b)
    found = []
    for key in sorted({*first.values, *second.values}):
        if first.is_opened_by(key, second) or second.is_opened_by(key, first):
            continue
        pair = _Pair(key, first.find(key), second.find(key), first, second)
        if not _is_same(pair.a, pair.b):
            found.append(_judge(pair))
    found.sort(key=lambda one: (-one[1].weight, one[0], one[1].key))
    return tuple(difference for _, difference in found)


# --- the table -----------------------------------------------------------


class _Rule(NamedTuple):
    pattern: str
    weight: int | Callable[[_Pair], int]
    sentence: str


def _weigh_version(pair: _Pair) -> int:
    """3 for another release, 2 for another patch of the same one."""
    return 2 if _release(pair.a) == _release(pair.b) else 3


def _weigh_backend_version(pair: _Pair) -> int:
    """As any version if it is the backend of one of them, else 0."""
    name = pair.key.removeprefix("versions.").removesuffix("lib")
    backends = pair.first.find("backend"), pair.second.find("backend")
    return _weigh_version(pair) if name in backends else 0


def _weigh_python(pair: _Pair) -> int:
    return 0 if _release(pair.a) == _release(pair.b) else 1


def _weigh_cores(pair: _Pair) -> int:
    """2 where the backend takes a thread a core, 0 where a number is set."""
    pinned = (_has_pinned_threads(flat) for flat in (pair.first, pair.second))
    return 0 if all(pinned) else 2


def _weigh_hash_seed(pair: _Pair) -> int:
    """2 where one of them has none: each of its processes differs."""
    fixed = [value not in (None, "", "random") for value in (pair.a, pair.b)]
    return 1 if all(fixed) else 2


_BACKEND_VERSION = (
    "Another version of the backend has other kernels and compiles "
    "differently; install the same version."
)
_THREADS = (
    "With another number of threads sums are added in another order, so the "
    "last digits of larger models differ; pin the same number of threads."
)
_PRODUCTS = (
    "Products of float32 are rounded differently, from about the third digit "
    "on; set the same precision."
)
_RANDOM = (
    "The backend draws other random numbers or computes in other types, so "
    "expect other results from the start; set it to the same value."
)
_KERNELS = (
    "It chooses which kernels compute, so floating point results may differ "
    "in the last places; set it to the same value."
)
_DETERMINISTIC = (
    "Deterministic mode takes other kernels, and without it some results "
    "change from run to run; turn it on for both."
)
_HASH_SEED = (
    "Python orders sets of strings differently, which matters if a program "
    "goes through one; start both with PYTHONHASHSEED=0."
)
_GPU_SOFTWARE = (
    "Other GPU software chooses other kernels, so floating point results may "
    "differ in the last places; install the same version or compare with rtol."
)
_PLACE = "It says where the program ran, and changes no result by itself."

# The first rule that fits a key holds. The order is that of the result within
# one weight.
_RULES = (
    _Rule(
        "backend",
        3,
        "Another backend has other kernels and draws other random numbers, so "
        "expect other results from the start; set KERAS_BACKEND to the same "
        "value.",
    ),
    _Rule(
        "dtype_policy",
        3,
        "Layers compute or keep their weights in another type; set the same "
        "dtype policy.",
    ),
    _Rule("floatx", 3, "Arrays have another type; set the same floatx."),
    _Rule("jax.*", 3, _RANDOM),
    _Rule(
        "versions.keras",
        _weigh_version,
        "Another version of Keras may initialise, shuffle or train "
        "differently; install the same version.",
    ),
    _Rule("versions.tensorflow", _weigh_backend_version, _BACKEND_VERSION),
    _Rule("versions.jax", _weigh_backend_version, _BACKEND_VERSION),
    _Rule("versions.jaxlib", _weigh_backend_version, _BACKEND_VERSION),
    _Rule("versions.torch", _weigh_backend_version, _BACKEND_VERSION),
    _Rule("threads.intra_op", 2, _THREADS),
    _Rule("threads.*INTEROP*", 1, _THREADS),
    _Rule("threads.[A-Z]*", 2, _THREADS),
    _Rule("threads.inter_op", 1, _THREADS),
    _Rule("usable_cores", _weigh_cores, _THREADS),
    _Rule("deterministic", 2, _DETERMINISTIC),
    _Rule("environment_variables.TF_*DETERMINISTIC*", 2, _DETERMINISTIC),
    _Rule("environment_variables.CUBLAS_WORKSPACE_CONFIG", 2, _DETERMINISTIC),
    _Rule(
        "processor",
        2,
        "Other processor, so floating point results may differ in the last "
        "places; compare with rtol.",
    ),
    _Rule(
        "instructions",
        2,
        "With other vector instructions other kernels run, so floating point "
        "results may differ in the last places; compare with rtol.",
    ),
    _Rule(
        "machine",
        2,
        "Another kind of processor, so floating point results differ in the "
        "last places; compare with rtol.",
    ),
    _Rule(
        "devices",
        2,
        "Other GPU, so floating point results may differ in the last places; "
        "compare with rtol.",
    ),
    _Rule("gpu.*", 2, _GPU_SOFTWARE),
    _Rule("tf32.*", 2, _PRODUCTS),
    _Rule("matmul_precision", 2, _PRODUCTS),
    _Rule("environment_variables.NVIDIA_TF32_OVERRIDE", 2, _PRODUCTS),
    _Rule("environment_variables.JAX_DEFAULT_MATMUL_PRECISION", 2, _PRODUCTS),
    _Rule(
        "onednn.enabled",
        2,
        "With oneDNN sums are added in another order; set "
        "TF_ENABLE_ONEDNN_OPTS to the same value.",
    ),
    _Rule("environment_variables.TF_ENABLE_ONEDNN_OPTS", 2, _KERNELS),
    _Rule(
        "jit",
        2,
        "Compiled code joins operations and rounds differently; compile both "
        "or neither.",
    ),
    _Rule("environment_variables.*XLA_FLAGS", 2, _KERNELS),
    _Rule("environment_variables.*_ISA", 2, _KERNELS),
    _Rule("environment_variables.*_CPU_FEATURES", 2, _KERNELS),
    _Rule("environment_variables.*_CPU_CAPABILITY", 2, _KERNELS),
    _Rule("environment_variables.MKL_CBWR", 2, _KERNELS),
    _Rule("environment_variables.OPENBLAS_CORETYPE", 2, _KERNELS),
    _Rule("environment_variables.JAX_ENABLE_X64", 2, _RANDOM),
    _Rule("environment_variables.JAX_DEFAULT_PRNG_IMPL", 2, _RANDOM),
    _Rule("environment_variables.JAX_THREEFRY_PARTITIONABLE", 2, _RANDOM),
    _Rule("hash_seed", _weigh_hash_seed, _HASH_SEED),
    _Rule("environment_variables.PYTHONHASHSEED", _weigh_hash_seed, _HASH_SEED),
    _Rule(
        "os",
        2,
        "Libraries are built differently for another operating system, so the "
        "last places may differ; compare with rtol.",
    ),
    _Rule(
        "implementation",
        2,
        "Another Python may order and round differently; use the same one.",
    ),
    _Rule(
        "git.commit",
        1,
        "The code may be another; check out the same commit.",
    ),
    _Rule(
        "git.dirty",
        1,
        "One of them ran code that its commit does not hold; commit it first.",
    ),
    _Rule(
        "versions.numpy",
        1,
        "Data that NumPy prepares may differ in the last places; install the "
        "same version.",
    ),
    _Rule("blas.*", 1, _KERNELS),
    _Rule("onednn.version", 1, _KERNELS),
    _Rule(
        "python",
        _weigh_python,
        "Another Python runs the program itself; numbers seldom depend on it.",
    ),
    _Rule("hash_randomization", 0, _HASH_SEED),
    _Rule(
        "environment_variables.KERAS_BACKEND",
        0,
        "It acts through `backend`, which is compared on its own.",
    ),
    _Rule(
        "environment_variables.*",
        1,
        "A switch of a library that may change its kernels; set it to the "
        "same value.",
    ),
    _Rule(
        "versions.h5py",
        0,
        "It reads and writes files, and computes nothing.",
    ),
    _Rule(
        "cores",
        0,
        "It acts through the number of threads, which is compared on its own.",
    ),
    _Rule(
        "os_release",
        0,
        "Results hardly ever depend on the release of the operating system.",
    ),
    *(_Rule(key, 0, _PLACE) for key in ("user", "host", "cwd", "executable")),
    _Rule("*", 0, "It is not known to change results."),
)


# --- reading and judging -------------------------------------------------

_ABSENT = object()
# A name that is missing in these was not set, which is an answer.
_SETTINGS = ("environment_variables", "threads")
# Here `None` is a setting; elsewhere it is what could not be known.
_NONE_IS_A_SETTING = ("matmul_precision", "hash_seed", "blas.*", "*.[A-Z]*")
_MAX_DEPTH = 8


class _Flat:
    """An environment with dots for its levels."""

    def __init__(self, environment: object) -> None:
        self.values: dict[str, Any] = {}
        self.groups: set[str] = set()
        waiting: list[tuple[str, Any, int]] = [("", environment, 0)]
        while waiting:
            prefix, value, depth = waiting.pop()
            if isinstance(value, Mapping) and depth < _MAX_DEPTH:
                self.groups.add(prefix)
                dot = prefix and prefix + "."
                waiting += [
                    (f"{dot}{key}", item, depth + 1)
                    for key, item in value.items()
                ]
            elif prefix:
                self.values[prefix] = value

    def find(self, key: str) -> Any:
        """The value of a key; `_ABSENT` if nothing is known of it."""
        if key in self.values:
            return self.values[key]
        group, _, name = key.rpartition(".")
        was_not_set = group in _SETTINGS and name.isupper()
        if was_not_set and group in self.groups:
            return None
        # `git: null` answers `git.commit` too.
        is_none = self.values.get(group, _ABSENT) is None
        return None if is_none else _ABSENT

    def is_opened_by(self, key: str, other: _Flat) -> bool:
        """Whether it is `None` here and has keys of its own there."""
        return key in other.groups and self.values.get(key, 0) is None


class _Pair(NamedTuple):
    key: str
    a: Any
    b: Any
    first: _Flat
    second: _Flat


def _judge(pair: _Pair) -> tuple[int, EnvironmentDifference]:
    """Position in the table, and the difference."""
    position, rule = next(
        (position, rule)
        for position, rule in enumerate(_RULES)
        if fnmatchcase(pair.key, rule.pattern)
    )
    weight, sentence = _weigh(rule, pair), rule.sentence
    for name, value in (("a", pair.a), ("b", pair.b)):
        if value is _ABSENT:
            weight, sentence = 0, f"Not recorded in {name}."
    a, b = (None if one is _ABSENT else one for one in (pair.a, pair.b))
    return position, EnvironmentDifference(
        key=pair.key, a=a, b=b, weight=weight, sentence=sentence
    )


def _weigh(rule: _Rule, pair: _Pair) -> int:
    weight = rule.weight(pair) if callable(rule.weight) else rule.weight
    is_unknown = (pair.a is None or pair.b is None) and not any(
        fnmatchcase(pair.key, pattern) for pattern in _NONE_IS_A_SETTING
    )
    return min(weight, 1) if is_unknown else weight


def _is_same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b or (a != a and b != b))  # NaN
    except RecursionError:
        return False


def _release(version: object) -> tuple[str, ...]:
    """`("2", "21")` of version 2.21.0."""
    if not isinstance(version, str):
        return ()
    return tuple(re.findall(r"\d+", version)[:2])


def _has_pinned_threads(flat: _Flat) -> bool:
    """Whether the number of threads does not follow that of the cores."""
    names = {
        "tensorflow": ("intra_op", "TF_NUM_INTRAOP_THREADS"),
        "jax": ("NPROC",),
        "torch": ("intra_op",),  # Never 0: PyTorch says the number it uses.
    }.get(str(flat.find("backend")), ())
    values = [flat.values.get(f"threads.{name}") for name in names]
    return any(value not in (None, 0, "0", "") for value in values)
