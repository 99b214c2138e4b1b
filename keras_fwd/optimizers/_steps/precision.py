"""Models that compute in half precision: their Jacobian between vectors in single precision.

A forward pass, and so each product, stays in the dtype the model computes in. What a solver does
with the products does not: it would lose the conjugacy of its directions, and small curvatures.
"""

import dataclasses

import tensorflow as tf

from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap

#: Below the shortest vector that has a direction.
_TINY = 1e-30


def is_half(space):
    """Whether a leaf of a vector, or of its spec, has fewer bits than float32."""
    return any(leaf.dtype.size < 4 for leaf in nest.live(space))


def widened(expansion, scale):
    """The expansion itself, or one whose leaves and Jacobian are in single precision.

    Args:
        expansion: An `Expansion` with a Jacobian.
        scale: What the loss is multiplied with on its way back, or None.
    """
    if not is_half(expansion.leaves):
        return expansion
    return dataclasses.replace(
        expansion,
        leaves=[_single(leaf) for leaf in expansion.leaves],
        whole=_between_singles(expansion.whole, scale),
    )


def _single(leaf):
    return tf.cast(leaf, tf.float32) if leaf.dtype.size < 4 else leaf


def _between_singles(whole, scale):
    """A training pass's Jacobian, its outputs in float32 at least.

    Vectors go through it at length one: in half precision the products of a short one would be
    zero, those of a long one infinite. The cotangent of the loss is scaled as its gradient is.
    """
    spec = nest.map_live(
        lambda leaf: tf.TensorSpec(leaf.shape, tf.float32) if leaf.dtype.size < 4 else leaf,
        whole.out_spec,
    )

    def push(tangents):
        length = _length(tangents)
        pushed = whole._mv(nest.scale(1 / length, tangents))
        return nest.scale(length, nest.map_live(_single, pushed))

    def pull(cotangents):
        if cotangents["loss"] is None:
            length = _length(cotangents)
        else:
            length = tf.constant(1.0) if scale is None else 1 / scale
        short = nest.scale(1 / length, cotangents)
        narrow = tf.nest.map_structure(
            lambda c, leaf: None if c is None else tf.cast(c, leaf.dtype), short, whole.out_spec
        )
        return nest.scale(length, whole._transpose_mv(narrow))

    return LinearMap(push, pull, whole.in_spec, spec)


def _length(vector):
    return tf.maximum(nest.norm(vector), _TINY)
