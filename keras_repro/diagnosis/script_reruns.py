"""A script, or a function sent to fresh processes, run again and again."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from keras_repro.common.checks import read_seed
from keras_repro.diagnosis import suspects
from keras_repro.diagnosis.first_mismatch import (
    Process,
    compare_processes,
    load_process,
)
from keras_repro.diagnosis.processes import Launcher, Outcome
from keras_repro.diagnosis.search import Holds
from keras_repro.environment.switches import find_backend, switches_for
from keras_repro.watching.children import (
    Start,
    find_unwatched,
    list_children,
    load_starts,
)
from keras_repro.watching.files_before import as_before
from keras_repro.watching.holds import KEYED, Plan, make_keys
from keras_repro.watching.observations import Note, load_notes

_THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC"),
)


@dataclass(frozen=True, kw_only=True)
class Fixes:
    """What a person tries out without editing: kept fixed in every run."""

    # Seeds every generator, as `keras-repro run` does.
    seed: int | None = None
    hash_seed: int | None = None  # Sets `PYTHONHASHSEED`.
    deterministic: bool = False
    num_workers: int | None = None  # That load data.
    num_threads: int | None = None  # That compute.
    shuffle: bool | None = None  # `False` has `fit` not shuffle arrays.

    def describe(self) -> tuple[str, ...]:
        """In words: as the options of the command."""
        told = {
            "--seed": self.seed,
            "--hash-seed": self.hash_seed,
            "--workers": self.num_workers,
            "--threads": self.num_threads,
        }
        words = [f"{name} {n}" for name, n in told.items() if n is not None]
        words += ["--deterministic"] if self.deterministic else []
        words += ["--no-shuffle"] if self.shuffle is False else []
        return tuple(words)


@dataclass(frozen=True)
class Record:
    """What one process of the script did, and what was noted of it."""

    plan: Plan  # What it kept fixed.
    outcome: Outcome  # How it ended.
    process: Process  # What it asked of its models.
    notes: tuple[Note, ...]  # What the audit saw.
    # What it saw in each of the processes below.
    notes_below: tuple[tuple[Note, ...], ...] = ()
    # The programs that it, and those below, started.
    starts: tuple[Start, ...] = ()
    # Those that may have trained, and were not watched.
    unwatched: tuple[Start, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the environment of a process is changed."""

    # Of the environment; `None` for one that is not set.
    variables: Mapping[str, str | None] = field(default_factory=dict)
    num_cores: int | None = None  # How many it may use.
    deterministic: bool = False

    def joined(self, other: Settings) -> Settings:
        """Both together."""
        return Settings(
            variables={**self.variables, **other.variables},
            num_cores=self.num_cores or other.num_cores,
            deterministic=self.deterministic or other.deterministic,
        )


def hold(plan: Plan, first: Plan, holds: Holds) -> Plan:
    """Keep things fixed as an earlier process had them."""
    keys = dict(plan.keys)
    replayed, freed = [], []
    for one in holds:
        kind, _, rest = one.partition(" ")
        if kind == "entropy":
            keys[one] = first.keys["entropy"]
        elif kind in KEYED:
            keys[kind] = first.keys[kind]
            freed += [f"{kind} {rest}"] if rest else []
        elif rest:
            replayed.append(one)
    kinds = {one.partition(" ")[0] for one in holds}
    if suspects.CHILDREN in kinds:  # A forked one goes on from its parent.
        keys |= {name: first.keys[name] for name in KEYED}
    deterministic = suspects.DETERMINISTIC in kinds
    return replace(
        plan,
        keys=keys,
        freed=tuple(freed),
        replayed=tuple(replayed),
        reference=first.folder,
        hash_seed=first.hash_seed if suspects.HASH in kinds else plan.hash_seed,
        num_workers=1 if suspects.WORKERS in kinds else plan.num_workers,
        num_threads=1 if suspects.ONE_THREAD in kinds else plan.num_threads,
        shuffle=False if suspects.NO_SHUFFLE in kinds else plan.shuffle,
        deterministic=plan.deterministic or deterministic,
        # Deterministic mode refuses random ops that have no seed.
        seed_kernels=deterministic or suspects.KERNELS in kinds,
        children=suspects.CHILDREN in kinds,
    )


