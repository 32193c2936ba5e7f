"""The commands `keras-repro compare`, `show` and `run`."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_repro.cli import shared
from keras_repro.cli.shared import (
    DIFFERENT,
    DIR,
    EQUAL,
    FILE,
    NAME,
    OURS_FIRST,
    SEED,
    check_target,
    kind,
    numbers,
    say,
    start,
    takes_script,
    to_json,
)
from keras_repro.cli.tables import WIDTH, format_table
from keras_repro.common.checks import (
    NOT_NEGATIVE,
    check_every,
    check_int,
    read_whole,
)
from keras_repro.common.files import check_writable
from keras_repro.common.json import flatten, to_plain
from keras_repro.common.text import escape, say_more, wrap

if TYPE_CHECKING:
    from keras_repro.runs.comparison import Comparison, RunGroups
    from keras_repro.runs.run import Run
    from keras_repro.watching.model_calls import Options


@click.command(
    epilog=f"""\b
exit codes:
  0  all agree: equal, or within tolerance
  1  different
  2  {shared.TROUBLES}

\b
examples:
  keras-repro compare runs.jsonl                  all runs of one file
  keras-repro compare runs.jsonl@0 runs.jsonl@-1  its first and its last run
  keras-repro compare monday.jsonl friday.jsonl   the last run of each
  keras-repro compare monday.jsonl friday.jsonl --rtol 1e-5
  keras-repro compare runs.jsonl --html report.html
"""
)
@click.argument(
    "names", nargs=-1, required=True, type=FILE, metavar="FILE[@RUN]..."
)
@click.option(
    "--rtol",
    type=numbers("x", NOT_NEGATIVE),
    default="0",
    help="the relative tolerance",
)
@click.option(
    "--atol",
    type=numbers("x", NOT_NEGATIVE),
    default="0",
    help="the absolute tolerance",
)
@shared.html
@shared.as_json
def compare(
    *,
    names: tuple[str, ...],
    rtol: float,
    atol: float,
    html: str | None,
    as_json: bool,
) -> int:
    """Compare runs down to the first place at which they differ.

    FILE is a run's file. FILE@RUN is one run of it: a whole number that is a
    position in the file, such as 0 or -1, counts as one; all else is the start
    of an id. A file whose own name holds an @ is taken as that file.

    With one FILE, all its finished runs are compared; with two arguments, one
    run of each (the last one where none is named). More than two runs are
    sorted into groups that agree.
    """
    files = [RunFile(name) for name in names]
    say(*dict.fromkeys(one for file in files for one in file.warnings))
    result = compare_files(files, rtol=rtol, atol=atol)
    if html is not None:
        result.to_html(html)
    print(to_json(result.to_json()) if as_json else result)
    return EQUAL if result.agree else DIFFERENT


@click.command(
    epilog=f"""\b
exit codes:
  0  shown
  1  never
  2  {shared.TROUBLES}

\b
examples:
  keras-repro show runs.jsonl
  keras-repro show runs.jsonl@-1
  keras-repro show runs.jsonl --json
"""
)
@click.argument("name", type=FILE, metavar="FILE[@RUN]")
@shared.as_json
def show(*, name: str, as_json: bool) -> int:
    """Show the runs of a file in a table; times are in UTC.

    With FILE@RUN, or where the file holds one run alone, show all of that run:
    what it is, its epochs with their metrics and checksums, its notes, and its
    environment. RUN is a position (0, -1) or the start of an id, as for
    `compare`.
    """
    file = RunFile(name)
    say(*file.warnings)
    print(to_json(file_to_json(file)) if as_json else show_file(file))
    return EQUAL


def _read_every(text: str) -> str | int:
    number = read_whole(text)
    return check_every(text if number is None else number)


def _read_save_freq(text: str) -> str | int:
    number = read_whole(text)
    if number is None and text != "epoch":
        raise ValueError(text)
    return text if number is None else check_int("", number, 1)


@click.command(
    context_settings=OURS_FIRST,
    epilog="""\b
exit codes:
  those of the script; 128 + n if signal n ended it, as a shell has it
  2  also if the script is not there or the log cannot be written

\b
examples:
  keras-repro run train.py --epochs 5
  keras-repro run --seed 7 --log runs.jsonl train.py
  keras-repro run --backend jax --every batch train.py
  keras-repro run -m package.train --epochs 5
  keras-repro run --backup backups train.py
