"""Arrays in HDF5 files, read with nothing trusted.

One reader for snapshots and initial states: what a file claims is looked at
before a value is read, so that no claim takes memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import checksum_array
from keras_repro.arrays.hdf5_texts import HeapTexts

# Bytes of a chunk; and below which an array is stored as it is.
_CHUNK = 1 << 20
_SMALL = 1 << 12
_GZIP_LEVEL = 1
# Deflate cannot do better: what claims more was never written.
_LARGEST_RATIO = 1032
# HDF5 takes 64 KiB for an attribute; ours are words.
LONGEST_TEXT = 1 << 12
# Stored as they are; any other dtype as unsigned integers of its bits.
_STORED = {
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "float32", "float64"),
}


class DamagedError(Exception):
    """What is wrong with a file, in short."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that holds arrays, as its messages name it."""

    name: str  # Such as `"A snapshot"`.
    format: str  # What its attribute `format` must be.
    next_step: str  # What a person does about a file that is refused.
    has_long_texts: bool  # Whether its strings are of variable length.
    is_compressed: bool  # Whether its arrays may be.


# --- writing -------------------------------------------------------------


def make_image(fill: Callable[[Any], None]) -> bytes:
    """The bytes of an HDF5 file, made in memory."""
    import h5py

    # On a full disk libhdf5 can bring down the whole process while it closes a
    # file (seen with h5py 3.16 and HDF5 2.0), so it is kept away from the disk.
    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        return bytes(file.id.get_file_image())


def set_text(
    target: Any,
    name: str,
    text: str,
    kind: FileKind,
    longest: int = LONGEST_TEXT,
) -> None:
    """Write an attribute of text."""
    data = text.encode()
    if len(data) > longest or "\0" in text:
        raise ValueError(
            f"{kind.name} must have a {name} of at most {longest} bytes and "
            f"no NUL. Received: {len(data)} bytes. Use a shorter name."
        )
    # Of fixed length where the kind allows: it needs no heap to be damaged.
    target.attrs[name] = text if kind.has_long_texts else np.bytes_(data)


def write_array(
    file: Any, name: str, array: npt.NDArray[Any], kind: FileKind
) -> Any:
    """Write an array into a dataset of its own."""
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
    set_text(dataset, "dtype", array.dtype.name, kind)
    return dataset


def write_raw(file: Any, name: str, array: npt.NDArray[Any]) -> Any:
    """Write the bytes of an array of numbers or booleans into a dataset."""
    _stored_dtype(array.dtype)
    raw = np.frombuffer(array.tobytes(), np.uint8)
    return file.create_dataset(name, data=raw)


def choose_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Choose a chunk of at most 1 MiB: whole rows where they fit."""
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


# --- reading -------------------------------------------------------------


class ArrayFile:
    """The datasets of an open file, none trusted; made by `open_file`."""

    def __init__(self, file: Any, kind: FileKind, data: mmap.mmap) -> None:
        # Every method raises a `DamagedError`, or whatever h5py raises over bad
        # bytes.
        self._file = file
        self._kind = kind
        self._size = size = len(data)
        self._texts = HeapTexts(data) if kind.has_long_texts else None
        found = self.text("format")
        if found != kind.format:
            msg = f"its format is {found!a}"
            raise DamagedError(msg)
        self._datasets: dict[str, Any] = {}
        # Two datasets may claim the same bytes, and then more than there are.
        stored = 0
        for name in _list_names(file):
            with naming(name):
                dataset = self._datasets[name] = _get_dataset(file, name)
                stored += dataset.id.get_storage_size()
                if stored > size:
                    msg = f"up to it {stored} bytes are claimed of {size}"
                    raise DamagedError(msg)

    @property
    def names(self) -> list[str]:
        """The datasets, in order."""
        return list(self._datasets)

    def text(
        self, name: str, dataset: str = "", longest: int = LONGEST_TEXT
    ) -> str:
        """The string of an attribute, of a dataset or else of the file."""
        import h5py

        target = self._datasets[dataset] if dataset else self._file
        if self._texts is not None:
            address = h5py.h5o.get_info(target.id).addr
            return self._texts.read(address, name, longest).decode()
        attribute = target.attrs.get_id(name)
        kind = attribute.get_type()
        if (
            attribute.shape != ()
            or kind.get_class() != h5py.h5t.STRING
            or kind.is_variable_str()
            or kind.get_size() > longest
        ):
            msg = f"{name!a} is no short string"
            raise DamagedError(msg)
        return bytes(target.attrs[name]).decode()

    def integer(self, name: str, dataset: str) -> int:
        """The whole number of an attribute of a dataset."""
        import h5py

        target = self._datasets[dataset]
        attribute = target.attrs.get_id(name)
        if attribute.shape != () or not attribute.get_type().equal(
            h5py.h5t.STD_I64LE
        ):
            msg = f"{name!a} is no whole number"
            raise DamagedError(msg)
        return int(target.attrs[name])

    def array(self, name: str) -> npt.NDArray[Any]:
        """An array that `write_array` wrote, with its checksum verified."""
        dtype = find_dtype(self.text("dtype", name))
        values = self._values(name, _stored_dtype(dtype))
        if dtype.kind != "c":
            return self._verified(name, values.view(dtype))
        if values.shape[-1:] != (2,):
            msg = "a complex array must have pairs"
            raise DamagedError(msg)
        pairs = values.reshape(-1).view(dtype)
        return self._verified(name, pairs.reshape(values.shape[:-1]))

    def raw(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """An array that `write_raw` wrote, with its checksum verified."""
        size = math.prod(shape) * dtype.itemsize
        held = self._datasets[name].shape
        if held != (size,):
            msg = f"it must have {size} bytes and has the shape {held}"
            raise DamagedError(msg)
        values = self._values(name, np.dtype(np.uint8))
        return self._verified(name, values.view(dtype).reshape(shape))

    def _verified(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found, stated = checksum_array(array), self.text("checksum", name)
        if found != stated:
            msg = f"it has the checksum {found} and not {stated!a}"
            raise DamagedError(msg)
        return array

    def _values(self, name: str, stored: np.dtype[Any]) -> npt.NDArray[Any]:
        dataset = self._datasets[name]
        _check_storage(dataset, stored, self._size, self._kind)
        values: npt.NDArray[Any] = np.asarray(dataset[()])
        return values


@contextmanager
def open_file(path: Path, kind: FileKind) -> Iterator[ArrayFile]:
    """Open a file to read its arrays."""
    import h5py

    if not path.exists():
        raise FileNotFoundError(
            f"{kind.name} must exist to be read. Received: {str(path)!r}, "
            f"where there is none. {kind.next_step}"
        )
    with told(path, kind):
        if not path.is_file():
            msg = "it is no regular file"
            raise DamagedError(msg)
        # The HDF5 library parses the file, and is only as safe as its version.
        file = h5py.File(path, "r", locking=False)
    try:
        with ExitStack() as stack:
            with told(path, kind):
                raw = stack.enter_context(path.open("rb"))
                data = stack.enter_context(_map(raw))
                opened = ArrayFile(file, kind, data)
            yield opened
    finally:
        with suppress(Exception):  # A damaged file may not close well.
            file.close()


def _map(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def told(path: Path, kind: FileKind) -> Iterator[None]:
    """Turn whatever is raised over bad bytes into one `ValueError`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise ValueError(
            f"{kind.name} must be whole and of the format {kind.format!r}. "
            f"Received: {str(path)!r}: {_say(error)[:300]}. The file is "
            f"damaged or something else. {kind.next_step}"
        ) from None


