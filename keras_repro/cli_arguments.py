"""The arguments of the command, and its help texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from keras_repro.experiments import Budget

_MAX_SEED = 2**32 - 1

_ABOUT = """\
Make Keras training repeatable: run a script with everything seeded, record
what its models hold epoch by epoch, and find where two runs part.

  keras-repro verify train.py              is it reproducible? if not, why?
  keras-repro run train.py                 record every fit in runs.jsonl
  keras-repro show runs.jsonl              list what was recorded
  keras-repro compare runs.jsonl           are they bitwise equal? where not?
  keras-repro trials train.py:train        the same training under 30 seeds
  keras-repro env                          what bitwise equal runs still lack
  keras-repro install-kernel --seed 42     a repeatable kernel for notebooks
"""
_CODES = """\
exit codes:
  0  {0}
  1  {1}
  2  trouble: {2}
"""
_TROUBLE = "wrong arguments, no such file or run, not a run's file"
_COMPARE = """\
Compare runs down to the first place at which they differ.

FILE is a run's file. FILE@RUN is one run of it: a whole number that is a
position in the file, such as 0 or -1, counts as one; all else is the start of
an id. A file whose own name holds an @ is taken as that file.

With one FILE, all its finished runs are compared; with two arguments, one run
of each (the last one where none is named). More than two runs are sorted into
groups that agree.
"""
_COMPARE_EXAMPLES = """\
examples:
  keras-repro compare runs.jsonl                  all runs of one file
  keras-repro compare runs.jsonl@0 runs.jsonl@-1  its first and its last run
  keras-repro compare monday.jsonl friday.jsonl   the last run of each
  keras-repro compare monday.jsonl friday.jsonl --rtol 1e-5
  keras-repro compare runs.jsonl --html report.html
"""
_SHOW = """\
Show the runs of a file in a table; times are in UTC. With FILE@RUN, or where
the file holds one run alone, show all of that run: what it is, its epochs with
their metrics and checksums, its notes, and its environment. RUN is a position
(0, -1) or the start of an id, as for `compare`.
"""
_SHOW_EXAMPLES = """\
examples:
  keras-repro show runs.jsonl
  keras-repro show runs.jsonl@-1
  keras-repro show runs.jsonl --json
"""
_ENV = """\
Show what bitwise equal runs need set before Python or a backend starts: what
is set, what is missing or advised, and the line that mends it. `keras-repro
run` sets what is missing for the script that it starts. No backend is loaded.
"""
_ENV_EXAMPLES = """\
examples:
  keras-repro env
  KERAS_BACKEND=jax keras-repro env --json
"""
_VERIFY = """\
Run a script, unchanged, in fresh processes, and say whether they are bitwise
equal in all that it asks of its Keras models; if not, where they part first,
and why. What an experiment has shown is a cause; what was only seen is a
suspect.

Options of ours come before the script; all that follows it is the script's
own. The first run's output goes through as it is; the verdict follows it on
standard output, progress is told on standard error.
"""
_VERIFY_EXAMPLES = """\
exit codes:
  0  reproducible
  1  not reproducible
  2  trouble: wrong arguments, the script failed or took too long, or it made
     no call that could be recorded

examples:
  keras-repro verify train.py --epochs 5
  keras-repro verify --runs 5 --budget 0 train.py
  keras-repro verify --seed 42 --hash-seed 0 --deterministic train.py
  keras-repro verify --timeout 600 --json verdict.json -m package.train
"""
_KERNEL = """\
Install a Jupyter kernel that starts with PYTHONHASHSEED and the switches for
deterministic kernels set: the one thing that a notebook cannot do for itself,
because Python and the backends read them when they start.
"""
_KERNEL_EXAMPLES = """\
examples:
  keras-repro install-kernel --seed 42
  keras-repro install-kernel --seed 42 --backend jax --name repeatable-jax
"""
_RUN = """\
Run a script, unchanged, in an interpreter in which hash seed and deterministic
switches are set before anything is imported, and every generator is seeded;
record each `keras.Model.fit` in a file.

Options of ours come before the script; all that follows it is the script's
own. Nothing is written to standard output. One line on standard error says at
the end how many runs were recorded.
"""
_RUN_EXAMPLES = """\
exit codes:
  those of the script; 128 + n if signal n ended it, as a shell has it
  2  also if the script is not there or the log cannot be written

examples:
  keras-repro run train.py --epochs 5
  keras-repro run --seed 7 --log runs.jsonl train.py
  keras-repro run --backend jax --every batch train.py
  keras-repro run -m package.train --epochs 5
"""


_TRIALS = """\
Run one training under many seeds, and sum the scores up. FUNCTION takes the
model, fits it and returns a score or a dict of scores; the script also holds a
`model`, a compiled ReproducibleModel or a function that builds one.

The script is imported, so what stands under `if __name__ == "__main__":` does
not run. What follows `--` is the script's own. With --path every finished
trial is on disk at once, and the same command goes on where it was.

