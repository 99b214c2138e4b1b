"""How strongly a model's outputs react to each of its inputs."""

from keras_fwd.sensitivity.report import SensitivityReport, sensitivity_report

__all__ = ["SensitivityReport", "sensitivity_report"]
