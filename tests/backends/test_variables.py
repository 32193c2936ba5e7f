"""Every variable of a model once, by a place that no counter changes."""

import keras
import numpy as np
import pytest

from keras_repro.arrays.checksums import checksum_array, compute_checksum
from keras_repro.backends.variables import (
    find_optimizers,
    iterate_variables,
    read_variable,
)

Dense = keras.layers.Dense


def make_model(units=2, *, stateful=False):
    layers = [keras.Input((3,)), Dense(units), keras.layers.Dropout(0.5)]
    if stateful:
        layers = [
            keras.Input(batch_shape=(2, 3, 2)),
            keras.layers.LSTM(2, stateful=True),
        ]
    return keras.Sequential([*layers, keras.layers.BatchNormalization()])


def places(model, role=None):
    return [p.place for p in iterate_variables(model) if role in (None, p.role)]


def test_places_of_a_sequential_model():
    """Places tell the position; the seed state is random."""
    model = make_model()
    assert places(model, "weights") == [
        "layers.0.kernel",
        "layers.0.bias",
        "layers.2.gamma",
        "layers.2.beta",
        "layers.2.moving_mean",
        "layers.2.moving_variance",
    ]
    random = places(model, "random")
    assert set(random) <= {"layers.1.seed_generator_state"}


def test_every_variable_once():
    """All of Keras' variables are there, in its order, and none twice."""
    model = make_model()
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    found = [place.variable for place in iterate_variables(model)]
    expected = model.variables + model.optimizer.variables
    expected += model.metrics_variables
    assert list(map(id, found)) == list(map(id, expected))
    assert len(set(places(model))) == len(found)
    assert places(model, "optimizer")[:2] == [
        "optimizer.iteration",
        "optimizer.learning_rate",
    ]
    assert places(model, "metrics")[0] == "metrics.0"


def test_places_do_not_depend_on_counters():
    """The second model of a process has the places of the first."""
    first = places(make_model())
    assert make_model().layers[0].name != make_model().layers[0].name
    assert places(make_model()) == first
    assert places(make_model(stateful=True)) != first


def test_nested_and_shared_layers():
    """A nested model's layers have nested places; a shared one has one."""
    inner = make_model(3)
    shared = Dense(3)
    inputs = keras.Input((3,))
    outputs = shared(inner(shared(inputs)))
    model = keras.Model(inputs, outputs)
    names = places(model)
    assert len(names) == len(set(names)) == len(model.variables)
    assert "layers.1.kernel" in names
    assert "layers.2.layers.0.kernel" in names


class Custom(keras.Model):
    """A subclass with variables of its own and two optimizers."""

    def __init__(self):
        super().__init__()
        self.dense = Dense(2)
        self.scale = self.add_weight(shape=(), name="scale")
        self.d_optimizer = keras.optimizers.SGD(momentum=0.9)

    def call(self, inputs):
        return self.dense(inputs) * self.scale


def test_subclass_with_its_own_variables_and_optimizers():
    """Own variables have their name; other optimizers their attribute's."""
    model = Custom()
    assert places(model, "weights") == ["scale"]
    model(np.ones((1, 3)))
    assert sorted(places(model, "weights")) == [
        "layers.0.bias",
        "layers.0.kernel",
        "scale",
    ]
    assert places(model, "optimizer")[0] == "d_optimizer.iteration"
    model.compile("sgd", "mse")
    assert places(model, "optimizer")[0] == "optimizer.iteration"
    assert "d_optimizer.iteration" in places(model)
    assert list(find_optimizers(model)) == ["optimizer", "d_optimizer"]
    model.d_optimizer = model.optimizer
    assert list(find_optimizers(model)) == ["optimizer"]


def test_not_built_and_not_compiled():
    """A model without variables has no places."""
    assert iterate_variables(keras.Sequential([Dense(2)])) == []


def test_repeated_names_in_a_layer():
    """A name that repeats in a layer gets a number; none is lost."""
    inputs = keras.Input((4, 2))
    attention = keras.layers.MultiHeadAttention(2, 2)
    model = keras.Model(inputs, attention(inputs, inputs))
    names = places(model, "weights")
    assert "layers.1.kernel" in names
    assert "layers.1.kernel.3" in names
    assert len(set(places(model))) == len(model.variables)


