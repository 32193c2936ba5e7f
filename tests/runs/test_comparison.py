"""Two runs down to the first mismatch; many runs, by what agrees."""

import json
from dataclasses import replace

import numpy as np
import pytest

from keras_repro.arrays.checksums import checksum_array
from keras_repro.arrays.norms import Norms, compute_norms
from keras_repro.reports.page import write_page
from keras_repro.runs.agreement import find_part
from keras_repro.runs.comparison import compare_runs, group_runs
from keras_repro.runs.run import Run
from keras_repro.runs.snapshots import snapshot_folder
from tests import builders

KERNEL, BIAS = "layers.0.kernel", "layers.0.bias"
START = {KERNEL: np.ones((2, 2), "float32"), BIAS: np.zeros(2, "float32")}


def make(epoch, change=(), *, by=0.25, batch=None, **fields):
    """A record after some epochs, in which some places are changed."""
    arrays = {
        place: value + (by if place in change else 0)
        for place, value in START.items()
    }
    variables = {
        place: checksum_array(value) for place, value in arrays.items()
    }
    norms = {place: compute_norms(value) for place, value in arrays.items()}
    return builders.make_record(
        index=0 if epoch is None else epoch + 1,
        epoch=epoch,
        batch=batch,
        model=f"kr1:{variables[KERNEL]}",
        variables={
            "random": {"layers.1.seed_generator_state": "a"},
            "weights": variables,
            "optimizer": {"optimizer.learning_rate": "a"},
        },
        norms={"weights": norms},
        **fields,
    )


def make_run(*records, **fields):
    """A run of two weights."""
    variables = tuple(
        {
            "role": "weights",
            "place": place,
            "shape": list(value.shape),
            "dtype": "float32",
        }
        for place, value in START.items()
    )
    return builders.make_run(*records, variables=variables, **fields)


def test_runs_by_their_files(tmp_path):
    """A path stands for the last run of its file."""
    a = make_run(make(None), run_id="r1")
    later = {"run_id": "r2"}
    b = make_run(make(None, **later), make(0, [KERNEL], **later), **later)
    first = builders.save_run(a, tmp_path / "a.jsonl")
    for one in (a, b):
        second = builders.save_run(one, tmp_path / "b.jsonl")
    expected = compare_runs(a, b).to_json()
    for pair in ((first, str(second)), (a, second), (first, b)):
        assert compare_runs(*pair).to_json() == expected
    assert expected != compare_runs(first, first).to_json()


def test_first_mismatch_of_runs():
    """The earliest moment is named, and the last that was equal."""
    a = make_run(make(None), make(0), make(1), make(2))
    b = make_run(make(None), make(0), make(1, [BIAS]), make(2, [BIAS]))
    same = compare_runs(a, a)
    assert (same.equal, same.agree, same.status) == (
        True,
        True,
        "bitwise equal",
    )
    assert (same.num_compared, same.first_mismatch) == (4, None)
    found = compare_runs(a, b)
    assert (found.equal, found.agree, found.status) == (False,) * 2 + (
        "different",
    )
    assert found.first_mismatch == found.first_beyond
    assert (found.first_mismatch.epoch, found.first_mismatch.role) == (
        1,
        "weights",
    )
    assert found.first_mismatch.previous == "epoch 1"
    [difference] = found.first_mismatch.differences
    assert (difference.place, difference.b.largest) == (BIAS, 0.25)
    text = str(found)
    for words in ("epoch 2", "weights", BIAS):
        assert words in text
    assert "Bitwise equal" in str(same)


def test_one_number_says_how_far_apart():
    """The text, the table and the advice measure norms in one way."""
    runs = [
        make_run(make(None), replace(make(0, change), norms={"weights": norms}))
        for change, norms in (
            ((), {KERNEL: Norms(2.0, 0.5, 1.0)}),
            ([KERNEL], {KERNEL: Norms(2.00000002, 0.5, 1.2)}),
        )
    ]
    found = compare_runs(*runs)
    (distance,) = {one.distance for one in found.agreements} - {0.0}
    assert distance == pytest.approx(1 / 6)
    told = "largest magnitude 1 in a, 1.2 in b (0.2 apart)"
    assert told in " ".join(str(found).split())
    assert "1.7e-01" in write_page(found.describe())
    # Nothing but the largest magnitude says that this is no rounding.
    assert "rtol=" not in str(found)
    near = {KERNEL: Norms(2.00000002, 0.5, 1.0)}
    close = replace(runs[1].records[1], norms={"weights": near})
    found = compare_runs(runs[0], make_run(make(None), close))
    assert "(1e-08 apart)" in str(found)
    assert "rtol=1e-5" in str(found)


