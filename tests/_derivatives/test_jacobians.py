"""`jacobian` against dense tapes: nests, single examples, unknown sizes, both ways."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    CASES,
    MODES,
    central_difference,
    float64,  # noqa: F401 - a fixture
    random,
    relative_error,
)

from keras_fwd import (
    ConfigurationError,
    StructureError,
    jacobian,
)

pytestmark = pytest.mark.usefixtures("float64")

modes = pytest.mark.parametrize("mode", ["eager", "graph"])
WAYS = ["forward", "reverse"]
CHUNKS = [None, 2]


def tape_jacobian(fn, sources):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sources)
        outputs = fn(sources)
    return tf.nest.map_structure(lambda y: tape.jacobian(y, sources), outputs)


@modes
@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("way", WAYS)
def test_jacobian_by_inputs_equals_tape_jacobian(way, chunk_size, mode):
    fn, _ = CASES[0].function()
    x = CASES[0].inputs()
    actual = MODES[mode](lambda x: jacobian(fn, x, mode=way, chunk_size=chunk_size))(x)
    expected = tape_jacobian(fn, x)
    assert actual.shape == expected.shape == (3, 2, 3, 3)
    assert relative_error(actual, expected) < 1e-13


@modes
@pytest.mark.parametrize("way", WAYS)
def test_jacobian_by_weights_equals_tape_jacobian(way, mode):
    fn, variables = CASES[0].function()
    x = CASES[0].inputs()
    actual = MODES[mode](lambda x: jacobian(fn, x, "weights", way, chunk_size=5))(x)
    with tf.GradientTape() as tape:
        y = fn(x)
    expected = tape.jacobian(y, [v.value for v in variables])
    assert [a.shape for a in actual] == [e.shape for e in expected]
    assert relative_error(actual, expected) < 1e-13


@modes
@pytest.mark.parametrize("way", WAYS)
def test_jacobian_of_nests_has_outputs_outside_and_inputs_inside(way, mode):
    primals = {"a": random([2]), "b": (random([3, 1], 1), tf.constant([1, 0]))}

    def fn(p):
        a, (b, rows) = p["a"], p["b"]
        return [tf.gather(a, rows) ** 2, {"c": tf.reduce_sum(a) * b, "rows": rows}]

    if mode == "graph":  # a tf.function returns no None
        block = tf.function(lambda p: jacobian(fn, p, mode=way)[1]["c"]["b"][0])(primals)
        assert block.shape == (3, 1, 3, 1)
        return
    first, second = jacobian(fn, primals, mode=way)
    a, b = primals["a"].numpy(), primals["b"][0].numpy()
    assert relative_error(first["a"], [[0, 2 * a[1]], [2 * a[0], 0]]) < 1e-14
    assert not np.any(first["b"][0])
    assert first["b"][0].shape == (2, 3, 1)
    assert first["b"][1] is None
    assert relative_error(second["c"]["a"], np.stack([b, b], axis=-1)) < 1e-14
    assert relative_error(second["c"]["b"][0], a.sum() * np.eye(3).reshape(3, 1, 3, 1)) < 1e-14
    assert second["rows"] == {"a": None, "b": (None, None)}


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_jacobian_keeps_the_dtype_of_each_output(way):
    x = random([2], dtype="float32")
    low, high = jacobian(lambda x: (x**2, tf.cast(x, tf.float64)), x, mode=way)
    assert (low.dtype, high.dtype) == (tf.float32, tf.float64)
    assert relative_error(low, np.diag(2 * x.numpy())) < 1e-6


def per_example_reference(fn, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fn(x)
    return tape.batch_jacobian(y, x)


@modes
@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("way", WAYS)
def test_per_example_jacobian_equals_batch_jacobian(way, chunk_size, mode):
    fn, _ = CASES[0].function()
    x = CASES[0].inputs()

    def blocks(x):
        return jacobian(fn, x, mode=way, chunk_size=chunk_size, per_example=True)

    expected = per_example_reference(fn, x)
    actual = MODES[mode](blocks)(x)
    assert actual.shape == expected.shape == (3, 2, 3)
    assert relative_error(actual, expected) < 1e-13


@pytest.mark.parametrize("way", WAYS)
def test_per_example_jacobian_of_images(way):
    fn, _ = CASES[1].function()
    x = CASES[1].inputs()
    actual = tf.function(lambda x: jacobian(fn, x, mode=way, per_example=True))(x)
    assert actual.shape == (2, 2, 6, 6, 2)
    assert relative_error(actual, per_example_reference(fn, x)) < 1e-13


@pytest.mark.parametrize("way", WAYS)
def test_per_example_jacobian_of_nests(way):
    primals = {"x": random([4, 2]), "y": random([4], 1), "n": tf.constant([1, 2, 3, 4])}

    def fn(p):
        n = tf.cast(p["n"], tf.float64)
        return p["x"] * p["y"][:, None], n * p["y"] ** 2

    first, second = jacobian(fn, primals, mode=way, per_example=True)
    x, y = primals["x"].numpy(), primals["y"].numpy()
    assert relative_error(first["x"], y[:, None, None] * np.eye(2)) < 1e-14
    assert relative_error(first["y"], x) < 1e-14
    assert second["x"].shape == (4, 2)
    assert relative_error(second["y"], 2 * y * [1, 2, 3, 4]) < 1e-14
    assert first["n"] is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("per_example", [False, True])
def test_jacobian_with_an_unknown_batch_size(per_example, way):
    fn, _ = CASES[0].function()

    @tf.function(input_signature=[tf.TensorSpec([None, 3], "float64")])
    def blocks(x):
        return jacobian(fn, x, mode=way, per_example=per_example)

    if not per_example:  # neither side has a static size
        with pytest.raises(StructureError, match="the side that is run through must have a static"):
            blocks(random([5, 3]))
        return
    for batch in (5, 2):
        x = random([batch, 3])
        assert relative_error(blocks(x), per_example_reference(fn, x)) < 1e-13


def test_jacobian_by_weights_with_an_unknown_batch_size_runs_forward():
    fn, variables = CASES[0].function()
    blocks = tf.function(
        lambda x: jacobian(fn, x, "weights"),
        input_signature=[tf.TensorSpec([None, 3], "float64")],
    )
    actual = blocks(random([5, 3]))
    assert [a.shape for a in actual] == [(5, 2, *v.shape) for v in variables]
    assert relative_error(actual, jacobian(fn, random([5, 3]), "weights")) < 1e-13


def test_way_is_auto_unless_it_is_said():
    x = random([2])
    expected = jacobian(lambda x: x**2, x)
    assert relative_error(jacobian(lambda x: x**2, x, mode="auto"), expected) == 0


def test_auto_takes_the_way_with_fewer_products():
    wide, tall = random([2, 6]), random([6, 2])
    for matrix, way in [(wide, "reverse"), (tall, "forward")]:
        x = random([matrix.shape[1]])

        @tf.function
        def blocks(x, matrix=matrix):
            return jacobian(lambda x: tf.sin(tf.linalg.matvec(matrix, x)), x)

        @tf.function
        def chosen(x, matrix=matrix, way=way):
            return jacobian(lambda x: tf.sin(tf.linalg.matvec(matrix, x)), x, mode=way)

        types = [
            sorted(op.type for op in f.get_concrete_function(x).graph.get_operations())
            for f in (blocks, chosen)
        ]
        assert types[0] == types[1]


@modes
def test_jacobian_of_a_recurrent_model(mode):
    model = keras.Sequential([keras.Input([3, 1]), keras.layers.GRU(2)])
    x = random([2, 3, 1])
    actual = MODES[mode](lambda x: jacobian(model, x, per_example=True))(x)
    u = random([2, 3, 1], 1)
    expected = central_difference(model, x, u)
    assert relative_error(tf.einsum("boij,bij->bo", actual, u), expected) < 1e-7


def test_jacobian_refuses_an_unknown_mode():
    with pytest.raises(ConfigurationError, match=r"`mode` must be .* Received: mode='sideways'\."):
        jacobian(tf.sin, random([2]), mode="sideways")


@pytest.mark.parametrize(
    ("fn", "primals"),
    [
        (lambda x: tf.reduce_sum(x), tf.ones([2])),
        (lambda x: x[:2], tf.ones([3, 2])),
        (lambda p: p[0] * tf.reduce_sum(p[1]), [tf.ones([3]), tf.ones([2])]),
    ],
    ids=["scalar_output", "another_batch", "inputs_disagree"],
)
def test_per_example_needs_a_batch_axis(fn, primals):
    with pytest.raises(StructureError, match="axis 0 of every input and output must be the same"):
        jacobian(fn, primals, per_example=True)
