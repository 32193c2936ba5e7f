"""The scripts of the gallery, what is planted in each, and how to ask."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT, run_command

SCRIPTS = Path(__file__).parent / "scripts"
# Repeatable, and something is wrong; in two places; nothing is wrong.
LEAKS, ELSEWHERE, CLEAN = "leaks", "elsewhere", "clean"
_GROUPS = (LEAKS, "traps", ELSEWHERE, CLEAN)
_MARK = re.compile(r"#\s*<-\s*(\w+)(?:\s*\((.*?)\))?\s*$")
_HEADER = re.compile(r"^# (\w+)(?: \((\w+)\))?: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Mystery:
    """One script, in a folder of its own if it has helpers.

    Args:
        name: How it is called.
        source: The file, or the folder with its `main.py`.
    """

    name: str
    source: Path

    @property
    def group(self):
        """The folder that it lies in; empty for what is not repeatable."""
        folder = self.source.parent.name
        return folder if folder in _GROUPS else ""

    @property
    def main(self):
        """The script itself."""
        return self.source if self.source.is_file() else self.source / "main.py"

    def find_headers(self, backend):
        """The settings in its first comments, those of a backend alone."""
        found = _HEADER.findall(self.main.read_text())
        return {
            name: value for name, only, value in found if only in ("", backend)
        }

    def runs_on(self, backend):
        """Whether it makes sense there."""
        named = self.find_headers(backend).get("backends")
        return named is None or backend in named.split(", ")

    def expected(self, backend):
        """What is planted: pairs of a kind and a place."""
        if self.group == ELSEWHERE:
            return {(self.find_headers(backend)["kind"], None)}
        is_file = self.source.is_file()
        base = self.source.parent if is_file else self.source
        files = [self.source] if is_file else sorted(base.rglob("*.py"))
        found = set()
        for path in files:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                mark = _MARK.search(line)
                if mark and backend in (mark[2] or backend):
                    place = f"{path.relative_to(base)}:{number}"
                    found.add((mark[1], place))
        return found


def find_mysteries():
    """All of them, by group and name."""
    found = [
        Mystery(path.stem, path)
        for folder in (SCRIPTS, *(SCRIPTS / name for name in _GROUPS))
        for path in folder.iterdir()
        if (path.suffix == ".py" and path.stem != "conftest")
        or (path.is_dir() and (path / "main.py").exists())
    ]
    return sorted(found, key=lambda one: (one.group, one.name))


@dataclass(frozen=True)
class Answer:
    """What the command said.

    Args:
        code: Its exit code.
        verdict: The JSON that it wrote, or `None`.
        text: All that was printed.
    """

    code: int
    verdict: dict | None
    text: str

    def find(self, *keys):
        """Pairs of a kind and a place in some parts of the verdict."""
        return {
            (one["kind"], one["location"])
            for key in keys
            for one in self.verdict[key]
        }


def ask(mystery, backend, folder):
    """Ask the command about one of them.

    Args:
        mystery: Which.
        backend: On which backend.
        folder: An empty folder to run it in.
    """
    if mystery.source.is_file():
        shutil.copy(mystery.source, folder)
    else:
        shutil.copytree(mystery.source, folder, dirs_exist_ok=True)
    if mystery.group != ELSEWHERE:
        return _verify(mystery, backend, folder)
    headers = mystery.find_headers(backend)
    log = ("--log", "there.jsonl", "--budget", "0")
    _verify(mystery, backend, folder, *log, **_read(headers["there"]))
    here = _read(headers.get("here", ""))
    return _verify(mystery, backend, folder, "--against", "there.jsonl", **here)


def _read(text):
    """Environment variables, written as for a shell."""
    return dict(one.split("=", 1) for one in text.split())


def _verify(mystery, backend, folder, *options, **environment):
    installed = folder / "site-packages"
    paths = [str(ROOT), *([str(installed)] if installed.exists() else [])]
    environment = {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **environment,
    }
    result = run_command(
        *(sys.executable, "-m", "keras_repro", "verify"),
        *("--json", "verdict.json", "--timeout", "300", *options),
        mystery.main.name,
        cwd=folder,
        code=None,
        without={"PYTHONHASHSEED"},
        **environment,
    )
    path = folder / "verdict.json"
    verdict = json.loads(path.read_text()) if path.exists() else None
    path.unlink(missing_ok=True)
    return Answer(result.returncode, verdict, result.stdout + result.stderr)


def judge(mystery, backend, answer):
    """What is wrong with an answer, in words; empty if it is right."""
    expected = mystery.expected(backend)
    wants = 1 if mystery.group in ("", ELSEWHERE) else 0
    if answer.verdict is None:
        return f"no verdict, exit code {answer.code}"
    if answer.code != wants:
        return f"exit code {answer.code}, not {wants}"
    found = answer.find("causes")
    others = answer.find("suspects", "traps")
    if backend == "tensorflow":
        # A seed for all epochs shuffles alike there: so in every script that
        # sets one and shuffles, whatever else is planted in it.
        others = {one for one in others if one[0] != "same_order"}
    if wants == 0:
        if found:
            return f"causes of a repeatable script: {found}"
        if mystery.group == CLEAN:
            return f"a false alarm: {others}" if others else ""
        found = others
    return "" if found == expected else f"found {found}, planted {expected}"
