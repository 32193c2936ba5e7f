"""What a function is made of, and what was changed about it."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import json
import pathlib
import random
import re
import reprlib
import sys
import textwrap
import types
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.studies.identity import Fingerprint, compare_fingerprints
from keras_repro.trials.fingerprint import find_generators, fingerprint

pytestmark = pytest.mark.no_backend

SOURCE = '''
import collections
import dataclasses
import enum
import functools

import numpy as np


class Loss(enum.Enum):
    MSE = "mse"
    MAE = "mae"


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    units: list = dataclasses.field(default_factory=list)


class Base:
    factor = 2.0

    def shift(self, x):
        return x + 1


class Scaler(Base):
    """Scales."""

    def __init__(self):
        self.mean = np.arange(3.0)

    def fit(self, x, power=2):
        return self.shift(x) * self.factor**power

    @property
    def size(self):
        return len(self.mean)

    @staticmethod
    def zero():
        return 0


Point = collections.namedtuple("Point", "x y")


def helper(x):
    """Help."""
    try:
        return deeper(x) + 1
    except ValueError:
        return [one for one in x if one in {1, 2, 3}]


def deeper(x):
    return x and deeper(x - 1)


def timed(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) or 0

    return wrapper


@functools.lru_cache
def cached(x):
    return x * 3


@timed
def decorated(x):
    return x * 5


scaler = Scaler()
config = Config()
settings = {"lr": 0.1, "layers": {"units": [8, 4]}}
point = Point(1, 2)
steps = [lambda x: x * 7, helper]
tags = {"a", "b"}
half = functools.partial(helper, x=0.5)
weights = np.ones((2, 3))
loss = Loss.MSE
unused = 1


def make(alpha):
    x_train = np.zeros(4)

    def train(model, epochs=3, *, verbose=False):
        """Train."""
        # A comment.
        def inner(x):
            """Within."""
            return x + alpha

        if undefined_name_is_fine is None:
            return None
        helper(scaler), config, settings, point, steps, tags, half, loss
        return cached(decorated(inner(x_train))) - weights.sum()

    return train


train = make(0.4)
'''


def load(source, name="study"):
    """The `train` of a program that was not written to a file."""
    module = types.ModuleType(name)
    exec(compile(source, f"<{name}>", "exec"), vars(module))
    return module.train


BEFORE = fingerprint(load(SOURCE))


def compare_with(source):
    """What is told of a changed program."""
    return compare_fingerprints(BEFORE, fingerprint(load(source)))


CHANGED = [
    ("- weights.sum", "+ weights.sum", "`train` was changed"),
    ("return x + alpha", "return x - alpha", "`train` was changed"),
    ("make(0.4)", "make(0.2)", "`alpha` was 0.4 and is 0.2"),
    ("np.zeros(4)", "np.full(4, -0.0)", "`x_train` holds other values"),
    ("epochs=3", "epochs=4", "`train(epochs)` was 3 and is 4"),
    ("verbose=False", "verbose=1", "`train(verbose)` was False and is 1"),
    ("deeper(x) + 1", "deeper(x) + 1.0", "`helper` was changed"),
    ("{1, 2, 3}", "{1, 2, 4}", "`helper` was changed"),
    ("ValueError", "TypeError", "`helper` was changed"),
    ("x and deeper", "x or deeper", "`deeper` was changed"),
    ("self.shift(x) *", "self.shift(x) +", "`Scaler.fit` was changed"),
    ("power=2", "power=3", "`Scaler.fit(power)` was 2 and is 3"),
    ("len(self.mean)", "self.mean.size", "`Scaler.size` was changed"),
    ("return 0\n", "return -1\n", "`Scaler.zero` was changed"),
    ("factor = 2.0", "factor = 3.0", "`Base.factor` was 2.0 and is 3.0"),
    ("x + 1\n", "x + 2\n", "`Base.shift` was changed"),
    ("np.arange(3.0)", "np.ones(3)", "`scaler.mean` holds other values"),
    ("lr: float = 0.1", "lr: float = 0.3", "`Config.lr` was 0.1 and is 0.3"),
    ("=list", "=set", "`Config.units` was list and is set"),
    ('"lr": 0.1', '"lr": 0.2', "`settings['lr']` was 0.1 and is 0.2"),
    (
        "[8, 4]",
        "[8, 5]",
        "`settings['layers']['units']` was [8, 4] and is [8, 5]",
    ),
    ("Point(1, 2)", "Point(1, 3)", "`point.y` was 2 and is 3"),
    ("x * 7", "x * 8", "`steps[0]` was changed"),
    ('{"a", "b"}', '{"a", "c"}', "`tags` was {'a', 'b'} and is {'a', 'c'}"),
    ("x=0.5", "x=0.6", "`half(x)` was 0.5 and is 0.6"),
    ("np.ones((2, 3))", "np.ones((3, 2))", "`weights` holds other values"),
    (
        "loss = Loss.MSE",
        "loss = Loss.MAE",
        "`loss` was Loss.MSE and is Loss.MAE",
    ),
    ('"mae"', '"mape"', "`Loss.MAE` was 'mae' and is 'mape'"),
    ("x * 3", "x * 4", "`cached` was changed"),
    ("x * 5", "x * 6", "`decorated` was changed"),
    ("or 0", "or 1", "`wrapper` was changed"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), CHANGED)
def test_what_was_changed_is_named(old, new, sentence):
    """One sentence says which constant, function, default or entry it is."""
    assert SOURCE.count(old) == 1
    found = compare_with(SOURCE.replace(old, new))
    assert sentence in found
    assert len(found) <= 2


SAME = [
    ("# A comment.", "# Another one."),
    ("        # A comment.\n", "\n\n\n"),
    ('"""Train."""', '"""Train, of course."""'),
    ('        """Train."""\n', ""),
    ('"""Within."""', "pass"),
    ('"""Scales."""', '"""Scales well."""'),
    ('    """Scales."""\n', ""),
    ('    """Help."""\n', ""),
    (
        "    x_train = np.zeros(4)\n",
        "    x_train = (\n        np.zeros(4)\n    )\n",
    ),
    ("unused = 1", "unused = 2"),
    ("import collections\n", "import collections\nimport os\n"),
    ('"mse"\n', '"mse"\n\n'),
    ("    try:\n", "    try:  # It may fail.\n\n"),
    (
        '{"lr": 0.1, "layers": {"units": [8, 4]}}',
        '{"layers": {"units": [8, 4]}, "lr": 0.1}',
    ),
    ('{"a", "b"}', '{"b", "a"}'),
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_what_changes_nothing(old, new):
    """Lines, comments, docstrings, what is not used, the order of a dict."""
    assert old in SOURCE
    assert compare_with(SOURCE.replace(old, new)) == []


def test_another_file_and_module_change_nothing():
    """Where the program lies does not count, nor what it is called."""
    assert fingerprint(load(SOURCE, "elsewhere")) == BEFORE


def test_what_is_new_and_gone():
    """Functions, classes and values that came or went are named."""
    source = SOURCE.replace("deeper(x) + 1", "len(x) + LIMIT")
    source = source.replace("unused = 1", "LIMIT = 5")
    found = compare_with(source)
    assert found == [
        "`deeper` is gone",
        "`helper` was changed",
        "`LIMIT` is new",
    ]


def test_same_in_every_process(tmp_path, run_python):
    """The hash seed and the process do not count; what is changed does."""
    (tmp_path / "study.py").write_text(SOURCE)
    program = (
        "import msgspec, study\n"
        "from keras_repro.trials.fingerprint import fingerprint\n"
        "print(msgspec.json.encode(fingerprint(study.train)).decode())"
    )
    texts = [
        run_python("-c", program, PYTHONHASHSEED=seed).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert msgspec.json.decode(texts[0], type=Fingerprint) == BEFORE
    (tmp_path / "study.py").write_text(SOURCE.replace("0.4", "0.2"))
    assert run_python("-c", program, PYTHONHASHSEED="1").stdout != texts[0]


def test_same_after_pickling_by_value():
    """A function that was sent to another process keeps its fingerprint."""
    cloudpickle = pytest.importorskip("cloudpickle")
    # What the cache of `functools` made cannot be sent.
    source = SOURCE.replace("@functools.lru_cache\n", "")
    before = fingerprint(load(source))

    def send(program):
        return cloudpickle.loads(cloudpickle.dumps(load(program)))

    assert compare_fingerprints(before, fingerprint(send(source))) == []
    sent = send(source.replace("make(0.4)", "make(0.2)"))
    assert compare_fingerprints(before, fingerprint(sent)) == [
        "`alpha` was 0.4 and is 0.2"
    ]


def test_json_round_trip():
    """Through JSON a fingerprint stays as it is, what is unread included."""
    one = Fingerprint({"train": "kr1:0"}, {"a": "0.4"}, ("file",), "3.11")
    text = msgspec.json.encode(one)
    assert msgspec.json.decode(text, type=Fingerprint) == one
    assert Fingerprint({"train": "kr1:1"}, {"a": "0.4"}) != one


def test_other_python():
    """Code of two versions cannot be compared; their names and values can."""
    before = Fingerprint({"train": "1", "old": "2"}, {"a": "1"}, (), "3.11")
    after = Fingerprint({"train": "3", "new": "2"}, {"a": "2"}, (), "3.12")
    assert compare_fingerprints(before, after) == [
        "Python was 3.11 and is 3.12",
        "`old` is gone",
        "`new` is new",
        "`a` was 1 and is 2",
    ]


# --- values --------------------------------------------------------------


def taking(x):
    """A function that takes one value along."""

    def train(model):
        return x

    return train


def data_of(x, **options):
    """What is told of one value."""
    return dict(fingerprint(taking(x), **options).data)


class Units(enum.Enum):
    """A choice."""

    FEW = 8


@dataclasses.dataclass
class Settings:
    """What a program may keep its numbers in."""

    lr: float = 0.1
    units: Units = Units.FEW
    layers: list = dataclasses.field(default_factory=lambda: [8, 4])


# What a study may take along; `fingerprints.json` has what was told of it.
KEPT = {
    "numbers": [0.5, -0.0, 1e300, float("inf")] * 10,
    "integers": list(range(-9, 40)),
    "large integers": [2**70] * 50,
    "words": ["a", None, b"c", True, 1 + 2j] * 10,
    "pairs": [(one, [one]) for one in range(20)],
    "dict": {n: f"{n}" for n in range(90)},
    "nested": {"lr": 0.1, "a": {"b": {"c": {"d": [1, 2]}}}, 3: {4, 5}},
    "long text": "adam" * 50,
    "texts at the bound": ["a" * 58, "a" * 59],
    "wide integers": [-(2**63), 2**63 - 1] * 10,
    "array": np.arange(6.0).reshape(2, 3),
    "structured": np.zeros(3, [("a", "<i4"), ("b", "<f4")]),
    "masked": np.ma.array([1, 2], "int64", mask=[0, 1]),
    "objects": np.array([1, "a", None, [2.0]], object),
    "scalars": [np.float32(0.1)] * 20,
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
    "object": Settings(),
    "objects of one's own": [Settings(lr=0.2), Settings, Units.FEW],
    "namespace": types.SimpleNamespace(token="abc", epochs=3),
    "partial": functools.partial(json.dumps, indent=1),
    "closure": reprlib.recursive_repr("..."),
    "python generator": random.Random(1),
    "numpy generator": {"rng": np.random.default_rng(3)},
    "old generator": np.random.RandomState(2),
    "method": np.random.default_rng(3).normal,
    "pattern": re.compile("a+", re.IGNORECASE),
    "time": [datetime.timedelta(1, 2), datetime.date(2020, 1, 2)],
    "exact": [decimal.Decimal("1.20"), fractions.Fraction(1, 3)],
    "types": [list[int], int | None, Any, slice(1, 2), range(3), ...],
    "unread": {"lr": 0.1, "iterator": iter([1])},
}


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="each Python compiles other code"
)
@pytest.mark.parametrize("name", ["program", *KEPT])
def test_studies_of_the_version_before_go_on(name):
    """Names, texts and checksums are those that commit 8da6b47 wrote."""
    file = pathlib.Path(__file__).with_name("fingerprints.json")
    before = msgspec.json.decode(file.read_bytes(), type=dict[str, Fingerprint])
    now = BEFORE if name == "program" else fingerprint(taking(KEPT[name]))
    assert now == before[name]


SHOWN = [
    (None, "None"),
    (True, "True"),
    (-0.0, "-0.0"),
    ("adam", "'adam'"),
    (b"ab", "b'ab'"),
    ([1, 2.0, "a"], "[1, 2.0, 'a']"),
    ((1,), "(1)"),
    ([1], "[1]"),
    (np.float32(0.5), "float32(0.5)"),
    (pathlib.PurePosixPath("data/x.csv"), "Path('data/x.csv')"),
    (np.mean, "numpy.mean"),
    (np.add, "numpy.add"),
    (np.ndarray, "numpy.ndarray"),
    (np.linalg, "numpy.linalg"),
    (len, "len"),
    (str.lower, "str.lower"),
    (int, "int"),
    (json.dumps, "json.dumps"),
    (random.gauss, "random.Random.gauss"),
    (range(3), "range(range(0, 3))"),
]


@pytest.mark.parametrize(("value", "text"), SHOWN)
def test_short_values_can_be_read(value, text):
    """Numbers, names and short lists stand there as they are."""
    assert data_of(value) == {"x": text}


def test_secrets_are_not_shown():
    """A password's value is no one's to read, but a change is told."""

    def train_with(password):
        return lambda model: password

    before = fingerprint(train_with("abc"))
    after = fingerprint(train_with("abd"))
    assert "abc" not in str(before)
    assert compare_fingerprints(before, before) == []
    assert compare_fingerprints(before, after) == [
        "`password` holds other values"
    ]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=20)
    ),
    max_leaves=30,
)


def canonical(value):
    """Plain values as text that is equal only for equal ones."""
    if isinstance(value, dict):
        return sorted((key, canonical(one)) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(canonical, value)]
    return repr(value)


@given(PLAIN, PLAIN)
def test_plain_values(one, other):
    """Equal values give equal fingerprints, others give others."""
    same = str(canonical(one)) == str(canonical(other))
    assert (fingerprint(taking(one)) == fingerprint(taking(other))) == same
    copied = json.loads(json.dumps({"a": [1, {"b": None}]}))
    assert data_of([one, copied]) == data_of([one, {"a": [1, {"b": None}]}])


def flipped(array):
    """The same array with one bit changed."""
    changed = np.array(array)
    changed.view(np.uint8).reshape(-1)[0] ^= 1
    return changed


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.zeros(3, "int8"),
    np.arange(4, dtype="longdouble"),
    np.zeros(3, [("a", "i4"), ("b", "f4")]),
    np.array(["2020-01-01"], "datetime64[D]"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda one: str(one.dtype))
def test_arrays(array):
    """One bit counts; the memory order does not."""
    assert data_of(array) == data_of(np.asfortranarray(array))
    assert data_of(array) != data_of(flipped(array))
    assert data_of([array]) != data_of([flipped(array)])


def test_arrays_of_objects():
    """Their items count, and where one of them cannot be read it is told."""
    assert data_of(np.array([1, "a", None], object)) == data_of(
        np.array([1, "a", None], object)
    )
    assert data_of(np.array([1, "a", None], object)) != data_of(
        np.array([1, "b", None], object)
    )
    found = fingerprint(taking(np.array([1, iter([])], object)))
    assert found.unread == ("x",)


def test_masked_values_do_not_count():
    """Of a masked array count the mask and what is not masked."""
    one, same = (
        np.ma.array([1, 2], mask=[0, 1]),
        np.ma.array([1, 3], mask=[0, 1]),
    )
    other = np.ma.array([1, 3], mask=[0, 0])
    assert data_of(one) == data_of(same) != data_of(other)


PAIRS = [
    ([1.5] * 50, [1.5] * 49 + [1.25]),
    ([2**70] * 50, [2**70] * 49 + [1]),
    (["a", None] * 20, ["a", None] * 19 + ["a", "b"]),
    ([[1], [2]] * 20, [[1], [2]] * 19 + [[1], [3]]),
    (dict.fromkeys(range(90), 0), {**dict.fromkeys(range(90), 0), 7: 1}),
    ({n: [0] for n in range(90)}, {n: [n // 89] for n in range(90)}),
    (set("abc"), set("abd")),
    (frozenset("a"), {"a"}),
    (collections.deque([1]), collections.deque([2])),
    (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    (types.MappingProxyType({"a": 1}), types.MappingProxyType({"a": 2})),
    (slice(1, 2), slice(1, 3)),
    (bytearray(b"a"), bytearray(b"b")),
    ({(1, "a"): 1}, {(1, "a"): 2}),
    (functools.partial(min, 1), functools.partial(min, 2)),
    (functools.partial(min, 1), functools.partial(max, 1)),
    ("abc".join, "abd".join),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_containers(one, other):
    """What they hold counts, few or many, alone or within a list."""
    if type(one) is not frozenset:
        assert data_of(one) != data_of(other)
        assert data_of([one]) != data_of([other])
    assert data_of(one) == data_of(one)
    assert fingerprint(taking(one)).unread == ()


def test_frames():
    """A cell, the index, a name and the dtype of a frame count."""
    pd = pytest.importorskip("pandas")

    def make(price=2.0, **options):
        return pd.DataFrame(
            {
                "price": [1.0, price],
                "name": ["a", None],
                "kind": pd.Categorical(["u", "v"]),
                "count": pd.array([1, None], dtype="Int64"),
                "time": pd.date_range("2020", periods=2, tz="UTC"),
            },
            **options,
        )

    def tell(frame):
        return compare_fingerprints(
            fingerprint(taking(make())), fingerprint(taking(frame))
        )

    assert tell(make()) == []
    assert tell(make(price=3.0)) == ["`x['price']` holds other values"]
    assert tell(make(index=[5, 6])) == ["`x.index` holds other values"]
    changed = make()
    changed.loc[1, "count"] = 0
    assert tell(changed) == ["`x['count']` holds other values"]
    changed = make()
    changed["kind"] = pd.Categorical(["u", "v"], ordered=True)
    assert tell(changed) == ["`x['kind']` holds other values"]
    changed = make()
    changed.loc[1, "name"] = "b"
    assert tell(changed) == ["`x['name']` holds other values"]
    assert "`x['cost']` is new" in tell(
        make().rename(columns={"price": "cost"})
    )
    assert data_of(make()["price"]) != data_of(make(price=3.0)["price"])
    assert data_of(make().index) != data_of(make(index=[5, 6]).index)
    assert data_of([make()]) != data_of([make(price=3.0)])


def test_polars():
    """A cell, a missing value and a name of a frame of Polars count."""
    pl = pytest.importorskip("polars")

    def tell(frame):
        before = pl.DataFrame({"price": [1, 2], "name": ["a", "b"]})
        return compare_fingerprints(
            fingerprint(taking(before)), fingerprint(taking(frame))
        )

    assert tell(pl.DataFrame({"price": [1, 2], "name": ["a", "b"]})) == []
    changed = pl.DataFrame({"price": [1, None], "name": ["a", "b"]})
    assert tell(changed) == ["`x['price']` holds other values"]
    changed = pl.DataFrame({"price": [1, 2], "name": ["a", "c"]})
    assert tell(changed) == ["`x['name']` holds other values"]
    one, other = pl.Series("a", [1, 2]), pl.Series("b", [1, 2])
    assert data_of(one) == data_of(one.clone()) != data_of(other)


# --- what nobody can tell, and what must not be touched --------------------


class Hostile:
    """Runs nothing of its own without an error."""

    __slots__ = ("_hidden", "kept")

    def __init__(self, kept):
        self.kept = kept
        self._hidden = [kept]

    def __eq__(self, other):
        raise RuntimeError

    def __hash__(self):
        raise RuntimeError

    def __repr__(self):
        raise RuntimeError

    def __getattr__(self, name):
        raise RuntimeError

    @property
    def asked(self):
        raise RuntimeError


def test_no_code_of_a_class_is_run():
    """Comparison, hash, text and properties of an object may all fail."""
    found = fingerprint(taking(Hostile(1)))
    assert found.unread == ()
    assert found.data["x.kept"] == "1"
    assert found.data["x._hidden"] == "[1]"
    assert data_of([Hostile(1)]) == data_of([Hostile(1)])
    assert data_of([Hostile(1)]) != data_of([Hostile(2)])


def test_nothing_is_consumed():
    """An iterator stands where it stood, a generator of numbers too."""
    items, rng = iter([1, 2]), np.random.default_rng(0)
    expected = np.random.default_rng(0).random()
    assert fingerprint(taking(items)).unread == ("x",)
    fingerprint(taking(rng))
    assert (next(items), rng.random()) == (1, expected)


def test_what_cannot_be_read_is_told(tmp_path):
    """An open file, by its name, also where it lies within something."""
    with (tmp_path / "file.txt").open("w") as file:
        found = fingerprint(taking({"log": file, "lr": 0.1}))
        assert found.unread == ("x['log']",)
        assert found.data == {"x['lr']": "0.1"}
        assert fingerprint(taking([file])).unread == ("x",)
        assert fingerprint(taking([1])).unread == ()


def test_what_can_no_longer_be_read():
    """That a value became unreadable is told as such."""
    before, after = fingerprint(taking(1)), fingerprint(taking(iter([])))
    assert compare_fingerprints(before, after) == ["`x` can no longer be read"]
    assert compare_fingerprints(after, before) == ["`x` can now be read"]
    assert compare_fingerprints(after, after) == []


def test_cycles_and_depth():
    """What holds itself comes to an end, and what is too deep is told."""
    cyclic, deep = [1], []
    cyclic.append(cyclic)
    for _ in range(500):
        deep = [deep]
    assert data_of(cyclic) == {"x": "[1, cycle 1]"}
    assert fingerprint(taking(deep)).unread == ("x",)
    settings = {"lr": 1}
    settings["self"] = settings
    assert data_of(settings) == {"x['lr']": "1", "x['self']": "cycle 1"}


def test_doubling_containers():
    """What is held many times is read once."""
    nested = [1]
    for _ in range(40):
        nested = [nested, nested]
    assert list(data_of(nested)) == ["x"]


def test_ignored_objects():
    """What others describe is left out, wherever it is held."""
    model = Hostile(1)
    assert data_of(model, ignore=[model]) == {}
    assert fingerprint(taking(model), ignore=[model]).code.keys() == {"train"}
    held = data_of([model], ignore=[model])
    model.kept = 2
    assert data_of([model], ignore=[model]) == held
    assert data_of([model]) != held


# --- what can be called ----------------------------------------------------


class Trainer:
    """Trains in three ways."""

    def __init__(self, lr):
        self.lr = lr

    def __call__(self, model):
        return self.lr

    def fit(self, model):
        return self.lr + 1


@pytest.mark.parametrize(
    "make", [Trainer, lambda lr: Trainer(lr).fit], ids=["object", "method"]
)
def test_objects_and_methods(make):
    """An object that can be called counts with what it holds."""
    found = compare_fingerprints(fingerprint(make(0.1)), fingerprint(make(0.2)))
    assert found == ["`self.lr` was 0.1 and is 0.2"]
    assert fingerprint(make(0.1)) == fingerprint(make(0.1))
    assert "Trainer.fit" in fingerprint(make(0.1)).code


def add(a, b=1):
    """What partials are made of."""
    return a + b


def test_partials():
    """Their arguments go by the names of the parameters."""
    inner = functools.partial(add, 5)
    found = fingerprint(functools.partial(inner, b=2))
    assert found.code.keys() == {"add"}
    assert found.data == {"add(a)": "5", "add(b)": "2", "add(b) (2)": "1"}
    assert found != fingerprint(functools.partial(inner, b=3))


@pytest.mark.parametrize("function", [len, np.mean, np.add, json.dumps, str])
def test_functions_of_libraries_go_by_name(function):
    """What a library offers is what its name says."""
    found = fingerprint(function)
    assert found.code == {}
    assert list(found.data) == ["function"]
    assert found != fingerprint(max)


def test_lambdas_of_one_name():
    """Two functions of one name are told apart, and where each is used."""
    first, second = (lambda x: x + 1), (lambda x: x + 2)

    def make(one, two):
        return lambda model: one(two(model))

    assert fingerprint(make(first, second)).code.keys() == {
        "lambda",
        "one",
        "two",
    }
    assert fingerprint(make(first, second)) != fingerprint(make(second, first))


def test_closures_of_one_factory():
    """Two closures with one code differ by what they hold."""

    def scale(factor):
        def scaled(x):
            return x * factor

        return scaled

    def make(*factors):
        one, two = map(scale, factors)
        return lambda model: one(two(model))

    found = compare_fingerprints(
        fingerprint(make(2, 3)), fingerprint(make(2, 4))
    )
    assert found == ["`two.factor` was 3 and is 4"]


def test_functions_that_swapped_places():
    """Which name stands for which function counts."""
    program = """
        def plus(x): return x + 1
        def minus(x): return x - 1
        one, two = {}
        def train(model): return one(two(model))
    """
    text = textwrap.dedent(program)
    before = fingerprint(load(text.format("plus, minus")))
    after = fingerprint(load(text.format("minus, plus")))
    assert compare_fingerprints(before, after) == [
        "`one` was plus and is minus",
        "`two` was minus and is plus",
    ]


def test_closures_of_libraries_count_with_what_they_hold():
    """A function that a library made is more than its name."""
    one, same, other = map(reprlib.recursive_repr, "aab")
    assert data_of(one) == data_of(same) != data_of(other)
    assert fingerprint(taking(one)).unread == ()


def test_only_functions_have_fingerprints():
    """What cannot be called is refused."""
    with pytest.raises(TypeError, match=r"`function` must.*Received.*int"):
        fingerprint(3)
    with pytest.raises(TypeError, match=r"`function` must.*Received.*int"):
        find_generators(3)


# --- modules ---------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes modules of the person's own, and reads a `train` with them."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget():
        for name in [one for one in sys.modules if one.startswith("project_")]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def read(main, **sources):
        forget()
        for name, text in sources.items():
            path = tmp_path / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return fingerprint(load(textwrap.dedent(main)))

    yield read
    forget()


HELPERS = """
LIMIT = 3
unused = 1
def smooth(x):
    return x + LIMIT
