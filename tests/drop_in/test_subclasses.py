"""Subclasses, their files, and what is put around their methods.

Each scenario is run with Keras' classes and with ours, as in `test_drop_in`.
"""

import abc
import copy
import functools
import inspect

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends import keras_internals
from keras_repro.model import kinds
from tests.drop_in.sides import FIT, OURS, PLAIN, X, Y, observe

pytestmark = pytest.mark.usefixtures("no_global_seed")
L = keras.layers
TRAINER = [
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
]


def same_on_both(scenario, *args):
    """What ours shows, which must be what Keras' shows."""
    plain = observe(scenario, PLAIN, *args)
    assert observe(scenario, OURS, *args) == plain
    return plain


def dense(width=1):
    inputs = keras.Input((4,))
    return inputs, L.Dense(width)(inputs)


def train(model):
    model.compile("sgd", "mse", run_eagerly=True)
    return model.fit(X, Y, **FIT).history["loss"]


# --- constructors ------------------------------------------------------------


class Tracking:
    """Reads in `metrics` what only the end of a constructor makes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="loss")

    was_read_early = False

    @property
    def metrics(self):
        self.was_read_early |= getattr(self, "tracker", None) is None
        return [self.tracker]

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.tracker.update_state(loss)
        return loss


def graph_with_tracker(kind):
    return type("Graph", (Tracking, kind.model), {})(*dense())


def layers_with_tracker(kind):
    layers = [keras.Input((4,)), L.Dense(1)]
    return type("Stack", (Tracking, kind.sequential), {})(layers)


def own_layers_with_tracker(kind):
    class Own(kind.model):
        def __init__(self):
            super().__init__()
            self.out = L.Dense(1)
            self.out.build((None, 4))

        def call(self, inputs):
            return self.out(inputs)

    return type("Tracked", (Tracking, Own), {})()


def compiled_tracker(kind):
    class Late(kind.model):
        def compile(self, *args, **kwargs):
            super().compile(*args, **kwargs)
            self.tracker = keras.metrics.Mean(name="loss")

        @property
        def metrics(self):
            return [self.tracker]

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            self.tracker.update_state(loss)
            return loss

    return Late(*dense())


TRACKED = [
    graph_with_tracker,
    layers_with_tracker,
    own_layers_with_tracker,
    compiled_tracker,
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("make", TRACKED, ids=lambda one: one.__name__)
def test_trackers_made_last(make):
    """A constructor may end with what its properties read."""
    same_on_both(lambda kind: (train(make(kind)), make(kind).name))
    model = make(OURS)
    assert not getattr(model, "was_read_early", False)
    model.reset(seed=3)
    first = train(model)
    model.reset(seed=4)
    assert train(model) != first
    model.reset(seed=3)
    assert train(model) == first


def test_a_half_made_model_cannot_be_read():
    """The twin: who asks within the constructor finds it half made."""

    class Asking(kr.ReproducibleModel):
        def __init__(self):
            super().__init__(*dense())
            assert self.initial_state is not None

    class Tracked(Tracking, Asking):
        pass

    assert Asking().initial_state is not None
    assert Tracked().was_read_early


@pytest.mark.parametrize("is_patched", [False, True])
def test_a_seed_is_drawn_when_the_constructor_ends(is_patched):
    """Whoever sees the weights first sees those of the seed."""

    class Net(kr.ReproducibleModel):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.out = L.Dense(2)
            self(np.zeros((1, 4)))
            self.seen = self.out.kernel.numpy().tolist()

        def call(self, inputs):
            return self.out(inputs)

    if is_patched:
        make = Net.__init__

        def patched(self, **kwargs):
            make(self, **kwargs)
            self.is_patched = True

        Net.__init__ = patched
    one, again, other = Net(seed=3), Net(seed=3), Net(seed=4)
    kernels = [net.out.kernel.numpy().tolist() for net in (one, again, other)]
    assert kernels[0] == kernels[1] != kernels[2]
    assert one.seen != kernels[0]
    assert one.seed == 3
    one.reset()
    assert one.out.kernel.numpy().tolist() == kernels[0]


def test_weights_loaded_by_a_constructor_stay(tmp_path):
    """What a constructor loads is the start, under every seed."""
    path = tmp_path / "w.weights.h5"
    source = keras.Model(*dense())
    source.set_weights([np.full((4, 1), 2.0), np.ones(1)])
    source.save_weights(path)

    class Loaded(kr.ReproducibleModel):
        def __init__(self, **kwargs):
            super().__init__(*dense(), **kwargs)
            self.load_weights(path)
            self.tracker = keras.metrics.Mean()

        metrics = Tracking.metrics

    for model in (Loaded(), Loaded(seed=5)):
        model.reset(seed=6)
        assert model.get_weights()[0].tolist() == [[2.0]] * 4


def test_an_attribute_named_seed():
    """A constructor may keep a `seed` of its own; later it is refused."""

    class Seeded(kr.ReproducibleModel):
        def __init__(self, seed=None):
            super().__init__(*dense())
            self.seed = seed

    model = Seeded((1, 2))
    assert model.seed == (1, 2)
    assert isinstance(model._repro.seeds.seed, int)
    with pytest.raises(AttributeError, match=r"reset\(seed="):
        kr.ReproducibleModel(*dense()).seed = 3


def test_layers_named_like_our_methods():
    """A layer that is called as a method of ours is the layer."""

    def scenario(kind):
        class Named(kind.model):
            def __init__(self):
                super().__init__()
                self.add, self.clone = L.Add(), L.Dense(1)

            def call(self, inputs):
                return self.add([self.clone(inputs), self.clone(inputs)])

        model = Named()
        return keras.ops.convert_to_numpy(model(X)).tolist()

    same_on_both(scenario)


# --- classes -----------------------------------------------------------------


def make_class(kind, base="model", init=None, **content):
    """A registered class of the same name on both sides."""
    if init is not None:
        content["__init__"] = init
    cls = type("Made", (getattr(kind, base),), content)
    return keras.saving.register_keras_serializable("tests")(cls)


def graph_init(self, width=2, **kwargs):
    kind = self.made_of
    super(kind, self).__init__(*dense(width), **kwargs)
    self.width = width


def make_graph_class(kind):
    cls = make_class(
        kind,
        init=graph_init,
        get_config=lambda self: {"width": self.width, "name": self.name},
    )
    cls.made_of = cls
    return cls


def make_open_class(kind):
    return make_class(kind)


def make_stack_class(kind):
    return make_class(kind, "sequential")


def of_graph_class(kind):
    return make_graph_class(kind)(3)


def of_open_class(kind):
    return make_open_class(kind)(*dense(2))


def of_stack_class(kind):
    return make_stack_class(kind)([keras.Input((4,)), L.Dense(2)])


def of_adding_class(kind):
    def init(self, **kwargs):
        super(cls, self).__init__(**kwargs)
        self.add(keras.Input((4,)))
        self.add(L.Dense(2))

    cls = make_class(kind, "sequential", init=init)
    return cls()


OF_A_CLASS = [of_graph_class, of_open_class, of_stack_class, of_adding_class]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("make", OF_A_CLASS, ids=lambda one: one.__name__)
def test_a_model_is_of_its_class(make):
    """The class is the one that was called, each time."""

    def scenario(kind):
        model = make(kind)
        again = type(model)(*dense(2)) if make is of_open_class else None
        return (
            type(model).__name__,
            again is None or type(again) is type(model),
            isinstance(model, keras.Sequential),
            isinstance(model, kind.functional),
            model.name,
            len(model.layers),
            tuple(model(X).shape),
            train(model),
        )

    same_on_both(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["keras", "h5", "copy", "json"])
@pytest.mark.parametrize("make", OF_A_CLASS[:3], ids=lambda one: one.__name__)
def test_a_model_of_a_class_comes_back(tmp_path, make, way):
    """Files, copies and configurations keep the class and the values."""

    def scenario(kind):
        model = make(kind)
        if way in ("keras", "h5"):
            path = tmp_path / f"m.{way}"
            model.save(path)
            scope = {"Made": type(model)}
            other = keras.saving.load_model(path, custom_objects=scope)
        elif way == "json":
            other = keras.models.model_from_json(model.to_json())
            other.set_weights(model.get_weights())
        else:
            other = copy.deepcopy(model)
        outputs = [one.predict(X, verbose=0).tolist() for one in (model, other)]
        return type(other) is type(model), outputs[0] == outputs[1]

    assert same_on_both(scenario) == (True, True)


def test_a_class_must_be_given_its_base(monkeypatch):
    """The twin: without it each model has a class of its own."""
    cls = make_open_class(OURS)
    assert type(cls(*dense())) is cls
    cls = make_open_class(OURS)
    monkeypatch.setattr(kinds, "give", lambda *_: False)
    model = cls(*dense())
    assert type(model) is not cls
    assert isinstance(model, cls)


def test_a_class_of_both_kinds():
    """Plain and Functional models of a class and its subclasses both work."""

    class Either(kr.ReproducibleModel):
        def __init__(self, *args):
            super().__init__(*args)
            if not args:
                self.out = L.Dense(1)

        def call(self, inputs, **kwargs):
            if hasattr(self, "out"):
                return self.out(inputs)
            return super().call(inputs, **kwargs)

    class Below(Either):
        pass

    bases = Either.__bases__, Either.__mro__
    graph, below = Either(*dense(2)), Below(*dense(3))
    assert type(graph) is Either
    plain, last = Either(), Either(*dense(4))
    assert (Either.__bases__, Either.__mro__) == bases
    assert type(plain) is Either
    assert type(below) is Below
    for model, width in ((graph, 2), (below, 3), (plain, 1), (last, 4)):
        is_graph = model is not plain
        assert isinstance(model, PLAIN.functional) == is_graph
        assert isinstance(model, Either)
        assert model(X).shape == (12, width)
        first = model.initial_state.checksum
        model.reset(seed=5)
        assert model.initial_state.checksum != first


def test_our_class_keeps_its_bases():
    """Not even a class of theirs below ours changes what ours is made of."""
    bases = kr.ReproducibleModel.__bases__, kr.ReproducibleModel.__mro__

    class Theirs(keras.Model):
        def __init__(self):
            super().__init__(*dense(2))

    class Both(kr.ReproducibleModel, Theirs):
        pass

    model = Both()
    assert model(X).shape == (12, 2)
    assert model.initial_state is not None
    now = kr.ReproducibleModel.__bases__, kr.ReproducibleModel.__mro__
    assert now == bases


def test_a_class_of_two_other_kinds_is_refused():
    """Layers once, and inputs another time, are no one class."""
    cls = make_open_class(OURS)
    cls(*dense())
    with pytest.raises(TypeError, match="a class for each"):
        cls([L.Dense(1)])


def test_abstract_bases_and_metaclasses():
    """An abstract base, and a metaclass of one's own."""

    class Meta(type(keras.Model)):
        def __call__(cls, *args):
            model = super().__call__(*args)
            model.was_made = True
            return model

    class Base(abc.ABC):
        @abc.abstractmethod
        def describe(self): ...

    class Made(kr.ReproducibleModel, Base):
        def describe(self):
            return "made"

    class Counted(kr.ReproducibleModel, metaclass=Meta):
        pass

    assert Made(*dense()).describe() == "made"
    assert Counted(*dense()).was_made


