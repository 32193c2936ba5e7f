"""Is a script reproducible, and if not, why? Run, compared, experimented on."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_repro.common.checks import (
    MAX_SEED,
    MOST_WORKERS,
    SECONDS,
    check_choice,
    check_flag,
    check_function,
    check_int,
    check_items,
    check_name,
    check_number,
    check_path,
    check_seed,
)
from keras_repro.common.text import quote
from keras_repro.common.whose_code import show_place
from keras_repro.diagnosis.causes import STATE_LEAK, Cause
from keras_repro.diagnosis.explain import (
    Explainer,
    describe_experiment,
    explain_traps,
    name_hold,
)
from keras_repro.diagnosis.first_mismatch import (
    FirstMismatch,
    Process,
    compare_processes,
)
from keras_repro.diagnosis.other_machine import (
    ElsewhereLaboratory,
    append_runs,
    compare_with_recorded,
    load_recorded,
)
from keras_repro.diagnosis.processes import (
    ERRORS,
    Launcher,
    Outcome,
    RecordingError,
    adopting_orphans,
    show_output,
)
from keras_repro.diagnosis.result import Verification
from keras_repro.diagnosis.script_reruns import (
    Fixes,
    Record,
    ScriptLaboratory,
)
from keras_repro.diagnosis.search import (
    Budget,
    Findings,
    Holds,
    Search,
    read_budget,
)
from keras_repro.diagnosis.suspects import (
    HASH,
    find_candidates,
    last_resorts,
)
from keras_repro.environment.switches import with_backend
from keras_repro.runs.file import RunWriter, load_runs
from keras_repro.watching.model_calls import END, FIT, Call
from keras_repro.watching.observations import NATIVE, NETWORK
from keras_repro.watching.programs import OTHER
from keras_repro.watching.tracing import find_first_difference
from keras_repro.watching.traps import TRAPS


class ScriptError(RuntimeError):
    """The script did not come to its end, or there was nothing to compare."""

    def __init__(self, message: str, outcome: Outcome | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be verified."""

    target: Sequence[str]  # The script, or a module, and its arguments.
    module: bool = False  # Whether it is named as a module.
    num_runs: int = 2  # How many are compared, two or more.
    # What experiments may cost.
    budget: Budget = field(default_factory=lambda: Budget(num_runs=24))
    fixes: Fixes = field(default_factory=Fixes)
    timeout: float | None = None  # Seconds that one run may take.
    against: Path | None = None  # Runs recorded earlier, or elsewhere.
    # The runs of the first process are appended to it.
    log: Path | None = None
    # `None` for that of this process.
    environment: Mapping[str, str] | None = None


def verify(
    script: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    *,
    module: bool = False,
    num_runs: int = 2,
    budget: int | str = 24,
    timeout: float | None = None,
    against: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    backend: str | None = None,
    seed: int | None = None,
    hash_seed: int | None = None,
    deterministic: bool = False,
    num_workers: int | None = None,
    num_threads: int | None = None,
    shuffle: bool = True,
    tell: Callable[[str], object] | None = None,
) -> Verification:
    """Find out whether a script is reproducible, and if not, why.

    As the command `keras-repro verify`: runs the script, unchanged, in fresh
    processes, and compares, bit for bit, all that it asks of its Keras models.
    Where runs differ, one suspected cause after the other is kept fixed until
    they agree. The options from `seed` to `shuffle` are fixes to try without
    editing: what they set is set in every run.

    Args:
        script: The path of the script; with `module`, the name of a module.
        arguments: The script's own arguments, as text.
        module: Whether to run a module, as `python -m` does.
        num_runs: How many runs are compared; 2 or more.
        budget: How many more runs experiments may take to find the cause, 0
            or more; or for how many seconds they may begin, as text such as
            `"300s"`.
        timeout: Seconds after which a run is ended; `None` for any time.
        against: A file of runs of an earlier day or another machine, to
            compare with as well.
        log: A file to which the runs of the first process are appended.
        backend: `"tensorflow"`, `"jax"` or `"torch"`; `None` for that which
            `KERAS_BACKEND` names.
        seed: Seeds every generator when the script starts.
        hash_seed: Sets `PYTHONHASHSEED`.
        deterministic: Whether to turn deterministic kernels on.
        num_workers: How many workers load data.
        num_threads: How many threads compute.
        shuffle: `False` has `fit` not shuffle arrays.
        tell: Is called with a line of text before each run, such as `print`.

    Returns:
        The verification, as the command prints it. It displays in a notebook.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it is no such value, or `against` is no file of runs.
        FileNotFoundError: If there is no such script, file or folder.
        RuntimeError: If the script fails, takes too long, or makes no call
            that could be recorded.

    Scope:
        These runs, on this machine. The first run's output goes through as it
        is; of the others none is shown. Calls in several threads wait for
        each other. On Linux what a run leaves running is ended, and so is
        what other threads of this program start meanwhile.

    Example:
        >>> script = "examples/mystery.py"  # Draws numbers without a seed.
        >>> found = verify(script, ["--epochs", "1"], budget=0)
        >>> found.reproducible, found.first_mismatch.method
        (False, 'fit')
    """
    fixes = _check_fixes(
        seed, hash_seed, deterministic, num_workers, num_threads, shuffle
    )
    tell = _check_tell(tell)
    is_module = check_flag("module", module)
    request = Request(
        target=_check_target(script, arguments, is_module=is_module),
        module=is_module,
        num_runs=check_int("num_runs", num_runs, 2),
        budget=read_budget(budget),
        fixes=fixes,
        timeout=_check_timeout(timeout),
        against=_check_file("against", against, load_runs),
        log=_check_file("log", log, RunWriter),
        environment=with_backend(_check_backend(backend)),
    )
    return verify_in_folder(request, tell)


