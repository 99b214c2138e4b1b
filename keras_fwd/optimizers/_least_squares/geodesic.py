"""Geodesic acceleration: a step that follows the curve on which the residuals change evenly."""

from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.precision import is_half

#: A step is rejected where twice the acceleration is longer than this share of the velocity.
LIMIT = 0.75


class Geodesic:
    """A system whose steps `v + a / 2` are to second order in the weights.

    The velocity `v = −x` is the step without acceleration; the acceleration solves
    `(C + λ D²) a = −Jᵀ H f''`, with `f''` the second derivative of the outputs along `v`.

    Args:
        system: A `NestSystem` of the batch.
        model_pass: The `TrainingPass` of the batch, for a sum of squares.
        expansion: Its `Expansion`.
        hessian: `H`, of the loss in the outputs.

    References:
        Transtrum and Sethna, Improvements to the Levenberg-Marquardt algorithm for nonlinear
        least-squares minimization, arXiv:1201.5885 (2012).
    """

    def __init__(self, system, model_pass, expansion, hessian):
        self._system = system
        self._pass = model_pass
        self._expansion = expansion
        self._hessian = hessian

    def curved(self, velocity, damping):
        """The step for a velocity, and whether it bends too much to be trusted.

        Args:
            velocity: `−x` for the solution `x` of this system, by a factor perhaps.
            damping: That `x` was solved for with.
        """
        bending = self._pass.second_derivative(self._expansion.values, velocity)
        force = self._expansion.jacobian._transpose_mv(self._hessian._mv(bending))
        solution = self._system.solve(damping, force)
        acceleration = self._expansion.free.vector(nest.scale(-1.0, solution.value))
        speed, bend = (self._system.length(vector) for vector in (velocity, acceleration))
        step = nest.add_scaled(velocity, 0.5, acceleration)
        return step, ~(2 * bend <= LIMIT * speed)  # of NaN nothing is trusted

    def __getattr__(self, name):
        return getattr(self._system, name)


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
