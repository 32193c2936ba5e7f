"""Texts of variable length in an HDF5 file, read without libhdf5.

They lie in a heap, and over a damaged one libhdf5 (seen with 1.14.6) goes round
for ever, or takes gigabytes: it believes the length that stands beside a text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

# How a file begins, of the superblock that h5py writes: the sizes of its
# addresses and lengths, and that addresses count from its first byte.
_SUPERBLOCK, _SIZES, _BASE = b"\x89HDF\r\n\x1a\n\0", b"\x08\x08", bytes(8)
# The head of an object (version, messages, bytes), of a message in it (kind,
# bytes, flags), and of an attribute (version, bytes of name, type and shape).
_OBJECT = struct.Struct("<BxHxxxxIxxxx")
_MESSAGE = struct.Struct("<HHBxxx")
_ATTRIBUTE = struct.Struct("<BxHHH")
_CONTINUED, _IS_ATTRIBUTE, _ELSEWHERE = 16, 12, 2
# A text of variable length, one of them, and where it is: its bytes, the heap
# and its number in there.
_TEXT, _ONE = b"\x19\x01\x01\0\x10\0\0\0", b"\x01\0"
_PLACE = struct.Struct("<IQI")
# The head of a heap (bytes), and of a piece of it (number, bytes).
_HEAP = struct.Struct("<4sB3xQ")
_PIECE = struct.Struct("<HHIQ")


class HeapTexts:
    """The texts of a file, which never take more bytes than it has."""

    def __init__(self, data: Any) -> None:
        # Any method raises an exception over bytes that h5py did not write.
        begins = data[: len(_SUPERBLOCK)], data[13:15], data[24:32]
        if begins != (_SUPERBLOCK, _SIZES, _BASE):
            msg = "it begins as no file of h5py"
            raise ValueError(msg)
        self._data = data
        self._objects: dict[int, dict[bytes, bytes]] = {}
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._left = len(data)

    def _spend(self, size: int) -> None:
        """What lies within each other could be gone through for hours."""
        self._left -= size
        if self._left < 0:
            msg = "its texts take more bytes than it has"
            raise ValueError(msg)

    def read(self, address: int, name: str, longest: int) -> bytes:
        """Read the text of an attribute of the object at an address."""
        if address not in self._objects:
            self._objects[address] = dict(self._attributes(address))
        found = self._objects[address].get(name.encode())
        if found is None:
            msg = f"{name!a} is no text"
            raise ValueError(msg)
        size, heap, number = _PLACE.unpack(found)
        if size > longest:
            msg = f"{name!a} has {size} bytes, of which {longest} may be"
            raise ValueError(msg)
        if not size:
            return b""
        start, held = self._pieces(heap)[number]
        if held != size:
            msg = f"{name!a} has {held} bytes and not {size}"
            raise ValueError(msg)
        return bytes(self._data[start : start + size])

    def _attributes(self, address: int) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of each attribute of an object that is one text."""
        for place, size in self._attribute_messages(address):
            body = bytes(self._data[place : place + size])
            version, *sizes = _ATTRIBUTE.unpack_from(body)
            name, of_type, shape, value = _split(body, sizes)
            is_text = of_type[: len(_TEXT)] == _TEXT and shape[:2] == _ONE
            if version == 1 and is_text and len(value) >= _PLACE.size:
                yield name.rstrip(b"\0"), value[: _PLACE.size]

    def _attribute_messages(self, address: int) -> Iterator[tuple[int, int]]:
        """Where the messages of an object lie that hold its attributes."""
        version, count, size = _OBJECT.unpack_from(self._data, address)
        if version != 1:
            msg = "its head is none of ours"
            raise ValueError(msg)
        blocks = [(address + _OBJECT.size, size)]
        while blocks:
            place, size = blocks.pop(0)
            self._spend(size)
            end = place + size
            while count and place + _MESSAGE.size <= end:
                kind, size, flags = _MESSAGE.unpack_from(self._data, place)
                place += _MESSAGE.size
                count -= 1
                if kind == _CONTINUED:
                    blocks.append(struct.unpack_from("<QQ", self._data, place))
                elif kind == _IS_ATTRIBUTE and not flags & _ELSEWHERE:
                    yield place, size
                place += size

    def _pieces(self, address: int) -> dict[int, tuple[int, int]]:
        """Where each piece of a heap lies, by its number."""
        if address in self._heaps:
            return self._heaps[address]
        mark, version, size = _HEAP.unpack_from(self._data, address)
        self._spend(size)
        if (mark, version) != (b"GCOL", 1):
            msg = f"there is no heap at byte {address}"
            raise ValueError(msg)
        pieces: dict[int, tuple[int, int]] = {}
        place, end = address + _HEAP.size, address + size
        while place + _PIECE.size <= end:
            number, _, _, length = _PIECE.unpack_from(self._data, place)
            if not number:  # What is free, up to the end.
                break
            pieces[number] = place + _PIECE.size, length
            place += _PIECE.size + -(-length // 8) * 8
        self._heaps[address] = pieces
        return pieces


def _split(body: bytes, sizes: list[int]) -> list[bytes]:
    """Pieces of these sizes, each padded to 8 bytes, and what is left."""
    pieces, place = [], _ATTRIBUTE.size
    for size in sizes:
        pieces.append(body[place : place + size])
        place += -(-size // 8) * 8
    return [*pieces, body[place:]]
