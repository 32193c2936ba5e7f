"""The examples run, and print what the documentation says they print."""

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest

from keras_repro.studies.files import load_trials
from tests import notebooks
from tests.checkout import ROOT, run_command

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

REAL_DATA = ROOT.parent / "shared" / "data" / "cmapss"


def load_example(name):
    """Import a file of examples/ without running it as a script."""
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


turbofan_data = load_example("turbofan_data")


@pytest.fixture(scope="module")
def simulated():
    return turbofan_data.simulate_fleet(num_engines=10)


@pytest.fixture
def real():
    if not REAL_DATA.is_dir():
        pytest.skip("NASA's files are not here")
    return turbofan_data.read_fleet(REAL_DATA)


def write_fleet(fleet, directory):
    """Write a fleet as NASA does."""
    for name in ("train", "test"):
        getattr(fleet, name).to_csv(
            directory / f"{name}_FD001.txt", sep=" ", header=False, index=False
        )
    np.savetxt(directory / "RUL_FD001.txt", fleet.rul)


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_turbofan_repeats_its_runs(run_python, simulated, tmp_path):
    """Both trainings with alpha 0.4 are one, and 1.0 is no smoothing."""
    write_fleet(simulated, tmp_path)
    log, plot = tmp_path / "runs.jsonl", tmp_path / "rmse.png"
    command = [ROOT / "examples" / "turbofan.py", "--data", tmp_path]
    command += ["--epochs", 1, "--rows", 300, "--log", log, "--plot", plot]
    output = run_python(*command).stdout
    assert "files of your own" in output
    assert "alpha=0.4 and alpha=0.4 again: bitwise equal" in output
    assert "which changes nothing: bitwise equal" in output
    assert "DIFFERENT" not in output
    rows = [line.split() for line in output.splitlines()[2:7]]
    alphas = [row[0] for row in rows]
    assert alphas == ["none", "1.0", "0.4", "0.2", "0.4"]
    checksums = [row[-1] for row in rows]
    assert checksums[0] == checksums[1] != checksums[2] == checksums[4]
    assert len(set(checksums)) == 3
    assert plot.stat().st_size > 1000
    # Another day, the same file: no alarm, and the same output.
    again = run_python(*command)
    lines = again.stdout.splitlines()[2:7]
    assert [line.split()[-1] for line in lines] == checksums
    assert "DriftWarning" not in again.stderr


@pytest.fixture
def study_command(simulated, tmp_path):
    """A small study on a simulated fleet, kept in a folder."""
    write_fleet(simulated, tmp_path)
    script = ROOT / "examples" / "turbofan_study.py"
    command = [script, "--data", tmp_path, "--path", tmp_path / "study"]
    return [*command, "--epochs", 1, "--rows", 300, "--seeds", 4]


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_study_says_what_may_be_concluded(
    run_python, study_command, tmp_path
):
    """1.0 equals none and 0.4 does not; both weights and order move scores."""
    plot = tmp_path / "study.png"
    output = run_python(*study_command, "--spread", "--plot", plot).stdout
    assert "alpha 1.0 and none. Equal: all 4 pairs have the same" in output
    for metric in ("test", "train"):
        assert f"of 2 differences to none settled ({metric})." in output
    assert output.count("would have had the wrong sign.") == 4
    assert "alpha 0.4, had it been one run: Seed 0 is" in output
    assert plot.stat().st_size > 1000
    names = ("none", "1.0", "0.4", "none-initial", "none-order", "none-random")
    studies = {name: load_trials(tmp_path / "study" / name) for name in names}
    assert all(one.seeds == (0, 1, 2, 3) for one in studies.values())
    none, identity, smoothed, *moved = studies.values()
    assert none.checksums == identity.checksums
    assert not {*none.checksums} & {*smoothed.checksums}
    assert [len({*one.checksums}) for one in moved] == [4, 4, 1]


@pytest.mark.requires_backend("jax")
def test_the_study_goes_on_in_a_worker(run_python, study_command, tmp_path):
    """What is missing is run, the same in a worker; a changed one is not."""
    run_python(*study_command[:-1], 2)
    folder = tmp_path / "study"
    none = load_trials(folder / "none")
    others = [folder / name / "trials.jsonl" for name in ("1.0", "0.4", "0.2")]
    before = [one.read_bytes() for one in others]
    shutil.rmtree(folder / "none")
    run_python(*study_command[:-1], 2, "--workers", 1)
    again = load_trials(folder / "none")
    assert none.workers != again.workers
    assert none.checksums == again.checksums
    assert before == [one.read_bytes() for one in others]
    result = run_command(sys.executable, *study_command, "--rows", 299, code=1)
    assert "`path` must hold trials of this very study" in result.stderr


