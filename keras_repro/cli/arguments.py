"""The arguments of the command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from keras_repro.cli import texts
from keras_repro.common.checks import (
    MAX_SEED,
    MOST_TRIALS,
    MOST_WORKERS,
    NOT_NEGATIVE,
    POSITIVE,
    SECONDS,
    SHARE,
    Range,
    check_every,
    check_number,
    is_place,
    read_whole,
    say_integers,
)
from keras_repro.common.text import describe


class _Parser(argparse.ArgumentParser):
    """A parser that raises, so that errors can be told as JSON too."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it exits."""
        raise MisuseError(f"{message}. See `{self.prog} --help`.")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = _Parser(
        prog="keras-repro",
        description=texts.ABOUT,
        epilog="`keras-repro COMMAND --help` shows more of each command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="store_true", help="print the version and exit"
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands"
    )
    _add_compare(commands)
    _add_show(commands)
    _add_env(commands)
    _add_verify(commands)
    _add_run(commands)
    _add_trials(commands)
    _add_install_kernel(commands)
    return parser


def _add_compare(commands: Any) -> None:
    codes = texts.CODES.format(
        "all agree: equal, or within tolerance", "different", texts.TROUBLE
    )
    parser = _add(
        commands,
        "compare",
        "compare runs",
        texts.COMPARE,
        codes,
        texts.COMPARE_EXAMPLES,
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=to_place,
        metavar="FILE[@RUN]",
        help="a file, or a run of it",
    )
    for name, word in (("--rtol", "relative"), ("--atol", "absolute")):
        parser.add_argument(
            name,
            type=a_number(NOT_NEGATIVE),
            default=0.0,
            metavar="X",
            help=f"the {word} tolerance (default: 0)",
        )
    _add_page(parser)
    _add_json(parser)


def _add_show(commands: Any) -> None:
    codes = texts.CODES.format("shown", "never", texts.TROUBLE)
    parser = _add(
        commands,
        "show",
        "show what was recorded",
        texts.SHOW,
        codes,
        texts.SHOW_EXAMPLES,
    )
    parser.add_argument(
        "file",
        type=to_place,
        metavar="FILE[@RUN]",
        help="a file, or a run of it",
    )
    _add_json(parser)


def _add_env(commands: Any) -> None:
    codes = texts.CODES.format(
        "nothing is missing", "something is missing", "wrong arguments"
    )
    parser = _add(
        commands,
        "env",
        "show what is set",
        texts.ENV,
        codes,
        texts.ENV_EXAMPLES,
    )
    _add_json(parser)


def _add_install_kernel(commands: Any) -> None:
    parser = _add(
        commands,
        "install-kernel",
        "install a Jupyter kernel",
        texts.KERNEL,
        texts.CODES.format(
            "installed", "never", "no Jupyter, or no place for it"
        ),
        texts.KERNEL_EXAMPLES,
    )
    parser.add_argument(
        "--seed",
        type=to_seed,
        default=0,
        metavar="N",
        help="seed of string hashes (default: 0)",
    )
    parser.add_argument(
        "--name",
        type=to_name,
        default="keras-repro",
        help="name of its folder (default: keras-repro)",
    )
    parser.add_argument(
        "--display-name",
        type=to_name,
        metavar="TEXT",
        help="what Jupyter's menus call it",
    )
    _add_backend(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--sys-prefix",
        action="store_true",
        help="install it into this environment, not for the user",
    )
    place.add_argument(
        "--prefix",
        type=to_place,
        metavar="DIR",
        help="install it below this folder",
    )


def _add_run(commands: Any) -> None:
    parser = _add(
        commands, "run", "run a script, recorded", texts.RUN, texts.RUN_EXAMPLES
    )
    _add_target(parser, "run")
    parser.add_argument(
        "--seed",
        type=to_seed,
        default=0,
        metavar="N",
        help="seed of every generator and of string hashes (default: 0)",
    )
    parser.add_argument(
        "--log",
        default="runs.jsonl",
        type=to_place,
        metavar="FILE",
        help="append the runs to this file (default: runs.jsonl)",
    )
    _add_backend(parser)
    parser.add_argument(
        "--every",
        type=to_every,
        default="epoch",
        metavar="WHEN",
        help="record each `epoch`, each `batch` or each N batches "
        "(default: epoch)",
    )
    parser.add_argument(
        "--name",
        type=to_name,
        help="say that runs of this name must be equal; a second fit of the "
        "script is called NAME/2",
    )
    parser.add_argument(
        "--on-drift",
        choices=("warn", "raise", "stop", "ignore"),
        help="what to do when a run departs from an earlier one that it "
        "should equal (default: warn with --name, else ignore)",
    )
    parser.add_argument(
        "--snapshots",
        action="store_true",
        help="also keep the weights of each epoch, beside the file",
    )
    parser.add_argument(
        "--backup",
        type=to_place,
        metavar="DIR",
        help="back each fit up in this folder; the same command, started "
        "again after the script was killed, goes on there",
    )
    parser.add_argument(
        "--save-freq",
        type=to_save_freq,
        metavar="WHEN",
        help="with --backup: back up at each `epoch`, or each N batches "
        "(default: epoch)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="leave out the line at the end"
    )
    _add_json(parser, "make the line at the end a JSON object")


