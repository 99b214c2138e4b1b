"""Optimizers that use curvature and plug into stock `compile` and `fit`."""

from keras_fwd.optimizers._kronecker.block_report import BlockReport
from keras_fwd.optimizers._residuals.minimization import MinimizeResult
from keras_fwd.optimizers.cg import CG
from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.optimizers.gauss_newton import GaussNewton
from keras_fwd.optimizers.kfac import KFAC
from keras_fwd.optimizers.kfac_preconditioner import KFACPreconditioner
from keras_fwd.optimizers.step_report import StepReport, StepStatus

__all__ = [
    "CG",
    "KFAC",
    "BlockReport",
    "CurvatureOptimizer",
    "GaussNewton",
    "KFACPreconditioner",
    "MinimizeResult",
    "StepReport",
    "StepStatus",
]
