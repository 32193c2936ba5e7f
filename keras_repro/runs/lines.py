"""One line of a run's file to one entry of a run, and back.

What is read is not trusted: every field is checked, and nothing but an entry
or a `LineError` comes out.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import orjson

from keras_repro.arrays.norms import Norms
from keras_repro.common.checks import LARGEST_INT, is_every
from keras_repro.runs.run import (
    DRIFTED,
    FAILED,
    FINISHED,
    FORMAT,
    INTERRUPTED,
    RUN_ID,
    RunData,
    RunEnd,
    RunHeader,
    RunRecord,
)

Entry = RunHeader | RunData | RunRecord | RunEnd
CLASSES: dict[str, type[Entry]] = {
    "header": RunHeader,
    "data": RunData,
    "record": RunRecord,
    "end": RunEnd,
}

_STATUSES = (FINISHED, INTERRUPTED, FAILED, DRIFTED)
_NON_FINITE = {name: float(name) for name in ("nan", "inf", "-inf")}
# Far deeper than any configuration; far from Python's limit of recursion.
_DEEPEST = 100

_Check = Callable[[Any], Any]


class WrongError(Exception):
    """A value that is not what its field must be; says what that is."""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise WrongError("a string")


def _run_id(value: Any) -> str:
    if isinstance(value, str) and RUN_ID.fullmatch(value):
        return value
    raise WrongError("1 to 64 letters, digits, '_', '.' or '-'")


def _status(value: Any) -> str:
    if isinstance(value, str) and value in _STATUSES:
        return value
    raise WrongError("one of " + ", ".join(map(repr, _STATUSES)))


def _every(value: Any) -> str | int:
    if is_every(value):
        return value
    raise WrongError("'epoch', 'batch' or a positive integer")


def _count(value: Any) -> int:
    if type(value) is int and 0 <= value <= LARGEST_INT:
        return value
    raise WrongError("an integer from 0 to 2**63 - 1")


def _number(value: Any) -> float:
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) <= 2**53:
        return float(value)
    raise WrongError('finite numbers, "nan", "inf" or "-inf"')


def _norms(value: Any) -> Norms:
    if isinstance(value, list) and len(value) == len(Norms._fields):
        return Norms(*map(_number, value))
    raise WrongError("lists of three numbers, by role and place")


def _optional(check: _Check) -> _Check:
    def check_optional(value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except WrongError as error:
            msg = f"{error}, or null"
            raise WrongError(msg) from None

    return check_optional


def _mapping_of(check: _Check) -> _Check:
    def check_mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise WrongError("an object")
        return {name: check(one) for name, one in value.items()}

    return check_mapping


def _tuple_of(check: _Check) -> _Check:
    def check_list(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise WrongError("a list")
        return tuple(check(one) for one in value)

    return check_list


def _plain(value: Any) -> dict[str, Any]:
    """An object of anything, but neither too deep nor with numbers too big."""
    if not isinstance(value, dict):
        raise WrongError("an object")
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [one for outer in level for one in _contents(outer)]
        if not all(map(_is_plain_number, level)):
            raise WrongError("an object of finite numbers within 64 bits")
        if not level:
            return value
    raise WrongError(f"an object nested less than {_DEEPEST} deep")


def _contents(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _is_plain_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) < 2**64


def _identity(value: Any) -> dict[str, Any]:
    _plain(value)
    seed = value.get("seed")
    if seed is not None and type(seed) is not int:
        raise WrongError("an object whose `seed` is an integer or null")
    for name in ("model", "compile", "data"):
        if not isinstance(value.get(name), str | None):
            msg = f"an object whose `{name}` is a string or null"
            raise WrongError(msg)
    if not isinstance(value.get("continues"), dict | None):
        raise WrongError("an object whose `continues` is an object or null")
    return dict(value)


def _variable(value: Any) -> dict[str, Any]:
    _plain(value)
    for name in ("role", "place", "dtype"):
        if not isinstance(value.get(name, ""), str):
            raise WrongError("a list of objects with strings in them")
    _tuple_of(_optional(_count))(value.get("shape", []))
    return dict(value)


_checksums = _mapping_of(_text)
_FIELDS: dict[str, dict[str, _Check]] = {
    "header": {
        "run_id": _run_id,
        "started": _text,
        "identity": _identity,
        "every": _every,
        "name": _optional(_text),
        "environment": _plain,
        "model": _plain,
        "compile": _plain,
        "data": _plain,
        "variables": _tuple_of(_variable),
        "notes": _tuple_of(_text),
        "snapshots": _optional(_text),
        "format": _text,
    },
    "data": {"run_id": _run_id, "checksum": _text},
    "record": {
        "run_id": _run_id,
        "index": _count,
        "epoch": _optional(_count),
        "batch": _optional(_count),
        "model": _text,
        "roles": _checksums,
        "variables": _mapping_of(_checksums),
        "step": _optional(_count),
        "layers": _checksums,
        "norms": _mapping_of(_mapping_of(_norms)),
        "streams": _optional(_text),
        "fed": _optional(_text),
        "metrics": _mapping_of(_number),
        "snapshot": _optional(_text),
    },
    "end": {
        "run_id": _run_id,
        "status": _status,
        "ended": _text,
        "num_records": _count,
        "exception": _optional(_text),
    },
}


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


# By type and field: the check, and whether the field must be there.
CHECKS = {
    kind: {
        field.name: (_FIELDS[kind][field.name], _is_required(field))
        for field in fields(cls)
    }
    for kind, cls in CLASSES.items()
}


# --- lines -------------------------------------------------------------------

# Read, the newest last; only the last is written.
FORMATS = ("keras_repro.run/1", FORMAT)

_FAMILY = "keras_repro.run/"
_KINDS = {cls: kind for kind, cls in CLASSES.items()}
_STARTS = tuple(f'{{"type":"{kind}","run_id":"' for kind in CLASSES)
_MUST = "Every line must be one JSON object that a ChecksumCallback wrote."


class LineError(ValueError):
    """A line that is none of ours: what must hold, and what came.

    Args:
        must: A sentence: what must hold.
        received: What stands there.
    """

    def __init__(self, must: str, received: str) -> None:
        super().__init__(f"{must} Received: {received}")
        self.must = must
        self.received = received


class VersionError(LineError):
    """A header of a version that is not read here."""


class NoEntryError(LineError):
    """A line that is not even of the kind that our lines are."""


# --- writing -------------------------------------------------------------

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode_entry(entry: Entry) -> str:
    """Write an entry as one line of JSON.

    The type and the run's id come first, so that a reader can skip a line.

    Raises:
        ValueError: If the run's id could not be read back.
        TypeError: If a value is no plain value, number or string.

    Example:
        >>> from keras_repro.runs.run import RunData
        >>> encode_entry(RunData(run_id="a1", checksum="kr1:00"))
        '{"type":"data","run_id":"a1","checksum":"kr1:00"}'
    """
    _check_run_id(entry.run_id)
    content = {"type": _KINDS[type(entry)], **vars(entry)}
    if isinstance(entry, RunRecord):
        content["metrics"] = {
            name: _encode_float(value) for name, value in entry.metrics.items()
        }
        line = _encode_quickly(content)
        if line is not None:
            return line
    try:
        line = _encode(content)
    except (TypeError, ValueError):  # NumPy's numbers; NaN and infinities.
        return _encode(_make_plain(content))
    # A lone surrogate, as in an undecodable file name, is no text.
    return _encode(_make_plain(content)) if "\\ud" in line else line


def _encode_quickly(content: dict[str, Any]) -> str | None:
    """A record by orjson, in a quarter of the time; `None` if it cannot."""
    norms = {
        role: {place: list(one) for place, one in group.items()}
        for role, group in content["norms"].items()
    }
    # orjson would write what JSON cannot hold as null.
    if not all(
        math.isfinite(number)
        for group in norms.values()
        for one in group.values()
        for number in one
    ):
        return None
    try:
        return orjson.dumps({**content, "norms": norms}).decode()
    except TypeError:  # NumPy's numbers, long integers, lone surrogates.
        return None


def _check_run_id(run_id: Any) -> str:
    if isinstance(run_id, str) and RUN_ID.fullmatch(run_id):
        return run_id
    raise LineError(
        "`run_id` must be 1 to 64 letters, digits, '_', '.' or '-'.",
        _show(run_id),
    )


def _encode_float(value: float) -> float | str:
    """JSON has no NaN and no infinity: these become strings."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _make_plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {
            _make_plain(key): _make_plain(one) for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_make_plain(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return _encode_float(float(value))
    return int(value) if isinstance(value, np.integer) else value


# --- reading -------------------------------------------------------------


def decode_entry(text: str) -> Entry | None:
    """Read one line.

    Raises:
        LineError: If it is none of ours, or a field is not what it must be.

    Scope:
        No other exception comes out, whatever the text; memory is bounded by
        a multiple of its length.

    Example:
        >>> from keras_repro.runs.run import RunData
        >>> line = encode_entry(RunData(run_id="a1", checksum="kr1:00"))
        >>> decode_entry(line)
        RunData(run_id='a1', checksum='kr1:00')
        >>> decode_entry(line[:-4]) is None
        True
    """
    # A power cut may leave zeros where the rest of a line should be.
    text = text.rstrip("\0")
    try:
        content = _decoder.decode(text)
        _check_text(text, content)
    except json.JSONDecodeError as error:
        if _starts_like_ours(text) and _is_cut(text, error):
            return None
        raise NoEntryError(_MUST, _show(text)) from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise NoEntryError(
            _MUST, f"{_show(text)} ({reprlib.repr(reason)})"
        ) from None
    return _from_content(content, text)


def find_owner(text: str) -> str | None:
    """The run's id in a torn line, if it got that far."""
    for start in _STARTS:
        if text.startswith(start):
            run_id, closed, _ = text[len(start) :].partition('"')
            return run_id if closed else None
    return None


def _show(value: Any) -> str:
    if isinstance(value, str) and len(value) > 60:
        value = value[:57] + "..."
    return ascii(value) if isinstance(value, str) else reprlib.repr(value)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        msg = "a name stands twice in one object"
        raise ValueError(msg)
    return result


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


_decoder = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant
)


