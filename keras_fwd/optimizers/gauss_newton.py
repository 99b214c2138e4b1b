"""`GaussNewton`: damped Gauss-Newton (Levenberg-Marquardt) for any Keras model."""

import copy
import math

import keras
import tensorflow as tf

from keras_fwd import curvature, least_squares, nest, weight_penalties
from keras_fwd.checks import check_count, check_flag, check_number
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers import bounds, replicas
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.optimizers.dense_system import dense_system, dual_system, loss_kinds
from keras_fwd.optimizers.expansion import Expansion, to_leaves
from keras_fwd.optimizers.geodesic import Geodesic, check_geodesic
from keras_fwd.optimizers.graph_step import GraphStep
from keras_fwd.optimizers.iterative_system import (
    check_iterative,
    check_preconditioner,
    iterative_system,
)
from keras_fwd.optimizers.micro_batches import BlockedExpansion, MicroBatches, check_blocks
from keras_fwd.optimizers.precision import widened
from keras_fwd.optimizers.residual_minimizer import ResidualMinimizer
from keras_fwd.optimizers.residual_pass import ResidualPass
from keras_fwd.optimizers.sub_batch import SubBatch
from keras_fwd.optimizers.trust_region import Region, TrustRegion

#: The damping of the first step, where the radius of a trust region does not tell it.
START_DAMPING = 1e-3
#: Up to this many weights a dense factorization is cheap beside the model's own work.
DENSE_WEIGHTS = 1000
#: The same for the residuals (batch size times outputs) of the dual system.
DUAL_RESIDUALS = 512

_SOLVERS = ("auto", "dense", "dual", "cg")


