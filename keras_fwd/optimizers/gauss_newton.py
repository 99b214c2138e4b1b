"""`GaussNewton`: damped Gauss-Newton (Levenberg-Marquardt) for any Keras model."""

from typing import Any, Literal

import keras
import tensorflow as tf

from keras_fwd._checks import check_count, check_flag
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.nest_system import NestSystem
from keras_fwd.optimizers._least_squares.batch_system import batch_system, few_weights
from keras_fwd.optimizers._least_squares.geodesic import Geodesic
from keras_fwd.optimizers._least_squares.iterative_system import check_options
from keras_fwd.optimizers._residuals.residual_minimizer import ResidualMinimizer
from keras_fwd.optimizers._residuals.residual_pass import ResidualPass
from keras_fwd.optimizers._steps import bounds, replicas
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.keras_hooks import GraphStep
from keras_fwd.optimizers._steps.micro_batches import BlockedExpansion, MicroBatches, check_blocks
from keras_fwd.optimizers._steps.trust_region import Region, TrustRegion, fit
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.typing import LearningRate, Nest, Tensor

#: The damping of the first step, where the radius of a trust region does not tell it.
START_DAMPING = 1e-3
_SOLVERS = ("auto", "dense", "dual", "cg")


@serializable
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
    first batch on whose loss, gradient or direction was NaN or infinite. After 20 such batches in a
    row training stops with `keras_fwd.NumericalError`, which names the first bad value.

    `optimizer.status` says how the last step ended: accepted, rejected, converged by which of
    MINPACK's tests, or not finite. `keras_fwd.callbacks.LeastSquaresStop` ends `fit` by it.

    Large batches serve it best: on a batch with fewer residuals than weights it can fit the batch
    alone.

    Under `tf.distribute.MirroredStrategy` N replicas take the step that one would take with the
    whole batch (to rounding, but for a `"cg"` of many iterations that stops unsolved). With `"cg"`
    the graph of the step then grows with `max_solver_iterations`: give it a low bound.

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
        preconditioner: Of `"cg"`, renewed in every step. `"kfac"`: the Kronecker factors of the
            batch as in `KFAC`; a deep autoencoder with little damping needs two fifths of the
            iterations to a tolerance of 1e-3, a tenth to 1e-1, and each takes up to twice the time.
            `"diagonal"`: the diagonal of the curvature from random probes, to the power 0.75: fewer
            iterations on a badly scaled net. None (default) for none.
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
        geodesic: Whether each trial step is bent by half its geodesic acceleration, which follows
            a curved valley in far fewer steps; refused where twice the acceleration is longer than
            three quarters of the step. For `"mse"` with a direct solver; it serves fits to many
            digits, best with a `damping` like 1e-3. Default False.
        micro_batch: How many examples of a batch the model holds at once; None (default) for all.
            The step is that of the whole batch, to rounding, and all that it takes runs through the
            blocks one after the other. For `"dense"` (of mse and cross-entropies) and `"cg"`, on
            one device. Refused are layers that keep a state or draw random numbers, and those of
            your own, unless they say `keeps_examples_apart = True`.

    Raises:
        ConfigurationError: an argument out of range; a loss that is not twice differentiable; a
            model without trainable weights; a preconditioner with several replicas.
        LeakError: TensorFlow would get the derivative of a layer wrong.
        NumericalError: 20 batches in a row without a finite loss, gradient and direction.

    Cost: A gradient, the solve, and a forward pass for each trial. `"dense"`, `"dual"`: the
        Jacobian, in models of stock layers that keep examples apart about two forward passes for
        each output of an example, else as many JVPs as weights. `"cg"`: about one gradient an
        iteration, of the `curvature_batch`. `preconditioner="kfac"`: a pullback and the factors a
        step, their inverses a trial, cubic in the width of a layer, and two products of each matrix
        of weights with them an iteration; `"diagonal"`: four pullbacks a step. `warm_start`: a
        vector of weights in the state. `backtracking`: two forward passes or more a trial, and the
        iterates, 14 of 50. `geodesic`: three forward passes and a product a trial.

    References:
        Marquardt, J. SIAM 11 (1963); Moré, The Levenberg-Marquardt algorithm: implementation and
        theory, Lecture Notes in Mathematics 630 (1978); Nielsen, IMM-REP-1999-05 (1999); Transtrum
        and Sethna, arXiv:1201.5885 (2012); Martens, Deep learning via Hessian-free optimization,
        ICML (2010); Schraudolph, Neural Computation 14 (2002).

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
        learning_rate: LearningRate = 1.0,
        damping: float | Literal["auto"] = "auto",
        solver: Literal["auto", "dense", "dual", "cg"] = "auto",
        max_solver_iterations: int = 50,
        solver_tolerance: float = 1e-3,
        preconditioner: Literal["kfac", "diagonal"] | None = None,
        max_trials: int = 8,
        name: str = "gauss_newton",
        curvature_batch: int | None = None,
        progress_tolerance: float | None = None,
        warm_start: bool = False,
        backtracking: bool = False,
        geodesic: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        auto = isinstance(damping, str) and damping == "auto"
        super().__init__(learning_rate, START_DAMPING if auto else damping, max_trials, name)
        if solver not in _SOLVERS:
            raise ConfigurationError(
                f"GaussNewton: `solver` must be one of {', '.join(map(repr, _SOLVERS))}. "
                f"Received: solver={solver!r}."
            )
        self.solver = solver
        self.max_solver_iterations = max_solver_iterations
        self.solver_tolerance = solver_tolerance
        self.preconditioner = preconditioner
        self.progress_tolerance = progress_tolerance
        self.warm_start = warm_start
        self.backtracking = backtracking
        self.curvature_batch = curvature_batch
        check_options(self)
        self.max_solver_iterations: int = int(max_solver_iterations)
        self.solver_tolerance: float = float(solver_tolerance)
        self.progress_tolerance = None if progress_tolerance is None else float(progress_tolerance)
        self.curvature_batch = None if curvature_batch is None else int(curvature_batch)
        self._given_damping = "auto" if auto else self.initial_damping
        unknown = keras.initializers.Constant(-1.0)
        self._radius = self.add_variable((), unknown, "float64", name="radius")
        self._own = self._region = None  # the region of `fit`, and that of the present batch
        self._last_step = []
        check_flag("GaussNewton", "geodesic", geodesic)
        self.geodesic: bool = bool(geodesic)
        check_count("GaussNewton", "micro_batch", micro_batch, none="all examples")
        check_blocks(self, micro_batch)
        self.micro_batch: int | None = None if micro_batch is None else int(micro_batch)
        self._graph_step = GraphStep(super().train_step)

    def train_step(self, model: keras.Model, data: Nest) -> dict[str, Tensor]:
        """As `CurvatureOptimizer.train_step`; with blocks compiled in eager code too."""
        if self.preconditioner != "kfac" and self.micro_batch is None:
            return super().train_step(model, data)
        return self._graph_step(model, data)

    def trusts_a_region(self, variables: Any) -> bool:
        """Whether the length of steps in variables is governed by a radius, else by the damping."""
        few = few_weights(variables)
        auto = self.solver == "auto" and self.curvature_batch is None
        return self._given_damping == "auto" and (self.solver == "dense" or (auto and few))

    def build(self, variables: Any) -> None:
        """Make the state: also the largest norms of columns seen so far, or the last step."""
        super().build(variables)
        if self.trusts_a_region(variables):
            scale = [self.add_variable_from_reference(v, "scale") for v in variables]
            self._own = Region(self._radius, scale)
        elif self.warm_start:
            new = self.add_variable_from_reference
            self._last_step = [new(v, "last_step", "zeros") for v in variables]

    def _region_of(self, model_pass):
        """The `Region` of a batch, or None for Nielsen's rule.

        A second model that shares the optimizer shares its damping, but has no norms of columns.
        """
        variables = model_pass.variables
        if isinstance(model_pass, ResidualPass):
            return self.regions.of(variables) if self.trusts_a_region(variables) else None
        return self._own if self._own is not None and fit(self._own.scale, variables) else None

    def control(self, system: Any) -> Any:
        """A trust region if the solver is dense and `damping="auto"`, else Nielsen's rule."""
        if self._region is not None:
            return TrustRegion(self.damping, self._region.radius, system, self.learning_rate)
        return super().control(system)

    def new_pass(self, model: keras.Model) -> Any:
        """The `TrainingPass` of a model, in blocks if `micro_batch` is given."""
        if self.micro_batch is None:
            return super().new_pass(model)
        return MicroBatches(model, self.micro_batch)

    def expansion(self, model_pass: Any) -> Any:
        """As `CurvatureOptimizer.expansion`: scaled on its way back, of what may move."""
        bounds.project(model_pass.variables)
        kind = Expansion if self.micro_batch is None else BlockedExpansion
        expansion = kind(model_pass, scale=model_pass.loss_scale)
        bounds.restrict(expansion, model_pass.variables)
        return expansion

    def step_from(self, expansion: Any, system: Any, solution: Any) -> Any:
        """As `CurvatureOptimizer.step_from`; exactly zero for entries at their bounds."""
        return expansion.free.vector(super().step_from(expansion, system, solution))

    def taken(self, model_pass: Any, expansion: Any, step: Any, values: Any) -> Any:
        """The step to these values."""
        return bounds.taken(model_pass.variables, expansion.values, step, values)

    def linear_system(self, model_pass: Any, expansion: Any) -> Any:
        """The system for the direction, by the solver that fits; see `batch_system`."""
        self._region = self._region_of(model_pass)
        last = None
        if fit(self._last_step, model_pass.variables):
            last = [variable.value for variable in self._last_step]
        return batch_system(self, model_pass, expansion, self._region, last)

    def curved(self, expansion: Any, system: Any, step: Any, damping: Tensor) -> Any:
        """With the acceleration, if it is asked for."""
        if not self.geodesic:
            return super().curved(expansion, system, step, damping)
        return system.curved(step, damping)

    def predicted_change(self, expansion: Any, system: Any, step: Any) -> Tensor:
        """By the matrix, where there is one, else by products."""
        if not isinstance(system, NestSystem | Geodesic):
            return super().predicted_change(expansion, system, step)
        linear = nest.dot(expansion.gradient, step)
        return (linear + tf.cast(system.bend(step), linear.dtype) / 2) / replicas.count()

    def take_step(self, model_pass: Any, expansion: Any, search: Any) -> None:
        """As `CurvatureOptimizer.take_step`; a warm start is told of the step.

        Replicas solve the same system each: on unlike devices, the solutions differ by rounding.
        """
        search = {**search, "values": replicas.first(search["values"])}
        if fit(self._last_step, model_pass.variables):
            moves = zip(self._last_step, expansion.values, search["values"], strict=True)
            for variable, old, new in moves:
                variable.assign(tf.where(search["accepted"], old - new, variable.value))
        super().take_step(model_pass, expansion, search)

    def get_config(self) -> dict[str, Any]:
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
            "progress_tolerance": self.progress_tolerance,
            "warm_start": self.warm_start,
            "backtracking": self.backtracking,
        }
