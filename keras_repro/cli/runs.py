"""Runs as the command names, compares and shows them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_repro.cli.tables import WIDTH, format_table
from keras_repro.common.json import flatten, to_plain
from keras_repro.common.text import escape, say_more, wrap
from keras_repro.runs.comparison import (
    Comparison,
    RunGroups,
    compare_runs,
    group_runs,
)
from keras_repro.runs.file import load_runs
from keras_repro.runs.run import Run


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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = list(load_runs(path))
    return runs, tuple(escape(one.message) for one in caught)
