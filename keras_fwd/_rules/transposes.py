"""Pairs of linear functions, each the derivative of the other's derivative, to any order."""

import tensorflow as tf

from keras_fwd.errors import LeakError


def transposes(push, pull, *coefficients):
    """Wrap a linear function and its transpose so that each differentiates into the other.

    Whatever order is asked for, by whichever tape, only these two ever run: no gradient of
    TensorFlow's that is missing, dropped, poisoned or slow.

    Args:
        push: Linear function of its first argument; the coefficients are its others, and it counts
            as constant in them.
        pull: Its transpose, of the same arguments.
        *coefficients: Every tensor that both read. They must not come through a closure: in the
            body of a loop or of a nested function TensorFlow takes the second derivative in
            another graph, from where a tensor in a closure cannot be reached.

    Returns:
        The two, as functions of one tensor.

    >>> factor = tf.constant(2.0)
    >>> double, again = transposes(lambda t, k: k * t, lambda c, k: k * c, factor)
    >>> float(double(tf.constant(3.0)))
    6.0
    """
    return _wrapped(push, pull, coefficients), _wrapped(pull, push, coefficients)


def _wrapped(function, transpose, coefficients):
    def call(vector):
        here = local(coefficients)

        @tf.custom_gradient
        def linear(vector):
            return function(vector, *here), _wrapped(transpose, function, here)

        return linear(vector)

    return call


def local(tensors):
    """The tensors, as ones of the graph that is being built."""
    return [tf.identity(tensor) for tensor in tensors]


def refused(message, sources):
    """A scalar zero whose derivative by the sources raises a `LeakError` with that message.

    Added to a gradient that must not be differentiated by them: silence would be wrong there.
    """

    @tf.custom_gradient
    def zero(*sources):
        def gradient(dy):
            raise LeakError(message)

        return tf.zeros([]), gradient

    return zero(*local(sources))
