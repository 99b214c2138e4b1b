"""What conjugate gradients solve for the direction of a batch, and how: by the options of `CG`."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_fwd._curvature import loss_hessian
from keras_fwd._linear_algebra import conjugate_gradients
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.optimizers._least_squares.directions import Straight
from keras_fwd.optimizers._least_squares.options import SolverOptions
from keras_fwd.optimizers._least_squares.preconditioners import (
    BatchPreconditioner,
    DiagonalPreconditioner,
)
from keras_fwd.optimizers._least_squares.replicated_cg import KrylovSystem
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Pass, System, Trial, Values


class Seen(NamedTuple):
    """What the curvature of a batch is taken from, and what it is made of.

    Attributes:
        model_pass: The pass: of the batch, or of a part of it.
        leaves: Its curvature leaves.
        wide: Its expansion in single precision.
        hessian: The loss's Hessian in the leaves of that.
        ridge: Curvature of the weights' regularizers, a list like the weights.
        curvature: The `LinearMap` `C`, undamped; in several replicas, their sum is.
    """

    model_pass: Pass
    leaves: list[tf.Tensor]
    wide: Expansion
    hessian: LinearMap
    ridge: Values
    curvature: LinearMap


def iterative_system(
    options: SolverOptions,
    model_pass: Pass,
    expansion: Expansion,
    seen: Seen,
    trial: Trial,
    straight: Straight,
    damping: tf.Tensor,
    last: Values | None,
    number: tf.Tensor,
) -> System:
    """The system of a batch for conjugate gradients.

    Args:
        options: Of the solver.
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        seen: What the curvature is taken from.
        trial: Where steps are tried.
        straight: What makes steps of solutions.
        damping: About what the system will be solved with.
        last: The last step, like the weights, or None.
        number: Of the step.
    """
    if replicas.count() > 1:
        cg = options.of_replicas()
        system = seen.curvature, expansion.gradient
        return KrylovSystem(*system, tf.identity(damping), cg.tolerance, cg.max_iterations)
    cg = options.cg
    limits = cg.tolerance, cg.max_iterations
    more: dict[str, Any] = {"progress_tolerance": cg.progress_tolerance}
    if cg.backtracking:
        more["objective"] = lambda direction: trial.loss(trial.moved(straight.along(direction)))
    near = _preconditioner(cg.preconditioner, model_pass, expansion, seen, number)
    of_outputs = model_pass.loss_is_of_outputs and seen.model_pass is model_pass
    if near is None and last is None and of_outputs:  # the last step is not in the range of Jᵀ
        cotangent = loss_hessian.loss_gradient(model_pass.loss_of_leaves, seen.wide.leaves)
        system = seen.wide.jacobian, seen.hessian, cotangent
        return conjugate_gradients.RangeSpaceConjugateGradient(*system, *limits, **more)
    system = seen.curvature, expansion.gradient
    return conjugate_gradients.ConjugateGradient(*system, *limits, near, x0=last, **more)


def _preconditioner(kind, model_pass, expansion, seen, number):
    if kind is None:
        return None
    kfac = kind == "kfac"  # of the whole batch, whose forward pass it reads
    used, leaves = seen.model_pass, seen.leaves
    if kfac:
        used, leaves = model_pass, expansion.leaves
    narrow = seen.hessian  # in the dtype of the forward pass
    if seen.wide.leaves is not leaves:
        narrow = loss_hessian.loss_hessian(used.loss_of_leaves, leaves)
    if kfac:
        return BatchPreconditioner(used, expansion, narrow, seen.ridge, number)
    J = seen.wide.jacobian
    products = J.T @ seen.hessian @ J
    return DiagonalPreconditioner(used, leaves, narrow, J, products, seen.ridge, number)
