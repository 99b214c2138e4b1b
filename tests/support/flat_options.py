"""`GaussNewton` from one flat table of options, for cases that run over all of its solvers."""

import dataclasses

import keras_fwd
from keras_fwd.optimizers import CG

#: What belongs to conjugate gradients.
NAMES = {field.name for field in dataclasses.fields(CG)}
#: Bounds alone do not ask for conjugate gradients: direct solvers get the same table.
BOUNDS = {"max_iterations", "tolerance"}


def gauss_newton(learning_rate=1.0, damping="auto", solver="auto", **options):
    """Options of conjugate gradients go into `CG`; a direct solver has none."""
    cg = {name: options.pop(name) for name in NAMES & set(options)}
    if solver == "cg" or (solver == "auto" and set(cg) - BOUNDS):
        solver = CG(**cg)
    return keras_fwd.GaussNewton(learning_rate, damping, solver=solver, **options)
