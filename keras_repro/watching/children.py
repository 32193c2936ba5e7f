"""The processes that a watched script starts: watched too, or told.

A Python that is started finds `in_children/sitecustomize.py` first on its
search path, and is watched from its start; a forked one goes on being watched.
Each writes into a folder of its own. All else that is started is noted.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_repro.common.files import LineFile, read_json_lines
from keras_repro.common.whose_code import (
    find_site,
    is_installed,
    is_recording_environment,
    show_place,
)
from keras_repro.watching import programs
from keras_repro.watching.holds import PLAN, Plan
from keras_repro.watching.observations import Audit, get_process
from keras_repro.watching.patches import Patches

# These as in `in_children/sitecustomize.py`.
VARIABLE, _CHILDREN, _FAILED = "KERAS_REPRO_WATCHED", "children", ".failed"
_PATHS, _HASH_SEED = "PYTHONPATH", "PYTHONHASHSEED"
_STARTER = str(Path(__file__).parent / "in_children")
# Of multiprocessing, of its like with dill, and of loky, also joblib's.
_WORKER = re.compile(r"from multiprocess(ing)?\.|(.*\.)?loky\.backend\.")
_STARTS, _REPORT = "starts.jsonl", "process.json"
_now = time.time_ns  # Before it is watched.


@dataclass(frozen=True, kw_only=True)
class Start:
    """A program that a watched process started, or became."""

    pid: int | None  # `None` where that is not told.
    kind: str  # As `programs` tells them.
    reports: bool  # Whether it says that it is watched, once it runs.
    command: str
    place: str  # Empty if no line of a person started it.
    by: int  # The process that started it.

    def describe(self, folder: Path) -> str:
        """The command and its line, as seen from a folder."""
        if not self.place:
            return f"`{self.command}`"
        return f"`{self.command}` at {show_place(self.place, folder)}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A process that is watched says so."""

    pid: int
    parents: tuple[int, ...]  # The nearest first.
    started: int  # In nanoseconds.


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """What a child is told by its environment."""

    plan: str  # The file of the plan that the script runs under.
    # `PYTHONPATH` and `PYTHONHASHSEED` as the child is to see them.
    paths: str | None
    hash_seed: str | None
    script: str  # The folder of the script.

    @classmethod
    def read(cls, text: str) -> Inherited:
        """Read what a parent wrote, and have the environment as it was."""
        told = cls(**json.loads(text))
        for name, value in ((_PATHS, told.paths), (_HASH_SEED, told.hash_seed)):
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        return told

    @staticmethod
    def add(
        environment: Mapping[str, str], plan: str, hash_seed: int, script: str
    ) -> dict[str, str]:
        """An environment under which a Python is watched."""
        paths = environment.get(_PATHS)
        seed = environment.get(_HASH_SEED)
        told = Inherited(plan=plan, paths=paths, hash_seed=seed, script=script)
        return {
            **environment,
            _PATHS: os.pathsep.join(filter(None, (_STARTER, paths))),
            _HASH_SEED: str(hash_seed) if seed is None else seed,
            VARIABLE: json.dumps(asdict(told)),
        }


# --- in a child --------------------------------------------------------------


def make_folder(root: str | os.PathLike[str]) -> Path:
    """Make the folder of the present process."""
    folder = Path(root) / _CHILDREN / f"{get_process()}-{_now()}"
    folder.mkdir(parents=True)
    return folder


def report(folder: Path) -> None:
    """Say that the present process is watched."""
    told = Report(
        pid=get_process(), parents=tuple(_find_parents()), started=_now()
    )
    text = json.dumps(asdict(told))
    (folder / _REPORT).write_text(text, encoding="utf-8")


def _find_parents() -> list[int]:
    """The processes above this one; only the nearest where `/proc` is not."""
    found = [os.getppid()]
    with suppress(OSError, ValueError, IndexError):
        while found[-1] > 1:
            stat = Path(f"/proc/{found[-1]}/stat").read_text()
            found.append(int(stat.rpartition(")")[2].split()[1]))
    return found


def is_worker() -> bool:
    """Whether this Python was started to be given tasks."""
    # Which tasks a worker gets, and whether it comes to its own end, races.
    words = sys.orig_argv
    return any(
        option in ("-c", "-m") and _WORKER.match(word)
        for option, word in itertools.pairwise(words)
    )


# --- where one is started ----------------------------------------------------