def _add_verify(commands: Any) -> None:
    parser = _add(
        commands,
        "verify",
        "is a script reproducible?",
        texts.VERIFY,
        texts.VERIFY_EXAMPLES,
    )
    _add_target(parser, "verify")
    parser.add_argument(
        "--runs",
        type=an_integer(2),
        default=2,
        metavar="N",
        help="how many runs are compared (default: 2)",
    )
    parser.add_argument(
        "--budget",
        type=to_budget,
        default="24",
        metavar="N|Ns",
        help="how many more runs experiments may take to find the cause, or "
        "for how many seconds they may begin, such as 300s (default: 24)",
    )
    parser.add_argument(
        "--timeout",
        type=a_number(SECONDS),
        metavar="SECONDS",
        help="end a run that takes longer",
    )
    parser.add_argument(
        "--against",
        type=to_place,
        metavar="FILE",
        help="also compare with the runs that FILE holds, of an earlier day "
        "or another machine; record them there with --log",
    )
    parser.add_argument(
        "--log",
        type=to_place,
        metavar="FILE",
        help="append the runs of the first process to FILE",
    )
    parser.add_argument(
        "--json",
        type=to_place,
        metavar="FILE",
        help="also write the verdict as JSON",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress"
    )
    _add_backend(parser)
    _add_fixes(parser)


def _add_trials(commands: Any) -> None:
    parser = commands.add_parser(
        "trials",
        help="train under many seeds",
        description=texts.TRIALS,
        epilog="`keras-repro trials run --help` lists the options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.usage = (
        "keras-repro trials SCRIPT:FUNCTION [options] [-- ARGS ...]\n"
        "       keras-repro trials show DIR [options]\n"
        "       keras-repro trials compare DIR1 DIR2 ... [options]"
    )
    actions = parser.add_subparsers(
        prog=parser.prog,  # Else it would begin with all of the usage above.
        dest="action",
        metavar="ACTION",
        title="actions",
        required=True,
    )
    _add_trials_run(actions)
    _add_trials_show(actions)
    _add_trials_compare(actions)


def _add_trials_run(actions: Any) -> None:
    codes = texts.CODES.format(
        "every trial finished",
        "`train` raised under some seeds",
        "wrong arguments, no such function, another study in DIR",
    )
    parser = _add(
        actions,
        "run",
        "run a study",
        texts.TRIALS,
        codes,
        texts.TRIALS_EXAMPLES,
    )
    parser.usage = "keras-repro trials SCRIPT:FUNCTION [options] [-- ARGS ...]"
    parser.add_argument(
        "target",
        metavar="SCRIPT:FUNCTION",
        help="a script, or a module, and its function",
    )
    parser.add_argument(
        "--model",
        type=to_name,
        default="model",
        metavar="NAME",
        help="the script's model, or the function that builds it (default: "
        "model)",
    )
    parser.add_argument(
        "--seeds",
        type=an_integer(1, MOST_TRIALS),
        default=30,
        metavar="N",
        help="how many seeds: 0, 1, 2, ... (default: 30)",
    )
    parser.add_argument(
        "--workers",
        type=to_workers,
        metavar="N",
        help="run the trials in N processes",
    )
    parser.add_argument(
        "--path",
        type=to_place,
        metavar="DIR",
        help="keep the study there, and go on with it",
    )
    parser.add_argument(
        "--vary",
        choices=("all", "initial", "order", "random"),
        default="all",
        help="what the seeds move: all, the initial weights, the order of the "
        "data, or the random draws (default: all)",
    )
    parser.add_argument(
        "--until",
        type=a_number(POSITIVE),
        metavar="X",
        help="stop when the 95%% interval of the mean is X to either side",
    )
    parser.add_argument(
        "--check",
        type=a_number(SHARE),
        default=0.0,
        metavar="SHARE",
        help="repeat this share of the trials in another process and compare "
        "checksums (default: 0)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no bar")
    _add_backend(parser)
    _add_study_output(parser)


def _add_trials_show(actions: Any) -> None:
    parser = _add(
        actions,
        "show",
        "show a study",
        texts.TRIALS_SHOW,
        texts.CODES.format(
            "shown", "some of its trials failed", "no such study"
        ),
        texts.TRIALS_SHOW_EXAMPLES,
    )
    parser.add_argument(
        "path", type=to_place, metavar="DIR", help="the study's folder"
    )
    _add_study_output(parser)