"""

MAINS = {
    "import": "import project_helpers as h\ndef train(m): return h.smooth(m)",
    "from": "from project_helpers import smooth\n"
    "def train(m): return smooth(m)",
}


@pytest.mark.parametrize("main", MAINS.values(), ids=MAINS)
def test_modules_of_ones_own_are_followed(project, main):
    """Of a module count the functions that are used, and what they use."""
    before = project(main, project_helpers=HELPERS)
    assert {"train", "project_helpers.smooth"} == set(before.code)
    more = HELPERS.replace("unused = 1", "unused = 2  # More.")
    assert project(main, project_helpers=more) == before
    limit = project(main, project_helpers=HELPERS.replace("3", "4"))
    assert compare_fingerprints(before, limit) == [
        "`project_helpers.LIMIT` was 3 and is 4"
    ]
    other = project(main, project_helpers=HELPERS.replace("x +", "x -"))
    assert compare_fingerprints(before, other) == [
        "`project_helpers.smooth` was changed"
    ]


LATE = {
    "import": "def train(m):\n import project_helpers\n"
    " return project_helpers.smooth(m)",
    "from": "def train(m):\n from project_helpers import smooth\n"
    " return smooth(m)",
    "getattr": "import project_helpers\n"
    "def train(m): return getattr(project_helpers, 'smo' + 'oth')(m)",
}


@pytest.mark.parametrize("main", LATE.values(), ids=LATE)
def test_modules_that_are_used_as_a_whole(project, main):
    """Imported late or looked up by a string: the module's source counts."""
    helpers = "import project_deeper\n" + HELPERS
    sources = {"project_helpers": helpers, "project_deeper": "x = 1"}
    before = project(main, **sources)
    assert set(before.code) == {"train", "project_helpers", "project_deeper"}
    sources["project_helpers"] = helpers + "# The end."
    assert project(main, **sources) == before
    sources["project_deeper"] = "x = 2"
    assert compare_fingerprints(before, project(main, **sources)) == [
        "`project_deeper` was changed"
    ]


