"""Environments are compared wherever they were recorded."""

import json

import pytest

import keras_repro as kr
from keras_repro.cli import env
from keras_repro.environment.capture import capture_environment
from tests.builders import make_record, make_run, save_run

HERE = {**capture_environment(), "backend": "jax", "blas": {"numpy": "blas 1"}}
OTHER = {"backend": "another", "os_release": "another"}


@pytest.fixture
def kinds(tmp_path):
    """One environment, in each way in which it may be given."""

    def make(**changes):
        environment = {**HERE, **changes}
        run = make_run(make_record(), environment=environment)
        number = len(list(tmp_path.iterdir()))
        written = {**env.to_json(env.check()), "environment": environment}
        file = tmp_path / f"env_{number}.json"
        file.write_text(json.dumps(written, indent=2), "utf-8")
        plain = tmp_path / f"plain_{number}.json"
        plain.write_text(json.dumps(environment), "utf-8")
        return {
            "mapping": environment,
            "run": run,
            "file of runs": save_run(run, tmp_path / f"runs_{number}.jsonl"),
            "output of env": file,
            "path as text": str(plain),
        }

    return make


def test_each_kind_is_compared_with_each(kinds):
    """A mapping, a run and each file say the same, both ways."""
    here, there = kinds(), kinds(**OTHER)
    for one in here.values():
        for other in there.values():
            found = kr.compare_environments(one, other)
            keys = [(one.weight, one.key) for one in found.differences]
            assert keys == [(3, "backend"), (0, "os_release")]
            assert found.differences[0].b == "another"
            back = kr.compare_environments(other, one)
            assert back.differences[0].a == "another"
        # The twin.
        assert kr.compare_environments(one, here["mapping"]).equal
        assert not kr.compare_environments(one, there["mapping"]).equal


def test_the_last_run_of_a_file_is_meant(tmp_path):
    """The environment is that of the run that started last."""
    environments = [{**HERE, "os": name} for name in "ab"]
    for name, one in zip("ab", environments, strict=True):
        run = make_run(make_record(name), run_id=name, environment=one)
        path = save_run(run, tmp_path / "runs.jsonl")
    (found,) = kr.compare_environments(environments[0], path).differences
    assert (found.key, found.a, found.b) == ("os", "a", "b")


def test_what_it_says(kinds):
    """What may matter has its sentence; names move no cursor."""
    hostile = {**OTHER, "blas": {"numpy": "a\x1b[2J<i>"}}
    found = kr.compare_environments(kinds()["mapping"], kinds(**hostile)["run"])
    text = str(found)
    assert text.startswith("3 differences, of which 1 likely matters.")
    assert "in a, another in b (almost surely matters)" in text
    assert "set KERAS_BACKEND to the same value." in " ".join(text.split())
    assert "hardly ever matters: os_release" in text
    page = found._repr_html_()
    assert "set KERAS_BACKEND to the same value." in page
    assert "Hardly ever matters: 1 difference" in page
    for one in (text, page):
        assert "\x1b" not in one
    assert "<i>" not in page
    assert "&lt;i&gt;" in page
    written = found.to_json()
    assert (written["equal"], len(written["differences"])) == (False, 3)
    json.dumps(written, allow_nan=False)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2]", "run's file"),
        ("no JSON", "run's file"),
        ("[" * 100_000, "run's file"),
        ('{"a": 1}', "has no `versions`"),
        ('{"environment": {"a": 1}}', "has no `versions`"),
        (" " * (1 << 20) + '{"versions": {}}', "run's file"),
    ],
)
def test_a_file_that_holds_none(tmp_path, content, told):
    """A file of something else is refused, with what it should be."""
    path = tmp_path / "file.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=told) as caught:
        kr.compare_environments(HERE, path)
    said = "\n".join(
        [str(caught.value), *getattr(caught.value, "__notes__", [])]
    )
    assert "`b` must be an environment" in said
    assert "Received" in said


@pytest.mark.parametrize("value", [None, 3, ["a"], b"runs.jsonl"])
def test_what_is_no_environment(value):
    """Another type is refused by the name of the argument."""
    with pytest.raises(
        TypeError, match=r"`a` must be an environment.*Received"
    ):
        kr.compare_environments(value, HERE)


def test_a_file_that_is_not_there(tmp_path):
    """A missing file is told as that, and so is a mapping of other things."""
    with pytest.raises(FileNotFoundError, match="must exist"):
        kr.compare_environments(tmp_path / "no.json", {})
    with pytest.raises(ValueError, match="`b` must be an environment"):
        kr.compare_environments(HERE, {"backend": "jax"})


def test_where_else_it_is_shown(kinds, tmp_path):
    """A page and a file hold the same; equal ones list nothing."""
    found = kr.compare_environments(kinds()["run"], kinds(**OTHER)["run"])
    found.to_html(tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text("utf-8")
    assert "<h1>2 differences, of which 1 likely matters.</h1>" in page
    assert "backend: jax in a, another in b" in page
    found.to_json(tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert written == json.loads(json.dumps(found.to_json()))
    same = kr.compare_environments(HERE, HERE)
    assert str(same) == same.headline
    assert "<section>" not in same._repr_html_()