""",
)
@takes_script
@click.option(
    "--seed",
    type=SEED,
    default="0",
    help="seed of every generator and of string hashes",
)
@click.option(
    "--log",
    type=FILE,
    default="runs.jsonl",
    help="append the runs to this file",
)
@shared.backend
@click.option(
    "--every",
    type=kind(
        "when",
        "be `epoch`, `batch` or a positive number of batches",
        _read_every,
    ),
    default="epoch",
    help="record each `epoch`, each `batch` or each N batches",
)
@click.option(
    "--name",
    type=NAME,
    help="say that runs of this name must be equal; a second fit of the "
    "script is called NAME/2",
)
@click.option(
    "--on-drift",
    type=click.Choice(["warn", "raise", "stop", "ignore"]),
    show_default="warn with --name, else ignore",
    help="what to do when a run departs from an earlier one that it should "
    "equal",
)
@click.option(
    "--snapshots",
    is_flag=True,
    help="also keep the weights of each epoch, beside the file",
)
@click.option(
    "--backup",
    type=DIR,
    help="back each fit up in this folder; the same command, started again "
    "after the script was killed, goes on there",
)
@click.option(
    "--save-freq",
    type=kind(
        "when", "be `epoch` or a positive number of batches", _read_save_freq
    ),
    show_default="epoch",
    help="with --backup: back up at each `epoch`, or each N batches",
)
@click.option("--quiet", is_flag=True, help="leave out the line at the end")
@click.option(
    "--json", is_flag=True, help="make the line at the end a JSON object"
)
def run(
    *,
    target: tuple[str, ...],
    module: bool,
    backend: str | None,
    **options: Any,
) -> int:
    """Run a script with everything seeded, and record each fit.

    The script is run, unchanged, in an interpreter in which hash seed and
    deterministic switches are set before anything is imported, and every
    generator is seeded; each `keras.Model.fit` is recorded in a file.

    Options of ours come before the script; all that follows it is the script's
    own. Nothing is written to standard output. One line on standard error says
    at the end how many runs were recorded.

    With --backup, a script that was killed is started again by the same
    command: it runs from its first line, each fit that had ended gives its
    results at once, and the one that was killed goes on from its last backup,
    to the same bits. For this the models of the script are made reproducible
    at their first fit, as by `make_reproducible`: the order of arrays and the
    random draws are then others than without --backup. When the script has
    ended without an error, its backups are removed.
    """
    from keras_repro.environment.switches import (
        find_backend,
        switches_for,
        with_backend,
    )

    check_target("run", target, module=module)
    wanted = _make_options(module=module, **options)
    environment = with_backend(backend)
    used = find_backend(environment)
    environment.update(switches_for(wanted.seed, used, environment))
    starter = str(Path(__file__).parents[1] / "__main__.py")
    command = [sys.executable, starter, wanted.to_text(), *target]
    return start(command, environment)


def _make_options(
    *,
    log: str,
    name: str | None,
    on_drift: str | None,
    snapshots: bool,
    backup: str | None,
    save_freq: str | int | None,
    **options: Any,
) -> Options:
    from keras_repro.runs.file import RunWriter
    from keras_repro.watching.model_calls import Options

    path = Path(log).absolute()
    RunWriter(path)  # Says now if nothing can be recorded there.
    return Options(
        log=str(path),
        name=name,
        on_drift=on_drift or ("ignore" if name is None else "warn"),
        snapshots="epoch" if snapshots else None,
        backup=_find_backup(backup, save_freq),
        save_freq=save_freq or "epoch",
        **options,
    )


def _find_backup(backup: str | None, save_freq: str | int | None) -> str | None:
    """The folder of the backups, made; says now if none can be written."""
    if backup is None:
        if save_freq is not None:
            raise click.ClickException(
                "`--save-freq` must come with `--backup DIR`. Received: "
                f"`--save-freq {save_freq}` alone. Name a folder for the "
                "backups."
            )
        return None
    path = Path(backup).absolute()
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path / "a backup")
    return str(path)


# --- which runs --------------------------------------------------------------


class RunFile:
    """A file of runs, or one: `FILE` alone, `FILE@POSITION` or `FILE@ID`."""

    def __init__(self, argument: str) -> None:
        # A whole number that is a position in the file counts as one, all else
        # as the start of an id. The name of a file is that file, also with an
        # `@` in it.
        path, _, choice = argument.rpartition("@")
        if not path or Path(argument).exists():
            path, choice = argument, ""
        self.argument = argument
        self.path = Path(path)
        self.runs, self.warnings = _load(self.path)
        self.position = self._find(choice) if choice else None

    @property
    def run(self) -> Run:
        """The run that was chosen, or the last one of the file."""
        if not self.runs:
            raise ValueError(
                f"The file must hold a run. Received: '{self.path}', which "
                "holds none. Record one with `keras-repro run`."
            )
        return self.runs[-1 if self.position is None else self.position]

    @property
    def key(self) -> tuple[Path, str]:
        """What tells this run from any other."""
        return self.path.resolve(), self.run.run_id

    def _find(self, choice: str) -> int:
        number = len(self.runs)
        if _is_whole(choice) and -number <= int(choice) < number:
            return int(choice) % number
        found = [
            position
            for position, run in enumerate(self.runs)
            if run.run_id.startswith(choice)
        ]
        if len(found) == 1:
            return found[0]
        raise ValueError(
            "FILE@RUN must name one run: a position from 0, or the start of "
            f"an id. Received: '{self.argument}', which names {len(found)} of "
            f"the {number} runs. See `keras-repro show {self.path}`."
        )


def compare_files(
    files: Sequence[RunFile], *, rtol: float = 0.0, atol: float = 0.0
) -> Comparison | RunGroups:
    """Compare what the arguments of `compare` name."""
    from keras_repro.runs.comparison import compare_runs, group_runs

    if len(files) == 1 and files[0].position is None:
        runs = [run for run in files[0].runs if run.finished]
        if len(runs) < 2:
            raise ValueError(
                "A file compared by itself must hold two or more finished "
                f"runs. Received: '{files[0].path}' with {len(runs)} of "
                f"{len(files[0].runs)} runs finished. Name a second file, or "
                f"see `keras-repro show {files[0].path}`."
            )
    else:
        runs = [file.run for file in files]
        if len({file.key for file in files}) < max(2, len(files)):
            named = ", ".join(f"'{file.argument}'" for file in files)
            raise ValueError(
                "`compare` must be given two or more different runs. "
                f"Received: {named}, where a FILE alone is its last run. Name "
                "runs by FILE@POSITION or FILE@ID, or give one FILE to "
                "compare all its runs."
            )
    if len(runs) == 2:
        return compare_runs(runs[0], runs[1], rtol, atol)
    return group_runs(runs, rtol, atol)


# --- what is shown -----------------------------------------------------------


def show_file(file: RunFile) -> str:
    """What `show` prints."""
    if file.position is None and len(file.runs) != 1:
        if not file.runs:
            return f"No run in {escape(file.path)}."
        rows = [_to_row(summarize(i, run)) for i, run in enumerate(file.runs)]
        return "\n".join(_list(rows))
    return "\n".join(_describe(file.position or 0, file.run))


def file_to_json(file: RunFile) -> dict[str, Any]:
    """What `show --json` prints."""
    runs = enumerate(file.runs)
    result = {
        "path": str(file.path),
        "runs": [to_plain(summarize(i, run)) for i, run in runs],
    }
    if file.position is not None or len(file.runs) == 1:
        result["run"] = to_plain(_collect(file.position or 0, file.run))
    return result


def summarize(position: int, run: Run) -> dict[str, Any]:
    """The one line of a run, as values."""
    epochs = run.epochs
    metrics = epochs[-1].metrics if epochs else {}
    return {
        "position": position,
        "id": run.run_id,
        "started": run.header.started,
        "name": run.header.name,
        "seed": run.header.seed,
        "model": run.header.model.get("class"),
        "epochs": len(epochs),
        "loss": metrics.get("loss"),
        "checksum": run.checksum,
        "status": "not ended" if run.end is None else run.end.status,
    }


# --- one run -----------------------------------------------------------------


def _collect(position: int, run: Run) -> dict[str, Any]:
    """All of a run that `show` knows, as values."""
    header, end = run.header, run.end
    return {
        **summarize(position, run),
        "every": header.every,
        "identity": header.identity,
        "data": header.data,
        "snapshots": header.snapshots,
        "records": len(run.records),
        "torn": run.torn,
        "ended": None if end is None else end.ended,
        "exception": None if end is None else end.exception,
        "notes": header.notes,
        "environment": header.environment,
        "initial_checksum": run.records[0].model if run.records else None,
        "history": [
            {
                "epoch": record.epoch,
                "checksum": record.model,
                "metrics": record.metrics,
            }
            for record in run.epochs
        ],
    }


def _describe(position: int, run: Run) -> Iterator[str]:
    values = _collect(position, run)
    status = values["status"]
    if values["exception"] is not None:
        status = f"{status} with {values['exception']}"
    yield from _entries(
        {
            "run": f"{run.run_id}, position {position}",
            "name": values["name"],
            "started": values["started"],
            "ended": values["ended"],
            "status": status,
            "seed": "none" if values["seed"] is None else values["seed"],
            "model": values["model"],
            "data": _show_leaves(run.header.data) or None,
            "identity": _show_leaves(run.header.identity),
            "recorded": f"every {values['every']}, {values['records']} records",
            "snapshots": values["snapshots"],
            "torn": "a half-written line was dropped" if run.torn else None,
            "initial": values["initial_checksum"],
            "checksum": values["checksum"],
        }
    )
    if run.epochs:
        yield from ("", *_describe_epochs(run))
    if run.header.notes:
        yield from ("", "Notes")
        for note in run.header.notes:
            yield from wrap(escape(note), start="  - ", width=WIDTH)
    if run.header.environment:
        yield from ("", "Environment")
        environment = _show_leaves(run.header.environment)
        yield from (f"  {line}" for line in _entries(environment, WIDTH - 2))


def _describe_epochs(run: Run) -> list[str]:
    """The epochs from 1, as many metrics as fit, and checksums."""
    names = list(run.history())
    while True:
        rows = [
            {
                "epoch": str((record.epoch or 0) + 1),
                **{
                    escape(name): _number(record.metrics.get(name))
                    for name in names
                },
                "checksum": _short(record.model),
            }
            for record in run.epochs
        ]
        lines = format_table(rows)
        if len(names) < 2 or max(map(len, lines)) <= WIDTH:
            break
        names.pop()
    hidden = len(run.history()) - len(names)
    return [*lines, say_more(hidden, "metrics")] if hidden else lines


def _entries(values: Mapping[str, Any], width: int = WIDTH) -> Iterator[str]:
    """A line for each value that is there, long ones over several."""
    shown = {escape(k): v for k, v in values.items() if v not in (None, {}, [])}
    indent = max(map(len, shown), default=0) + 2
    for key, value in shown.items():
        text = value
        if isinstance(value, Mapping):
            text = ", ".join(f"{name}={one}" for name, one in value.items())
        yield from wrap(
            escape(text), start=f"{key}:".ljust(indent), width=width
        )


def _show_leaves(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves by their path in dots; what is `None` is left out."""
    result: dict[str, Any] = {}
    for key, value in flatten(nested).items():
        if value is not None:
            plain = to_plain(value)
            is_list = isinstance(plain, list)
            result[key] = json.dumps(plain) if is_list else plain
    return result