@keras.saving.register_keras_serializable(package="keras_fwd")
class GaussNewton(ResidualMinimizer, CurvatureOptimizer):
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
    first batch on whose loss was NaN or infinite. After 20 such batches in a row training stops
    with `keras_fwd.NumericalError`, which names the first bad value.

    `optimizer.status` says how the last step ended: accepted, rejected, converged by which of
    MINPACK's tests, or not finite. `keras_fwd.callbacks.LeastSquaresStop` ends `fit` by it.

    Large batches serve it best: on a batch with fewer residuals than weights it can fit the batch
    alone.

    Under `tf.distribute.MirroredStrategy` N replicas take the step that one would take with the
    whole batch: to rounding, but for a `"cg"` of many iterations that stops before the system is
    solved, which on one device loses digits to rounding. With `"cg"` the graph of the step grows
    with `max_solver_iterations`, for replicas send each other nothing inside a loop: give it a low
    bound, or use `"dense"`.

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
        preconditioner: Of `"cg"`, used where `"auto"` chooses it: `"kfac"`, the Kronecker factors
            of the batch as in `KFAC`, renewed in every step; or None (default). The solution is the
            same, up to the tolerance. A deep autoencoder with little damping needs two fifths of
            the iterations to a tolerance of 1e-3, a tenth to 1e-1, and each takes up to twice the
            time; with much damping, or few weights, there is nothing to gain.
        max_trials: Trials on a batch before its step is rejected for good. Default 8.
        name: Name of the optimizer.
        curvature_batch: How many examples of a batch the curvature is taken from, at even
            distances, by `"cg"`, which it lets `"auto"` choose; None (default) for all. The
            gradient is that of the whole batch, and so is the loss that a step is judged by: one
            that only fits the part is rejected, or raises the damping. All examples are used where
            a part would not do: a loss that is no mean over examples, a fixed batch size, stateful
            layers.
        geodesic: Whether each trial step is bent by half its geodesic acceleration, which follows
            a curved valley in far fewer steps; refused where twice the acceleration is longer than
            three quarters of the step. For `"mse"` with a direct solver. Default False. It serves
            fits to many digits best, and then with a `damping` like 1e-3.
        micro_batch: How many examples of a batch the model holds at once; None (default) for all.
            The step is that of the whole batch, to rounding; its gradient, each product with the
            curvature and the loss of each trial run through the blocks one after the other, and
            `"dense"` keeps the Jacobian of one block. For `"dense"` (of mse and cross-entropies)
            and `"cg"`, on one device. Layers that keep a state or draw random numbers are refused;
            a layer of your own must treat each example by itself.

    Raises:
        ConfigurationError: an argument out of range; a loss that is not twice differentiable; a
            model without trainable weights; a preconditioner with several replicas.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss.

    Cost: A gradient, the solve, and a forward pass for each trial. `"dense"`: as many JVPs as
        weights, vectorized; `"cg"`: about one gradient an iteration, of
        the `curvature_batch`. `preconditioner="kfac"`: a
        pullback and the factors a step, their inverses a trial, cubic in the width of a layer, and
        two products of each matrix of weights with them an iteration.

    References:
        Marquardt, J. SIAM 11 (1963); Moré, The Levenberg-Marquardt algorithm: implementation and
        theory, Lecture Notes in Mathematics 630 (1978); Nielsen, IMM-REP-1999-05 (1999); Transtrum
        and Sethna, arXiv:1201.5885 (2012); Martens,
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

    works_on_replicas = True
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
        geodesic=False,
        micro_batch=None,
    ):
        auto = isinstance(damping, str) and damping == "auto"
        super().__init__(learning_rate, START_DAMPING if auto else damping, max_trials, name)
        if solver not in _SOLVERS:
            raise ConfigurationError(
                f"GaussNewton: `solver` must be one of {', '.join(map(repr, _SOLVERS))}. "
                f"Received: solver={solver!r}."
            )
        self.solver = solver
        check_count("GaussNewton", "max_solver_iterations", max_solver_iterations)
        check_number("GaussNewton", "solver_tolerance", solver_tolerance)
        self.max_solver_iterations = int(max_solver_iterations)
        self.solver_tolerance = float(solver_tolerance)
        check_preconditioner(preconditioner, solver)
        self.preconditioner = preconditioner
        self._given_damping = "auto" if auto else self.initial_damping
        unknown = keras.initializers.Constant(-1.0)
        self._radius = self.add_variable((), unknown, "float64", name="radius")
        self._own = self._region = None  # the region of `fit`, and that of the present batch
        if curvature_batch is not None:
            check_count("GaussNewton", "curvature_batch", curvature_batch)
            check_iterative("curvature_batch", curvature_batch, solver)
            curvature_batch = int(curvature_batch)
        self.curvature_batch = curvature_batch
        check_flag("GaussNewton", "geodesic", geodesic)
        self.geodesic = bool(geodesic)
        if micro_batch is not None:
            check_count("GaussNewton", "micro_batch", micro_batch)
            check_blocks(self, micro_batch)
            micro_batch = int(micro_batch)
        self.micro_batch = micro_batch
        self._graph_step = GraphStep(super().train_step)

    def train_step(self, model, data):
        """As `CurvatureOptimizer.train_step`; with some arguments compiled in eager code too."""
        if self.preconditioner is None and self.micro_batch is None:
            return super().train_step(model, data)
        return self._graph_step(model, data)

    def trusts_a_region(self, variables):
        """Whether the length of steps in variables is governed by a radius, else by the damping."""
        few = sum(math.prod(variable.shape) for variable in variables) <= DENSE_WEIGHTS
        auto = self.solver == "auto" and self.curvature_batch is None
        return self._given_damping == "auto" and (self.solver == "dense" or (auto and few))

    def build(self, variables):
        """Make the state: with the dense solver, also the largest norms of columns seen so far."""
        super().build(variables)
        if self.trusts_a_region(variables):
            scale = [self.add_variable_from_reference(v, "scale") for v in variables]
            self._own = Region(self._radius, scale)

    def _region_of(self, model_pass):
        """The `Region` of a batch, or None for Nielsen's rule.

        A second model that shares the optimizer shares its damping, but has no norms of columns.
        """
        variables = model_pass.variables
        if isinstance(model_pass, ResidualPass):
            return self.regions.of(variables) if self.trusts_a_region(variables) else None
        return self._own if self._own is not None and self._own.fits(variables) else None

    def control(self, system):
        """A trust region if the solver is dense and `damping="auto"`, else Nielsen's rule."""
        if self._region is not None:
            return TrustRegion(self.damping, self._region.radius, system, self.learning_rate)
        return super().control(system)

    def new_pass(self, model):
        """The `TrainingPass` of a model, in blocks if `micro_batch` is given."""
        if self.micro_batch is None:
            return super().new_pass(model)
        return MicroBatches(model, self.micro_batch)

    def expansion(self, model_pass):
        """As `CurvatureOptimizer.expansion`: scaled on its way back, of what may move."""
        bounds.project(model_pass.variables)
        kind = Expansion if self.micro_batch is None else BlockedExpansion
        expansion = kind(model_pass, scale=model_pass.loss_scale)
        bounds.restrict(expansion, model_pass.variables)
        return expansion

    def step_from(self, expansion, system, solution):
        """As `CurvatureOptimizer.step_from`; exactly zero for entries at their bounds."""
        return expansion.free.vector(super().step_from(expansion, system, solution))

    def taken(self, model_pass, expansion, step, values):
        """The step to these values."""
        return bounds.taken(model_pass.variables, expansion.values, step, values)

    def linear_system(self, model_pass, expansion):
        """The system for the direction, by the solver that fits; sets `expansion.curvature`."""
        kinds = loss_kinds(model_pass, expansion.leaves)
        seen, wide = self._seen(model_pass, expansion)
        H = curvature.loss_hessian(seen.loss_of_leaves, wide.leaves)
        ridge = weight_penalties.diagonal(model_pass.variables, expansion.values)
        region = self._region = self._region_of(model_pass)
        J = wide.jacobian
        share = 1 / replicas.count()
        GGN = J.T @ H @ J
        expansion.curvature = weight_penalties.added_to(GGN, model_pass.variables, share)
        solver = self._choose(J, kinds)
        if self.geodesic:
            check_geodesic(kinds, solver, expansion.leaves, self.micro_batch)
        if solver == "cg":
            return iterative_system(self, model_pass, expansion, seen, wide, H, ridge)
        if solver == "dual":
            system = dual_system(model_pass, wide, kinds, H, ridge)
        else:
            scale = () if region is None else region.scale
            damping = self.damping.value
            system = dense_system(model_pass, wide, kinds, H, ridge, damping, scale)
            if region is not None:
                region.start(expansion.values, expansion.finite)
        system = least_squares.OnNests(system, J.in_spec)
        return Geodesic(system, model_pass, expansion, H) if self.geodesic else system

    def curved(self, expansion, system, step, damping):
        """With the acceleration, if it is asked for."""
        if not self.geodesic:
            return super().curved(expansion, system, step, damping)
        return system.curved(step, damping)

    def predicted_change(self, expansion, system, step):
        """By the matrix, where there is one, else by products."""
        if not isinstance(system, least_squares.OnNests | Geodesic):
            return super().predicted_change(expansion, system, step)
        linear = nest.dot(expansion.gradient, step)
        return (linear + tf.cast(system.bend(step), linear.dtype) / 2) / replicas.count()

    def _seen(self, model_pass, expansion):
        """The pass that the curvature is taken from, and its expansion in single precision."""
        if self.curvature_batch is None:
            return model_pass, widened(expansion, model_pass.loss_scale)
        part = SubBatch(model_pass, expansion, self.curvature_batch)
        seen = copy.copy(expansion)
        seen.leaves, seen.whole = part.leaves, expansion.free.map(part.jacobian)
        seen.jacobian = to_leaves(seen.whole)
        return part.model_pass, widened(seen, model_pass.loss_scale)

    def take_step(self, model_pass, expansion, search):
        """As `CurvatureOptimizer.take_step`, with the same weights in all replicas.

        Each solves the same system; on unlike devices, the solutions differ by rounding.
        """
        search = {**search, "values": replicas.first(search["values"])}
        super().take_step(model_pass, expansion, search)

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
        few = residuals is not None and residuals * replicas.count() <= DUAL_RESIDUALS
        few = few and self.micro_batch is None
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
            "geodesic": self.geodesic,
            "micro_batch": self.micro_batch,
        }
