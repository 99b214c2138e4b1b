"""`GaussNewton`: damped Gauss-Newton (Levenberg-Marquardt) for any Keras model."""

import keras
import tensorflow as tf

from keras_fwd import curvature, least_squares, model, nest, solvers
from keras_fwd.checks import check_count, check_number
from keras_fwd.errors import ConfigurationError
from keras_fwd.linear_map import diagonal
from keras_fwd.optimizers import replicas
from keras_fwd.optimizers.batch_preconditioner import BatchPreconditioner
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.optimizers.dense_system import dense_system, loss_kinds
from keras_fwd.optimizers.graph_step import GraphStep
from keras_fwd.optimizers.krylov import KrylovSystem

#: Up to this many weights a dense factorization is cheap beside the model's own work.
DENSE_WEIGHTS = 1000
#: The same for the residuals (batch size times outputs) of the dual system.
DUAL_RESIDUALS = 512

_SOLVERS = ("auto", "dense", "dual", "cg")
_PRECONDITIONERS = ("kfac",)


@keras.saving.register_keras_serializable(package="keras_fwd")
class GaussNewton(CurvatureOptimizer):
    """Damped Gauss-Newton with Levenberg-Marquardt control, in stock `compile` and `fit`.

    The direction solves `(Jᵀ H J + λ I) d = g`, with `J` the Jacobian of the outputs (of the
    logits, for cross-entropies) in the weights, `H` the loss's Hessian in them and `g` the gradient
    of the total loss. The step `−learning_rate · d` is tried on the same batch with the same
    dropout mask and kept if the loss falls by enough of what was predicted; else it is tried again
    with more damping `λ`. A step that is rejected for good leaves weights, batch-norm statistics,
    seeds and metrics as they were.

    The total loss counts `model.losses`, weight regularizers, sample and class weights. L1 and L2
    regularizers are in the curvature too; other terms of `model.losses` are in the loss and its
    gradient only.

    The logs get `damping`, `reduction_ratio`, `solver_iterations`, and `nonfinite_steps` from the
    first batch on whose loss was NaN or infinite. After 20 such batches in a row training stops
    with `keras_fwd.NumericalError`, which names the first bad value.

    Large batches serve it best: on a batch with fewer residuals than weights it can fit the batch
    alone.

    Under `tf.distribute.MirroredStrategy` N replicas take the step that one would take with the
    whole batch. With `"cg"` the graph of the step then grows with `max_solver_iterations`, for
    replicas send each other nothing inside a loop: give it a low bound, or use `"dense"`.

    Args:
        learning_rate: Factor on the direction: a float, a schedule or a callable. Default 1.0.
        damping: Initial `λ`, not negative. Default 1e-3. With 0 the steps stay undamped as long as
            they are accepted.
        solver: `"dense"` (QR of the stacked Jacobian of the residuals, for up to about a thousand
            weights), `"dual"` (few residuals, any number of weights), `"cg"` (matrix-free), or
            `"auto"` (default): the first of these that fits.
        max_solver_iterations: Bound on the iterations of `"cg"`. Default 50.
        solver_tolerance: Relative residual at which `"cg"` stops. Default 1e-3.
        preconditioner: Of `"cg"`, used where `"auto"` chooses it: `"kfac"`, the Kronecker factors
            of the batch as in `KFAC`, renewed in every step; or None (default). The solution is the
            same, up to the tolerance. A deep autoencoder with little damping needs two fifths of
            the iterations to a tolerance of 1e-3, a tenth to 1e-1, and each takes up to twice the
            time; with much damping, or few weights, there is nothing to gain.
        max_trials: Trials on a batch before its step is rejected for good. Default 8.
        name: Name of the optimizer.

    Raises:
        ConfigurationError: an argument out of range; a loss that is not twice differentiable; a
            model without trainable weights, or with loss scaling; a preconditioner with several
            replicas.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss.

    Cost: A gradient, the solve, and a forward pass for each trial. `"dense"`: as many JVPs as
        weights, vectorized; `"cg"`: about one gradient an iteration. `preconditioner="kfac"`: a
        pullback and the factors a step, their inverses a trial, cubic in the width of a layer, and
        two products of each matrix of weights with them an iteration.

    References:
        Marquardt, J. SIAM 11 (1963); Nielsen, IMM-REP-1999-05 (1999); Martens, Deep learning via
        Hessian-free optimization, ICML (2010); Schraudolph, Neural Computation 14 (2002).

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
        learning_rate=1.0,
        damping=1e-3,
        solver="auto",
        max_solver_iterations=50,
        solver_tolerance=1e-3,
        preconditioner=None,
        max_trials=8,
        name="gauss_newton",
    ):
        super().__init__(learning_rate, damping, max_trials, name)
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
        _check_preconditioner(preconditioner, solver)
        self.preconditioner = preconditioner
        self._graph_step = GraphStep(super().train_step)

    def train_step(self, model, data):
        """As `CurvatureOptimizer.train_step`; with a preconditioner compiled in eager code too."""
        if self.preconditioner is None:
            return super().train_step(model, data)
        return self._graph_step(model, data)

    def linear_system(self, model_pass, expansion):
        """The system for the direction, by the solver that fits; sets `expansion.curvature`."""
        kinds = loss_kinds(model_pass, expansion.leaves)
        H = curvature.loss_hessian(model_pass.loss_of_leaves, expansion.leaves)
        ridge = model.regularizer_curvature(model_pass.variables, expansion.values)
        J = expansion.jacobian
        expansion.curvature = J.T @ H @ J + diagonal(nest.scale(1 / replicas.count(), ridge))
        solver = self._choose(J, kinds)
        if solver == "cg":
            limits = self.solver_tolerance, self.max_solver_iterations
            if replicas.count() > 1:
                return self._krylov_system(expansion, limits)
            if self.preconditioner is not None:
                near = BatchPreconditioner(model_pass, expansion, H, ridge, self.step_number())
                system = expansion.curvature, expansion.gradient
                return solvers.ConjugateGradient(*system, *limits, near)
            if model_pass.loss_is_of_outputs:
                cotangent = curvature.loss_gradient(model_pass.loss_of_leaves, expansion.leaves)
                return solvers.RangeSpaceConjugateGradient(J, H, cotangent, *limits)
            return solvers.ConjugateGradient(expansion.curvature, expansion.gradient, *limits)
        system = dense_system(model_pass, expansion, H, ridge, solver)
        return least_squares.on_nests(system, J.in_spec)

    def _krylov_system(self, expansion, limits):
        """Of several replicas."""
        if self.preconditioner is not None:
            raise ConfigurationError(
                'GaussNewton: `preconditioner` is for one device; with several replicas '
                f"leave it out. Received: preconditioner={self.preconditioner!r}, "
                f"{replicas.count()} replicas."
            )
        system = expansion.curvature, expansion.gradient
        return KrylovSystem(*system, tf.identity(self.damping.value), *limits)

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
        if weights <= DENSE_WEIGHTS:
            return "dense"
        few = residuals is not None and residuals * replicas.count() <= DUAL_RESIDUALS
        return "dual" if few and "general" not in kinds else "cg"

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "solver": self.solver,
            "max_solver_iterations": self.max_solver_iterations,
            "solver_tolerance": self.solver_tolerance,
            "preconditioner": self.preconditioner,
        }


def _check_preconditioner(preconditioner, solver):
    if preconditioner is not None and preconditioner not in _PRECONDITIONERS:
        raise ConfigurationError(
            "GaussNewton: `preconditioner` must be one of "
            f"{', '.join(map(repr, _PRECONDITIONERS))}, or None for none. "
            f"Received: preconditioner={preconditioner!r}."
        )
    if preconditioner is not None and solver not in ("auto", "cg"):
        raise ConfigurationError(
            'GaussNewton: `preconditioner` is for solver="cg"; the solver that is asked for is '
            f"direct, and needs none. Received: preconditioner={preconditioner!r}, "
            f"solver={solver!r}."
        )