class Starts:
    """Notes what a process starts, and has those that are Python watched."""

    def __init__(
        self, root: Path, plan: Plan, audit: Audit, *, follows: bool = True
    ) -> None:
        # `root` is the folder of the script's own process, `plan` that of this
        # one; what is started is noted also where nothing `follows` it.
        self._plan, self._audit = str(root / PLAN), audit
        self._follows = follows
        # One for all of them, which can be kept fixed.
        self._hash_seed = plan.hash_seed
        self.script = ""
        self.open: Callable[[], Path] = lambda: Path(plan.folder)
        self._lines: tuple[Path, LineFile] | None = None

    def patch(self, patches: Patches) -> None:
        """Watch each way in which Python starts a program."""
        with suppress(ImportError):  # On Windows alone.
            import _posixsubprocess

            fork_exec = self._wrap_fork_exec(_posixsubprocess.fork_exec)
            patches.replace(_posixsubprocess, "fork_exec", fork_exec)
            if hasattr(subprocess, "_fork_exec"):  # Python 3.11 to 3.14.
                patches.replace(subprocess, "_fork_exec", fork_exec)
        for name in ("posix_spawn", "posix_spawnp"):
            if hasattr(os, name):
                patches.replace(os, name, self._wrap_spawn(getattr(os, name)))
        execute, execute_with = os.execv, os.execve

        def execv(path: Any, args: Any, /) -> None:
            environment = self._become(path, args, None)
            if environment is None:
                execute(path, args)
            else:
                execute_with(path, args, environment)

        def execve(path: Any, args: Any, env: Any) -> None:
            execute_with(path, args, self._become(path, args, env) or env)

        patches.replace(os, "execv", execv)
        patches.replace(os, "execve", execve)
        patches.replace(os, "system", self._wrap_system(os.system))

    def _wrap_fork_exec(self, fork_exec: Any) -> Callable[..., int]:
        def start(
            args: Any, executables: Any, close: Any, fds: Any, cwd: Any,
            env: Any, *rest: Any,
        ) -> int:  # fmt: skip
            program = self._look(executables, args, cwd)
            given = env if program is None else program.add_to_list(env)
            pid: int = fork_exec(
                args, executables, close, fds, cwd, given, *rest
            )
            self._note(program, pid)
            return pid

        return start

    def _wrap_spawn(self, spawn: Any) -> Callable[..., int]:
        def start(path: Any, argv: Any, env: Any, /, **kwargs: Any) -> int:
            program = self._look(_search(path), argv, None)
            given = env if program is None else program.add_to(env)
            pid: int = spawn(path, argv, given, **kwargs)
            self._note(program, pid)
            return pid

        return start

    def _wrap_system(self, system: Any) -> Callable[[Any], Any]:
        def start(command: Any) -> Any:
            program = self._look(["/bin/sh"], ["sh", "-c", command], None)
            self._note(program, None)
            if program is None or not program.is_followed:
                return system(command)
            # The system's own call inherits what the C library has.
            with program.inherited():
                return system(command)

        return start

    def _become(self, path: Any, args: Any, env: Any) -> Any:
        """The environment under which this process becomes another program."""
        program = self._look([path], args, None)
        self._note(program, get_process())
        return None if program is None else program.add_to(env)

    def _look(
        self, candidates: Any, arguments: Any, folder: Any
    ) -> _Program | None:
        """Look at what is about to be started; `None` if it is nothing."""
        if self._audit.is_muted or is_recording_environment():
            return None
        # An exception from here would be one of what the program does.
        with suppress(Exception), self._audit.muted():
            words = [os.fsdecode(one) for one in arguments]
            paths = [os.fsdecode(one) for one in candidates]
            cwd = None if folder is None else os.fsdecode(folder)
            found = programs.find_program(paths, cwd)
            if found is not None:
                return _Program(
                    programs.classify_program(found, words),
                    self._follows and programs.reads_environment(found, words),
                    self._follows,
                    words,
                    lambda env: Inherited.add(
                        env, self._plan, self._hash_seed, self.script
                    ),
                )
        return None

    def _note(self, program: _Program | None, pid: int | None) -> None:
        if program is None:
            return
        with suppress(Exception), self._audit.muted():
            site = find_site()
            is_own = site is not None and not is_installed(site.file)
            # What a library asks while it is imported trains nothing, unless
            # it is Python.
            is_asked = is_own or program.kind == programs.PYTHON
            self._write(
                Start(
                    pid=pid,
                    kind=program.kind if is_asked else programs.OTHER,
                    reports=program.reports,
                    command=programs.describe_program(program.words),
                    place=site.place if site is not None and is_own else "",
                    by=get_process(),
                )
            )

    def note_fork(self) -> None:
        """A forked process, which is not watched, calls a model."""
        site = find_site()
        self._write(
            Start(
                pid=get_process(),
                kind=programs.UNKNOWN,
                reports=False,
                command="a forked process",
                place="" if site is None else site.place,
                by=os.getppid(),
            )
        )

    def _write(self, start: Start) -> None:
        folder = self.open()
        if self._lines is None or self._lines[0] != folder:
            self._lines = folder, LineFile(folder / _STARTS)
        self._lines[1].write(asdict(start))


