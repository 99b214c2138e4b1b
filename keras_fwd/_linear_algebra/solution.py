"""How every solver reports: a `Solution`, and its `Status` in words."""

import enum
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Status(enum.IntEnum):
    """How a solve ended; `Status(code).message` says it in words."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    NEGATIVE_CURVATURE = 2
    NOT_FINITE = 3
    LITTLE_PROGRESS = 4

    @property
    def message(self):
        """What happened, the usual cause, and the way out."""
        return {
            Status.CONVERGED: "the residual reached the tolerance",
            Status.MAX_ITERATIONS: "the iterations ran out before the residual reached the "
            "tolerance; raise `max_iterations` or the damping",
            Status.NEGATIVE_CURVATURE: "a direction of negative curvature ended the solve early; "
            "the loss is not convex in the outputs, and more damping helps",
            Status.NOT_FINITE: "NaN or infinity appeared; the inputs or weights are too large",
            Status.LITTLE_PROGRESS: "the last iterations lowered the quadratic by too little; for "
            "a more exact solution lower `progress_tolerance`",
        }[self]


class Solution(NamedTuple):
    """The result of a solve, all tensors.

    Attributes:
        value: The solution `x`, a nest like `g`.
        status: int32 scalar, a `Status`.
        iterations: int32 scalar; 1 for a direct solver.
        residual_norm: Norm of `g − (C + λ I) x`, relative to that of `g`; NaN if not measured.
            After back-tracking, of the last iterate.
    """

    value: Any
    status: tf.Tensor
    iterations: tf.Tensor
    residual_norm: tf.Tensor


def direct_solution(value):
    """The `Solution` of a direct solver, for its vector."""
    finite = tf.reduce_all(tf.math.is_finite(value))
    status = tf.where(finite, int(Status.CONVERGED), int(Status.NOT_FINITE))
    return Solution(value, status, tf.constant(1), tf.constant(float("nan"), value.dtype))


def rounding(values, dtype=None):
    """What counts as zero beside the largest of some values, that are known to a dtype's digits."""
    epsilon = np.finfo((dtype or values.dtype).as_numpy_dtype).eps
    # The usual bound, as in NumPy's `matrix_rank`.
    return tf.cast(tf.size(values), values.dtype) * epsilon * tf.reduce_max(tf.abs(values))
