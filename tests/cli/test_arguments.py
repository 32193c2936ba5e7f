"""No argument of the command is taken that its function would refuse."""

import click
import pytest

from keras_repro.cli import main as cli
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


def find_options(command=cli.command, words=()):
    """Each option that takes a value, with the words of its command."""
    if isinstance(command, click.Group):
        for name, other in command.commands.items():
            yield from find_options(other, (*words, name))
    else:
        for one in command.params:
            if isinstance(one, click.Option) and not one.is_flag:
                yield words, one


@pytest.fixture
def parse(monkeypatch, capsys):
    """Parse an option of a command: what its function is given, or an error."""

    def give_back(context, function, **options):
        return options

    def run(words, *option):
        needed = NEEDED.get(" ".join(words), [])
        found = cli.main([*words, *option, *needed])
        return (None, capsys.readouterr().err) if found == 2 else (found, "")

    monkeypatch.setattr(click.Context, "invoke", give_back)
    return run


def test_odd_texts(parse):
    """Each is taken as what it is, or refused with the option's name."""
    options = [*find_options()]
    assert len(options) > 30
    for words, option in options:
        name = option.opts[-1]
        for text in ODD:
            found, told = parse(words, f"{name}={text}")
            if not told:
                assert text, f"{words} {name} takes an empty text"
                value = found[option.name]
                assert value in (text, 1e30), (words, name, text)
            else:
                assert name in told
                assert told.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("words", "name", "most"),
    [
        ("run", "seed", MAX_SEED),
        ("trials run", "seeds", MOST_TRIALS),
        ("trials run", "num_workers", MOST_WORKERS),
        ("verify", "num_threads", MOST_WORKERS),
    ],
)
def test_bounds(parse, words, name, most):
    """The largest is taken, and the next is refused with the bound."""
    option = f"--{name.removeprefix('num_')}"
    found, _ = parse(words.split(), option, str(most))
    assert found[name] == most
    _, told = parse(words.split(), option, str(most + 1))
    assert f"to {most}. Received: '{most + 1}'" in told
