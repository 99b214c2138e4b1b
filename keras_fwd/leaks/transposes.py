"""Pairs of linear functions, each the derivative of the other's derivative, to any order."""

import tensorflow as tf


def transposes(push, pull):
    """Wrap a linear function and its transpose so that each differentiates into the other.

    Whatever order is asked for, by whichever tape, only these two ever run: no gradient of
    TensorFlow's that is missing, dropped, poisoned or slow.

    Args:
        push: Linear function of one tensor. It may read other tensors from its closure; it counts
            as constant in them.
        pull: Its transpose.

    Returns:
        The two, wrapped.

    >>> double, halve = transposes(lambda t: 2.0 * t, lambda c: 2.0 * c)
    >>> float(double(tf.constant(3.0)))
    6.0
    """

    @tf.custom_gradient
    def pushed(tangent):
        return push(tangent), lambda cotangent: pulled(cotangent)

    @tf.custom_gradient
    def pulled(cotangent):
        return pull(cotangent), lambda tangent: pushed(tangent)

    return pushed, pulled
