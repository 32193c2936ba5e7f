"""Text that is safe to print, whatever stands in a file; lines of it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence

_LONGEST = 120
_CHECKSUM = re.compile(r"\b(kr\d+:[0-9a-f]{8})[0-9a-f]{24}\b")


def clean(value: object, longest: int = _LONGEST) -> str:
    r"""Any value as one line of printable text.

    Args:
        value: A string, or anything that JSON can hold.
        longest: How many characters to keep; the end is cut.

    Returns:
        Text without control characters, so that it can neither move a
        terminal's cursor nor turn the direction of writing.

    Example:
        >>> print(clean("a\x1b[2Jb"), clean(None), clean([1, "two"]))
        a\x1b[2Jb none [1, "two"]
    """
    text = value if isinstance(value, str) else _show(value)
    text = _CHECKSUM.sub(r"\1…", text[: 8 * longest])
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else _escape_character(one) for one in text
    )


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
        >>> count_of(1, "moment"), count_of(2, "moment")
        ('1 moment', '2 moments')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shorten(places: Sequence[str], shown: int) -> str:
    """The first few of many names."""
    more = len(places) - shown
    text = ", ".join(clean(place) for place in places[:shown])
    return f"{text} and {more} more" if more > 0 else text


# --- untrusted values ----------------------------------------------------


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


WIDTH = 79


def wrap(
    text: str, indent: int = 0, hang: int = 0, *, splits_words: bool = True
) -> list[str]:
    """A paragraph as lines of at most 79 characters.

    Args:
        text: The paragraph.
        indent: How far its lines are moved to the right.
        hang: How much farther those after the first.
        splits_words: Whether a word that is longer than a line is cut.

    Example:
        >>> wrap("- one", 2)
        ['  - one']
    """
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
        break_long_words=splits_words,
    )
