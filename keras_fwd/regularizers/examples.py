"""Algebra on the single examples of a batch, and many products of them."""

import numpy as np
import tensorflow as tf

from keras_fwd._derivatives import example_jacobians
from keras_fwd._spaces import nest
from keras_fwd._spaces.vectorized import RowMap

UNROLLED = 8  # products that are written out one by one; more of them are vectorized


def each(function, rows):
    """`function` of every row, stacked: written out if they are few, else vectorized.

    Args:
        function: From one row of `rows` to a tensor.
        rows: Tensor `[count, …]` of a known count.
    """
    count = rows.shape[0]
    if count <= UNROLLED:
        return tf.stack([function(row) for row in tf.unstack(rows)])
    mapped = RowMap(function, tf.TensorSpec(rows.shape[1:], rows.dtype))
    # Indices past the end must be readable; what comes of them is cut off.
    return mapped.in_chunks(lambda indices: tf.gather(rows, indices % count), count)


def squared_norms(vector):
    """The squared norm of each example's part of a vector, `[batch]`, at least float32."""
    return dots(vector, vector)


def dots(x, y):
    """The dot product of each example's parts of two vectors, `[batch]`, at least float32."""
    dtype = nest.accumulator_dtype(x)
    x, y = example_jacobians.join(x, dtype), example_jacobians.join(y, dtype)
    return tf.reduce_sum(x * y, axis=1)


def scale_examples(factors, vector):
    """Each example's part of a vector, times the example's factor; `factors` is `[batch]`."""
    return nest.map_live(lambda leaf: _beside(factors, leaf) * leaf, vector)


def steepest(vector):
    """The sign of each component, 0 for those that are no more than rounding beside the largest.

    The direction in which a function with this gradient rises fastest within a box. Not a function
    to differentiate.
    """
    dtype = nest.accumulator_dtype(vector)
    rows = tf.abs(example_jacobians.join(vector, dtype))
    noise = 1e3 * np.finfo(dtype.as_numpy_dtype).eps * tf.reduce_max(rows, axis=1)

    def sign(leaf):
        counts = tf.abs(leaf) > _beside(noise, leaf)
        return tf.stop_gradient(tf.where(counts, tf.sign(leaf), 0))

    return nest.map_live(sign, vector)


def _beside(numbers, leaf):
    """One number for each example, in the rank and dtype of a leaf."""
    shape = tf.concat([tf.shape(numbers), tf.ones([tf.rank(leaf) - 1], tf.int32)], axis=0)
    return tf.cast(tf.reshape(numbers, shape), leaf.dtype)


def root(squares):
    """√, whose derivative at 0 is 0 and not infinite: the smallest subgradient of a norm."""
    positive = squares > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squares, 1)), 0)
