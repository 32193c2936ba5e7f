"""The command `keras-repro env`: what bitwise equal runs need and have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from keras_repro.cli import shared
from keras_repro.cli.shared import DIFFERENT, EQUAL
from keras_repro.cli.tables import WIDTH, cut, format_table
from keras_repro.common.json import to_plain
from keras_repro.common.text import escape, wrap

if TYPE_CHECKING:
    from keras_repro.environment.switches import Switch

_PACKAGES = ("keras-repro", "keras", "tensorflow", "jax", "torch", "numpy")
_MISSING = "missing"
_OPEN = (_MISSING, "advised")


@click.command(
    epilog="""\b
exit codes:
  0  nothing is missing
  1  something is missing
  2  trouble: wrong arguments

\b
examples:
  keras-repro env
  KERAS_BACKEND=jax keras-repro env --json
"""
)
@shared.as_json
def env(*, as_json: bool) -> int:
    """Show what bitwise equal runs need set, and what is missing.

    It must be set before Python or a backend starts: what is set, what is
    missing or advised, and the line that fixes it. `keras-repro run` sets what
    is missing for the script that it starts. No backend is loaded.
    """
    found = check()
    print(shared.to_json(to_json(found)) if as_json else describe(found))
    return EQUAL if found.complete else DIFFERENT


@dataclass(frozen=True)
class Findings:
    """What `env` found."""

    switches: tuple[Switch, ...]
    # By package; `None` for what is not installed.
    versions: dict[str, str | None]
    environment: dict[str, Any]  # As `capture_environment` gives it.

    @property
    def complete(self) -> bool:
        """Whether nothing that is needed is missing."""
        return all(one.status != _MISSING for one in self.switches)


def check() -> Findings:
    """Look at this process and at what is installed; load no backend."""
    from keras_repro.environment.capture import capture_environment
    from keras_repro.environment.switches import check_switches

    versions = {name: _find_version(name) for name in _PACKAGES}
    return Findings(check_switches(), versions, capture_environment())


def describe(found: Findings) -> str:
    """What `env` prints."""
    rows = [
        {
            "switch": escape(one.name),
            "value": "not set"
            if one.value is None
            else cut(escape(one.value), 36),
            "status": one.status,
        }
        for one in found.switches
    ]
    lines = format_table(rows)
    for one in found.switches:
        if one.status in _OPEN:
            why = f"{one.name} ({one.status}): {one.why}"
            lines += ["", *wrap(escape(why), width=WIDTH)]
            # As it is, so that it can be copied.
            lines += [f"    {line}" for line in one.fix.splitlines()]
    environment = found.environment
    system = f"{environment['os']} {environment['machine']}"
    lines += ["", f"python {environment['python']}, {system}"]
    lines += [
        f"{name} {number or 'not installed'}"
        for name, number in found.versions.items()
    ]
    missing = [one.name for one in found.switches if one.status == _MISSING]
    lines += ["", f"Missing: {', '.join(missing) or 'nothing'}."]
    return "\n".join(lines)


def to_json(found: Findings) -> dict[str, Any]:
    """What `env --json` prints."""
    result: dict[str, Any] = to_plain(
        {
            "complete": found.complete,
            "switches": [asdict(one) for one in found.switches],
            "versions": found.versions,
            "environment": found.environment,
        }
    )
    return result


def _find_version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