def _search(path: Any) -> list[str]:
    """Where a program that is named without its folder may lie."""
    name = os.fsdecode(path)
    if os.sep in name:
        return [name]
    return [os.path.join(one, name) for one in os.get_exec_path()]  # noqa: PTH118


@dataclass(frozen=True)
class _Program:
    """A program that is about to be started."""

    kind: str
    reports: bool  # Whether it says that it is watched, once it runs.
    follows: bool  # Whether anything is watched beside who starts it.
    words: Sequence[str]
    # Gives an environment under which a Python is watched.
    watch: Callable[[Mapping[str, str]], dict[str, str]]

    @property
    def is_followed(self) -> bool:
        """Whether it is Python, or is told to start it."""
        # Nothing else is to see that we are there.
        launches = programs.leads_to_python(self.words)
        is_one = self.kind == programs.PYTHON or (
            self.kind == programs.UNKNOWN and launches
        )
        return self.follows and is_one

    def add_to(self, env: Any) -> Any:
        """The environment that it is given, with ours if it is followed."""
        if not self.is_followed:
            return env
        given = os.environ if env is None else env
        texts = {os.fsdecode(k): os.fsdecode(v) for k, v in given.items()}
        return self.watch(texts)

    def add_to_list(self, env: Any) -> Any:
        """As `add_to`, for lines of bytes, `NAME=VALUE`."""
        if not self.is_followed:
            return env
        pairs = None
        if env is not None:
            pairs = dict(os.fsdecode(one).split("=", 1) for one in env)
        added = self.add_to(pairs)
        return [os.fsencode(f"{name}={value}") for name, value in added.items()]

    @contextmanager
    def inherited(self) -> Iterator[None]:
        """Have the C library's environment so for a block; Python's stays."""
        added = self.watch(dict(os.environ))
        names = [one for one in added if added[one] != os.environ.get(one)]
        for name in names:
            os.putenv(name, added[name])
        try:
            yield
        finally:
            for name in names:
                before = os.environ.get(name)
                if before is None:
                    os.unsetenv(name)
                else:
                    os.putenv(name, before)


# --- read again --------------------------------------------------------------


def list_children(root: str | os.PathLike[str]) -> list[tuple[Report, Path]]:
    """The processes that were watched below one, in their order."""
    found = []
    for path in (Path(root) / _CHILDREN).glob(f"*/{_REPORT}"):
        with suppress(OSError, ValueError):
            told = json.loads(path.read_text(encoding="utf-8"))
            report = Report(**{**told, "parents": tuple(told["parents"])})
            found.append((report, path.parent))
    return sorted(found, key=lambda one: one[0].started)


def load_starts(root: str | os.PathLike[str]) -> list[Start]:
    """All that a script, and the processes below it, have started."""
    folders = [Path(root), *(path for _, path in list_children(root))]
    return [
        Start(**one)
        for folder in folders
        for one in read_json_lines(folder / _STARTS)
    ]


def find_unwatched(root: str | os.PathLike[str]) -> list[Start]:
    """What may have been Python, and was not watched."""
    reports = [one for one, _ in list_children(root)]
    failed = {
        int(path.stem) for path in (Path(root) / _CHILDREN).glob(f"*{_FAILED}")
    }
    starts = load_starts(root)
    pids = {one.pid for one in starts}
    return [
        one
        for one in starts
        if one.kind != programs.OTHER
        # One that says so, and has not, was ended before it ran anything.
        and not (one.reports and one.pid not in failed)
        and not any(_belongs(report, one, pids) for report in reports)
    ]


def _belongs(report: Report, start: Start, pids: set[int | None]) -> bool:
    """Whether a process that reported is what was started, or below it."""
    if start.pid is not None:
        return start.pid == report.pid or (
            start.kind != programs.PYTHON and start.pid in report.parents
        )
    # `os.system` tells no number: one below who called it, and no other's.
    above = (report.pid, *report.parents)
    until = above[: above.index(start.by)] if start.by in above else above
    return start.by in above[1:] and not pids.intersection(until)