def test_modules_in_packages(project):
    """A package's modules are followed by their attributes too."""
    main = """
        import project_package.helpers
        def train(m): return project_package.helpers.smooth(m)
    """
    sources = {
        "project_package__in____init__": "",
        "project_package__in__helpers": HELPERS,
    }
    before = project(main, **sources)
    assert "project_package.helpers.smooth" in before.code
    sources["project_package__in__helpers"] = HELPERS.replace("x +", "x -")
    assert compare_fingerprints(before, project(main, **sources)) == [
        "`project_package.helpers.smooth` was changed"
    ]


def test_libraries_count_by_name():
    """What stands for a name of a library is told, not what it is made of."""
    program = "import {} as lib\ndef train(m): return lib.floor(m)"
    before = fingerprint(load(program.format("math")))
    assert (list(before.code), before.data) == (["train"], {"lib": "math"})
    after = fingerprint(load(program.format("numpy")))
    assert compare_fingerprints(before, after) == [
        "`lib` was math and is numpy"
    ]


# --- generators ------------------------------------------------------------


def test_generators_are_found():
    """By the names under which they are held; those of the process are not."""
    rng = np.random.default_rng(0)
    held = {"pool": [random.Random(1)], "old": np.random.RandomState(2)}
    draw = np.random.default_rng(3).normal

    def train(model):
        return rng, held, draw, np.random.rand(), random.random(), gauss()

    gauss = random.gauss
    found = find_generators(train)
    assert [name for name, _ in found] == [
        "draw.self",
        "held['pool'][0]",
        "held['old']",
        "rng",
    ]
    assert [one for _, one in found][-1] is rng
    assert find_generators(train, ignore=[rng]) == found[:-1]
    assert find_generators(taking(1)) == []


