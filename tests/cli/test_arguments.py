"""No argument of the command is taken that its function would refuse."""

import argparse

import pytest

from keras_repro.cli.arguments import MisuseError, make_parser
from keras_repro.common.checks import MAX_SEED, MOST_TRIALS, MOST_WORKERS

pytestmark = pytest.mark.no_backend
ODD = ["", "-1", "1e999", "nan", str(10**30), "9" * 5000, "a\x1b[2J", "\ud800"]
NEEDED = {
    "compare": ["a", "b"],
    "show": ["a"],
    "run": ["s.py"],
    "verify": ["s.py"],
    "trials run": ["s.py:train"],
    "trials show": ["a"],
    "trials compare": ["a", "b"],
}


def find_options(parser, words=()):
    """Each option that takes a value, with the words of its command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, other in action.choices.items():
                yield from find_options(other, (*words, name))
        elif action.option_strings and action.nargs is None and words:
            yield words, action


def parse(words, *option):
    """Parse an option of a command."""
    needed = NEEDED.get(" ".join(words), [])
    return make_parser().parse_args([*words, *option, *needed])


def test_odd_texts():
    """Each is taken as what it is, or refused with the option's name."""
    options = [*find_options(make_parser())]
    assert len(options) > 30
    for words, action in options:
        name = action.option_strings[-1]
        for text in ODD:
            told, found = None, text
            try:
                found = getattr(parse(words, f"{name}={text}"), action.dest)
            except MisuseError as error:
                told = str(error)
            if told is None:
                assert text, f"{words} {name} takes an empty text"
                assert found in (text, 1e30), (words, name, text)
            else:
                assert name in told
                assert told.isprintable()


@pytest.mark.parametrize(
    ("words", "name", "most"),
    [
        ("run", "--seed", MAX_SEED),
        ("trials run", "--seeds", MOST_TRIALS),
        ("trials run", "--workers", MOST_WORKERS),
        ("verify", "--threads", MOST_WORKERS),
    ],
)
def test_bounds(words, name, most):
    """The largest is taken, and the next is refused with the bound."""
    value = getattr(parse(words.split(), name, str(most)), name[2:])
    assert value == most
    with pytest.raises(MisuseError, match=f"to {most}. Received: '{most + 1}'"):
        parse(words.split(), name, str(most + 1))
