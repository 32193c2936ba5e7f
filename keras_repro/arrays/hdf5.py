"""One array to one HDF5 dataset and back, with nothing trusted on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

# Bytes of a chunk; and below which an array is stored as it is.
_CHUNK = 1 << 20
_SMALL = 1 << 12
_GZIP_LEVEL = 1
# Deflate cannot do better: what claims more was never written.
_LARGEST_RATIO = 1032
# HDF5 takes 64 KiB for an attribute; ours are words.
_LONGEST_TEXT = 1 << 12
# Stored as they are; any other dtype as unsigned integers of its bits.
_STORED = {
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "float32", "float64"),
}


class DamagedError(Exception):
    """What is wrong with a file, in short."""


def make_image(fill: Callable[[Any], None]) -> bytes:
    """The bytes of an HDF5 file, made in memory.

    On a full disk libhdf5 can bring down the whole process while it closes a
    file (seen with h5py 3.16 and HDF5 2.0), so it is kept away from the disk.
    """
    import h5py

    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        return bytes(file.id.get_file_image())


def set_text(target: Any, name: str, text: str) -> None:
    """Write an attribute of fixed length: it needs no heap to be damaged.

    Raises:
        ValueError: If it is too long or could not be read back.
    """
    data = text.encode()
    if len(data) > _LONGEST_TEXT or "\0" in text:
        raise ValueError(
            f"A snapshot's {name} must have at most {_LONGEST_TEXT} bytes and "
            f"no NUL. Received: {len(data)} bytes. Use a shorter name."
        )
    target.attrs[name] = np.bytes_(data)


def get_text(target: Any, name: str) -> str:
    """Read a string of fixed length; its type is checked first.

    Raises:
        DamagedError: If it is something else.
        Exception: Whatever h5py raises over bad bytes.
    """
    import h5py

    attribute = target.attrs.get_id(name)
    kind = attribute.get_type()
    if (
        attribute.shape != ()
        or kind.get_class() != h5py.h5t.STRING
        or kind.is_variable_str()
        or kind.get_size() > _LONGEST_TEXT
    ):
        msg = f"{name!a} is no short string"
        raise DamagedError(msg)
    return bytes(target.attrs[name]).decode()


def write_array(file: Any, name: str, array: npt.NDArray[Any]) -> Any:
    """Write an array into a dataset of its own.

    Raises:
        TypeError: If it holds anything else.
    """
    stored = _to_stored(array)
    options: dict[str, Any] = {}
    if stored.nbytes > _SMALL:
        options = {
            "chunks": choose_chunks(stored.shape, stored.dtype.itemsize),
            "shuffle": True,
            "compression": "gzip",
            "compression_opts": _GZIP_LEVEL,
        }
    dataset = file.create_dataset(
        name, data=stored, track_times=False, **options
    )
    set_text(dataset, "dtype", array.dtype.name)
    return dataset


def choose_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Choose a chunk of at most 1 MiB: whole rows where they fit.

    Example:
        >>> choose_chunks((1000, 1000), 4)
        (262, 1000)
        >>> choose_chunks((10, 1000, 1000), 4)
        (1, 262, 1000)
    """
    chunk = [1] * len(shape)
    room = max(1, _CHUNK // itemsize)
    for axis in reversed(range(len(shape))):
        chunk[axis] = min(shape[axis], room)
        room //= shape[axis]
        if not room:
            break
    return tuple(chunk)


def _to_stored(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Little-endian numbers; of other dtypes the bits."""
    if array.dtype.byteorder == ">" or not array.dtype.isnative:
        array = array.byteswap().view(array.dtype.newbyteorder())
    kind = _stored_dtype(array.dtype)
    if array.dtype.kind == "c":
        array = np.ascontiguousarray(array).reshape(array.shape)
        parts = array.real.dtype
        return array.reshape(-1).view(parts).reshape(*array.shape, 2)
    return array.view(kind)


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.name in _STORED:
        return dtype
    if dtype.name in {"complex64", "complex128"}:
        return np.dtype(f"float{dtype.itemsize * 4}")
    if dtype.kind == "b" or dtype.name in _extended_names():
        return np.dtype(f"uint{dtype.itemsize * 8}")
    raise TypeError(
        "A snapshot must hold numbers or booleans. Received: an array of "
        f"dtype {dtype}. Leave this variable out."
    )


def _extended_names() -> set[str]:
    """The dtypes of ml_dtypes: bfloat16, float8 and the like."""
    try:
        import ml_dtypes
    except ImportError:
        return set()
    return {
        name
        for name in dir(ml_dtypes)
        if name.startswith(("bfloat16", "float", "int", "uint"))
    }


def read_array(dataset: Any, file_size: int) -> npt.NDArray[Any]:
    """Read an array that `write_array` wrote.

    Raises:
        DamagedError: If `write_array` could not have written it.
        Exception: Whatever h5py raises over bad bytes.
    """
    name = get_text(dataset, "dtype")
    dtype = _find_dtype(name)
    stored = _stored_dtype(dtype)
    _check_storage(dataset, stored, file_size)
    values: npt.NDArray[Any] = np.asarray(dataset[()])
    if dtype.kind != "c":
        return values.view(dtype)
    if values.shape[-1:] != (2,):
        msg = "a complex array must have pairs"
        raise DamagedError(msg)
    return values.reshape(-1).view(dtype).reshape(values.shape[:-1])


def _find_dtype(name: str) -> np.dtype[Any]:
    if name in {*_STORED, "bool", "complex64", "complex128"}:
        return np.dtype(name)
    if name in _extended_names():
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    msg = f"the dtype {name!a} is not known"
    raise DamagedError(msg)


def _check_storage(dataset: Any, stored: np.dtype[Any], file_size: int) -> None:
    """Refuse what we never write, before any memory is taken for it."""
    import h5py

    plan, kind = dataset.id.get_create_plist(), dataset.id.get_type()
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL or plan.get_external_count():
        msg = "its values lie in other files"
        raise DamagedError(msg)
    if not kind.equal(h5py.h5t.py_create(stored.newbyteorder("<"))):
        msg = f"its values are not {stored.name}"
        raise DamagedError(msg)
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if filters not in ([], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
        msg = f"its filters are {filters}"
        raise DamagedError(msg)
    if dataset.shape is None:
        msg = "it has no shape"
        raise DamagedError(msg)
    size = math.prod(dataset.shape) * stored.itemsize
    chunk = 0
    if layout == h5py.h5d.CHUNKED:
        chunk = math.prod(plan.get_chunk()) * stored.itemsize
    there = min(dataset.id.get_storage_size(), file_size)
    if size > there * (_LARGEST_RATIO if filters else 1) or chunk > _CHUNK:
        msg = f"it claims {size} bytes and holds {there}"
        raise DamagedError(msg)
