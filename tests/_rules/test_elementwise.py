"""Rules of ops that act on each component, and of norms and sums, to third order."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.cases import (
    MODES,
    random,
)
from support.rule_checks import (
    Row,
    by_modes,
    check_op,
    check_orders,
    check_row,
    curved,
    of_table,
    rows,
)

from keras_fwd import jvp, linearize

pytestmark = pytest.mark.usefixtures("float64")
QUANT = tf.quantization
NORM = tf.math.reduce_euclidean_norm


def complex_function(function):
    def real(x):
        z = function(tf.complex(x, x**2 + 1))
        return tf.concat([tf.math.real(z), tf.math.imag(z)], 0) if z.dtype.is_complex else z

    return real


TABLE = [
    Row("softsign", tf.nn.softsign, (5,), xla=True),
    Row("softsign in a layer", keras.activations.softsign, (2, 3), xla=True),
    Row("lrn", lambda x: tf.nn.lrn(x, 1, 1.0, 0.7, 0.6), (1, 2, 2, 5), single=True),
    Row("lrn, wide", lambda x: tf.nn.lrn(x, 9, 2.0, 0.1, 0.5), (1, 2, 2, 5), single=True),
    Row("cumulative_logsumexp", tf.math.cumulative_logsumexp, (5,)),
    Row(
        "cumulative_logsumexp, exclusive",
        lambda x: tf.math.cumulative_logsumexp(x, 1, exclusive=True)[:, 1:],
        (2, 4),
    ),
    Row(
        "cumulative_logsumexp, reverse",
        lambda x: tf.math.cumulative_logsumexp(50 * x, 0, reverse=True),
        (3, 2),
    ),
    Row("euclidean_norm", NORM, (3, 4)),
    Row("euclidean_norm, axis", lambda x: NORM(x, axis=-1), (3, 4)),
    Row("euclidean_norm, axes", lambda x: NORM(x, [0, -1], keepdims=True), (3, 2, 4)),
    *(
        Row(
            f"complex {name}",
            complex_function(getattr(tf.math, name)),
            (4,),
            xla=True,
            xla_tape=False,
        )
        for name in ("reciprocal", "sqrt", "rsqrt", "log", "angle")
    ),
]

FAST = {"softsign", "lrn", "cumulative_logsumexp"}

CASES = [
    ("silu", tf.nn.silu, [7]),
    ("silu_beta", lambda x: tf.nn.silu(x, tf.reduce_sum(x)), [7]),
    ("silu_betas", lambda x: tf.nn.silu(x, x[0]), [2, 3]),
]
TYPICAL = ("silu",)


def quantized(name, *limits):
    """As a flight of 65 535 stairs."""
    function = getattr(QUANT, f"fake_quant_with_min_max_{name}")
    return lambda x: function(x, *limits, num_bits=16)


STAIRS = {"single": True, "stairs": True}


#: The row that needs the rule of an op, by the op.
OPS = {
    **of_table(
        TABLE,
        LRNGrad="lrn",
        SoftsignGrad="softsign",
        CumulativeLogsumexp="cumulative_logsumexp",
        EuclideanNorm="euclidean_norm",
        Reciprocal="complex reciprocal",
        Rsqrt="complex rsqrt",
        Sqrt="complex sqrt",
    ),
    "FakeQuantWithMinMaxArgs": Row("args", quantized("args"), (3, 2), **STAIRS),
    "FakeQuantWithMinMaxVars": Row("vars", quantized("vars", -5.0, 7.0), (3, 2), **STAIRS),
    "FakeQuantWithMinMaxVarsPerChannel": Row(
        "channels", quantized("vars_per_channel", [-5.0, -4.0], [6.0, 7.0]), (3, 2), **STAIRS
    ),
    "Inv": Row("inverse", complex_function(lambda z: tf.raw_ops.Inv(x=z)), (4,)),
}


@pytest.mark.parametrize("op", OPS)
def test_the_rule_of_an_op(op, monkeypatch):
    check_op(op, OPS[op], monkeypatch)


@rows(TABLE, FAST, OPS)
def test_rules_are_exact(row, mode):
    check_row(row, mode)


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


@pytest.mark.parametrize("mode", MODES)
def test_fake_quantization_is_the_identity_inside_of_its_range(mode):
    # As its own gradient says; the op itself is a flight of stairs.
    x, u = tf.constant([-7.0, -1.3, 2.2, 9.0]), tf.constant([1.0, 2.0, 3.0, 4.0])

    def fn(x):
        return QUANT.fake_quant_with_min_max_args(x) + 2 * x

    def first(x):
        return jvp(lambda x: fn(x) ** 2, x, u)[1]

    run, inside = MODES[mode], np.array([0.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(run(lambda x: jvp(fn, x, u)[1])(x), (inside + 2) * u)
    np.testing.assert_allclose(run(lambda x: jvp(first, x, u)[1])(x), 2 * ((inside + 2) * u) ** 2)


def test_limits_of_fake_quantization_move_what_lies_outside():
    x = tf.constant([-3.0, -0.4, 0.3, 2.0])
    limits = [tf.constant(-1.0), tf.constant(1.0)]

    def fn(limits):
        return QUANT.fake_quant_with_min_max_vars(x, *limits)

    _, J = linearize(fn, limits)
    np.testing.assert_allclose(J([tf.constant(1.0), tf.constant(0.0)]), [1, 0, 0, 0])
    np.testing.assert_allclose(J([tf.constant(0.0), tf.constant(1.0)]), [0, 0, 0, 1])
    np.testing.assert_allclose(J.T(tf.constant([1.0, 2.0, 3.0, 4.0])), [1.0, 4.0])


def test_a_cumulative_sum_of_far_exponents_does_not_overflow():
    x = tf.constant([-800.0, 0.0, 800.0, 5.0], tf.float64)
    _, pushed = jvp(tf.math.cumulative_logsumexp, x, tf.constant([1.0, 2.0, -3.0, 0.0], tf.float64))
    np.testing.assert_allclose(pushed, [1.0, 2.0, -3.0, -3.0])


def test_values_are_those_of_tensorflow():
    x = random([9])
    outputs, _ = jvp(lambda x: tf.nn.silu(x, 1.3), x, x)
    np.testing.assert_array_equal(outputs, tf.nn.silu(x, 1.3))
