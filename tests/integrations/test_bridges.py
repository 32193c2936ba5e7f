"""The bridges to other tools run, and what they claim is equal, is equal.

Each script runs twice in one process: as it is, and with one cause freed,
after which its claim must fail. The page on clusters runs too, where its
engines need one machine alone.
"""

import importlib.util
import re

import pytest

from tests.checkout import ROOT

BRIDGES = ROOT / "examples" / "bridges"
RUN_EACH = """
import runpy
import sys
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
    print("--- next")
"""
UNSEEDED = "np.random.default_rng().integers(2**32, size=5).tolist()"

pytestmark = [pytest.mark.requires_backend, pytest.mark.slow]


@pytest.fixture
def run_bridge(run_python, tmp_path):
    """Run a bridge, then a copy of it with one text replaced."""

    def run(name, tool, replaced, by):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
        script = BRIDGES / f"{name}.py"
        text = script.read_text(encoding="utf-8")
        assert text.count(replaced) == 1
        twin = tmp_path / f"{name}_twin.py"
        twin.write_text(text.replace(replaced, by), encoding="utf-8")
        output = run_python("-c", RUN_EACH, script, twin).stdout
        first, second, rest = output.split("--- next\n")
        assert rest == ""
        return first.splitlines(), second.splitlines()

    return run


def read_scores(line):
    """The numbers at the end of a line of the table of folds."""
    return [float(word) for word in line[21:].split()]


@pytest.mark.alike
def test_sklearn_folds_start_alike(run_bridge):
    """A fold is the same alone and in the loop; without resets it is not."""
    lines, twin = run_bridge(
        "sklearn_folds", "sklearn", "Network(model, seed=0)", "Network(model)"
    )
    assert lines[-1].endswith("bitwise equal: True")
    assert twin[-1].endswith("bitwise equal: False")
    plain, reset = map(read_scores, lines[1:3])
    assert plain[0] == reset[0]
    assert max(reset) < 0 < min(plain[1:])


@pytest.mark.alike
@pytest.mark.parametrize(
    ("name", "tool"),
    [("keras_tuner_study", "keras_tuner"), ("optuna_objective", "optuna")],
)
def test_a_search_gives_the_same_twice(run_bridge, name, tool):
    """Two searches are identical; with seeds drawn anew they differ."""
    lines, twin = run_bridge(name, tool, "seeds=5", f"seeds={UNSEEDED}")
    assert lines[-1] == "second search identical: True"
    assert twin[-1] == "second search identical: False"
    assert all("std over 5 seeds " in line for line in lines[:-1])


@pytest.mark.alike
def test_mlflow_gives_back_what_was_logged(run_bridge):
    """A logged trial comes again; another seed is another trial."""
    lines, twin = run_bridge(
        "mlflow_logging", "mlflow", "model.trial(seed=7)", "model.trial(seed=8)"
    )
    assert lines[1:] == [
        "scores read back, to the last bit: True",
        "trial 7 again, as logged: True",
    ]
    assert twin[1:] == [
        "scores read back, to the last bit: True",
        "trial 7 again, as logged: False",
    ]


@pytest.mark.parametrize(
    "path", sorted(BRIDGES.glob("*.py")), ids=lambda p: p.stem
)
def test_each_bridge_is_documented_and_short(path):
    """The page on bridges links each script, and none exceeds 70 lines."""
    page = (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")
    assert f"(../examples/bridges/{path.name})" in page
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 70


def read_sections():
    """The code of the page on clusters, by the title above it."""
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    return {
        section.partition("\n")[0]: "\n\n".join(
            re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        )
        for section in page.split("\n## ")
    }


SECTIONS = read_sections()


@pytest.mark.alike
@pytest.mark.parametrize(
    ("title", "tool", "count"),
    [
        ("Dask", "distributed", "n_workers=4"),
        ("A pool of your own", "concurrent.futures", "PoolExecutor(4"),
    ],
)
def test_the_page_on_clusters_runs(run_python, tmp_path, title, tool, count):
    """Its studies run on two workers, and no trial fails or differs."""
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    text = SECTIONS["The study"] + "\n\n" + SECTIONS[title]
    assert text.count(count) == text.count("seeds=100") == 1
    text = text.replace(count, count.replace("4", "2"))
    script = tmp_path / "study.py"
    script.write_text(text.replace("seeds=100", "seeds=4"), encoding="utf-8")
    lines = run_python(script).stdout.split("\n")
    assert lines[0].startswith("4 trials, seeds 0 to 3")
    words = [line.split()[0] for line in lines[1:] if line]
    assert words == ["mean", "mse"]
    assert len([*(tmp_path / "study").iterdir()]) > 0


@pytest.mark.parametrize("title", ["Ray", "MPI", "Slurm"])
def test_the_page_on_clusters_is_python(title):
    """What cannot run here can be compiled at least."""
    compile(SECTIONS[title], title, "exec")
