"""How strongly a model's outputs react to each of its inputs."""

from keras_fwd.sensitivity.analysis import sensitivity_report
from keras_fwd.sensitivity.report import SensitivityReport

__all__ = ["SensitivityReport", "sensitivity_report"]
