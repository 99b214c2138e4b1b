"""Callbacks for `fit`."""

from keras_fwd.callbacks.curvature import CurvatureCallback
from keras_fwd.callbacks.jacobian_norm import JacobianNormCallback

__all__ = ["CurvatureCallback", "JacobianNormCallback"]
