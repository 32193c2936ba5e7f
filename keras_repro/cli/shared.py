"""What several commands share: kinds of values, options, what is printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from keras_repro.common.checks import (
    MAX_SEED,
    MOST_WORKERS,
    Range,
    check_int,
    check_number,
    is_place,
    read_whole,
    say_integers,
)
from keras_repro.common.files import check_writable
from keras_repro.common.text import describe, escape

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
EQUAL, DIFFERENT, TROUBLE = 0, 1, 2
TROUBLES = "trouble: wrong arguments, no such file or run, not a run's file"


# --- values ------------------------------------------------------------------


def kind(
    name: str, must: str, read: Callable[[str], Any]
) -> Callable[[str], Any]:
    """A type of option by its name; what it does not read is refused."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            raise click.BadParameter(
                f"must {must}. Received: {describe(text)}"
            ) from None

    convert.__name__ = name  # What click shows.
    return convert


class Place(click.Path):
    """The path of a file or a folder that could be there."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Refuse what no file can be called."""
        if not is_place(value):
            must = "must be a path that files of this system can have"
            self.fail(f"{must}. Received: {describe(value)}", param, ctx)
        return value


class WrittenFile(Place):
    """A file that is written at the end: refused now if it cannot be."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Refuse what cannot be written."""
        check_writable(Path(super().convert(value, param, ctx)), replaced=True)
        return value


def integers(low: int, high: int | None = None) -> Callable[[str], Any]:
    """Integers in a range."""

    def read(text: str) -> int:
        number = read_whole(text)
        if number is None:
            raise ValueError(text)
        return check_int("", number, low, high)

    return kind("n", f"be {say_integers(low, high)}", read)


def numbers(name: str, among: Range) -> Callable[[str], Any]:
    """Numbers in a range."""
    return kind(
        name,
        f"be {among.says}",
        lambda text: check_number("", float(text), among, ""),
    )


def _read_name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


NAME = kind("name", "not be empty", _read_name)
SEED = integers(0, MAX_SEED)
WORKERS = integers(1, MOST_WORKERS)
FILE = Place(dir_okay=False)
DIR = Place(file_okay=False)
DIR.name = "dir"


# --- options -----------------------------------------------------------------

as_json = click.option(
    "--json", "as_json", is_flag=True, help="print one JSON object"
)
html = click.option(
    "--html",
    type=WrittenFile(dir_okay=False),
    help="also write a self-contained page",
)
backend = click.option(
    "--backend",
    type=click.Choice(["tensorflow", "jax", "torch"]),
    help="set KERAS_BACKEND",
)


def takes_script(command: CommandT) -> CommandT:
    """Give a command what it starts: all from the script on is the script's."""
    script = click.argument(
        "target",
        metavar="SCRIPT [ARGS]...",
        nargs=-1,
        type=click.UNPROCESSED,
        shell_complete=FILE.shell_complete,
    )
    module = click.option(
        "-m",
        "module",
        is_flag=True,
        help="run a module instead, as `python -m` does",
    )
    return script(module(command))


# The context settings of a command that takes one.
OURS_FIRST = {"allow_interspersed_args": False}


# --- the script --------------------------------------------------------------


def is_script(text: str) -> bool:
    """Whether there is such a file."""
    return is_place(text) and Path(text).is_file()


def check_target(command: str, target: Sequence[str], *, module: bool) -> None:
    """Refuse a script that is not there."""
    if not target:
        raise click.ClickException(
            f"`{command}` must be given a script, or `-m` and a module. "
            f"Received: neither. Try `keras-repro {command} train.py`."
        )
    if not module and not is_script(target[0]):
        raise click.ClickException(
            f"`{command}` must be given a script that exists. Received: "
            f"'{target[0]}'. Options of ours come before the script; see "
            f"`keras-repro {command} --help`."
        )


def start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program in our place: its exit code is ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        # It keeps our process: signals, streams and exit code are its own.
        os.execve(command[0], list(command), dict(environment))
    import subprocess  # Not needed to compare files.

    with subprocess.Popen(list(command), env=dict(environment)) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # The console has told the script as well.


# --- output ------------------------------------------------------------------


def to_json(value: Any) -> str:
    """A result as strict JSON."""
    return json.dumps(value, indent=2, allow_nan=False)


def say(*messages: str) -> None:
    """Tell a person; what an argument or a file holds moves no cursor."""
    for message in messages:
        text = "\n".join(map(escape, message.split("\n")))
        print(f"keras-repro: {text}", file=sys.stderr)
