"""JSON that is not trusted: one schema, by msgspec, to read and to write it.

msgspec checks what a field holds. What it lets pass is refused before: names
that stand twice, NaN, lone surrogates, what is too long or too deep.
"""

from __future__ import annotations

import json
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from keras_repro.common.files import LONGEST_LINE
from keras_repro.common.json import make_visible, to_plain

# Far deeper than any configuration; far from Python's limit of recursion.
DEEPEST = 100
_LARGEST_FLOAT = sys.float_info.max
_LIMITS: dict[type, float] = {float: _LARGEST_FLOAT, int: 2**64 - 1}
_NON_FINITE = {name: float(name) for name in ("nan", "inf", "-inf")}

if TYPE_CHECKING:
    Number = float
else:  # As JSON holds it; integers where a double holds them too.
    Number = (
        Annotated[float, Meta(ge=-_LARGEST_FLOAT, le=_LARGEST_FLOAT)]
        | Annotated[int, Meta(ge=-(2**53), le=2**53)]
        | Annotated[str, Meta(pattern=r"\A(nan|inf|-inf)\Z")]
    )

EntryT = TypeVar("EntryT")


def to_floats(values: Iterable[float | str]) -> list[float]:
    """Numbers from what stands for them in JSON, NaN always the same one."""
    return [one if type(one) is float else _to_float(one) for one in values]


def to_named_floats(values: Mapping[str, float | str]) -> dict[str, float]:
    """As `to_floats`, by name; the names as a file holds them."""
    names = map(make_visible, values)
    return dict(zip(names, to_floats(values.values()), strict=True))


def _to_float(value: float | str) -> float:
    return _NON_FINITE[value] if isinstance(value, str) else float(value)


class LineError(ValueError):
    """A line that is none of ours: what must hold, and what came."""

    def __init__(self, must: str, received: str) -> None:
        super().__init__(f"{must} Received: {received}")
        self.must = must
        self.received = received


class NoEntryError(LineError):
    """A line that is not even of the kind that our lines are."""


class LineFormat(Generic[EntryT]):
    """What the lines of a file may be."""

    def __init__(
        self,
        # By `type`, the dataclass that is the record and the schema.
        kinds: Mapping[str, type[EntryT]],
        *,
        # What a line begins with: only such a line can be a torn one.
        starts: Iterable[str],
        # A sentence: what every line must be.
        must: str,
    ) -> None:
        self._kinds = kinds
        self._types = {cls: kind for kind, cls in kinds.items()}
        self._starts = tuple(starts)
        self._must = must

    def encode(self, entry: EntryT) -> str:
        """Write an entry as a line, which its reader takes."""
        with suppress(TypeError, ValueError):
            line = self._encode(entry, entry)
            if self._gives_again(line, entry):
                return line
        # NumPy's numbers, NaN, lone surrogates, other kinds of mappings.
        content = to_plain(msgspec.to_builtins(entry, enc_hook=_unwrap))
        line = self._encode(entry, content)
        self.decode(line)
        return line

    def _gives_again(self, line: str, entry: EntryT) -> bool:
        """Whether a reader takes the line for the entry."""
        if len(line) > LONGEST_LINE or self._types[type(entry)] in self.checked:
            return self.decode(line) == entry
        # In what msgspec wrote it reads what a stricter reader would: eight
        # times as fast, which counts where each batch is recorded.
        again: EntryT = msgspec.json.decode(line, type=type(entry))
        return again == entry

    def _encode(self, entry: EntryT, content: Any) -> str:
        """The line, its type first."""
        fields = msgspec.json.encode(content).decode()
        return f'{{"type":"{self._types[type(entry)]}",{fields[1:]}'

    def decode(self, text: str) -> EntryT | None:
        """Read one line; `None` if it was torn."""
        # A power cut may leave zeros where the rest of a line should be.
        text = text.rstrip("\0")
        try:
            content = self.settle(decode_json(text), text)
        except json.JSONDecodeError as error:
            if self._starts_like_ours(text) and _is_cut(text, error):
                return None
            raise NoEntryError(self._must, show(text)) from None
        except (ValueError, RecursionError) as error:
            raise NoEntryError(
                self._must, f"{show(text)} ({reprlib.repr(str(error))})"
            ) from None
        kind = content.get("type") if isinstance(content, dict) else None
        if not isinstance(kind, str) or kind not in self._kinds:
            raise NoEntryError(self._must, show(text))
        if kind in self.checked:
            self.check(kind, content)
        of_what = f" of a line of type {kind!r}"
        return convert(content, self._kinds[kind], of_what)

    def settle(self, content: Any, text: str) -> Any:
        r"""Refuse `"\ud800"` alone: a string that no file or terminal takes."""
        if "\\u" in text:
            msgspec.json.encode(content)
        return content

    # Types of lines of which the schema does not say all.
    checked: frozenset[str] = frozenset()

    def check(self, kind: str, content: dict[str, Any]) -> None:
        """What the schema does not say of the fields of such a line."""

    def _starts_like_ours(self, text: str) -> bool:
        return any(
            text.startswith(start) or start.startswith(text)
            for start in self._starts
        )


