"""What each field of a line in a run's file must be. Nothing is trusted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from keras_repro.norms import Norms
from keras_repro.runs import (
    DRIFTED,
    FAILED,
    FINISHED,
    INTERRUPTED,
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
RUN_ID = re.compile(r"[0-9A-Za-z_.-]{1,64}")

_STATUSES = (FINISHED, INTERRUPTED, FAILED, DRIFTED)
_NON_FINITE = {name: float(name) for name in ("nan", "inf", "-inf")}
_LARGEST_INT = 2**63 - 1
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
    if value in ("epoch", "batch") and isinstance(value, str):
        return value
    try:
        count = _count(value)
    except WrongError:
        count = 0
    if count:
        return count
    raise WrongError("'epoch', 'batch' or a positive integer")


def _count(value: Any) -> int:
    if type(value) is int and 0 <= value <= _LARGEST_INT:
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
