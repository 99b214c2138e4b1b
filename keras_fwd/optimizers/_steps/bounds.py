"""Bounds on variables, given by a constraint: which entries a descent leaves where they are."""

import dataclasses

import tensorflow as tf

from keras_fwd.optimizers._steps.expansion import Expansion, Free

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


def restricted(expansion: Expansion, variables) -> Expansion:
    """An `Expansion` that leaves out what stays at its bounds."""
    if all(variable.constraint is None for variable in variables):
        return expansion
    free = Free(free_entries(variables, expansion.values, expansion.gradient))
    return dataclasses.replace(
        expansion,
        free=free,
        gradient=free.vector(expansion.gradient),
        whole=free.map(expansion.whole),
    )


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
