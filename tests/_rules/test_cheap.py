"""The rules for ops that TensorFlow differentiates right, but slowly: they must be right too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    MODES,
    central_difference,
    dot,
    float64,  # noqa: F401 - a fixture
    random,
    relative_error,
)

from keras_fwd import jacobian, jvp, linearize, vjp
from keras_fwd._rules import table as rules
from keras_fwd._rules.transposes import transposes

modes = pytest.mark.parametrize("mode", MODES)
pytestmark = pytest.mark.usefixtures("float64")

IMAGE = [2, 5, 6, 4]
KERNEL, DEPTHWISE = random([3, 2, 2, 6], 7), random([2, 3, 1, 8], 8)


def max_pool(size, stride, padding):
    return lambda x: tf.nn.max_pool(x, size, stride, padding)


def conv(kernel, strides, padding):
    return lambda x: tf.nn.conv2d(x, kernel, strides, padding)


def by_kernel(strides, padding):
    image = random(IMAGE, 3)
    return lambda kernel: tf.nn.conv2d(image, kernel, strides, padding)


def by_both(x):
    """The kernel depends on the image, so that all terms of the second derivative are there."""
    return tf.nn.conv2d(x, KERNEL * tf.reduce_sum(x), 1, "SAME")


def einsum(equation, other=None):
    return lambda x: tf.einsum(equation, x, tf.sin(x) if other is None else other)


def upsampling(x):
    return keras.layers.UpSampling2D((2, 3))(x)


def grouped(x):
    """Keras compiles it with XLA."""
    return keras.ops.conv(x, KERNEL, padding="same")


CASES = [
    ("max_pool", max_pool(2, 2, "VALID"), IMAGE),
    ("max_pool_odd", max_pool(3, 2, "SAME"), IMAGE),
    ("max_pool_overlap", max_pool(3, 1, "SAME"), IMAGE),
    ("max_pool_oblong", max_pool([3, 1], [1, 2], "SAME"), IMAGE),
    ("max_pool_gaps", max_pool(2, 3, "VALID"), IMAGE),
    ("max_pool_explicit", max_pool(3, 2, [[0, 0], [1, 1], [2, 0], [0, 0]]), IMAGE),
    ("tile", lambda x: tf.tile(x, [1, 2, 1, 3]), [2, 3, 2, 2]),
    ("tile_ends", lambda x: tf.tile(x, [3, 1, 2]), [2, 3, 2]),
    ("tile_once", lambda x: tf.tile(x, [1, 1]), [2, 3]),
    ("tile_nothing", lambda x: tf.reduce_sum(tf.tile(x, [0, 2])) + x, [2, 3]),
    ("tile_dynamic", lambda x: tf.tile(x, [1, tf.size(tf.where(x[0] < 9))]), [2, 3]),
    ("repeat", lambda x: tf.repeat(x, 3, 1), [2, 3, 2]),
    ("upsampling", upsampling, [2, 3, 2, 2]),
    ("groups", conv(KERNEL, 1, "SAME"), IMAGE),
    ("groups_strides", conv(KERNEL, [2, 1], "VALID"), IMAGE),
    ("groups_by_kernel", by_kernel(2, "SAME"), KERNEL.shape),
    ("groups_by_both", by_both, IMAGE),
    ("groups_in_keras", grouped, IMAGE),
    ("depthwise", conv(DEPTHWISE, 2, "SAME"), IMAGE),
    ("depthwise_strides", conv(DEPTHWISE, [1, 2], "VALID"), IMAGE),
    ("depthwise_by_kernel", by_kernel(1, "VALID"), DEPTHWISE.shape),
    ("silu", tf.nn.silu, [7]),
    ("silu_beta", lambda x: tf.nn.silu(x, tf.reduce_sum(x)), [7]),
    ("silu_betas", lambda x: tf.nn.silu(x, x[0]), [2, 3]),
    ("einsum_dense", einsum("abc,cde->abde", random([4, 3, 2], 5)), [2, 3, 4]),
    ("einsum_heads", einsum("aecd,abcd->acbe"), [2, 3, 2, 4]),
    ("einsum_values", einsum("acbe,aecd->abcd", random([1, 2, 4, 3], 6)), [1, 4, 3, 2]),
    ("einsum_outer", einsum("a,b->ab"), [3]),
    ("einsum_summed", einsum("ab,cd->ac"), [2, 2]),
    ("einsum_trace", einsum("aa,ab->b"), [3, 3]),
    ("einsum_ellipsis", einsum("...ab,...bc->...ac"), [2, 3, 3]),
    ("einsum_one", lambda x: tf.einsum("ab->ba", x), [2, 3]),
]
NOT_IN_XLA = ("max_pool", "tile_dynamic")  # the forward pass does not compile in float64
TYPICAL = "max_pool_odd upsampling groups groups_in_keras silu einsum_heads".split()


def table(is_slow, chosen=CASES):
    """Parameters: cases by modes; `is_slow(name, mode)` marks some as slow."""
    return pytest.mark.parametrize(
        ("fn", "shape", "mode"),
        [
            pytest.param(
                fn,
                shape,
                mode,
                id=f"{name}-{mode}",
                marks=[pytest.mark.slow] if is_slow(name, mode) else [],
            )
            for name, fn, shape in chosen
            for mode in MODES
            if mode != "xla" or not name.startswith(NOT_IN_XLA)
        ],
    )


def curved(fn):
    """Derivatives of every order that are not zero."""
    return lambda x: fn(tf.sin(x) + x**2) ** 2


def along(fn, u, order):
    """The derivative of an order along `u`, each by `jvp` of the one below."""
    return fn if not order else lambda x: jvp(along(fn, u, order - 1), x, u)[1]


def check(fn, shape, mode, orders):
    x, u = random(shape), random(shape, 1)
    for order in orders:
        lower = along(fn, u, order - 1)
        pushed = MODES[mode](along(fn, u, order))(x)
        assert relative_error(pushed, central_difference(MODES["graph"](lower), x, u)) < 1e-7
        w = random(pushed.shape, 2)
        _, pulled = MODES[mode](lambda x, w, lower=lower: vjp(lower, x, w))(x, w)
        gap = abs(dot(pushed, w) - dot(u, pulled))
        assert gap < 1e-12 * np.linalg.norm(pushed) * np.linalg.norm(w)


@table(lambda name, mode: mode != "graph" and name not in TYPICAL)
def test_first_derivatives_are_exact(fn, shape, mode):
    check(curved(fn), shape, mode, [1])


@table(lambda name, mode: mode != "graph" or name not in TYPICAL)
def test_third_derivatives_are_exact(fn, shape, mode):
    check(curved(fn), shape, mode, [3])


@pytest.mark.slow
@table(lambda name, mode: True)
def test_second_derivatives_are_exact(fn, shape, mode):
    check(curved(fn), shape, mode, [2])


# --- where rules are asked for in other ways ------------------------------------------------------

SOME = "max_pool_odd upsampling groups depthwise einsum_heads".split()
some = pytest.mark.parametrize(
    ("fn", "shape"), [pytest.param(f, s, id=n) for n, f, s in CASES if n in SOME]
)


@some
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_rules_are_vectorized(fn, shape, way):
    x, u = random(shape), random(shape, 1)
    dense = MODES["graph"](lambda x: jacobian(curved(fn), x, mode=way))(x)
    expected = central_difference(curved(fn), x, u)
    assert relative_error(tf.tensordot(dense, u, len(shape)), expected) < 1e-7


@some
def test_rules_take_a_batch_of_unknown_size(fn, shape):
    spec = tf.TensorSpec([None, *shape[1:]], tf.float64)

    @tf.function(autograph=False, input_signature=[spec, spec])
    def push_and_pull(x, u):
        _, J = linearize(curved(fn), x)
        return J(u), J.T(J(u))

    for batch in (1, 2):
        x, u = random(shape)[:batch], random(shape, 1)[:batch]
        pushed, pulled = push_and_pull(x, u)
        assert relative_error(pushed, central_difference(curved(fn), x, u)) < 1e-7
        assert dot(pulled, u) == pytest.approx(dot(pushed, pushed))


@some
@pytest.mark.parametrize("inside", [True, False])
def test_rules_hold_in_loops(fn, shape, inside):
    x, u = random(shape), random(shape, 1)

    def twice(x, u):
        _, outer = linearize(curved(fn), x)

        def body(u):
            J = linearize(curved(fn), x)[1] if inside else outer
            return [J.T(J(u))]

        return tf.while_loop(lambda _: True, body, [u], maximum_iterations=2)[0]

    _, J = linearize(curved(fn), x)
    assert relative_error(MODES["graph"](twice)(x, u), J.T(J(J.T(J(u))))) < 1e-12


# --- ties, dtypes, values -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dtype", "mode"),
    [
        (2, 2, "VALID", "float32", "graph"),
        (3, 1, "SAME", "float32", "graph"),
        *[(3, 2, "SAME", dtype, "graph") for dtype in ("float32", "float16", "bfloat16")],
        *[(3, 2, "SAME", "float32", mode) for mode in ("eager", "xla")],
    ],
)
def test_ties_are_broken_alike_in_both_directions(size, stride, padding, dtype, mode):
    def integers(shape, seed, low, high):
        return tf.constant(np.random.default_rng(seed).integers(low, high, shape), dtype)

    x, u = integers(IMAGE, 0, -1, 3), integers(IMAGE, 1, -9, 9)
    fn = max_pool(size, stride, padding)
    _, pushed = MODES[mode](lambda x, u: jvp(fn, x, u))(x, u)
    w = integers(pushed.shape, 2, -9, 9)
    _, pulled = MODES[mode](lambda x, w: vjp(fn, x, w))(x, w)
    assert dot(pushed, w) == dot(u, pulled)  # integers: no rounding
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fn(x)
    np.testing.assert_array_equal(pulled, tape.gradient(y, x, w))  # the choice of TensorFlow's CPU


@modes
def test_ties_in_three_dimensions(mode):
    x = tf.constant(np.random.default_rng(0).integers(0, 2, [1, 4, 5, 6, 2]), tf.float32)
    u, fn = random(x.shape, 1, "float32"), lambda x: tf.nn.max_pool3d(x, 3, 2, "SAME")
    _, pushed = MODES[mode](lambda x, u: jvp(fn, x, u))(x, u)
    w = random(pushed.shape, 2, "float32")
    _, pulled = MODES[mode](lambda x, w: vjp(fn, x, w))(x, w)
    assert dot(pushed, w) == pytest.approx(dot(u, pulled), rel=1e-5)


def test_values_are_those_of_tensorflow():
    x = random([9])
    outputs, _ = jvp(lambda x: tf.nn.silu(x, 1.3), x, x)
    np.testing.assert_array_equal(outputs, tf.nn.silu(x, 1.3))


# --- the checks themselves ------------------------------------------------------------------------


def off_by_little(op, cotangent):
    multiples = op.inputs[1]
    push, pull = (lambda t, m: tf.tile(t, m)), (lambda c, _: c[:, :2] + 1.001 * c[:, 2:])
    return transposes(push, pull, multiples)[1](cotangent), None


def off_at_second_order(op, cotangent):
    x, y = op.inputs
    return tf.stop_gradient(y) * cotangent, x * cotangent


@pytest.mark.parametrize(
    ("op", "rule", "fn", "order"),
    [
        ("Tile", off_by_little, lambda x: tf.tile(x, [1, 2]), 1),
        ("Mul", off_at_second_order, lambda x: x * tf.sin(x), 2),
    ],
)
def test_a_wrong_rule_is_caught(op, rule, fn, order, monkeypatch):
    check(fn, [3, 2], "graph", [order])
    monkeypatch.setitem(rules.SEALED, op, rule)
    with pytest.raises(AssertionError):
        check(fn, [3, 2], "graph", [order])
