"""What a program is that a script starts: Python, something else, or unknown.

A process that may train a Keras model must be watched, or be told as not
watched. What cannot, such as `git`, must not spoil every verdict.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

# Python itself; what may start it; what starts no Python.
PYTHON, UNKNOWN, OTHER = "python", "unknown", "other"
_PYTHON = re.compile(r"(python|pypy)[\d.]*w?")
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
# No list of all there is: what stands on none counts as unknown.
_OTHER = frozenset(
    [
        "[", "ar", "arch", "as", "awk", "base64", "basename", "c++", "cat",
        "cc", "cd", "chmod", "clang", "clang++", "clear", "cmp", "convert",
        "cp", "curl", "cut", "date", "df", "diff", "dirname", "dot", "du",
        "echo", "false", "fc-list", "fc-match",
        "ffmpeg", "ffprobe", "file", "free", "g++", "gcc",
        "getconf", "git", "git-lfs", "grep", "gunzip", "gzip", "head", "hg",
        "hostname", "id", "kill", "ld", "ldconfig", "ldd", "ln", "locale",
        "ls", "lsb_release", "lscpu", "lsof", "lspci", "md5sum", "mkdir",
        "mv", "nm", "nproc", "nvcc", "nvidia-smi", "objdump", "printf", "ps",
        "ptxas", "pwd", "realpath", "rm", "rmdir", "rocm-smi", "sed", "seq",
        "sha1sum", "sha256sum", "sleep", "sort", "stat", "stty", "svn",
        "sw_vers", "sysctl", "system_profiler", "tail", "tar", "tee", "test",
        "touch", "tput", "tr", "true", "tty", "uname", "uniq", "unzip",
        "uptime", "wandb-core", "wc", "wget", "which", "whoami", "zip",
    ]
)  # fmt: skip
_ASSIGNMENT = re.compile(r"\w+=")
_MOST_TOLD = 120


def classify_program(path: str, arguments: Sequence[str]) -> str:
    """Classify a program by its file, and a shell by what it is told."""
    name = os.path.basename(path)  # noqa: PTH119 - a name, as typed
    if _is_python(path):
        return PYTHON
    if name in _SHELLS:
        is_other = all(one in _OTHER for one in _find_commands(arguments))
        return OTHER if is_other else UNKNOWN
    return OTHER if name in _OTHER else UNKNOWN


def reads_environment(path: str, arguments: Sequence[str]) -> bool:
    """Whether a program is this very Python, and heeds its environment."""
    if os.path.realpath(path) != os.path.realpath(sys.executable):
        return False
    options = itertools.takewhile(
        lambda one: one.startswith("-") and one not in ("-c", "-m"),
        arguments[1:],
    )
    return not any(
        set("EIS") & set(one) for one in options if not one.startswith("--")
    )


def leads_to_python(arguments: Sequence[str]) -> bool:
    """Whether what a launcher is given names Python, or a script of it."""
    words = (word for one in arguments for word in re.split(r"[\s;&|()]+", one))
    return any(
        word.endswith(".py") or _PYTHON.fullmatch(word.rpartition("/")[2])
        for word in words
    )


def find_program(
    candidates: Sequence[str], folder: str | None = None
) -> str | None:
    """The first of some files that can be run; `None` if there is none."""
    for one in candidates:
        path = os.path.join(folder, one) if folder else one  # noqa: PTH118
        if os.access(path, os.X_OK) and os.path.isfile(path):  # noqa: PTH113
            return path
    return None


def describe_program(arguments: Sequence[str]) -> str:
    """A command in a line, its folder left out."""
    if not arguments:
        return ""
    name = arguments[0].rpartition("/")[2]
    text = " ".join([name, *arguments[1:]]).replace("\n", " ")
    return text if len(text) <= _MOST_TOLD else f"{text[: _MOST_TOLD - 1]}…"


def _is_python(path: str) -> bool:
    names = {Path(path).name, Path(os.path.realpath(path)).name}
    if any(_PYTHON.fullmatch(one) for one in names):
        return True
    # A script that names its interpreter, such as one that pip installs.
    with suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
        first = file.readline(256)
        return first.startswith(b"#!") and b"python" in first
    return False


def _find_commands(arguments: Sequence[str]) -> Iterator[str]:
    """The commands that a shell is told to run; `?` if nobody can tell."""
    text = _find_text(arguments)
    if text is None or re.search(r"\$\(|`|<\(|\n", text):
        yield "?"
        return
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    begins = True
    try:
        for token in lexer:
            if set(token) <= set("();<>|&"):
                begins = not set(token) & set("<>")
            elif begins and not _ASSIGNMENT.match(token):
                yield token.rpartition("/")[2]
                begins = False
    except ValueError:
        yield "?"


def _find_text(arguments: Sequence[str]) -> str | None:
    """What follows `-c`; `None` for a shell that reads a file or its input."""
    for option, text in itertools.pairwise(arguments):
        if re.fullmatch(r"-\w*c", option):
            return text
    return None