@contextmanager
def naming(dataset: str) -> Iterator[None]:
    """Have what is raised name the dataset that it is about."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        msg = f"dataset {dataset!a}: {_say(error)}"
        raise DamagedError(msg) from None


def _get_dataset(file: Any, name: str) -> Any:
    """A dataset in this very file; links to elsewhere are not followed."""
    import h5py

    kind = file.get(name, getlink=True)
    if not isinstance(kind, h5py.HardLink) or (
        file.get(name, getclass=True) is not h5py.Dataset
    ):
        msg = "it is no dataset of its own"
        raise DamagedError(msg)
    dataset = file[name]
    # Before anything else, such as its shape, is asked for: HDF5 would look
    # for that in the other files.
    plan = dataset.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        msg = "its values lie in other files"
        raise DamagedError(msg)
    return dataset


def _say(error: Exception) -> str:
    return str(error) if isinstance(error, DamagedError) else repr(error)


def _list_names(file: Any) -> list[str]:
    """The names of the datasets: numbers from 0 on, and no others."""
    found = sorted(file, key=lambda name: (len(name), name))
    expected = [f"{place:06d}" for place in range(len(found))]
    for name, wanted in zip(found, expected, strict=True):
        if name != wanted:
            is_number = name.isascii() and name.isdecimal()
            with naming(wanted if is_number else name):
                msg = "it is not there" if is_number else "it is none of ours"
                raise DamagedError(msg)
    return expected


def find_dtype(name: str) -> np.dtype[Any]:
    """A dtype of numbers or booleans by its name, and no other."""
    if name in {*_STORED, "bool", "complex64", "complex128"}:
        return np.dtype(name)
    if name in _extended_names():
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    msg = f"the dtype {name!a} is not known"
    raise DamagedError(msg)


def _check_storage(
    dataset: Any, stored: np.dtype[Any], file_size: int, file_kind: FileKind
) -> None:
    """Refuse what we never write, before any memory is taken for it."""
    import h5py

    plan, kind = dataset.id.get_create_plist(), dataset.id.get_type()
    if not kind.equal(h5py.h5t.py_create(stored.newbyteorder("<"))):
        msg = f"its values are not {stored.name}"
        raise DamagedError(msg)
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    ours = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
    if filters and not (file_kind.is_compressed and filters == ours):
        msg = f"its filters are {filters}"
        raise DamagedError(msg)
    if dataset.shape is None:
        msg = "it has no shape"
        raise DamagedError(msg)
    size = math.prod(dataset.shape) * stored.itemsize
    chunk = 0
    if plan.get_layout() == h5py.h5d.CHUNKED:
        chunk = math.prod(plan.get_chunk()) * stored.itemsize
    there = min(dataset.id.get_storage_size(), file_size)
    if size > there * (_LARGEST_RATIO if filters else 1) or chunk > _CHUNK:
        msg = f"it claims {size} bytes and holds {there}"
        raise DamagedError(msg)