# --- a table -----------------------------------------------------------------


def _to_row(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "#": str(row["position"]),
        "id": row["id"][:8],
        "started": row["started"][:16].replace("T", " "),
        "name": "" if row["name"] is None else escape(row["name"]),
        "seed": "none" if row["seed"] is None else str(row["seed"]),
        "model": escape(row["model"] or ""),
        "epochs": str(row["epochs"]),
        "loss": _number(row["loss"]),
        "checksum": _short(row["checksum"]),
        "status": escape(row["status"]),
    }


def _list(rows: list[dict[str, str]]) -> list[str]:
    """The table of runs; the time of day goes before long names are cut."""
    lines: list[str] = []
    for day, low in ((16, 10), (10, 10), (10, 3)):
        shown = [{**row, "started": row["started"][:day]} for row in rows]
        lines = format_table(shown, {"name": low, "model": low})
        if max(map(len, lines)) <= WIDTH:
            break
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _short(checksum: str | None) -> str:
    """The first digits, after the version of the format."""
    return "" if checksum is None else checksum.rpartition(":")[2][:8]


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii()


def _load(path: str | os.PathLike[str]) -> tuple[list[Run], tuple[str, ...]]:
    """Load runs; what was dropped on the way, as plain lines."""
    from keras_repro.runs.file import load_runs

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = list(load_runs(path))
    return runs, tuple(escape(one.message) for one in caught)
