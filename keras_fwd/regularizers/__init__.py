"""Penalties on the derivatives of a model by its inputs, for `keras_fwd.regularize`."""

from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch, LossBatch
from keras_fwd.regularizers.contractive import Contractive
from keras_fwd.regularizers.curvature import Curvature
from keras_fwd.regularizers.directional import Directional
from keras_fwd.regularizers.gradient_penalty import GradientPenalty
from keras_fwd.regularizers.input_gradient import InputGradient
from keras_fwd.regularizers.jacobian_norm import JacobianNorm
from keras_fwd.regularizers.local_linearity import LocalLinearity
from keras_fwd.regularizers.monotonic import Monotonic
from keras_fwd.regularizers.spectral import Lipschitz, SpectralJacobian

__all__ = [
    "Batch",
    "Contractive",
    "Curvature",
    "Directional",
    "GradientPenalty",
    "InputGradient",
    "JacobianNorm",
    "Lipschitz",
    "LocalLinearity",
    "LossBatch",
    "Monotonic",
    "SensitivityRegularizer",
    "SpectralJacobian",
]
