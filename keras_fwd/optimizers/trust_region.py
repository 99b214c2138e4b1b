"""Moré's control of steps: by the radius within which the quadratic model is trusted.

The damping follows from the radius, so a step that is rejected tells by how much the next one must
be shorter, and one that was predicted well frees the next from damping at once.
"""

import tensorflow as tf


class TrustRegion:
    """The control of a `Search` by a radius; see `keras_fwd.optimizers.damping.Nielsen`.

    Args:
        damping: Scalar variable for the damping that the last step needed.
        radius: Scalar variable.
        system: Of the batch, with `within`, `length`, `slope` of its last solution.
        rate: Factor on the directions.
    """

    def __init__(self, damping, radius, system, rate):
        self.variables = {"damping": damping, "radius": radius}
        self._system, self._rate = system, rate

    def start(self, finite):
        """The radius is that of the step before; a batch that is not finite tells nothing."""
        del finite
        return {name: tf.identity(variable.value) for name, variable in self.variables.items()}

    def solve(self, state):
        """`Solution` within the radius, and what is needed to judge it."""
        radius, rate = state["radius"], tf.cast(self._rate, state["radius"].dtype)
        damping = self._system.within(tf.math.divide_no_nan(radius, rate))
        solution = self._system.solve(damping)
        facts = self._system.length(solution.value) * rate, -self._system.slope(damping) * rate
        return solution, (damping, *facts)

    def nothing(self):
        """In the place of facts that are not needed."""
        return (tf.zeros([], self.variables["radius"].dtype),) * 3

    def next(self, state, facts, ratio, accepted, before, after):
        """The state after a trial."""
        del accepted
        damping, length, slope = facts
        ratio = tf.cast(ratio, state["radius"].dtype)
        radius = adapt(state["radius"], length, ratio, tf.equal(damping, 0), slope, before, after)
        return {"damping": tf.cast(damping, state["damping"].dtype), "radius": radius}


def adapt(radius, length, ratio, undamped, slope, before, after):
    """The next radius.

    A poor step (ratio up to 1/4) shrinks it two- to tenfold, to where a parabola through what is
    known along the step has its minimum; a good one (from 3/4, or undamped) makes it twice as long
    as the step.

    Args:
        radius: Of this step; scalars all.
        length: Of the step, in the same scaled norm.
        ratio: Actual over predicted decrease of the loss.
        undamped: Whether the step needed no damping.
        slope: Of the loss along the step, at its start.
        before: The loss there.
        after: The loss at its end.

    References:
        Moré, The Levenberg-Marquardt algorithm: implementation and theory, Numerical Analysis,
        Lecture Notes in Mathematics 630 (1978), section 5.
    """
    slope, before, after = (tf.cast(x, radius.dtype) for x in (slope, before, after))
    rise = after - before
    lowest = tf.math.divide_no_nan(-slope, 2 * (rise - slope))
    share = tf.where(rise > 0, tf.clip_by_value(lowest, 0.1, 0.5), 0.5)
    share = tf.where(tf.math.is_finite(after), share, 0.1)
    shorter = share * tf.minimum(radius, 10 * length)
    good = undamped | (ratio >= 0.75)
    following = tf.where(ratio <= 0.25, shorter, tf.where(good, 2 * length, radius))
    return tf.where(length > 0, following, radius)  # a step of length zero tells nothing