def test_unnamed_variables():
    """A variable that Keras named by a counter has a place without one."""

    class Unnamed(keras.Layer):
        def build(self, shape):
            del shape
            self.a = keras.Variable(1.0)
            self.b = keras.Variable(2.0)

        def call(self, inputs):
            return inputs * self.a * self.b

    for _ in range(2):
        model = keras.Sequential([keras.Input((1,)), Unnamed()])
        assert places(model) == ["layers.0.variable", "layers.0.variable.1"]


def test_states_of_recurrent_layers():
    """States that Keras does not track are there, once; plain ones are not."""
    model = make_model(stateful=True)
    assert "layers.0.rnn_state" in places(model, "weights")
    assert "layers.0.rnn_state.1" in places(model, "weights")
    assert len(set(places(model))) == len(model.variables) + 2
    assert not [name for name in places(make_model()) if "rnn" in name]
    wrapped = keras.Sequential(
        [
            keras.Input(batch_shape=(2, 3, 2)),
            keras.layers.Bidirectional(keras.layers.GRU(2, stateful=True)),
        ]
    )
    assert len(set(places(wrapped))) == len(wrapped.variables) + 2


def test_loss_scaling_optimizer():
    """An optimizer inside another is listed once, as part of it."""
    model = make_model()
    inner = keras.optimizers.SGD()
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    model.optimizer.build(model.trainable_variables)
    expected = len(model.optimizer.variables)
    assert len(places(model, "optimizer")) == expected
    assert list(find_optimizers(model)) == ["optimizer"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_reading_copies(dtype):
    """What is read stays as it was when the variable changes."""
    variable = keras.Variable(np.ones(3), dtype=dtype, trainable=False)
    first = read_variable(variable)
    expected = checksum_array(first)
    assert first.dtype.name == dtype
    variable.assign(np.full(3, 2))
    assert checksum_array(first) == expected
    first[:] = 5
    assert checksum_array(read_variable(variable)) != expected
    variable.assign(np.full(3, 2))
    expected = checksum_array(np.full(3, 2).astype(first.dtype))
    assert compute_checksum(variable) == expected


def test_checksum_of_a_model():
    """Equal values give equal checksums under any name; one bit counts."""
    first, second = make_model(), make_model()
    second.set_weights(first.get_weights())
    for a, b in zip(first.variables, second.variables, strict=True):
        b.assign(a)
    expected = compute_checksum(first)
    assert compute_checksum(second) == expected
    kernel = read_variable(second.variables[0])
    kernel.view(np.uint8)[0, 0] ^= 1
    second.variables[0].assign(kernel)
    assert compute_checksum(second) != expected


def test_checksum_of_other_keras_objects():
    """Optimizers, metrics, layers, seed generators and tensors have one."""
    model = make_model()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    before = compute_checksum(model.optimizer)
    model.optimizer.learning_rate.assign(0.5)
    assert compute_checksum(model.optimizer) != before
    metric = keras.metrics.Mean()
    before = compute_checksum(metric)
    metric.update_state(2.0)
    assert compute_checksum(metric) != before
    assert compute_checksum(model.layers[0]) != compute_checksum(model)
    seeds = [keras.random.SeedGenerator(seed) for seed in (1, 2, 1)]
    checksums = [compute_checksum(seed) for seed in seeds]
    assert checksums[0] == checksums[2] != checksums[1]
    values = np.arange(3, dtype="float32")
    tensor = keras.ops.convert_to_tensor(values)
    assert compute_checksum({"x": tensor}) == compute_checksum({"x": values})
    assert compute_checksum([keras.Variable(values)]) == compute_checksum(
        [values]
    )


def test_checksum_of_a_model_that_is_not_built():
    """A model without variables yet is refused, with the next step."""
    with pytest.raises(ValueError, match=r"Received: Sequential.*build"):
        compute_checksum(keras.Sequential([Dense(2)]))