@pytest.mark.slow
@pytest.mark.requires_backend
def test_sequence_repeats_by_reset(run_python, tmp_path):
    """Plain Keras scatters; `reset()` gives one value; seeds come again."""
    plot = tmp_path / "sequence.png"
    command = [ROOT / "examples" / "sequence.py", "--plot", plot]
    command += ["--epochs", 2, "--repeats", 3, "--seeds", 4]
    output = run_python(*command).stdout
    assert "all equal: True" in output
    assert "seed 1 once more, the same: True" in output
    counts = [line for line in output.splitlines() if "different," in line]
    assert [line.split()[0] for line in counts] == ["3", "1", "4"]
    assert plot.stat().st_size > 1000


def read_outputs(cell):
    """What a cell shows: its text, and whether there is a page."""
    outputs = [one for one in cell.outputs if not notebooks.is_noise(one)]
    text = "".join(one.get("text", "") for one in outputs)
    pages = [one.data["text/html"] for one in outputs if "data" in one]
    return text, "".join(pages)


def check_outputs(notebook):
    """Each cell shows what the text around it claims."""
    code = [notebook.cells[one] for one in notebooks.list_code(notebook)]
    shown = [*map(read_outputs, code)]
    (first, second, verdict), (twin,), (same,) = (
        shown[place][0].splitlines() for place in (2, 3, 4)
    )
    assert first == second
    assert (verdict, twin) == ("bitwise equal", "different")
    assert same == "the same once more: bitwise equal"
    pages = [page for _, page in shown if page]
    told = ("Different from epoch 1, batch ", "10 trials", "is lower by")
    told = (*told, "numpy.random.default_rng was used once")
    for page, expected in zip(pages, told, strict=True):
        assert page.startswith('<div class="keras-repro fragment"')
        assert expected in page
    assert shown[-1][0].startswith("Reproducible: equal on every rung")


def test_the_stored_notebook_shows_what_it_claims():
    """What is stored is whole, and holds no path of the machine."""
    pytest.importorskip("nbclient")
    check_outputs(notebooks.read_notebook())
    text = notebooks.PATH.read_text("utf-8")
    for one in ("/tmp", "/root", "/home", "site-packages", "Warning"):
        assert one not in text


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_notebook_runs(tmp_path):
    """No cell fails, all show the same; and so when they run again."""
    pytest.importorskip("nbclient")
    notebook = notebooks.read_notebook()
    places = notebooks.list_code(notebook)
    with notebooks.running(notebook, tmp_path) as run:
        for place in places:
            run(place)
        check_outputs(notebook)
        before = read_outputs(notebook.cells[places[2]])
        # Again after all others, which have trained and drawn.
        assert read_outputs(run(places[2])) == before
        assert read_outputs(run(places[3]))[0] == "different\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.requires_backend
def test_a_preempted_training_ends_as_if_it_were_not(run_python):
    """The example kills itself twice, and says what the README shows."""
    output = run_python(ROOT / "examples" / "preempted.py").stdout
    lines = output.splitlines()
    assert lines[-1] == "bitwise equal"
    assert lines[1:3] == lines[5:7]
    assert lines[4].startswith("  went on at epoch ")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert lines[3] in readme


@pytest.mark.slow
@pytest.mark.requires_backend
def test_the_readme_shows_what_happens(run_python, tmp_path):
    """Its example runs: two equal checksums, and a drift that says why."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 15
    shown = readme.partition(code)[2].partition("```text\n")[2]
    shown = shown.partition("```")[0].splitlines()
    script = tmp_path / "readme.py"
    script.write_text(code, encoding="utf-8")
    result = run_python(script)
    first, second, third = result.stdout.splitlines()
    assert first == second != third
    for line in (shown[3], shown[4], shown[5], shown[7]):
        assert line in result.stderr


def test_the_simulated_fleet_is_always_the_same(simulated):
    """One seed, one fleet; another seed, another fleet."""
    again = turbofan_data.simulate_fleet(num_engines=10)
    pd.testing.assert_frame_equal(
        simulated.train, again.train, check_exact=True
    )
    pd.testing.assert_frame_equal(simulated.test, again.test, check_exact=True)
    assert simulated.rul.tolist() == again.rul.tolist()
    other = turbofan_data.simulate_fleet(num_engines=10, seed=1)
    assert other.train.shape != simulated.train.shape or not np.array_equal(
        other.train, simulated.train
    )


def test_the_real_fleet_splits_by_engine(real):
    """NASA's files give the row counts of the published study."""
    data = turbofan_data.make_arrays(real)
    assert real.origin == "NASA C-MAPSS FD001"
    assert data.x_train.shape == (16_561, 21)
    assert data.x_val.shape == (4_070, 21)
    assert data.x_test.shape == (100, 21)
    assert (data.y_train.max(), data.y_train.min()) == (125, 0)
    assert data.y_test.tolist() == real.rul.tolist()


