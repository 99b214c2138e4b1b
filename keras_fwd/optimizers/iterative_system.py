"""The damped system of one batch for conjugate gradients: of which form, on how many replicas."""

import tensorflow as tf

from keras_fwd import curvature, solvers
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers import replicas
from keras_fwd.optimizers.batch_preconditioner import BatchPreconditioner
from keras_fwd.optimizers.krylov import KrylovSystem

PRECONDITIONERS = ("kfac",)


def iterative_system(optimizer, model_pass, expansion, seen, wide, H, ridge):
    """The system, of nests.

    Args:
        optimizer: The `GaussNewton`.
        model_pass: The `keras_fwd.model.TrainingPass` of the batch.
        expansion: Its `Expansion`, with its `curvature`.
        seen: The pass that the curvature is taken from.
        wide: The expansion of that one, in single precision.
        H: `LinearMap`, the Hessian of the loss in the leaves of `wide`.
        ridge: Curvature of the weights' regularizers, a list like the weights.
    """
    limits = optimizer.solver_tolerance, optimizer.max_solver_iterations
    system = expansion.curvature, expansion.gradient
    if replicas.count() > 1:
        _check_alone(optimizer.preconditioner)
        return KrylovSystem(*system, tf.identity(optimizer.damping.value), *limits)
    if optimizer.preconditioner is not None:
        narrow = H  # in the dtype of the forward pass, from which the factors are read
        if wide.leaves is not expansion.leaves:
            narrow = curvature.loss_hessian(model_pass.loss_of_leaves, expansion.leaves)
        step = optimizer.step_number()
        near = BatchPreconditioner(model_pass, expansion, narrow, ridge, step)
        return solvers.ConjugateGradient(*system, *limits, near)
    if model_pass.loss_is_of_outputs and seen is model_pass:
        cotangent = curvature.loss_gradient(model_pass.loss_of_leaves, wide.leaves)
        return solvers.RangeSpaceConjugateGradient(wide.jacobian, H, cotangent, *limits)
    return solvers.ConjugateGradient(*system, *limits)


def _check_alone(preconditioner):
    if preconditioner is not None:
        raise ConfigurationError(
            "GaussNewton: `preconditioner` is for one device; with several replicas leave it out. "
            f"Received: preconditioner={preconditioner!r}, {replicas.count()} replicas."
        )


def check_preconditioner(preconditioner, solver):
    """Raise `ConfigurationError` for one that is not known."""
    if preconditioner is not None and preconditioner not in PRECONDITIONERS:
        raise ConfigurationError(
            "GaussNewton: `preconditioner` must be one of "
            f"{', '.join(map(repr, PRECONDITIONERS))}, or None for none. "
            f"Received: preconditioner={preconditioner!r}."
        )
    if preconditioner is not None:
        check_iterative("preconditioner", preconditioner, solver)


def check_iterative(argument, value, solver):
    """Raise `ConfigurationError` for an argument that a direct solver does not take."""
    if solver not in ("auto", "cg"):
        raise ConfigurationError(
            f'GaussNewton: `{argument}` is for solver="cg"; the solver that is asked for is '
            f"direct, and needs none. Received: {argument}={value!r}, solver={solver!r}."
        )
