"""Rules of pooling and of dilation: ties, overlaps, gaps, to third order."""

import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    MODES,
    dot,
    random,
)
from support.rule_checks import (
    IMAGE,
    LINEAR,
    Row,
    by_modes,
    check_loops,
    check_op,
    check_orders,
    check_row,
    check_unknown_batch,
    check_vectorized,
    curved,
    named,
    of_table,
    rows,
)

from keras_fwd import jvp, vjp

KERNEL = tf.constant(np.random.default_rng(3).normal(size=[2, 3, 2]), "float32")
ONES = [1, 1, 1, 1]
modes = pytest.mark.parametrize("mode", MODES)
pytestmark = pytest.mark.usefixtures("float64")


def dilation(padding, strides=1, rates=1):
    def function(x):
        strides_, rates_ = [1, strides, strides, 1], [1, rates, rates, 1]
        return tf.nn.dilation2d(x, KERNEL, strides_, padding, "NHWC", rates_)

    return function


def max_pool(size, stride, padding):
    return lambda x: tf.nn.max_pool(x, size, stride, padding)


TABLE = [
    Row("dilation", dilation("SAME"), IMAGE, positive=True, **LINEAR),
    Row("dilation, strided", dilation("VALID", 2), IMAGE, positive=True, **LINEAR),
    Row("dilation, rates", dilation("SAME", 1, 2), IMAGE, positive=True, **LINEAR),
    Row(
        "dilation by its filter",
        lambda k: tf.nn.dilation2d(
            tf.reshape(tf.linspace(0.0, 1.0, 72) ** 2, [1, 6, 6, 2]), k, ONES, "SAME", "NHWC", ONES
        ),
        (2, 3, 2),
        positive=True,
        **LINEAR,
    ),
    Row(
        "erosion",
        lambda x: tf.nn.erosion2d(x, KERNEL, ONES, "SAME", "NHWC", ONES),
        IMAGE,
        positive=True,
        **LINEAR,
    ),
    Row(
        "fractional_max_pool",
        lambda x: tf.nn.fractional_max_pool(x, 1.5, seed=1)[0],
        IMAGE,
        positive=True,
    ),
    Row(
        "fractional_max_pool, overlapping",
        lambda x: tf.nn.fractional_max_pool(x, [1, 1.4, 1.6, 1], True, True, seed=1)[0],
        IMAGE,
        positive=True,
    ),
    Row(
        "fractional_avg_pool",
        lambda x: tf.nn.fractional_avg_pool(x, [1, 1.5, 1.5, 1], seed=1)[0],
        IMAGE,
    ),
    Row(
        "fractional_avg_pool, overlapping",
        lambda x: tf.nn.fractional_avg_pool(x, [1, 1.4, 1.6, 1], True, True, seed=1)[0],
        IMAGE,
    ),
    Row(
        "max_pool_with_argmax",
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0],
        IMAGE,
        positive=True,
    ),
    Row(
        "max_pool_with_argmax, batch",
        lambda x: tf.nn.max_pool_with_argmax(x, 3, 2, "SAME", include_batch_in_index=True)[0],
        IMAGE,
        positive=True,
    ),
]

FAST = {"dilation"}

CASES = [
    ("max_pool", max_pool(2, 2, "VALID"), IMAGE),
    ("max_pool_odd", max_pool(3, 2, "SAME"), IMAGE),
    ("max_pool_overlap", max_pool(3, 1, "SAME"), IMAGE),
    ("max_pool_oblong", max_pool([3, 1], [1, 2], "SAME"), IMAGE),
    ("max_pool_gaps", max_pool(2, 3, "VALID"), IMAGE),
    ("max_pool_explicit", max_pool(3, 2, [[0, 0], [1, 1], [2, 0], [0, 0]]), IMAGE),
]
TYPICAL = ("max_pool_odd",)
NOT_IN_XLA = ("max_pool",)  # the forward pass does not compile in float64


#: The row that needs the rule of an op, by the op.
OPS = {
    **of_table(
        TABLE,
        Dilation2DBackpropFilter="dilation by its filter",
        Dilation2DBackpropInput="dilation",
        FractionalAvgPoolGrad="fractional_avg_pool",
        FractionalMaxPoolGrad="fractional_max_pool",
        MaxPoolGradWithArgmax="max_pool_with_argmax",
    ),
    "MaxPool": Row("max_pool", max_pool(3, 2, "SAME"), IMAGE, positive=True),
    "MaxPool3D": Row(
        "max_pool3d",
        lambda x: tf.nn.max_pool3d(x, 2, 1, "VALID"),
        (1, 3, 4, 3, 2),
        single=True,
        positive=True,
    ),
}


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@rows(TABLE, FAST, OPS)
def test_rules_are_exact(row, mode):
    check_row(row, mode)


@by_modes(CASES, lambda name, mode: mode != "graph" and name not in TYPICAL, NOT_IN_XLA)
def test_first_derivatives_are_exact(fn, shape, mode):
    check_orders(curved(fn), shape, mode, [1])


@by_modes(CASES, lambda name, mode: mode != "graph" or name not in TYPICAL, NOT_IN_XLA)
def test_third_derivatives_are_exact(fn, shape, mode):
    check_orders(curved(fn), shape, mode, [3])


@pytest.mark.slow
@by_modes(CASES, lambda name, mode: True, NOT_IN_XLA)
def test_second_derivatives_are_exact(fn, shape, mode):
    check_orders(curved(fn), shape, mode, [2])


SOME = ["max_pool_odd"]

some = named(CASES, SOME)


@some
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_rules_are_vectorized(fn, shape, way):
    check_vectorized(fn, shape, way)


@some
def test_rules_take_a_batch_of_unknown_size(fn, shape):
    check_unknown_batch(fn, shape)


@some
@pytest.mark.parametrize("inside", [True, False])
def test_rules_hold_in_loops(fn, shape, inside):
    check_loops(fn, shape, inside)


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
