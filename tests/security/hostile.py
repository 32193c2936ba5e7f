"""Hostile HDF5 files, made in place from a good one; Keras is not needed.

Each of `HARM` is done to the dataset `000000` of a snapshot or of an initial
state, or beside it.
"""

import h5py
import numpy as np

HUGE = 2**40
FIRST = "000000"


def next_name(content):
    """The name that one more dataset of ours would have."""
    return f"{len(content):06d}"


def soft_link(content):
    content[next_name(content)] = h5py.SoftLink("/000000")


def soft_link_to_nothing(content):
    del content[FIRST]
    content[FIRST] = h5py.SoftLink("/nothing")


def external_link(content):
    content[next_name(content)] = h5py.ExternalLink("/etc/passwd", "/000000")


def external_link_in_its_place(content):
    del content[FIRST]
    content[FIRST] = h5py.ExternalLink("/etc/passwd", "/")


def group(content):
    content.create_group(next_name(content))


def group_in_its_place(content):
    del content[FIRST]
    content.create_group(FIRST)


def named_type(content):
    content[next_name(content)] = np.dtype("float32")


def loop(content):
    content[next_name(content)] = content["/"]


def twice(content):
    content[next_name(content)] = content[FIRST]


def stray(content):
    content["stray"] = np.zeros(3, "uint8")


def one_more(content):
    content.copy(FIRST, next_name(content))


def gone(content):
    del content[FIRST]


def renamed(content):
    content.move(FIRST, "0")


def no_role(content):
    del content[FIRST].attrs["role"]


def no_checksum(content):
    del content[FIRST].attrs["checksum"]


def no_text(content):
    content[FIRST].attrs["role"] = 3


def long_text(content):
    value = content[FIRST].attrs["place"]
    text = "a" * 5000
    content[FIRST].attrs["place"] = (
        text if isinstance(value, str) else np.bytes_(text.encode())
    )


def object_for_text(content):
    content[FIRST].attrs["role"] = content.ref


def replace(content, name, make):
    """Put another dataset in the place of one, with its attributes."""
    attributes = dict(content[name].attrs)
    del content[name]
    made = make(content, name)
    made.attrs.update(attributes)


def replaced(**options):
    """A change that makes the first dataset anew, of the kind that it had."""

    def change(content):
        # An initial state holds bytes, whatever they stand for.
        given = dict(options)
        if content[FIRST].dtype == "uint8" and "float32" in str(
            given.get("dtype")
        ):
            given["dtype"] = "uint8"
        replace(
            content,
            FIRST,
            lambda file, name: file.create_dataset(name, **given),
        )

    return change


def virtual(content, path="/etc/passwd", source="x"):
    dataset = content[FIRST]
    layout = h5py.VirtualLayout(dataset.shape, dataset.dtype)
    layout[...] = h5py.VirtualSource(path, source, dataset.shape)
    replace(
        content,
        FIRST,
        lambda file, name: file.create_virtual_dataset(name, layout),
    )


def virtual_in_itself(content):
    content.copy(FIRST, "values")
    virtual(content, ".", "values")


GZIP = {"compression": "gzip", "shuffle": True}
HARM = {
    **{
        one.__name__: one
        for one in (
            *(soft_link, soft_link_to_nothing, external_link, group, loop),
            *(external_link_in_its_place, group_in_its_place, named_type),
            *(twice, stray, gone, renamed, no_role, no_text, no_checksum),
            *(long_text, object_for_text, virtual, virtual_in_itself),
        )
    },
    "never written": replaced(shape=(HUGE,), dtype="float32"),
    "never written chunks": replaced(
        shape=(HUGE,), dtype="float32", chunks=(100,), **GZIP
    ),
    "huge chunks": replaced(
        data=np.zeros(2**21, "float32"), chunks=(2**21,), **GZIP
    ),
    "inflated": replaced(data=np.zeros(2**23, "uint8"), **GZIP),
    "other filter order": replaced(
        data=np.zeros(9999, "float32"), compression="gzip"
    ),
    "other filters": replaced(
        data=np.zeros(9999, "float32"), compression="lzf", fletcher32=True
    ),
    "external": replaced(
        shape=(36,), dtype="float32", external=[("/etc/passwd", 0, 144)]
    ),
    "objects": replaced(
        data=["a"], dtype=h5py.string_dtype(), shape=(1,), maxshape=None
    ),
    "vlen": replaced(shape=(3,), dtype=h5py.vlen_dtype("float32")),
    "compound": replaced(shape=(3,), dtype=[("a", "f4"), ("b", "i4")]),
    "reference": replaced(shape=(3,), dtype=h5py.ref_dtype),
    "enum": replaced(shape=(3,), dtype=bool),
    "big-endian": replaced(data=np.ones(3, ">f4")),
    "null": replaced(data=h5py.Empty("float32")),
    "other values": replaced(data=np.ones(3, "float32")),
    "other shape": replaced(data=np.ones((3, 3, 3), "float32")),
    "wide": replaced(shape=(0, HUGE), dtype="float32"),
}
