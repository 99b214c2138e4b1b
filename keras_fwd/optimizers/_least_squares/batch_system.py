"""The damped system of one batch for `GaussNewton`: which solver, and what it is made of."""

import copy
import math

from keras_fwd._curvature import loss_hessian, weight_penalties
from keras_fwd.errors import ConfigurationError
from keras_fwd.nest_system import NestSystem
from keras_fwd.optimizers._least_squares.dense_system import dense_system, dual_system, loss_kinds
from keras_fwd.optimizers._least_squares.geodesic import Geodesic, check_geodesic
from keras_fwd.optimizers._least_squares.iterative_system import Parts, iterative_system
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import to_leaves
from keras_fwd.optimizers._steps.precision import widened
from keras_fwd.optimizers._steps.sub_batch import SubBatch

#: Up to this many weights a dense factorization is cheap beside the model's own work.
DENSE_WEIGHTS = 1000
#: The same for the residuals (batch size times outputs) of the dual system.
DUAL_RESIDUALS = 512


def few_weights(variables):
    """Whether they are few enough for a dense factorization."""
    return sum(math.prod(variable.shape) for variable in variables) <= DENSE_WEIGHTS


def batch_system(optimizer, model_pass, expansion, region, last):
    """The system for the direction, by the solver that fits; sets `expansion.curvature`.

    Args:
        optimizer: The `GaussNewton`.
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        region: The `Region` that the steps are kept in, or None.
        last: The last step for a warm start, a list of tensors like the weights; or None.
    """
    variables = model_pass.variables
    kinds = loss_kinds(model_pass, expansion.leaves)
    seen, narrow = _seen(optimizer, model_pass, expansion)
    wide = widened(narrow, model_pass.loss_scale)
    H = loss_hessian.loss_hessian(seen.loss_of_leaves, wide.leaves)
    ridge = weight_penalties.diagonal(variables, expansion.values)
    J = wide.jacobian
    share = 1 / replicas.count()
    expansion.curvature = weight_penalties.added_to(J.T @ H @ J, variables, share)
    solver = _choose(optimizer, J, kinds)
    if optimizer.geodesic:
        check_geodesic(kinds, solver, expansion.leaves, optimizer.micro_batch)
    if solver == "cg":
        parts = Parts(model_pass, expansion, seen, narrow.leaves, wide, H, ridge)
        return iterative_system(optimizer, parts, last)
    if solver == "dual":
        system = dual_system(model_pass, wide, kinds, H, ridge)
    else:
        scale = () if region is None else region.scale
        damping = optimizer.damping.value
        system = dense_system(model_pass, wide, kinds, H, ridge, damping, scale)
        if region is not None:
            region.start(expansion.values, expansion.finite)
    system = NestSystem(system, J.in_spec)
    return Geodesic(system, model_pass, expansion, H) if optimizer.geodesic else system


def _seen(optimizer, model_pass, expansion):
    """The pass that the curvature is taken from, and its expansion."""
    if optimizer.curvature_batch is None:
        return model_pass, expansion
    part = SubBatch(model_pass, expansion, optimizer.curvature_batch)
    seen = copy.copy(expansion)
    seen.leaves, seen.whole = part.leaves, expansion.free.map(part.jacobian)
    seen.jacobian = to_leaves(seen.whole)
    return part.model_pass, seen


def _choose(optimizer, J, kinds):
    residuals, weights = J.shape
    if optimizer.solver == "dual" and "general" in kinds:
        raise ConfigurationError(
            'GaussNewton: solver="dual" needs mse, a robust loss or a cross-entropy (with its '
            "softmax or sigmoid as the last activation, or from_logits=True). Use "
            'solver="cg" or solver="dense". Received: another loss.'
        )
    if optimizer.solver != "auto":
        return optimizer.solver
    if optimizer.curvature_batch is not None:
        return "cg"
    if weights <= DENSE_WEIGHTS:
        return "dense"
    few = residuals is not None and residuals * replicas.count() <= DUAL_RESIDUALS
    few = few and optimizer.micro_batch is None
    return "dual" if few and "general" not in kinds else "cg"
