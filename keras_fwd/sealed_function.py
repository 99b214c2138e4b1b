"""A function whose derivatives by any tape, to any order, are those of this package."""

import tensorflow as tf

from keras_fwd._derivatives import double_gradient
from keras_fwd._rules.transposes import local
from keras_fwd._spaces import nest


def sealed_function(fn):
    """Wrap a function so that plain TensorFlow tapes differentiate it exactly.

    Args:
        fn: Function of a list of floating-point tensors that returns a nest of them. It must
            read no variable and write none.

    Returns:
        Function of the same value. Its gradient is the `vjp` of `fn`, wrapped in the same way, and
        so is the gradient of its gradient.

    Cost: Each gradient runs what it differentiates once more.

    Example:

    >>> square = sealed_function(lambda xs: xs[0] * xs[0])
    >>> float(square([tf.constant(3.0)]))
    9.0
    """

    def call(sources):
        structure = []

        @tf.custom_gradient
        def run(*sources):
            outputs = fn(list(sources))
            structure.append(outputs)

            def gradient(*cotangents):
                def pullback(arguments):
                    sources, cotangents = arguments[:count], arguments[count:]
                    cotangents = nest.pack(outputs, cotangents)
                    return double_gradient.vjp(fn, sources, cotangents)[1]

                return sealed_function(pullback)(local([*sources, *cotangents]))

            return nest.flatten(outputs), gradient

        count = len(sources)
        leaves = run(*sources)
        return nest.pack(structure[0], leaves)

    return call
