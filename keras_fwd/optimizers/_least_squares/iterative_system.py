"""What conjugate gradients solve for the direction of a batch, and how: the options of `"cg"`."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_fwd._checks import check_count, check_flag, check_number
from keras_fwd._curvature import loss_hessian
from keras_fwd._linear_algebra import conjugate_gradients
from keras_fwd._spaces import nest
from keras_fwd.errors import ConfigurationError
from keras_fwd.optimizers._least_squares.preconditioners import (
    BatchPreconditioner,
    DiagonalPreconditioner,
)
from keras_fwd.optimizers._least_squares.replicated_cg import KrylovSystem
from keras_fwd.optimizers._steps import replicas

PRECONDITIONERS = ("kfac", "diagonal")


class Parts(NamedTuple):
    """Of the system on a batch.

    Attributes:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`, with the curvature.
        seen: The pass that the curvature is taken from.
        leaves: Its curvature leaves.
        wide: Its expansion in single precision.
        hessian: The loss's Hessian in the leaves of that.
        ridge: Curvature of the weights' regularizers, a list like the weights.
    """

    model_pass: Any
    expansion: Any
    seen: Any
    leaves: Any
    wide: Any
    hessian: Any
    ridge: Any


def iterative_system(optimizer, parts, last):
    """The system of a batch for conjugate gradients, with the options of a `GaussNewton`.

    Args:
        optimizer: The `GaussNewton`.
        parts: `Parts`.
        last: The last step, a list of tensors like the weights, or None.
    """
    expansion = parts.expansion
    limits = optimizer.solver_tolerance, optimizer.max_solver_iterations
    if replicas.count() > 1:
        _check_alone(optimizer)
        system = expansion.curvature, expansion.gradient
        return KrylovSystem(*system, tf.identity(optimizer.damping.value), *limits)
    options = {"progress_tolerance": optimizer.progress_tolerance}
    if optimizer.backtracking:
        options["objective"] = _objective(optimizer, parts)
    near = _preconditioner(optimizer, parts)
    of_outputs = parts.model_pass.loss_is_of_outputs and parts.seen is parts.model_pass
    if near is None and last is None and of_outputs:  # the last step is not in the range of Jᵀ
        cotangent = loss_hessian.loss_gradient(parts.model_pass.loss_of_leaves, parts.wide.leaves)
        system = parts.wide.jacobian, parts.hessian, cotangent
        return conjugate_gradients.RangeSpaceConjugateGradient(*system, *limits, **options)
    system = expansion.curvature, expansion.gradient
    return conjugate_gradients.ConjugateGradient(*system, *limits, near, x0=last, **options)


def _check_alone(optimizer):
    """Raise `ConfigurationError` for an option that several replicas do not have."""
    alone = [name for name in _OPTIONS if name != "curvature_batch"]
    for name, value in _asked_for(optimizer, alone):
        raise ConfigurationError(
            f"GaussNewton: `{name}` is for one device; with several replicas leave it out. "
            f"Received: {name}={value!r}, {replicas.count()} replicas."
        )


def _objective(optimizer, parts):
    """The loss of the batch as a function of the direction."""

    def loss(direction):
        step = nest.scale(-optimizer.learning_rate, direction)
        values = optimizer.moved(parts.model_pass, parts.expansion, step)
        return parts.model_pass(values)["loss"]

    return loss


def _preconditioner(optimizer, parts):
    if optimizer.preconditioner is None:
        return None
    kfac = optimizer.preconditioner == "kfac"  # of the whole batch, whose forward pass it reads
    used, leaves = parts.seen, parts.leaves
    if kfac:
        used, leaves = parts.model_pass, parts.expansion.leaves
    narrow = parts.hessian  # in the dtype of the forward pass
    if parts.wide.leaves is not leaves:
        narrow = loss_hessian.loss_hessian(used.loss_of_leaves, leaves)
    step = optimizer.step_number()
    if kfac:
        return BatchPreconditioner(used, parts.expansion, narrow, parts.ridge, step)
    J = parts.wide.jacobian
    return DiagonalPreconditioner(
        used, leaves, narrow, J, J.T @ parts.hessian @ J, parts.ridge, step
    )


#: The arguments of `GaussNewton` that only `"cg"` has a use for.
_OPTIONS = ("preconditioner", "progress_tolerance", "warm_start", "backtracking", "curvature_batch")


def check_options(optimizer):
    """Raise `ConfigurationError` for an option of `"cg"` that is out of range or has no use."""
    call = "GaussNewton"
    check_count(call, "max_solver_iterations", optimizer.max_solver_iterations)
    check_number(call, "solver_tolerance", optimizer.solver_tolerance)
    preconditioner = optimizer.preconditioner
    if preconditioner is not None and preconditioner not in PRECONDITIONERS:
        raise ConfigurationError(
            "GaussNewton: `preconditioner` must be one of "
            f"{', '.join(map(repr, PRECONDITIONERS))}, or None for none. "
            f"Received: preconditioner={preconditioner!r}."
        )
    if optimizer.progress_tolerance is not None:
        check_number(call, "progress_tolerance", optimizer.progress_tolerance)
    check_flag(call, "warm_start", optimizer.warm_start)
    check_flag(call, "backtracking", optimizer.backtracking)
    check_count(call, "curvature_batch", optimizer.curvature_batch, none="all examples")
    for name, value in _asked_for(optimizer, _OPTIONS):
        if optimizer.solver not in ("auto", "cg"):
            raise ConfigurationError(
                f'GaussNewton: `{name}` is for solver="cg"; the solver that is asked for is '
                f"direct, and needs none. Received: {name}={value!r}, "
                f"solver={optimizer.solver!r}."
            )


def _asked_for(optimizer, names):
    """The options among these that are not off, and their values."""
    pairs = [(name, getattr(optimizer, name)) for name in names]
    return [(name, value) for name, value in pairs if value is not None and value is not False]