def decode_utf8(line: bytes) -> str:
    """The text of a line, without a character that was torn."""
    line = line.rstrip(b"\0")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return line[: error.start].decode("utf-8")
        raise NoEntryError(
            "The file must be UTF-8.", ascii(line[:60].decode("latin-1"))
        ) from None


def decode_json(text: str) -> Any:
    """Read strict JSON, in which no name stands twice."""
    if len(text) > LONGEST_LINE:
        msg = f"longer than {LONGEST_LINE} characters"
        raise ValueError(msg)
    return _decoder.decode(text)


def convert(content: Any, schema: type[EntryT], of_what: str = "") -> EntryT:
    """Make a record of what was read; an error names the wrong field."""
    try:
        return msgspec.convert(content, schema)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at ")
    missing = re.search(r"missing required field `(\w+)`", reason)
    if missing is not None and not place:
        raise LineError(
            f"The field `{missing[1]}`{of_what} must be there.",
            show(content),
        )
    field = re.search(r"\w+", place)
    name = "type" if field is None else field[0]
    raise LineError(
        f"`{name}`{of_what} must hold what the format says: "
        f"{reason[0].lower()}{reason[1:]}, at {place}.",
        show(content.get(name)),
    )


def check_plain(content: Mapping[str, Any], of_what: str = "") -> None:
    """Refuse what is too deep in any field, and numbers that are too big."""
    for name, value in content.items():
        reason = _find_excess(value)
        if reason:
            raise LineError(f"`{name}`{of_what} must {reason}.", show(value))


def _find_excess(value: Any) -> str:
    level = [value]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is dict:
                deeper.extend(one.values())
            elif kind is list:
                deeper.extend(one)
            elif kind in _LIMITS and not abs(one) <= _LIMITS[kind]:
                return "hold finite numbers within 64 bits"
        if not deeper:
            return ""
        level = deeper
    return f"be nested less than {DEEPEST} deep"


def show(value: Any) -> str:
    """A value in an error, shortened."""
    if isinstance(value, str) and len(value) > 60:
        value = value[:57] + "..."
    return ascii(value) if isinstance(value, str) else reprlib.repr(value)


def _unwrap(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()  # A number of NumPy's.
    if isinstance(value, Mapping):
        return dict(value)
    msg = f"JSON holds plain values alone. Received: {reprlib.repr(value)}"
    raise TypeError(msg)


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        msg = "a name stands twice in one object"
        raise ValueError(msg)
    return result


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


_decoder = json.JSONDecoder(
    object_pairs_hook=_refuse_twins, parse_constant=_refuse_constant
)


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether more text would make it JSON: the error is at its very end."""
    rest = text[error.pos :]
    if not rest or error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Invalid \\u"):
        return re.search(r"\\u[0-9a-fA-F]{0,4}$", text) is not None
    if error.msg.startswith("Expecting value"):
        words = ("true", "false", "null", "-0")
        return any(word.startswith(rest) for word in words)
    return re.fullmatch(r"\.|[eE][+-]?", rest) is not None