class ScriptLaboratory:
    """Runs one script in fresh processes, each in a folder of its own."""

    def __init__(
        self,
        launcher: Launcher,
        folder: Path,
        fixes: Fixes,
        *,
        module: bool,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._launcher, self._folder, self._fixes = launcher, folder, fixes
        self._module = module
        self._environment = dict(environment or os.environ)
        self.records: list[Record] = []

    @property
    def is_hash_fixed(self) -> bool:
        """Whether each process has the same hash seed anyway."""
        return self._find_hash_seed() is not None

    def run(self, *, shown: bool, settings: Settings | None = None) -> Record:
        """Run the script as it is, but for the fixes."""
        settings = settings or Settings()
        plan = self._make_plan(frozenset())
        plan = replace(
            plan,
            num_cores=settings.num_cores,
            deterministic=plan.deterministic or settings.deterministic,
        )
        return self._run(plan, shown=shown, variables=settings.variables)

    def repeat(self, holds: Holds) -> Record | None:
        """Run it with some things kept fixed as the first run had them."""
        with self._hold_files(holds):
            record = self._run(self._make_plan(holds), shown=False)
        return record if record.outcome.succeeded else None

    def trace(self, holds: Holds) -> Record:
        """Run it, and trace the values of its variables as well."""
        plan = replace(self._make_plan(holds), trace=True)
        with self._hold_files(holds):
            return self._run(plan, shown=False)

    def agree(self, a: Record, b: Record) -> bool:
        """Whether two processes did the same, bit for bit."""
        return compare_processes(a.process, b.process) is None

    # --- what is held --------------------------------------------------------

    def _make_plan(self, holds: Holds) -> Plan:
        folder = self._folder / str(len(self.records) + 1)
        folder.mkdir()
        fixes, hash_seed = self._fixes, self._find_hash_seed()
        shown = self._environment.get("PYTHONHASHSEED")
        plan = Plan(
            folder=str(folder),
            keys=make_keys(),
            hash_seed=secrets.randbits(31) + 1
            if hash_seed is None
            else hash_seed,
            shown_hash_seed=shown if hash_seed is None else str(hash_seed),
            seed=fixes.seed,
            deterministic=fixes.deterministic,
            num_workers=fixes.num_workers,
            num_threads=fixes.num_threads,
            shuffle=fixes.shuffle,
            module=self._module,
        )
        return hold(plan, self.records[0].plan, holds) if holds else plan

    def _hold_files(self, holds: Holds) -> AbstractContextManager[None]:
        if suspects.FILES not in holds:
            return nullcontext()
        stash = self._folder / f"stash-{len(self.records) + 1}"
        stash.mkdir()
        folders = [one.outcome.folder for one in self.records]
        return as_before(folders, stash)

    def _find_hash_seed(self) -> int | None:
        """The hash seed that a fix or the person has set, if it is a number."""
        if self._fixes.hash_seed is not None:
            return self._fixes.hash_seed
        return read_seed(self._environment.get("PYTHONHASHSEED", ""))

    # --- a process -----------------------------------------------------------

    def _run(
        self,
        plan: Plan,
        *,
        shown: bool,
        variables: Mapping[str, str | None] | None = None,
    ) -> Record:
        environment = self._find_environment(plan)
        for name, value in (variables or {}).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        outcome = self._launcher.run(plan, environment, shown=shown)
        record = Record(
            plan,
            outcome,
            load_process(plan.folder),
            load_notes(plan.folder),
            tuple(load_notes(path) for _, path in list_children(plan.folder)),
            tuple(load_starts(plan.folder)),
            tuple(find_unwatched(plan.folder)),
        )
        self.records.append(record)
        return record

    def _find_environment(self, plan: Plan) -> dict[str, str]:
        environment = dict(self._environment)
        if plan.deterministic:
            backend = find_backend(environment)
            environment |= switches_for(plan.seed, backend, environment)
        if plan.num_threads is not None:
            count = str(plan.num_threads)
            environment |= dict.fromkeys(_THREADS, count)
        environment["PYTHONHASHSEED"] = str(plan.hash_seed)
        return environment


_RUNNER = "keras_repro.diagnosis.fresh_runner"


def make_script(
    payload: tuple[Any, tuple[Any, ...]], folder: Path
) -> ScriptLaboratory:
    """Make a script that calls a pickled function, and what runs it."""
    import keras

    from keras_repro.model.transfer import pack

    home = folder / "fresh"
    home.mkdir()
    (home / "payload.pickle").write_bytes(pack(payload))
    paths = [str(Path(one or ".").resolve()) for one in sys.path]
    text = json.dumps([paths, sys.argv])
    (home / "process.json").write_text(text, encoding="utf-8")
    processes = home / "processes"
    processes.mkdir()
    return ScriptLaboratory(
        Launcher([_RUNNER, str(home)]),
        processes,
        Fixes(),
        module=True,
        environment={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
