"""`XlaDynamicUpdateSlice`: `keras.ops.slice_update`, and gradients of slices under XLA."""

import tensorflow as tf


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
