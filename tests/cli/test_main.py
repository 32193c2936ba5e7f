"""The command loads no backend, answers as documented, with no traceback.

`python -m tests.cli.test_main` writes the help texts into docs/cli.md anew.
"""

import io
import json
import os
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest

from keras_repro.cli import main as cli
from keras_repro.cli.tables import format_table
from keras_repro.common.text import escape
from tests.builders import make_record, make_run, save_run
from tests.checkout import ROOT, run_command

pytestmark = pytest.mark.no_backend

PAGE = ROOT / "docs" / "cli.md"
COMMANDS = (
    "compare",
    "show",
    "env",
    "verify",
    "run",
    "trials",
    "trials run",
    "trials show",
    "trials compare",
    "install-kernel",
)
HELP = re.compile(
    r"(?<=```text\n\$ )(keras-repro[^\n]*--help)\n(.*?)(?=```)", re.S
)


def checksum(text):
    """A checksum as they look."""
    return "kr1:" + text.encode().hex().ljust(32, "0")[:32]


def write_run(path, run_id, *, value="a", seed=0, ended="finished", **header):
    """Append a run of two epochs that ends with one value."""
    records = [
        make_record(
            run_id,
            index,
            None if index == 0 else index - 1,
            model=checksum(one),
            roles={"weights": checksum(one)},
            variables={"weights": {"layers.0.kernel": checksum(one)}},
            metrics={} if index == 0 else {"loss": 1 / index},
        )
        for index, one in enumerate(("start", "middle", value))
    ]
    run = make_run(
        *records,
        run_id=run_id,
        status=ended,
        started="2026-01-02T03:04:05.678+00:00",
        identity={"seed": seed, "model": checksum("m")},
        model={"class": "Sequential"},
        environment={"python": "3.11", "versions": {"keras": "3.15"}},
        **header,
    )
    return save_run(run, path)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A file of two equal runs and one of another seed; the place it is in."""
    monkeypatch.chdir(tmp_path)
    path = Path("runs.jsonl")
    write_run(path, "1a" * 16)
    write_run(path, "2b" * 16)
    write_run(path, "12345678" * 4, value="b", seed=7, name="other")
    return path


@pytest.fixture
def command(capsys):
    """Run the command; its exit code, output and messages."""

    def run(*arguments):
        code = cli.main([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return run


# --- compare -------------------------------------------------------------


def test_compare_equal_runs(runs, command):
    """Equal runs exit with 0 and say so first."""
    code, out, err = command("compare", f"{runs}@0", f"{runs}@1")
    assert (code, err) == (0, "")
    assert "bitwise equal" in out.splitlines()[0].lower()


def test_compare_different_runs(runs, command):
    """Different runs exit with 1 and name what differs."""
    code, out, _ = command("compare", f"{runs}@0", f"{runs}@2")
    assert code == 1
    assert "layers.0.kernel" in out
    assert "seed" in out


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("0", "1a"),
        ("-1", "12"),
        ("2", "12"),
        ("2b", "2b"),
        ("12345678", "12"),
        ("1a1a", "1a"),
    ],
)
def test_choose_a_run(runs, command, choice, expected):
    """A position in the file counts as one, all else as the start of an id."""
    _, out, _ = command("show", f"{runs}@{choice}", "--json")
    assert json.loads(out)["run"]["id"].startswith(expected)


def test_file_name_with_at_sign(runs, command):
    """A file that is there is that file, whatever its name looks like."""
    odd = runs.rename("runs@0")
    assert command("show", odd, "--json")[0] == 0
    _, out, _ = command("show", f"{odd}@2b", "--json")
    assert json.loads(out)["run"]["position"] == 1


def test_compare_last_of_each(runs, command):
    """A file alone stands for its last run."""
    other = write_run(Path("other.jsonl"), "3c" * 16, value="b", seed=7)
    assert command("compare", runs, other)[0] == 0
    write_run(other, "4d" * 16, value="c", seed=7)
    assert command("compare", runs, other)[0] == 1


def test_compare_one_file_of_two(command, tmp_path):
    """One file with two finished runs is a comparison of these."""
    path = write_run(tmp_path / "two.jsonl", "1a" * 16)
    write_run(path, "2b" * 16, value="never finished", ended=None)
    assert command("compare", path)[0] == 2
    write_run(path, "3c" * 16)
    code, out, _ = command("compare", path, "--json")
    assert (code, json.loads(out)["equal"]) == (0, True)


def test_compare_groups(runs, command):
    """More runs are sorted into groups; all must agree for a 0."""
    code, out, _ = command("compare", runs, "--json")
    assert code == 1
    assert json.loads(out)["groups"] == [[0, 1], [2]]
    code, out, _ = command("compare", runs)
    assert code == 1
    copies = [Path(f"copy{number}.jsonl") for number in range(3)]
    for copy in copies:
        write_run(copy, "5e" * 16)
    assert command("compare", *copies)[0] == 0


def test_json_names_the_place(runs, command):
    """The JSON of a comparison names the first mismatch."""
    code, out, _ = command("compare", f"{runs}@0", f"{runs}@2", "--json")
    found = json.loads(out)
    assert (code, found["status"], found["equal"]) == (1, "different", False)
    assert found["first_mismatch"]["epoch"] == 1
    assert found["first_mismatch"]["places"] == ["layers.0.kernel"]


def test_html_page(runs, command):
    """The page is whole and self-contained, and nothing else is left."""
    before = set(Path().iterdir())
    code, *_ = command("compare", f"{runs}@0", f"{runs}@2", "--html", "p.html")
    page = Path("p.html").read_text(encoding="utf-8")
    assert code == 1
    assert page.lower().startswith("<!doctype html>")
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert set(Path().iterdir()) == {*before, Path("p.html")}
    assert command("compare", runs, "--html", "groups.html")[0] == 1


def test_failed_page_keeps_the_old_one(runs, command):
    """An error while a page is written leaves the page before it there."""
    Path("p.html").mkdir()
    code, _, err = command("compare", runs, "--html", "p.html")
    assert code == 2
    assert "p.html" in err
    assert {path.name for path in Path().iterdir()} == {"p.html", str(runs)}


def test_torn_line_is_one_plain_line(runs, command):
    """A torn line is told in one line, without a Python warning's clutter."""
    with runs.open("a") as file:
        file.write('{"type":"record","run_id":"1a')
    code, _, err = command("compare", f"{runs}@0", f"{runs}@1")
    assert code == 0
    assert re.fullmatch(r"keras-repro: [^\n]*half-written[^\n]*\n", err)