@pytest.mark.parametrize("alpha", [None, 1.0, 0.4])
def test_arrays_are_finite_and_scaled(simulated, alpha):
    """Smoothing loses no row to a wrong index; training spans 0 to 1."""
    data = turbofan_data.make_arrays(simulated, alpha)
    assert all(np.isfinite(array).all() for array in data)
    assert data.x_train.min() == 0
    assert data.x_train.max() == pytest.approx(1)
    assert len(data.x_test) == len(data.y_test) == 10


def test_alpha_one_is_no_smoothing(simulated):
    """The control for the study: equal at 1.0, bit for bit, not at 0.4."""
    plain = turbofan_data.make_arrays(simulated, None).x_train
    one = turbofan_data.make_arrays(simulated, 1.0).x_train
    some = turbofan_data.make_arrays(simulated, 0.4).x_train
    assert plain.tobytes() == one.tobytes()
    assert plain.tobytes() != some.tobytes()


def test_smoothing_stays_within_an_engine():
    """The first flight of an engine knows nothing of the engine before."""
    fleet = turbofan_data.simulate_fleet(num_engines=3)
    smoothed = turbofan_data.smooth(fleet.train, 0.2)
    first = ~fleet.train.duplicated("unit")
    expected = fleet.train.loc[first, turbofan_data.SENSORS]
    pd.testing.assert_frame_equal(smoothed[first], expected)


def test_a_directory_without_the_files_is_refused(tmp_path):
    """The error names what is missing and what to do."""
    with pytest.raises(SystemExit, match=r"train_FD001.txt.*Leave out --data"):
        turbofan_data.read_fleet(tmp_path)


def make_archive(files):
    """Zip the files, then zip the archive, as NASA does."""
    import io
    import zipfile

    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("6. Turbofan/CMAPSSData.zip", inner.getvalue())
    return outer.getvalue()


def test_a_download_is_checked_and_kept(real, monkeypatch, tmp_path):
    """NASA's archive within an archive gives the files, ends of line aside."""
    files = {
        name: (REAL_DATA / name).read_bytes().replace(b"\n", b"\r\n")
        for name in turbofan_data.SHA256
    }
    archive = make_archive(files)
    monkeypatch.setattr(turbofan_data, "fetch", lambda url: archive)
    monkeypatch.setattr(turbofan_data, "CACHE", tmp_path / "cache")
    fleet = turbofan_data.get_fleet()
    assert fleet.origin == real.origin
    monkeypatch.delattr(turbofan_data, "fetch")
    assert turbofan_data.get_fleet().origin == real.origin


def test_a_wrong_download_is_refused(monkeypatch, tmp_path):
    """Other bytes than NASA's are not trained on, and not kept."""
    archive = make_archive(dict.fromkeys(turbofan_data.SHA256, b"1 1 0\n"))
    monkeypatch.setattr(turbofan_data, "fetch", lambda url: archive)
    monkeypatch.setattr(turbofan_data, "CACHE", tmp_path / "cache")
    with pytest.raises(SystemExit, match="must have sha256"):
        turbofan_data.get_fleet()
    assert not (tmp_path / "cache").exists()


def test_a_download_shows_its_progress(capsys, tmp_path):
    """The bar goes to stderr and ends full."""
    (tmp_path / "file").write_bytes(bytes(600_000))
    content = turbofan_data.fetch((tmp_path / "file").as_uri())
    assert content == bytes(600_000)
    assert f"[{'#' * 40}] 100% 0.6 MB" in capsys.readouterr().err


def test_offline_a_simulated_fleet_says_so(capsys, monkeypatch, tmp_path):
    """Nobody takes the simulated figures for NASA's."""
    monkeypatch.setattr(turbofan_data, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(turbofan_data, "URL", "file:///nowhere/archive.zip")
    assert "simulated" in turbofan_data.get_fleet().origin
    assert "could not be downloaded" in capsys.readouterr().out


@pytest.mark.requires_backend("jax")
def test_mystery_is_explained(tmp_path):
    """Both causes of the seeded script are named, at their lines."""
    script = ROOT / "examples" / "mystery.py"
    answer = tmp_path / "verdict.json"
    run_command(
        *(sys.executable, "-m", "keras_repro", "verify"),
        *("--json", answer, script, "--epochs", 1),
        cwd=ROOT,
        code=1,
        without={"PYTHONHASHSEED"},
    )
    lines = script.read_text().splitlines()
    places = [
        f"examples/mystery.py:{number}"
        for number, line in enumerate(lines, 1)
        if "default_rng()" in line or "for name in sensors" in line
    ]
    causes = json.loads(answer.read_text())["causes"]
    assert [(one["kind"], one["location"]) for one in causes] == [
        ("entropy", places[0]),
        ("hash_order", places[1]),
    ]
