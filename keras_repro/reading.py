"""What the variables of a model hold: checksums and norms, without copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from keras_repro import _backends
from keras_repro.checksums import ArrayDigest, checksum_array
from keras_repro.norms import (
    Norms,
    NormSums,
    compute_norms_of_small,
    iterate_blocks,
)
from keras_repro.variables import VariablePlace, iterate_variables

# Bytes. Below, the price is that of a call; above, that of reading memory.
_LARGE = 1 << 16
_WORTH_THREADS = 1 << 23
_MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """What one variable holds.

    Args:
        role: `"weights"`, `"random"`, `"optimizer"` or `"metrics"`.
        place: Its position, such as `layers.2.kernel`.
        checksum: As `checksum_array`.
        norms: How large it is.
    """

    role: str
    place: str
    checksum: str
    norms: Norms


class ModelReader:
    """Reads the variables of one model, again and again.

    Values are seen in place, not copied; that is safe as long as the training
    waits. Large variables are read by several threads, each value once for
    checksum and norms together.

    Args:
        model: Any `keras.Model`.
        often: Whether it will be read at each batch.
    """

    def __init__(self, model: Any, *, often: bool = False) -> None:
        self._model = model
        self._often = often
        self.places: list[VariablePlace] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again which variables there are."""
        before = [id(one.variable) for one in self.places]
        self.places = iterate_variables(self._model)
        if [id(one.variable) for one in self.places] != before:
            self._view_all = _backends.get_backend().make_viewer(
                self._model,
                [one.variable for one in self.places],
                often=self._often,
            )

    def read(self) -> list[Reading]:
        """Read every variable, as it is now."""
        arrays = self._view_all()
        small = [i for i, one in enumerate(arrays) if one.nbytes < _LARGE]
        large = [i for i, one in enumerate(arrays) if one.nbytes >= _LARGE]
        norms = compute_norms_of_small([arrays[i] for i in small])
        held = {
            i: (checksum_array(arrays[i]), one)
            for i, one in zip(small, norms, strict=True)
        }
        held.update(_read_large({i: arrays[i] for i in large}))
        return [
            Reading(one.role, one.place, *held[i])
            for i, one in enumerate(self.places)
        ]

    def copy(self, roles: tuple[str, ...]) -> dict[tuple[str, str], Any]:
        """Copy the variables of some roles to host arrays of their own."""
        return {
            (one.role, one.place): array.copy()
            for one, array in zip(self.places, self._view_all(), strict=True)
            if one.role in roles
        }


def _read_large(
    arrays: dict[int, npt.NDArray[Any]],
) -> Iterator[tuple[int, tuple[str, Norms]]]:
    """Read large arrays, in threads where that is worth starting them."""
    order = sorted(arrays, key=lambda i: -arrays[i].nbytes)
    num_threads = min(_count_cores(), len(order), _MAX_THREADS)
    total = sum(one.nbytes for one in arrays.values())
    if num_threads < 2 or total < _WORTH_THREADS:
        for i in order:
            yield i, _read_array(arrays[i])
        return
    with ThreadPoolExecutor(num_threads, "keras_repro-read") as pool:
        results = pool.map(_read_array, [arrays[i] for i in order])
        yield from zip(order, results, strict=True)


def _read_array(array: npt.NDArray[Any]) -> tuple[str, Norms]:
    """Checksum and norms in one pass over the memory."""
    if array.dtype.byteorder == ">" or not array.flags.c_contiguous:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    digest, sums = ArrayDigest(array), NormSums(array)
    for block in iterate_blocks(array):
        digest.add(block)
        sums.add(block)
    return digest.checksum(), sums.norms()


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
