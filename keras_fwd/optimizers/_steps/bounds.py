"""Bounds on variables, given by a constraint: which entries a descent leaves where they are."""

import tensorflow as tf

from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.optimizers._steps.expansion import to_leaves

#: How far beyond an entry is looked, relative to it.
_PROBE = 1e-3


def free_entries(variables, values, gradient):
    """Boolean masks: an entry is free unless it lies at a bound and the descent points beyond it.

    Without this, an undamped step would be found as if there were no bound, and then be projected:
    the other entries would go where the minimum is with the bound ignored. That holds for
    constraints entry by entry; where others (a norm) would move the entry, it stays free.

    Args:
        variables: List; each has a `constraint`, a function that projects, or None.
        values: Their values, a list of tensors.
        gradient: Of the loss, a list like the values.

    References:
        Kanzow, Yamashita and Fukushima, Levenberg-Marquardt methods with strong local convergence
        properties for solving nonlinear equations with convex constraints, J. Comput. Appl. Math.
        172 (2004); Bertsekas, Projected Newton methods, SIAM J. Control Optim. 20 (1982).
    """
    return list(map(_free, variables, values, gradient))


class Free:
    """The entries of variables that may move on a batch; what is asked of it leaves out the others.

    Args:
        masks: List of boolean tensors like the variables; None if all entries may move.
    """

    def __init__(self, masks):
        self._masks = masks

    def vector(self, vector):
        """Zeros in the place of the others."""
        if self._masks is None:
            return vector
        pairs = zip(self._masks, vector, strict=True)
        return [tf.where(mask, v, tf.zeros_like(v)) for mask, v in pairs]

    def columns(self, matrix):
        """A matrix `[m, n]` with zeros for columns of the others."""
        if self._masks is None:
            return matrix
        mask = tf.concat([tf.reshape(mask, [-1]) for mask in self._masks], 0)
        return tf.where(mask, matrix, tf.zeros_like(matrix))

    def map(self, J):
        """A `LinearMap` from the variables, with zeros for columns of the others."""
        if self._masks is None:
            return J
        return J @ LinearMap(self.vector, self.vector, J.in_spec, J.in_spec)


def restrict(expansion, variables):
    """Leave out of an `Expansion` what stays at its bounds, in place; sets its `free`."""
    expansion.free = Free(None)
    if all(variable.constraint is None for variable in variables):
        return
    free = expansion.free = Free(free_entries(variables, expansion.values, expansion.gradient))
    expansion.gradient = free.vector(expansion.gradient)
    expansion.whole = free.map(expansion.whole)
    expansion.jacobian = to_leaves(expansion.whole)


def taken(variables, values, step, moved):
    """The step that was taken in the place of `step`, which constraints cut short to `moved`."""
    return [
        s if variable.constraint is None else tf.where(tf.equal(m, v + s), s, m - v)
        for variable, v, s, m in zip(variables, values, step, moved, strict=True)
    ]


def project(variables):
    """Bring variables inside of their constraints: outside the loss may be too low to come back."""
    for variable in variables:
        if variable.constraint is not None:
            variable.assign(variable.constraint(tf.convert_to_tensor(variable.value)))


def _free(variable, value, slope):
    if variable.constraint is None:
        return tf.ones_like(value, tf.bool)
    beyond = value - tf.sign(slope) * _PROBE * (1 + tf.abs(value))
    projected = tf.convert_to_tensor(variable.constraint(beyond))
    return tf.equal(slope, 0) | tf.not_equal(projected, value)