def test_generators_count_by_their_state():
    """Drawn from or not makes a difference, and which seed they had."""
    one, same = np.random.default_rng(0), np.random.default_rng(0)
    assert data_of(one) == data_of(same)
    one.random()
    assert data_of(one) != data_of(same)
    assert data_of(random.Random(1)) != data_of(random.Random(2))


def test_global_generators_stay_as_they_are():
    """Nothing is drawn, and a function that draws from them has no state."""
    before = np.random.get_state()[1].tolist(), random.getstate()
    found = fingerprint(taking(np.random.normal))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before
    np.random.seed(1)
    assert fingerprint(taking(np.random.normal)) == found
    assert fingerprint(taking(np.random.rand)) != found


# --- other frameworks ------------------------------------------------------


@pytest.mark.requires_backend
def test_keras_objects():
    """Settings and weights of models, optimizers and losses count."""
    import keras

    def model(units=2, seed=0):
        start = keras.initializers.GlorotUniform(seed=seed)
        layers = [keras.layers.Dense(units, kernel_initializer=start)]
        return keras.Sequential([keras.layers.Input((3,)), *layers])

    one = model()
    assert data_of(one) == data_of(model())
    assert data_of(one) != data_of(model(units=3))
    changed = model()
    changed.set_weights([weight + 1 for weight in changed.get_weights()])
    assert data_of(one) != data_of(changed)
    assert data_of(one, ignore=[one]) == {}
    sgd = keras.optimizers.SGD
    assert data_of(sgd(0.1)) == data_of(sgd(0.1)) != data_of(sgd(0.2))
    found = fingerprint(taking([one, sgd(0.1), keras.losses.Huber()]))
    assert found.unread == ()
    assert fingerprint(taking(keras.callbacks.History())).unread == ("x",)


