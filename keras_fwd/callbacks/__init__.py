"""Callbacks for `fit`."""

from keras_fwd.callbacks.curvature import CurvatureCallback
from keras_fwd.callbacks.jacobian_norm import JacobianNormCallback
from keras_fwd.callbacks.least_squares_stop import LeastSquaresStop

__all__ = ["CurvatureCallback", "JacobianNormCallback", "LeastSquaresStop"]