def _check_text(text: str, content: Any) -> None:
    r"""Refuse `"\ud800"` alone: a string that no file or terminal takes."""
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode()


def _starts_like_ours(text: str) -> bool:
    return any(
        text.startswith(start) or start.startswith(text) for start in _STARTS
    )


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether more text would make it JSON: the error is at its very end."""
    rest = text[error.pos :]
    if not rest or error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Invalid \\u"):
        return re.search(r"\\u[0-9a-fA-F]{0,4}$", text) is not None
    if error.msg.startswith("Expecting value"):
        words = ("true", "false", "null", "-0")
        return any(word.startswith(rest) for word in words)
    return re.fullmatch(r"\.|[eE][+-]?", rest) is not None


def _from_content(content: Any, text: str) -> Entry:
    kind = content.get("type") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in CLASSES:
        raise NoEntryError(_MUST, _show(text))
    if kind == "header":
        _check_format(content, text)
    values = {}
    for name, (check, required) in CHECKS[kind].items():
        if name in content:
            try:
                values[name] = check(content[name])
            except WrongError as error:
                raise LineError(
                    f"`{name}` of a line of type {kind!r} must be {error}.",
                    _show(content[name]),
                ) from None
        elif required:
            raise LineError(
                f"A line of type {kind!r} must have the field `{name}`.",
                _show(text),
            )
    return CLASSES[kind](**values)


def _check_format(content: dict[str, Any], text: str) -> None:
    version = content.get("format")
    if not isinstance(version, str) or not version.startswith(_FAMILY):
        raise NoEntryError(
            f"A header must have a `format` that begins with {_FAMILY!r}.",
            _show(text),
        )
    if version not in FORMATS:
        known = " or ".join(map(repr, FORMATS))
        raise VersionError(
            f"The run's file must have the format {known}.", _show(version)
        )