def _check_fixes(
    seed: Any,
    hash_seed: Any,
    deterministic: Any,
    num_workers: Any,
    num_threads: Any,
    shuffle: Any,
) -> Fixes:
    return Fixes(
        seed=None if seed is None else check_seed(seed),
        hash_seed=_check_optional("hash_seed", hash_seed, 0, MAX_SEED),
        deterministic=check_flag("deterministic", deterministic),
        num_workers=_check_optional("num_workers", num_workers, 1),
        num_threads=_check_optional("num_threads", num_threads, 1),
        shuffle=None if check_flag("shuffle", shuffle) else False,
    )


def _check_tell(
    tell: Callable[[str], object] | None,
) -> Callable[[str], object]:
    if tell is None:
        return lambda _: None
    must = "be a function that takes a line of text"
    check_function("tell", tell, ("",), must, "Pass `print`, say.")
    return tell


def _check_target(script: Any, arguments: Any, *, is_module: bool) -> list[str]:
    advice = "Pass each as text, such as `['--epochs', '5']`."
    given = check_items("arguments", arguments, str, advice)
    if is_module:
        advice = "Pass its name, such as 'package.train'."
        return [check_name("script", script, advice), *given]
    advice = "Pass the path of the script, such as 'train.py'."
    path = check_path("script", script, advice)
    if not path.is_file():
        raise FileNotFoundError(
            "`script` must be a script that exists. Received: "
            f"{quote(path)}. {advice}"
        )
    return [str(path), *given]


def _check_optional(
    name: str, value: Any, low: int, high: int = MOST_WORKERS
) -> int | None:
    advice = "Leave it out to have it as the script has it."
    if value is None:
        return None
    return check_int(name, value, low, high, advice=advice)


def _check_timeout(timeout: Any) -> float | None:
    advice = "Leave it out for any time."
    if timeout is None:
        return None
    return check_number("timeout", timeout, SECONDS, advice)


def _check_file(
    name: str, path: Any, look: Callable[[Path], object]
) -> Path | None:
    """A file of runs, of which a look says now if it is of no use."""
    if path is None:
        return None
    advice = 'Pass a file name such as "runs.jsonl".'
    found = check_path(name, path, advice).absolute()
    look(found)
    return found


def _check_backend(backend: Any) -> str | None:
    if backend is None:
        return None
    return check_choice("backend", backend, ("tensorflow", "jax", "torch"))


# What a run leaves running is told from what ran before it: so one at a time.
_ONE_AT_A_TIME = threading.Lock()


def verify_in_folder(
    request: Request, tell: Callable[[str], object]
) -> Verification:
    """Verify a script, in a temporary folder that is removed afterwards."""
    print(end="", flush=True)  # So that the script's output comes after it.
    with (
        _ONE_AT_A_TIME,
        tempfile.TemporaryDirectory(
            prefix="keras-repro-", ignore_cleanup_errors=True
        ) as folder,
    ):
        try:
            with adopting_orphans():
                return _Verifier(request, Path(folder), tell).run()
        except ScriptError as error:
            if error.outcome is not None:
                show_output(error.outcome.folder, ERRORS)
            raise
        except RecordingError as error:
            raise ScriptError(str(error)) from None
        except OSError as error:
            if not str(error.filename).startswith(folder):
                raise
            told = RecordingError(Path(folder), str(error.strerror))
            raise ScriptError(str(told)) from None