def test_from_config_finds_the_kind():
    """A configuration of layers gives layers, one of a graph a graph."""

    def scenario(kind):
        stack = kind.sequential([keras.Input((4,)), L.Dense(2)])
        late = kind.sequential([L.Dense(2)])
        found = []
        for model in (stack, late):
            other = kind.sequential.from_config(model.get_config())
            found.append((other.name == model.name, other.built))
        graph = kind.model(*dense(3))
        other = kind.model.from_config(graph.get_config())
        return found, other.name == graph.name, tuple(other(X).shape)

    same_on_both(scenario)


def graph_of_numbers(kind):
    inputs = keras.Input((4,), name="a")
    kind.model({"a": inputs, "b": X[0]}, L.Dense(1)(inputs))


def graph_without_outputs(kind):
    kind.model(dense()[0], None)


def graph_without_inputs(kind):
    kind.model(None, dense()[1])


def graph_to_numbers(kind):
    kind.model(dense()[0], X[0])


def subclass_of_numbers(kind):
    make_open_class(kind)(X[0], dense()[1])


def layers_with_a_name(kind):
    kind.sequential([keras.Input((4,)), L.Dense(1)], "name")


def one_layer(kind):
    kind.sequential(L.Dense(1))


def unknown_word(kind):
    make_open_class(kind)(width=3)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "mistake",
    [
        graph_of_numbers,
        graph_without_outputs,
        graph_without_inputs,
        graph_to_numbers,
        subclass_of_numbers,
        layers_with_a_name,
        one_layer,
        unknown_word,
    ],
    ids=lambda one: one.__name__,
)
def test_wrong_arguments(mistake):
    """What a constructor refuses, it refuses with Keras' words."""

    def scenario(kind):
        try:
            mistake(kind)
        except (TypeError, ValueError, AttributeError) as error:
            return type(error), str(error)
        return None  # Keras 3.12 takes any `trainable`.

    same_on_both(scenario)


