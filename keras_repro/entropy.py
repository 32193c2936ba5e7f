"""Fresh random bytes that can be drawn again.

A process that has the key of another one draws the same bytes at the same
places of its program, whatever it draws elsewhere.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping


class Entropy:
    """Streams of bytes, one for each place that asks for some.

    Args:
        keys: As `Plan.keys`.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {name: bytes.fromhex(key) for name, key in keys.items()}
        self._counters: dict[tuple[str, str], Iterator[int]] = {}
        self._branch = b""
        self._num_forks = 0

    def draw(self, name: str, place: str, num_bytes: int) -> bytes:
        """Draw bytes.

        Args:
            name: The function that asks, such as `"uuid.uuid4"`.
            place: Where it asks from: file and line; more behind a `|`.
            num_bytes: How many.

        Returns:
            The next bytes of that place, as unforeseeable as the key is.
        """
        file_and_line = place.partition("|")[0]
        key = self._keys.get(f"entropy {name} {file_and_line}")
        key = key or self._keys["entropy"]
        counters = self._counters.setdefault((name, place), itertools.count())
        asked = f"{name}|{place}|{next(counters)}".encode()
        return hashlib.shake_256(key + self._branch + asked).digest(num_bytes)

    def draw_for(self, generator: str, place: str, num_bytes: int) -> bytes:
        """Draw bytes for one place of a generator that has no position."""
        name = f"{generator} kernels"
        counters = self._counters.setdefault((name, place), itertools.count())
        asked = f"{name}|{place}|{next(counters)}".encode()
        key = self._keys[generator] + self._branch
        return hashlib.shake_256(key + asked).digest(num_bytes)

    def start_of(self, generator: str) -> int:
        """Where a generator starts: a number of 256 bits.

        Args:
            generator: Such as `"python"`.
        """
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
