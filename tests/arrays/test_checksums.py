"""The same bits give the same checksum, and any other bits another."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_repro.arrays.checksums import (
    checksum_array,
    checksum_config,
    combine_checksums,
    compute_checksum,
    describe_config,
)
from tests.checkout import DATA

GOLDEN = DATA / "golden_checksums.json"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = st.sampled_from(
    [
        *("bool", "int8", "uint16", "int64", "float16", "float32", "float64"),
        *("complex64", "U3", "S4", BFLOAT16),
    ]
).map(np.dtype)


@st.composite
def arrays(draw, min_side=0):
    """Arrays of any dtype, filled with any bits."""
    dtype = draw(DTYPES)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=min_side))
    if dtype.kind == "U":
        return draw(hnp.arrays(dtype, shape))
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), "u1")
    if dtype.kind == "b":
        return (data % 2).astype(dtype).reshape(shape)
    return data.copy().view(dtype).reshape(shape)


def _golden_arrays():
    count = np.arange(6)
    return {
        "bool": count.reshape(2, 3) % 2 == 0,
        "int8": count.astype("int8"),
        "uint32 0-d": np.array(7, "uint32"),
        "int64": count.astype("int64").reshape(3, 2),
        "float16": (count / 3).astype("float16"),
        "bfloat16": (count / 3).astype(ml_dtypes.bfloat16),
        "float32": (count / 3).astype("float32").reshape(1, 2, 3),
        "float64 special": np.array([np.nan, np.inf, -np.inf, -0.0, 0.0]),
        "complex128": count + 1j,
        "float32 empty": np.zeros((0, 3), "float32"),
        "str": np.array(["a", "\u00e9\u4e2d"]),
        "bytes": np.array([b"ab", b"c"]),
    }


def test_checksums_stay_the_same():
    """Version kr1 gives the recorded checksums, today and always."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = {name: checksum_array(a) for name, a in _golden_arrays().items()}
    found["nested"] = compute_checksum({"x": [1.0, 2], "y": (None, count_2())})
    found["combined"] = combine_checksums(["kr1:0", "kr1:1"])
    assert found == golden


def count_2():
    return np.arange(2, dtype="int32")


@given(arrays())
def test_memory_order_does_not_count(array):
    """Any layout in memory of the same values has the same checksum."""
    expected = checksum_array(array)
    padded = np.repeat(array[..., np.newaxis], 2, axis=-1)[..., 0]
    backwards = array[::-1].copy()[::-1] if array.ndim else array
    assert checksum_array(np.asarray(array, order="F")) == expected
    assert checksum_array(padded.reshape(array.shape)) == expected
    assert checksum_array(backwards) == expected


@given(arrays())
def test_byte_order_does_not_count(array):
    """Big-endian values have the same checksum, NaN payloads included."""
    if array.dtype != BFLOAT16:
        swapped = array.byteswap().view(array.dtype.newbyteorder(">"))
        assert checksum_array(swapped) == checksum_array(array)


@given(arrays(min_side=1), st.data())
def test_one_bit_counts(array, data):
    """Any one bit that is flipped gives another checksum."""
    if array.dtype.kind in "bU":
        return
    other = array.copy()
    view = other.reshape(-1).view(np.uint8)
    byte = data.draw(st.integers(0, view.size - 1))
    view[byte] ^= 1 << data.draw(st.integers(0, 7))
    assert checksum_array(other) != checksum_array(array)


@given(arrays())
@settings(max_examples=50)
def test_shape_and_dtype_count(array):
    """The same bytes in another shape or dtype have another checksum."""
    expected = checksum_array(array)
    assert checksum_array(array[np.newaxis]) != expected
    if array.dtype.itemsize == 4 and array.dtype.kind == "f":
        assert checksum_array(array.view(np.int32)) != expected


def test_equal_sized_dtypes_differ():
    """float16 and bfloat16 with the same bytes are not the same."""
    bits = np.arange(4, dtype="uint16")
    seen = {
        checksum_array(bits.view(dtype))
        for dtype in ("uint16", "int16", "float16", BFLOAT16)
    }
    assert len(seen) == 4


@pytest.mark.parametrize("bits", [0x7FF8000000000001, 0xFFF8000000000000])
def test_nan_payloads_count(bits):
    """Two NaNs of other bits have other checksums."""
    other = np.array([bits], "uint64").view("float64")
    assert np.isnan(other[0])
    assert checksum_array(other) != checksum_array(np.array([np.nan]))


def test_minus_zero_counts():
    """-0.0 is not 0.0."""
    assert checksum_array(-0.0) != checksum_array(0.0)


def test_empty_arrays_differ_by_shape():
    """Arrays without elements are told apart by shape and dtype."""
    made = [np.zeros(0), np.zeros((0, 2)), np.zeros(0, "int8"), np.zeros(())]
    assert len({checksum_array(array) for array in made}) == 4


