"""What differs between two environments, the likeliest to matter first."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.environment import differences
from keras_repro.environment.differences import find_differences
from tests.checkout import ROOT

PAGE = ROOT / "docs" / "environment.md"

TENSORFLOW = {
    "python": "3.11.7",
    "implementation": "CPython",
    "hash_randomization": False,
    "hash_seed": "0",
    "os": "Linux",
    "os_release": "6.1",
    "machine": "x86_64",
    "processor": "AMD EPYC",
    "instructions": ["avx", "avx2"],
    "cores": 8,
    "usable_cores": 4,
    "versions": {
        "keras": "3.15.1",
        "numpy": "2.4.6",
        "h5py": "3.14.0",
        "tensorflow": "2.21.0",
        "jax": None,
        "torch": "2.13.0",
    },
    "backend": "tensorflow",
    "devices": ["NVIDIA H200"],
    "gpu": {"driver": "550.1", "cuda": "12.5.1", "cudnn": "9"},
    "threads": {"intra_op": 0, "inter_op": 0},
    "blas": {"numpy": "openblas 0.3.31", "torch": None},
    "onednn": {"enabled": True, "version": None},
    "dtype_policy": "float32",
    "floatx": "float32",
    "tf32": {"matmul": True, "convolution": True},
    "matmul_precision": None,
    "jit": False,
    "jax": None,
    "deterministic": True,
    "environment_variables": {"KERAS_BACKEND": "tensorflow"},
    "git": {"commit": "a" * 40, "dirty": False},
}


def change(path, value, environment=TENSORFLOW):
    """A copy with one entry replaced."""
    result = copy.deepcopy(environment)
    *groups, name = path.split(".")
    inner = result
    for group in groups:
        inner = inner[group]
    inner[name] = value
    return result


def summarise(a, b):
    """Weights and keys of what differs, in order."""
    return [(one.weight, one.key) for one in find_differences(a, b)]


def test_equal_environments():
    """Equal environments have no differences; one changed entry is one."""
    assert find_differences(TENSORFLOW, copy.deepcopy(TENSORFLOW)) == ()
    assert len(find_differences(TENSORFLOW, change("os", "x"))) == 1


@pytest.mark.parametrize(
    ("path", "value", "weight"),
    [
        ("backend", "jax", 3),
        ("dtype_policy", "mixed_bfloat16", 3),
        ("floatx", "float64", 3),
        ("versions.keras", "3.14.0", 3),
        ("versions.keras", "3.15.2", 2),
        ("versions.tensorflow", "2.20.0", 3),
        ("versions.tensorflow", "2.21.1", 2),
        ("versions.tensorflow", 7, 3),
        ("versions.tensorflow", None, 1),
        ("versions.torch", "2.12.0", 0),
        ("versions.jax", "0.5", 0),
        ("versions.numpy", "2.3.0", 1),
        ("versions.h5py", "3.13.0", 0),
        ("threads.intra_op", 1, 2),
        ("threads.inter_op", 1, 1),
        ("threads.OMP_NUM_THREADS", "1", 2),
        ("threads.NPROC", "1", 2),
        ("threads.TF_NUM_INTEROP_THREADS", "1", 1),
        ("usable_cores", 2, 2),
        ("cores", 2, 0),
        ("processor", "Intel Xeon", 2),
        ("instructions", ["avx"], 2),
        ("machine", "aarch64", 2),
        ("devices", ["NVIDIA A100"], 2),
        ("devices", [], 2),
        ("devices", None, 1),
        ("gpu.driver", "560.1", 2),
        ("gpu.cuda", "12.9", 2),
        ("gpu.cudnn", "8", 2),
        ("tf32.matmul", False, 2),
        ("matmul_precision", "highest", 2),
        ("onednn.enabled", False, 2),
        ("jit", True, 2),
        ("deterministic", False, 2),
        ("deterministic", None, 1),
        ("hash_seed", "1", 1),
        ("hash_seed", None, 2),
        ("environment_variables.PYTHONHASHSEED", "1", 2),
        ("environment_variables.TF_DETERMINISTIC_OPS", "1", 2),
        ("environment_variables.CUBLAS_WORKSPACE_CONFIG", ":16:8", 2),
        ("environment_variables.XLA_FLAGS", "--xla_a=1", 2),
        ("environment_variables.TF_XLA_FLAGS", "--tf_xla_a=1", 2),
        ("environment_variables.JAX_ENABLE_X64", "1", 2),
        ("environment_variables.TF_SOMETHING", "1", 1),
        ("environment_variables.KERAS_BACKEND", "torch", 0),
        ("blas.numpy", "mkl 2024", 1),
        ("os", "Darwin", 2),
        ("os_release", "6.5", 0),
        ("python", "3.11.9", 0),
        ("python", "3.12.1", 1),
        ("git.commit", "b" * 40, 1),
        ("git.dirty", True, 1),
    ],
)
def test_weights(path, value, weight):
    """Each difference has its weight, its values and a sentence."""
    other = change(path, value)
    (found,) = find_differences(TENSORFLOW, other)
    assert (found.key, found.weight) == (path, weight)
    assert found.b == value
    assert found.sentence.endswith(".")
    assert "recorded" not in found.sentence
    (back,) = find_differences(other, TENSORFLOW)
    assert (back.a, back.b) == (found.b, found.a)
    assert (back.weight, back.sentence) == (weight, found.sentence)


def test_the_thread_count_comes_first():
    """Among the equally heavy, and before cores, release and instructions."""
    other = change("threads.intra_op", 1)
    other = change("threads.OMP_NUM_THREADS", "1", other)
    other = change("instructions", ["avx"], other)
    other = change("cores", 2, other)
    other = change("os_release", "5.4", other)
    assert summarise(TENSORFLOW, other) == [
        (2, "threads.intra_op"),
        (2, "threads.OMP_NUM_THREADS"),
        (2, "instructions"),
        (0, "cores"),
        (0, "os_release"),
    ]
    heavier = change("floatx", "float64", other)
    assert summarise(TENSORFLOW, heavier)[0] == (3, "floatx")


@pytest.mark.parametrize(
    ("backend", "pin", "value"),
    [
        ("tensorflow", "threads.intra_op", 2),
        ("tensorflow", "threads.TF_NUM_INTRAOP_THREADS", "2"),
        ("torch", "threads.intra_op", 2),
        ("jax", "threads.NPROC", "2"),
    ],
)
def test_cores_matter_while_threads_are_not_pinned(backend, pin, value):
    """Other cores weigh 2, unless both have a number of threads."""
    one = change("backend", backend)
    two = change("usable_cores", 2, one)
    assert summarise(one, two) == [(2, "usable_cores")]
    one, two = change(pin, value, one), change(pin, value, two)
    assert summarise(one, two) == [(0, "usable_cores")]


def test_an_older_file():
    """What one of them does not have at all weighs nothing, and is said."""
    older = {
        key: value
        for key, value in TENSORFLOW.items()
        if key not in ("gpu", "git", "jit")
    }
    found = find_differences(older, TENSORFLOW)
    assert {one.sentence for one in found} == {"Not recorded in a."}
    assert {one.weight for one in found} == {0}
    keys = ["gpu.cuda", "gpu.cudnn", "gpu.driver", "git.commit", "git.dirty"]
    assert sorted(one.key for one in found) == sorted([*keys, "jit"])
    back = find_differences(TENSORFLOW, older)
    assert {one.sentence for one in back} == {"Not recorded in b."}


def test_a_variable_that_is_not_set():
    """That is a setting, unless no variables were recorded at all."""
    other = change("environment_variables.XLA_FLAGS", "--xla_a=1")
    (found,) = find_differences(TENSORFLOW, other)
    assert (found.a, found.weight) == (None, 2)
    del other["environment_variables"]
    weights = [one.weight for one in find_differences(TENSORFLOW, other)]
    assert weights == [0]


def test_a_group_that_is_not_in_use():
    """`git: null` against a commit differs by its entries."""
    other = change("git", None)
    assert summarise(other, TENSORFLOW) == [(1, "git.commit"), (1, "git.dirty")]
    assert summarise(other, other) == []
    found = find_differences(other, TENSORFLOW)
    assert (found[0].a, found[0].b) == (None, "a" * 40)


def test_processor_in_words():
    """The sentence says what it may do, and what helps."""
    (found,) = find_differences(TENSORFLOW, change("processor", "other"))
    assert found.sentence == (
        "Other processor, so floating point results may differ in the last "
        "places; compare with rtol."
    )


def test_nan_equals_nan():
    """NaN, which a damaged file may hold, is no difference to itself."""
    assert find_differences({"x": math.nan}, {"x": math.nan}) == ()
    assert len(find_differences({"x": math.nan}, {"x": 0.0})) == 1


KEYS = st.sampled_from(
    [*TENSORFLOW, "keras", "intra_op", "XLA_FLAGS", "commit", "", ".", "a.b"]
) | st.text(max_size=4)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=25,
)


@given(JUNK, JUNK)
def test_any_json_is_accepted(a, b):
    """Whatever a damaged file holds, it is compared, and both ways alike."""
    found = find_differences(a, b)
    weights = [one.weight for one in found]
    assert weights == sorted(weights, reverse=True)
    assert set(weights) <= {0, 1, 2, 3}
    assert find_differences(a, a) == ()
    back = find_differences(b, a)
    assert [one.key for one in back] == [one.key for one in found]
    assert [one.weight for one in back] == weights


@given(KEYS, JUNK)
def test_junk_in_an_environment(key, junk):
    """One entry of another type does no harm either."""
    find_differences(TENSORFLOW, {**TENSORFLOW, key: junk})
    other = {**TENSORFLOW, "versions": {**TENSORFLOW["versions"], key: junk}}
    find_differences(other, TENSORFLOW)


@pytest.mark.parametrize("nothing", [None, {}, [], "", 3])
def test_nothing_at_all(nothing):
    """Where one was never recorded, each entry says so."""
    assert find_differences(nothing, nothing) == ()
    found = find_differences(nothing, TENSORFLOW)
    assert {one.sentence for one in found} == {"Not recorded in a."}
    found = find_differences(TENSORFLOW, nothing)
    assert {one.sentence for one in found} == {"Not recorded in b."}


def test_deep_junk():
    """Nesting as deep as JSON reads is compared without recursion."""
    deep = json.loads('{"a":' * 800 + "1" + "}" * 800)
    other = json.loads('{"a":' * 800 + "2" + "}" * 800)
    assert len(find_differences(deep, other)) == 1
    assert find_differences(deep, deep) == ()
    lists = other = 1
    for _ in range(50_000):
        lists, other = [lists], [other]
    assert len(find_differences({"os": lists}, {"os": other})) == 1
    find_differences({"python": lists}, {"python": "3.11"})


def test_each_rule_is_on_its_page():
    """The table of weights in the docs is the table in the code."""
    rows = [
        line.split("|")[1:4]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    shown = {
        (pattern.strip(" `"), weight.strip()) for pattern, weight, _ in rows
    }
    for rule in differences._RULES:
        if callable(rule.weight):
            assert any(pattern == rule.pattern for pattern, _ in shown)
        else:
            assert (rule.pattern, str(rule.weight)) in shown
    assert ("backend", "2") not in shown