@pytest.mark.requires_backend
def test_keras_seed_generators_are_found():
    """A `SeedGenerator` is found and counts by its state."""
    import keras

    one, same = (keras.random.SeedGenerator(3) for _ in range(2))
    assert find_generators(taking(one)) == [("x", one)]
    assert data_of(one) == data_of(same)
    one.next()
    assert data_of(one) != data_of(same)


@pytest.mark.requires_backend("torch")
def test_torch():
    """Tensors, generators and modules of PyTorch count by their values."""
    import torch

    ones = torch.ones(2, dtype=torch.bfloat16)
    assert data_of(ones) == data_of(ones.clone()) != data_of(ones * 2)
    one, same = torch.Generator(), torch.Generator()
    assert find_generators(taking(one)) == [("x", one)]
    assert find_generators(taking(torch.default_generator))[1:] == []
    assert data_of(one) == data_of(same)
    one.manual_seed(5)
    assert data_of(one) != data_of(same)
    layer = torch.nn.Linear(2, 1)
    before = fingerprint(taking(layer))
    with torch.no_grad():
        layer.weight += 1
    assert compare_fingerprints(before, fingerprint(taking(layer))) == [
        "`x._parameters['weight']` holds other values"
    ]


@pytest.mark.alike
@pytest.mark.requires_backend
def test_no_framework_is_imported(run_python):
    """Reading a fingerprint loads no Keras; the check itself can fail."""
    program = (
        "import sys; from keras_repro.trials.fingerprint import fingerprint;"
        "{} fingerprint(lambda m: m);"
        "print('keras' in sys.modules, 'pandas' in sys.modules)"
    )
    assert run_python("-c", program.format("")).stdout == "False False\n"
    found = run_python(
        "-c",
        program.format(
            "import types;sys.modules['keras'] = types.ModuleType('keras');"
        ),
    ).stdout
    assert found == "True False\n"
