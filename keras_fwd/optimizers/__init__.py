"""Optimizers that use curvature and plug into stock `compile` and `fit`."""

from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.optimizers.gauss_newton import GaussNewton
from keras_fwd.optimizers.kfac import KFAC
from keras_fwd.optimizers.kfac_preconditioner import KFACPreconditioner

__all__ = ["KFAC", "CurvatureOptimizer", "GaussNewton", "KFACPreconditioner"]
