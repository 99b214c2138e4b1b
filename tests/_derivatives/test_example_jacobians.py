"""`jacobian` of each example by the weights, and how many products it runs at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    CASES,
    MODES,
    float64,  # noqa: F401 - a fixture
    random,
    randomize,
    relative_error,
)
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from keras_fwd import ConfigurationError, LeakError, StructureError, jacobian, linearize
from keras_fwd._spaces import vectorized

pytestmark = pytest.mark.usefixtures("float64")

modes = pytest.mark.parametrize("mode", MODES)
layers = keras.layers


def net(*parts, shape):
    model = keras.Sequential([keras.Input(shape), *parts])
    randomize(model)
    return model


def tape_jacobian(fn, x, variables):
    with tf.GradientTape(persistent=True) as tape:
        y = fn(x)
    return tape.jacobian(y, [v.value for v in variables], experimental_use_pfor=False)


# --- by weights, one example at a time ------------------------------------------------------------

NETS = [
    ("dense", [lambda: layers.Dense(4, "tanh"), lambda: layers.Dense(1)], [3]),
    ("outputs", [lambda: layers.Dense(4, "gelu"), lambda: layers.Dense(3, "softmax")], [3]),
    ("conv", [lambda: layers.Conv2D(2, 2), lambda: layers.MaxPooling2D(2)], [4, 4, 1]),
    ("normalization", [lambda: layers.LayerNormalization(), lambda: layers.Dense(2)], [3]),
    ("moving_statistics", [lambda: layers.BatchNormalization(), lambda: layers.Dense(2)], [3]),
    ("embedding", [lambda: layers.Embedding(5, 2), lambda: layers.Dense(1)], [3]),
    ("gru", [lambda: layers.GRU(2), lambda: layers.Dense(2)], [3, 1]),
]
XLA_CANNOT = {"conv"}  # max pooling in float64


@modes
@pytest.mark.parametrize(("name", "parts", "shape"), NETS, ids=[name for name, *_ in NETS])
def test_rows_of_examples_equal_tape_jacobian(name, parts, shape, mode):
    if mode == "xla" and name in XLA_CANNOT:
        pytest.skip("TensorFlow cannot compile it")
    model = net(*(part() for part in parts), shape=shape)
    x = random([4, *shape])
    if name == "embedding":
        x = tf.constant([[0, 1, 1], [2, 3, 4], [0, 0, 0], [4, 2, 1]])
    variables = model.trainable_variables
    blocks = MODES[mode](lambda x: jacobian(model, x, "weights", per_example=True))
    actual, expected = blocks(x), tape_jacobian(model, x, variables)
    assert [a.shape for a in actual] == [e.shape for e in expected]
    assert relative_error(actual, expected) < 1e-12


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("way", ["forward", "reverse", "auto"])
@pytest.mark.parametrize("chunk_size", [None, 1, 3, 9])
def test_every_way_and_chunk_size_gives_the_same(chunk_size, way, mode):
    fn, variables = CASES[0].function()
    x = random([7, 3])

    def blocks(x):
        return jacobian(fn, x, "weights", way, chunk_size, per_example=True)

    actual = MODES[mode](blocks)(x)
    assert [a.shape for a in actual] == [(7, 2, *v.shape) for v in variables]
    assert relative_error(actual, jacobian(fn, x, "weights")) < 1e-13


def test_rows_of_nests_and_unused_variables():
    a, b, unused = (tf.Variable(random(s, i)) for i, s in enumerate([[2], [], [3]]))
    primals = {"x": random([5, 2], 3), "n": tf.range(5)}

    def fn(p):
        n = tf.cast(p["n"], tf.float64)
        return p["x"] * a, {"n": p["n"], "s": [n * b**2, tf.cast(b * n, tf.float32)]}

    first, second = jacobian(fn, primals, {"a": a, "bc": [b, unused]}, per_example=True)
    x, n = primals["x"].numpy(), np.arange(5)
    assert relative_error(first["a"], x[:, :, None] * np.eye(2)) < 1e-15
    assert first["bc"][1].shape == (5, 2, 3)
    assert not np.any(first["bc"][1])
    assert second["n"] == {"a": None, "bc": [None, None]}
    assert relative_error(second["s"][0]["bc"][0], 2 * b.numpy() * n) < 1e-15
    assert second["s"][1]["bc"][0].dtype == tf.float32
    assert relative_error(second["s"][1]["bc"][0], n) < 1e-7


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_rows_with_an_unknown_batch_size(chunk_size):
    fn, _ = CASES[0].function()
    spec = tf.TensorSpec([None, 3], "float64")
    blocks = tf.function(
        lambda x: jacobian(fn, x, "weights", chunk_size=chunk_size, per_example=True),
        input_signature=[spec],
    )
    for batch in (5, 1):
        x = random([batch, 3])
        assert relative_error(blocks(x), jacobian(fn, x, "weights")) < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_loop_takes_the_fewer_products(mode, monkeypatch):
    model = net(layers.GRU(1), shape=[3, 1])
    rows = []
    monkeypatch.setattr(
        "keras_fwd._derivatives.weight_rows.WeightRows.blocks",
        lambda self, chunk_size: rows.append(self._batch),
    )
    for batch in (5, 50):  # against 12 weights
        MODES[mode](lambda x: jacobian(model, x, "weights", per_example=True))(
            random([batch, 3, 1])
        )
    assert rows == [5]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_branches_are_taken_one_after_the_other(way, per_example, mode):
    x, weights = random([4, 2]), tf.Variable(random([2, 3]))

    def fn(x):
        y = tf.cond(tf.reduce_sum(weights) > 100.0, lambda: x @ weights, lambda: x**2 @ weights)
        return tf.sin(y)

    for wrt in ("inputs", [weights]):
        options = {"wrt": wrt, "mode": way, "per_example": per_example}
        actual = MODES[mode](lambda x, options=options: jacobian(fn, x, **options))(x)
        expected = jacobian(lambda x: tf.sin(x**2 @ weights), x, **options)
        assert relative_error(actual, expected) < 1e-13


@pytest.mark.parametrize("wrt", ["inputs", "weights"])
def test_spectral_normalization(wrt):
    layer = layers.SpectralNormalization(layers.Dense(3))
    x = random([4, 2])
    layer(x)
    randomize(layer)
    for per_example in (False, True):
        rows = tf.function(
            lambda x, p=per_example: jacobian(layer, x, wrt, "reverse", per_example=p)
        )
        columns = jacobian(layer, x, wrt, "forward", per_example=per_example)
        assert relative_error(rows(x), columns) < 1e-12


def test_rows_need_no_second_derivative():
    @tf.custom_gradient
    def once(x):
        def gradient(dy):
            return tf.stop_gradient(dy) * 2 * x

        return x**2, gradient

    w = tf.Variable(random([2]))
    x = random([3, 2], 1)
    actual = jacobian(lambda x: once(x * w), x, [w], "reverse", per_example=True)
    assert relative_error(actual[0], 2 * (x**2 * w).numpy()[:, :, None] * np.eye(2)) < 1e-14


def test_rows_name_the_leak():
    w = tf.Variable(random([2]))

    def fn(x):
        return tf.ensure_shape(tf.numpy_function(np.sin, [x * w], x.dtype), x.shape) + w

    with pytest.raises(LeakError, match=r"jacobian: .* Received: op PyFunc"):
        jacobian(fn, random([3, 2]), [w], per_example=True)


def test_rows_need_batches_of_one():
    w = tf.Variable(random([2]))
    x = random([3, 2])
    with pytest.raises(StructureError, match="axis 0 of every input and output must be the same"):
        jacobian(lambda p: p[0] * w, [x, tf.constant(1.0)], [w], per_example=True)
    with pytest.raises(StructureError, match=r"runs on each example as a batch of one .* Received"):
        jacobian(lambda x: tf.reduce_sum(x * w), x, [w], per_example=True)
    with pytest.raises(StructureError, match="must depend on"):
        jacobian(lambda x: x, x, [w], per_example=True)


# --- how many products at once --------------------------------------------------------------------


def largest_tensor(fn, x):
    """Bytes, in the graph of `fn(x)` and in the functions that it calls."""
    graph = tf.function(fn, autograph=False).get_concrete_function(x).graph
    functions = graph.as_graph_def(add_shapes=True).library.function
    with graph.as_default():
        graphs = [graph, *(function_def_to_graph(f) for f in functions)]
    tensors = [t for g in graphs for op in g.get_operations() for t in op.outputs]
    return max((t.shape.num_elements() or 0) * t.dtype.size for t in tensors if t.shape.rank)


def wide(x):
    """Each product of this holds some tensors of 4 MiB."""
    return tf.reduce_sum(tf.sin(x[:, None] * tf.ones([512, 1024], x.dtype)), axis=0)


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_products_at_once_fit_the_memory_budget(way):
    x = random([512])
    alone = largest_tensor(lambda x: jacobian(wide, x, mode=way, chunk_size=1), x)
    budgeted = largest_tensor(lambda x: jacobian(wide, x, mode=way), x)
    together = largest_tensor(lambda x: jacobian(wide, x, mode=way, chunk_size=512), x)
    assert alone <= 8 * 512 * 1024
    assert 10 * alone < budgeted < vectorized.MEMORY_BUDGET
    assert together >= 8 * 512 * 512 * 1024 > vectorized.MEMORY_BUDGET


def test_linear_maps_fit_the_memory_budget():
    x = random([512])
    assert largest_tensor(lambda x: linearize(wide, x)[1].to_dense(), x) < vectorized.MEMORY_BUDGET


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("wrt", ["inputs", "weights"])
@pytest.mark.parametrize("per_example", [False, True])
def test_a_small_budget_changes_no_result(per_example, wrt, mode, monkeypatch):
    fn, _ = CASES[0].function()
    x = random([7, 3])
    blocks = MODES[mode](lambda x: jacobian(fn, x, wrt, per_example=per_example))
    expected = jacobian(fn, x, wrt, per_example=per_example)
    monkeypatch.setattr(vectorized, "MEMORY_BUDGET", 3000)
    assert relative_error(blocks(x), expected) < 1e-14


def test_a_large_batch_is_taken_in_parts_where_memory_is_short(monkeypatch):
    w, x = tf.Variable(random([3])), random([1000, 3], 1)

    def fn(x):
        return tf.reduce_sum(tf.sin(tf.repeat((x * w)[:, :, None], 200, axis=2)), axis=[1, 2])

    def rows(x):
        return jacobian(fn, x, [w], per_example=True)[0]

    together = largest_tensor(rows, x)
    monkeypatch.setattr(vectorized, "MEMORY_BUDGET", 2**20)
    assert largest_tensor(rows, x) < together / 4
    assert relative_error(rows(x), 200 * x * np.cos(x * w.numpy())) < 1e-14


@pytest.mark.parametrize("chunk_size", [0, -2, 1.5, "all"])
def test_jacobian_refuses_a_bad_chunk_size(chunk_size):
    with pytest.raises(
        ConfigurationError, match=r"`chunk_size` must be a whole number of at least 1.* Received"
    ):
        jacobian(tf.sin, random([2]), chunk_size=chunk_size)
