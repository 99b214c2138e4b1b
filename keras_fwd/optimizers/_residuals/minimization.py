"""The loop of `GaussNewton.minimize`: steps until one of them says that another gains nothing."""

import inspect
import warnings
import weakref
from typing import NamedTuple

import tensorflow as tf

from keras_fwd.optimizers._residuals.residual_pass import CALL, precise, trainable
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

    Example:

    >>> from keras_fwd import GaussNewton
    >>> root = tf.Variable(1.0, dtype=tf.float64)
    >>> result = GaussNewton().minimize(lambda: root**2 - 2.0, [root])
    >>> result.converged, result.status.code.name, round(float(root), 6)
    (True, 'WEIGHTS_CONVERGED', 1.414214)
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


# Steps on residuals in eager code: compiled once for a function, kept as long as it lives.

#: After so many calls in a row that each had to trace a new function of the same code, a warning.
PATIENCE = 5


class ResidualSteps:
    """The compiled steps of one optimizer.

    A function is known again by its identity, a method by its object. It is held weakly, but for
    what its graph holds: the variables, and the arrays that it closes over.

    Args:
        step: Function `(residual_fn, variables, data, weights, reduction)`.
    """

    def __init__(self, step):
        self._step = step
        self._known = weakref.WeakKeyDictionary()
        self._last_code = None
        self._in_row = 0

    def __call__(self, residual_fn, variables, data, weights, reduction, jit_compile):
        """One step; traced at the first call, and for new shapes of `data` and `weights`."""
        if data is not None:
            data = tf.nest.map_structure(tf.convert_to_tensor, data)
        if weights is not None:
            weights = tf.nest.map_structure(precise, weights)
        listed = trainable(variables)
        mine = self._steps_of(residual_fn)
        key = (
            getattr(residual_fn, "__func__", None),
            reduction,
            jit_compile,
            *map(id, listed),  # kept alive by the graph, so that no other gets the same number
        )
        known = mine.get(key)
        if known is None:
            self._count(residual_fn)
            known = mine[key] = self._compiled(residual_fn, listed, reduction, jit_compile)
        else:
            self._in_row = 0
        return known(data, weights)

    def _steps_of(self, residual_fn):
        anchor = residual_fn.__self__ if inspect.ismethod(residual_fn) else residual_fn
        try:
            return self._known.setdefault(anchor, {})
        except TypeError:  # not hashable, or takes no weak reference
            return {}

    def _compiled(self, residual_fn, variables, reduction, jit_compile):
        refer = weakref.WeakMethod if inspect.ismethod(residual_fn) else weakref.ref
        try:
            function = refer(residual_fn)
        except TypeError:
            function = _strong(residual_fn)
        step = self._step

        def compiled(data, weights):
            return step(function(), variables, data, weights, reduction)

        return tf.function(compiled, jit_compile=jit_compile)

    def _count(self, residual_fn):
        """Warn of functions that are made anew for each call, and traced for each."""
        code = getattr(residual_fn, "__code__", type(residual_fn))
        self._in_row = self._in_row + 1 if code is self._last_code else 1
        self._last_code = code
        if self._in_row == PATIENCE:
            warnings.warn(
                f"{CALL}.step: `residual_fn` should be one function for all steps, for each new "
                f"one is traced and compiled. Received: a new function of the same code in each of "
                f"{PATIENCE} calls in a row ({residual_fn!r}). Make it once, outside of the loop, "
                "and hand it what changes as `data`.",
                RuntimeWarning,
                stacklevel=4,
            )


def _strong(value):
    return lambda: value
