"""What the variables of a model hold: checksums and norms, without copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from keras_repro import _backends
from keras_repro.checksums import ArrayDigest, checksum_array
from keras_repro.environment import count_usable_cores
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


class Look:
    """The variables of a model at one moment, read or still to be read.

    Args:
        places: The variables.
        small: Copies of the small ones, by position.
        large: Checksum and norms of the large ones, by position.
    """

    def __init__(
        self,
        places: list[VariablePlace],
        small: dict[int, npt.NDArray[Any]],
        large: dict[int, tuple[str, Norms]],
    ) -> None:
        self._places, self._small, self._large = places, small, large
        self.num_bytes = sum(one.nbytes for one in small.values())

    @property
    def waiting(self) -> list[npt.NDArray[Any]]:
        """The arrays still to be read."""
        return list(self._small.values())

    def read(self, norms: Iterator[Norms]) -> list[Reading]:
        """What each variable held.

        Args:
            norms: Gives the norms of the arrays still to be read.
        """
        held = {
            i: (checksum_array(array), next(norms))
            for i, array in self._small.items()
        }
        held.update(self._large)
        return [
            Reading(one.role, one.place, *held[i])
            for i, one in enumerate(self._places)
        ]


def read_looks(looks: Sequence[Look]) -> list[list[Reading]]:
    """What each variable held at some moments, which is quicker together."""
    arrays = [array for look in looks for array in look.waiting]
    norms = iter(compute_norms_of_small(arrays))
    return [look.read(norms) for look in looks]


class ModelReader:
    """Reads the variables of one model, again and again.

    Large values are seen in place, not copied, which is safe as long as the
    training waits. Several threads read them, each value once for checksum
    and norms together.

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

    def look(self) -> Look:
        """Look at every variable, as it is now.

        What is large is read at once, while the training waits; what is small
        is copied, to be read later by `read_looks`.
        """
        arrays = self._view_all()
        large = {i: one for i, one in enumerate(arrays) if one.nbytes >= _LARGE}
        return Look(
            self.places,
            {i: one.copy() for i, one in enumerate(arrays) if i not in large},
            dict(_read_large(large)),
        )

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
    num_threads = min(count_usable_cores() or 1, len(order), _MAX_THREADS)
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
