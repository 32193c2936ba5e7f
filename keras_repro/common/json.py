"""Values that strict JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def to_plain(value: Any) -> Any:
    """Values that strict JSON can hold: NaN and infinities as strings.

    Args:
        value: Dataclasses, named tuples, mappings, sequences, plain values.

    Returns:
        The same as dicts, lists and plain values.

    Example:
        >>> to_plain({"loss": (0.5, float("nan"))})
        {'loss': [0.5, 'nan']}
    """
    if is_dataclass(value):
        return {
            one.name: to_plain(getattr(value, one.name))
            for one in fields(value)
        }
    if hasattr(value, "_asdict"):
        return to_plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)
