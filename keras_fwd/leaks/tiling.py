"""`Tile`, which `tf.repeat` and nearest upsampling come down to.

TensorFlow sums over interleaved axes of a shape of twice the rank to pull back, and broadcasts to
it to push forward, which takes eighty forward passes. The pushforward of a linear op is the op.
"""

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import transposes


def tile(op, cotangent):
    """Rule for `Tile`."""
    own = registry.own_gradient("Tile")
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
    copies = range(1, 2 * (len(shape) // 2), 2)
    return tf.reduce_sum(tf.reshape(cotangent, [*shape, merged]), list(copies))