`keras-repro trials show DIR` shows a study; `keras-repro trials compare DIR1
DIR2` compares studies, paired by seed.
"""
_TRIALS_EXAMPLES = """\
examples:
  keras-repro trials train.py:train --seeds 30 --path baseline
  keras-repro trials train.py:train --seeds 30 --workers 2 --path baseline
  keras-repro trials train.py:train --until 0.1 --metric rmse
  keras-repro trials package.train:train --model build -- --epochs 5
"""
_TRIALS_SHOW = """\
Show a study that was run with --path, finished or not.
"""
_TRIALS_SHOW_EXAMPLES = """\
examples:
  keras-repro trials show baseline
  keras-repro trials show baseline --html baseline.html --csv baseline.csv
"""
_TRIALS_COMPARE = """\
Compare studies, paired by seed: the difference of the means with its interval,
paired tests, and whether it is settled. More than two are compared with the
first, corrected for their number.
"""
_TRIALS_COMPARE_EXAMPLES = """\
examples:
  keras-repro trials compare baseline smoothed
  keras-repro trials compare baseline smoothed wider --metric rmse
"""


class MisuseError(Exception):
    """What was asked for cannot be done; the message says what to do."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises, so that errors can be told as JSON too."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it exits."""
        raise MisuseError(f"{message}. See `{self.prog} --help`.")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command.

    Returns:
        The parser; `docs/cli.md` holds its help texts.
    """
    parser = _Parser(
        prog="keras-repro",
        description=_ABOUT,
        epilog="`keras-repro COMMAND --help` tells more of each command.",
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
    codes = _CODES.format(
        "all agree: equal, or within tolerance", "different", _TROUBLE
    )
    parser = _add(
        commands, "compare", "compare runs", _COMPARE, codes, _COMPARE_EXAMPLES
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE[@RUN]", help="a file, or a run of it"
    )
    for name, word in (("--rtol", "relative"), ("--atol", "absolute")):
        parser.add_argument(
            name,
            type=_tolerance,
            default=0.0,
            metavar="X",
            help=f"the {word} tolerance (default: 0)",
        )
    _add_page(parser)
    _add_json(parser)


def _add_show(commands: Any) -> None:
    codes = _CODES.format("shown", "never", _TROUBLE)
    parser = _add(
        commands, "show", "show what was recorded", _SHOW, codes, _SHOW_EXAMPLES
    )
    parser.add_argument(
        "file", metavar="FILE[@RUN]", help="a file, or a run of it"
    )
    _add_json(parser)


def _add_env(commands: Any) -> None:
    codes = _CODES.format(
        "nothing is missing", "something is missing", "wrong arguments"
    )
    parser = _add(
        commands, "env", "show what is set", _ENV, codes, _ENV_EXAMPLES
    )
    _add_json(parser)


def _add_install_kernel(commands: Any) -> None:
    parser = _add(
        commands,
        "install-kernel",
        "install a Jupyter kernel",
        _KERNEL,
        _CODES.format("installed", "never", "no Jupyter, or no place for it"),
        _KERNEL_EXAMPLES,
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of string hashes (default: 0)",
    )
    parser.add_argument(
        "--name",
        default="keras-repro",
        help="name of its folder (default: keras-repro)",
    )
    parser.add_argument(
        "--display-name", metavar="TEXT", help="what Jupyter's menus call it"
    )
    _add_backend(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--sys-prefix",
        action="store_true",
        help="install it into this environment, not for the user",
    )
    place.add_argument(
        "--prefix", metavar="DIR", help="install it below this folder"
    )


def _add_run(commands: Any) -> None:
    parser = _add(
        commands, "run", "run a script, recorded", _RUN, _RUN_EXAMPLES
    )
    _add_target(parser, "run")
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of every generator and of string hashes (default: 0)",
    )
    parser.add_argument(
        "--log",
        default="runs.jsonl",
        metavar="FILE",
        help="append the runs to this file (default: runs.jsonl)",
    )
    _add_backend(parser)
    parser.add_argument(
        "--every",
        type=_every,
        default="epoch",
        metavar="WHEN",
        help="record each `epoch`, each `batch` or each N batches "
        "(default: epoch)",
    )
    parser.add_argument(
        "--name",
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
        "--quiet", action="store_true", help="leave out the line at the end"
    )
    _add_json(parser, "make the line at the end a JSON object")


def _add_verify(commands: Any) -> None:
    parser = _add(
        commands,
        "verify",
        "is a script reproducible?",
        _VERIFY,
        _VERIFY_EXAMPLES,
    )
    _add_target(parser, "verify")
    parser.add_argument(
        "--runs",
        type=_at_least(2),
        default=2,
        metavar="N",
        help="how many runs are compared (default: 2)",
    )
    parser.add_argument(
        "--budget",
        type=_budget,
        default="24",
        metavar="N|Ns",
        help="how many more runs experiments may take to find the cause, or "
        "for how many seconds they may begin, such as 300s (default: 24)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="end a run that takes longer",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="also compare with the runs that FILE holds, of an earlier day "
        "or another machine; record them there with --log",
    )
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="append the runs of the first process to FILE",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the verdict as JSON"
    )
    parser.add_argument("--quiet", action="store_true", help="tell no progress")
    _add_backend(parser)
    _add_fixes(parser)