def test_roles_that_part_at_the_start():
    """A mismatch before any step is one of the initial state."""
    a, b = make_run(make(None)), make_run(make(None, [BIAS]))
    assert compare_runs(a, b).first_mismatch.role == "initial state"
    later = compare_runs(make_run(make(0)), make_run(make(0, [BIAS])))
    assert later.first_mismatch.role == "weights"


def test_other_arrays_part_first():
    """Where other data were given, the data differ before the weights."""
    a, b = (
        make_run(make(None), record) for record in (make(0), make(0, [BIAS]))
    )
    for run, data in ((a, "kr1:x"), (b, "kr1:y")):
        run.header.identity["data"] = data
    found = compare_runs(a, b)
    assert found.first_mismatch.role == "data"
    assert found.first_mismatch.roles == ("data", "weights")
    b.header.identity["data"] = "kr1:x"
    assert compare_runs(a, b).first_mismatch.role == "weights"


def test_runs_that_recorded_at_other_moments():
    """Moments of one run alone are passed over; with none shared it says so."""
    each = make_run(make(None), make(0), make(1))
    finer = make_run(make(None), make(0, batch=3), make(1), make(2))
    assert compare_runs(each, finer).equal
    nothing = compare_runs(each, make_run(make(0, batch=3)))
    assert nothing.first_mismatch.roles == ("records",)
    assert not nothing.agree


def test_a_run_that_went_on_is_told_as_such():
    """More epochs are no mismatch; nor is a run that failed on the way."""
    short = make_run(make(None), make(0))
    long = make_run(make(None), make(0), make(1), make(2))
    assert compare_runs(short, short).notes == ()
    found = compare_runs(short, long)
    assert found.equal
    assert found.notes == ("b went on for 2 more epochs: 1 are in both",)
    failed = replace(
        short, end=replace(short.end, status="failed", exception="OSError")
    )
    assert (
        "did not finish: failed by OSError"
        in compare_runs(failed, long).notes[1]
    )
    assert "no end" in compare_runs(replace(short, end=None), short).notes[0]
    assert (
        "half-written"
        in compare_runs(replace(short, torn=True), short).notes[0]
    )


def test_other_metrics_and_names_are_told_as_such():
    """Metrics of one run alone and renamed layers are no mismatch."""
    a = make(0, metrics={"loss": 1.0})
    b = make(0, metrics={"loss": 1.0, "mae": 2.0, "mse": 1.0})
    found = compare_runs(make_run(a), make_run(b))
    assert found.equal
    assert found.notes == ("only b has the metrics mae, mse",)
    weights = {
        place.replace("kernel", "w"): value
        for place, value in a.variables["weights"].items()
    }
    renamed = replace(a, variables={**a.variables, "weights": weights})
    other = replace(make_run(renamed).header, model={"class": "Mine"})
    found = compare_runs(make_run(a), Run(other, (renamed,), None))
    assert found.equal
    assert "renamed: layers.0.kernel of a is layers.0.w of b" in found.notes
    assert "the class of the model is None in a, Mine in b" in found.notes


def test_environments_are_told_beside():
    """Another processor is no mismatch, and is told with what it may do."""
    a = make_run(make(0), environment={"processor": "x", "os": "Linux"})
    b = make_run(make(0), environment={"processor": "y", "os": "Linux"})
    found = compare_runs(a, b)
    assert found.equal
    [difference] = found.environment
    assert (difference.key, difference.a, difference.b) == (
        "processor",
        "x",
        "y",
    )
    assert difference.sentence in str(found).replace(
        "\n", " "
    ) or difference.key in str(found)


