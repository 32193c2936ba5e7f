"""What a study is, as plain values, and what of it has changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keras_repro.arrays.checksums import PREFIX
from keras_repro.common.json import list_differing
from keras_repro.common.text import clean, say_more

_MOST_CHANGES = 12


def compare_identities(
    before: StudyIdentity,
    after: StudyIdentity,
    written: Collection[str] = (),
) -> list[str]:
    """Say what of a study has changed."""
    changes = _compare_functions(before.train, after.train, written)
    changes += _compare_functions(before.build, after.build, written)
    changes += _compare_parts(before.parts, after.parts, written)
    changes += _compare_settings(before.model, after.model)
    changes += [
        f"`{name}` was {_say(was)} and is {_say(now)}"
        for name, was, now in (
            ("vary", before.vary, after.vary),
            ("backend", before.backend, after.backend),
        )
        if was != now
    ]
    changes = list(dict.fromkeys(changes))
    if len(changes) > _MOST_CHANGES:
        changes[_MOST_CHANGES:] = [say_more(len(changes) - _MOST_CHANGES)]
    return changes


def list_unread(identity: StudyIdentity) -> list[str]:
    """Names of what a study takes along and nobody can read."""
    functions = _functions_of(identity).values()
    return sorted({name for one in functions for name in one.unread})


def _functions_of(identity: StudyIdentity) -> dict[str, Fingerprint]:
    """All fingerprints of a study, each under a name of its own."""
    named = {f"parts.{name}": one for name, one in identity.parts.items()}
    named["train"] = identity.train
    return (
        named if identity.build is None else named | {"build": identity.build}
    )


def find_written(before: StudyIdentity, after: StudyIdentity) -> list[str]:
    """Names of data that a trial has changed."""
    first, second = _functions_of(before), _functions_of(after)
    names: set[str] = set()
    for function in first.keys() & second.keys():
        old, new = first[function].data, second[function].data
        names |= {
            name for name in {*old, *new} if old.get(name) != new.get(name)
        }
    return sorted(names)


def _compare_parts(
    before: Mapping[str, Fingerprint],
    after: Mapping[str, Fingerprint],
    written: Collection[str],
) -> list[str]:
    """The person's own layers, losses and the like, by name."""
    changes = []
    for name in sorted({*before, *after}):
        if name not in after:
            changes.append(f"`{clean(name)}` is gone from the model")
        elif name not in before:
            changes.append(f"`{clean(name)}` is new in the model")
        else:
            changes += _compare_functions(before[name], after[name], written)
    return changes


def _compare_functions(
    before: Fingerprint | None,
    after: Fingerprint | None,
    written: Collection[str],
) -> list[str]:
    if before is None or after is None:
        if before is after:
            return []
        now = "a model is given" if after is None else "a function builds it"
        return [f"the model was made in another way: now {now}"]
    first, second = (
        replace(
            one,
            data={
                name: value
                for name, value in one.data.items()
                if name not in written
            },
        )
        for one in (before, after)
    )
    return compare_fingerprints(first, second)


def _compare_settings(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[str]:
    """Differences of two models' settings, the readable ones first."""
    found = list_differing(before, after, lists=True)
    return [
        f"the model's `{clean(key)}` was {_say(one)} and is {_say(other)}"
        for key, one, other in sorted(found, key=lambda entry: entry[0])
    ]


def _say(value: Any) -> str:
    return "absent" if value is None else clean(value, 60)


_UNREAD = "unread"


@dataclass(frozen=True)
class Fingerprint:
    """What a function is made of."""

    # Checksums of what functions and classes do, by their names: `train`,
    # `helpers.smooth`, `Scaler.fit`; without a prefix in the function's own
    # module.
    code: Mapping[str, str]
    # What the function takes from outside, by name: variables of the functions
    # around it, globals, defaults as in `train(alpha)`, entries and attributes
    # as in `settings['lr']` and `config.lr`; short values as text, others as
    # checksums.
    data: Mapping[str, str]
    # Names of what nobody can tell the content of, such as an open file.
    unread: tuple[str, ...] = ()
    python: str = ""  # The version that compiled the code.


@dataclass(frozen=True, kw_only=True)
class StudyIdentity:
    """What makes trials those of one study: the schema of its file too."""

    train: Fingerprint
    build: Fingerprint | None = None  # Of what builds the model, if anything.
    # The person's own layers, losses and the like, by name.
    parts: Mapping[str, Fingerprint] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)  # Its settings.
    vary: str = "all"
    backend: str | None = None


def compare_fingerprints(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Say what is not as it was; code of two Pythons cannot be compared."""
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
