"""Any layer is drawn by a seed, whether Keras can write it down or not."""

import random
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_repro as kr
from keras_repro.backends import random_streams
from keras_repro.model.redraw import Drawer
from keras_repro.model.replay import Recipe

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:.*lambda")


def double(value):
    return value * 2


class Block(L.Layer):
    """Without `get_config` and `build`, as most layers in examples."""

    def __init__(self, units):
        super().__init__()
        self.dense = L.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


class Mlp(L.Layer):
    """Its constructor gets a function, which Keras does not note."""

    def __init__(self, activation):
        super().__init__()
        self.inner = keras.Sequential([L.Dense(3, activation), Block(4)])
        self.drop = L.Dropout(0.1)

    def call(self, inputs):
        return self.drop(self.inner(inputs))


class Stack(L.Layer):
    """Holds layers in a list and in a dict, one of them twice."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.by_name = {"last": L.Dense(2), "first": layers[0]}

    def call(self, inputs):
        for layer in self.layers:
            inputs = layer(inputs)
        return self.by_name["last"](inputs)


class OwnWeights(L.Layer):
    """Makes weights in `build`, by initializers that it keeps or names."""

    def __init__(self, function):
        super().__init__()
        self.function, self.kernel = function, None
        self.initializer = keras.initializers.HeNormal()
        self.fixed = keras.initializers.RandomNormal(seed=7)

    def build(self, shape):
        size = shape[-1]
        if self.kernel is None:
            self.kernel = self.add_weight((size, 2), self.initializer)
        self.offset = self.add_weight((2,), "random_normal")
        self.table = self.add_weight((2,), self.fixed)

    def call(self, inputs):
        made = ops.matmul(inputs, self.kernel)
        return self.function(made + self.offset + self.table)


class Sum(L.Layer):
    """Has two inputs and an option."""

    def __init__(self):
        super().__init__()
        self.left, self.right = L.Dense(2), L.Dense(2)

    def call(self, left, right, scale=1.0):
        return self.left(left) + self.right(right) * scale


class Tokens(L.Layer):
    """Takes integers, and computes with them as such."""

    def __init__(self, function):
        super().__init__()
        self.embedding, self.function = L.Embedding(9, 2), function

    def call(self, inputs):
        found = ops.take(ops.arange(9), inputs // 2)
        return self.function(self.embedding(found))


class Generator(L.Layer):
    """Keeps a generator of Keras', and one of NumPy's that it builds from."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seeds = function, keras.random.SeedGenerator()
        self.rng = np.random.default_rng()

    def build(self, shape):
        values = self.rng.normal(size=shape[-1])
        initializer = keras.initializers.Constant(values)
        self.scale = self.add_weight((shape[-1],), initializer)

    def call(self, inputs):
        return self.function(inputs * self.scale)


class Seedless(keras.initializers.Initializer):
    """Draws, though it has no seed."""

    def __call__(self, shape, dtype=None):
        return from_numpy(shape, dtype)


class AtOnce(L.Layer):
    """Makes its weight in the constructor."""

    def __init__(self, units):
        super().__init__()
        self.kernel = self.add_weight((3, units), "glorot_uniform")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)


class Inner(keras.Model):
    """A model in a model, with a weight beside its layers."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)
        self.offset = self.add_weight((3,), "random_normal")

    def call(self, inputs):
        return self.dense(inputs) + self.offset


class Undrawable(L.Layer):
    """No way leads to it: nobody knows what its constructor was given."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.kernel = self.add_weight((3, 2), "glorot_uniform")

    def call(self, inputs):
        return self.function(ops.matmul(inputs, self.kernel))


