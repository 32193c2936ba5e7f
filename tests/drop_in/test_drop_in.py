"""What Keras' own classes do, ours do: the same scenarios, run on both.

A scenario takes the kind of model (Keras' or ours) and returns what a person
would see. Where it draws, both sides begin from the same global seed.
"""

import contextlib
import json
import pickle
import random

import keras
import numpy as np
import pytest

import keras_repro as kr
from tests.drop_in.sides import FIT, OURS, PLAIN, X, Y, observe

pytestmark = pytest.mark.usefixtures("no_global_seed")
BACKEND = keras.backend.backend()
L = keras.layers


# --- the models --------------------------------------------------------------


def sequential(kind):
    return kind.sequential(
        [
            keras.Input((4,)),
            L.Dense(3, activation="tanh"),
            L.Dropout(0.3, seed=5),
            L.Dense(1),
        ]
    )


def added(kind):
    model = kind.sequential(name="stack")
    for layer in (keras.Input((4,)), L.Dense(3), L.Dense(1)):
        model.add(layer)
    return model


def deferred(kind):
    return kind.sequential([L.Dense(3, activation="tanh"), L.Dense(1)])


def branches(kind):
    """Two branches whose layers were made in another order than used."""
    last, second, first = L.Dense(1), L.Dense(3), L.Dense(3, name="first")
    inputs = keras.Input((4,))
    merged = L.Concatenate()([first(inputs), second(inputs)])
    return kind.model(inputs, last(L.Dropout(0.2, seed=5)(merged)))


def by_name(kind):
    inputs = keras.Input((4,), name="x")
    return kind.model(inputs=inputs, outputs=L.Dense(1)(inputs), name="named")


def many(kind):
    """Inputs and outputs in dictionaries."""
    inputs = {
        "a": keras.Input((2,), name="a"),
        "b": keras.Input((2,), name="b"),
    }
    hidden = L.Dense(3)(L.Concatenate()([inputs["a"], inputs["b"]]))
    outputs = {"p": L.Dense(1, name="p")(hidden), "q": L.Dense(2)(hidden)}
    return kind.model(inputs, outputs)