def _add_trials_compare(actions: Any) -> None:
    codes = texts.CODES.format(
        "no difference is settled",
        "a difference is settled",
        "no such study, other seeds, no such metric",
    )
    parser = _add(
        actions,
        "compare",
        "compare studies",
        texts.TRIALS_COMPARE,
        codes,
        texts.TRIALS_COMPARE_EXAMPLES,
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=to_place,
        metavar="DIR",
        help="the studies' folders",
    )
    parser.add_argument(
        "--margin",
        type=a_number(POSITIVE),
        metavar="SIZE",
        help="the largest difference that does not matter: an interval within "
        "it settles that two studies are equal for you",
    )
    _add_metric(parser)
    _add_page(parser)
    _add_json(parser)


def _add_study_output(parser: Any) -> None:
    _add_metric(parser)
    parser.add_argument(
        "--csv",
        type=to_place,
        metavar="FILE",
        help="also write a table of the trials",
    )
    _add_page(parser)
    _add_json(parser)


def _add_metric(parser: Any) -> None:
    parser.add_argument(
        "--metric",
        type=to_name,
        metavar="NAME",
        help="the score that is meant (default: the first one)",
    )


def _add_page(parser: Any) -> None:
    parser.add_argument(
        "--html",
        type=to_place,
        metavar="FILE",
        help="also write a self-contained page",
    )


def _add_fixes(parser: Any) -> None:
    """Fixes that a person can try without editing."""
    fixes = parser.add_argument_group("fixes to try, in every run")
    fixes.add_argument(
        "--seed",
        type=to_seed,
        metavar="N",
        help="seed every generator, as `run` does",
    )
    fixes.add_argument(
        "--hash-seed", type=to_seed, metavar="N", help="set PYTHONHASHSEED"
    )
    fixes.add_argument(
        "--deterministic",
        action="store_true",
        help="turn deterministic kernels on",
    )
    fixes.add_argument(
        "--workers",
        type=to_workers,
        metavar="N",
        help="load data with N workers",
    )
    fixes.add_argument(
        "--threads",
        type=to_workers,
        metavar="N",
        help="compute with N threads",
    )
    fixes.add_argument(
        "--no-shuffle",
        action="store_true",
        help="have `fit` not shuffle arrays",
    )


def _add_target(parser: Any, command: str) -> None:
    parser.usage = (
        f"keras-repro {command} [options] SCRIPT [ARGS ...]\n"
        f"       keras-repro {command} [options] -m MODULE [ARGS ...]"
    )
    parser.add_argument(
        "script",
        nargs=argparse.REMAINDER,
        metavar="SCRIPT [ARGS ...]",
        help="the script and its own arguments",
    )
    parser.add_argument(
        "-m",
        dest="module",
        nargs=argparse.REMAINDER,
        metavar="MODULE",
        help="run a module instead, as `python -m` does",
    )


def _add_backend(parser: Any) -> None:
    parser.add_argument(
        "--backend",
        choices=("tensorflow", "jax", "torch"),
        help="set KERAS_BACKEND",
    )


def _add(
    commands: Any, name: str, summary: str, description: str, *after: str
) -> Any:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="\n".join(after),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_json(parser: Any, text: str = "print one JSON object") -> None:
    parser.add_argument("--json", action="store_true", help=text)


class MisuseError(Exception):
    """What was asked for cannot be done; the message says what to do."""


def _refuse(must: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(
        f"must {must}. Received: {describe(text)}"
    )


def an_integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Make a reader of integers in a range."""

    def read(text: str) -> int:
        number = read_whole(text)
        if (
            number is None
            or number < low
            or (high is not None and number > high)
        ):
            raise _refuse(f"be {say_integers(low, high)}", text)
        return number

    return read


to_seed = an_integer(0, MAX_SEED)
to_workers = an_integer(1, MOST_WORKERS)


def a_number(among: Range) -> Callable[[str], float]:
    """Make a reader of numbers in a range."""

    def read(text: str) -> float:
        try:
            return check_number("", float(text), among, "")
        except ValueError:
            raise _refuse(f"be {among.says}", text) from None

    return read


def to_budget(text: str) -> str | int:
    """A number of runs, or of seconds as `300s`."""
    from keras_repro.diagnosis.search import read_budget

    number = read_whole(text)
    budget = text if number is None else number
    try:
        read_budget(budget)
    except ValueError:
        must = "be an integer from 0 on, or seconds above 0 such as `300s`"
        raise _refuse(must, text) from None
    return budget


def to_every(text: str) -> str | int:
    """`epoch`, `batch` or a number of batches."""
    number = read_whole(text)
    try:
        return check_every(text if number is None else number)
    except ValueError:
        must = "be `epoch`, `batch` or a positive number of batches"
        raise _refuse(must, text) from None


def to_save_freq(text: str) -> str | int:
    """`epoch` or a number of batches."""
    number = read_whole(text)
    if text != "epoch" and (number is None or number < 1):
        raise _refuse("be `epoch` or a positive number of batches", text)
    return text if number is None else number


def to_name(text: str) -> str:
    """A text that is not empty."""
    if not text:
        raise _refuse("not be empty", text)
    return text


def to_place(text: str) -> str:
    """The path of a file or a folder that could be there."""
    if not is_place(text):
        raise _refuse("be a path that files of this system can have", text)
    return text