class Net(kr.ReproducibleModel):
    """A subclass with layers, a weight and a generator of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block, self.sum = Block(3), Sum()
        self.tokens = Tokens(double)
        self.offset = self.add_weight((2,), "random_normal")
        self.seeds = keras.random.SeedGenerator()

    def call(self, inputs):
        hidden = self.block(inputs)
        tokens = self.tokens(ops.cast(inputs, "int32"))
        wide = ops.concatenate([hidden, inputs], -1)
        return self.sum(hidden, wide) + ops.mean(tokens) + self.offset


def wrap(make, shape=(3,), dtype="float32"):
    """What makes a model of a layer, with another layer behind it."""

    def build(seed):
        inputs = keras.Input(shape, dtype=dtype)
        outputs = L.Dense(1)(make()(inputs))
        return kr.ReproducibleModel(inputs, outputs, seed=seed)

    return build


def make_sum(seed):
    inputs = [keras.Input((3,)), keras.Input((5,))]
    outputs = Sum()(*inputs, scale=2.0)
    return kr.ReproducibleModel(inputs, outputs, seed=seed)


def make_net(seed):
    model = Net(seed=seed)
    model(np.ones((2, 3), "float32"))
    return model


def from_numpy(shape, dtype=None):
    return ops.convert_to_tensor(np.random.normal(size=shape), dtype)


CASES = {
    "no configuration": wrap(lambda: Block(2)),
    "function": wrap(lambda: Mlp(double)),
    "lists": wrap(lambda: Stack([L.Dense(3), L.BatchNormalization()])),
    "own weights": wrap(lambda: OwnWeights(double)),
    "two inputs": make_sum,
    "integers": wrap(lambda: Tokens(double), (4,), "int32"),
    "generators": wrap(lambda: Generator(double)),
    "at once": wrap(lambda: AtOnce(2)),
    "activation": wrap(lambda: L.Dense(2, lambda v: v * 2)),
    "initializer": wrap(lambda: L.Dense(2, kernel_initializer=from_numpy)),
    "seedless": wrap(lambda: L.Dense(2, kernel_initializer=Seedless())),
    "recurrent": wrap(lambda: L.LSTM(2, activation=double), (4, 3)),
    "inner model": wrap(Inner),
    "subclass": make_net,
}


def read(model):
    """The start of all weights and generators, as bytes by place."""
    state = model.initial_state
    return {
        entry.place: state.value_of(index).tobytes()
        for index, entry in enumerate(state.entries)
        if entry.role in {"weights", "random"}
    }


@pytest.mark.sampled(5)
@pytest.mark.usefixtures("no_global_seed")
@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_seed_draws_any_layer(build):
    """A start is a function of the seed, in place as in a fresh model."""
    random.seed(1)
    model = build(3)
    starts = {3: read(model)}
    random.seed(2)
    L.Dense(1)  # Takes a number from the program's generator.
    np.random.seed(5)
    assert read(build(3)) == starts[3]
    starts[4] = read(build(4))
    assert starts[4] != starts[3]
    for seed in (4, 5, 3, 4):
        model.reset(seed=seed)
        assert read(model) == starts.setdefault(seed, read(model))
    moved = {k for k in starts[3] if starts[3][k] != starts[4][k]}
    assert {k for k in moved if "table" in k} == set()
    assert len(moved) >= sum("kernel" in k for k in moved) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_global_seed")
def test_other_processes_draw_the_same(run_python, tmp_path):
    """The seed names the start of such a layer in any process."""
    path = tmp_path / "start.py"
    path.write_text(
        "import keras, keras_repro as kr\n"
        "class Block(keras.layers.Layer):\n"
        "    def __init__(self, units):\n"
        "        super().__init__()\n"
        "        self.dense = keras.layers.Dense(units)\n"
        "    def call(self, inputs):\n"
        "        return self.dense(inputs)\n"
        "model = kr.ReproducibleModel(\n"
        "    [keras.Input((3,)), Block(2), keras.layers.Dense(1)], seed=3\n"
        ")\n"
        "print(model.initial_state.checksum)\n"
    )
    here = kr.ReproducibleModel(
        [keras.Input((3,)), Block(2), L.Dense(1)], seed=3
    )
    printed = run_python(str(path)).stdout
    assert here.initial_state.checksum in printed


def test_layer_drawn_alone_moves_no_other():
    """Whatever such a layer draws, the others get what they got."""

    def draw(layer):
        layers = [keras.Input((3,)), L.Dense(3), layer, L.Dense(1)]
        start = read(kr.ReproducibleModel(layers, seed=3))
        return start["layers.0.kernel"], start["layers.2.kernel"]

    expected = draw(L.Activation("relu"))
    assert draw(Block(3)) == draw(Mlp(double))[:1] + expected[1:]
    assert draw(Block(3)) == expected
    # A layer that is drawn with the others does.
    assert draw(L.Dense(3)) != expected


class Scale(L.Layer):
    """Has nothing to draw, and no configuration."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor


