"""Values that strict JSON can hold, nested ones too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def make_visible(text: str) -> str:
    """Text that every file takes, with lone surrogates written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def to_plain(value: Any) -> Any:
    """Values that strict JSON can hold: what it cannot, as visible text."""
    # Such as NaN, infinities, integers of more than 64 bits, and lone
    # surrogates, as in the name of a file that is no UTF-8.
    if isinstance(value, str):
        return make_visible(value)
    if is_dataclass(value):
        return {
            one.name: to_plain(getattr(value, one.name))
            for one in fields(value)
        }
    if hasattr(value, "_asdict"):
        return to_plain(value._asdict())
    if isinstance(value, Mapping):
        return {
            make_visible(str(key)): to_plain(one) for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or (isinstance(value, int) and abs(value) < 2**64):
        return value
    return str(value)


def flatten(
    nested: Any, *, lists: bool = False, prefix: str = ""
) -> dict[str, Any]:
    """Nested mappings as one, with keys joined by dots."""
    is_mapping = isinstance(nested, Mapping)
    result: dict[str, Any] = {}
    for key, value in nested.items() if is_mapping else enumerate(nested):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) or (
            lists and isinstance(value, (list, tuple))
        ):
            result |= flatten(value, lists=lists, prefix=f"{name}.")
        else:
            result[name] = value
    return result


def list_differing(
    before: Any, after: Any, *, lists: bool = False
) -> list[tuple[str, Any, Any]]:
    """The leaves in which two nested settings differ once they are JSON."""
    first, second = flatten(before, lists=lists), flatten(after, lists=lists)
    pairs = [
        (key, first.get(key), second.get(key))
        for key in dict.fromkeys([*first, *second])
    ]
    return [one for one in pairs if json.dumps(one[1]) != json.dumps(one[2])]


def check_fields(
    data: Any,
    checks: Mapping[str, Callable[[Any], bool]],
    optional: frozenset[str] = frozenset(),
) -> None:
    """Check an object that was read: each of its fields, and no others."""
    if not isinstance(data, dict):
        msg = f"an object was wanted and came {data!a:.80}"
        raise ValueError(msg)  # noqa: TRY004 - of what a file holds
    unknown = sorted(set(data) - set(checks))
    missing = sorted(set(checks) - set(data) - optional)
    if unknown or missing:
        msg = f"fields are unknown {unknown!a:.80} or missing {missing}"
        raise ValueError(msg)
    for name, value in data.items():
        if not checks[name](value):
            msg = f"{name!r} cannot be {value!a:.80}"
            raise ValueError(msg)