def test_h5_files_need_the_name(tmp_path):
    """The twin: Keras finds our class by the name that an `.h5` file has."""
    path = tmp_path / "m.h5"
    model = kr.ReproducibleModel([keras.Input((4,)), L.Dense(1)])
    model.save(path)
    assert type(keras.saving.load_model(path)) is type(model)
    known = keras.saving.get_custom_objects()
    cls = known.pop(type(model).__name__)
    try:
        with pytest.raises(ValueError, match="Unknown layer"):
            keras.saving.load_model(path)
    finally:
        known[type(model).__name__] = cls


def test_an_error_of_the_first_trace_is_the_one_shown():
    """A step that cannot be traced raises what Keras raises for it."""

    def scenario(kind):
        inputs = keras.Input((4,))
        outputs = {"a": L.Dense(1)(inputs), "b": L.Dense(1)(inputs)}
        model = kind.model(inputs, outputs)
        model.compile(loss={"a": "mse", "b": "mse"}, metrics={"wrong": ["mse"]})
        with pytest.raises(ValueError, match="Invalid `metrics`") as caught:
            model.fit(X, {"a": Y, "b": Y}, verbose=0)
        return type(caught.value)

    same_on_both(scenario)


# --- methods -----------------------------------------------------------------


@pytest.mark.parametrize("name", [*TRAINER, "load_weights", "__call__"])
def test_signature_and_help(name):
    """An editor shows the arguments and the help that Keras has."""
    ours, plain = (
        getattr(one, name) for one in (kr.ReproducibleModel, keras.Model)
    )
    assert inspect.signature(ours) == inspect.signature(plain)
    assert inspect.getdoc(ours) == inspect.getdoc(plain)
    bound = getattr(kr.ReproducibleModel(), name)
    assert "self" not in inspect.signature(bound).parameters


