"""The damped system of one batch for conjugate gradients: of which form, on how many replicas."""

import tensorflow as tf

from keras_fwd import curvature, solvers
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers import replicas
from keras_fwd.optimizers.batch_preconditioner import BatchPreconditioner
from keras_fwd.optimizers.krylov import KrylovSystem


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
