"""Forward-mode derivatives for Keras 3 on TensorFlow, and what they make possible."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_fwd needs the TensorFlow backend of Keras. Received: backend "
        f'"{keras.backend.backend()}". Set the environment variable KERAS_BACKEND=tensorflow '
        'before Keras is imported, or "backend": "tensorflow" in ~/.keras/keras.json.'
    )

from keras_fwd import (
    _moved,
    callbacks,
    errors,
    layers,
    losses,
    optimizers,
    regularizers,
    sensitivity,
    spectrum,
    testing,
    typing,
)
from keras_fwd._curvature.fisher_information import fisher
from keras_fwd._curvature.gauss_newton import gauss_newton
from keras_fwd._derivatives.custom_jvp import custom_jvp
from keras_fwd._derivatives.double_gradient import jvp, linearize, vjp
from keras_fwd._derivatives.fwd_gradients import fwd_gradients
from keras_fwd._derivatives.hessian import hessian
from keras_fwd._derivatives.jacobians import jacobian
from keras_fwd._derivatives.jvp_from_vjp import jvp_from_vjp
from keras_fwd._derivatives.taylor import directional_derivatives, laplacian
from keras_fwd._leaks.find import find_leaks
from keras_fwd._leaks.report import Leak, LeakReport
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.callbacks.curvature import CurvatureCallback
from keras_fwd.callbacks.jacobian_norm import JacobianNormCallback
from keras_fwd.callbacks.sensitivity import SensitivityCallback
from keras_fwd.errors import (
    ConfigurationError,
    KerasFwdError,
    LeakError,
    NumericalError,
    StructureError,
)
from keras_fwd.layers.regularize import regularize
from keras_fwd.layers.seal import seal_leaks
from keras_fwd.optimizers.gauss_newton import GaussNewton
from keras_fwd.optimizers.kfac import KFAC
from keras_fwd.sensitivity.analysis import sensitivity_report
from keras_fwd.sensitivity.report import SensitivityReport

__version__ = "0.1.0"

__all__ = [
    "KFAC",
    "ConfigurationError",
    "CurvatureCallback",
    "GaussNewton",
    "JacobianNormCallback",
    "KerasFwdError",
    "Leak",
    "LeakError",
    "LeakReport",
    "LinearMap",
    "NumericalError",
    "SensitivityCallback",
    "SensitivityReport",
    "StructureError",
    "callbacks",
    "custom_jvp",
    "directional_derivatives",
    "errors",
    "find_leaks",
    "fisher",
    "fwd_gradients",
    "gauss_newton",
    "hessian",
    "jacobian",
    "jvp",
    "jvp_from_vjp",
    "laplacian",
    "layers",
    "linearize",
    "losses",
    "optimizers",
    "regularize",
    "regularizers",
    "seal_leaks",
    "sensitivity",
    "sensitivity_report",
    "spectrum",
    "testing",
    "typing",
    "vjp",
]

_moved.register()
del keras


def __dir__() -> list[str]:
    """The public names, and the folders of the machinery: none of the files beside them."""
    folders = {name for name, value in globals().items() if hasattr(value, "__path__")}
    return sorted({*__all__, *folders, *(name for name in globals() if name.startswith("__"))})
