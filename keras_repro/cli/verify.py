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
    make_environment,
    numbers,
    say,
    takes_script,
    to_json,
)
from keras_repro.common.checks import SECONDS
from keras_repro.common.files import write_whole

if TYPE_CHECKING:
    from keras_repro.diagnosis.result import Verdict
    from keras_repro.diagnosis.search import Budget
    from keras_repro.diagnosis.verify import Request

_SECONDS = numbers("seconds", SECONDS)


def _to_budget(text: str) -> Budget:
    """A number of runs, or of seconds as `300s`."""
    from keras_repro.diagnosis.search import Budget

    if text.endswith("s"):
        return Budget(seconds=_SECONDS(text.removesuffix("s")))
    return Budget(num_runs=integers(0)(text))


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
    type=_to_budget,
    default="24",
    metavar="N|Ns",
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
@click.option("--quiet", is_flag=True, help="tell no progress")
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
    default=None,
    help="have `fit` not shuffle arrays",
)
def verify(*, verdict_file: str | None, quiet: bool, **options: Any) -> int:
    """Say whether a script is reproducible, and if not, why.

    The script is run, unchanged, in fresh processes: are they bitwise equal in
    all that it asks of its Keras models; if not, where do they part first, and
    why? What an experiment has shown is a cause; what was only seen is a
    suspect.

    Options of ours come before the script; all that follows it is the script's
    own. The first run's output goes through as it is; the verdict follows it
    on standard output, progress is told on standard error.

    The options from --seed on are mends to try, in every run.
    """
    verdict = _verify(_make_request(**options), quiet=quiet)
    print(verdict, flush=True)  # Minutes of work: before a disk may be full.
    if verdict_file is not None:
        write_whole(Path(verdict_file), to_json(verdict.to_json()))
    if verdict.first_mismatch is not None:
        return DIFFERENT
    return EQUAL if verdict.reproducible else TROUBLE


def _make_request(
    *,
    target: tuple[str, ...],
    module: bool,
    num_runs: int,
    budget: Budget,
    timeout: float | None,
    against: str | None,
    log: str | None,
    backend: str | None,
    **fixes: Any,
) -> Request:
    from keras_repro.diagnosis.script_reruns import Fixes
    from keras_repro.diagnosis.verify import Request
    from keras_repro.runs.file import RunWriter, load_runs

    check_target("verify", target, module=module)
    if log is not None:
        RunWriter(log)  # Says now if nothing can be recorded there.
    if against is not None:
        load_runs(against)  # And here if it is no run's file.
    return Request(
        target=target,
        module=module,
        num_runs=num_runs,
        budget=budget,
        fixes=Fixes(**fixes),
        timeout=timeout,
        against=_to_path(against),
        log=_to_path(log),
        environment=make_environment(backend),
    )


def _to_path(text: str | None) -> Path | None:
    return None if text is None else Path(text).absolute()


def _verify(request: Request, *, quiet: bool) -> Verdict:
    from keras_repro.diagnosis.processes import ended_by_signals
    from keras_repro.diagnosis.verify import ScriptError, verify_in_folder

    def say_nothing(*messages: str) -> None:
        del messages

    try:
        with ended_by_signals():
            return verify_in_folder(request, say_nothing if quiet else say)
    except ScriptError as error:
        sys.stdout.flush()
        raise click.ClickException(str(error)) from error
