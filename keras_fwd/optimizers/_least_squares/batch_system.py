"""The damped system of one batch for `GaussNewton`: which solver, and what it is made of."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from keras_fwd._curvature import loss_hessian, weight_penalties
from keras_fwd.optimizers._least_squares.dense_system import dense_system, dual_system, loss_kinds
from keras_fwd.optimizers._least_squares.directions import (
    Geodesic,
    Straight,
    check_geodesic,
    of_matrix,
    of_products,
)
from keras_fwd.optimizers._least_squares.iterative_system import Seen, iterative_system
from keras_fwd.optimizers._least_squares.options import SolverOptions
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Direction, Pass, System, Trial, Values
from keras_fwd.optimizers._steps.precision import widened
from keras_fwd.optimizers._steps.sub_batch import SubBatch
from keras_fwd.optimizers._steps.trust_region import Region


class Setting(NamedTuple):
    """What a step knows beside its batch.

    Attributes:
        rate: The learning rate, a float32 scalar.
        damping: Of the step before, a scalar.
        region: The `Region` that the steps are kept in, or None.
        last: The last step for a warm start, or None.
        number: Of the step, an int32 scalar: the seed of what is drawn at random.
    """

    rate: tf.Tensor
    damping: tf.Tensor
    region: Region | None
    last: Values | None
    number: tf.Tensor


def batch_system(
    options: SolverOptions,
    model_pass: Pass,
    expansion: Expansion,
    trial: Trial,
    setting: Setting,
) -> tuple[System, Direction]:
    """The system for the direction, by the solver that fits, and what makes steps of its solutions.

    Args:
        options: Which solver, and how.
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        trial: Where steps are tried.
        setting: What the step knows beside its batch.
    """
    variables = model_pass.variables
    kinds = loss_kinds(model_pass, expansion.leaves)
    seen, narrow = _seen(options, model_pass, expansion)
    wide = widened(narrow, model_pass.loss_scale)
    H = loss_hessian.loss_hessian(seen.loss_of_leaves, wide.leaves)
    ridge = weight_penalties.diagonal(variables, expansion.values)
    J = wide.jacobian
    # The penalties are those of the whole batch: each replica has its share of them.
    curvature = weight_penalties.added_to(J.T @ H @ J, variables, 1 / replicas.count())
    solver = options.chosen(J, kinds)
    if options.geodesic:
        check_geodesic(kinds, solver, expansion.leaves, options.micro_batch)
    if solver == "cg":
        straight = Straight(expansion, setting.rate, of_products(expansion, curvature))
        found = Seen(seen, narrow.leaves, wide, H, ridge, curvature)
        args = options, model_pass, expansion, found, trial, straight
        return iterative_system(*args, setting.damping, setting.last, setting.number), straight
    if solver == "dual":
        system = dual_system(model_pass, wide, kinds, H, ridge)
    else:
        region = setting.region
        scale = () if region is None else region.scale
        system = dense_system(model_pass, wide, kinds, H, ridge, setting.damping, scale)
        if region is not None:
            region.start(expansion.values, expansion.finite)
    predicted = of_matrix(expansion, system)
    if options.geodesic:
        along = model_pass, system, H
        return system, Geodesic(expansion, setting.rate, predicted, J.in_spec, *along)
    return system, Straight(expansion, setting.rate, predicted, J.in_spec)


def _seen(options, model_pass, expansion):
    """The pass that the curvature is taken from, and its expansion."""
    if options.cg.curvature_batch is None:
        return model_pass, expansion
    part = SubBatch(model_pass, expansion, options.cg.curvature_batch)
    whole = expansion.free.map(part.jacobian)
    return part.model_pass, dataclasses.replace(expansion, leaves=part.leaves, whole=whole)
