"""Rules of convolutions in groups and of Einstein sums: right, as they are fast."""

import keras
import pytest
import tensorflow as tf
from support.cases import (
    random,
)
from support.rule_checks import (
    Row,
    by_modes,
    check_loops,
    check_op,
    check_orders,
    check_unknown_batch,
    check_vectorized,
    curved,
    named,
)

IMAGE = [2, 5, 6, 4]
KERNEL, DEPTHWISE = random([3, 2, 2, 6], 7), random([2, 3, 1, 8], 8)

pytestmark = pytest.mark.usefixtures("float64")


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


def grouped(x):
    """Keras compiles it with XLA."""
    return keras.ops.conv(x, KERNEL, padding="same")


CASES = [
    ("groups", conv(KERNEL, 1, "SAME"), IMAGE),
    ("groups_strides", conv(KERNEL, [2, 1], "VALID"), IMAGE),
    ("groups_by_kernel", by_kernel(2, "SAME"), KERNEL.shape),
    ("groups_by_both", by_both, IMAGE),
    ("groups_in_keras", grouped, IMAGE),
    ("depthwise", conv(DEPTHWISE, 2, "SAME"), IMAGE),
    ("depthwise_strides", conv(DEPTHWISE, [1, 2], "VALID"), IMAGE),
    ("depthwise_by_kernel", by_kernel(1, "VALID"), DEPTHWISE.shape),
    ("einsum_dense", einsum("abc,cde->abde", random([4, 3, 2], 5)), [2, 3, 4]),
    ("einsum_heads", einsum("aecd,abcd->acbe"), [2, 3, 2, 4]),
    ("einsum_values", einsum("acbe,aecd->abcd", random([1, 2, 4, 3], 6)), [1, 4, 3, 2]),
    ("einsum_outer", einsum("a,b->ab"), [3]),
    ("einsum_summed", einsum("ab,cd->ac"), [2, 2]),
    ("einsum_trace", einsum("aa,ab->b"), [3, 3]),
    ("einsum_ellipsis", einsum("...ab,...bc->...ac"), [2, 3, 3]),
    ("einsum_one", lambda x: tf.einsum("ab->ba", x), [2, 3]),
]
TYPICAL = ("groups", "groups_in_keras", "einsum_heads")


#: The row that needs the rule of an op, by the op.
OPS = {
    "Conv2D": Row("groups", conv(KERNEL, 1, "SAME"), IMAGE),
    "Einsum": Row("heads", einsum("aecd,abcd->acbe"), (2, 3, 2, 4)),
}


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@by_modes(CASES, lambda name, mode: mode != "graph" and name not in TYPICAL)
def test_first_derivatives_are_exact(fn, shape, mode):
    check_orders(curved(fn), shape, mode, [1])


@by_modes(CASES, lambda name, mode: mode != "graph" or name not in TYPICAL)
def test_third_derivatives_are_exact(fn, shape, mode):
    check_orders(curved(fn), shape, mode, [3])


@pytest.mark.slow
@by_modes(CASES, lambda name, mode: True)
def test_second_derivatives_are_exact(fn, shape, mode):
    check_orders(curved(fn), shape, mode, [2])


SOME = "groups depthwise einsum_heads".split()

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