def test_layer_without_weights_is_never_refused():
    """What has nothing to draw needs no configuration, and moves nothing."""

    def make(seed, *layers):
        layers = [keras.Input((3,)), *layers, L.Dense(2), L.Dense(1)]
        model = kr.ReproducibleModel(layers, seed=seed)
        return model, list(read(model).values())

    without = [L.Lambda(double), L.Lambda(lambda v: v * 2), Scale(2.0)]
    model, _ = make(1, *without)
    model.reset(seed=2)
    assert list(read(model).values()) == make(2)[1] != make(1)[1]


# --- adapted -----------------------------------------------------------------


def make_attention(seed):
    inputs = keras.Input((4, 6))
    outputs = L.MultiHeadAttention(2, 3)(inputs, inputs)
    return kr.ReproducibleModel(inputs, L.Dense(1)(outputs), seed=seed)


def adapt_attention(model):
    model.layers[1]._query_dense.enable_lora(2)


def adapt_block(model):
    model.layers[1].dense.enable_lora(2, lora_alpha=4)


def quantize(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of layers that cannot be.
        model.quantize("int8")


ADAPTED = {
    "attention": (make_attention, adapt_attention),
    "lora": (CASES["no configuration"], adapt_block),
    "quantized": (wrap(lambda: L.Dense(2)), quantize),
    "quantized copy": (CASES["function"], quantize),
    "quantized parts": (make_attention, quantize),
}
SLOW = {"quantized copy", "quantized parts"}


@pytest.mark.sampled(10)
@pytest.mark.usefixtures("no_global_seed")
@pytest.mark.parametrize(
    ("build", "adapt"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in SLOW))
        for name, case in ADAPTED.items()
    ],
)
def test_adapted_model_is_drawn_as_a_fresh_one(build, adapt):
    """As a fresh model that is drawn, and adapted then."""
    plain = read(build(4))
    model, fresh = build(3), build(4)
    adapt(model)
    adapt(fresh)
    first = read(model)
    model.reset(seed=4)
    assert read(model) == read(fresh) != first
    if adapt is not quantize:
        assert plain.items() <= read(model).items()
    model.reset(seed=3)
    assert read(model) == first


@pytest.mark.slow
def test_quantized_weights_that_somebody_loaded():
    """Nobody knows whether they were drawn: refused, until captured."""
    model = wrap(lambda: L.Dense(2))(3)
    model.set_weights([np.full(w.shape, 0.5) + w for w in model.weights])
    quantize(model)
    loaded = read(model)
    with pytest.raises(ValueError, match="quantized"):
        model.reset(seed=4)
    model.capture_initial_state()
    model.reset(seed=4)
    assert read(model) == loaded


def test_seed_of_the_present_trial_names_what_is_added():
    """After `reset(seed=...)` a layer that is added is of that seed."""

    def make(seed):
        return kr.ReproducibleModel([keras.Input((3,)), L.Dense(2)], seed=seed)

    model, fresh = make(3), make(4)
    model.reset(seed=4)
    for one in (model, fresh):
        one.add(Block(1))
    assert model.seed == 4
    assert read(model) == read(fresh)


# --- refused -----------------------------------------------------------------


def make_undrawable(seed, layer=None):
    layer = layer or Undrawable(double, name="odd")
    layers = [keras.Input((3,)), layer, L.Dense(1)]
    return kr.ReproducibleModel(layers, seed=seed)


def make_adopted():
    layers = [keras.Input((3,)), Undrawable(double, name="odd"), L.Dense(1)]
    model = kr.make_reproducible(keras.Sequential(layers))
    model.compile("sgd", "mse")
    return model


