"""Keras layers with derivatives of their own, and layers that return derivatives."""

from keras_fwd.layers.custom_jvp import CustomJVP
from keras_fwd.layers.input_gradient import InputGradientLayer
from keras_fwd.layers.jacobian_layer import JacobianLayer
from keras_fwd.layers.laplacian import Laplacian
from keras_fwd.layers.linearized import Linearized
from keras_fwd.layers.sealed import Sealed
from keras_fwd.layers.sensitivity_penalty import SensitivityPenalty

__all__ = [
    "CustomJVP",
    "InputGradientLayer",
    "JacobianLayer",
    "Laplacian",
    "Linearized",
    "Sealed",
    "SensitivityPenalty",
]
