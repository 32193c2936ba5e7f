"""What a function is made of: its code, and the values that it takes along.

Results of one study must come from one function. A fingerprint tells whether
it is still the same, and if not, what was changed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_repro.checksums import PREFIX
from keras_repro.reachable import Walk

_UNREAD = "unread"


@dataclass(frozen=True)
class Fingerprint:
    """What a function is made of.

    Args:
        code: Checksums of what functions and classes do, by their names:
            `"train"`, `"helpers.smooth"`, `"Scaler.fit"`. Names in the
            function's own module carry no prefix.
        data: What the function takes from outside, by name: variables of the
            functions around it, globals, defaults as in `"train(alpha)"`,
            entries and attributes as in `"settings['lr']"` and
            `"config.lr"`. Short values as text, others as checksums.
        unread: Names of what nobody can tell the content of, such as an open
            file.
        python: The version of Python that compiled the code.
    """

    code: Mapping[str, str]
    data: Mapping[str, str]
    unread: tuple[str, ...] = ()
    python: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "code": dict(self.code),
            "data": dict(self.data),
            "unread": list(self.unread),
            "python": self.python,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint that `to_json` wrote."""
        return cls(
            code=dict(values["code"]),
            data=dict(values["data"]),
            unread=tuple(values["unread"]),
            python=values["python"],
        )


def fingerprint(
    function: Callable[..., Any], *, ignore: Iterable[object] = ()
) -> Fingerprint:
    """Tell what a function is made of.

    From the function on, everything of the person's own is followed that its
    code names: functions, classes, modules, variables. Of libraries only
    names count.

    Args:
        function: A function, a method, a `functools.partial` or an object
            that can be called.
        ignore: Objects that are left out, as others describe them: the model.

    Returns:
        The fingerprint.

    Raises:
        TypeError: If `function` cannot be called.

    Scope:
        Equal in every process with one version of Python, whatever the hash
        seed. Lines, comments, docstrings and the order of a dict do not
        count. Names that are put together while the code runs, for `getattr`
        or `eval`, cannot be seen, nor can files and what is on the network.
        Nothing is changed, called or consumed.

    Example:
        >>> alpha = 0.4
        >>> def train(model):
        ...     return alpha * model
        >>> fingerprint(train).data
        {'alpha': '0.4'}
        >>> list(fingerprint(train).code)
        ['train']
    """
    walk = Walk(ignore)
    walk.follow(_check_function(function))
    return Fingerprint(
        code=dict(sorted(walk.code.items())),
        data=dict(sorted(walk.data.items())),
        unread=tuple(sorted(walk.unread)),
        python=".".join(platform.python_version_tuple()[:2]),
    )


def find_generators(
    function: Callable[..., Any], *, ignore: Iterable[object] = ()
) -> list[tuple[str, object]]:
    """Find the generators of random numbers that a function takes along.

    Args:
        function: As for `fingerprint`.
        ignore: As for `fingerprint`.

    Returns:
        Names and generators: `random.Random`, NumPy's, PyTorch's and Keras'
        own. Those that a whole process shares are not among them, nor are
        those within Keras models.

    Raises:
        TypeError: If `function` cannot be called.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> def train(model):
        ...     return rng.normal()
        >>> find_generators(train)[0][0]
        'rng'
    """
    walk = Walk(ignore, reads_values=False)
    walk.follow(_check_function(function))
    return walk.generators


def compare_fingerprints(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Say what is not as it was.

    Args:
        before: The fingerprint from earlier.
        after: The fingerprint of today.

    Returns:
        Sentences, those on code first; none if nothing was changed.

    Scope:
        Code that two versions of Python compiled cannot be compared. Then the
        versions are told, and which functions are new or gone.

    Example:
        >>> before = Fingerprint({"train": "kr1:0"}, {"alpha": "0.4"})
        >>> after = Fingerprint({"train": "kr1:1"}, {"alpha": "0.2"})
        >>> compare_fingerprints(before, after)
        ['`train` was changed', '`alpha` was 0.4 and is 0.2']
    """
    found = []
    same_python = before.python == after.python
    if not same_python:
        found.append(f"Python was {before.python} and is {after.python}")
    for name, was, now in _pair(before.code, after.code):
        if was is None or now is None:
            found.append(_say_presence(name, now))
        elif was != now and same_python:
            found.append(f"`{name}` was changed")
    for name, was, now in _pair(_with_unread(before), _with_unread(after)):
        if was is None or now is None:
            found.append(_say_presence(name, now))
        elif was != now:
            found.append(_say_value(name, was, now))
    return found


def _check_function(function: Callable[..., Any]) -> Callable[..., Any]:
    if callable(function):
        return function
    raise TypeError(
        "`function` must be something that can be called. Received: an "
        f"object of type {type(function).__name__}. Pass the function itself."
    )


def _pair(
    before: Mapping[str, str], after: Mapping[str, str]
) -> list[tuple[str, str | None, str | None]]:
    names = dict.fromkeys([*before, *after])
    return [(name, before.get(name), after.get(name)) for name in names]


def _with_unread(one: Fingerprint) -> dict[str, str]:
    """Data with what could not be read; then nothing but the name counts."""
    unread = {name: _UNREAD for name in one.unread if name not in one.data}
    return {**one.data, **unread}


def _say_presence(name: str, now: str | None) -> str:
    return f"`{name}` is {'gone' if now is None else 'new'}"


def _say_value(name: str, was: str, now: str) -> str:
    if _UNREAD in (was, now):
        more = "no longer" if now == _UNREAD else "now"
        return f"`{name}` can {more} be read"
    if was.startswith(PREFIX) or now.startswith(PREFIX):
        return f"`{name}` holds other values"
    return f"`{name}` was {was} and is {now}"
