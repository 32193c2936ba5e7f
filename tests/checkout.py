"""This checkout: where things are in it, and programs that run on it."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
SCRIPTS = ROOT / "tests" / "scripts"


def run_command(
    *command, cwd=None, code=0, stdin=None, without=(), **environment
):
    """Run a command on this checkout in a process of its own, to its end.

    It must exit with `code`, unless that is `None`; environment variables named
    in `without` are left out of what it inherits.
    """
    kept = {k: v for k, v in os.environ.items() if k not in without}
    paths = [str(ROOT), kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    result = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        env={**kept, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if code is not None:
        assert result.returncode == code, result.stdout + result.stderr
    return result


def is_running(pid):
    """Whether a process still runs, and does not only wait to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"
