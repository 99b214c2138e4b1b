"""Max pooling: the tangent at the first maximum of each window.

TensorFlow's kernels for that, `MaxPoolGradGrad` and its transpose, take ten forward passes on a CPU
and more, and break ties each in its own way. A comparison of the strided slices of the input takes
one when it is compiled, and its transpose two.
"""

import functools

import tensorflow as tf

from keras_fwd.leaks import registry
from keras_fwd.leaks.transposes import transposes


def max_pool(op_type):
    """Rule for `MaxPool` or `MaxPool3D`; an op with explicit paddings keeps TensorFlow's own."""

    def rule(op, cotangent):
        x, y = op.inputs[0], op.outputs[0]
        window, strides = tuple(op.get_attr("ksize")), tuple(op.get_attr("strides"))
        if len(window) != x.shape.rank or op.get_attr("padding") not in (b"SAME", b"VALID"):
            return registry.own_gradient(op_type)(op, cotangent)
        select, spread = _compiled(window, strides, tuple(x.shape), x.dtype)

        def push(tangent, x, y):
            return tf.ensure_shape(select(tangent, x, y), y.shape)

        def pull(cotangent, x, y):
            return tf.ensure_shape(spread(cotangent, x, y), x.shape)

        return transposes(push, pull, x, y)[1](cotangent)

    return rule


@functools.lru_cache(maxsize=512)
def _compiled(window, strides, shape, dtype):
    """Both directions, for one shape: none is traced twice, and eager calls find it compiled."""
    del shape, dtype

    def select(tangent, x, y):
        # Along one axis after the other, the last one first: of equal values the first in row-major
        # order stays, as in TensorFlow.
        for axis in reversed(range(len(window))):
            if window[axis] > 1 or strides[axis] > 1:
                size = tf.shape(y)[axis]
                x, tangent = _select_along(axis, x, tangent, size, window[axis], strides[axis])
        return tangent

    def spread(cotangent, x, y):
        zeros = tf.zeros_like(x)
        return tf.gradients(select(zeros, x, y), zeros, cotangent)[0]

    return [tf.function(f, jit_compile=True, autograph=False) for f in (select, spread)]


def _select_along(axis, x, tangent, size, window, stride):
    """The maxima over windows along one axis, `size` of them, and the tangents there."""
    last = (size - 1) * stride + 1
    padding = tf.maximum(last + window - 1 - tf.shape(x)[axis], 0)  # none if "VALID"
    before = padding // 2
    paddings = tf.pad([[before, padding - before]], [[axis, len(x.shape) - axis - 1], [0, 0]])
    x = tf.pad(x, paddings, constant_values=tf.constant(-float("inf"), x.dtype))
    tangent = tf.pad(tangent, paddings)
    largest = chosen = None
    for place in range(window):
        index = (*[slice(None)] * axis, slice(place, place + last, stride))
        if largest is None:
            largest, chosen = x[index], tangent[index]
        else:
            larger = x[index] > largest
            largest = tf.where(larger, x[index], largest)
            chosen = tf.where(larger, tangent[index], chosen)
    return largest, chosen
