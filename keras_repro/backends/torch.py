"""PyTorch: parameters that are copied into, global generators."""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_repro.backends.protocol import Backend
from keras_repro.common.generators import is_list_of_whole
from keras_repro.environment.determinism import WORKSPACE, is_workspace

# The state of PyTorch's generator on the CPU (2.1 to 2.13): seed, words that
# are left, whether there is a seed, place of the next word; the words; two
# numbers of a normal distribution that are kept for the next draw.
_CPU_STATE = struct.Struct("<Qiiq624Q3dif?7x")


def _is_cpu_state(data: bytes) -> bool:
    """PyTorch itself would read behind the words where places disagree."""
    _, left, is_seeded, place, *words = _CPU_STATE.unpack(data)
    *words, first, kept, last, _, small, _ = words
    return (
        is_seeded == 1
        and (
            (left, place) == (1, 0)
            or (1 <= left <= len(words) and left + place == len(words) + 1)
        )
        and all(map(math.isfinite, (first, kept, last, small)))
    )


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

    @staticmethod
    def is_state(state: object) -> bool:
        """Whether `restore` takes it, as JSON holds it."""
        if not isinstance(state, list) or len(state) != 2:
            return False
        cpu, cuda = state
        return (
            is_list_of_whole(cpu, _CPU_STATE.size, 0, 255)
            and _is_cpu_state(bytes(cpu))
            and isinstance(cuda, list)
            and all(is_list_of_whole(one, 16, 0, 255) for one in cuda)
            # PyTorch draws four numbers at a time.
            and all(one[8] % 4 == 0 for one in cuda)
        )

    def restore(self, state: Any) -> None:
        import torch

        cpu, cuda = state
        torch.set_rng_state(torch.from_numpy(np.array(cpu, np.uint8)))
        # Nothing is drawn on devices that only another machine has.
        for index, device_state in enumerate(cuda[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(
                torch.from_numpy(np.array(device_state, np.uint8)), index
            )

    def seed(self, seed: int) -> None:
        import torch

        torch.manual_seed(seed)


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

    def keep_mode(self) -> Callable[[], None]:
        import torch

        return functools.partial(
            torch.set_grad_enabled, torch.is_grad_enabled()
        )

    def enable_determinism(self) -> str | None:
        import torch

        setting = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False
        late = torch.cuda.is_available() and torch.cuda.is_initialized()
        if late and not is_workspace(setting):
            return (
                "CUDA has started, so CUBLAS_WORKSPACE_CONFIG comes too late. "
                f"Start the program with CUBLAS_WORKSPACE_CONFIG={WORKSPACE} "
                "in its environment."
            )
        return None

    def read_threads(self) -> dict[str, int]:
        import torch

        return {"intra_op": torch.get_num_threads()}

    def set_threads(self, threads: dict[str, int]) -> None:
        import torch

        if threads != self.read_threads():
            torch.set_num_threads(threads["intra_op"])
