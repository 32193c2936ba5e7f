"""Runs that were recorded in another place: which difference explains them?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_repro.common.files import os_errors_told
from keras_repro.common.text import quote
from keras_repro.diagnosis.causes import (
    ENVIRONMENT,
    HASH_ORDER,
    THREAD_COUNT,
    Cause,
    advise,
)
from keras_repro.diagnosis.first_mismatch import (
    FirstMismatch,
    Process,
    compare_fits,
)
from keras_repro.diagnosis.script_reruns import (
    Record,
    ScriptLaboratory,
    Settings,
)
from keras_repro.diagnosis.search import Findings, Holds
from keras_repro.diagnosis.suspects import (
    LIKELY,
    POSSIBLE,
    UNLIKELY,
    Candidate,
)
from keras_repro.environment.differences import (
    EnvironmentDifference,
    find_differences,
)
from keras_repro.environment.settable import is_settable
from keras_repro.runs.file import RunWriter, load_runs
from keras_repro.runs.run import Run, list_entries
from keras_repro.watching.model_calls import FIT

HOLD = "environment"
_VARIABLES = "environment_variables."
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SWITCHES = {
    "onednn.enabled": "TF_ENABLE_ONEDNN_OPTS",
    "hash_seed": "PYTHONHASHSEED",
    "backend": "KERAS_BACKEND",
    "threads.intra_op": "TF_NUM_INTRAOP_THREADS",
    "threads.inter_op": "TF_NUM_INTEROP_THREADS",
}
_LIKELY = 2  # A weight of an environment's difference.
_WEIGHTS = {3: LIKELY, 2: LIKELY, 1: POSSIBLE, 0: UNLIKELY}


def load_recorded(path: Path, num_fits: int) -> tuple[Run, ...]:
    """Load the last finished runs of a file, as many as a script makes."""
    runs = [run for run in load_runs(path) if run.finished]
    if not num_fits or len(runs) < num_fits:
        raise ValueError(
            "--against must name a file that holds as many finished runs as "
            f"the script makes. Received: {quote(path)} with {len(runs)}, and "
            f"a script with {num_fits}. Record them with `keras-repro verify "
            "--log FILE` there."
        )
    return tuple(runs[-num_fits:])


def compare_with_recorded(
    recorded: Sequence[Run], process: Process
) -> FirstMismatch | None:
    """Compare what was recorded with what a process did here."""
    fits = [call for call in process.calls if call.method == FIT]
    for run, call in zip(recorded, fits, strict=False):
        other = process.find_run(call)
        found = None if other is None else compare_fits(call, run, other)
        if found is not None:
            return found
    return None


class ElsewhereLaboratory:
    """Repeats a script with its environment as somebody else's was."""

    def __init__(
        self, laboratory: ScriptLaboratory, recorded: Sequence[Run]
    ) -> None:
        self._laboratory, self._recorded = laboratory, recorded
        here = _environment_of(laboratory.records[0].process)
        there = recorded[0].header.environment
        self.differences = list(_distinct(find_differences(there, here)))

    def find_candidates(self) -> list[Candidate]:
        """The differences that can be tried out here."""
        return [
            Candidate(
                hold=f"{HOLD} {one.key}",
                kind=_kind_of(one),
                weight=_WEIGHTS.get(one.weight, UNLIKELY),
            )
            for one in self.differences
            if _set_as_there(one) is not None
        ]

    def repeat(self, holds: Holds) -> Record | None:
        """Run the script here, in some things as it was run there."""
        settings = Settings()
        for one in self.differences:
            there = _set_as_there(one)
            if f"{HOLD} {one.key}" in holds and there is not None:
                settings = settings.joined(there)
        record = self._laboratory.run(shown=False, settings=settings)
        return record if record.outcome.succeeded else None

    def agree(self, a: Any, b: Any) -> bool:
        """Whether a process here did what was recorded there."""
        del a
        return compare_with_recorded(self._recorded, b.process) is None

    def explain(self, findings: Findings) -> tuple[list[Cause], list[Cause]]:
        """The causes that were shown, and those that can only be suspected."""
        shown, harmless = set(findings.causes), set(findings.harmless)
        harmless |= set(findings.ruled_out)
        causes, suspects = [], []
        for one in self.differences:
            hold = f"{HOLD} {one.key}"
            if hold in shown:
                causes.append(_make_cause(one, tried=True))
            elif hold not in harmless and one.weight and not shown:
                how = _how_to_try(one)
                suspects.append(_make_cause(one, tried=False, advice=how))
        return causes, suspects


