"""What arguments hold does nothing to the terminal that shows an error."""

import json

import pytest

from keras_repro.cli.main import main
from keras_repro.common.text import escape

pytestmark = pytest.mark.no_backend
# A colour, a title, another direction of writing, a C1 code, a new line.
MARKS = ["\x1b[31mx", "\x1b]0;x\x07", "\u202ex", "\x9b31m", "a\rbx"]
LINES = [
    ["compare", "{}.jsonl", "b.jsonl"],
    ["compare", "--rtol", "{}", "a", "b"],
    ["compare", "--html", "{}/{}", "a.jsonl", "b.jsonl"],
    ["compare", "a", "b", "--{}"],
    ["trials", "show", "{}"],
    ["trials", "compare", "{}", "b"],
    ["verify", "{}.py"],
    ["verify", "--against", "{}", "s.py"],
    ["verify", "--json", "{}/v.json", "s.py"],
    ["run", "{}.py"],
    ["env", "{}"],
    ["install-kernel", "--name", "{}"],
    ["{}"],
]


@pytest.mark.parametrize("mark", MARKS, ids=ascii)
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_errors_show_arguments_as_visible_text(line, mark, capsys):
    """All in one printable line, in which the argument can be told."""
    assert main([one.replace("{}", mark) for one in line]) == 2
    shown = "".join(capsys.readouterr())
    assert "x" in shown
    assert all(one.isprintable() for one in shown.replace("\n", ""))


@pytest.mark.parametrize("mark", MARKS, ids=ascii)
def test_as_json(mark, capsys):
    """In JSON too it is visible text, which a program may print."""
    assert main(["compare", "--json", mark, "b"]) == 2
    out = capsys.readouterr().out
    assert escape(mark) in json.loads(out)["error"]
    assert all(one.isprintable() for one in out.replace("\n", ""))
