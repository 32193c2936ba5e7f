"""What must be set before Python or a backend starts, and what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from keras_repro.common.checks import MAX_SEED, read_seed
from keras_repro.environment.capture import count_usable_cores
from keras_repro.environment.determinism import (
    WORKSPACE,
    XLA_FLAG,
    is_switch,
    is_workspace,
    is_yes,
    read_xla_flags,
)

Status = Literal["set", "missing", "advised", "not needed"]

_NVIDIA_DRIVER = "/proc/driver/nvidia/version"


@dataclass(frozen=True, kw_only=True)
class Switch:
    """An environment variable that repeatable training needs, or might."""

    name: str
    # `None` if it is not set.
    value: str | None
    # `"set"`: as it should be. `"missing"`: results may change from run to
    # run. `"advised"`: they may change with the number of cores or the
    # processor. `"not needed"`: not with this backend, or not without a GPU.
    status: Status
    why: str  # What it does, and what is wrong with its value if something is.
    # The line for the shell that sets it; empty if there is none to do.
    fix: str


class _Rule(NamedTuple):
    name: str
    backends: tuple[str, ...]  # Which need it; none means all.
    needs_gpu: bool
    status: Status  # Without it.
    is_useful: Callable[[str], bool]
    target: str  # "{cores}" stands for the cores that this process may use.
    why: str
    useless: str  # Why a value is none of the useful ones.


def check_switches(
    environment: Mapping[str, str] | None = None,
) -> tuple[Switch, ...]:
    """Check what must be set before Python and the backend start."""
    # What the variables say, not what a process that runs already has read. A
    # GPU is one of NVIDIA's that its driver and `CUDA_VISIBLE_DEVICES` show.
    # Nothing is imported or started.
    variables = os.environ if environment is None else environment
    backend = find_backend(variables)
    has_gpu = _has_gpu(variables)
    return tuple(
        _check(rule, variables, backend, has_gpu=has_gpu) for rule in _RULES
    )


def switches_for(
    seed: int | None,
    backend: str,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Name the variables that a child interpreter needs for bitwise runs."""
    # The number of threads is left as it is: `check_switches` advises on it.
    variables = os.environ if environment is None else environment
    result = {}
    if read_seed(variables.get("PYTHONHASHSEED", "")) is None:
        result["PYTHONHASHSEED"] = str((seed or 0) % (MAX_SEED + 1))
    if backend == "tensorflow" and not is_switch(
        variables.get("TF_DETERMINISTIC_OPS", "")
    ):
        result["TF_DETERMINISTIC_OPS"] = "1"
    if (
        backend == "jax"
        and read_xla_flags(variables.get("XLA_FLAGS", "")) is None
    ):
        flags = variables.get("XLA_FLAGS", "").strip()
        result["XLA_FLAGS"] = f"{flags} {XLA_FLAG}".strip()
    if backend == "torch" and not is_workspace(
        variables.get("CUBLAS_WORKSPACE_CONFIG", "")
    ):
        result["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACE
    return result


def with_backend(backend: str | None) -> dict[str, str]:
    """The environment variables, with the backend that was asked for."""
    chosen = {} if backend is None else {"KERAS_BACKEND": backend}
    return {**os.environ, **chosen}


def find_backend(environment: Mapping[str, str]) -> str:
    """Find the backend that Keras will take, as Keras itself looks for it."""
    name = environment.get("KERAS_BACKEND")
    if name:
        return name
    try:
        text = _keras_file(environment).read_text(encoding="utf-8")
        configured = json.loads(text).get("backend")
    except (OSError, ValueError, AttributeError, RecursionError):
        configured = None
    return configured if isinstance(configured, str) else "tensorflow"


def _keras_file(environment: Mapping[str, str]) -> Path:
    if "KERAS_HOME" in environment:
        return Path(environment["KERAS_HOME"]).expanduser() / "keras.json"
    home = Path(environment.get("HOME") or Path("~").expanduser())
    # Keras takes /tmp where it cannot write to the home directory.
    home = home if os.access(home, os.W_OK) else Path("/tmp")
    return home / ".keras" / "keras.json"


def _has_gpu(environment: Mapping[str, str]) -> bool:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "none", "void"):
        return False
    if Path(_NVIDIA_DRIVER).exists():
        return True
    # Windows, and Linux within it, keep the driver elsewhere.
    is_windows = os.name == "nt" or Path("/dev/dxg").exists()
    return is_windows and shutil.which("nvidia-smi") is not None


