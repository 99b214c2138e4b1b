"""Functions of complex numbers whose gradients XLA gets wrong.

The backward kernels of TensorFlow conjugate what they read, as the gradient of a function of
complex numbers must; those of XLA do not. The rules below are made of ops that both compute alike.
"""

import tensorflow as tf

from keras_fwd._graphs import registry


def reciprocal(op, cotangent):
    """Rule for `Reciprocal` and `Inv`: `(1/x)' = −1/x²`."""
    y = tf.math.conj(op.outputs[0])
    return -cotangent * y * y


def sqrt(op, cotangent):
    """Rule for `Sqrt`: `(√x)' = ½/√x`."""
    return cotangent / (2 * tf.math.conj(op.outputs[0]))


def rsqrt(op, cotangent):
    """Rule for `Rsqrt`: `(1/√x)' = −½ (1/√x)³`."""
    y = tf.math.conj(op.outputs[0])
    return cotangent * y * y * y / -2


def where_complex(op_type, rule):
    """The rule for complex numbers, TensorFlow's own for others."""

    def either(op, cotangent):
        if cotangent.dtype.is_complex:
            return rule(op, cotangent)
        return registry.own_gradient(op_type)(op, cotangent)

    return either
