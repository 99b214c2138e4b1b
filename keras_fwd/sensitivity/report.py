"""`SensitivityReport`: what a report holds and what can be made of it."""

import dataclasses

import numpy as np

from keras_fwd.sensitivity.estimates import (
    Estimate,
    Evolution,
    Groups,
    InputShape,
    Interactions,
    Sample,
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SensitivityReport:
    """Statistics of ∂output/∂feature over a data set."""

    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    kinds: tuple[str, ...]
    feature_mean: np.ndarray
    feature_std: np.ndarray
    output_std: np.ndarray
    examples: int
    left_out: int
    notes: tuple[str, ...]
    confidence: float
    measures: dict[str, Estimate]
    pooled: dict[str, Estimate]
    groups: Groups | None = None
    interactions: Interactions | None = None
    sample: Sample
    inputs: tuple[InputShape, ...]
    slices: "dict[str, SensitivityReport]"
    evolution: Evolution | None = None
    about: dict[str, str]
