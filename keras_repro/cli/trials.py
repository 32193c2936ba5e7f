"""The command `keras-repro trials`: run a study, show it, compare studies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from keras_repro.cli import shared
from keras_repro.cli.shared import (
    DIR,
    NAME,
    WORKERS,
    CommandT,
    WrittenFile,
    integers,
    numbers,
    start,
    to_json,
)
from keras_repro.common.checks import MOST_TRIALS, POSITIVE, SHARE

if TYPE_CHECKING:
    from keras_repro.studies.results import TrialResults


DONE, SOME_FAILED = 0, 1
NOT_SETTLED, SETTLED = 0, 1
_metric = click.option(
    "--metric",
    type=NAME,
    show_default="the first one",
    help="the score that is meant",
)


def _shows_a_study(command: CommandT) -> CommandT:
    """Give a command the options of what it shows of a study."""
    csv = click.option(
        "--csv",
        type=WrittenFile(dir_okay=False),
        help="also write a table of the trials",
    )
    return _metric(csv(shared.html(shared.as_json(command))))


class _Trials(click.Group):
    """What is no action is the function of a study to run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


class _Study(click.Command):
    """All that follows `--` is the script's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.params["arguments"] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])


@click.group(
    cls=_Trials,
    subcommand_metavar="SCRIPT:FUNCTION | ACTION ...",
    epilog="`keras-repro trials run --help` lists the options.",
)
def trials() -> None:
    """Run one training under many seeds, and sum the scores up.

    FUNCTION takes the model, fits it and returns a score or a dict of scores;
    the script also holds a `model`, a compiled ReproducibleModel or a function
    that builds one.

    The script is imported, so what stands under `if __name__ == "__main__":`
    does not run. What follows `--` is the script's own. With --path every
    finished trial is on disk at once, and the same command goes on where it
    was.

    `keras-repro trials show DIR` shows a study; `keras-repro trials compare
    DIR1 DIR2` compares studies, paired by seed.
    """


@trials.command(
    cls=_Study,
    help=trials.help,
    short_help="Run a study.",
    epilog="""\b
exit codes:
  0  every trial finished
  1  `train` raised under some seeds
  2  trouble: wrong arguments, no such function, another study in DIR

\b
examples:
  keras-repro trials train.py:train --seeds 30 --path baseline
  keras-repro trials train.py:train --seeds 30 --workers 2 --path baseline
  keras-repro trials train.py:train --until 0.1 --metric rmse
  keras-repro trials package.train:train --model build -- --epochs 5
""",
)
@click.argument("target", metavar="SCRIPT:FUNCTION [-- ARGS...]")
@click.option(
    "--model",
    type=NAME,
    default="model",
    help="the script's model, or the function that builds it",
)
@click.option(
    "--seeds",
    type=integers(1, MOST_TRIALS),
    default="30",
    help="how many seeds: 0, 1, 2, ...",
)
@click.option(
    "--workers",
    "num_workers",
    type=WORKERS,
    help="run the trials in N processes",
)
@click.option(
    "--path", type=DIR, help="keep the study there, and go on with it"
)
@click.option(
    "--vary",
    type=click.Choice(["all", "initial", "order", "random"]),
    default="all",
    help="what the seeds move: all, the initial weights, the order of the "
    "data, or the random draws",
)
@click.option(
    "--until",
    type=numbers("x", POSITIVE),
    help="stop when the 95% interval of the mean is X to either side",
)
@click.option(
    "--check",
    type=numbers("share", SHARE),
    default="0",
    help="repeat this share of the trials in another process and compare "
    "checksums",
)
@click.option("--quiet", is_flag=True, help="show no bar")
@shared.backend
@_shows_a_study
@click.pass_obj
def run(
    typed: list[str],
    /,
    *,
    backend: str | None,
    metric: str | None,
    csv: str | None,
    html: str | None,
    as_json: bool,
    **study: Any,
) -> int:
    """Run a study."""
    missing = find_switches(backend)
    if missing:
        # Read when Python and the backend start: so start once more.
        command = [sys.executable, "-m", "keras_repro", *typed]
        return start(command, {**os.environ, **missing})
    results = run_study(metric=metric, **study)
    return _show_study(results, metric, csv, html, as_json=as_json)


@trials.command(
    epilog="""\b
exit codes:
  0  shown
  1  some of its trials failed
  2  trouble: no such study

\b
examples:
  keras-repro trials show baseline
  keras-repro trials show baseline --html baseline.html --csv baseline.csv
""",
)
@click.argument("path", type=DIR, metavar="DIR")
@_shows_a_study
def show(
    *,
    path: str,
    metric: str | None,
    csv: str | None,
    html: str | None,
    as_json: bool,
) -> int:
    """Show a study that was run with --path, finished or not."""
    from keras_repro.studies.files import load_trials

    results = load_trials(path)
    return _show_study(results, metric, csv, html, as_json=as_json)


@trials.command(
    epilog="""\b
