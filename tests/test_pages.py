"""The pages of the documentation are on the site, and their code runs."""

import re
import sys

import pytest

import keras_repro as kr
from tests.checkout import ROOT, run_command

DOCS = ROOT / "docs"
IN_IPYTHON = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in sys.argv[1:]:
    shell.run_cell(cell).raise_error()
"""


def read_blocks(name, language="python"):
    """The blocks of code of a page."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def run_page(run_python, tmp_path):
    """Run all Python of a page as one script, with one text replaced."""

    def run(name, replaced="", by=""):
        text = "\n\n".join(read_blocks(name))
        assert not replaced or text.count(replaced) == 1
        script = tmp_path / "page.py"
        script.write_text(text.replace(replaced, by), encoding="utf-8")
        return run_python(script, cwd=tmp_path)

    return run


# --- the site ----------------------------------------------------------------


def test_each_page_has_its_place():
    """The site's menu names each page of docs/ once, and no other file."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"^ +- .+: (\S+\.md)$", menu, re.MULTILINE)
    pages = {one.relative_to(DOCS).as_posix() for one in DOCS.rglob("*.md")}
    assert sorted(named) == sorted({*pages, "CONTRIBUTING.md", "CHANGELOG.md"})


def test_the_reference_holds_each_public_name():
    """Every public name is there, from where the package has it."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: keras_repro\.(\S+)\.(\w+)$", text, re.MULTILINE)
    homes = {name: home for home, name in named}
    assert len(homes) == len(named)
    assert {*kr.__all__} <= {*homes, "__version__"}
    public = {name: homes[name] for name in homes if name in kr.__all__}
    assert public == {name: kr._HOMES[name] for name in public}


# --- the code ----------------------------------------------------------------


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_start_page_runs(run_page):
    """The second training equals the first; without the reset it does not."""
    assert run_page("index").stdout == "True\n"
    assert run_page("index", "model.reset()\n").stdout == "False\n"


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_tutorial_runs(run_page):
    """Three trainings are equal; the one with other data is reported."""
    result = run_page("tutorial")
    first, second, third, verdict = result.stdout.splitlines()[:4]
    assert first == second == third
    assert verdict.startswith(("32 is", "Not settled", "Equal"))
    assert "DriftWarning: This run (seed 42) should equal" in result.stderr
    result = run_page("tutorial", "(1, 1.0001)", "(1, 1)")
    assert "DriftWarning" not in result.stderr


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_folds_are_scored(run_page):
    """The page shows what its code prints, other digits aside."""
    pytest.importorskip("sklearn")
    (shown,) = read_blocks("how-to/cross-validation", "text")
    lines = [re.sub(r"\d", "0", one) for one in shown.splitlines()]
    output = run_page("how-to/cross-validation").stdout
    assert [re.sub(r"\d", "0", one) for one in output.splitlines()] == lines


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_rates_are_tuned(run_page):
    """Two of the rates that were tried are compared."""
    chosen, verdict = run_page("how-to/tuning").stdout.splitlines()
    best, second = chosen.split()
    assert best != second
    assert {best, second} < {"0.003", "0.01", "0.03", "0.1"}
    assert f"{best} is" in verdict or "Equal" in verdict


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_notebook_warns(run_python):
    """A checked cell that is run again warns; with a reset it does not."""
    pytest.importorskip("IPython")
    *before, cell = read_blocks("how-to/notebook")
    warning, same = read_blocks("how-to/notebook", "text")
    result = run_python("-c", IN_IPYTHON, *before, cell, cell)
    assert warning.strip() in result.stderr + result.stdout
    assert same not in result.stdout
    reset = cell.replace("model.fit", "model.reset()\nmodel.fit")
    result = run_python("-c", IN_IPYTHON, *before, reset, reset)
    assert "RerunWarning" not in result.stderr + result.stdout
    assert same in result.stdout


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_check_in_ci_can_fail(tmp_path):
    """The page's test passes; without the seed of the model it fails."""
    train, test = read_blocks("how-to/ci")
    (tmp_path / "test_train.py").write_text(test, encoding="utf-8")
    seed = "    keras.utils.set_random_seed(1)\n"
    assert train.count(seed) == 1
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    for text, code in [(train, 0), (train.replace(seed, ""), 1)]:
        (tmp_path / "train.py").write_text(text, encoding="utf-8")
        result = run_command(*command, "test_train.py", cwd=tmp_path, code=code)
        assert ("Not reproducible" in result.stdout) == bool(code)
