"""How large an array is, and how far two arrays are apart.

A checksum says whether two arrays are equal; these say how far they are not.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Elements a pass: the block and its float64 copy stay in a core's cache.
_BLOCK = 1 << 16


class Norms(NamedTuple):
    """The Euclidean norm, the mean and the largest magnitude, in float64."""

    l2: float
    mean: float
    largest: float


def compute_norms(array: npt.NDArray[Any]) -> Norms:
    """Compute the norms of an array."""
    # Summed in float64 in blocks, so the last digits may depend on the
    # processor and on the NumPy version.
    sums = NormSums(array)
    for block in iterate_blocks(array):
        sums.add(block)
    return sums.norms()


def compute_norms_of_small(arrays: Sequence[npt.NDArray[Any]]) -> list[Norms]:
    """Compute the norms of many small arrays at once."""
    simple = [one for one in arrays if one.size and one.dtype.kind != "c"]
    found = iter(_norms_of_joined(simple) if simple else ())
    return [
        next(found)
        if one.size and one.dtype.kind != "c"
        else compute_norms(one)
        for one in arrays
    ]


def _norms_of_joined(arrays: list[npt.NDArray[Any]]) -> list[Norms]:
    sizes = np.array([one.size for one in arrays])
    starts = np.cumsum(sizes) - sizes
    with np.errstate(all="ignore"):
        # Many small copies of numbers cost more than one of their bytes.
        values = np.concatenate(
            [
                np.frombuffer(b"".join([one.tobytes() for one in group]), dtype)
                for dtype, group in itertools.groupby(
                    arrays, key=operator.attrgetter("dtype")
                )
            ],
            dtype=np.float64,
            casting="unsafe",
        )
        means = np.add.reduceat(values, starts) / sizes
        np.abs(values, out=values)
        largest = np.maximum.reduceat(values, starts)
        np.multiply(values, values, out=values)
        l2 = np.sqrt(np.add.reduceat(values, starts))
    columns = (l2.tolist(), means.tolist(), largest.tolist())
    return list(map(Norms._make, zip(*columns, strict=True)))


class NormSums:
    """The norms of an array of this size and dtype while its blocks go by."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._size, self._is_complex = array.size, array.dtype.kind == "c"
        self._squares = self._total = self._largest = 0.0
        parts = array.size * (2 if self._is_complex else 1)
        self._buffer = np.empty(min(parts, _BLOCK), np.float64)

    def add(self, block: npt.NDArray[Any]) -> None:
        """Take up the next block, as `iterate_blocks` gives it."""
        values = self._buffer[: block.size]
        with np.errstate(all="ignore"):
            values[...] = block
            # Of complex numbers every second one is a real part.
            real = values[::2] if self._is_complex else values
            self._total += float(real.sum())
            # Not `dot`: a threaded BLAS would add in another order.
            self._squares += float(np.einsum("i,i->", values, values))
            low, high = float(values.min()), float(values.max())
            if self._is_complex:
                low, high = 0.0, float(np.hypot(real, values[1::2]).max())
        self._largest = _nan_max(self._largest, _nan_max(-low, high))

    def norms(self) -> Norms:
        """The norms of all blocks together."""
        mean = self._total / self._size if self._size else 0.0
        return Norms(math.sqrt(self._squares), mean, self._largest)


def iterate_blocks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Walk through an array in flat blocks that fit into a core's cache."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def relate_norms(a: Norms, b: Norms) -> float:
    """How far two arrays are apart, as far as their norms show."""
    return max(relate(a.l2, b.l2), relate(a.largest, b.largest))


def relate(x: float, y: float) -> float:
    """The relative difference of two numbers; infinite if one is not finite."""
    if x == y or (math.isnan(x) and math.isnan(y)):
        return 0.0
    ratio = abs(x - y) / max(abs(x), abs(y))
    return ratio if math.isfinite(ratio) else math.inf


