"""The loop of `GaussNewton.minimize`: steps until one of them says that another gains nothing."""

from typing import NamedTuple

from keras_fwd.optimizers._steps.convergence import FROM_DTYPE
from keras_fwd.optimizers.step_report import StepReport, StepStatus


class MinimizeResult(NamedTuple):
    """How a minimization ended; prints as a sentence. The variables hold the solution.

    Attributes:
        loss: At the values that the variables have now, a float.
        steps: How many steps were taken.
        converged: Whether a test of convergence was met.
        status: The `StepReport` of the last step.
        message: Why it ended, in words.
    """

    loss: float
    steps: int
    converged: bool
    status: StepReport
    message: str

    def __str__(self) -> str:
        return f"after {self.steps} steps, loss {self.loss:.6g}: {self.message}"


def run(optimizer, take_step, max_steps, tolerances, callback, verbose):
    """The loop; returns a `MinimizeResult`.

    Args:
        optimizer: A `GaussNewton`.
        take_step: Function without arguments that takes a step and returns its logs.
        max_steps: As in `minimize`.
        tolerances: List of three numbers, None for those to follow from the dtype.
        callback: As in `minimize`.
        verbose: As in `minimize`.
    """
    before = optimizer.tolerances.numpy()
    optimizer.tolerances.assign([FROM_DTYPE if bound is None else bound for bound in tolerances])
    try:
        result = _steps(optimizer, take_step, max_steps, callback, verbose)
    finally:
        optimizer.tolerances.assign(before)
    if verbose:
        print(f"GaussNewton: {result}")
    return result


def _steps(optimizer, take_step, max_steps, callback, verbose):
    for step in range(1, max_steps + 1):
        logs = {name: float(value) for name, value in take_step().items()}
        report = optimizer.status
        if verbose > 1:
            print(f"{step:5d}  " + "  ".join(f"{name} {logs[name]:.6g}" for name in logs))
        stopped = callback is not None and callback(step, logs) is True
        message = _reason_to_stop(optimizer, report)
        if message is None and stopped:
            message = "stopped by `callback`"
        if message is None and step == max_steps:
            message = f"the steps ran out (max_steps={max_steps}); in the last, {report.message}"
        if message is not None:
            return MinimizeResult(logs["loss"], step, report.code.converged, report, message)
    raise AssertionError("max_steps is at least 1")


def _reason_to_stop(optimizer, report):
    """Why another step would gain nothing, or None."""
    if report.code == StepStatus.BATCH_NOT_FINITE:
        return f"{report.message}. First bad value: {optimizer._watch.first()}"
    return report.message if report.in_row else None
