"""Callbacks for `fit`."""

from keras_fwd.callbacks.curvature import CurvatureCallback
from keras_fwd.callbacks.jacobian_norm import JacobianNormCallback
from keras_fwd.callbacks.least_squares_stop import LeastSquaresStop
from keras_fwd.callbacks.sensitivity import SensitivityCallback

__all__ = ["CurvatureCallback", "JacobianNormCallback", "LeastSquaresStop", "SensitivityCallback"]