# --- trouble -------------------------------------------------------------

MISUSES = {
    "no such file": ["compare", "nope.jsonl", "runs.jsonl"],
    "no run's file": ["compare", "text.txt", "runs.jsonl"],
    "a folder": ["show", "folder"],
    "no such run": ["compare", "runs.jsonl@99", "runs.jsonl"],
    "no such id": ["show", "runs.jsonl@ff"],
    "many ids": ["compare", "runs.jsonl@1a", "many.jsonl@ab"],
    "one run": ["compare", "runs.jsonl@0"],
    "one run twice": ["compare", "runs.jsonl", "runs.jsonl@-1"],
    "no finished runs": ["compare", "open.jsonl"],
    "an empty file": ["compare", "empty.jsonl", "runs.jsonl"],
    "a bad tolerance": ["compare", "runs.jsonl", "--rtol", "nan"],
    "an unknown option": ["compare", "runs.jsonl", "--nope"],
    "nothing": ["compare"],
    "an unknown command": ["nope"],
    "no script": ["run"],
    "no such script": ["run", "nope.py"],
    "a bad seed": ["run", "--seed", "4294967296", "script.py"],
    "a bad interval": ["run", "--every", "0", "script.py"],
    "a bad log": ["run", "--log", "text.txt", "script.py"],
    "a log nowhere": ["run", "--log", "no/where.jsonl", "script.py"],
    "an option with no value": ["run", "--seed"],
    "two places": ["install-kernel", "--sys-prefix", "--prefix", "folder"],
}


