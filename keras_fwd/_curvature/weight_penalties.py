"""The curvature of the weights' own regularizers, which no output shows."""

import keras
import tensorflow as tf

from keras_fwd._spaces.linear_map import LinearMap


def diagonal(variables, values):
    """The diagonal Hessian of the weights' L1 and L2 regularizers: list like the values."""
    pairs = zip(variables, values, strict=True)
    return [tf.fill(tf.shape(v), tf.cast(_ridge(variable), v.dtype)) for variable, v in pairs]


def added_to(curvature, variables, share=1.0):
    """A `LinearMap` on the weights, and a share of the Hessian of their L1 and L2 regularizers."""
    ridges = [share * _ridge(variable) for variable in variables]
    if not any(ridges):
        return curvature

    def product(vector):
        triples = zip(curvature._mv(vector), ridges, vector, strict=True)
        return [c + tf.cast(r, v.dtype) * v if r else c for c, r, v in triples]

    return LinearMap(product, product, curvature.in_spec, curvature.out_spec)


def _ridge(variable):
    """`(l2 v²)''` for every entry `v`; L1 has none, and of other regularizers nothing is known."""
    known = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    regularizer = variable.regularizer if isinstance(variable.regularizer, known) else None
    return 2 * getattr(regularizer, "l2", 0.0)
