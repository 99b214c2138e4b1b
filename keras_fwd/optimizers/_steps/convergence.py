"""MINPACK's tests of whether another step can gain anything, and the record of the last step.

All numbers are relative and of one step, so the tests need no units. They are tensors, inside a
compiled step as well.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import damping as control
from keras_fwd.optimizers._steps.parts import Progress
from keras_fwd.optimizers.step_report import StepReport, StepStatus

#: The tolerances that stand for "as small as rounding allows", in machine epsilons.
ROUNDINGS = 8.0
#: What stands in a tolerance that is to follow from the dtype.
FROM_DTYPE = -1.0


#: Before the first trial.
UNTRIED = Progress(0.0, 0.0, -float("inf"), 0.0, float("inf"), 0.0)


class Tolerances(NamedTuple):
    """Bounds of the tests: of the reduction, the step and the gradient; see `LeastSquaresStop`."""

    ftol: Any
    xtol: Any
    gtol: Any

    def resolved(self, loss_dtype: Any, weights_dtype: Any) -> "Tolerances":
        """Those below zero by the machine epsilon of a dtype."""
        rounding = [
            ROUNDINGS * control.epsilon(tf.as_dtype(d)) for d in (loss_dtype, weights_dtype)
        ]
        defaults = Tolerances(rounding[0], rounding[1], rounding[0])
        return Tolerances(*[tf.where(t >= 0, t, d) for t, d in zip(self, defaults, strict=True)])


def relative(part, whole):
    """`|part| / |whole|` as float32; 0 where both are zero, infinite where one is not finite."""
    part, whole = tf.abs(part), tf.abs(tf.cast(whole, part.dtype))
    quotient = tf.where(part > 0, part / whole, tf.zeros_like(part))
    known = tf.math.is_finite(part) & tf.math.is_finite(whole)
    infinity = tf.constant(float("inf"), part.dtype)
    return tf.cast(tf.where(known, quotient, infinity), tf.float32)


def cosine(slope, predicted, loss):
    """The cosine between the residual `b` and its change `A s` along a step `s`, float32.

    With the loss `½ |b|²` it is `−⟨g, s⟩ / (√⟨s, C s⟩ √(2 loss))`, `C = AᵀA`. It has no units, does
    not depend on the length of the step, and needs no column of the Jacobian. For an undamped step
    it is `|P b| / |b|`, `P` the projection on the range of `A`, and so not below MINPACK's measure,
    the largest cosine between `b` and a column; for a heavily damped one it is that of the column
    along the gradient. Infinite where rounding hides `⟨s, C s⟩`.

    Args:
        slope: `⟨g, s⟩`.
        predicted: `−⟨g, s⟩ − ½ ⟨s, C s⟩`.
        loss: Of the batch.

    References:
        Moré, The Levenberg-Marquardt algorithm, Lecture Notes in Mathematics 630 (1978); Bates and
        Watts, A relative offset orthogonality convergence criterion, Technometrics 23 (1981).
    """
    predicted, loss = tf.cast(predicted, slope.dtype), tf.cast(loss, slope.dtype)
    curved = -2 * (slope + predicted)
    # The two terms of `curved` cancel where the curvature is small: then only rounding is left.
    visible = curved > 64 * control.epsilon(slope.dtype) * tf.abs(slope)
    length = tf.sqrt(tf.maximum(curved, 0.0)) * tf.sqrt(2 * tf.abs(loss))
    hidden = tf.where(tf.equal(slope, 0.0), 0.0, float("inf"))
    return tf.where(visible, relative(slope, length), tf.cast(hidden, tf.float32))


def after_trial(progress, before, after, ratio, slope, predicted, values, start):
    """The `Progress` after one more trial.

    Args:
        progress: So far.
        before: The loss before the step.
        after: The loss after the trial.
        ratio: Its reduction ratio.
        slope: `⟨g, s⟩`.
        predicted: Reduction of the loss.
        values: The weights of the trial.
        start: The weights before.
    """
    moved = nest.norm(nest.add_scaled(values, -1.0, start))
    step = relative(moved, nest.norm(start))
    return Progress(
        reduction=tf.maximum(progress.reduction, relative(before - after, before)),
        predicted=tf.maximum(progress.predicted, relative(predicted, before)),
        ratio=tf.cast(ratio, tf.float32),
        step=tf.maximum(progress.step, step),
        shortest=step,
        cosine=tf.maximum(progress.cosine, cosine(slope, predicted, before)),
    )


def met(progress, tolerances):
    """The test of convergence that a step meets, an int32 `StepStatus`; `NO_STEP` for none.

    MINPACK's: of the gradient, `cosine ≤ gtol`; of the loss, `reduction ≤ ftol`,
    `predicted ≤ ftol` and `ratio ≤ 2`; of the weights, `step ≤ xtol`. The first that holds.
    """
    lowered = (progress.reduction <= tolerances.ftol) & (progress.predicted <= tolerances.ftol)
    return _first(
        (progress.cosine <= tolerances.gtol, StepStatus.GRADIENT_CONVERGED),
        (lowered & (progress.ratio <= 2.0), StepStatus.LOSS_CONVERGED),
        (progress.step <= tolerances.xtol, StepStatus.WEIGHTS_CONVERGED),
    )


def status_of(finite, accepted, solved, damping, progress, tolerances):
    """How a step ended, an int32 `StepStatus`.

    Args:
        finite: Whether loss and gradient of the batch are.
        accepted: Whether a trial was.
        solved: Whether the weights of the last trial are finite.
        damping: Of the next step.
        progress: `Progress` of the trials, or None if they were not measured.
        tolerances: `Tolerances`.
    """
    moving = _first((accepted, StepStatus.ACCEPTED), otherwise=StepStatus.REJECTED)
    stuck = damping >= control.LARGEST
    if progress is not None:
        stuck |= progress.shortest <= tolerances.xtol
        moving = tf.where(~accepted & stuck, int(StepStatus.NO_PROGRESS), moving)
        test = met(progress, tolerances)
        moving = tf.where(test > 0, test, moving)
    return _first(
        (~finite, StepStatus.BATCH_NOT_FINITE),
        (~accepted & ~solved, StepStatus.SOLUTION_NOT_FINITE),
        otherwise=moving,
    )


def _first(*cases, otherwise: Any = StepStatus.NO_STEP):
    """The status of the first case that holds."""
    result = tf.cast(otherwise, tf.int32)
    for holds, status in reversed(cases):  # so that the first, set last, wins
        result = tf.where(holds, int(status), result)
    return result


class LastStep:
    """What an optimizer keeps of its last step, as variables: saved with it, and set in a graph."""

    def __init__(self, optimizer):
        def vector(name, values):
            constant = keras.initializers.Constant(values)
            shape = (len(values),)
            return optimizer.add_variable(
                shape=shape, dtype="float32", name=name, initializer=constant
            )

        self._optimizer = optimizer
        self._measured = vector("last_step", [0.0, 0.0, *UNTRIED])
        self.tolerances = vector("tolerances", [FROM_DTYPE] * 3)

    def update(self, expansion, outcome):
        """Keep how this step ended, inside the step."""
        progress = outcome.progress or None  # none measured: an empty tuple
        damping = outcome.control.get("damping", self._optimizer.damping.value)
        given = Tolerances(*tf.unstack(tf.convert_to_tensor(self.tolerances.value)))
        dtypes = expansion.loss.dtype, nest.accumulator_dtype(expansion.values)
        status = status_of(
            expansion.finite,
            outcome.accepted,
            outcome.solved,
            damping,
            progress,
            given.resolved(*dtypes),
        )
        final = tf.reduce_any([tf.equal(status, int(s)) for s in StepStatus if s.final])
        # With the largest damping the step is along the gradient: no other one is left to try.
        hopeless = tf.equal(status, int(StepStatus.SOLUTION_NOT_FINITE))
        final |= hopeless & (damping >= control.LARGEST)
        in_row = tf.where(final, self._measured.value[1] + 1, 0.0)
        numbers = [float("nan")] * len(UNTRIED) if progress is None else list(progress)
        parts = [status, in_row, *numbers]
        self._measured.assign(tf.stack([tf.cast(part, tf.float32) for part in parts]))

    def report(self):
        """The `StepReport`, outside of the step."""
        code, in_row, reduction, predicted, ratio, step, _, cosine = self._measured.numpy()
        return StepReport(
            StepStatus(int(code)),
            *map(float, (reduction, predicted, ratio, step, cosine)),
            iterations=int(self._optimizer.iterations.numpy()),
            in_row=int(in_row),
        )
