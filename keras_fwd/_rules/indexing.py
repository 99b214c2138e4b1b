"""`XlaDynamicUpdateSlice`: `keras.ops.slice_update`, and gradients of slices under XLA."""

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import transposes


def update_slice(op, cotangent):
    """Rule for `XlaDynamicUpdateSlice`: what is overwritten pulls back nothing."""
    x, update, start = op.inputs
    shape, size = tf.shape(x), tf.shape(update)
    start = tf.clip_by_value(tf.cast(start, tf.int32), 0, shape - size)  # as the op itself does
    inside = tf.ones(shape, tf.bool)
    for axis in range(len(x.shape)):
        place = tf.range(shape[axis])
        along = (place >= start[axis]) & (place < start[axis] + size[axis])
        inside &= tf.reshape(along, [-1, *[1] * (len(x.shape) - axis - 1)])
    kept = tf.where(inside, tf.zeros_like(cotangent), cotangent)
    return kept, tf.slice(cotangent, start, size), None


# Segments of gathered rows, which embedding look-ups reduce.

_FORWARD = {
    "Mean": tf.raw_ops.SparseSegmentMeanWithNumSegments,
    "Sum": tf.raw_ops.SparseSegmentSumWithNumSegments,
    "SqrtN": tf.raw_ops.SparseSegmentSqrtNWithNumSegments,
}


def segment_gradient(reduction):
    """Rule for `SparseSegment…Grad`: the reduction itself, which is linear."""

    def rule(op, cotangent):
        grad, indices, segment_ids, _ = op.inputs
        reduced = _FORWARD[reduction](
            data=cotangent,
            indices=indices,
            segment_ids=segment_ids,
            num_segments=tf.shape(grad)[0],
        )
        return reduced, None, None, None

    return rule


def segment_gradient_by_rows(reduction):
    """Rule for `SparseSegment…GradV2`, which returns the rows that were read, sorted."""

    def rule(op, cotangent, _):
        grad, indices, segment_ids, _ = op.inputs
        # Its second output holds them too, but stands behind the cotangents in the graph.
        place = tf.searchsorted(tf.sort(tf.unique(indices)[0]), indices)
        reduced = _FORWARD[reduction](
            data=cotangent,
            indices=place,
            segment_ids=segment_ids,
            num_segments=tf.shape(grad)[0],
        )
        return reduced, None, None, None

    return rule


# `Tile`, which `tf.repeat` and nearest upsampling come down to.
#
# TensorFlow sums over interleaved axes of a shape of twice the rank to pull back, and broadcasts to
# it to push forward, which takes eighty forward passes. The pushforward of a linear op is the op.


def tile(op, cotangent):
    """Rule for `Tile`."""
    own = registry.own_gradient("Tile")
    # From a gather behind the op: TensorFlow's rule keeps it sparse.
    if isinstance(cotangent, tf.IndexedSlices):
        return own(op, cotangent)
    x, multiples = op.inputs
    static = tf.get_static_value(multiples)

    def pull(cotangent, x, multiples):
        if static is None:
            return own(registry.Op([x, multiples], [], op.get_attr), cotangent)[0]
        return tf.reshape(_sum_copies(cotangent, x, static.tolist()), tf.shape(x))

    def push(tangent, x, multiples):
        return tf.tile(tangent, multiples)

    return transposes(push, pull, x, multiples)[1](cotangent), None


def _sum_copies(cotangent, x, multiples):
    """The sum over the copies along each axis that has any; neighboring other axes as one."""
    sizes, shape, merged = tf.shape(x), [], 1
    for axis, count in enumerate(multiples):
        size = x.shape[axis] if x.shape[axis] is not None else sizes[axis]
        if count != 1:
            shape += [merged, count]
            merged = 1
        merged = merged * size
    # `shape` holds pairs of what is merged and of copies: every second axis is of copies.
    copies = range(1, 2 * (len(shape) // 2), 2)
    return tf.reduce_sum(tf.reshape(cotangent, [*shape, merged]), list(copies))
