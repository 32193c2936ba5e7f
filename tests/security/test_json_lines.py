"""Files of JSON lines are not trusted, and what is written can be read."""

import gc
import json
import shutil
import struct
import sys
import time
import tracemalloc
import warnings
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keras_repro.common import files as common_files
from keras_repro.common import lines
from keras_repro.environment.switches import find_backend
from keras_repro.runs.file import RunWriter, load_runs
from keras_repro.runs.lines import decode_entry, encode_entry
from keras_repro.studies import files
from keras_repro.studies.files import StudyFolder, load_trials, read_study
from keras_repro.studies.outcomes import TrialLine
from tests.builders import make_header, make_record, save_run
from tests.builders import make_run as build_run
from tests.checkout import DATA, run_command
from tests.strategies import json_leaves, json_values

pytestmark = pytest.mark.no_backend

BEFORE = DATA / "before"
STUDIES = [BEFORE / "plain", BEFORE / "odd"]
NAMES = ("study.json", "trials.jsonl", "runs.jsonl")
# docs/security.md states these; the first two are of tests/runs/test_fuzz.py.
FACTOR, CONSTANT, SECONDS = 100, 200_000, 60


def make_trial(seed=0, **changes):
    """The line of a trial that went well and recorded nothing."""
    made = {
        "scores": {"loss": 0.5},
        "checksum": "kr1:0",
        "seconds": 0.1,
        "worker": "here:1",
        "runs": (),
        "status": "",
        "error": "",
        "traceback": "",
    }
    return TrialLine(seed=seed, **{**made, **changes})


@pytest.fixture
def study(tmp_path):
    """A folder with a study of an earlier version, four trials in it."""
    return shutil.copytree(BEFORE / "plain", tmp_path / "study")


@pytest.fixture
def take_up(study):
    """Takes up the study as a process does that goes on with it."""
    taken = []

    def take():
        before = read_study(study)
        folder = StudyFolder(study, before.identity, before.environment)
        taken.append(folder)
        return folder

    yield take
    for one in taken:
        one.close()


def write_lines(study, *changed):
    """Replace lines of the trials, by number from 1; returns how many."""
    file = study / "trials.jsonl"
    found = file.read_text().splitlines()
    for number, text in changed:
        found[number - 1] = text
    file.write_text("".join(f"{one}\n" for one in found))
    return len(found)


def find_trials(study):
    """Number and content of each line of a trial."""
    text = (study / "trials.jsonl").read_text().splitlines()
    found = [(number, json.loads(line)) for number, line in enumerate(text, 1)]
    return [one for one in found if one[1]["type"] == "trial"]


# --- what is written ---------------------------------------------------------


def make_open_run():
    """A run that goes on."""
    return build_run(make_record(), status=None)


