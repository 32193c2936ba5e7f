"""Words, lists of words and lines of text, safe to print."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from itertools import islice
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

WIDTH = 79
_LONGEST = 120
_CHECKSUM = re.compile(r"\b(kr\d+:[0-9a-f]{8})[0-9a-f]{24}\b")


def escape(value: object) -> str:
    """Text without control characters, on one line."""
    # It can neither move a terminal's cursor nor turn the direction of writing.
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode()
        for one in text
    )


def quote(path: object) -> str:
    """A path in an error, whole."""
    return f"'{escape(path)}'"


def clean(value: object, longest: int = _LONGEST) -> str:
    """Any value as one short line of printable text."""
    text = value if isinstance(value, str) else _show(value)
    text = _CHECKSUM.sub(r"\1…", text[: 8 * longest])
    return escape(text if len(text) <= longest else text[: longest - 1] + "…")


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# --- what came ---------------------------------------------------------------

_LITERAL = (type(None), bool, float, complex, type(...), type(NotImplemented))
_NAMED = (FunctionType, BuiltinFunctionType, MethodType)
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
}
_MOST_ITEMS, _MOST_BITS, _DEEPEST = 4, 256, 2


def describe(value: object, *, typed: bool = False) -> str:
    """Any value that came where another was wanted, in a few words."""
    # Nothing that a person's class defines is called: that may raise, take long
    # or print much.
    try:
        text = _sketch(value, 0)
    except Exception:  # noqa: BLE001 - of a class that is not what it seems
        text = ""
    if not text:
        return f"an object of type {name_kind(value)}"
    most = 2 * _LONGEST
    text = escape(text if len(text) <= most else f"{text[:most]}...")
    return f"{text} (of type {name_kind(value)})" if typed else text


def name_kind(value: object) -> str:
    """The name of a value's type, as it was given to the type."""
    return escape(type.__dict__["__name__"].__get__(type(value))[:_LONGEST])


def _sketch(value: Any, depth: int) -> str:
    """Nothing where only the type may be told."""
    kind = type(value)
    if isinstance(value, (str, bytes, bytearray)):
        text = str.__str__(value) if isinstance(value, str) else value
        return f"{text[:_LONGEST]!r}{'...' if len(text) > _LONGEST else ''}"
    if kind in _LITERAL:
        return repr(value)
    if kind is int:
        bits = value.bit_length()
        is_long = bits > _MOST_BITS  # Python refuses to print very long ones.
        return f"an integer of {bits} bits" if is_long else repr(value)
    if kind in _BRACKETS:
        return _sketch_items(value, depth)
    if kind.__module__ == "numpy":
        return _sketch_numpy(value)
    if kind is range:
        ends = (_sketch(one, depth) for one in (value.start, value.stop))
        return f"range({', '.join(ends)})"
    if isinstance(value, PurePath):
        return _sketch(PurePath.__str__(value), depth)
    if kind in _NAMED:
        return f"the function {value.__qualname__}"
    return f"the class {value.__name__}" if kind is type else ""


def _sketch_items(value: Any, depth: int) -> str:
    """The first few of the things in a list, a dict or the like."""
    first, last = _BRACKETS[type(value)]
    if depth == _DEEPEST and value:
        return f"{first}...{last}"
    is_dict = type(value) is dict
    rows = islice(value.items() if is_dict else zip(value), _MOST_ITEMS)
    shown = [
        ": ".join(
            _sketch(one, depth + 1) or f"<{name_kind(one)}>" for one in row
        )
        for row in rows
    ]
    more = ["..."] if len(value) > _MOST_ITEMS else []
    return f"{first}{', '.join([*shown, *more])}{last}"


def _sketch_numpy(value: Any) -> str:
    """A number with its value, an array with its shape."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return ""
    if value.shape == () and value.dtype.kind in "biufc":
        return f"{value.item()!r}"
    return f"an array of shape {value.shape} and dtype {value.dtype}"


# --- words -------------------------------------------------------------------


def join_words(words: Iterable[str]) -> str:
    """Join words as in a sentence."""
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def count_of(number: int, noun: str) -> str:
    """A number and its noun."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def say_more(number: int, noun: str = "") -> str:
    """How many were left out; nothing where none was."""
    return f"and {number} more {noun}".rstrip() if number > 0 else ""


def shorten(texts: Iterable[str], shown: int) -> str:
    """The first few of many texts, and how many more there are."""
    listed = list(texts)
    more = say_more(len(listed) - shown)
    text = ", ".join(listed[:shown])
    return f"{text} {more}" if more else text


# --- lines -------------------------------------------------------------------


def list_more(number: int, indent: int = 0) -> list[str]:
    """`say_more` as a line of its own, or no line."""
    more = say_more(number)
    return [" " * indent + more] if more else []


def wrap(
    text: str,
    indent: int = 0,
    hang: int = 0,
    *,
    start: str = "",
    width: int = WIDTH,
    splits_words: bool = True,
) -> list[str]:
    """A paragraph as lines, of at most 79 characters if no width is given."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent + start,
        subsequent_indent=" " * (indent + hang + len(start)),
        break_on_hyphens=False,
        break_long_words=splits_words,
    )
