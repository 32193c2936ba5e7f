"""Text that comes from anywhere is safe to print, and as long as it may be."""

import pytest

from keras_repro.common.text import (
    WIDTH,
    clean,
    escape,
    list_more,
    say_more,
    shorten,
    wrap,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("two\nlines", r"two\nlines"),
        ("a\tb\x1b[2J", r"a\tb\x1b[2J"),
        ("\u202eright to left", r"\u202eright to left"),
        ("\U000e0001", r"\U000e0001"),
        ("naïve λ ✓", "naïve λ ✓"),
        (7, "7"),
        ("", ""),
    ],
)
def test_escape(value, expected):
    """No control character comes out, and all else as it is."""
    assert escape(value) == expected
    assert escape(value).isprintable()


def test_escape_cuts_nothing():
    """Whole texts and checksums are shown, which `clean` shortens."""
    checksum = f"kr1:{'0123abcd' * 4}"
    assert escape(checksum) == checksum
    assert clean(checksum) == "kr1:0123abcd…"
    assert escape("x" * 500) == "x" * 500
    assert clean("x" * 500) == "x" * 119 + "…"


def test_say_more():
    """What was left out is counted; nothing is said of nothing."""
    assert say_more(1) == "and 1 more"
    assert say_more(2, "metrics") == "and 2 more metrics"
    assert (say_more(0), say_more(-3, "metrics")) == ("", "")
    assert list_more(2, 3) == ["   and 2 more"]
    assert list_more(0, 3) == []


def test_shorten():
    """All are named where they fit, else as many as may be."""
    assert shorten(["a", "b"], 2) == "a, b"
    assert shorten(["a", "b", "c"], 2) == "a, b and 1 more"
    assert shorten(map(str, range(100)), 1) == "0 and 99 more"
    assert shorten([], 2) == ""


def test_wrap():
    """No line is longer than 79 characters, and no word is lost."""
    text = "word " * 40
    lines = wrap(text, 2, 3)
    assert max(map(len, lines)) <= WIDTH == 79
    assert " ".join(lines).split() == text.split()
    assert lines[0].startswith("  word")
    assert lines[1].startswith("     word")
    assert wrap("") == []


def test_wrap_under_a_start():
    """The later lines come under the text of the first."""
    assert wrap("one two", start="key: ", width=9) == ["key: one", "     two"]
    assert wrap("one two", start="key: ", width=12) == ["key: one two"]
    assert wrap("one two", 1, start="- ", width=6) == [" - one", "   two"]


def test_wrap_breaks_words_or_not():
    """A path may stay whole; neither is ever broken at a hyphen."""
    path = "/home/me/a-long-folder/train.py"
    assert wrap(path, width=12, splits_words=False) == [path]
    assert wrap(path, width=12) == ["/home/me/a-l", "ong-folder/t", "rain.py"]
    assert wrap("is deter-ministic", width=16) == ["is", "deter-ministic"]