@dataclass(frozen=True)
class Explanation:
    """Why the runs of a script differ."""

    causes: tuple[Cause, ...]  # What an experiment has shown.
    suspects: tuple[Cause, ...]  # What was only seen.
    findings: Findings  # By what was kept fixed.


def explain_difference(
    laboratory: ScriptLaboratory,
    first: Record,
    mismatch: FirstMismatch,
    budget: Budget,
    tell: Callable[[str], object],
) -> Explanation:
    """Find out why the runs of a script differ."""
    seen = find_candidates(
        [one.notes for one in laboratory.records],
        is_hash_fixed=laboratory.is_hash_fixed,
        below=first.notes_below,
    )
    resorts = last_resorts(first.notes)
    tell(f"they differ; {len(seen)} suspected, experiments begin")
    search = Search(
        laboratory, first, budget, _experiment_teller(laboratory, tell)
    )
    findings = search.run(seen, resorts)
    is_unknown = not findings.agreed and not findings.open
    first_line = None
    if is_unknown or HASH in findings.causes:
        every = frozenset(one.hold for one in seen)
        first_line = _trace(laboratory, every, tell)
    explainer = Explainer(mismatch, Path.cwd(), first_line)
    shown, suspects = explainer.explain([*seen, *resorts], findings)
    if is_unknown:
        shown = [explainer.give_up(findings)]
    return Explanation(tuple(shown), tuple(suspects), findings)


def _experiment_teller(
    laboratory: ScriptLaboratory, tell: Callable[[str], object]
) -> Callable[[Holds], None]:
    """Says before each experiment which run it is, and what it holds."""

    def tell_experiment(holds: Holds) -> None:
        tell(describe_experiment(len(laboratory.records) + 1, holds))

    return tell_experiment


def _trace(
    laboratory: ScriptLaboratory, holds: Holds, tell: Callable[[str], object]
) -> tuple[str, str] | None:
    """The first line at which two runs differ, with all else kept fixed."""
    traced = []
    for held in (holds, holds - {HASH}):
        number = len(laboratory.records) + 1
        tell(f"run {number}: values traced, to find the line")
        record = laboratory.trace(held)
        if not record.outcome.succeeded:
            return None
        traced.append(record.outcome.folder)
    return find_first_difference(*traced)


