"""Moré's control of steps: by the radius within which the quadratic model is trusted.

The damping follows from the radius, so a step that is rejected tells by how much the next one must
be shorter, and one that was predicted well frees the next from damping at once.
"""

import weakref

import keras
import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps.damping import LARGEST
from keras_fwd.optimizers._steps.parts import Outcome, RegionSystem, State
from keras_fwd.typing import Variable


class Region:
    """What of a trust region survives a step: the radius, below zero while it is not known yet, and
    the largest norms that the columns of the Jacobian have had.

    Args:
        radius: Scalar variable.
        scale: List of variables like those of the problem.
    """

    def __init__(self, radius, scale):
        self.radius, self.scale = radius, scale

    def start(self, values, finite):
        """At first the region reaches as far as the origin of the variables."""
        scaled = nest.map_live(tf.multiply, [v.value for v in self.scale], values)
        length = tf.cast(nest.norm(scaled), self.radius.dtype)
        start = tf.where(length > 0, length, tf.ones_like(length))
        unknown = (self.radius.value < 0) & finite
        self.radius.assign(tf.where(unknown, start, self.radius.value))

    def renew(self):
        """As it was when it was made."""
        self.radius.assign(-1.0)
        for variable in self.scale:
            variable.assign(tf.zeros_like(variable.value))


def fit(state, variables):
    """Whether there is a state, of variables in these shapes: the optimizer may be shared."""
    return bool(state) and [s.shape for s in state] == [v.shape for v in variables]


class Regions:
    """The regions of problems without a model, one for each list of variables.

    Each is kept as long as its variables live, and so as long as a graph can run that knows it.
    """

    def __init__(self):
        self._known = []

    def of(self, variables):
        """The `Region` of `ResidualVariable`s; made when it is asked for, inside a graph too."""
        known = self._find(variables)
        if known is None:
            with tf.init_scope():  # not of the graph, which may be one of several
                radius = keras.Variable(-1.0, dtype="float64", trainable=False, name="radius")
                scale = [
                    keras.Variable(tf.zeros(v.shape, v.value.dtype), trainable=False, name="scale")
                    for v in variables
                ]
            known = Region(radius, scale)
            self._known.append(([weakref.ref(v.value) for v in variables], known))
        return known

    def renew(self, variables):
        """As if these variables had not been seen before."""
        known = self._find(variables)
        if known is not None:
            known.renew()

    def _find(self, variables):
        self._known = [entry for entry in self._known if all(ref() is not None for ref in entry[0])]
        values = [v.value for v in variables]
        for references, region in self._known:
            if len(references) == len(values) and all(
                ref() is value for ref, value in zip(references, values, strict=True)
            ):
                return region
        return None


class TrustRegion:
    """The control of a `Search` by a radius.

    Args:
        damping: Scalar variable for the damping that the last step needed.
        radius: Scalar variable.
        system: Of the batch, with `within`, `length`, `slope` of its last solution.
        rate: Factor on the directions.
    """

    def __init__(
        self,
        damping: Variable,
        radius: Variable,
        system: RegionSystem[Solution],
        rate: tf.Tensor,
    ) -> None:
        self.variables = {"damping": damping, "radius": radius}
        self._system, self._rate = system, rate

    def start(self, sound: tf.Tensor) -> State:
        """The radius is that of the step before; a batch that is not finite tells nothing."""
        del sound
        return {name: tf.identity(variable.value) for name, variable in self.variables.items()}

    def solve(self, state: State) -> tuple[Solution, tf.Tensor, tuple[tf.Tensor, ...]]:
        """`Solution` within the radius, its damping, and what is needed to judge it."""
        radius, rate = state["radius"], tf.cast(self._rate, state["radius"].dtype)
        damping = self._system.within(tf.math.divide_no_nan(radius, rate))
        solution = self._system.solve(damping)
        # Minus: the step is against the solution, so the loss falls along it.
        facts = self._system.length(solution.value) * rate, -self._system.slope(damping) * rate
        return solution, damping, (damping, *facts)

    def nothing(self) -> tuple[tf.Tensor, ...]:
        """In the place of facts that are not needed."""
        return (tf.zeros([], self.variables["radius"].dtype),) * 3

    def next(
        self,
        state: State,
        facts: tuple[tf.Tensor, ...],
        ratio: tf.Tensor,
        accepted: tf.Tensor,
        before: tf.Tensor,
        after: tf.Tensor,
    ) -> State:
        """The state after a trial."""
        del accepted
        damping, length, slope = facts
        ratio = tf.cast(ratio, state["radius"].dtype)
        radius = adapt(state["radius"], length, ratio, tf.equal(damping, 0), slope, before, after)
        # A direction that is not finite has no length, and is no other within another radius.
        damping = tf.where(tf.math.is_finite(length), damping, LARGEST)
        return {"damping": tf.cast(damping, state["damping"].dtype), "radius": radius}

    def settled(self, outcome: Outcome) -> State:
        """The next batch starts with the radius that the trials of this one ended with."""
        return outcome.control


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
    # A parabola through the loss at both ends with this slope has its minimum there.
    lowest = tf.math.divide_no_nan(-slope, 2 * (rise - slope))
    share = tf.where(rise > 0, tf.clip_by_value(lowest, 0.1, 0.5), 0.5)
    share = tf.where(tf.math.is_finite(after), share, 0.1)
    # Of a step much shorter than the radius, the radius says nothing.
    shorter = share * tf.minimum(radius, 10 * length)
    good = undamped | (ratio >= 0.75)
    following = tf.where(ratio <= 0.25, shorter, tf.where(good, 2 * length, radius))
    return tf.where(length > 0, following, radius)  # a step of length zero tells nothing
