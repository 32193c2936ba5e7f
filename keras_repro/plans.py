"""What one process of a script is to hold still."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

# The generators that a process starts anew, each from a key of its own.
KEYED = ("python", "numpy", "torch", "tensorflow", "entropy")
_PLAN = "plan.json"


def make_keys() -> dict[str, str]:
    """Fresh keys: what an unseeded program starts from."""
    return {name: secrets.token_hex(32) for name in KEYED}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one process of a script holds still, and where it writes.

    Every process starts its generators from keys. Fresh keys are what an
    unseeded program has anyway; the keys of an earlier process repeat it.

    Args:
        folder: Where it writes its notes, calls and runs; it exists.
        keys: By generator, 64 hexadecimal digits. `entropy` serves what asks
            the operating system, `entropy NAME PLACE` one place alone.
        freed: Generators and places, such as `numpy /home/me/train.py:12`,
            that draw anew though the generator as a whole is held.
        hash_seed: What `PYTHONHASHSEED` is at its start.
        shown_hash_seed: What the script itself sees of it, and what the
            processes that it starts inherit.
        replayed: Which values of `reference` are given again: their kind
            (`seeds`, `thread_counts`, `clock`, `process`) and place.
        reference: The folder of an earlier process.
        seed: Seeds every generator, as `keras-repro run` does; `None` leaves
            that to the script.
        deterministic: Whether deterministic kernels are turned on.
        num_workers: How many workers load data; `None` leaves them.
        num_threads: How many threads compute; `None` leaves them.
        num_cores: How many cores it may use; `None` for all of ours.
        shuffle: `False` has `fit` not shuffle arrays.
        seed_kernels: Whether TensorFlow's random ops without a seed get one.
        trace: Whether the values of the script's variables are traced.
        module: Whether the script is named as a module.
    """

    folder: str
    keys: Mapping[str, str] = field(default_factory=dict)
    freed: tuple[str, ...] = ()
    hash_seed: int = 0
    shown_hash_seed: str | None = None
    replayed: tuple[str, ...] = ()
    reference: str | None = None
    seed: int | None = None
    deterministic: bool = False
    num_workers: int | None = None
    num_threads: int | None = None
    num_cores: int | None = None
    shuffle: bool | None = None
    seed_kernels: bool = False
    trace: bool = False
    module: bool = False

    def write(self) -> Path:
        """Write the plan into its folder; where it is now."""
        path = Path(self.folder) / _PLAN
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a plan that `write` wrote."""
        values: dict[str, Any] = json.loads(
            Path(path).read_text(encoding="utf-8")
        )
        for name in ("freed", "replayed"):
            values[name] = tuple(values[name])
        return cls(**values)
