"""How the damping follows the quality of the steps, and what of it must survive a step."""

from typing import Generic

import tensorflow as tf

from keras_fwd.optimizers._steps.parts import Outcome, S, State, System
from keras_fwd.typing import Variable

#: A step is kept when the loss falls by more than this share of what was predicted.
ACCEPT = 1e-4
SMALLEST = 1e-16
LARGEST = 1e16
#: The same bounds for `follow`, whose damping is of curvature in single precision.
LEAST = 1e-8
MOST = 1e8
#: `follow` changes the damping by this factor, up or down,
FACTOR = 0.93
#: and raises it by this one after a step that had to be shortened.
AFTER_REJECTION = 2.0


class Nielsen(Generic[S]):
    """The control of a `Search` by the damping itself, with Nielsen's rule.

    Args:
        damping: Scalar variable.
        growth: Scalar variable: the factor by which the next rejection raises the damping.
        system: Of the batch.
    """

    def __init__(self, damping: Variable, growth: Variable, system: System[S]) -> None:
        self.variables = {"damping": damping, "growth": growth}
        self._system = system

    def start(self, sound: tf.Tensor) -> State:
        """A batch without a finite loss is not tried at all: only the damping rises."""
        damping, growth = (tf.identity(variable.value) for variable in self.variables.values())
        raised, grown = adapt(damping, growth, -1.0, tf.constant(False))
        return {
            "damping": tf.where(sound, damping, raised),
            "growth": tf.where(sound, growth, grown),
        }

    def solve(self, state: State) -> tuple[S, tf.Tensor, tuple[tf.Tensor, ...]]:
        """`Solution`, its damping, and what is needed to judge it: nothing."""
        return self._system.solve(state["damping"]), state["damping"], ()

    def nothing(self) -> tuple[tf.Tensor, ...]:
        """In the place of facts that are not needed."""
        return ()

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
        del facts, before, after
        damping, growth = adapt(state["damping"], state["growth"], ratio, accepted)
        return {"damping": damping, "growth": growth}

    def settled(self, outcome: Outcome) -> State:
        """The next batch starts where the trials of this one ended."""
        return outcome.control


class Steady(Nielsen[S]):
    """Nielsen's rule among the trials of a batch, but each batch starts with the same damping."""

    def settled(self, outcome: Outcome) -> State:
        """The factor of the next rejection alone."""
        return {name: outcome.control[name] for name in outcome.control if name != "damping"}


class Following(Nielsen[S]):
    """Nielsen's rule among the trials of a batch; from batch to batch, `follow`.

    Args:
        damping: As of `Nielsen`.
        growth: As of `Nielsen`.
        system: Of the batch.
        least: What the damping of later batches stays above, a scalar.
    """

    def __init__(
        self, damping: Variable, growth: Variable, system: System[S], least: tf.Tensor
    ) -> None:
        super().__init__(damping, growth, system)
        self._least = least

    def settled(self, outcome: Outcome) -> State:
        """From how the trials went, not from where they ended: one batch may be an exception."""
        damping = tf.identity(self.variables["damping"].value)
        at_once = tf.equal(outcome.trials, 1) & outcome.accepted
        followed = follow(damping, outcome.ratio, at_once, self._least)
        # Without a trial there is nothing to learn.
        due = (outcome.trials > 0) & (damping >= 0)
        return {**outcome.control, "damping": tf.where(due, followed, damping)}


def reduction_ratio(before, after, predicted, first=True):
    """Actual over predicted decrease of the loss; −inf where either is not finite.

    When both are lost in the rounding of the loss itself, the quotient says nothing. The `first`
    trial on a batch then counts as predicted well: thus the last digits of the weights are found,
    to which the loss is blind. A step that rejections made so short does if the loss did not rise.
    """
    actual, predicted = before - after, tf.cast(predicted, before.dtype)
    # A sum of many terms is off by a few roundings, not by one.
    noise = 8 * epsilon(before.dtype) * tf.abs(before)
    lost = tf.logical_and(tf.abs(predicted) <= noise, tf.abs(actual) <= noise)
    sign = tf.cast(tf.where(first | (actual >= 0), 1.0, -1.0), before.dtype)
    ratio = tf.where(lost, sign, actual / predicted)
    usable = tf.math.is_finite(after) & tf.math.is_finite(predicted) & (lost | (predicted > 0))
    failed = tf.constant(-float("inf"), before.dtype)
    return tf.where(usable & tf.math.is_finite(ratio), ratio, failed)


def adapt(damping, growth, ratio, accepted):
    """Nielsen's rule: the next damping, and the factor by which the next rejection raises it.

    A good step (ratio near 1) divides the damping by up to 3, a poor one keeps or doubles it; a
    rejected one multiplies it by 2, 4, 8, … until a step is accepted. Zero stays zero as long as
    steps are accepted.

    References:
        Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05, Technical University of
        Denmark (1999).
    """
    bounded = tf.clip_by_value(tf.cast(ratio, damping.dtype), 0.0, 2.0)
    factor = tf.maximum(1.0 / 3.0, 1.0 - (2.0 * bounded - 1.0) ** 3)
    # Marquardt's floor for the first rejection of an undamped step.
    raised = tf.maximum(damping, 1e-8) * growth
    next_damping = tf.where(accepted, damping * factor, raised)
    # Not below what float32 can still raise; but who starts undamped stays so.
    floor = tf.where(damping > 0, SMALLEST, 0.0)
    next_damping = tf.where(accepted, tf.maximum(next_damping, floor), next_damping)
    return (
        tf.minimum(next_damping, LARGEST),
        # Bounded: after a long row of rejections the factor itself would overflow float32.
        tf.where(accepted, 2.0, tf.minimum(2.0 * growth, 1e8)),
    )


def follow(damping, ratio, at_once, least):
    """Levenberg and Marquardt's rule, in small steps: the next damping.

    Args:
        damping: Of the step.
        ratio: Its reduction ratio.
        at_once: Whether the first trial was accepted.
        least: Damping to stay above; zero stays zero while steps are accepted.

    References:
        Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate
        curvature, ICML (2015), section 6.5.
    """
    ratio = tf.cast(ratio, damping.dtype)
    down = tf.constant(FACTOR, damping.dtype)
    # Between a quarter and three quarters the model predicts as well as one may ask.
    factor = tf.where(ratio > 0.75, down, tf.where(ratio < 0.25, 1 / down, tf.ones_like(down)))
    least = tf.cast(least, damping.dtype)
    least = tf.where(tf.math.is_finite(least), least, LEAST)  # an overflow would stay for good
    floor = tf.where(damping > 0, tf.maximum(least, LEAST), 0.0)
    raised = tf.minimum(tf.maximum(damping, LEAST) * AFTER_REJECTION, MOST)
    return tf.where(at_once, tf.maximum(damping * factor, floor), raised)


def epsilon(dtype):
    """The machine epsilon of a dtype; for one of fewer bits than float32, that of float16."""
    return {tf.float64: 2.0**-52, tf.float32: 2.0**-23}.get(dtype, 2.0**-10)