@pytest.mark.parametrize(
    "bad",
    [
        np.array([object()]),
        np.array([1.0], np.longdouble),
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
        np.zeros(2, "V4"),
    ],
    ids=["object", "longdouble", "structured", "void"],
)
def test_no_canonical_bytes(bad):
    """What has no canonical bytes is refused, with the next step."""
    with pytest.raises(TypeError, match=r"Received: an array of dtype .*\. "):
        checksum_array(bad)


def test_nested_structures():
    """The order of keys does not count; the order of a list does."""
    a, b = np.zeros(2), np.ones(2)
    expected = compute_checksum({"a": a, "b": [a, b]})
    assert compute_checksum({"b": (a, b), "a": a}) == expected
    assert compute_checksum({"a": a, "b": [b, a]}) != expected
    assert compute_checksum({"a": b, "b": [a, b]}) != expected
    assert compute_checksum({"c": a, "b": [a, b]}) != expected
    assert compute_checksum([[a], b]) != compute_checksum([a, [b]])
    assert compute_checksum([]) != compute_checksum([None])
    assert compute_checksum("ab") != compute_checksum("ac")
    assert compute_checksum([1.0, 2.0]) == checksum_array(np.array([1.0, 2.0]))


def test_pandas():
    """Column names do not count; values, order and dtypes do."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [1, 2]})
    expected = compute_checksum(frame)
    assert compute_checksum(frame.rename(columns={"a": "z"})) == expected
    assert compute_checksum(frame[["b", "a"]]) != expected
    assert compute_checksum(frame.astype("float32")) != expected
    assert compute_checksum(frame["a"]) == checksum_array([1.0, 2.0])
    twice = pd.concat([frame, frame], axis=1)
    assert compute_checksum(twice) != expected


@pytest.mark.requires_backend("torch")
def test_torch_tensors():
    """A torch tensor has the checksum of the same values in NumPy."""
    import torch

    values = np.arange(6, dtype="float32").reshape(2, 3)
    tensor = torch.tensor(values, requires_grad=True)
    assert compute_checksum(tensor) == compute_checksum(values)
    half = torch.tensor(values).bfloat16().T
    expected = checksum_array(values.astype(BFLOAT16).T)
    assert compute_checksum(half) == expected
    assert compute_checksum(half + 1) != expected


def test_combining():
    """Order and number of the parts count."""
    assert combine_checksums("ab") != combine_checksums("ba")
    assert combine_checksums(["a"]) != combine_checksums(["a", "a"])
    assert combine_checksums([]).startswith("kr1:")


def test_config_is_blind_to_names():
    """Numbers that Keras gives out do not count; the wiring does."""

    def config(first, second, wired):
        layers = [{"name": first}, {"name": second, "inputs": [wired, 0]}]
        return {"name": "model_3", "layers": layers, "module": first}

    expected = checksum_config(config("dense", "dense_1", "dense"))
    assert checksum_config(config("dense_7", "dense_9", "dense_7")) == expected
    assert checksum_config(config("dense", "dense_1", "dense_1")) != expected


def test_config_of_other_values():
    """Numbers, arrays and lambdas of a configuration count."""

    def dump(function):
        import base64
        import marshal

        code = base64.b64encode(marshal.dumps(function.__code__)).decode()
        value = [code, function.__defaults__, None]
        return {"class_name": "__lambda__", "config": {"value": value}}

    first = checksum_config([1.5, None, np.zeros(2), dump(lambda x: x + 1)])
    second = checksum_config([1.5, None, np.zeros(2), dump(lambda x: x + 1)])
    assert first == second
    others = [
        [2.5, None, np.zeros(2), dump(lambda x: x + 1)],
        [1.5, None, np.ones(2), dump(lambda x: x + 1)],
        [1.5, None, np.zeros(2), dump(lambda x: x + 2)],
        [1.5, None, np.zeros(2), dump(lambda x: [y in {1, 2} for y in x])],
    ]
    assert len({first, *map(checksum_config, others)}) == 5


def test_config_as_a_person_reads_it():
    """The class and its settings stay, without the names that Keras counts."""
    given = {"class_name": "SGD", "config": {"name": "a", "momentum": 0.5}}
    assert describe_config(given) == {"class": "SGD", "momentum": 0.5}


def test_config_of_unreadable_lambda():
    """A lambda that cannot be read counts by its text."""
    lambdas = [
        {"class_name": "__lambda__", "config": {"value": [text, None, None]}}
        for text in ("AAAA", "AAAB")
    ]
    assert checksum_config(lambdas[0]) != checksum_config(lambdas[1])


@pytest.mark.alike
@pytest.mark.requires_backend
def test_no_keras_is_loaded(run_python):
    """Arrays get their checksum without Keras or a backend."""
    code = (
        "import sys, numpy as np\n"
        "from keras_repro.arrays.checksums import compute_checksum\n"
        "import keras_repro.runs.comparison\n"
        "print(compute_checksum({'x': np.arange(3)}))\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch'}\n"
        "assert not heavy & set(sys.modules), sys.modules.keys() & heavy\n"
    )
    result = run_python("-c", code)
    assert result.stdout.strip() == compute_checksum({"x": np.arange(3)})
