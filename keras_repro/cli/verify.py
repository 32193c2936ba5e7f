"""The command `keras-repro verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_repro.cli import shared
from keras_repro.cli.shared import (
    DIFFERENT,
    EQUAL,
    FILE,
    OURS_FIRST,
    SEED,
    TROUBLE,
    WORKERS,
    WrittenFile,
    check_target,
    integers,
    kind,
    numbers,
    say,
    takes_script,
    to_json,
)
from keras_repro.common.checks import SECONDS, read_whole
from keras_repro.common.files import write_whole

if TYPE_CHECKING:
    from keras_repro.diagnosis.result import Verification

_SECONDS = numbers("seconds", SECONDS)


def _to_budget(text: str) -> str | int:
    """A number of runs, or of seconds as `300s`."""
    from keras_repro.diagnosis.search import read_budget

    number = read_whole(text)
    budget = text if number is None else number
    read_budget(budget)
    return budget


_BUDGET = kind(
    "N|Ns",
    "be an integer from 0 on, or seconds above 0 such as `300s`",
    _to_budget,
)


@click.command(
    context_settings=OURS_FIRST,
    epilog="""\b
exit codes:
  0  reproducible
  1  not reproducible
  2  trouble: wrong arguments, the script failed or took too long, or it made
     no call that could be recorded; or what was compared is equal, and a
     process that may have trained was not watched

\b
examples:
  keras-repro verify train.py --epochs 5
  keras-repro verify --runs 5 --budget 0 train.py
  keras-repro verify --seed 42 --hash-seed 0 --deterministic train.py
  keras-repro verify --timeout 600 --json verdict.json -m package.train
""",
)
@takes_script
@click.option(
    "--runs",
    "num_runs",
    type=integers(2),
    default="2",
    help="how many runs are compared",
)
@click.option(
    "--budget",
    type=_BUDGET,
    default="24",
    help="how many more runs experiments may take to find the cause, or for "
    "how many seconds they may begin, such as 300s",
)
@click.option("--timeout", type=_SECONDS, help="end a run that takes longer")
@click.option(
    "--against",
    type=FILE,
    help="also compare with the runs that FILE holds, of an earlier day or "
    "another machine; record them there with --log",
)
@click.option(
    "--log",
    type=FILE,
    help="append the runs of the first process to FILE",
)
@click.option(
    "--json",
    "verdict_file",
    type=WrittenFile(dir_okay=False),
    help="also write the verdict as JSON",
)
@click.option("--quiet", is_flag=True, help="print no progress")
@shared.backend
@click.option("--seed", type=SEED, help="seed every generator, as `run` does")
@click.option("--hash-seed", type=SEED, help="set PYTHONHASHSEED")
@click.option(
    "--deterministic", is_flag=True, help="turn deterministic kernels on"
)
@click.option(
    "--workers", "num_workers", type=WORKERS, help="load data with N workers"
)
@click.option(
    "--threads", "num_threads", type=WORKERS, help="compute with N threads"
)
@click.option(
    "--no-shuffle",
    "shuffle",
    is_flag=True,
    flag_value=False,
    default=True,
    show_default=False,
    help="have `fit` not shuffle arrays",
)
def verify(
    *,
    target: tuple[str, ...],
    verdict_file: str | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Say whether a script is reproducible, and if not, why.

    The script is run, unchanged, in fresh processes: are they bitwise equal in
    all that it asks of its Keras models; if not, where do they first differ,
    and why? What an experiment has shown is a cause; what was only seen is a
    suspect.

    Options of ours come before the script; all that follows it is the script's
    own. The first run's output goes through as it is; the verdict follows it
    on standard output, progress is printed on standard error.

    The options from --seed on are fixes to try, in every run.
    """
    check_target("verify", target, module=options["module"])
    verdict = _verify(target, tell=None if quiet else say, **options)
    print(verdict, flush=True)  # Minutes of work: before a disk may be full.
    if verdict_file is not None:
        write_whole(Path(verdict_file), to_json(verdict.to_json()))
    if verdict.first_mismatch is not None:
        return DIFFERENT
    return EQUAL if verdict.reproducible else TROUBLE


def _verify(target: tuple[str, ...], **options: Any) -> Verification:
    from keras_repro.diagnosis import verify as verification
    from keras_repro.diagnosis.processes import ended_by_signals

    try:
        with ended_by_signals():
            return verification.verify(target[0], target[1:], **options)
    except verification.ScriptError as error:
        sys.stdout.flush()
        raise click.ClickException(str(error)) from error
