"""Text that comes from anywhere is safe to print, and as long as it may be."""

from pathlib import Path

import numpy as np
import pytest

from keras_repro.common.text import (
    WIDTH,
    clean,
    count_of,
    describe,
    escape,
    join_words,
    list_more,
    quote,
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


def test_values_and_paths():
    """A value is one short printable text, a path a whole one in quotes."""
    found = [clean("a\x1b[2Jb"), clean(None), clean([1, "two"])]
    assert found == [r"a\x1b[2Jb", "none", '[1, "two"]']
    assert quote("a\x1b[2Jb.jsonl") == r"'a\x1b[2Jb.jsonl'"


def test_words_and_numbers():
    """As in a sentence."""
    assert join_words(["data", "weights", "metrics"]) == (
        "data, weights and metrics"
    )
    assert (join_words(["data"]), join_words([])) == ("data", "")
    found = [count_of(1, "moment"), count_of(2, "moment")]
    assert found == ["1 moment", "2 moments"]
    assert count_of(2, "process") == "2 processes"


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


# --- what came ---------------------------------------------------------------


class Rude:
    """Whatever is asked of it raises."""

    def __repr__(self):
        raise ZeroDivisionError

    __str__ = __repr__
    __getattr__ = __eq__ = __len__ = __iter__ = lambda self, *_: 1 / 0
    __hash__ = object.__hash__


class RudeText(str):
    __slots__ = ()
    __repr__ = __str__ = Rude.__repr__


def make_cycle():
    """A list that holds itself."""
    cycle = [1]
    cycle.append(cycle)
    return cycle


SHOWN = [
    (lambda: None, "None"),
    (lambda: 3, "3"),
    (lambda: 10**5000, "an integer of 16610 bits"),
    (lambda: range(10**5000), "range(0, an integer of 16610 bits)"),
    (lambda: "a\x1b[2J\n", r"'a\x1b[2J\n'"),
    (lambda: "x" * 10**7, f"'{'x' * 120}'..."),
    (lambda: bytes(10**7), None),
    (lambda: b"ab", "b'ab'"),
    (lambda: Path("a"), "'a'"),
    (lambda: [*range(10**6)], "[0, 1, 2, 3, ...]"),
    (lambda: {"a": [1, {2}]}, "{'a': [1, {...}]}"),
    (make_cycle, "[1, [1, [...]]]"),
    (lambda: np.float32(0.5), "0.5"),
    (lambda: np.zeros(3), "an array of shape (3,) and dtype float64"),
    (lambda: len, "the function len"),
    (lambda: int, "the class int"),
    (object, "an object of type object"),
    (Rude, "an object of type Rude"),
    (lambda: [Rude()], "[<Rude>]"),
    (lambda: RudeText("a"), "'a'"),
    (type("a\x1b[2J", (), {}), r"an object of type a\x1b[2J"),
    (type("x" * 10**6, (), {}), f"an object of type {'x' * 120}"),
]


def test_what_came_in_few_words():
    """Nothing that a person's class defines is called; it takes no time."""
    for make, text in SHOWN:
        found = describe(make())
        assert text in (None, found)
        assert len(found) < 300
        assert found.isprintable()
    assert describe(3, typed=True) == "3 (of type int)"
