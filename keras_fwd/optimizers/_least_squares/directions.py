"""Steps of solutions: straight, or bent by the geodesic acceleration."""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Values
from keras_fwd.optimizers._steps.precision import is_half
from keras_fwd.typing import Nest

#: A step is rejected where twice the acceleration is longer than this share of the velocity.
LIMIT = 0.75


class VectorSystem(Protocol):
    """A system with a matrix, of vectors `[n]`."""

    def solve(self, damping: tf.Tensor, gradient: tf.Tensor | None = None) -> Solution:
        """The solution, for another right-hand side if there is one."""
        ...

    def length(self, vector: tf.Tensor) -> tf.Tensor:
        """`‖D x‖`."""
        ...

    def bend(self, vector: tf.Tensor) -> tf.Tensor:
        """`⟨x, C x⟩`."""
        ...


class Curve(Protocol):
    """A pass that knows how its outputs bend."""

    def second_derivative(self, values: Values, direction: Values) -> list[tf.Tensor]:
        """Of the curvature leaves along a line through these weights."""
        ...


class Straight:
    """The step `−rate · x` for a solution `x`.

    Args:
        expansion: The `Expansion` of the batch.
        rate: Factor on the solution, a scalar.
        predicted: Function of a step: the change of the loss by the quadratic model.
        spec: The space of the weights, if solutions are vectors; None if they are like the weights.
    """

    def __init__(
        self,
        expansion: Expansion,
        rate: tf.Tensor,
        predicted: Callable[[Values], tf.Tensor],
        spec: Nest | None = None,
    ) -> None:
        self._expansion = expansion
        self._rate = rate
        self._predicted = predicted
        self._spec = spec

    def step(self, solution: Solution) -> Values:
        """Exactly zero for entries at their bounds."""
        value = solution.value if self._spec is None else nest.unravel(solution.value, self._spec)
        return self.along(value)

    def along(self, vector: Values) -> Values:
        """The step along a vector like the weights."""
        return self._expansion.free.vector(nest.scale(-self._rate, vector))

    def curved(self, step: Values, damping: tf.Tensor) -> tuple[Values, tf.Tensor]:
        """The step as it is."""
        del damping
        return step, tf.constant(False)

    def predicted_change(self, step: Values, solution: Solution) -> tf.Tensor:
        """Of the loss, by the quadratic model: the step may be shorter than the solution."""
        del solution
        return self._predicted(step)


def of_products(expansion: Expansion, curvature: LinearMap) -> Callable[[Values], tf.Tensor]:
    """`⟨g, s⟩ + ½ ⟨s, C s⟩`, by a product with this replica's share of `C`."""

    def predicted(step: Values) -> tf.Tensor:
        linear = nest.dot(expansion.gradient, step) / replicas.count()
        return linear + nest.dot(step, curvature._mv(step)) / 2

    return predicted


def of_matrix(expansion: Expansion, system: VectorSystem) -> Callable[[Values], tf.Tensor]:
    """The same by the matrix of a system with `bend`, which all replicas have whole."""

    def predicted(step: Values) -> tf.Tensor:
        linear = nest.dot(expansion.gradient, step)
        bent = tf.cast(system.bend(nest.ravel(step)), linear.dtype)
        return (linear + bent / 2) / replicas.count()

    return predicted


class Geodesic(Straight):
    """The step `v + a / 2`, which follows the curve on which the residuals change evenly.

    The velocity `v` is the straight step; the acceleration solves `(C + λ D²) a = −Jᵀ H f''`, with
    `f''` the second derivative of the outputs along `v`. So the step is right to second order in
    the weights.

    Args:
        expansion: As of `Straight`.
        rate: As of `Straight`.
        predicted: As of `Straight`.
        spec: The space of the weights.
        model_pass: The `TrainingPass` of the batch, for a sum of squares.
        system: Its system, of vectors.
        hessian: `H`, of the loss in the outputs.

    References:
        Transtrum and Sethna, Improvements to the Levenberg-Marquardt algorithm for nonlinear
        least-squares minimization, arXiv:1201.5885 (2012).
    """

    def __init__(
        self,
        expansion: Expansion,
        rate: tf.Tensor,
        predicted: Callable[[Values], tf.Tensor],
        spec: Nest,
        model_pass: Curve,
        system: VectorSystem,
        hessian: LinearMap,
    ) -> None:
        super().__init__(expansion, rate, predicted, spec)
        self._pass = model_pass
        self._system = system
        self._hessian = hessian

    def curved(self, step: Values, damping: tf.Tensor) -> tuple[Values, tf.Tensor]:
        """Bent by half the acceleration, and whether it bends too much to be trusted.

        Args:
            step: The velocity.
            damping: That it was solved for with.
        """
        bending = self._pass.second_derivative(self._expansion.values, step)
        force = self._expansion.jacobian._transpose_mv(self._hessian._mv(bending))
        solution = self._system.solve(damping, nest.ravel(force))
        back = nest.scale(-1.0, nest.unravel(solution.value, self._spec))
        acceleration = self._expansion.free.vector(back)
        speed, bend = (self._system.length(nest.ravel(v)) for v in (step, acceleration))
        curve = nest.add_scaled(step, 0.5, acceleration)
        # Not the opposite comparison: of NaN nothing is trusted.
        return curve, tf.logical_not(2 * bend <= LIMIT * speed)


def check_geodesic(kinds, solver, leaves, micro_batch):
    """Raise `ConfigurationError` where the acceleration is not defined, or would not be exact."""
    rule = "GaussNewton: `geodesic=True` needs"
    if replicas.count() > 1 or micro_batch is not None:
        raise ConfigurationError(
            f"{rule} one device and the whole batch at once. Received: {replicas.count()} "
            f"replicas, micro_batch={micro_batch}."
        )
    if set(kinds) != {"squares"}:
        raise ConfigurationError(
            f'{rule} loss="mse", a sum of squares. Received: another loss. Leave `geodesic` out.'
        )
    if solver == "cg":
        raise ConfigurationError(
            f'{rule} a direct solver: solver="dense" up to a few thousand weights, or '
            f'solver="dual" for few residuals. Received: solver="cg", or "auto" that chooses it.'
        )
    if is_half(leaves):
        raise ConfigurationError(
            f"{rule} a model that computes in float32 or float64: in half precision a second "
            "derivative has no digits left. Received: outputs of "
            f"{', '.join(leaf.dtype.name for leaf in leaves)}."
        )
