"""Max pooling: the tangent at the first maximum of each window.

TensorFlow's kernels for that, `MaxPoolGradGrad` and its transpose, take ten forward passes on a CPU
and more, and break ties each in its own way. A comparison of the strided slices of the input takes
one when it is compiled, and its transpose two.
"""

import functools

import tensorflow as tf

from keras_fwd._graphs import registry
from keras_fwd._rules.transposes import transposes


def max_pool(op_type):
    """Rule for `MaxPool` or `MaxPool3D`, in any layout that has an axis for each size."""

    def rule(op, cotangent):
        x, y = op.inputs[0], op.outputs[0]
        window, strides = tuple(op.get_attr("ksize")), tuple(op.get_attr("strides"))
        if len(window) != x.shape.rank:
            return registry.own_gradient(op_type)(op, cotangent)
        explicit = op.get_attr("padding") == b"EXPLICIT"
        before = tuple(op.get_attr("explicit_paddings")[::2]) if explicit else None
        select, spread = _compiled(window, strides, before, tuple(x.shape), x.dtype)

        def push(tangent, x, y):
            return tf.ensure_shape(select(tangent, x, y), y.shape)

        def pull(cotangent, x, y):
            return tf.ensure_shape(spread(cotangent, x, y), x.shape)

        return transposes(push, pull, x, y)[1](cotangent)

    return rule


@functools.lru_cache(maxsize=512)
def _compiled(window, strides, before, shape, dtype):
    """Both directions, for one shape: none is traced twice, and eager calls find it compiled.

    `before` is the padding at the start of each axis, or `None` for "SAME" and "VALID".
    """
    del shape, dtype

    def select(tangent, x, y):
        # Along one axis after the other, the last one first: of equal values the first in row-major
        # order stays, as in TensorFlow.
        for axis in reversed(range(len(window))):
            if window[axis] > 1 or strides[axis] > 1:
                last = (tf.shape(y)[axis] - 1) * strides[axis]  # where the last window starts
                padding = tf.maximum(last + window[axis] - tf.shape(x)[axis], 0)
                start = padding // 2 if before is None else before[axis]
                pad = start, tf.maximum(padding - start, 0)
                places = [slice(i, last + i + 1, strides[axis]) for i in range(window[axis])]
                values = _along(axis, x, pad, -float("inf"), places)
                tangents = _along(axis, tangent, pad, 0.0, places)
                x, tangent = functools.reduce(_larger, zip(values, tangents, strict=True))
        return tangent

    def spread(cotangent, x, y):
        zeros = tf.zeros_like(x)
        return tf.gradients(select(zeros, x, y), zeros, cotangent)[0]

    return [tf.function(f, jit_compile=True, autograph=False) for f in (select, spread)]


def _along(axis, tensor, pad, value, places):
    """The slices of a padded tensor along one axis."""
    paddings = tf.pad([pad], [[axis, len(tensor.shape) - axis - 1], [0, 0]])
    tensor = tf.pad(tensor, paddings, constant_values=tf.constant(value, tensor.dtype))
    return [tensor[(*[slice(None)] * axis, place)] for place in places]


def _larger(best, candidate):
    """The larger value and its tangent; of equal ones the first."""
    larger = candidate[0] > best[0]
    return [tf.where(larger, c, b) for b, c in zip(best, candidate, strict=True)]
