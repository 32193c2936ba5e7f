"""Words, lists of words and lines of text, safe to print."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable

WIDTH = 79
_LONGEST = 120
_CHECKSUM = re.compile(r"\b(kr\d+:[0-9a-f]{8})[0-9a-f]{24}\b")


def escape(value: object) -> str:
    r"""Text without control characters, on one line.

    It can neither move a terminal's cursor nor turn the direction of writing.

    Example:
        >>> print(escape("two" + chr(10) + "lines"))
        two\nlines
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode()
        for one in text
    )


def clean(value: object, longest: int = _LONGEST) -> str:
    r"""Any value as one short line of printable text.

    Example:
        >>> print(clean("a\x1b[2Jb"), clean(None), clean([1, "two"]))
        a\x1b[2Jb none [1, "two"]
    """
    text = value if isinstance(value, str) else _show(value)
    text = _CHECKSUM.sub(r"\1…", text[: 8 * longest])
    return escape(text if len(text) <= longest else text[: longest - 1] + "…")


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# --- words -------------------------------------------------------------------


def join_words(words: Iterable[str]) -> str:
    """Join words as in a sentence.

    Example:
        >>> join_words(["data", "weights", "metrics"])
        'data, weights and metrics'
    """
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def count_of(number: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> count_of(1, "moment"), count_of(2, "moment"), count_of(2, "process")
        ('1 moment', '2 moments', '2 processes')
    """
    ending = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def say_more(number: int, noun: str = "") -> str:
    """How many were left out; nothing where none was.

    Example:
        >>> say_more(3), say_more(2, "metrics"), say_more(0)
        ('and 3 more', 'and 2 more metrics', '')
    """
    return f"and {number} more {noun}".rstrip() if number > 0 else ""


def shorten(texts: Iterable[str], shown: int) -> str:
    """The first few of many texts, and how many more there are.

    Example:
        >>> shorten(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
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
    """A paragraph as lines, of at most 79 characters if no width is given.

    Example:
        >>> wrap("one two", 2, start="- ", width=8)
        ['  - one', '    two']
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent + start,
        subsequent_indent=" " * (indent + hang + len(start)),
        break_on_hyphens=False,
        break_long_words=splits_words,
    )