def wrap(monkeypatch, name, seen, wraps):
    method = getattr(keras.Model, name)

    def wrapper(self, *args, **kwargs):
        seen.append((name, len(args), sorted(kwargs)))
        return method(self, *args, **kwargs)

    if wraps:
        wrapper = functools.wraps(method)(wrapper)
    monkeypatch.setattr(keras.Model, name, wrapper)


def use_all(model):
    """Each method, its arguments partly by position."""
    model.compile("sgd", "mse", run_eagerly=True)
    return [
        model.fit(X, Y, 5, epochs=2, verbose=0, shuffle=False).history["loss"],
        model.fit(x=X, y=Y, batch_size=6, verbose=0, shuffle=False).history,
        model.evaluate(X, Y, verbose=0),
        model.predict(X, batch_size=4, verbose=0).tolist(),
        model.train_on_batch(X, y=Y),
        model.test_on_batch(X, Y),
        model.predict_on_batch(X).tolist(),
    ]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("is_before", [False, True])
@pytest.mark.parametrize("wraps", [False, True])
def test_wrapped_methods(monkeypatch, wraps, is_before):
    """What a tool puts around Keras' methods is called as it would be."""

    def scenario(kind):
        seen = []
        with monkeypatch.context() as patch:
            if not is_before:
                model = kind.model(*dense())
            for name in TRAINER:
                wrap(patch, name, seen, wraps)
            if is_before:
                model = kind.model(*dense())
            return use_all(model), seen

    results, seen = same_on_both(scenario)
    assert [name for name, *_ in seen if name == "fit"] == ["fit"] * 2
    assert observe(lambda kind: use_all(kind.model(*dense())), OURS) == results


def test_wrapped_methods_need_the_signature_of_keras(monkeypatch):
    """The twin: that of the wrapper names no argument."""
    monkeypatch.setattr(
        keras_internals,
        "_signature",
        lambda name: inspect.signature(getattr(keras.Model, name)),
    )
    wrap(monkeypatch, "fit", [], wraps=False)
    with pytest.raises((TypeError, KeyError, ValueError)):
        train(kr.ReproducibleModel(*dense()))


def test_checksum_whatever_built_says():
    """A model with weights has a checksum, though Keras calls it unbuilt."""

    class Net(kr.ReproducibleModel):
        def __init__(self):
            super().__init__()
            self.used, self.never = L.Dense(1), L.Dense(1)

    model = Net()
    with pytest.raises(ValueError, match="has been built"):
        kr.compute_checksum(model)
    model.used.build((None, 4))
    first = kr.compute_checksum(model)
    assert not model.built
    model.used.kernel.assign(model.used.kernel + 1)
    assert kr.compute_checksum(model) != first
