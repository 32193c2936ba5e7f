"""What a code object does, whatever its lines, comments and docstrings."""

from __future__ import annotations

import dis
import itertools
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType
from typing import Any

from keras_repro.arrays.checksums import combine_checksums
from keras_repro.common.whose_code import is_installed, is_own_module

# They depend on lines, on comments or on the order of a set.
_DERIVED = {"__doc__", "__firstlineno__", "__static_attributes__"}
_EMPTY = {"NOP", "CACHE", "EXTENDED_ARG"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_CELLS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_KINDS = 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200  # *args, generator, async.


@dataclass(frozen=True)
class Uses:
    """What a code object takes from outside, in the order of the code."""

    # By the name of a global, the attributes that are read from it, such as
    # `("linalg", "norm")`; `cells` is the same by the name of a variable of a
    # function around it.
    globals: dict[str, dict[tuple[str, ...], None]] = field(
        default_factory=dict
    )
    cells: dict[str, dict[tuple[str, ...], None]] = field(default_factory=dict)
    # Modules that are imported, with the level of the import.
    imports: dict[tuple[str, int], None] = field(default_factory=dict)


def checksum_code(code: CodeType) -> str:
    """The checksum of what a code object does, in one version of Python."""
    return combine_checksums(_describe(code))


def _describe(code: CodeType) -> Iterator[str]:
    count = code.co_argcount + code.co_kwonlyargcount
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_flags & _KINDS)
    yield f"{counts} {code.co_varnames[:count]}"
    bytecode = dis.Bytecode(code)
    kept = list(_drop_derived(bytecode))
    offsets = [one.offset for one in kept]
    for one in kept:
        yield f"{one.opname} {_describe_operand(one, offsets)}"
    # Typed nowhere, and there in every version.
    entries: Any = vars(bytecode)["exception_entries"]
    for entry in entries:
        ends = (entry.start, entry.end, entry.target)
        places = [bisect_left(offsets, end) for end in ends]
        yield f"{places} {entry.depth} {entry.lasti}"


def _drop_derived(
    instructions: Iterable[dis.Instruction],
) -> Iterator[dis.Instruction]:
    """Leave out what holds no meaning, such as that a class has a docstring."""
    waiting: dis.Instruction | None = None
    for one in instructions:
        if one.opname in _EMPTY:
            continue
        is_derived = one.opname == "STORE_NAME" and one.argval in _DERIVED
        if waiting is not None and not is_derived:
            yield waiting
        waiting = None
        if one.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            waiting = one
        elif not is_derived:
            yield one
    if waiting is not None:
        yield waiting


def _describe_operand(one: dis.Instruction, offsets: list[int]) -> str:
    if one.opcode in dis.hasconst:
        return describe_constant(one.argval)
    if one.opcode in dis.hasname or one.opcode in dis.hascompare:
        return str(one.argval)
    if one.opcode in dis.hasjrel or one.opcode in dis.hasjabs:
        return f"to {bisect_left(offsets, one.argval)}"
    return str(one.arg)


def describe_constant(value: Any) -> str:
    """A constant of a code object as text; sets in one order."""
    if isinstance(value, CodeType):
        return checksum_code(value)
    if isinstance(value, (set, frozenset)):
        return f"frozenset({', '.join(sorted(map(describe_constant, value)))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(describe_constant, value))})"
    return repr(value)


def list_uses(code: CodeType) -> Uses:
    """List what a code object, with all code within, names from outside."""
    uses = Uses()
    _add_uses(code, uses)
    return uses


def _add_uses(code: CodeType, uses: Uses) -> None:
    listed = [
        one for one in dis.get_instructions(code) if one.opname not in _EMPTY
    ]
    for index, one in enumerate(listed):
        if one.opname == "IMPORT_NAME":
            level, names = (
                before.argval for before in listed[index - 2 : index]
            )
            uses.imports[one.argval, level] = None
            for name in names or ():
                uses.imports[f"{one.argval}.{name}".lstrip("."), level] = None
        elif one.opname in _GLOBALS | _CELLS:
            kind = uses.globals if one.opname in _GLOBALS else uses.cells
            chains = kind.setdefault(one.argval, {})
            read = itertools.takewhile(_is_attribute, listed[index + 1 :])
            chains[tuple(name.argval for name in read)] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_uses(constant, uses)


def _is_attribute(one: dis.Instruction) -> bool:
    return one.opname in _ATTRIBUTES


def find_module_code(name: str) -> CodeType | None:
    """Compile a module of the person's own without importing it."""
    parts = name.split(".")
    if not is_own_module(parts[0]):
        return None
    path, spec = None, None
    for count in range(1, len(parts) + 1):
        if count > 1 and path is None:
            return None  # What should hold it is no package.
        spec = PathFinder.find_spec(".".join(parts[:count]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    origin = spec.origin if spec is not None else None
    if not origin or not origin.endswith(".py") or is_installed(origin):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            source = Path(origin).read_bytes()
            return compile(source, origin, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            return None
