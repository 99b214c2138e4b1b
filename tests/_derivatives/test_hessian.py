"""`hessian`: against closed forms, tapes and central differences."""

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
    random_like,
    relative_error,
)
from test_jacobians import modes, tape_jacobian

from keras_fwd import (
    StructureError,
    hessian,
)

pytestmark = pytest.mark.usefixtures("float64")


def loss(fn):
    return lambda x: tf.reduce_sum(tf.sin(fn(x)) * tf.range(1.0, 3.0, dtype=tf.float64))


@pytest.mark.parametrize("mode", MODES)
def test_hessian_equals_closed_form(mode):
    x = random([3])
    A = random([3, 3])

    @MODES[mode]
    def matrix(x):
        return hessian(lambda x: tf.reduce_sum(x * tf.linalg.matvec(A, x)) ** 2, x).to_dense()

    S = A.numpy() + A.numpy().T
    s = S @ x.numpy()
    expected = 2 * np.outer(s, s) + (x.numpy() @ s) * S
    assert relative_error(matrix(x), expected) < 1e-13


@modes
def test_hessian_by_inputs_equals_tape_jacobian_of_the_gradient(mode):
    scalar = loss(CASES[0].function()[0])
    x = CASES[0].inputs()

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = scalar(x)
        return tape.gradient(y, x)

    expected = tf.reshape(tape_jacobian(gradient, x), [9, 9])
    actual = MODES[mode](lambda x: hessian(scalar, x).to_dense())(x)
    assert relative_error(actual, expected) < 1e-13


@modes
def test_hessian_product_by_weights_equals_central_difference(mode):
    model, variables = CASES[0].function()
    values = [v.value for v in variables]
    x, u = CASES[0].inputs(), random_like(variables, 5)
    scalar = loss(model)

    def gradient(x):
        with tf.GradientTape() as tape:
            y = scalar(x)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(y, values)], axis=0)

    product = MODES[mode](lambda x, u: hessian(scalar, x, variables)(u))(x, u)
    assert relative_error(product, central_difference(gradient, x, u, values)) < 1e-7


def test_hessian_of_a_nest_has_its_structure_and_is_symmetric():
    primals = {"a": random([2]), "n": tf.constant(2), "b": [random([], 1)]}

    def scalar(p):
        return tf.reduce_sum(tf.sin(p["a"]) * p["b"][0] ** 2) * tf.cast(p["n"], tf.float64)

    H = hessian(scalar, primals)
    product = H({"a": random([2], 2), "n": None, "b": [random([], 3)]})
    assert product["n"] is None
    assert product["b"][0].shape == []
    matrix = H.to_dense()
    assert relative_error(matrix, tf.transpose(matrix)) < 1e-15
    assert relative_error(H.T.to_dense(), matrix) == 0


def test_hessian_by_weights_of_a_scalar_model():
    model = keras.Sequential(
        [
            keras.Input([2]),
            keras.layers.Dense(1),
            keras.layers.Lambda(lambda x: tf.reduce_sum(x**2)),
        ]
    )
    x = random([3, 2])
    matrix = hessian(model, x, wrt="weights").to_dense()
    design = np.column_stack([x, np.ones(3)])
    assert relative_error(matrix, 2 * design.T @ design) < 1e-14


def test_hessian_runs_forward_and_gradient_once_for_many_products():
    @tf.function
    def f(x):
        H = hessian(lambda x: tf.reduce_sum(tf.math.atan(x)), x)
        return tf.while_loop(lambda i, u: i < 3, lambda i, u: (i + 1, H(u)), [0, x])[1]

    graph = f.get_concrete_function(tf.TensorSpec([2])).graph
    inside = [n.op for g in graph.as_graph_def().library.function for n in g.node_def]
    assert "Atan" not in inside
    # d/dx of the gradient 1 / (1 + x²) is all that the loop's body holds.
    assert inside.count("Mul") <= 6


@pytest.mark.parametrize(
    "fn", [lambda x: x**2, lambda x: tf.reduce_sum(x, keepdims=True)], ids=["three", "one"]
)
def test_hessian_of_a_vector_is_refused(fn):
    with pytest.raises(StructureError, match="hessian: `fn` must return one scalar; sum or pick"):
        hessian(fn, random([2]))


def test_hessian_of_two_scalars_is_refused():
    with pytest.raises(StructureError, match=r"one scalar.*Received: \(float64\[\], float64\[\]\)"):
        hessian(lambda x: (x, x**2), random([]))
