"""How strongly a model's outputs react to each of its inputs."""

from keras_fwd.sensitivity import measures
from keras_fwd.sensitivity._statistics.changes import Change
from keras_fwd.sensitivity._statistics.estimates import (
    Estimate,
    Evolution,
    Groups,
    InputShape,
    Interactions,
    Sample,
)
from keras_fwd.sensitivity.analysis import sensitivity_report
from keras_fwd.sensitivity.comparison import SensitivityComparison
from keras_fwd.sensitivity.report import SensitivityReport

__all__ = [
    "Change",
    "Estimate",
    "Evolution",
    "Groups",
    "InputShape",
    "Interactions",
    "Sample",
    "SensitivityComparison",
    "SensitivityReport",
    "measures",
    "sensitivity_report",
]
