"""One line of a run's file to one entry of a run, and back.

What is read is not trusted: every field is checked, and nothing but an entry
or a `LineError` comes out. What is written passes the same checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_repro.common.lines import (
    LineError,
    LineFormat,
    NoEntryError,
    check_plain,
    convert,
    show,
)
from keras_repro.runs.run import (
    FORMAT,
    Count,
    RunData,
    RunEnd,
    RunHeader,
    RunRecord,
    RunResume,
)

Entry = RunHeader | RunData | RunRecord | RunResume | RunEnd

# Read, the newest last; only the last is written.
FORMATS = ("keras_repro.run/1", FORMAT)
_FAMILY = "keras_repro.run/"
CLASSES: dict[str, type[Entry]] = {
    "header": RunHeader,
    "data": RunData,
    "record": RunRecord,
    "resume": RunResume,
    "end": RunEnd,
}
_STARTS = tuple(f'{{"type":"{kind}","run_id":"' for kind in CLASSES)


class VersionError(LineError):
    """A header of a version that is not read here."""


@dataclass
class _Identity:
    seed: int | None = None
    model: str | None = None
    compile: str | None = None
    data: str | None = None
    continues: Mapping[str, Any] | None = None


@dataclass
class _Variable:
    role: str = ""
    place: str = ""
    dtype: str = ""
    shape: tuple[Count | None, ...] = ()


@dataclass
class _Named:
    """What of a header's open fields is known by name."""

    identity: _Identity
    variables: tuple[_Variable, ...] = ()


class _RunFormat(LineFormat[Entry]):
    checked = frozenset({"header"})

    def check(self, kind: str, content: dict[str, Any]) -> None:
        _check_version(content)
        of_what = f" of a line of type {kind!r}"
        check_plain(content, of_what)
        convert(content, _Named, of_what)


_format = _RunFormat(
    CLASSES,
    starts=_STARTS,
    must="Every line must be one JSON object that a ChecksumCallback wrote.",
)


def encode_entry(entry: Entry) -> str:
    """An entry as one line, or a `ValueError` if it could not be read back."""
    # The type and the run's id come first, so that a reader can skip a line.
    return _format.encode(entry)


def decode_entry(text: str) -> Entry | None:
    """An entry of one line, or `None` if it was torn; else a `LineError`."""
    return _format.decode(text)


def find_owner(text: str) -> str | None:
    """The run's id in a torn line, if it got that far."""
    for start in _STARTS:
        if text.startswith(start):
            run_id, closed, _ = text[len(start) :].partition('"')
            return run_id if closed else None
    return None


def _check_version(content: dict[str, Any]) -> None:
    version = content.get("format")
    if not isinstance(version, str) or not version.startswith(_FAMILY):
        raise NoEntryError(
            f"A header must have a `format` that begins with {_FAMILY!r}.",
            show(version),
        )
    if version not in FORMATS:
        known = " or ".join(map(repr, FORMATS))
        raise VersionError(
            f"The run's file must have the format {known}.", show(version)
        )
