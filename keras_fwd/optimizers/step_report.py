"""How a step of a curvature optimizer ended, in words."""

import enum
import math
from typing import NamedTuple


class StepStatus(enum.IntEnum):
    """How a step ended; `StepStatus(code).message` says it in words.

    Example:

    >>> StepStatus.ACCEPTED.message, StepStatus.ACCEPTED.converged
    ('the step lowered the loss and was taken', False)
    """

    NO_STEP = 0
    ACCEPTED = 1
    REJECTED = 2
    LOSS_CONVERGED = 3
    WEIGHTS_CONVERGED = 4
    GRADIENT_CONVERGED = 5
    NO_PROGRESS = 6
    SOLUTION_NOT_FINITE = 7
    BATCH_NOT_FINITE = 8

    @property
    def message(self) -> str:
        """What happened, and the way out where there is one."""
        return _MESSAGES[self]

    @property
    def converged(self) -> bool:
        """Whether one of the three tests of convergence was met."""
        return self in _CONVERGED

    @property
    def final(self) -> bool:
        """Whether another step on the same batch can gain nothing."""
        return self.converged or self == StepStatus.NO_PROGRESS


_CONVERGED = (
    StepStatus.LOSS_CONVERGED,
    StepStatus.WEIGHTS_CONVERGED,
    StepStatus.GRADIENT_CONVERGED,
)
_MESSAGES = {
    StepStatus.NO_STEP: "no step has been taken yet",
    StepStatus.ACCEPTED: "the step lowered the loss and was taken",
    StepStatus.REJECTED: "no trial lowered the loss by enough of what was predicted; the weights "
    "stayed, and the next step starts with more damping",
    StepStatus.LOSS_CONVERGED: "converged: actual and predicted relative reduction of the loss are "
    "both at most `ftol`",
    StepStatus.WEIGHTS_CONVERGED: "converged: the step, relative to the weights, is at most `xtol`",
    StepStatus.GRADIENT_CONVERGED: "converged: the cosine between the residual and its change "
    "along the step is at most `gtol`, so the gradient is zero to that accuracy",
    StepStatus.NO_PROGRESS: "no progress is possible: every trial raised the loss, down to steps "
    "shorter than `xtol` or up to the largest damping; the loss is not smooth here, or not "
    "accurate enough to show a decrease",
    StepStatus.SOLUTION_NOT_FINITE: "the direction was not finite: the Jacobian is not, or is too "
    "large to be squared; the weights stayed. Scale the data, or start from smaller weights",
    StepStatus.BATCH_NOT_FINITE: "the loss or its gradient was NaN or infinite on this batch; the "
    "weights stayed. Clean or scale the data, or start from smaller weights",
}


class StepReport(NamedTuple):
    """How the last step ended; prints as a sentence. Numbers that were not measured are NaN.

    Attributes:
        code: A `StepStatus`.
        reduction: Actual reduction of the loss, relative; of the trials, the largest.
        predicted_reduction: The predicted one, in the same way.
        reduction_ratio: Actual over predicted reduction of the last trial.
        step: Norm of the step, relative to that of the weights; of the trials, the largest.
        cosine: Between the residual and its change along the step.
        iterations: How many steps were taken.
        in_row: How many of the last of them in a row converged or could not progress.

    Example:

    >>> from keras_fwd import GaussNewton
    >>> print(GaussNewton().status)
    step 0: no step has been taken yet
    """

    code: StepStatus
    reduction: float
    predicted_reduction: float
    reduction_ratio: float
    step: float
    cosine: float
    iterations: int
    in_row: int

    @property
    def message(self) -> str:
        """What happened, and the way out where there is one."""
        return self.code.message

    def __str__(self) -> str:
        text = f"step {self.iterations}: {self.message}"
        if math.isnan(self.predicted_reduction) or self.code == StepStatus.NO_STEP:
            return text
        return (
            f"{text} (relative reduction {self.reduction:.1e}, predicted "
            f"{self.predicted_reduction:.1e}; relative step {self.step:.1e}; cosine "
            f"{self.cosine:.1e})"
        )
