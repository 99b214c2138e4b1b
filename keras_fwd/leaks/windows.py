"""Max pooling: the tangent at the first maximum of each window.

TensorFlow's kernel for that, `MaxPoolGradGrad`, takes ten forward passes on a CPU. A comparison of
the strided slices of the input, one a place in the window, takes one when it is compiled.
"""

import functools

import tensorflow as tf

from keras_fwd.leaks import registry
from keras_fwd.leaks.transposes import transposes


def max_pool(op_type):
    """Rule for `MaxPool` or `MaxPool3D`: TensorFlow's own pullback, and a cheap pushforward."""

    def rule(op, cotangent):
        own = registry.own_gradient(op_type)
        x, y = op.inputs[0], op.outputs[0]
        window, strides = tuple(op.get_attr("ksize")), tuple(op.get_attr("strides"))
        if len(window) != x.shape.rank or op.get_attr("padding") not in (b"SAME", b"VALID"):
            return own(op, cotangent)
        select = _compiled(window, strides, tuple(x.shape), x.dtype)

        def push(tangent):
            return tf.ensure_shape(select(x, tangent, y), y.shape)

        return transposes(push, lambda cotangent: own(op, cotangent))[1](cotangent)

    return rule


@functools.lru_cache(maxsize=512)
def _compiled(window, strides, shape, dtype):
    """One function a shape: none is traced twice, and eager calls find it compiled."""
    del shape, dtype

    @tf.function(jit_compile=True, autograph=False)
    def select(x, tangent, y):
        # Along one axis after the other, the last one first: of equal values the first in row-major
        # order stays, as in TensorFlow's pullback.
        for axis in reversed(range(len(window))):
            if window[axis] > 1 or strides[axis] > 1:
                size = tf.shape(y)[axis]
                x, tangent = _select_along(axis, x, tangent, size, window[axis], strides[axis])
        return tangent

    return select


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
