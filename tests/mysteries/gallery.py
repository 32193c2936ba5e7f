"""The scripts of the gallery, what is planted in each, and how to ask."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"#\s*<-\s*(\w+)(?:\s*\((.*?)\))?\s*$")
_BACKENDS = re.compile(r"^# backends: (.*)$", re.MULTILINE)


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
    def is_clean(self):
        """Whether nothing is planted."""
        return self.source.parent.name == "clean"

    @property
    def files(self):
        """All its files."""
        if self.source.is_file():
            return [self.source]
        return sorted(self.source.rglob("*.py"))

    def runs_on(self, backend):
        """Whether it makes sense there."""
        named = _BACKENDS.search(self.files[0].read_text())
        main = self.source if self.source.is_file() else self.source / "main.py"
        named = _BACKENDS.search(main.read_text())
        return named is None or backend in named[1].split(", ")

    def expected(self, backend):
        """What is planted: pairs of a kind and a place."""
        found = set()
        for path in self.files:
            base = path.parent if self.source.is_file() else self.source
            for number, line in enumerate(path.read_text().splitlines(), 1):
                mark = _MARK.search(line)
                if mark and backend in (mark[2] or backend):
                    place = f"{path.relative_to(base)}:{number}"
                    found.add((mark[1], place))
        return found


def find_mysteries():
    """All of them, by name."""
    found = [
        Mystery(path.stem, path)
        for folder in (SCRIPTS, SCRIPTS / "clean")
        for path in folder.iterdir()
        if path.suffix == ".py"
        or (path.is_dir() and (path / "main.py").exists())
    ]
    return sorted(found, key=lambda one: (one.is_clean, one.name))


def verify(mystery, backend, folder, *options):
    """Ask the command about one of them.

    Args:
        mystery: Which.
        backend: On which backend.
        folder: An empty folder to run it in.
        *options: More options of the command.

    Returns:
        The exit code, the verdict, and all that was printed.
    """
    if mystery.source.is_file():
        script = Path(shutil.copy(mystery.source, folder))
    else:
        shutil.copytree(mystery.source, folder, dirs_exist_ok=True)
        script = folder / "main.py"
    installed = folder / "site-packages"
    paths = [str(ROOT), *([str(installed)] if installed.exists() else [])]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "keras_repro", "verify"),
            *("--json", "verdict.json", "--timeout", "300", *options),
            script.name,
        ],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"},
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join(paths),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    path = folder / "verdict.json"
    verdict = json.loads(path.read_text()) if path.exists() else None
    return result.returncode, verdict, result.stdout + result.stderr