def test_identities_are_told_beside():
    """Another seed is told as what it is, beside the verdict."""
    a, b = make_run(make(None)), make_run(make(None), seed=2)
    both = compare_runs(a, b)
    assert both.equal
    assert "another seed: 2, not 1" in str(both)
    assert compare_runs(a, a).identity is None


def test_within_a_tolerance():
    """Tolerances give a third verdict, and say where bits differ first."""
    a = make_run(make(None), make(0), make(1))
    b = make_run(
        make(None), make(0, [KERNEL], by=1e-6), make(1, [KERNEL], by=0.5)
    )
    assert compare_runs(a, b).status == "different"
    found = compare_runs(a, b, rtol=1e-4)
    assert found.status == "different"
    assert (found.first_mismatch.epoch, found.first_beyond.epoch) == (0, 1)
    close = make_run(make(None), make(0, [KERNEL], by=1e-6))
    found = compare_runs(a, close, rtol=1e-4)
    assert (found.status, found.equal, found.agree) == (
        "within tolerance",
        False,
        True,
    )
    assert found.first_mismatch.differences[0].status == "within tolerance"
    assert found.first_beyond is None
    assert compare_runs(a, close, atol=1e-4).agree
    assert not compare_runs(a, close, rtol=1e-9).agree


def test_agreements_part_by_part():
    """Each epoch says of each part whether it agrees, and how far not."""
    a = make_run(make(None), make(0), make(1))
    b = make_run(make(None), make(0), make(1, [KERNEL], by=1.0))
    found = {
        (one.epoch, one.part): one for one in compare_runs(a, b).agreements
    }
    assert len(found) == 9
    assert found[0, "layers.0"].status == "bitwise equal"
    assert found[0, "layers.0"].distance == 0.0
    assert found[1, "layers.0"].status == "different"
    assert found[1, "layers.0"].distance == 0.5
    assert found[1, "optimizer"].status == "bitwise equal"
    streams = make_run(replace(make(0), streams="s"))
    other = make_run(replace(make(0), streams="t"))
    parts = {
        one.part: one.status for one in compare_runs(streams, other).agreements
    }
    assert parts["random"] == "different"


@pytest.mark.parametrize(
    ("role", "place", "part"),
    [
        ("weights", "layers.2.kernel", "layers.2"),
        ("weights", "layers.2.layers.10.kernel", "layers.2.layers.10"),
        ("weights", "scale", "model"),
        ("random", "layers.1.seed_generator_state", "random"),
        ("metrics", "metrics.0", "metrics"),
    ],
)
def test_parts(role, place, part):
    """Weights belong to their layer, the rest to its role."""
    assert find_part(role, place) == part


def write_snapshots(tmp_path, name, records, arrays):
    """A run in a file's folder, with a snapshot for each record."""
    path = tmp_path / "runs.jsonl"
    path.touch()
    folder = snapshot_folder(path, name)
    kept = []
    for record, values in zip(records, arrays, strict=True):
        file = f"{record.index:06d}.h5"
        named = {("weights", place): one for place, one in values.items()}
        builders.save_snapshot(folder, named, file, name)
        weights = {place: checksum_array(v) for place, v in values.items()}
        by_role = {**record.variables, "weights": weights}
        kept.append(replace(record, snapshot=file, variables=by_role))
    place = folder.relative_to(tmp_path).as_posix()
    return make_run(*kept, run_id=name, snapshots=place, path=path)


def test_snapshots_measure_exactly(tmp_path):
    """Sizes are exact, at the mismatch or at the next snapshot."""
    records = [make(None), make(0)]
    near = {**START, KERNEL: np.nextafter(START[KERNEL], np.float32(2))}
    a = write_snapshots(tmp_path, "a" * 32, records, [START, START])
    b = write_snapshots(tmp_path, "b" * 32, records, [START, near])
    found = compare_runs(a, b).first_mismatch
    [difference] = found.differences
    assert difference.place == KERNEL
    assert difference.exact.largest_ulp == 1
    assert difference.exact.share == 1.0
    # Each element is close, though no norm would have said so exactly.
    assert compare_runs(a, b, rtol=1e-6).status == "within tolerance"
    assert compare_runs(a, b, rtol=1e-9).status == "different"
    batch = make(0, [KERNEL], batch=2)
    early = [
        replace(run, records=(run.records[0], between, run.records[1]))
        for run, between in ((a, batch), (b, make(0, batch=2)))
    ]
    found = compare_runs(*early).first_mismatch
    assert found.batch == 2
    assert "exact sizes were measured at epoch 1" in found.details
    assert found.differences[0].exact.largest_ulp == 1