def _nan_max(a: float, b: float) -> float:
    """The larger of two; NaN if one of them is."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


@dataclass(frozen=True, kw_only=True)
class ArrayDifference:
    """How far two arrays of one shape and dtype are apart, exactly."""

    # Infinite where only one of two elements is NaN or infinite.
    largest_absolute: float
    # Over the larger magnitude of the two elements.
    largest_relative: float
    # How many representable numbers lie between; `None` for integers.
    largest_ulp: int | None
    num_differing: int  # In their bits.
    num_elements: int

    @property
    def share(self) -> float:
        """The share of elements that differ, from 0 to 1."""
        return (
            self.num_differing / self.num_elements if self.num_elements else 0.0
        )

    def __str__(self) -> str:
        """One line for a terminal."""
        ulp = "" if self.largest_ulp is None else f", {self.largest_ulp} ULP"
        return (
            f"largest difference {self.largest_absolute:.3g} absolute, "
            f"{self.largest_relative:.3g} relative{ulp}; "
            f"{self.num_differing} of {self.num_elements} elements differ "
            f"({self.share:.1%})"
        )


def compare_arrays(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> ArrayDifference:
    """Measure how far two arrays of one shape and dtype are apart."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            "Two arrays must have one shape and dtype to be measured. "
            f"Received: {a.shape}, {a.dtype} and {b.shape}, {b.dtype}. "
            "Compare the parts that they share."
        )
    absolute, relative, differing = 0.0, 0.0, 0
    ulp: int | None = None if _bits_type(a.dtype) is None else 0
    for part_a, part_b in zip(
        iterate_blocks(a), iterate_blocks(b), strict=True
    ):
        unequal = _differ(part_a, part_b)
        differing += int(np.count_nonzero(unequal))
        if not unequal.any():
            continue
        x, y = part_a[unequal], part_b[unequal]
        sizes, ratios = _distances(x, y)
        absolute = max(absolute, float(sizes.max()))
        relative = max(relative, float(ratios.max()))
        if ulp is not None:
            ulp = max(ulp, _largest_ulp(x, y))
    return ArrayDifference(
        largest_absolute=absolute,
        largest_relative=relative,
        largest_ulp=ulp,
        num_differing=min(differing, a.size),
        num_elements=a.size,
    )


def is_close(
    a: npt.NDArray[Any], b: npt.NDArray[Any], *, rtol: float, atol: float
) -> bool:
    """Whether all elements are close, as `numpy.allclose(equal_nan=True)`."""
    return all(
        np.allclose(
            x.astype(np.float64),
            y.astype(np.float64),
            rtol=rtol,
            atol=atol,
            equal_nan=True,
        )
        for x, y in zip(iterate_blocks(a), iterate_blocks(b), strict=True)
    )


def _differ(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where the bits differ, so that NaN may equal NaN, 0.0 never -0.0."""
    bits = np.dtype(f"u{a.dtype.itemsize}")
    result: npt.NDArray[np.bool_] = a.view(bits) != b.view(bits)
    return result


def _distances(
    x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Absolute and relative differences of unequal elements."""
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(all="ignore"):
        sizes = np.abs(wide_x - wide_y)
        sizes[np.isnan(wide_x) & np.isnan(wide_y)] = 0.0
        sizes[np.isnan(sizes)] = np.inf
        scale = np.maximum(np.abs(wide_x), np.abs(wide_y))
        ratios = np.where(sizes == 0, 0.0, sizes / scale)
        ratios[np.isnan(ratios)] = np.inf
    return sizes, ratios


def _bits_type(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Unsigned integers as wide as a float's, or `None` if it is no float."""
    if dtype.kind in "biu":
        return None
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    # bfloat16 and its like count as "V" here; they are ordered as floats are.
    return np.dtype(f"u{size}")


def _largest_ulp(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> int:
    bits = np.dtype(f"u{x.dtype.itemsize}")
    ranks_x, ranks_y = _rank(x.view(bits)), _rank(y.view(bits))
    gaps = np.where(ranks_x > ranks_y, ranks_x - ranks_y, ranks_y - ranks_x)
    return int(gaps.max())


def _rank(bits: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Floats as integers in their order; -0.0 lies one below 0.0."""
    width = bits.dtype.itemsize * 8
    wide = bits.astype(np.uint64)
    sign = np.uint64(1) << np.uint64(width - 1)
    every = sign | (sign - np.uint64(1))
    return np.where(wide & sign, every - wide, wide + sign)
