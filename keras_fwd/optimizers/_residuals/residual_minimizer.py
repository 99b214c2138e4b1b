"""Least squares without a model in `fit`: steps on residuals of one's own."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._derivatives import functional
from keras_fwd._spaces import given, nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._least_squares.options import SolverOptions
from keras_fwd.optimizers._residuals import minimization
from keras_fwd.optimizers._residuals.minimization import ResidualSteps
from keras_fwd.optimizers._residuals.residual_pass import CALL, ResidualPass, variables_of
from keras_fwd.optimizers._steps.training_checks import check_replicas
from keras_fwd.optimizers._steps.trust_region import Regions
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.typing import Nest, Tensor, Variable

_REDUCTIONS = ("sum", "mean")


class ResidualMinimizer(CurvatureOptimizer):
    """The part of `GaussNewton` that needs no model: `step` and `minimize`."""

    _options: SolverOptions
    #: The compiled steps of calls in eager code, made when they are asked for.
    _residual_steps: ResidualSteps | None = None
    _regions: Regions | None = None

    @property
    def regions(self) -> Any:
        """The trust regions of problems without a model."""
        if self._regions is None:
            self._regions = Regions()
        return self._regions

    def step(
        self,
        residual_fn: Callable[..., Nest],
        variables: Sequence[Variable] | keras.layers.Layer,
        data: Nest | None = None,
        weights: Nest | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        jit_compile: bool = False,
    ) -> dict[str, Tensor]:
        """One step on the sum of squares of residuals, in a `tf.function` or in eager code.

        The loss is `½ Σ w r²` over all entries of all residuals, as the cost of
        `scipy.optimize.least_squares`; with `reduction="mean"` it is the sum over the residual
        tensors of `mean(w r²)`, as `"mse"` has it. Derivatives by the variables are exact, also of
        residuals that hold derivatives themselves (`laplacian`, `jvp`, `directional_derivatives`).

        In eager code the step is compiled at the first call and known again by `residual_fn`, which
        must be the same object in each. What it closes over is a constant from then on, except
        variables. A function made anew for each call is traced for each; after 5 in a row a
        `RuntimeWarning` says so. In a `tf.function` of yours nothing is compiled besides.

        A residual that depends on none of the variables, and a variable that no residual depends
        on, do no harm. Weights' regularizers and `add_loss` of layers are not in the loss: return
        `tf.sqrt(l2) * w` as a residual. Random numbers of a `keras.random.SeedGenerator` are the
        same in all trials of a step. A variable with a `constraint` (`NonNeg()`, a clip) is
        brought inside and stays there; at its bound it is held while the others are solved for.

        Args:
            residual_fn: Function without arguments; returns residuals: a float tensor of any shape,
                or a nest of them; a lone scalar only for one unknown. It is called once for each
                trial, and should change nothing.
            variables: List of `tf.Variable` or `keras.Variable`, trainable, float32 or float64; or
                a built layer or model, for its trainable weights. For both, `[*model.
                trainable_variables, unknown]`.
            data: Nest of tensors or arrays that `residual_fn` gets as its one argument; default
                None, for none. New values are not traced anew, new shapes are.
            weights: Nest like the residuals, of numbers or of tensors that broadcast to the
                residual; finite, not negative. Default None: all 1. New values are not traced anew.
            reduction: `"sum"` (default) or `"mean"`.
            jit_compile: Whether the step is compiled by XLA, if this is a call in eager code.

        Returns:
            Dict of scalar tensors: `loss` (at the new values of the variables), `damping`,
            `reduction_ratio` (−inf when no trial gave a finite loss), `solver_iterations`. How the
            step ended is in the optimizer's `status`. Weights that are negative or not finite, and
            only known in a graph, make the loss NaN.

        Raises:
            ConfigurationError: `variables`, `weights` or another argument has no meaning; an option
                that needs a model; several replicas.
            StructureError: `residual_fn` returns no float tensors; `weights` do not fit them.
            LeakError: TensorFlow would get a derivative wrong.

        Cost: As a training step: by `"dense"` one JVP for each entry of the variables, by `"cg"`
            about a gradient an iteration, and one evaluation for each trial.

        References:
            As `GaussNewton`. For bounds: Kanzow, Yamashita and Fukushima, J. Comput. Appl. Math.
            172 (2004); Bertsekas, SIAM J. Control Optim. 20 (1982).

        Example:

        >>> x = tf.constant([0.0, 1.0, 2.0, 3.0])
        >>> y = tf.constant([3.0, 5.0, 7.0, 9.0])
        >>> slope, offset = tf.Variable(0.0), tf.Variable(0.0)
        >>> from keras_fwd import GaussNewton
        >>> optimizer = GaussNewton(damping=0.0)
        >>> logs = optimizer.step(lambda: slope * x + offset - y, [slope, offset])
        >>> round(float(slope), 4), round(float(offset), 4)
        (2.0, 3.0)
        """
        if not tf.executing_eagerly():
            function = functional.converted(residual_fn)
            return self._step_in_graph(function, variables, data, weights, reduction)
        return self._step_in_eager(residual_fn, variables, data, weights, reduction, jit_compile)

    @tf.autograph.experimental.do_not_convert
    def _step_in_graph(self, residual_fn, variables, data, weights, reduction):
        self._check(residual_fn, weights, reduction)
        found = variables_of(variables)
        if data is not None:
            data = tf.nest.map_structure(tf.convert_to_tensor, data)
        problem = ResidualPass(residual_fn, found, data, weights, reduction == "mean")
        parts, outcome = self.advance(problem)
        return {
            "loss": outcome.loss,
            "damping": tf.identity(self.damping.value),
            **parts.judgement.logs(outcome),
        }

    def _step_in_eager(self, residual_fn, variables, data, weights, reduction, jit_compile):
        self._check(residual_fn, weights, reduction)
        variables_of(variables)
        steps = self._compiled_steps()
        return steps(residual_fn, variables, data, weights, reduction, bool(jit_compile))

    def _compiled_steps(self):
        if self._residual_steps is None:
            self._residual_steps = ResidualSteps(self.step)
        return self._residual_steps

    def _check(self, residual_fn, weights, reduction):
        check_replicas(self, None)
        for option, value in self._options.for_models_only.items():
            raise ConfigurationError(
                f"{CALL}: `{option}` is for models in `fit`; leave it out for residuals of "
                f"your own. Received: {option}={value!r}."
            )
        if not callable(residual_fn):
            raise ConfigurationError(
                f"{CALL}: `residual_fn` must be a function that returns residuals. "
                f"Received: residual_fn={residual_fn!r}."
            )
        if reduction not in _REDUCTIONS:
            raise ConfigurationError(
                f"{CALL}: `reduction` must be one of {', '.join(map(repr, _REDUCTIONS))}. "
                f"Received: reduction={reduction!r}."
            )
        if weights is not None and tf.executing_eagerly():
            _check_weights(weights)

    def minimize(
        self,
        residual_fn: Callable[..., Nest],
        variables: Sequence[Variable] | keras.layers.Layer,
        data: Nest | None = None,
        weights: Nest | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        max_steps: int = 100,
        ftol: float | None = None,
        xtol: float | None = None,
        gtol: float | None = None,
        callback: Callable[[int, dict[str, float]], Any] | None = None,
        verbose: Literal[0, 1, 2] = 0,
        jit_compile: bool = False,
    ) -> minimization.MinimizeResult:
        """Steps on the sum of squares of residuals until one of MINPACK's tests is met.

        Each call starts anew: with the initial damping, and nothing known of the problem. The
        variables hold the best values found, the last ones: a step is only taken if it lowers the
        loss.

        Args:
            residual_fn: As in `step`.
            variables: As in `step`; their values are the start.
            data: As in `step`.
            weights: As in `step`.
            reduction: As in `step`.
            max_steps: Bound on the steps. Default 100.
            ftol: Stop when actual and predicted reduction of the loss, relative to it, are at most
                this. Default None: 8 machine epsilons of the dtype (1.8e-15 in float64).
            xtol: Stop when the step, relative to the variables, is at most this. Default as `ftol`.
            gtol: Stop when the cosine between the residuals and their change along the step is at
                most this. Default as `ftol`.
            callback: Function of the step's number, from 1, and its logs, a dict of floats as in
                `step`; the minimization ends when it returns True.
            verbose: 0 (default) prints nothing, 1 how it ended, 2 each step too.
            jit_compile: As in `step`.

        Returns:
            `MinimizeResult`. `converged` is False when the steps ran out, no progress was possible,
            or a loss, gradient or weight of a residual was not finite; `message` says which.

        Raises:
            ConfigurationError: As `step`; a bound that is no number of at least 0; a call inside of
                a `tf.function`.
            StructureError, LeakError: As `step`.

        Cost: As `step`, and a look at its numbers after each.

        References:
            Moré, The Levenberg-Marquardt algorithm, Lecture Notes in Mathematics 630 (1978).

        Example:

        >>> from keras_fwd import GaussNewton
        >>> t = tf.constant([0.0, 1.0, 2.0, 3.0], tf.float64)
        >>> y = 5.0 * tf.exp(-0.7 * t)
        >>> size, rate = tf.Variable(1.0, dtype=tf.float64), tf.Variable(0.1, dtype=tf.float64)
        >>> result = GaussNewton().minimize(lambda: size * tf.exp(-rate * t) - y, [size, rate])
        >>> result.converged, round(float(size), 8), round(float(rate), 8)
        (True, 5.0, 0.7)
        """
        check_count(f"{CALL}.minimize", "max_steps", max_steps)
        tolerances = {"ftol": ftol, "xtol": xtol, "gtol": gtol}
        for name, bound in tolerances.items():
            if bound is not None:
                check_number(f"{CALL}.minimize", name, bound)
        if not tf.executing_eagerly():
            raise ConfigurationError(
                f"{CALL}.minimize: decides from the numbers of each step whether to go on, which a "
                "graph does not hold; in a tf.function call `step`. Received: a call in one."
            )
        arguments = residual_fn, variables, data, weights, reduction, bool(jit_compile)
        steps = self._compiled_steps()

        def take_step():
            return steps(*arguments)  # without the checks of `step`, made once below

        self._check(residual_fn, weights, reduction)
        self._start_anew(variables_of(variables))
        limits = list(tolerances.values())
        return minimization.run(self, take_step, max_steps, limits, callback, verbose)

    def _start_anew(self, variables):
        self.damping.assign(self.initial_damping)
        self._growth.assign(2.0)
        self.regions.renew(variables)


def _check_weights(weights):
    for path, weight in zip(nest.paths(weights), nest.flatten(weights), strict=True):
        numbers = np.asarray(given.to_tensor(CALL, f"weights{path}", weight))
        if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
            raise ConfigurationError(
                f"{CALL}: `weights{path}` must be finite numbers of at least 0. "
                f"Received: {weight!r}."
            )
