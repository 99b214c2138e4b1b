"""`GaussNewton`: damped Gauss-Newton (Levenberg-Marquardt) for any Keras model."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution
from keras_fwd._models.serializable import serializable
from keras_fwd._models.training_pass import TrainingPass
from keras_fwd.optimizers._least_squares.batch_system import Setting, batch_system
from keras_fwd.optimizers._least_squares.options import SolverOptions
from keras_fwd.optimizers._residuals.residual_minimizer import ResidualMinimizer
from keras_fwd.optimizers._residuals.residual_pass import ResidualPass
from keras_fwd.optimizers._steps import bounds, replicas
from keras_fwd.optimizers._steps.damping import Nielsen
from keras_fwd.optimizers._steps.expansion import Expansion, expand
from keras_fwd.optimizers._steps.micro_batches import MicroBatches, expand_blocks
from keras_fwd.optimizers._steps.parts import Outcome, Parts, Pass
from keras_fwd.optimizers._steps.search import ByConvergence
from keras_fwd.optimizers._steps.trial import WholeBatch
from keras_fwd.optimizers._steps.trust_region import Region, TrustRegion, fit
from keras_fwd.optimizers.cg import CG
from keras_fwd.typing import LearningRate, Variable

#: The damping of the first step, where the radius of a trust region does not tell it.
START_DAMPING = 1e-3


@serializable
class GaussNewton(ResidualMinimizer):
    """Damped Gauss-Newton with Levenberg-Marquardt control, in stock `compile` and `fit`.

    The direction solves `(Jᵀ H J + λ D²) d = g`, with `J` the Jacobian of the outputs (of the
    logits, for cross-entropies) in the weights, `H` the loss's Hessian in them and `g` the gradient
    of the total loss. The step `−learning_rate · d` is tried on the same batch with the same
    dropout mask and kept if the loss falls by enough of what was predicted; else it is tried again
    with more damping `λ`. A step that is rejected for good leaves weights, batch-norm statistics,
    seeds and metrics as they were.

    With few weights `λ` is the least that keeps the step inside a trust region, `‖D d‖ ≤ Δ`, whose
    radius follows the quality of the steps, and `D` holds, for each variable, the largest norm that
    the columns of the Jacobian have had, in the root mean square over its entries (Moré, as in
    MINPACK): the steps do not depend on the units of the variables.

    A weight with a `constraint` stays inside: each trial is projected. Those at their bounds, where
    the descent would go beyond, are held there while the others are solved for.

    The total loss counts `model.losses`, weight regularizers, sample and class weights. L1 and L2
    regularizers are in the curvature too; other terms of `model.losses` are in the loss and its
    gradient only.

    The logs get `damping`, `reduction_ratio`, `solver_iterations`, and `nonfinite_steps` from the
    first batch on whose loss, gradient or direction was NaN or infinite. After 20 such batches in a
    row training stops with `keras_fwd.NumericalError`, which names the first bad value.

    `optimizer.status` says how the last step ended: accepted, rejected, converged by which of
    MINPACK's tests, or not finite. `keras_fwd.callbacks.LeastSquaresStop` ends `fit` by it.

    Large batches serve it best: on a batch with fewer residuals than weights it can fit the batch
    alone.

    Under `tf.distribute.MirroredStrategy` N replicas take the step that one would take with the
    whole batch (to rounding, but for conjugate gradients of many iterations that stop unsolved).

    Args:
        learning_rate: Factor on the direction: a float, a schedule or a callable. Default 1.0.
        damping: `"auto"` (default): with the dense solver a trust region, else `λ = 1e-3` at first.
            Or the initial `λ`, not negative, which follows the steps by Nielsen's rule, with
            `D = I`; with 0 the steps stay undamped as long as they are accepted.
        solver: `"dense"` (eigenvalues or QR of the Jacobian of the residuals, for up to about a
            thousand weights), `"dual"` (few residuals, any number of weights), `"cg"`
            (matrix-free), or `"auto"` (default): the first of these that fits. Or
            `keras_fwd.optimizers.CG(…)`: conjugate gradients with options of their own.
        max_trials: Trials on a batch before its step is rejected for good. Default 8.
        geodesic: Whether each trial step is bent by half its geodesic acceleration, which follows
            a curved valley in far fewer steps; refused where twice the acceleration is longer than
            three quarters of the step. For `"mse"` with a direct solver; it serves fits to many
            digits, best with a `damping` like 1e-3. Default False.
        micro_batch: How many examples of a batch the model holds at once; None (default) for all.
            The step is that of the whole batch, to rounding, and all that it takes runs through the
            blocks one after the other. For `"dense"` (of mse and cross-entropies) and `"cg"`, on
            one device. Refused are layers that keep a state or draw random numbers, and those of
            your own, unless they say `keeps_examples_apart = True`.
        name: Name of the optimizer.

    Raises:
        ConfigurationError: an argument out of range; a loss that is not twice differentiable; a
            model without trainable weights; a preconditioner with several replicas.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss, gradient and direction.

    Cost: A gradient, the solve, and a forward pass for each trial. `"dense"`, `"dual"`: the
        Jacobian, in models of stock layers that keep examples apart about two forward passes for
        each output of an example, else as many JVPs as weights. `"cg"`: about one gradient an
        iteration; see `CG`. `geodesic`: three forward passes and a product a trial.

    References:
        Marquardt, J. SIAM 11 (1963); Moré, The Levenberg-Marquardt algorithm: implementation and
        theory, Lecture Notes in Mathematics 630 (1978); Nielsen, IMM-REP-1999-05 (1999); Transtrum
        and Sethna, arXiv:1201.5885 (2012); Schraudolph, Neural Computation 14 (2002).

    Example:

    >>> import keras, numpy as np
    >>> net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> net.compile(optimizer=GaussNewton(damping=0.0), loss="mse")
    >>> x = np.array([[0.0], [1.0], [2.0]], "float32")
    >>> history = net.fit(x, 3 * x + 1, epochs=2, verbose=0)
    >>> net.get_weights()[0].round(4), net.get_weights()[1].round(4)
    (array([[3.]], dtype=float32), array([1.], dtype=float32))
    """

    works_on_replicas = True

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        damping: float | Literal["auto"] = "auto",
        *,
        solver: Literal["auto", "dense", "dual", "cg"] | CG = "auto",
        max_trials: int = 8,
        geodesic: bool = False,
        micro_batch: int | None = None,
        name: str = "gauss_newton",
    ) -> None:
        auto = isinstance(damping, str) and damping == "auto"
        options = SolverOptions.of(solver, geodesic, micro_batch)
        super().__init__(
            learning_rate,
            START_DAMPING if auto else damping,
            max_trials,
            name,
        )
        self.solver = solver
        self.geodesic: bool = options.geodesic
        self.micro_batch: int | None = options.micro_batch
        self._adopt(options)
        self._given_damping = "auto" if auto else self.initial_damping
        unknown = keras.initializers.Constant(-1.0)
        self._radius = self.add_variable((), unknown, "float64", name="radius")
        self._own: Region | None = None  # the region of `fit`
        self._last_step: list[Variable] = []

    def build(self, variables: Any) -> None:
        """Make the state: also the largest norms of columns seen so far, or the last step."""
        super().build(variables)
        if self._trusts_a_region(variables):
            scale = [self.add_variable_from_reference(v, "scale") for v in variables]
            self._own = Region(self._radius, scale)
        elif self._options.cg.warm_start:
            new = self.add_variable_from_reference
            self._last_step = [new(v, "last_step", "zeros") for v in variables]

    def new_pass(self, model: keras.Model) -> TrainingPass:
        """The `TrainingPass` of a model, in blocks if `micro_batch` is given."""
        if self.micro_batch is None:
            return super().new_pass(model)
        return MicroBatches(model, self.micro_batch)

    def expand(self, model_pass: Pass) -> Expansion:
        """The loss of the batch with its Jacobian, of what may move."""
        bounds.project(model_pass.variables)
        kind = expand if self.micro_batch is None else expand_blocks
        expansion = kind(model_pass, scale=model_pass.loss_scale)
        return bounds.restricted(expansion, model_pass.variables)

    def parts(self, model_pass: Pass, expansion: Expansion) -> Parts[Solution]:
        """The solver that fits, and the radius or the damping as its control."""
        region = self._region_of(model_pass)
        rate = tf.cast(self.learning_rate, tf.float32)
        trial = WholeBatch(model_pass, expansion)
        last = None
        if fit(self._last_step, model_pass.variables):
            last = [variable.value for variable in self._last_step]
        setting = Setting(rate, self.damping.value, region, last, self.step_number())
        system, direction = batch_system(self._options, model_pass, expansion, trial, setting)
        if region is None:
            control = Nielsen(self.damping, self._growth, system)
        else:
            control = TrustRegion(self.damping, region.radius, system, self.learning_rate)
        return Parts(expansion, system, direction, control, trial, ByConvergence(expansion))

    def take(self, model_pass: Pass, parts: Parts[Solution], outcome: Outcome) -> None:
        """Give the weights their new values; a warm start is told of the step."""
        # Replicas solve the same system each: on unlike devices, solutions differ by rounding.
        outcome = outcome._replace(values=replicas.first(outcome.values))
        if fit(self._last_step, model_pass.variables):
            moves = zip(self._last_step, parts.expansion.values, outcome.values, strict=True)
            for variable, old, new in moves:
                # Old minus new: the solution that a step is the negative of.
                variable.assign(tf.where(outcome.accepted, old - new, variable.value))
        super().take(model_pass, parts, outcome)

    def _trusts_a_region(self, variables):
        """Whether a radius governs the length of steps in variables, else the damping."""
        return self._given_damping == "auto" and self._options.may_be_dense(variables)

    def _region_of(self, model_pass):
        """The `Region` of a batch, or None for Nielsen's rule.

        A second model that shares the optimizer shares its damping, but has no norms of columns.
        """
        variables = model_pass.variables
        if isinstance(model_pass, ResidualPass):
            return self.regions.of(variables) if self._trusts_a_region(variables) else None
        return self._own if self._own is not None and fit(self._own.scale, variables) else None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        cg = self._options.cg
        kept = self.solver == "auto" and cg != CG()  # from a file of version 0.1.0
        return {
            **super().get_config(),
            **({"cg": keras.saving.serialize_keras_object(cg)} if kept else {}),
            "damping": self._given_damping,
            "solver": keras.saving.serialize_keras_object(self.solver),
            "geodesic": self.geodesic,
            "micro_batch": self.micro_batch,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """Inverse of `get_config`, of version 0.1.0 too, which had the options of `CG` as its own.

        With `solver="auto"` these were for the case that it came to conjugate gradients. What was
        saved with them keeps to that, as its state depends on which solver it is.
        """
        given = dict(config)
        solver, cg = (
            keras.saving.deserialize_keras_object(part, custom_objects=custom_objects)
            if isinstance(part, dict)
            else part
            for part in (given.get("solver", "auto"), given.pop("cg", None))
        )
        old = {new: given.pop(key) for key, new in _OLD_NAMES.items() if key in given}
        cg = CG(**old) if old else cg
        if cg not in (None, CG()) and (solver == "cg" or cg.curvature_batch is not None):
            solver = cg
        optimizer = super().from_config({**given, "solver": solver}, custom_objects)
        if cg is not None and solver == "auto":
            optimizer._adopt(dataclasses.replace(optimizer._options, cg=cg))
        return optimizer

    def _adopt(self, options):
        self._options = options
        self._needs_graph = options.needs_graph


#: Arguments of version 0.1.0 that are those of `CG` now.
_OLD_NAMES = {
    "max_solver_iterations": "max_iterations",
    "solver_tolerance": "tolerance",
    "preconditioner": "preconditioner",
    "curvature_batch": "curvature_batch",
    "progress_tolerance": "progress_tolerance",
    "warm_start": "warm_start",
    "backtracking": "backtracking",
}
