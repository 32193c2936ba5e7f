"""What one process keeps fixed, and entropy that can be drawn again."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

# The generators that a process starts anew, each from a key of its own.
KEYED = ("python", "numpy", "torch", "tensorflow", "entropy")
PLAN = "plan.json"


def make_keys() -> dict[str, str]:
    """Fresh keys: what an unseeded program starts from."""
    return {name: secrets.token_hex(32) for name in KEYED}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one process of a script keeps fixed, and where it writes."""

    # Where it writes its notes, calls and runs; it exists.
    folder: str
    # By generator, 64 hexadecimal digits; an earlier process's repeat it.
    # `entropy` serves what asks the operating system, `entropy NAME PLACE` one
    # place alone.
    keys: Mapping[str, str] = field(default_factory=dict)
    # Generators and places, such as `numpy /home/me/train.py:12`, that draw
    # anew though the generator as a whole is held.
    freed: tuple[str, ...] = ()
    hash_seed: int = 0  # What `PYTHONHASHSEED` is at its start.
    # What the script itself sees of it, and its children inherit.
    shown_hash_seed: str | None = None
    # Which values of `reference`, the folder of an earlier process, are given
    # again: kind (`seeds`, `thread_counts`, `clock`, `process`) and place.
    replayed: tuple[str, ...] = ()
    reference: str | None = None
    # `None` leaves any of these to the script. The seed seeds every generator,
    # as `keras-repro run` does.
    seed: int | None = None
    deterministic: bool = False
    num_workers: int | None = None  # That load data.
    num_threads: int | None = None  # That compute.
    num_cores: int | None = None
    shuffle: bool | None = None  # `False` has `fit` not shuffle arrays.
    # Whether TensorFlow's random ops without a seed get one.
    seed_kernels: bool = False
    # Whether the values of the script's variables are traced.
    trace: bool = False
    module: bool = False  # Whether the script is named as a module.
    # Whether the processes that it starts all draw from these keys; each has
    # keys of its own otherwise.
    children: bool = False

    def write(self) -> Path:
        """Write the plan into its folder; where it is now."""
        path = Path(self.folder) / PLAN
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


class Entropy:
    """Streams of bytes, one for each place that asks for some."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {name: bytes.fromhex(key) for name, key in keys.items()}
        self._counters: dict[tuple[str, str], Iterator[int]] = {}
        self._branch = b""
        self._num_forks = 0

    def draw(self, name: str, place: str, num_bytes: int) -> bytes:
        """Draw bytes."""
        file_and_line = place.partition("|")[0]
        key = self._keys.get(f"entropy {name} {file_and_line}")
        return self._draw(key or self._keys["entropy"], name, place, num_bytes)

    def draw_for(self, generator: str, place: str, num_bytes: int) -> bytes:
        """Draw bytes for one place of a generator that has no position."""
        name = f"{generator} kernels"
        return self._draw(self._keys[generator], name, place, num_bytes)

    def _draw(self, key: bytes, name: str, place: str, num_bytes: int) -> bytes:
        counters = self._counters.setdefault((name, place), itertools.count())
        asked = f"{name}|{place}|{next(counters)}".encode()
        return hashlib.shake_256(key + self._branch + asked).digest(num_bytes)

    def start_of(self, generator: str) -> int:
        """Where a generator starts: a number of 256 bits."""
        key = self._keys[generator] + self._branch
        digest = hashlib.sha256(key + generator.encode()).digest()
        return int.from_bytes(digest, "little")

    def derive_keys(self) -> dict[str, str]:
        """The keys of a watch within this one, held where ours are held."""
        return {
            name: self.draw_for(name, "inside", 32).hex() for name in self._keys
        }

    def follow_forks(self) -> None:
        """Have a child process draw other bytes than its parent."""
        os.register_at_fork(
            before=self._count_fork, after_in_child=self._begin_branch
        )

    def _count_fork(self) -> None:
        self._num_forks += 1

    def _begin_branch(self) -> None:
        self._branch += b"fork %d|" % self._num_forks
        self._counters.clear()