@pytest.fixture
def mess(runs):
    """What a person may name by mistake."""
    Path("text.txt").write_text("hello\n")
    Path("script.py").write_text("raise SystemExit(5)\n")
    Path("folder").mkdir()
    Path("empty.jsonl").touch()
    write_run(Path("open.jsonl"), "1a" * 16, ended=None)
    for number in range(2):
        write_run(Path("many.jsonl"), f"ab{number}".ljust(32, "0"))
    write_run(Path("many.jsonl"), "ab")


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_trouble(mess, command, arguments):
    """Trouble exits with 2 and one message that says what came."""
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("keras-repro: ")
    assert "Traceback" not in err
    code, out, _ = command(arguments[0], "--json", *arguments[1:])
    if arguments[0] != "nope":
        assert (code, list(json.loads(out))) == (2, ["error"])


def test_no_command(command):
    """Without a command the help is shown, as trouble."""
    code, out, err = command()
    assert (code, out) == (2, "")
    assert "COMMAND" in err


def test_version(command):
    """The version is printed."""
    code, out, _ = command("--version")
    assert code == 0
    assert re.fullmatch(r"keras-repro \d\S+\n", out)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("keras-repro ver", "plain,verify\n"),
        ("keras-repro trials train.py:train --seed", "plain,--seeds\n"),
        ("keras-repro compare ru", "file,ru\n"),
        ("keras-repro run tr", "file,tr\n"),
    ],
)
def test_completion(command, monkeypatch, line, expected):
    """A shell is told how a word may go on; of files, that it is one."""
    words = line.split()
    monkeypatch.setenv("_KERAS_REPRO_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert command() == (0, expected, "")


def test_broken_pipe(runs):
    """Whoever reads only the start of the output sees no traceback."""
    header = runs.read_text().splitlines()[0]
    with runs.open("a") as file:
        for number in range(500):
            file.write(header.replace("1a" * 16, f"{number:032}") + "\n")
    show = f"{shlex.quote(sys.executable)} -m keras_repro show {runs} --json"
    result = run_command("sh", "-c", f"{show} | head -1")
    assert (result.stdout, result.stderr) == ("{\n", "")


# --- show ----------------------------------------------------------------


def test_show_lists_the_runs(runs, command):
    """A file of several runs is a table."""
    code, out, _ = command("show", runs)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 4)
    assert lines[0].split() == [
        *("#", "id", "started", "name", "seed", "model"),
        *("epochs", "loss", "checksum", "status"),
    ]
    assert lines[1].split()[:4] == ["0", "1a1a1a1a", "2026-01-02", "03:04"]
    assert lines[3].split()[-5:-2] == ["Sequential", "2", "0.5"]


def test_show_fits_a_terminal(tmp_path, command):
    """No line is wider than 80 columns, whatever the runs are called."""
    path = tmp_path / "runs.jsonl"
    long = "a very long name that nobody should give " * 3
    for number in range(12):
        run_id = f"{number:x}" * 32
        write_run(path, run_id, name=long, seed=2**32 - 1, ended="interrupted")
    write_run(path, "f" * 32, notes=(long * 3,), name="new\nline\x1b[31m")
    for arguments in (["show", path], ["show", f"{path}@f"]):
        _, out, _ = command(*arguments)
        assert max(map(len, out.splitlines())) <= 80
        assert "\x1b" not in out


def test_show_one_run(runs, command):
    """A chosen run shows what it is, its epochs and its environment."""
    _, out, _ = command("show", f"{runs}@2")
    for part in ("12345678", "other", "finished", "versions.keras", "0.5"):
        assert part in out
    _, out, _ = command("show", f"{runs}@2", "--json")
    assert [one["epoch"] for one in json.loads(out)["run"]["history"]] == [0, 1]


