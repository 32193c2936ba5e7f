"""How large the package is: lines and docstrings of each folder, and lists.

    python -m benchmarks.house
    python -m benchmarks.house --root PATH    # another checkout

Files are read and never imported, so that any commit can be measured.
"""

import argparse
import ast
import io
import re
import tokenize
import tomllib
from pathlib import Path
from typing import NamedTuple

PACKAGE = "keras_repro"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WIDTH = 100
TITLES = ("folder", "modules", "lines", "code", "docstring", "comment", "blank")
TABLE = "{:<12} {:>7} {:>6} {:>6} {:>9} {:>7} {:>5}  {}"
NOTES = f"""\
Lines are whole lines of a file: code with a comment behind it is code, a blank
line in a docstring is docstring. A function goes from `def` to its last line,
without its docstring. The row `{PACKAGE}` is the modules in no folder; a folder
in a folder counts with the outer one. Docstrings are public for the names in
`__all__` and for the methods without a leading underscore that such a class
defines. Named modules are entries of a list that are a module, not a folder;
of tests/conftest.py all lists, sets and tuples of strings are read."""


class Module(NamedTuple):
    """One file of the package, as text and as a tree."""

    name: str
    folder: str
    source: str
    tree: ast.Module


def load_modules(root):
    """Read the package of a checkout; names leave out `keras_repro.`."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        folder = parts[0] if len(parts) > 1 else PACKAGE
        name = ".".join(parts).removesuffix("__init__").removesuffix(".")
        source = path.read_text(encoding="utf-8")
        modules[name] = Module(name, folder, source, ast.parse(source))
    return modules


def walk_definitions(node, path=()):
    """Yield each class and function with its path, as in `__qualname__`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, *FUNCTIONS)):
            place = (*path, child.name)
            yield place, child
            inner = isinstance(child, FUNCTIONS) * ("<locals>",)
            yield from walk_definitions(child, (*place, *inner))
        else:
            yield from walk_definitions(child, path)


def find_docstrings(tree):
    """Yield the path to each docstring, and the lines that it covers."""
    for path, node in (((), tree), *walk_definitions(tree)):
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            yield path, range(docstring.lineno, docstring.end_lineno + 1)


def count_lines(module):
    """Count the lines of a module: all, code, docstring, comment, blank."""
    docs = {line for _, lines in find_docstrings(module.tree) for line in lines}
    code, comments = set(), set()
    reader = io.StringIO(module.source).readline
    for token in tokenize.generate_tokens(reader):
        if token.string.strip():  # Not the end of a line, nor an indent.
            lines = range(token.start[0], token.end[0] + 1)
            (comments if token.type == tokenize.COMMENT else code).update(lines)
    code -= docs
    comments -= docs | code
    size = module.source.count("\n")
    taken = (len(code), len(docs), len(comments))
    return (size, *taken, size - sum(taken))


def find_longest(modules):
    """The length of the longest function, and its name with its module's."""
    functions = [
        (count_function(node), f"{module.name}:{'.'.join(path)}")
        for module in modules
        for path, node in walk_definitions(module.tree)
        if isinstance(node, FUNCTIONS)
    ]
    return max(functions, default=(0, "-"))


def count_function(node):
    """The lines of a function from `def` to its end, but for its docstring."""
    number = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        number -= docstring.end_lineno - docstring.lineno + 1
    return number


def format_row(title, modules):
    """One line of the table; names of modules leave out their folder."""
    kinds = [sum(kind) for kind in zip(*map(count_lines, modules), strict=True)]
    length, name = find_longest(modules)
    longest = f"{length:>3} {name.removeprefix(f'{title}.')}"
    return TABLE.format(title, len(modules), *kinds, longest)[:WIDTH]


def find_value(tree, name):
    """The literal that a module assigns to a name."""
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(getattr(target, "id", None) == name for target in targets):
            return ast.literal_eval(node.value)
    raise LookupError(f"{PACKAGE} must assign a literal to `{name}`.")