UNREADABLE = {
    "every": make_header("r2", every=2**63),
    "every 0": make_header("r2", every=0),
    "no name": make_header("r2", name=7),
    "seed": make_header("r2", seed=1.5),
    "deep": make_header(
        "r2",
        compile=json.loads('{"a":' * 150 + "1" + "}" * 150),
    ),
    "index": make_record(index=-1),
    "large": make_record(index=2**63),
    "nan": make_record(epoch=float("nan")),
    "true": make_record(epoch=True),
    "place": make_record(layers={"layers.0": None}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_a_reader_refuses_is_not_written(tmp_path, name):
    """The error names the field, and the shared file stays readable."""
    path = save_run(make_open_run(), tmp_path / "runs.jsonl")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"`\w+` of a line of type .*Received"):
        RunWriter(path).write(UNREADABLE[name])
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", UNREADABLE)
def test_without_the_schema_the_file_would_be_lost(tmp_path, name, monkeypatch):
    """The twin: written all the same, such a line makes it unreadable."""
    path = save_run(make_open_run(), tmp_path / "runs.jsonl")
    entry = UNREADABLE[name]
    if name == "nan":  # As `null` it would be read, and be another record.
        pytest.skip("JSON has no NaN")
    writer = RunWriter(path)
    with monkeypatch.context() as patch:
        patch.setattr(lines.LineFormat, "decode", lambda *_: entry)
        writer.write(entry)
    with pytest.raises(ValueError, match="in line 3"):
        load_runs(path)


def test_a_line_of_any_length_is_not_written(tmp_path, monkeypatch):
    """Nor read, beyond what shows that it is too long."""
    path = save_run(build_run(make_record()), tmp_path / "runs.jsonl")
    long = make_header("r2", name="x" * 20_000)
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    with pytest.raises(ValueError, match="longer than 1000 characters"):
        RunWriter(path).write(long)
    monkeypatch.undo()
    RunWriter(path).write(long)
    assert len(load_runs(path)) == 2
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    monkeypatch.setattr(common_files, "_MOST_BYTES", 4004)
    with pytest.raises(ValueError, match=r"longer than .* in line 4"):
        load_runs(path)
    with path.open("rb") as file:
        sizes = [len(raw) for _, raw in common_files.iterate_lines(file)]
    assert max(sizes) == 4004


numbers = st.floats() | st.integers(-(2**53), 2**53) | st.just(-0.0)


@given(st.dictionaries(st.text(max_size=9), numbers, max_size=5))
def test_scores_keep_their_bits(scores):
    """Through a study's file as through a run's, but for a NaN's payload."""
    line = files._format.encode(make_trial(scores=scores))
    read = files._format.decode(line).scores
    assert list(read) == list(scores)
    for one, value in zip(read.values(), scores.values(), strict=True):
        assert type(one) is float
        if value == value:
            assert struct.pack("<d", one) == struct.pack("<d", value)
        else:
            assert one != one


LONE = "caf\udce9"
SHOWN = "caf\\udce9"


def test_lone_surrogates_are_written_as_visible_text(take_up, study):
    """In whatever is named: no line is lost for a file name that is no text."""
    record = make_record(metrics={LONE: 1.0}, layers={LONE: "kr1:0"})
    read = decode_entry(encode_entry(record))
    assert (read.metrics, read.layers) == ({SHOWN: 1.0}, {SHOWN: "kr1:0"})
    assert record.metrics == read.metrics  # Also in memory: no drift.
    folder = take_up()
    folder.note(LONE)
    folder.keep(make_trial(9, scores={LONE: 1.0}, traceback=LONE), ())
    results = load_trials(study)
    assert results.notes[-1] == SHOWN
    assert SHOWN in results.scores


def test_earlier_studies_with_lone_surrogates_load(study):
    """They were written as escapes, which no terminal takes."""
    number, content = find_trials(study)[0]
    content["scores"][LONE] = 1.0
    write_lines(study, (number, json.dumps(content)))
    assert SHOWN in load_trials(study).scores


# --- lines of trials ---------------------------------------------------------


@pytest.mark.parametrize("damage", ["nonsense", "{}", "[1]", '{"type":"x"}'])
@pytest.mark.parametrize("position", [0, 1, -1])
def test_a_damaged_line_is_an_error_with_its_number(study, damage, position):
    """Also the last one: that is nothing which `run_trials` began to write."""
    number, _ = find_trials(study)[position]
    write_lines(study, (number, damage))
    with pytest.raises(ValueError, match=rf"trials.jsonl.* in line {number}\."):
        load_trials(study)


def test_a_file_damaged_all_over_is_no_study_without_trials(study):
    """It is an error, from its first line on."""
    file = study / "trials.jsonl"
    file.write_bytes(bytes(one ^ 1 for one in file.read_bytes()))
    with pytest.raises(ValueError, match=r"trials.jsonl.* in line 1\."):
        load_trials(study)


def test_only_the_last_line_may_be_torn(study):
    """Cut anywhere it is left out; the same cut before it is an error."""
    file = study / "trials.jsonl"
    whole = file.read_bytes()
    *first, last = whole.splitlines(keepends=True)
    odd = json.loads(last)
    odd["error"] = "\u00e9\U0001f600"
    last = json.dumps(odd, ensure_ascii=False).encode() + b"\n"
    number, content = find_trials(study)[0]
    for cut in range(1, len(last) - 1):
        file.write_bytes(b"".join(first) + last[:cut])
        assert load_trials(study).seeds == (0, 1, 2)
    file.write_bytes(whole)
    for cut in (1, 20, 60, 200):
        write_lines(study, (number, json.dumps(content)[:cut]))
        with pytest.raises(ValueError, match=rf"torn.* in line {number}\."):
            load_trials(study)


def test_a_torn_line_whose_trial_stands_again(study):
    """Earlier versions left it behind them when a study went on."""
    number, content = find_trials(study)[1]
    line = json.dumps(content)
    write_lines(study, (number, f"{line[:100]}\n{line}"))
    assert load_trials(study).seeds == (0, 1, 2, 3)


def test_a_torn_line_is_gone_once_a_study_goes_on(study, take_up):
    """The file is then one in which each line is whole."""
    file = study / "trials.jsonl"
    file.write_bytes(file.read_bytes()[:-100] + b"\0" * 9)
    take_up().keep(make_trial(9), ())
    assert load_trials(study).seeds == (0, 1, 2, 9)
    assert all(map(json.loads, file.read_text().splitlines()))


REFUSED = [
    *(f'"seed": {seed}' for seed in ("1.7", "1.0", "true", '"2"', '" 2_0 "')),
    *(f'"seed": {seed}' for seed in ("-1", "4294967296", "null", "1e2", "NaN")),
    '"seed": 2, "seed": 3',
    '"seed": 0',
    *(f'"seed": 7, "scores": {one}' for one in ('{"a": "1"}', "[]", "null")),
    *(f'"seed": 7, "scores": {{"a": {one}}}' for one in ("null", "1e999")),
    '"seed": 7, "scores": {"a": 1, "a": 2}',
    '"seed": 7, "status": "won"',
    '"seed": 7, "runs": [1]',
    '"seed": 7, "seconds": "long"',
    '"seed": 7, "more": ' + "[" * 10**5 + "]" * 10**5,
]


def make_text(start):
    """A line that begins with some fields, and has the others in order."""
    content = json.loads(files._format.encode(make_trial()))
    rest = {name: v for name, v in content.items() if f'"{name}"' not in start}
    return "{" + start + ", " + json.dumps(rest)[1:]


@pytest.mark.parametrize("start", REFUSED)
def test_what_is_no_trial_is_refused(study, start):
    """Seeds and scores are of their type; names and seeds stand once."""
    number = len((study / "trials.jsonl").read_text().splitlines()) + 1
    with (study / "trials.jsonl").open("a") as file:
        file.write(make_text(start) + "\n")
    with pytest.raises(ValueError, match=rf"Received.* in line {number}\."):
        load_trials(study)


@pytest.mark.parametrize(
    "start",
    [
        '"seed": 7',
        '"seed": 7, "scores": {"a": "nan", "b": 1}',
        '"x": [], "seed": 7',
    ],
)
def test_what_is_a_trial_is_read(study, start):
    """The twin: with a seed of its own, and numbers, it counts."""
    with (study / "trials.jsonl").open("a") as file:
        file.write(make_text(start) + "\n")
    assert load_trials(study).seeds == (0, 1, 2, 3, 7)


@pytest.mark.parametrize("name", ["seed", "scores", "runs", "status", "worker"])
def test_a_trial_with_a_field_missing_is_refused(study, name):
    """It is named: no trial counts as one that went well for want of it."""
    number, content = find_trials(study)[0]
    del content[name]
    write_lines(study, (number, json.dumps(content)))
    with pytest.raises(ValueError, match=rf"`{name}`.* in line {number}\."):
        load_trials(study)


def test_runs_that_are_missing_are_named(study):
    """A study without them does not look as if it had recorded none."""
    assert all(len(one) == 1 for one in load_trials(study).runs)
    (study / "runs.jsonl").unlink()
    with pytest.raises(ValueError, match=r"runs.jsonl run .* is missing"):
        _ = load_trials(study).runs


# --- what a study is ---------------------------------------------------------


def change(content, *path, value):
    """Put a value at a place; `None` takes it out."""
    *outer, last = path
    for name in outer:
        content = content[name]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "keras_repro.trials/9"),
        (("format",), None),
        (("identity",), None),
        (("identity",), []),
        (("identity", "train"), None),
        (("identity", "train"), {"code": 1}),
        (("identity", "train", "code"), {"train": 1}),
        (("identity", "train", "unread"), [1]),
        (("identity", "parts"), [1]),
        (("identity", "vary"), 1),
        (("environment",), None),
        (("environment", "x"), json.loads("[" * 150 + "]" * 150)),
        (("environment", "x"), 10**30),
    ],
)
def test_a_study_file_that_was_changed(study, path, value):
    """The file and the field are named, for whoever reads or goes on."""
    file = study / "study.json"
    content = json.loads(file.read_text())
    change(content, *path, value=value)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"study.json") as caught:
        load_trials(study)
    assert f"`{path[0]}`" in str(caught.value) or path[0] in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "mine", "[]", "[" * 10**5, '{"format": 1, "format": 2}', "\udce9"],
)
def test_a_study_file_that_is_none(study, text):
    """Whatever else it is."""
    (study / "study.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"study.json"):
        load_trials(study)


# --- files that change while a study runs ------------------------------------


def _remove(file):
    file.unlink()


def _cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def _replace(file):
    file.write_bytes(file.read_bytes()[::-1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("harm", [_remove, _cut, _replace])
def test_a_file_that_breaks_while_a_study_runs(study, take_up, name, harm):
    """The next trial is an error that names it; nothing is made anew."""
    folder = take_up()
    folder.keep(make_trial(8), ())
    harm(study / name)
    left = (study / name).exists() and (study / name).read_bytes()
    with pytest.raises(OSError, match=rf"Received: '.*{name}'"):
        folder.keep(make_trial(9), [encode_entry(make_header())])
    with pytest.raises(OSError, match=rf"Received: '.*{name}'"):
        folder.check([])
    assert ((study / name).exists() and (study / name).read_bytes()) == left


def test_files_that_stay_as_they_are(study, take_up):
    """The twin: then all trials are kept, in a new study as well."""
    folder = take_up()
    trials = [make_trial(seed) for seed in (8, 9)]
    for one in trials:
        folder.keep(one, ())
    folder.check(trials)
    assert load_trials(study).seeds == (0, 1, 2, 3, 8, 9)
    before = read_study(study)
    new = StudyFolder(study / "new", before.identity, before.environment)
    try:
        for one in trials:
            new.keep(one, [encode_entry(make_header(f"r{one.seed}"))])
        new.check(trials)
    finally:
        new.close()
    assert load_trials(study / "new").seeds == (8, 9)


def test_a_trial_that_the_file_lost_is_named(study, take_up):
    """Where the end of the file is as it was, and a line before it is not."""
    folder = take_up()
    trials = [make_trial(seed) for seed in (8, 9)]
    for one in trials:
        folder.keep(one, ())
    file = study / "trials.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"seed":8', '"seed":7'))
    with pytest.raises(OSError, match=r"trials.jsonl' without \[8\]"):
        folder.check(trials)


# --- any bytes ---------------------------------------------------------------

fuzz = settings(
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ]
)
leaves = json_leaves("nan", "trial", "keras_repro.trials/1", LONE, "all")
values = json_values(leaves, max_leaves=9) | st.just(
    json.loads("[" * 90 + "]" * 90)
)


def use(study):
    """All that reads a study: a result, or a `ValueError` that names a file."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = told = None
        try:
            results = load_trials(study)
            runs = results.runs
        except ValueError as error:
            told = str(error)
        if told is None:
            assert len(runs) == len(results.seeds)
            assert str(results)
        else:
            assert "Received: " in told
            assert len(told.encode()) < 2000
        try:
            before = read_study(BEFORE / "plain")
            StudyFolder(study, before.identity, before.environment).close()
        except ValueError:
            pass
    assert time.process_time() - start < SECONDS
    return runs


def put(study, source, name, data):
    """A copy of a study, one file of it with other bytes."""
    for one in NAMES:
        shutil.copy(source / one, study / one)
    (study / name).write_bytes(data)
    return use(study)


def walk(content, path=()):
    """The path of each place in nested values."""
    yield path
    if isinstance(content, dict):
        for name, value in content.items():
            yield from walk(value, (*path, name))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from walk(value, (*path, number))


def mutate(text, draw):
    """Valid JSON with one place of it changed, or one name there twice."""
    content = json.loads(text)
    paths = [one for one in walk(content) if one]
    *outer, last = draw(st.sampled_from(paths))
    inner = content
    for name in outer:
        inner = inner[name]
    kind = draw(st.sampled_from(["other", "gone", "wrapped", "moved", "twice"]))
    if kind == "other":
        inner[last] = draw(values)
    elif kind == "gone":
        del inner[last]
    elif kind == "wrapped":
        inner[last] = [inner[last]]
    elif kind == "moved":
        content["moved"] = inner[last]
    changed = json.dumps(content)
    if kind == "twice":
        name = json.dumps(next(iter(content)))
        return f"{{{name}: {json.dumps(draw(leaves))}, {changed[1:]}"
    return changed


def read_units(source, name):
    """What of a file is JSON: all of it, or each line."""
    text = (source / name).read_text()
    return [text] if name.endswith(".json") else text.splitlines()


@pytest.mark.parametrize("source", STUDIES, ids=lambda one: one.name)
def test_the_valid_studies_are_read(tmp_path, source):
    """The twin of all that follows: unharmed, these files are studies."""
    for name in NAMES:
        assert put(tmp_path, source, name, (source / name).read_bytes())


@fuzz
@given(st.sampled_from(NAMES), st.binary(max_size=500), st.booleans())
@example("trials.jsonl", b"\0" * 100, False)
@example("study.json", b"\xff\xfe{\x00", False)
def test_any_bytes_in_a_study(tmp_path, name, data, behind):
    """Alone, and behind what is valid."""
    source = STUDIES[0]
    before = (source / name).read_bytes() if behind else b""
    put(tmp_path, source, name, before + data)


@fuzz
@given(st.sampled_from(STUDIES), st.sampled_from(NAMES), st.data())
def test_any_place_of_a_study_changed(tmp_path, source, name, data):
    """Each file, structurally: values of any kind at any place of a line."""
    units = read_units(source, name)
    whole = len(units) - (source.name == "odd" and name == "trials.jsonl")
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, whole - 1))
        try:
            units[number] = mutate(units[number], data.draw)
        except json.JSONDecodeError:
            continue
    changed = "".join(f"{one}\n" for one in units)
    put(tmp_path, source, name, changed.encode())


@fuzz
@given(st.data())
def test_lines_of_a_study_in_any_order(tmp_path, data):
    """Left out, doubled, joined, cut."""
    source, name = STUDIES[0], data.draw(st.sampled_from(NAMES[1:]))
    units = (source / name).read_bytes().splitlines(keepends=True)
    chosen = data.draw(st.lists(st.sampled_from(units), max_size=8))
    text = b"".join(chosen)
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    put(tmp_path, source, name, text[:a] + text[b:])


@fuzz
@given(
    st.binary(max_size=200) | values.map(lambda one: json.dumps(one).encode())
)
@example(b"[" * 10**5)
@example(b'{"backend": "jax"}')
def test_any_bytes_as_the_settings_of_keras(tmp_path, data):
    """Its `keras.json` gives the name of a backend, whatever is in it."""
    (tmp_path / "keras.json").write_bytes(data)
    found = find_backend({"KERAS_HOME": str(tmp_path)})
    assert isinstance(found, str)
    assert (found == "jax") <= (b"jax" in data)


def test_without_the_schema_other_errors_come_out(study, monkeypatch):
    """The twin: a reader that checks no field fails in other ways."""
    number, content = find_trials(study)[0]
    write_lines(study, (number, json.dumps({**content, "scores": 7})))
    assert use(study) is None

    def take(content, schema, of_what=""):
        del of_what
        names = {one.name for one in fields(schema)} & {*content}
        return schema(**{name: content[name] for name in names})

    monkeypatch.setattr(lines, "convert", take)
    with pytest.raises((AttributeError, TypeError)):
        use(study)


# --- bounds ------------------------------------------------------------------

SMALL = make_text('"seed": %d').replace("0.5", "1").encode() + b"\n"
HEAVY = {
    ("trials.jsonl", "notes"): b'{"type":"note","text":""}\n' * 20_000,
    ("trials.jsonl", "trials"): b"".join(SMALL % n for n in range(4000)),
    ("trials.jsonl", "failed"): SMALL.replace(b'"": ', b"") % 7 * 2,
    ("trials.jsonl", "torn"): b"".join(
        SMALL[:30].replace(b"%d", b"%d," % n) + b"\n" for n in range(20_000)
    ),
    ("trials.jsonl", "empty"): b"\n" * 200_000,
    ("trials.jsonl", "one line"): b"x" * 10**6,
    ("trials.jsonl", "lists"): b'{"type":"note","text":' + b"[]," * 60_000,
    ("study.json", "lists"): b'{"x":[' + b"[]," * 60_000 + b"[]]}",
    ("study.json", "objects"): b'{"x":[' + b'{"":0},' * 30_000 + b"0]}",
    ("study.json", "deep"): b'{"x":' + b"[" * 10**6 + b"]" * 10**6 + b"}",
}


def measure_peak(work):
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read_alone(study):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_trials(study)
        except ValueError:
            return


@pytest.mark.sampled(10)
@pytest.mark.parametrize(("name", "kind"), HEAVY)
def test_time_and_memory_are_bounded(study, name, kind):
    """Memory is a multiple of the size, and time that of a few passes."""
    data = HEAVY[name, kind]
    (study / name).write_bytes(data)
    started = time.process_time()
    read_alone(study)
    assert time.process_time() - started < SECONDS
    size = sum((study / one).stat().st_size for one in NAMES)
    assert measure_peak(lambda: read_alone(study)) <= FACTOR * size + CONSTANT


def test_to_import_the_package_loads_no_msgspec():
    """Who only seeds waits for nothing that reads files."""
    code = "import sys, keras_repro; {} print('msgspec' in sys.modules)"
    for use_it, expected in (("", "False"), ("keras_repro.load_run;", "True")):
        result = run_command(sys.executable, "-c", code.format(use_it))
        assert result.stdout.strip() == expected