exit codes:
  0  no difference is settled
  1  a difference is settled
  2  trouble: no such study, other seeds, no such metric

\b
examples:
  keras-repro trials compare baseline smoothed
  keras-repro trials compare baseline smoothed --margin 0.1
  keras-repro trials compare baseline smoothed wider --metric rmse
""",
)
@click.argument("paths", nargs=-1, required=True, type=DIR, metavar="DIR...")
@click.option(
    "--margin",
    type=numbers("size", POSITIVE),
    help="the largest difference that does not matter: an interval within it "
    "settles that two studies are equal for you",
)
@_metric
@shared.html
@shared.as_json
def compare(
    *,
    paths: tuple[str, ...],
    margin: float | None,
    metric: str | None,
    html: str | None,
    as_json: bool,
) -> int:
    """Compare studies, paired by seed.

    Told are the difference of the means with its interval, paired tests, and
    whether it is settled. More than two are compared with the first, corrected
    for their number. A study that is not what was planned when it began counts
    as watched: its interval holds however often one looks.
    """
    from keras_repro.studies.comparison import compare_trials

    if len(paths) < 2:
        raise click.ClickException(
            "`trials compare` must be given two studies or more. Received: "
            f"{', '.join(paths)}. Name another folder."
        )
    compared = compare_trials(load_studies(paths), metric=metric, margin=margin)
    if html is not None:
        compared.to_html(html)
    print(to_json(compared.to_json()) if as_json else compared)
    found = {one.outcome for one in compared.comparisons}
    return SETTLED if found & {"lower", "higher"} else NOT_SETTLED


def _show_study(
    results: TrialResults,
    metric: str | None,
    csv: str | None,
    html: str | None,
    *,
    as_json: bool,
) -> int:
    # Says now if there is no such score.
    summary = None if metric is None else results.summary(metric)
    if csv is not None:
        results.to_csv(csv)
    if html is not None:
        results.to_html(html)
    print(to_json(results.to_json()) if as_json else summary or results)
    return SOME_FAILED if results.failures else DONE


def find_switches(backend: str | None) -> dict[str, str]:
    """What must stand in the environment before Python and Keras start."""
    from keras_repro.environment.switches import (
        find_backend,
        switches_for,
        with_backend,
    )

    environment = with_backend(backend)
    used = find_backend(environment)
    wanted = {"KERAS_BACKEND": used, **switches_for(0, used, environment)}
    return {
        name: value
        for name, value in wanted.items()
        if os.environ.get(name) != value
    }


def run_study(
    *,
    target: str,
    arguments: Sequence[str],
    model: str,
    until: float | None,
    metric: str | None,
    quiet: bool,
    **options: Any,
) -> TrialResults:
    """Run the trials of a script's function."""
    module = _load(target, arguments)
    train = _find(module, target.rpartition(":")[2], "train")
    found = _find(module, model, "model")
    from keras_repro.studies.stopping import HalfWidth
    from keras_repro.trials.run import run_trials

    rule = None if until is None else HalfWidth(until, metric=metric)
    try:
        return run_trials(
            found, train, progress=not quiet, until=rule, **options
        )
    except (TypeError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def load_studies(paths: Sequence[str]) -> dict[str, TrialResults]:
    """Load studies, by the names of their folders."""
    from keras_repro.studies.files import load_trials

    loaded = [load_trials(path) for path in paths]
    names = [one.name or path for one, path in zip(loaded, paths, strict=True)]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        raise click.ClickException(
            "`trials compare` must be given different studies. Received: "
            f"{', '.join(paths)}. Name each folder once."
        )
    return dict(zip(names, loaded, strict=True))


# --- the script --------------------------------------------------------------


def _load(target: str, arguments: Sequence[str]) -> ModuleType:
    """Import a script, or a module, as a module that is not the main one."""
    place, found, _ = target.rpartition(":")
    if not found or not place:
        raise click.ClickException(
            "`trials` must be given a script and its function, as "
            f"`train.py:train`. Received: '{target}'."
        )
    sys.argv = [place, *arguments]
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return _import(place)
    file = Path(place).resolve()
    if not file.is_file():
        raise click.ClickException(
            "`trials` must be given a script that exists. Received: "
            f"'{place}'. Check its name."
        )
    sys.path.insert(0, str(file.parent))
    name = file.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name}_script"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"'{place}' cannot be imported.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise click.ClickException(
            "`trials` must be given a script, or a module that can be "
            f"imported. Received: '{name}'. A script's name ends in .py."
        ) from error


def _find(module: ModuleType, name: str, kind: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = getattr(module, name)
    except AttributeError:
        option = " (another name: --model NAME)" if kind == "model" else ""
        raise click.ClickException(
            f"The script must have a {kind} called `{name}`{option}. Received: "
            f"'{module.__file__}', which has none."
        ) from None
    return found
