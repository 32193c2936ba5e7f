"""Where an iterator of `tf.data` stands is told where that is exact."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from keras_repro.backends import pipeline_passes  # noqa: E402
from keras_repro.backends.data_passes import ArrivalError  # noqa: E402
from keras_repro.backends.pipeline_passes import PipelinePasses  # noqa: E402

ROWS = tf.data.Dataset.range(20)


def symbolic(data):
    """With an option by which TensorFlow tells a wrong place."""
    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    return data.with_options(options)


def shuffled(data):
    """Each pass in an order of its own."""
    return data.shuffle(8, seed=3)


def drawing(data):
    """With a random op."""
    return data.map(lambda x: tf.cast(x, "float32") + tf.random.uniform([]))


def python(data):
    """With a function of Python."""
    return data.map(lambda x: tf.numpy_function(lambda v: v + 1, [x], "int64"))


def mixed(data):
    """Of two parts that end at different times."""
    return shuffled(data).take(4).concatenate(shuffled(data))


def counting(data):
    """With a counter within a pipeline within another one."""
    count = tf.Variable(0, dtype="int64")
    return data.flat_map(
        lambda x: tf.data.Dataset.range(2).map(
            lambda y: x + y + count.assign_add(1)
        )
    )


def nested(data):
    """An element that is a pipeline with a shuffle of its own."""
    one = tf.data.Dataset.from_tensors(shuffled(data))
    return one.flat_map(lambda part: part)


def generated(data):
    """By a generator of Python, which may count its passes."""
    return tf.data.Dataset.from_generator(
        lambda: iter(range(20)), output_signature=tf.TensorSpec((), "int64")
    )


def values(batches):
    """What was read, as plain numbers."""
    return [np.asarray(one).tolist() for one in batches]


def plain(data):
    """As it is."""
    return data


def ahead(data):
    """All of it is read ahead, and the shuffle ends at some moment."""
    return shuffled(data).prefetch(20)


@pytest.mark.parametrize("python_takes", [False, True])
@pytest.mark.parametrize("in_pass", [0, 3, 20])
@pytest.mark.parametrize("change", [plain, shuffled, ahead])
def test_the_rest_and_the_next_passes_are_the_same(
    change, in_pass, python_takes
):
    """Or nothing is told, as at the end of what shuffles."""

    def begin():
        tf.random.set_seed(1)
        data = change(ROWS)
        return data, PipelinePasses(data)

    def open_pass(data, passes):
        if python_takes:
            return passes.over(lambda: iter(data))
        source = iter(data)
        passes.follow(source)
        return source

    data, passes = begin()
    values(open_pass(data, passes))
    source = open_pass(data, passes)
    before = values(next(source) for _ in range(in_pass))
    written = passes.write(in_pass)
    rest, later = values(source), values(open_pass(data, passes))
    if written is None:
        assert change is ahead
        return
    assert sorted(before + rest) == list(range(20))
    data, passes = begin()
    passes.begin_at(written)
    assert values(open_pass(data, passes)) == rest
    assert values(open_pass(data, passes)) == later


def go_on_from_second(data):
    """All but the first element, of a pass that gave three, two unused."""
    passes = PipelinePasses(data)
    source = passes.over(lambda: iter(data))
    for _ in range(3):
        next(source)
    written = passes.write(1)
    passes = PipelinePasses(data)
    passes.begin_at(written)
    return list(passes.over(lambda: iter(data)))


def test_what_was_read_ahead_is_given_again():
    """By Keras, on JAX: its batches are kept, strings and parts of rows too."""
    rows = [[b"a"], [b"b", b"c"], [], [b"d"]]
    data = tf.data.Dataset.from_tensor_slices(
        (tf.ragged.constant(rows, dtype="string"), np.arange(4))
    )
    given = [(x.numpy().tolist(), int(y)) for x, y in go_on_from_second(data)]
    assert given == [([b"b", b"c"], 1), ([], 2), ([b"d"], 3)]


def test_parts_that_are_missing_are_given_again():
    """As where a pipeline has no weights."""
    given = go_on_from_second(ROWS.map(lambda x: (x, None)))
    assert [int(x) for x, _ in given] == list(range(1, 20))
    assert all(part is None for _, part in given)


@pytest.mark.parametrize("in_pass", [0, 8])
@pytest.mark.parametrize(
    "change",
    [
        *(symbolic, drawing, python, counting, generated, mixed, nested),
        tf.data.Dataset.cache,
    ],
)
def test_nothing_is_told_that_is_not_exact(change, in_pass):
    """A state elsewhere, or one that was forgotten."""
    data = change(ROWS)
    source = iter(data)
    passes = PipelinePasses(data)
    passes.follow(source)
    for _ in range(in_pass):
        next(source)
    assert passes.write(in_pass) is None


def test_large_states_are_not_kept(monkeypatch):
    """Of what a shuffle holds."""
    monkeypatch.setattr(pipeline_passes, "MOST_BYTES", 1000)
    data = ROWS.shuffle(20)
    passes = PipelinePasses(data)
    passes.follow(iter(data))
    assert passes.write(0) is None


def test_another_pipeline_is_refused():
    """Its iterator has nothing to put the state into."""
    passes = PipelinePasses(ROWS)
    passes.follow(iter(ROWS))
    written = passes.write(0)
    passes = PipelinePasses(shuffled(ROWS))
    with pytest.raises(ArrivalError, match="begun with"):
        passes.begin_at(written)


def test_a_state_that_does_not_fit_is_refused():
    """Of one that does the same by other means."""
    passes = PipelinePasses(shuffled(ROWS))
    passes.follow(iter(ROWS))
    written = passes.write(0) or passes._write_source(iter(ROWS))
    assert written is None
    source = iter(shuffled(ROWS))
    passes.follow(source)
    written = passes.write(0)
    written["state"] = written["state"][:-40]
    passes.begin_at(written)
    with pytest.raises(ArrivalError, match="begun with"):
        passes.follow(iter(shuffled(ROWS)))
