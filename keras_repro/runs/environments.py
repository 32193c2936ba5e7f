"""Two environments, wherever they were recorded: what differs in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_repro.common.checks import check_path, wrong_type, wrong_value
from keras_repro.common.files import open_regular
from keras_repro.common.json import to_plain
from keras_repro.common.lines import decode_json
from keras_repro.common.text import count_of
from keras_repro.environment.differences import (
    EnvironmentDifference,
    find_differences,
)
from keras_repro.reports.document import Document
from keras_repro.reports.result import Described
from keras_repro.runs.documents import describe_environments
from keras_repro.runs.file import load_run
from keras_repro.runs.run import Run

_MUST = (
    "be an environment: what `capture_environment()` gives, a `Run`, or the "
    "path of a run's file or of what `keras-repro env --json` writes"
)
_ADVICE = "Pass one of these."
# Bytes: an environment takes some thousands.
_LONGEST_JSON = 1 << 20


@dataclass(frozen=True, kw_only=True)
class EnvironmentComparison(Described):
    """How two environments differ.

    Args:
        a: The first environment.
        b: The second environment.
        differences: The entries that differ, the likeliest to change results
            first. Each has a `key`, such as `"versions.keras"`, the two
            values `a` and `b`, a `weight` from 3 (changes results almost
            surely) to 0 (hardly ever), and a `sentence`.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    differences: tuple[EnvironmentDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs of what was recorded."""
        return not self.differences

    @property
    def headline(self) -> str:
        """How many entries differ, and how many of them may matter."""
        if self.equal:
            return "The environments are equal in all that was recorded."
        likely = sum(one.weight > 1 for one in self.differences)
        number = count_of(len(self.differences), "difference")
        matter = "matters" if likely == 1 else "matter"
        return f"{number}, of which {likely or 'none'} likely {matter}."

    def describe(self) -> Document:
        """All that the comparison says of itself."""
        return describe_environments(self)

    def _list_values(self) -> dict[str, Any]:
        values: dict[str, Any] = to_plain(self)
        return {"equal": self.equal, **values}


def compare_environments(
    a: Mapping[str, Any] | Run | str | os.PathLike[str],
    b: Mapping[str, Any] | Run | str | os.PathLike[str],
) -> EnvironmentComparison:
    """List what differs between two environments, ranked, with a sentence.

    Args:
        a: What `capture_environment()` gives, a `Run`, or a path: of a file
            of runs, whose last run is meant, or of what `keras-repro env
            --json` wrote.
        b: As `a`.

    Returns:
        The comparison. It prints, displays in a notebook, and has
        `differences`, the likeliest to change results first.

    Raises:
        TypeError: If an argument is none of these.
        FileNotFoundError: If there is no such file.
        ValueError: If what an argument holds is no environment.

    Scope:
        What was recorded. The ranks are experience, not proof: a difference
        of weight 3 may change nothing, and one that no environment records
        may change all. Files are read as `load_run` reads them, and are not
        trusted. Needs no Keras and no backend.

    Example:
        >>> import keras_repro as kr
        >>> here = kr.capture_environment()
        >>> there = {**here, "machine": "another"}
        >>> found = compare_environments(here, there)
        >>> found.differences[0].key, found.differences[0].weight
        ('machine', 2)
        >>> print(compare_environments(here, here))
        The environments are equal in all that was recorded.
    """
    first, second = _read("a", a), _read("b", b)
    differences = find_differences(first, second)
    return EnvironmentComparison(a=first, b=second, differences=differences)


def _read(name: str, value: Any) -> Mapping[str, Any]:
    """The environment that an argument stands for."""
    if isinstance(value, Run):
        return value.header.environment
    if isinstance(value, (str, os.PathLike)):
        path = check_path(name, value, _ADVICE)
        content = _read_json(path)
        if content is None:
            return _load_environment(name, path)
    elif isinstance(value, Mapping):
        content = value
    else:
        raise wrong_type(name, _MUST, value, _ADVICE)
    # `keras-repro env --json` writes more beside it.
    inner = content.get("environment")
    found: Mapping[str, Any] = inner if isinstance(inner, Mapping) else content
    if not isinstance(found.get("versions"), Mapping):
        raise wrong_value(name, _MUST, value, "It has no `versions`.")
    return found


def _read_json(path: Path) -> Mapping[str, Any] | None:
    """The object that is all of a file; `None` for any other, and a run's."""
    with open_regular(path) as file:
        data = file.read(_LONGEST_JSON + 1)
    if len(data) > _LONGEST_JSON:
        return None
    try:
        content = decode_json(data.decode())
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(content, dict) and "type" not in content
    return content if is_ours else None


def _load_environment(name: str, path: Path) -> Mapping[str, Any]:
    try:
        return load_run(path).header.environment
    except ValueError as error:
        error.add_note(f"`{name}` must {_MUST}.")
        raise