class _Verifier:
    def __init__(
        self, request: Request, folder: Path, tell: Callable[[str], object]
    ) -> None:
        self._request, self._tell = request, tell
        self._started = time.monotonic()
        self._laboratory = ScriptLaboratory(
            Launcher(
                request.target, timeout=request.timeout, ends_left_over=True
            ),
            folder,
            request.fixes,
            module=request.module,
            environment=request.environment,
        )

    def run(self) -> Verification:
        mismatch = None
        first = self._run_once(1)
        for number in range(2, self._request.num_runs + 1):
            other = self._run_once(number)
            mismatch = compare_processes(first.process, other.process)
            if mismatch is not None:
                break
        if self._request.log is not None:
            append_runs(self._request.log, first.process)
        if mismatch is not None:
            return self._explain(first, mismatch)
        if self._request.against is not None:
            return self._compare_elsewhere(first, self._request.against)
        return self._conclude(first)

    def _compare_elsewhere(self, first: Record, path: Path) -> Verification:
        """Equal here; now against what was recorded earlier, or elsewhere."""
        fits = [one for one in first.process.calls if one.method == FIT]
        recorded = load_recorded(path, len(fits))
        mismatch = compare_with_recorded(recorded, first.process)
        if mismatch is None:
            return self._conclude(first)
        laboratory = ElsewhereLaboratory(self._laboratory, recorded)
        seen = laboratory.find_candidates()
        self._tell(
            f"the runs agree here, but not with {path.name}; "
            f"{len(seen)} differences can be tried"
        )
        search = Search(
            laboratory,
            first,
            self._request.budget,
            _experiment_teller(self._laboratory, self._tell),
        )
        findings = search.run(seen, ())
        shown, suspects = laboratory.explain(findings)
        return self._conclude(
            first,
            mismatch=mismatch,
            causes=tuple(shown),
            suspects=tuple(suspects),
            findings=findings,
        )

    def _run_once(self, number: int) -> Record:
        total = self._request.num_runs
        self._tell(f"run {number} of {total}")
        record = self._laboratory.run(shown=number == 1)
        self._check(record, number)
        return record

    def _check(self, record: Record, number: int) -> None:
        outcome = record.outcome
        if outcome.timed_out:
            raise ScriptError(
                f"Run {number} must end within {self._request.timeout:g} s, "
                "its timeout. Received: it still ran after "
                f"{outcome.seconds:.0f} s, and was ended.",
                outcome,
            )
        if not outcome.succeeded:
            raise ScriptError(
                f"The script must come to its end. Received: run {number} "
                f"{_say_code(outcome.code)}. Its own message stands above.",
                outcome,
            )
        missing = _find_unrecorded(record.process)
        if missing is not None:
            raise ScriptError(
                "Every `fit` must be recorded, or nothing can be said of it. "
                f"Received: no whole record of the one at {missing.place}. "
                "Look at the warnings above, and whether there is room in "
                f"'{outcome.folder.parent}' (TMPDIR)."
            )
        if not (record.process.has_calls or record.unwatched):
            raise ScriptError(
                "The script must train or use a Keras model. Received: one "
                "that made no call that could be recorded, and left no model. "
                "Verify the script that trains."
            )

    def _explain(self, first: Record, mismatch: FirstMismatch) -> Verification:
        found = explain_difference(
            self._laboratory,
            first,
            mismatch,
            self._request.budget,
            self._tell,
        )
        return self._conclude(
            first,
            mismatch=mismatch,
            causes=found.causes,
            suspects=found.suspects,
            findings=found.findings,
        )

    def _conclude(
        self,
        first: Record,
        *,
        mismatch: FirstMismatch | None = None,
        causes: tuple[Cause, ...] = (),
        suspects: tuple[Cause, ...] = (),
        findings: Findings | None = None,
    ) -> Verification:
        every = [one for one in first.process.every if one.calls]
        calls = [call for one in every for call in one.calls]
        runs = [run for one in every for run in one.runs.values()]
        harmless = [] if findings is None else findings.harmless
        wrong = [
            trap for one in every for trap in explain_traps(one, Path.cwd())
        ]
        leaks = tuple(one for one in wrong if one.kind == STATE_LEAK)
        unwatched = tuple(one.describe(Path.cwd()) for one in first.unwatched)
        return Verification(
            reproducible=mismatch is None and not unwatched,
            first_mismatch=mismatch,
            causes=causes,
            suspects=(*suspects, *leaks),
            traps=tuple(one for one in wrong if one.kind in TRAPS),
            harmless=tuple(dict.fromkeys(map(name_hold, harmless))),
            unwatched=unwatched,
            left=tuple(dict.fromkeys(first.outcome.left)),
            unseen=tuple(dict.fromkeys(self._list_unseen(first))),
            num_calls=sum(one.method != END for one in calls),
            num_epochs=sum(len(one.epochs) for one in runs),
            num_processes=len(every),
            num_runs=len(self._laboratory.records),
            seconds=time.monotonic() - self._started,
            fixes=self._request.fixes.describe(),
        )

    def _list_unseen(self, first: Record) -> Iterator[str]:
        """What the script used and nobody could see, with its line."""
        for one in first.starts:
            if one.kind == OTHER and one.place:
                told = one.describe(Path.cwd())
                yield f"files of another program: {told}"
        for note in first.notes:
            if note.kind in _UNSEEN:
                place = show_place(note.place, Path.cwd())
                yield f"{_UNSEEN[note.kind]}: {note.name} at {place}"
        below = any(one.runs for one in first.process.children)
        if below and self._request.against is not None:
            yield (
                f"{self._request.against.name} holds what the script's own "
                "process trained, so the others were compared here alone"
            )


def _find_unrecorded(process: Process) -> Call | None:
    """A `fit` that went well, and of which there is no whole record."""
    for one in process.every:
        for call in one.calls:
            run = one.find_run(call)
            is_whole = run is not None and run.end is not None
            if call.method == FIT and call.error is None and not is_whole:
                return call
    return None


_UNSEEN = {NETWORK: "the network", NATIVE: "native threads"}


def _say_code(code: int) -> str:
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