def _add_trials(commands: Any) -> None:
    parser = commands.add_parser(
        "trials",
        help="train under many seeds",
        description=_TRIALS,
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
        dest="action", metavar="ACTION", title="actions", required=True
    )
    _add_trials_run(actions)
    _add_trials_show(actions)
    _add_trials_compare(actions)


def _add_trials_run(actions: Any) -> None:
    codes = _CODES.format(
        "every trial finished",
        "`train` raised under some seeds",
        "wrong arguments, no such function, another study in DIR",
    )
    parser = _add(
        actions, "run", "run a study", _TRIALS, codes, _TRIALS_EXAMPLES
    )
    parser.usage = "keras-repro trials SCRIPT:FUNCTION [options] [-- ARGS ...]"
    parser.add_argument(
        "target",
        metavar="SCRIPT:FUNCTION",
        help="a script, or a module, and its function",
    )
    parser.add_argument(
        "--model",
        default="model",
        metavar="NAME",
        help="the script's model, or the function that builds it (default: "
        "model)",
    )
    parser.add_argument(
        "--seeds",
        type=_at_least(1),
        default=30,
        metavar="N",
        help="how many seeds: 0, 1, 2, ... (default: 30)",
    )
    parser.add_argument(
        "--workers",
        type=_at_least(1),
        metavar="N",
        help="run the trials in N processes",
    )
    parser.add_argument(
        "--path", metavar="DIR", help="keep the study there, and go on with it"
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
        type=_positive,
        metavar="X",
        help="stop when the 95%% interval of the mean is X to either side",
    )
    parser.add_argument(
        "--check",
        type=_share,
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
        _TRIALS_SHOW,
        _CODES.format("shown", "some of its trials failed", "no such study"),
        _TRIALS_SHOW_EXAMPLES,
    )
    parser.add_argument("path", metavar="DIR", help="the study's folder")
    _add_study_output(parser)


def _add_trials_compare(actions: Any) -> None:
    codes = _CODES.format(
        "no difference is settled",
        "a difference is settled",
        "no such study, other seeds, no such metric",
    )
    parser = _add(
        actions,
        "compare",
        "compare studies",
        _TRIALS_COMPARE,
        codes,
        _TRIALS_COMPARE_EXAMPLES,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="DIR", help="the studies' folders"
    )
    _add_metric(parser)
    _add_page(parser)
    _add_json(parser)


def _add_study_output(parser: Any) -> None:
    _add_metric(parser)
    parser.add_argument(
        "--csv", metavar="FILE", help="also write a table of the trials"
    )
    _add_page(parser)
    _add_json(parser)


def _add_metric(parser: Any) -> None:
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="the score that is meant (default: the first one)",
    )


def _add_page(parser: Any) -> None:
    parser.add_argument(
        "--html", metavar="FILE", help="also write a self-contained page"
    )


def _add_fixes(parser: Any) -> None:
    """Mends that a person can try without editing."""
    fixes = parser.add_argument_group("mends to try, in every run")
    fixes.add_argument(
        "--seed",
        type=_seed,
        metavar="N",
        help="seed every generator, as `run` does",
    )
    fixes.add_argument(
        "--hash-seed", type=_seed, metavar="N", help="set PYTHONHASHSEED"
    )
    fixes.add_argument(
        "--deterministic",
        action="store_true",
        help="turn deterministic kernels on",
    )
    fixes.add_argument(
        "--workers",
        type=_at_least(1),
        metavar="N",
        help="load data with N workers",
    )
    fixes.add_argument(
        "--threads",
        type=_at_least(1),
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


# --- values ------------------------------------------------------------------


def _seed(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= _MAX_SEED:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"must be an integer from 0 to {_MAX_SEED}. Received: {text!r}"
    )


def _at_least(low: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if text.isascii() and text.isdecimal() and int(text) >= low:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"must be an integer from {low} on. Received: {text!r}"
        )

    return check


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(
        f"must be a finite number above 0. Received: {text!r}"
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= 1:
        return value
    raise argparse.ArgumentTypeError(
        f"must be a share from 0 to 1. Received: {text!r}"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(
        f"must be a number of seconds above 0. Received: {text!r}"
    )


def _budget(text: str) -> Budget:
    from keras_repro.experiments import Budget  # No other command needs it.

    if text.endswith("s"):
        return Budget(seconds=_seconds(text.removesuffix("s")))
    return Budget(num_runs=_at_least(0)(text))


def _every(text: str) -> str | int:
    if text in ("epoch", "batch"):
        return text
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(
        "must be `epoch`, `batch` or a positive number of batches. Received: "
        f"{text!r}"
    )


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(
        f"must be a finite number, 0 or more. Received: {text!r}"
    )