def make_subclass(kind):
    """The class is made for each side; its name is the same."""

    class Subclass(kind.model):
        def __init__(self, units=3, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.hidden = L.Dense(units, activation="tanh")
            self.out = L.Dense(1)

        def call(self, inputs, training=False):
            return self.out(self.hidden(inputs))

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Subclass


def subclass(kind):
    return make_subclass(kind)()


def make_functional_subclass(kind):
    class Wrapper(kind.model):
        def __init__(self, width=3):
            inputs = keras.Input((4,))
            super().__init__(inputs, L.Dense(1)(L.Dense(width)(inputs)))
            self.width = width

        def call(self, *args, **kwargs):
            return super().call(*args, **kwargs)

    return Wrapper


def functional_subclass(kind):
    return make_functional_subclass(kind)()


BUILT = [sequential, added, branches, by_name, functional_subclass]
LATE = [deferred, subclass]
SINGLE = [*BUILT, *LATE]


def compiled(make, kind, **options):
    model = make(kind)
    eager = {"run_eagerly": True}  # Tracing would take most of the time.
    options = {"optimizer": "adam", "loss": "mse", **eager, **options}
    model.compile(**options)
    return model


def built(make, kind):
    model = make(kind)
    if make in LATE:
        model(X)  # A subclass is built by a call alone.
    return model


# --- what is seen ------------------------------------------------------------


def see_layers(kind, make):
    model = built(make, kind)
    return [(type(layer), layer.name, layer.built) for layer in model.layers]


def see_shapes(kind, make):
    model = built(make, kind)
    names = ("input_shape", "output_shape", "inputs", "outputs")
    return [repr(getattr(model, name, "none")) for name in names]


def see_name(kind, make):
    return [make(kind).name for _ in range(3)]


def see_weights(kind, make):
    model = built(make, kind)
    return [
        [(v.path, v.name, v.shape, v.dtype) for v in getattr(model, name)]
        for name in ("weights", "trainable_weights", "variables")
    ]


def see_values(kind, make):
    return [weight.tolist() for weight in built(make, kind).get_weights()]


def see_summary(kind, make):
    lines = []
    built(make, kind).summary(print_fn=lines.append, line_length=90)
    return lines


def see_count(kind, make):
    return built(make, kind).count_params()


def see_config(kind, make):
    return built(make, kind).get_config()


def see_round_trip(kind, make):
    model = built(make, kind)
    if make is functional_subclass:
        return "Keras cannot: the constructor takes other arguments"
    other = type(model).from_config(model.get_config())
    return type(other) is type(model), other.get_config(), other.built


def see_flags(kind, make):
    model = built(make, kind)
    model.trainable = False
    return [layer.trainable for layer in model.layers], len(model.weights)


def see_get_layer(kind, make):
    model = built(make, kind)
    name = model.layers[-1].name
    return model.get_layer(name).name, model.get_layer(index=0).name


def see_call(kind, make):
    model = built(make, kind)
    return keras.ops.convert_to_numpy(model(X)).tolist()


def see_spec(kind, make):
    model = built(make, kind)
    spec = model.compute_output_spec(keras.KerasTensor((None, 4)))
    try:
        shape = model.compute_output_shape((None, 4))
    except NotImplementedError:  # Keras' own, of a subclass on PyTorch.
        shape = "not implemented"
    return spec.shape, spec.dtype, shape


LOOKS = [
    see_layers,
    see_shapes,
    see_name,
    see_weights,
    see_values,
    see_summary,
    see_count,
    see_config,
    see_round_trip,
    see_flags,
    see_get_layer,
    see_call,
    see_spec,
]


@pytest.mark.slow
@pytest.mark.parametrize("make", SINGLE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("look", LOOKS, ids=lambda f: f.__name__)
def test_looks_the_same(look, make):
    """Each attribute of ours equals that of Keras' own class."""
    assert observe(look, OURS, make) == observe(look, PLAIN, make)


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS, ids=lambda f: f.__name__)
def test_looks_differ_between_models(look):
    """The twin: each look tells one model from another."""
    if look is see_round_trip:
        pytest.skip("covered by the configuration it returns")
    one = observe(look, OURS, sequential)
    assert one != observe(look, OURS, branches) or look is see_spec
    assert one == observe(look, OURS, sequential)


@pytest.mark.slow
def test_values_depend_on_the_seed():
    """The twin: weights are compared by value, not by being there."""
    one = observe(see_values, OURS, sequential)
    assert one != observe(see_values, OURS, sequential, seed=4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("make", SINGLE, ids=lambda f: f.__name__)
def test_kind_of_model(make):
    """A list gives a Sequential, tensors a Functional, all of them a Model."""
    for kind in (PLAIN, OURS):
        model = make(kind)
        is_list = make in (sequential, added, deferred)
        assert isinstance(model, keras.Sequential) == is_list
        is_graph = make in (branches, by_name, functional_subclass)
        assert isinstance(model, kind.functional) == is_graph
        assert isinstance(model, keras.Model)
        assert isinstance(model, kr.ReproducibleModel) == (kind is OURS)


def strip_classes(config):
    """The same, without the wording of our classes."""
    text = json.dumps(config)
    for name, plain in (
        ("ReproducibleSequential", "Sequential"),
        ("ReproducibleFunctional", "Functional"),
    ):
        text = text.replace(f"keras_repro>{name}", plain).replace(name, plain)
    config = json.loads(text)
    for part in ("module", "registered_name"):
        config.pop(part)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("make", [sequential, branches, deferred])
def test_to_json(make):
    """The JSON of a model is that of Keras' class but for the class."""
    texts = [
        json.loads(observe(lambda k: make(k).to_json(), kind))
        for kind in (OURS, PLAIN)
    ]
    assert texts[0] != texts[1]
    assert strip_classes(texts[0]) == strip_classes(texts[1])
    model = keras.models.model_from_json(json.dumps(texts[0]))
    assert isinstance(model, kr.ReproducibleModel)


# --- building ----------------------------------------------------------------


@pytest.mark.slow
def test_given_layers_in_any_iterable():
    """A list, a tuple or a generator of layers, as Keras takes them."""

    def scenario(kind, wrap):
        model = kind.sequential(wrap([keras.Input((4,)), L.Dense(1)]))
        return [type(layer) for layer in model.layers], model.built

    for wrap in (list, tuple, iter, lambda layers: (x for x in layers)):
        plain = observe(scenario, PLAIN, wrap)
        assert observe(scenario, OURS, wrap) == plain
        assert len(plain[0]) == 1


@pytest.mark.slow
def test_keywords_of_the_constructors():
    """Names, flags and layers by keyword."""

    def scenario(kind):
        a = kind.sequential(layers=[L.Dense(1)], name="n", trainable=False)
        b = kind.sequential()
        c = kind.sequential(None, False, "positional")
        inputs = keras.Input((2,))
        d = kind.model(inputs, L.Dense(1)(inputs), name="d", trainable=False)
        e = kind.model([inputs], outputs=[L.Dense(1)(inputs)])
        return [
            (model.name, model.trainable, len(model.layers))
            for model in (a, b, c, d, e)
        ]

    assert observe(scenario, OURS) == observe(scenario, PLAIN)


@pytest.mark.slow
def test_add_and_pop():
    """Layers come and go as in a `keras.Sequential`."""

    def scenario(kind):
        model = sequential(kind)
        seen = [model.pop().name, model.output_shape, len(model.weights)]
        model.add(L.Dense(2))
        seen += [model.output_shape, len(model.weights)]
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(X, X[:, :2], **FIT)
        model.add(L.Dense(5))
        return [*seen, model.output_shape, model.predict(X, verbose=0).shape]

    assert observe(scenario, OURS) == observe(scenario, PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("make", LATE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("how", ["build", "call", "fit", "evaluate", "predict"])
def test_built_late(make, how):
    """A model without `Input` is built by the first thing that it sees."""
    if make is subclass and how == "build":
        pytest.skip("Keras cannot build a subclass that has no `build`")

    def scenario(kind):
        model = compiled(make, kind)
        seen = [model.built, len(model.weights), repr(model)]
        {
            "build": lambda: model.build((12, 4)),
            "call": lambda: model(X),
            "fit": lambda: model.fit(X, Y, **FIT),
            "evaluate": lambda: model.evaluate(X, Y, verbose=0),
            "predict": lambda: model.predict(X, verbose=0),
        }[how]()
        weights = [weight.tolist() for weight in model.get_weights()]
        return [*seen, model.built, weights]

    ours, plain = observe(scenario, OURS), observe(scenario, PLAIN)
    assert ours[2].replace("Reproducible", "") == plain[2]
    assert ours[:2] + ours[3:] == plain[:2] + plain[3:]
    assert plain[0] is False


# --- mistakes ----------------------------------------------------------------


def fit_uncompiled(kind):
    sequential(kind).fit(X, Y)


def evaluate_uncompiled(kind):
    sequential(kind).evaluate(X, Y)


def train_on_batch_uncompiled(kind):
    deferred(kind).train_on_batch(X, Y)


def add_no_layer(kind):
    sequential(kind).add("dense")


def list_with_no_layer(kind):
    kind.sequential([L.Dense(1), 3])


def not_iterable(kind):
    kind.sequential(3)


def same_names(kind):
    kind.sequential([L.Dense(1, name="a"), L.Dense(1, name="a")])


def same_names_in_a_graph(kind):
    inputs = keras.Input((4,))
    hidden = L.Dense(1, name="a")(inputs)
    kind.model(inputs, L.Dense(1, name="a")(hidden))


def second_input(kind):
    sequential(kind).add(keras.Input((4,)))


def disconnected(kind):
    inputs, other = keras.Input((4,)), keras.Input((3,))
    kind.model(inputs, L.Dense(1)(other))


def wrong_shape_in_call(kind):
    sequential(kind)(X[:, :3])


def wrong_shape_in_fit(kind):
    compiled(sequential, kind, run_eagerly=True).fit(X[:, :3], Y, verbose=0)


def wrong_lengths(kind):
    compiled(sequential, kind).fit(X, Y[:3], verbose=0)


def no_data(kind):
    compiled(sequential, kind).fit(verbose=0)


def text_as_data(kind):
    compiled(sequential, kind).fit("x", Y, verbose=0)


def two_kinds_of_weights(kind):
    compiled(sequential, kind).fit(
        X, Y, sample_weight=Y, class_weight={0: 1.0}, verbose=0
    )


def unknown_argument(kind):
    compiled(sequential, kind).fit(X, Y, epoch=2)


def too_many_arguments(kind):
    compiled(sequential, kind).fit(*([X] * 40))


def argument_twice(kind):
    compiled(sequential, kind).fit(X, x=X)


def unknown_argument_in_evaluate(kind):
    compiled(sequential, kind).evaluate(X, Y, epoch=2)


def unbuilt_weights(kind):
    deferred(kind).count_params()


def unbuilt_shape(kind):
    return deferred(kind).input_shape


def unbuilt_save(kind):
    deferred(kind).save_weights("never.weights.h5")


def unknown_layer(kind):
    sequential(kind).get_layer("nowhere")


def unknown_keyword(kind):
    kind.sequential(layer=[L.Dense(1)])


def no_call_method(kind):
    class Empty(kind.model):
        pass

    Empty()(X)


def bad_weights(kind):
    sequential(kind).set_weights([np.ones((2, 2))])


def bad_optimizer(kind):
    sequential(kind).compile("no such optimizer", "mse")


def bad_file(kind):
    sequential(kind).load_weights("missing.weights.h5")


def pop_nothing(kind):
    kind.sequential().pop()


MISTAKES = [
    fit_uncompiled,
    evaluate_uncompiled,
    train_on_batch_uncompiled,
    add_no_layer,
    list_with_no_layer,
    not_iterable,
    same_names,
    same_names_in_a_graph,
    second_input,
    disconnected,
    wrong_shape_in_call,
    wrong_shape_in_fit,
    wrong_lengths,
    no_data,
    text_as_data,
    two_kinds_of_weights,
    unknown_argument,
    too_many_arguments,
    argument_twice,
    unknown_argument_in_evaluate,
    unbuilt_weights,
    unbuilt_shape,
    unbuilt_save,
    unknown_layer,
    unknown_keyword,
    no_call_method,
    bad_weights,
    bad_optimizer,
    bad_file,
    pop_nothing,
]


def error_of(scenario, kind):
    try:
        scenario(kind)
    except Exception as error:  # noqa: BLE001 - each raises its own
        text = str(error).replace("Reproducible", "")
        return type(error), " ".join(text.split())
    return None


@pytest.mark.sampled(30)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_mistakes_raise_the_same(mistake):
    """A mistake gets the error that Keras gives, with the same words."""
    ours = observe(lambda kind: error_of(mistake, kind), OURS)
    plain = observe(lambda kind: error_of(mistake, kind), PLAIN)
    assert plain is not None
    assert ours == plain


def test_no_mistake_raises_nothing():
    """The twin: a right call is no error on either side."""
    for kind in (OURS, PLAIN):
        assert error_of(lambda k: sequential(k)(X), kind) is None


def summary_of_unbuilt(kind):
    lines = []
    deferred(kind).summary(print_fn=lines.append, line_length=90)
    return lines


@pytest.mark.slow
def test_summary_of_an_unbuilt_model():
    """A summary before the build says what Keras' does."""
    ours = observe(summary_of_unbuilt, OURS)
    assert ours == observe(summary_of_unbuilt, PLAIN)
    assert ours != observe(see_summary, OURS, deferred)


# --- training ----------------------------------------------------------------


def unseeded_dropout(kind):
    return kind.sequential([L.Dense(3), L.Dropout(0.5), L.Dense(1)])


def normalized(kind):
    inputs = keras.Input((4,))
    hidden = L.BatchNormalization()(L.Dense(3)(inputs))
    return kind.model(inputs, L.Dense(1)(hidden))


def train(kind, make, run_eagerly=True, **options):
    model = compiled(make, kind, run_eagerly=run_eagerly)
    history = model.fit(X, Y, **{**FIT, **options}).history
    return history, [weight.tolist() for weight in model.get_weights()]


@pytest.mark.sampled(9)
@pytest.mark.parametrize(
    "make", [*SINGLE, unseeded_dropout, normalized], ids=lambda f: f.__name__
)
def test_first_training_equals_that_of_keras(make):
    """After a global seed the first `fit` is that of Keras, bit for bit."""
    if make is unseeded_dropout and BACKEND == "torch":
        pytest.skip("Keras draws it from torch's global generator")
    results = []
    eager = make is not sequential  # One with compiled functions will do.
    for kind, seed in ((PLAIN, 3), (OURS, 3), (OURS, 4)):
        keras.utils.clear_session()
        kr.seed_everything(seed, deterministic=False)
        results.append(train(kind, make, run_eagerly=eager))
    plain, ours, other = results
    assert ours == plain
    assert other != plain


@pytest.mark.slow
def test_only_the_order_is_ours():
    """The twin: with shuffling, the order of the data is another one."""
    plain = observe(train, PLAIN, sequential)
    assert observe(lambda k: train(k, sequential, shuffle=True), OURS) != plain


def with_equal_weights(make, **options):
    """A model of each side with the same weights."""
    models = []
    for kind in (OURS, PLAIN):
        keras.utils.clear_session()
        models.append(compiled(make, kind, **options))
        if make in LATE:
            models[-1](X)
    models[0].set_weights(models[1].get_weights())
    return models


@pytest.mark.slow
@pytest.mark.parametrize("make", [sequential, branches, subclass])
def test_evaluation_returns_the_same(make):
    """`evaluate`, `predict` and their like return what Keras returns."""
    results = []
    for model in with_equal_weights(make, metrics=["mae"]):
        results.append(
            repr(
                [
                    model.evaluate(X, Y, verbose=0),
                    model.evaluate(X, Y, 5, 0, return_dict=True),
                    model.predict(X, 5, 0).tolist(),
                    model.predict_on_batch(X).tolist(),
                    model.test_on_batch(X, Y),
                    model.test_on_batch(X, Y, return_dict=True),
                ]
            )
        )
        model.layers[-1].set_weights(
            [w + 1 for w in model.layers[-1].get_weights()]
        )
        assert repr(model.evaluate(X, Y, verbose=0)) not in results[-1]
    assert results[0] == results[1]


@pytest.mark.slow
def test_forms_of_train_on_batch():
    """`train_on_batch` returns numbers, lists or a dictionary alike."""
    results = [
        repr(
            [
                model.train_on_batch(X, Y),
                model.train_on_batch(X, Y, return_dict=True),
                model.train_on_batch(X, Y, sample_weight=np.ones(12)),
                model.train_on_batch(x=X, y=Y, class_weight=None),
            ]
        )
        for model in with_equal_weights(added, metrics=["mae"])
    ]
    assert results[0] == results[1]


FIT_CALLS = {
    "positional": lambda m: m.fit(X, Y, 5, 2, 0, None, 0.0, None, False),
    "keyword": lambda m: m.fit(
        x=X, y=Y, batch_size=5, epochs=2, verbose=0, shuffle=False
    ),
    "validation": lambda m: m.fit(X, Y, validation_data=(X, Y), **FIT),
    "split": lambda m: m.fit(X, Y, validation_split=0.25, **FIT),
    "weights": lambda m: m.fit(
        X, Y, sample_weight=np.arange(12.0, dtype="float32"), **FIT
    ),
    "steps": lambda m: m.fit(X, Y, steps_per_epoch=2, **{**FIT, "epochs": 1}),
    "initial epoch": lambda m: m.fit(X, Y, initial_epoch=1, **FIT),
    "no epoch": lambda m: m.fit(X, Y, initial_epoch=2, **FIT),
    "validation frequency": lambda m: m.fit(
        X, Y, validation_data=(X, Y), validation_freq=2, **FIT
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIT_CALLS)
def test_ways_to_call_fit(name):
    """Every way to call `fit` gives the history that Keras gives."""
    seen = []
    for model in with_equal_weights(added, metrics=["mae"]):
        history = FIT_CALLS[name](model)
        seen.append((history.epoch, list(history.history), history.params))
        seen[-1] += (repr(history.history), history is model.history)
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(
            model.evaluate(X, Y, verbose=0)
        )
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_dictionaries_of_arrays():
    """Inputs and outputs by name, with a loss for each."""
    x = {"a": X[:, :2], "b": X[:, 2:]}
    y = {"p": Y, "q": X[:, :2]}

    def scenario(kind, scale):
        model = many(kind)
        model.compile(
            "sgd",
            {"p": "mse", "q": "mae"},
            {"p": scale, "q": 1.0},
            run_eagerly=True,
        )
        history = model.fit(x, y, **FIT).history
        predicted = model.predict(x, verbose=0)
        return repr([history, {k: v.tolist() for k, v in predicted.items()}])

    plain = observe(scenario, PLAIN, 0.5)
    assert observe(scenario, OURS, 0.5) == plain
    assert observe(scenario, OURS, 0.7) != plain


class Stop(keras.callbacks.Callback):
    """Stops after the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.slow
def test_stopped_by_a_callback():
    """`stop_training` ends the training, and says so afterwards."""
    for model in with_equal_weights(added):
        history = model.fit(X, Y, callbacks=[Stop()], **FIT)
        assert history.epoch == [0]
        assert model.stop_training is True
        assert model.fit(X, Y, **FIT).epoch == [0, 1]
        assert model.stop_training is False


def test_custom_train_step():
    """A `train_step` of one's own is used, with its own logs."""

    def scenario(kind):
        class Custom(make_subclass(kind)):
            def train_step(self, *args):
                logs = super().train_step(*args)
                if BACKEND == "jax":
                    return {**logs[0], "mine": 7.0}, logs[1]
                return {**logs, "mine": 7.0}

        model = Custom()
        model.compile("sgd", "mse", run_eagerly=True)
        history = model.fit(X, Y, **FIT).history
        return history, [w.tolist() for w in model.get_weights()]

    plain = observe(scenario, PLAIN)
    assert observe(scenario, OURS) == plain
    assert plain[0]["mine"] == [7.0, 7.0]
    assert observe(scenario, OURS, seed=4) != plain


# --- subclasses --------------------------------------------------------------


@pytest.mark.slow
def test_constructor_runs_once():
    """A constructor with side effects is run once per model."""

    def scenario(kind):
        made = []

        class Counting(kind.model):
            def __init__(self, width, seed=None):
                made.append((width, seed))
                super().__init__()
                self.out = L.Dense(width)

        return Counting(2, seed=9).out.units, made

    assert observe(scenario, OURS) == observe(scenario, PLAIN)
    assert observe(scenario, OURS) == (2, [(2, 9)])


def test_attributes_of_a_subclass():
    """Layers, lists and plain values set on a model are tracked alike."""

    def scenario(kind):
        class Holder(kind.model):
            def __init__(self):
                super().__init__()
                self.parts = [L.Dense(2), L.Dense(1)]
                self.table = {"a": L.Dense(1)}
                self.number = 3

        model = Holder()
        return [layer.name for layer in model.layers], model.number

    assert observe(scenario, OURS) == observe(scenario, PLAIN)


# --- saving ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [sequential, added, branches, deferred])
def test_keras_file(tmp_path, make):
    """A `.keras` file gives the class, the values and the compilation."""
    for kind in (OURS, PLAIN):
        model = compiled(make, kind, metrics=["mae"])
        model.fit(X, Y, **FIT)
        model.save(tmp_path / "m.keras")
        other = keras.saving.load_model(tmp_path / "m.keras")
        assert type(other) is type(model)
        assert [(type(layer), layer.name) for layer in other.layers] == [
            (type(layer), layer.name) for layer in model.layers
        ]
        assert other.get_compile_config() == model.get_compile_config()
        assert other.predict(X, verbose=0).tolist() == (
            model.predict(X, verbose=0).tolist()
        )
        slots = [np.array(v).tolist() for v in other.optimizer.variables]
        assert slots == [
            np.array(v).tolist() for v in model.optimizer.variables
        ]
        loss = other.fit(X, Y, **FIT).history["loss"][0]
        assert other.fit(X, Y, **FIT).history["loss"][0] != loss


@pytest.mark.slow
def test_keras_file_of_a_subclass(tmp_path):
    """A subclass comes back by `custom_objects`, as in Keras."""
    for kind in (OURS, PLAIN):
        cls = make_subclass(kind)
        model = cls(units=5)
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(X, Y, **FIT)
        model.save(tmp_path / "m.keras")
        other = keras.saving.load_model(
            tmp_path / "m.keras", custom_objects={"Subclass": cls}
        )
        assert (type(other), other.units) == (cls, 5)
        assert other.predict(X, verbose=0).tolist() == (
            model.predict(X, verbose=0).tolist()
        )


@pytest.mark.parametrize("make", [sequential, branches, subclass])
def test_weights_travel_between_both(tmp_path, make):
    """A file of weights of either side fits the other."""
    path = tmp_path / "m.weights.h5"
    for first, second in ((OURS, PLAIN), (PLAIN, OURS)):
        model, other = built(make, first), built(make, second)
        assert (
            model.get_weights()[0].tolist() != other.get_weights()[0].tolist()
        )
        model.save_weights(path)
        other.load_weights(path)
        assert [w.tolist() for w in model.get_weights()] == [
            w.tolist() for w in other.get_weights()
        ]


@pytest.mark.slow
@pytest.mark.parametrize("copy", ["pickle", "clone"])
@pytest.mark.parametrize("make", [sequential, branches, deferred])
def test_copies(make, copy):
    """A copy is of the same class, and goes its own way."""
    model = compiled(make, OURS)
    model.fit(X, Y, **FIT)
    if copy == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        other = model.clone()
    assert type(other) is type(model)
    assert other is not model
    before = [w.tolist() for w in model.get_weights()]
    assert [w.tolist() for w in other.get_weights()] == before
    assert other.seed == model.seed
    losses = other.fit(X, Y, **FIT).history["loss"]
    assert [w.tolist() for w in other.get_weights()] != before
    assert [w.tolist() for w in model.get_weights()] == before
    assert model.fit(X, Y, **FIT).history["loss"] == losses


# Keras says that an optimizer without slots has none to load.
@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")
def test_clone_model_gives_a_plain_sequential():
    """Keras' own cloning gives Keras' own class, as is documented."""
    model = compiled(sequential, OURS)
    other = keras.models.clone_model(model)
    assert type(other) is keras.Sequential
    assert type(model.clone()) is type(model)
    assert type(other) is not type(model)


# --- nesting -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [sequential, branches, deferred, subclass])
def test_nested(make):
    """Ours in a plain model, and a plain one in ours, train as in Keras."""

    def scenario(outer, inner):
        model = outer.sequential([keras.Input((4,)), make(inner), L.Dense(1)])
        model.compile("adam", "mse", run_eagerly=True)
        history = model.fit(X, Y, **FIT).history
        names = [variable.path for variable in model.variables]
        return history, names, model.predict(X, verbose=0).tolist()

    plain = observe(scenario, PLAIN, PLAIN)
    assert observe(scenario, PLAIN, OURS) == plain
    assert observe(scenario, OURS, PLAIN) == plain
    assert observe(scenario, OURS, OURS) == plain
    assert observe(scenario, OURS, OURS, seed=4) != plain


@pytest.mark.slow
def test_random_generators_of_the_program():
    """Making a model draws what Keras draws from the program, no more."""

    def scenario(kind):
        make_positions = []
        for make in SINGLE:
            built(make, kind)
            make_positions.append((random.random(), float(np.random.random())))
        return make_positions

    plain = observe(scenario, PLAIN)
    assert observe(scenario, OURS) == plain
    assert observe(scenario, OURS, seed=4) != plain


def test_everything_public_is_there():
    """Each public name of Keras' classes exists on ours."""
    for make in SINGLE:
        ours, plain = make(OURS), make(PLAIN)
        names = {name for name in dir(plain) if not name.startswith("_")}
        assert names - set(dir(ours)) == set()
        extra = set(dir(ours)) - set(dir(plain))
        assert {"reset", "seed", "trial", "clone"} <= extra
        with contextlib.suppress(AttributeError):
            assert plain.reset
            pytest.fail("the plain model has a reset")
