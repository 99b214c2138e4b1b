"""Optimizers that use curvature and plug into stock `compile` and `fit`."""

from keras_fwd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_fwd.optimizers.gauss_newton import GaussNewton
from keras_fwd.optimizers.kfac import KFAC

__all__ = ["KFAC", "CurvatureOptimizer", "GaussNewton"]