def count_docstrings(modules):
    """Count the docstring lines of public names, modules and all others."""
    homes = find_value(modules[""].tree, "_HOMES")
    names = find_value(modules[""].tree, "__all__")
    public = {(homes[name], name) for name in names if name in homes}
    counts = {"public": 0, "internal": 0, "modules": 0, "names": 0}
    for module in modules.values():
        for path, lines in find_docstrings(module.tree):
            is_open = (module.name, *path[:1]) in public and not any(
                name.startswith(("_", "<")) for name in path[1:]
            )
            kind = "public" if is_open else "internal" if path else "modules"
            counts[kind] += len(lines)
            counts["names"] += is_open and len(path) == 1
    return counts


def expand_braces(pattern):
    """Expand each `{a,b}` of a pattern of file names."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    ways = [f"{before}{option}{after}" for option in found[1].split(",")]
    return [name for way in ways for name in expand_braces(way)]


def find_string_lists(path):
    """The strings in each set, list or tuple of a file that has only those."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Set, ast.List, ast.Tuple)):
            texts = [getattr(element, "value", None) for element in node.elts]
            if all(isinstance(text, str) for text in texts):
                yield from texts


def list_contracts(tools, kind, key):
    """The entries of all import contracts of one type."""
    contracts = tools["importlinter"]["contracts"]
    return [x for one in contracts if one["type"] == kind for x in one[key]]


def count_names(root, modules, tools):
    """Count the modules that lists written by hand name, list by list."""
    packages = {name.rpartition(".")[0] for name in modules}
    files = {f"{PACKAGE}.{name}" for name in modules.keys() - packages}
    stems = {name.rpartition(".")[2] for name in files}
    stems -= {name.rpartition(".")[2] for name in packages}
    patterns = tools["ruff"]["lint"].get("per-file-ignores", {})
    paths = [path for one in patterns for path in expand_braces(one)]
    overrides = [one["module"] for one in tools["mypy"].get("overrides", ())]
    typed = [[one] if isinstance(one, str) else one for one in overrides]
    ignored = [path.removesuffix(".py").replace("/", ".") for path in paths]
    forbidden = list_contracts(tools, "forbidden", "source_modules")
    tests = find_string_lists(root / "tests" / "conftest.py")
    return {
        "forbidden contracts": sum(name in files for name in forbidden),
        "ruff's per-file-ignores": sum(name in files for name in ignored),
        "mypy's overrides": sum(name in files for one in typed for name in one),
        "tests/conftest.py": sum(name in stems for name in tests),
    }


def collect_facts(root, modules):
    """The figures below the table, by their titles."""
    tools = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]
    docs = count_docstrings(modules)
    names = count_names(root, modules, tools)
    rows = list_contracts(tools, "layers", "layers")
    return {
        "folders": len({one.folder for one in modules.values()} - {PACKAGE}),
        "modules": len(modules),
        "rows of the import contract": len(rows),
        **{f"modules named in {title}": names[title] for title in names},
        "public names with a docstring": docs["names"],
        "lines of public docstrings": docs["public"],
        "lines of internal docstrings, modules apart": docs["internal"],
        "lines of the docstrings of modules": docs["modules"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(__file__).resolve().parents[1]
    parser.add_argument("--root", type=Path, default=default, help="a checkout")
    root = parser.parse_args().root
    modules = load_modules(root)
    folders = {PACKAGE: []}
    for _, module in sorted(modules.items()):
        folders.setdefault(module.folder, []).append(module)
    print(TABLE.format(*TITLES, "longest function"))
    for folder, members in folders.items():
        print(format_row(folder, members))
    print(format_row("total", list(modules.values())))
    print()
    for title, number in collect_facts(root, modules).items():
        print(f"{title:<48} {number:>6}")
    print(f"\n{NOTES}")


if __name__ == "__main__":
    main()