def test_a_snapshot_of_another_record_is_refused(tmp_path):
    """It is whole, and of the run, and holds other values."""
    other = {**START, BIAS: START[BIAS] + 1}
    more = {**START, BIAS: START[BIAS] + 2}
    a = write_snapshots(tmp_path, "a" * 32, [make(0), make(1)], [START, START])
    b = write_snapshots(tmp_path, "b" * 32, [make(0), make(1)], [other, more])
    assert compare_runs(a, b).first_mismatch.differences[0].exact is not None
    first, second = sorted(snapshot_folder(b.path, b.run_id).iterdir())
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match="of the record"):
        compare_runs(a, b)


def test_snapshots_that_are_gone(tmp_path):
    """Where a snapshot has gone, the norms are what is left."""
    a = write_snapshots(tmp_path, "a" * 32, [make(0)], [START])
    other = {**START, BIAS: START[BIAS] + 1}
    b = write_snapshots(tmp_path, "b" * 32, [make(0)], [other])
    assert compare_runs(a, b).first_mismatch.differences[0].exact is not None
    for file in tmp_path.glob("runs.jsonl.snapshots/*/*.h5"):
        file.unlink()
    found = compare_runs(a, b).first_mismatch
    assert found.differences[0].exact is None
    assert "a snapshot is missing" in found.details[0]


def test_groups():
    """Runs are sorted by what agrees, the largest group first."""
    one, other = make_run(make(0)), make_run(make(0, [BIAS]))
    groups = group_runs([other, one, one, one])
    assert groups.groups == ((1, 2, 3), (0,))
    assert not groups.agree
    [comparison] = groups.comparisons
    assert comparison.first_mismatch.places == (BIAS,)
    assert group_runs([one, one]).agree
    assert group_runs([one, other], atol=1.0).agree
    with pytest.raises(ValueError, match=r"two runs or more. Received: 1"):
        group_runs([one])


def test_json_is_strict():
    """What `--json` prints is plain, with NaN and infinities as text."""
    bad = replace(
        make(0, [BIAS], metrics={"loss": float("nan")}),
        norms={"weights": {BIAS: Norms(float("inf"), float("nan"), 1.0)}},
    )
    a, b = make_run(make(0, metrics={"loss": 1.0})), make_run(bad)
    for result in (compare_runs(a, b), group_runs([a, b])):
        text = json.dumps(result.to_json(), allow_nan=False)
        assert '"inf"' in text
    content = compare_runs(a, b).to_json()
    assert content["status"] == "different"
    assert content["first_mismatch"]["role"] == "weights"
    assert content["first_mismatch"]["differences"][0]["b"]["mean"] == "nan"


def test_only_runs_can_be_compared():
    """What is no run, nor the path of one, is refused with what to pass."""
    run = make_run(make(0))
    must = "must be a run or the path of a file. Received: "
    with pytest.raises(TypeError, match=f"`b` {must}3"):
        compare_runs(run, 3)
    with pytest.raises(TypeError, match=f"`a` {must}None"):
        compare_runs(None, run)
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        compare_runs(run, "missing.jsonl")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True])
def test_tolerances_that_are_none(value):
    """A tolerance is a finite number, 0 or greater."""
    run = make_run(make(0))
    kind = TypeError if isinstance(value, (str, bool)) else ValueError
    for compare in (compare_runs, lambda *runs, **tol: group_runs(runs, **tol)):
        with pytest.raises(kind, match=r"`rtol` must be a finite.*Received"):
            compare(run, run, rtol=value)


def test_a_tolerance_that_allows_all():
    """The largest that there is raises nothing, however large the arrays."""
    a, b = make_run(make(0)), make_run(make(0, [KERNEL]))
    found = compare_runs(a, b, atol=np.float64(1e308))
    assert found.status == "within tolerance"
    assert type(found.to_json()["atol"]) is float
    assert compare_runs(a, b, atol=1e-3).status == "different"
