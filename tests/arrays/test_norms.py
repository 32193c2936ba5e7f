"""How large an array is, and how far two are apart."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_repro.arrays import norms
from keras_repro.arrays.norms import (
    Norms,
    compare_arrays,
    compute_norms,
    compute_norms_of_small,
    is_close,
    relate,
    relate_norms,
)

DTYPES = ["float16", "float32", "float64", "int32", "int64", "uint32", "bool"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, SHAPES)
)


def near(a, b):
    return (
        a == b
        or (math.isnan(a) and math.isnan(b))
        or math.isclose(a, b, rel_tol=1e-12)
    )


@given(ARRAYS)
def test_norms_are_those_of_numpy(array):
    """In float64, whatever the dtype, one by one or many at once."""
    wide = array.astype(np.float64).reshape(-1)
    with np.errstate(all="ignore"):
        expected = Norms(
            math.sqrt(math.fsum(wide * wide))
            if np.isfinite(wide * wide).all()
            else float(np.linalg.norm(wide))
            if np.isnan(wide).any()
            else math.inf,
            float(wide.mean()) if wide.size else 0.0,
            float(np.abs(wide).max()) if wide.size else 0.0,
        )
    for found in (
        compute_norms(array),
        compute_norms_of_small([np.ones(3), array, np.ones((2, 2))])[1],
    ):
        assert near(found.l2, expected.l2)
        assert near(found.largest, expected.largest)
        if np.isfinite(wide).all():
            scale = np.abs(wide).max() if wide.size else 0.0
            assert abs(found.mean - expected.mean) <= 1e-12 * scale + 1e-300


def test_large_arrays_go_by_in_blocks(monkeypatch):
    """Blocks give the norms of the whole, in any memory order."""
    array = np.random.default_rng(0).normal(size=(70, 50)).astype("float32")
    whole = compute_norms(array)
    monkeypatch.setattr(norms, "_BLOCK", 64)
    parts = compute_norms(array)
    assert all(map(near, parts, whole))
    assert all(map(near, compute_norms(np.asfortranarray(array)), whole))
    assert compute_norms(-array).mean == -parts.mean


def test_other_dtypes():
    """bfloat16 and complex numbers have norms too."""
    assert compute_norms(np.full(4, 2, ml_dtypes.bfloat16)) == Norms(
        4.0, 2.0, 2.0
    )
    found = compute_norms(np.array([3 + 4j, -3 + 4j]))
    assert (found.l2, found.mean) == (math.sqrt(50), 0.0)
    assert found.largest == 5.0


@given(ARRAYS)
def test_equal_arrays_are_not_apart(array):
    """An array is no distance from its copy, NaN or not."""
    found = compare_arrays(array, array.copy())
    assert found.num_differing == 0
    assert (found.largest_absolute, found.largest_relative) == (0.0, 0.0)
    assert found.largest_ulp in (0, None)


@given(
    st.sampled_from(["float16", "float32", "float64", ml_dtypes.bfloat16]),
    st.integers(0, 29),
    st.integers(1, 9),
)
def test_units_in_the_last_place(dtype, index, steps):
    """Steps to the next number are what is counted, across zero too."""
    array = np.linspace(-2, 2, 30).astype(dtype)
    array[3] = 0
    other = array.copy()
    bits = other.view(f"u{other.dtype.itemsize}")
    negative = np.signbit(array[index].astype("float64"))
    if not negative:
        bits[index] += steps
    else:
        bits[index] -= steps
    found = compare_arrays(array, other)
    assert found.largest_ulp == steps
    assert (found.num_differing, found.num_elements) == (1, 30)
    assert compare_arrays(other, array).largest_ulp == steps


def test_sizes_of_differences():
    """Absolute, relative, share; infinite against a NaN."""
    a = np.array([1.0, 2.0, 4.0, 8.0])
    b = np.array([1.0, 2.5, 4.0, 8.0])
    found = compare_arrays(a, b)
    assert (found.largest_absolute, found.largest_relative) == (0.5, 0.2)
    assert found.share == 0.25
    assert "1 of 4 elements differ (25.0%)" in str(found)
    b[0] = np.nan
    assert compare_arrays(a, b).largest_absolute == np.inf
    one, other = np.array([np.nan]), np.array([np.nan])
    other.view("u8")[0] += 1
    found = compare_arrays(one, other)
    assert (found.num_differing, found.largest_absolute) == (1, 0.0)
    assert compare_arrays(np.array([0.0]), np.array([-0.0])).largest_ulp == 1
    assert compare_arrays(np.array([3]), np.array([5])).largest_ulp is None


@pytest.mark.parametrize("other", [np.ones(3), np.ones(2, "float32")])
def test_arrays_of_other_shapes_are_not_measured(other):
    """Only arrays of one shape and dtype can be measured."""
    with pytest.raises(ValueError, match=r"one shape and dtype.*Received"):
        compare_arrays(np.ones(2), other)


def test_numbers_and_norms_apart():
    """Relative to the larger one; nothing is finite beside an infinite one."""
    assert relate(4.0, 5.0) == relate(5.0, 4.0) == 0.2
    assert relate(1.0, math.inf) == relate(1.0, math.nan) == math.inf
    assert relate(math.nan, math.nan) == relate(0.0, 0.0) == 0.0
    assert relate_norms(Norms(1.0, 0.1, 0.5), Norms(1.0, 0.1, 0.25)) == 0.5
    assert relate_norms(Norms(1.0, 0.1, 0.5), Norms(1.0, 0.1, 0.5)) == 0.0


def test_is_close():
    """As `numpy.allclose`, NaN equal to NaN."""
    a = np.array([1.0, np.nan, 100.0], "float32")
    assert is_close(a, a * np.float32(1 + 1e-6), rtol=1e-5, atol=0)
    assert not is_close(a, a * np.float32(1 + 1e-4), rtol=1e-5, atol=0)
    assert not is_close(a, np.nan_to_num(a), rtol=1e-5, atol=0)