@pytest.mark.usefixtures("no_global_seed")
@pytest.mark.parametrize("seed", [3, None])
def test_what_cannot_be_drawn_is_refused_at_once(seed):
    """Where a start is drawn, with the name of the layer and what to add."""
    with pytest.raises(ValueError, match=r"'odd'.*Give the class a `get_conf"):
        make_undrawable(seed)
    # At each use, where a model is built later.
    layers = [Undrawable(double, name="odd"), L.Dense(1)]
    model = kr.ReproducibleModel(layers, seed=seed)
    for _ in range(2):
        with pytest.raises(ValueError, match="odd"):
            model(np.ones((2, 3), "float32"))


def test_study_refuses_what_cannot_be_drawn():
    """`run_trials` refuses before the first trial."""
    ran = []
    with pytest.raises(ValueError, match="odd"):
        kr.run_trials(make_adopted(), ran.append, seeds=2, progress=False)
    assert ran == []


def test_global_seed_keeps_what_cannot_be_drawn():
    """What plain Keras drew stays, and goes by a seed of the program's."""
    starts = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        model = make_undrawable(None)
        starts.append((model.seed, read(model)))
    assert starts[0] == starts[1]
    with pytest.raises(ValueError, match="odd"):
        model.reset(seed=model.seed + 1)
    model.reset()
    assert read(model) == starts[0][1]


def test_captured_weights_need_no_drawing():
    """What is to stay under every seed may be of any layer."""
    model = make_adopted()
    start = read(model)
    with pytest.raises(ValueError, match="odd"):
        model.reset(seed=4)
    model.capture_initial_state()
    model.reset(seed=4)
    assert read(model) == start


# --- replayed ----------------------------------------------------------------


def make_many(seed):
    inputs = keras.Input((4, 4, 2))
    hidden = L.Conv2D(2, 2, kernel_initializer="orthogonal")(inputs)
    hidden = L.BatchNormalization()(hidden)
    hidden = L.Reshape((9, 2))(L.Dropout(0.1, seed=3)(hidden))
    hidden = L.MultiHeadAttention(1, 2)(hidden, hidden)
    hidden = L.Bidirectional(L.LSTM(2))(L.Dropout(0.1)(hidden))
    ids = keras.Input((2,), dtype="int32")
    tokens = L.Flatten()(L.Embedding(5, 2)(ids))
    outputs = Mlp(double)(L.Concatenate()([hidden, tokens]))
    return kr.ReproducibleModel([inputs, ids], outputs, seed=seed)


def draw(drawer, model, seed):
    made = drawer.draw(model, seed)
    return {k: v.tobytes() for k, v in made.values.items()}, made.streams


def test_replay_is_the_drawing_bit_for_bit(monkeypatch):
    """Once two seeds were drawn, a third is the same without the layers."""
    model = make_many(3)
    model.reset(seed=4)
    full, end = draw(Drawer(), model, 5)
    drawer = model._repro.start.drawer
    monkeypatch.setattr(drawer, "_draw_layers", None)  # Not needed again.
    values, streams = draw(drawer, model, 5)
    assert values == full
    assert random_streams.is_same(streams, end)
    # One number less, and the streams stand elsewhere.
    first, *rest = drawer._recipe.streams
    first = type(first)(first.purpose, first.num_draws + 1, first.steps)
    drawer._recipe = Recipe(drawer._recipe.seed, [first, *rest])
    assert not random_streams.is_same(draw(drawer, model, 5)[1], end)


@pytest.mark.parametrize("name", ["initializer", "generators"])
def test_what_is_not_proven_is_drawn_in_full(name):
    """Numbers that Keras' initializers do not make are never replayed."""
    model = CASES[name](3)
    model.reset(seed=4)
    assert not model._repro.start.drawer._is_proven
    model.reset(seed=5)
    assert read(model) == read(CASES[name](5))


def test_what_is_added_after_seeds_were_drawn():
    """The layers are known by then, and nothing else is different."""

    def make(seeds):
        model = kr.ReproducibleModel([keras.Input((4,)), L.Dense(2)], seed=1)
        for seed in seeds:
            model.reset(seed=seed)
        model.extra = model.add_weight((2,), "random_normal")
        model.reset(seed=5)
        return model

    early, late = make([]), make([2, 3, 4])
    assert kr.compute_checksum(early) == kr.compute_checksum(late)
    late.reset(seed=6)
    assert kr.compute_checksum(early) != kr.compute_checksum(late)
