"""`GaussNewton`: damped Gauss-Newton (Levenberg-Marquardt) for any Keras model."""

import copy
import math

import keras
import tensorflow as tf

from keras_fwd import curvature, least_squares, model, nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.optimizers.dense_system import dense_system, dual_system, loss_kinds
from keras_fwd.optimizers.expansion import Expansion, to_leaves
from keras_fwd.optimizers.graph_step import GraphStep
from keras_fwd.optimizers.iterative_system import Parts, check_options, iterative_system
from keras_fwd.optimizers.precision import widened
from keras_fwd.optimizers.sub_batch import SubBatch
from keras_fwd.optimizers.trust_region import TrustRegion

#: The damping of the first step, where the radius of a trust region does not tell it.
START_DAMPING = 1e-3
#: Up to this many weights a dense factorization is cheap beside the model's own work.
DENSE_WEIGHTS = 1000
#: The same for the residuals (batch size times outputs) of the dual system.
DUAL_RESIDUALS = 512

_SOLVERS = ("auto", "dense", "dual", "cg")


@keras.saving.register_keras_serializable(package="keras_fwd")
class GaussNewton(CurvatureOptimizer):
    """Damped Gauss-Newton with Levenberg-Marquardt control, in stock `compile` and `fit`.

    The direction solves `(Jᵀ H J + λ D²) d = g`, with `J` the Jacobian of the outputs (of the
    logits, for cross-entropies) in the weights, `H` the loss's Hessian in them and `g` the gradient
    of the total loss. The step `−learning_rate · d` is tried on the same batch with the same
    dropout mask and kept if the loss falls by enough of what was predicted; else it is tried again
    with more damping `λ`. A step that is rejected for good leaves weights, batch-norm statistics,
    seeds and metrics as they were.

    With few weights `λ` is the least that keeps the step inside a trust region, `‖D d‖ ≤ Δ`, whose
    radius follows the quality of the steps, and `D` holds the largest norms that the columns of the
    Jacobian have had (Moré, as in MINPACK): the steps do not depend on the units of the weights.

    The total loss counts `model.losses`, weight regularizers, sample and class weights. L1 and L2
    regularizers are in the curvature too; other terms of `model.losses` are in the loss and its
    gradient only.

    The logs get `damping`, `reduction_ratio`, `solver_iterations`, and `nonfinite_steps` from the
    first batch on whose loss was NaN or infinite. After 20 such batches in a row training stops
    with `keras_fwd.NumericalError`, which names the first bad value.

    `optimizer.status` says how the last step ended: accepted, rejected, converged by which of
    MINPACK's tests, or not finite. `keras_fwd.callbacks.LeastSquaresStop` ends `fit` by it.

    Large batches serve it best: on a batch with fewer residuals than weights it can fit the batch
    alone.

    Args:
        learning_rate: Factor on the direction: a float, a schedule or a callable. Default 1.0.
        damping: `"auto"` (default): with the dense solver a trust region, else `λ = 1e-3` at first.
            Or the initial `λ`, not negative, which follows the steps by Nielsen's rule, with
            `D = I`; with 0 the steps stay undamped as long as they are accepted.
        solver: `"dense"` (eigenvalues or QR of the Jacobian of the residuals, for up to about a
            thousand weights), `"dual"` (few residuals, any number of weights), `"cg"`
            (matrix-free), or `"auto"` (default): the first of these that fits.
        max_solver_iterations: Bound on the iterations of `"cg"`. Default 50.
        solver_tolerance: Relative residual at which `"cg"` stops. Default 1e-3.
        preconditioner: Of `"cg"`. `"kfac"`: the Kronecker factors of the batch as in `KFAC`; a deep
            autoencoder with little damping needs two fifths of the iterations to a tolerance of
            1e-3, a tenth to 1e-1, and each takes up to twice the time. `"diagonal"`: the diagonal
            of the curvature from random probes, to the power 0.75: four fifths of the iterations on
            a badly scaled net. Both are renewed in every step, and leave the solution as it is, up
            to the tolerance; with much damping, or few weights, there is nothing to gain. None
            (default) for none.
        max_trials: Trials on a batch before its step is rejected for good. Default 8.
        name: Name of the optimizer.
        curvature_batch: How many examples of a batch `"cg"` takes the curvature from, at even
            distances; None (default) for all. The gradient is that of the whole batch, and so is
            the loss that a step is judged by: one that only fits the part is rejected, or raises
            the damping. All examples are used where a part would not do: a loss that is no mean
            over examples, a fixed batch size, stateful layers. `"auto"` chooses `"cg"` for it.
        progress_tolerance: `"cg"` also stops when the quadratic model falls by less than this share
            of itself an iteration; Martens takes 5e-4. None (default) for no such test.
        warm_start: Whether `"cg"` starts from the last step, at its best length. Default False.
        backtracking: Whether to take, of the iterates that `"cg"` has had at growing distances, the
            one with the best loss: from the last back as long as it falls. Default False.

        The options of `"cg"` serve where `"auto"` chooses it.

    Raises:
        ConfigurationError: an argument out of range; a loss that is not twice differentiable; a
            model without trainable weights; several replicas.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss.

    Cost: A gradient, the solve, and a forward pass for each trial. `"dense"`: as many JVPs as
        weights, vectorized; `"cg"`: about one gradient an iteration, of the `curvature_batch`.
        `preconditioner="kfac"`: a pullback and the factors a step, their inverses a trial, cubic in
        the width of a layer, and two products of each matrix of weights with them an iteration;
        `"diagonal"`: four pullbacks a step. `warm_start`: a vector of weights in the state.
        `backtracking`: two forward passes or more a trial, and the iterates, 14 of 50. Vectors of
        weights in the place of outputs are kept by `"cg"` beside weight regularizers, and with a
        preconditioner, `curvature_batch` or `warm_start`.

    References:
        Marquardt, J. SIAM 11 (1963); Moré, The Levenberg-Marquardt algorithm: implementation and
        theory, Lecture Notes in Mathematics 630 (1978); Nielsen, IMM-REP-1999-05 (1999); Martens,
        Deep learning via Hessian-free optimization, ICML (2010); Schraudolph, Neural Computation 14
        (2002).

    Example:

    >>> import keras, numpy as np
    >>> net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> net.compile(optimizer=GaussNewton(damping=0.0), loss="mse")
    >>> x = np.array([[0.0], [1.0], [2.0]], "float32")
    >>> history = net.fit(x, 3 * x + 1, epochs=2, verbose=0)
    >>> net.get_weights()[0].round(4), net.get_weights()[1].round(4)
    (array([[3.]], dtype=float32), array([1.], dtype=float32))
    """

    measures_progress = True
    takes_loss_scale = True

    def __init__(
        self,
        learning_rate=1.0,
        damping="auto",
        solver="auto",
        max_solver_iterations=50,
        solver_tolerance=1e-3,
        preconditioner=None,
        max_trials=8,
        name="gauss_newton",
        curvature_batch=None,
        progress_tolerance=None,
        warm_start=False,
        backtracking=False,
    ):
        auto = isinstance(damping, str) and damping == "auto"
        super().__init__(learning_rate, START_DAMPING if auto else damping, max_trials, name)
        if solver not in _SOLVERS:
            raise ConfigurationError(
                f"GaussNewton: `solver` must be one of {', '.join(map(repr, _SOLVERS))}. "
                f"Received: solver={solver!r}."
            )
        self.solver = solver
        check_options(
            solver,
            max_solver_iterations,
            solver_tolerance,
            preconditioner,
            progress_tolerance,
            warm_start,
            backtracking,
            curvature_batch,
        )
        self.max_solver_iterations = int(max_solver_iterations)
        self.solver_tolerance = float(solver_tolerance)
        self.preconditioner = preconditioner
        self.progress_tolerance = None if progress_tolerance is None else float(progress_tolerance)
        self.warm_start = warm_start
        self.backtracking = backtracking
        self.curvature_batch = None if curvature_batch is None else int(curvature_batch)
        self._given_damping = "auto" if auto else self.initial_damping
        unknown = keras.initializers.Constant(-1.0)
        self._radius = self.add_variable((), unknown, "float64", name="radius")
        self._scale = []
        self._scale_fits = True
        self._last_step = []
        self._graph_step = GraphStep(super().train_step)

    def train_step(self, model, data):
        """As `CurvatureOptimizer.train_step`; with blocks compiled in eager code too."""
        if self.preconditioner != "kfac":
            return super().train_step(model, data)
        return self._graph_step(model, data)

    @property
    def trusts_a_region(self):
        """Whether the length of the steps is governed by a radius, else by the damping.

        A second model that shares the optimizer shares its damping, but has no norms of columns.
        """
        return bool(self._scale) and self._scale_fits

    def build(self, variables):
        """Make the state: also the largest norms of columns seen so far, or the last step."""
        super().build(variables)
        few = sum(math.prod(variable.shape) for variable in variables) <= DENSE_WEIGHTS
        few = few and self.curvature_batch is None
        dense = self.solver == "dense" or (self.solver == "auto" and few)
        if dense and self._given_damping == "auto":
            self._scale = [self.add_variable_from_reference(v, "scale") for v in variables]
        if self.warm_start and not dense:
            new = self.add_variable_from_reference
            self._last_step = [new(v, "last_step", "zeros") for v in variables]

    def control(self, system):
        """A trust region if the solver is dense and `damping="auto"`, else Nielsen's rule."""
        if self.trusts_a_region:
            return TrustRegion(self.damping, self._radius, system, self.learning_rate)
        return super().control(system)

    def expansion(self, model_pass):
        """As `CurvatureOptimizer.expansion`, the gradient scaled on its way back."""
        return Expansion(model_pass, scale=model_pass.loss_scale)

    def linear_system(self, model_pass, expansion):
        """The system for the direction, by the solver that fits; sets `expansion.curvature`."""
        kinds = loss_kinds(model_pass, expansion.leaves)
        seen, narrow = self._seen(model_pass, expansion)
        wide = widened(narrow, model_pass.loss_scale)
        H = curvature.loss_hessian(seen.loss_of_leaves, wide.leaves)
        ridge = model.regularizer_curvature(model_pass.variables, expansion.values)
        self._scale_fits = _fit(self._scale, model_pass.variables)
        J = wide.jacobian
        expansion.curvature = model.with_regularizers(J.T @ H @ J, model_pass.variables)
        solver = self._choose(J, kinds)
        if solver == "cg":
            last = None
            if _fit(self._last_step, model_pass.variables):
                last = [variable.value for variable in self._last_step]
            parts = Parts(model_pass, expansion, seen, narrow.leaves, wide, H, ridge)
            return iterative_system(self, parts, last)
        if solver == "dual":
            system = dual_system(model_pass, wide, kinds, H, ridge)
        else:
            scale = self._scale if self.trusts_a_region else ()
            damping = self.damping.value
            system = dense_system(model_pass, wide, kinds, H, ridge, damping, scale)
            if self.trusts_a_region:
                self._start_radius(expansion)
        return least_squares.OnNests(system, J.in_spec)

    def _start_radius(self, expansion):
        """At first the region reaches as far as the origin of the weights."""
        scaled = nest.map_live(tf.multiply, [v.value for v in self._scale], expansion.values)
        length = tf.cast(nest.norm(scaled), self._radius.dtype)
        start = tf.where(length > 0, length, tf.ones_like(length))
        unknown = (self._radius.value < 0) & expansion.finite
        self._radius.assign(tf.where(unknown, start, self._radius.value))

    def take_step(self, model_pass, expansion, search):
        """As `CurvatureOptimizer.take_step`; a warm start is told of the step."""
        if _fit(self._last_step, model_pass.variables):
            moves = zip(self._last_step, expansion.values, search["values"], strict=True)
            for variable, old, new in moves:
                variable.assign(tf.where(search["accepted"], old - new, variable.value))
        super().take_step(model_pass, expansion, search)

    def _seen(self, model_pass, expansion):
        """The pass that the curvature is taken from, and its expansion."""
        if self.curvature_batch is None:
            return model_pass, expansion
        part = SubBatch(model_pass, expansion, self.curvature_batch)
        seen = copy.copy(expansion)
        seen.leaves, seen.whole = part.leaves, part.jacobian
        seen.jacobian = to_leaves(part.jacobian)
        return part.model_pass, seen

    def _choose(self, J, kinds):
        residuals, weights = J.shape
        if self.solver == "dual" and "general" in kinds:
            raise ConfigurationError(
                'GaussNewton: solver="dual" needs mse or a cross-entropy (with its softmax or '
                'sigmoid as the last activation, or from_logits=True). Use solver="cg" or "dense". '
                "Received: another loss."
            )
        if self.solver != "auto":
            return self.solver
        if self.curvature_batch is not None:
            return "cg"
        if weights <= DENSE_WEIGHTS:
            return "dense"
        few = residuals is not None and residuals <= DUAL_RESIDUALS
        return "dual" if few and "general" not in kinds else "cg"

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "damping": self._given_damping,
            "solver": self.solver,
            "max_solver_iterations": self.max_solver_iterations,
            "solver_tolerance": self.solver_tolerance,
            "preconditioner": self.preconditioner,
            "curvature_batch": self.curvature_batch,
            "progress_tolerance": self.progress_tolerance,
            "warm_start": self.warm_start,
            "backtracking": self.backtracking,
        }


def _fit(state, variables):
    """Whether there is a state, of variables in these shapes: the optimizer may be shared."""
    return bool(state) and [s.shape for s in state] == [v.shape for v in variables]