def test_show_nan(tmp_path, command):
    """A loss that is no number is shown, and is strict JSON."""
    path = write_run(tmp_path / "runs.jsonl", "1a" * 16)
    text = path.read_text().replace('"loss":0.5', '"loss":"nan"')
    path.write_text(text)
    _, out, _ = command("show", path, "--json")

    def refuse(name):
        raise AssertionError(name)

    found = json.loads(out, parse_constant=refuse)
    assert found["runs"][0]["loss"] == "nan"
    assert " nan " in command("show", path)[1]


def test_escape_and_cut():
    """What a terminal would obey is escaped; what is too long is cut."""
    assert escape("a\tb\x1b") == "a\\tb\\x1b"
    rows = [{"name": "x" * 100, "b": "y"}]
    assert all(len(one) <= 80 for one in format_table(rows, {"name": 3}))


# --- env -----------------------------------------------------------------


def test_env(command, monkeypatch):
    """What is missing is named with its line; set, it is missing no more."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    code, out, _ = command("env")
    assert code == 1
    assert "    export PYTHONHASHSEED=0\n" in out
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert command("env")[0] == 0
    code, out, _ = command("env", "--json")
    found = json.loads(out)
    assert (code, found["complete"]) == (0, True)
    assert found["switches"][0]["name"] == "PYTHONHASHSEED"


# --- start-up ------------------------------------------------------------


@pytest.mark.alike
@pytest.mark.requires_backend
@pytest.mark.parametrize(
    "arguments", ["compare runs.jsonl", "env", "show runs.jsonl"]
)
def test_loads_no_backend(runs, arguments):
    """Only `run` loads Keras, only pages load jinja2; the check can fail."""
    code = (
        "import sys; from keras_repro.cli.main import main; main(sys.argv[1:]);"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'jinja2',"
        " 'matplotlib', 'json') if m in sys.modules])"
    )
    result = run_command(sys.executable, "-c", code, *arguments.split())
    assert result.stdout.splitlines()[-1] == "['json']"


# --- the page ------------------------------------------------------------


def real_help(line):
    """The help text of a command, as a terminal of 80 columns shows it."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert cli.main(shlex.split(line)[1:]) == 0
    return shown.getvalue()


def test_page_holds_the_help(monkeypatch):
    """docs/cli.md shows the help of every command as it is."""
    monkeypatch.setenv("COLUMNS", "80")
    found = dict(HELP.findall(PAGE.read_text(encoding="utf-8")))
    expected = ["keras-repro --help"]
    expected += [f"keras-repro {name} --help" for name in COMMANDS]
    assert list(found) == expected
    assert found == {line: real_help(line) for line in expected}


def test_examples_of_the_page(runs, command, monkeypatch):
    """Each example of `compare`, `show` and `env` does what it shows."""
    for name in ("monday", "friday"):
        write_run(Path(f"{name}.jsonl"), "7f" * 16)
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^ +(keras-repro .*)$", text, re.M)
    lines = sorted({line for line in found if "[options]" not in line})
    assert len(lines) > 8
    for line in lines:
        arguments = shlex.split(line.partition("  ")[0])[1:]
        if arguments[0] in ("run", "verify", "trials", "install-kernel"):
            with monkeypatch.context() as patched:
                patched.setattr(click.Context, "invoke", lambda *_, **__: 0)
                assert command(*arguments)[0] == 0, line
        else:
            assert command(*arguments)[0] in (0, 1), line


def refresh():
    """Write the help texts into the page."""
    os.environ["COLUMNS"] = "80"
    text = PAGE.read_text(encoding="utf-8")
    text = HELP.sub(lambda m: f"{m[1]}\n{real_help(m[1])}", text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    refresh()