def _make_cause(
    one: EnvironmentDifference, *, tried: bool, advice: str | None = None
) -> Cause:
    told = f"{one.key} was {one.a} there and is {one.b} here"
    if tried:
        told += "\nwith this set as it was there, the runs agree"
    return Cause(
        kind=_kind_of(one),
        location=None,
        library=_library_of(one),
        evidence=told,
        advice=advice or one.sentence or advise(ENVIRONMENT),
    )


def explain_environments(there: Process, here: Process) -> list[Cause]:
    """What of two environments probably makes two processes differ."""
    differences = find_differences(
        _environment_of(there), _environment_of(here)
    )
    return [
        _make_cause(one, tried=False)
        for one in differences
        if one.weight >= _LIKELY and one.key != "hash_seed"
    ]


def append_runs(path: Path, process: Process) -> None:
    """Append the runs of a process to a file."""
    writer = RunWriter(path)
    for call in process.calls:
        run = process.find_run(call)
        if run is not None:
            with os_errors_told(path, "The runs must be written to a file"):
                writer.write(*list_entries(run))


def _environment_of(process: Process) -> Any:
    for call in process.calls:
        run = process.find_run(call)
        if run is not None:
            return run.header.environment
    return {}


def _distinct(
    differences: Iterable[EnvironmentDifference],
) -> Iterator[EnvironmentDifference]:
    """Without those that are set by the same means as a likelier one."""
    seen: list[Settings] = []
    for one in differences:
        there = _set_as_there(one)
        if there is None or there not in seen:
            yield one
        if there is not None:
            seen.append(there)


def _set_as_there(one: EnvironmentDifference) -> Settings | None:
    """How to have it here as it was there; `None` if that is not done."""
    # What stands in the file may be anybody's: only known switches are set, to
    # values that they can have.
    variable = _find_variable(one)
    if variable is not None:
        name, value = variable
        return (
            Settings(variables={name: value})
            if is_settable(*variable)
            else None
        )
    if one.key == "usable_cores" and type(one.a) is type(one.b) is int:
        return Settings(num_cores=one.a) if 1 <= one.a < one.b else None
    if one.key == "deterministic" and one.a is True:
        return Settings(deterministic=True)
    return None


def _find_variable(one: EnvironmentDifference) -> tuple[str, Any] | None:
    """The environment variable that it is, or acts through, and its value."""
    prefix, _, name = one.key.partition(".")
    if one.key in _SWITCHES:
        value = one.a
        if value is None and one.key != "hash_seed":
            return None  # Not known, which is not the same as not set.
        if type(value) in (bool, int):
            value = str(int(value))
        return _SWITCHES[one.key], value
    if one.key.startswith(_VARIABLES) or (
        prefix == "threads" and name.isupper()
    ):
        return name, one.a
    return None


def _how_to_try(one: EnvironmentDifference) -> str | None:
    """The command that sets it by hand, for what is not set from a file."""
    variable = _find_variable(one)
    if variable is None or is_settable(*variable):
        return None
    name, value = variable
    # An environment is recorded with "..." in place of what may be private.
    is_whole = value is None or (
        isinstance(value, str) and value.isprintable() and "..." not in value
    )
    if not (_NAME.fullmatch(name) and is_whole):
        return None
    change = f"-u {name}" if value is None else shlex.quote(f"{name}={value}")
    return (
        "It was not tried, since a file may not set it. If you trust where it "
        f"comes from: env {change} keras-repro verify ..."
    )


def _kind_of(one: EnvironmentDifference) -> str:
    if one.key.startswith("threads.") or one.key == "usable_cores":
        return THREAD_COUNT
    return HASH_ORDER if "hash" in one.key.lower() else ENVIRONMENT


def _library_of(one: EnvironmentDifference) -> str | None:
    prefix, _, name = one.key.partition(".")
    if prefix == "versions":
        return name
    return "tensorflow" if prefix == "onednn" else None