# --- one switch ----------------------------------------------------------


def _check(
    rule: _Rule,
    environment: Mapping[str, str],
    backend: str,
    *,
    has_gpu: bool,
) -> Switch:
    value = environment.get(rule.name)
    status, why, fix = _judge(rule, value, backend, has_gpu=has_gpu)
    return Switch(name=rule.name, value=value, status=status, why=why, fix=fix)


def _judge(
    rule: _Rule, value: str | None, backend: str, *, has_gpu: bool
) -> tuple[Status, str, str]:
    """Status, reason and the line that fixes it."""
    if rule.backends and backend not in rule.backends:
        return "not needed", f"The backend {backend} does not need it.", ""
    if rule.needs_gpu and not has_gpu:
        return "not needed", "It matters on a GPU, and none is visible.", ""
    if value is not None and rule.is_useful(value):
        return "set", rule.why, ""
    target = rule.target.format(cores=count_usable_cores() or 1)
    if rule.name == "XLA_FLAGS" and value and value.strip():
        target = f'"$XLA_FLAGS {target}"'
    why = f"{rule.why} {rule.useless}" if value else rule.why
    return rule.status, why, f"export {rule.name}={target}"


def _is_count(value: str) -> bool:
    first = value.partition(",")[0].strip()  # OMP_NUM_THREADS=4,2
    return first.isascii() and first.isdigit() and first.strip("0") != ""


# --- the table -----------------------------------------------------------

_RULES = (
    _Rule(
        name="PYTHONHASHSEED",
        backends=(),
        needs_gpu=False,
        status="missing",
        is_useful=lambda value: read_seed(value) is not None,
        target="0",
        why="Python orders sets of strings by it, and reads it at its start.",
        useless=f"Its value must be a number from 0 to {MAX_SEED}: `random` "
        "draws another in each process, and Python refuses the rest.",
    ),
    _Rule(
        name="TF_DETERMINISTIC_OPS",
        backends=("tensorflow",),
        needs_gpu=True,
        status="missing",
        is_useful=is_yes,
        target="1",
        why="TensorFlow takes deterministic kernels on a GPU.",
        useless="Its value must be 1 or true; 0 and false turn that off, and "
        "TensorFlow aborts on the rest.",
    ),
    _Rule(
        name="XLA_FLAGS",
        backends=("jax",),
        needs_gpu=True,
        status="missing",
        is_useful=lambda flags: read_xla_flags(flags) is True,
        target=XLA_FLAG,
        why="XLA takes deterministic kernels on a GPU, if this stands in it "
        "when JAX starts.",
        useless="Its flags do not turn that on.",
    ),
    _Rule(
        name="CUBLAS_WORKSPACE_CONFIG",
        backends=("torch",),
        needs_gpu=True,
        status="missing",
        is_useful=is_workspace,
        target=WORKSPACE,
        why="cuBLAS repeats its sums only with a fixed workspace, and reads "
        "this when CUDA starts.",
        useless="Its value must be :4096:8 or :16:8.",
    ),
    _Rule(
        name="TF_NUM_INTRAOP_THREADS",
        backends=("tensorflow",),
        needs_gpu=False,
        status="advised",
        is_useful=_is_count,
        target="{cores}",
        why="TensorFlow takes a thread for each core, and sums change with "
        "their number.",
        useless="Its value must be a number from 1 on.",
    ),
    _Rule(
        name="OMP_NUM_THREADS",
        backends=("torch",),
        needs_gpu=False,
        status="advised",
        is_useful=_is_count,
        target="{cores}",
        why="PyTorch takes a thread for each core, and sums change with their "
        "number.",
        useless="Its value must be a number from 1 on.",
    ),
    _Rule(
        name="NPROC",
        backends=("jax",),
        needs_gpu=False,
        status="advised",
        is_useful=_is_count,
        target="{cores}",
        why="JAX takes a thread for each core of a CPU, and sums change with "
        "their number.",
        useless="Its value must be a number from 1 on.",
    ),
    _Rule(
        name="TF_ENABLE_ONEDNN_OPTS",
        backends=("tensorflow",),
        needs_gpu=False,
        status="advised",
        is_useful=is_switch,
        target="0",
        why="TensorFlow turns oneDNN on where the processor suits it, which "
        "changes the last places from machine to machine.",
        useless="Its value must be 0 or 1.",
    ),
)
