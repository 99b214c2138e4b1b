"""Pushforwards from gradients alone."""

import numpy as np
import pytest
import tensorflow as tf
from support.cases import MODES, random, relative_error

from keras_fwd import LeakError, StructureError, jvp, jvp_from_vjp, linearize, vjp
from keras_fwd.testing import check_adjoint, check_jvp

W = random([4, 2], 7)


@tf.custom_gradient
def opaque(x):
    """x³, with a gradient that TensorFlow cannot differentiate."""

    def gradient(dy):
        dx = tf.numpy_function(lambda dy, x: 3 * x**2 * dy, [dy, x], dy.dtype)
        return tf.ensure_shape(dx, dy.shape)

    return x**3, gradient


def nested(d):
    y = opaque(d["a"]) @ W
    return {"y": y * d["b"], "n": d["n"] + 1, "s": tf.reduce_sum(opaque(d["b"]), 1)}


def point(rows=3):
    return {"a": random([rows, 4]), "b": random([rows, 1], 1), "n": tf.range(rows)}


def directions(rows=3):
    return {"a": random([rows, 4], 2), "b": random([rows, 1], 3), "n": None}


def transparent(d):
    y = d["a"] ** 3 @ W
    return {"y": y * d["b"], "n": d["n"] + 1, "s": tf.reduce_sum(d["b"] ** 3, 1)}


def loop(x):
    fn = jvp_from_vjp(lambda d: opaque(d["x"]) * tf.cast(d["n"], "float64"))

    def body(i, x):
        return i + 1, fn({"x": tf.sin(x), "n": i + 1})

    return tf.while_loop(lambda i, x: i < 2, body, (0, x))[1]


def loop_by_ops(x):
    for i in range(2):
        x = tf.sin(x) ** 3 * (i + 1)
    return x


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_it_is_exact_on_nests(mode, per_example):
    fn = jvp_from_vjp(nested, per_example)
    outputs, tangents = MODES[mode](lambda x, u: jvp(fn, x, u))(point(), directions())
    expected, exact = jvp(transparent, point(), directions())
    for name in ("y", "s"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-12)
        np.testing.assert_allclose(tangents[name], exact[name], rtol=1e-12)
    assert tangents["n"] is None
    assert check_adjoint(fn, point()) < 1e-12
    assert check_jvp(fn, point()) < 1e-6


def test_without_it_the_function_is_refused():
    with pytest.raises(LeakError, match="PyFunc"):
        jvp(opaque, random([3]), random([3]))


def test_it_works_under_xla_where_the_gradient_does():
    fn = jvp_from_vjp(tf.sin)
    x, u = random([4]), random([4], 1)
    found = MODES["xla"](lambda x: jvp(fn, x, u)[1])(x)
    np.testing.assert_allclose(found, tf.cos(x) * u, rtol=1e-12)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_it_is_exact_in_a_loop(mode):
    x, u = random([4]), random([4], 1)
    found = MODES[mode](lambda x: jvp(loop, x, u)[1])(x)
    assert relative_error(found, jvp(loop_by_ops, x, u)[1]) < 1e-12


def test_a_batch_of_unknown_size():
    fn = jvp_from_vjp(lambda x: opaque(x) @ W, per_example=True)
    spec = tf.TensorSpec([None, 4], tf.float64)
    traced = tf.function(lambda x, u: jvp(fn, x, u)[1], input_signature=[spec, spec])
    for rows in (1, 5):
        x, u = random([rows, 4]), random([rows, 4], 1)
        np.testing.assert_allclose(traced(x, u), (3 * x**2 * u) @ W, rtol=1e-12)


def test_all_derivatives_of_first_order():
    """The transpose of the transpose, by a tape of the caller, is the map itself."""
    fn, x, c, u = jvp_from_vjp(opaque), random([4]), random([4], 1), random([4], 2)
    exact = 3 * x**2
    np.testing.assert_allclose(vjp(fn, x, c)[1], exact * c, rtol=1e-12)
    _, J = linearize(fn, x)
    np.testing.assert_allclose(J(u), exact * u, rtol=1e-12)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(u)
        pushed = jvp(fn, x, u)[1]
        pulled = vjp(fn, x, u)[1]
    np.testing.assert_allclose(tape.gradient(pushed, u, c), exact * c, rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(pulled, u, c), exact * c, rtol=1e-12)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_second_order_is_refused(mode):
    fn, x = jvp_from_vjp(opaque), random([4])

    def of_jvp(x):
        return jvp(lambda x: jvp(fn, x, x)[1], x, x)

    def by_tape(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(vjp(fn, x, tf.ones_like(x))[1])
        return tape.gradient(value, x)

    for derivative in (of_jvp, by_tape):
        with pytest.raises(LeakError, match=r"jvp_from_vjp\(opaque\): .* first derivative only"):
            MODES[mode](derivative)(x)


def test_what_does_not_fit_is_refused():
    v, x = tf.Variable(random([4])), random([4])
    with pytest.raises(StructureError, match="must not read trainable variables"):
        jvp(jvp_from_vjp(lambda x: x * v), x, x)
    with pytest.raises(StructureError, match="axis 0 of every input and output"):
        jvp(jvp_from_vjp(tf.reduce_sum, per_example=True), x, x)
    spec = tf.TensorSpec([None], tf.float64)
    unknown = tf.function(lambda x: jvp(jvp_from_vjp(opaque), x, x), input_signature=[spec])
    with pytest.raises(StructureError, match="static size"):
        unknown(x)

    def closes_over(x):
        y = tf.sin(x)
        return jvp_from_vjp(lambda z: z * y)(x)

    with pytest.raises(StructureError, match="closes over the tensor"):
        jvp(closes_over, x, x)
