"""Rules of segments, slices and tiles: of ops that move components, to third order."""

import keras
import pytest
import tensorflow as tf
from support.rule_checks import (
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
    rows,
)

IDS = tf.sparse.from_dense(tf.constant([[1, 2], [3, 0]]))
ROWS, SEGMENTS = tf.constant([0, 1, 2, 1]), tf.constant([0, 0, 1, 2])

pytestmark = pytest.mark.usefixtures("float64")


def upsampling(x):
    return keras.layers.UpSampling2D((2, 3))(x)


TABLE = [
    Row("sparse mean", lambda x: tf.sparse.segment_mean(x, ROWS, SEGMENTS), (4, 3)),
    Row("sparse sum", lambda x: tf.sparse.segment_sum(x, ROWS, SEGMENTS), (4, 3)),
    Row("sparse sqrt_n", lambda x: tf.sparse.segment_sqrt_n(x, ROWS, SEGMENTS, 5), (4, 3)),
    Row(
        "embedding_lookup_sparse",
        lambda x: tf.nn.embedding_lookup_sparse(x, IDS, None, combiner="mean"),
        (4, 3),
    ),
    Row("slice_update", lambda x: keras.ops.slice_update(x**2, [1, 2], x[:2, :2] ** 3), (4, 4)),
    Row("slice, compiled", lambda x: tf.slice(x**3, tf.argmax(x)[:2], [1, 1]), (5, 3), xla=True),
]

FAST = ()

CASES = [
    ("tile", lambda x: tf.tile(x, [1, 2, 1, 3]), [2, 3, 2, 2]),
    ("tile_ends", lambda x: tf.tile(x, [3, 1, 2]), [2, 3, 2]),
    ("tile_once", lambda x: tf.tile(x, [1, 1]), [2, 3]),
    ("tile_nothing", lambda x: tf.reduce_sum(tf.tile(x, [0, 2])) + x, [2, 3]),
    ("tile_dynamic", lambda x: tf.tile(x, [1, tf.size(tf.where(x[0] < 9))]), [2, 3]),
    ("repeat", lambda x: tf.repeat(x, 3, 1), [2, 3, 2]),
    ("upsampling", upsampling, [2, 3, 2, 2]),
]
TYPICAL = ("upsampling",)
NOT_IN_XLA = ("tile_dynamic",)  # the forward pass does not compile in float64


def segment_gradient(name):
    """The op itself, as a function of the gradient of the segments."""
    op = getattr(tf.raw_ops, f"SparseSegment{name}")
    size = {"dense_output_dim0" if name.endswith("V2") else "output_dim0": 4}
    segments = {"indices": ROWS, "segment_ids": SEGMENTS, **size}
    return lambda x: tf.nest.flatten(op(grad=x, **segments))[0]


#: The row that needs the rule of an op, by the op.
OPS = {
    "XlaDynamicUpdateSlice": Row(
        "slice_update", lambda x: keras.ops.slice_update(x**2, [1, 2], x[:2, :2] ** 3), (4, 4)
    ),
    "Tile": Row("tile", lambda x: tf.tile(x, [1, 2, 3]), (2, 3, 2)),
    **{
        f"SparseSegment{name}": Row(name, segment_gradient(name), (3, 2))
        for name in ("MeanGrad", "MeanGradV2", "SqrtNGrad", "SqrtNGradV2", "SumGrad", "SumGradV2")
    },
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


SOME = ["upsampling"]

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
