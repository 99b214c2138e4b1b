"""What a sensitivity report is made of: estimates with their errors, and where they belong."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """One measure of every feature and output, with its error over the examples.

    All four are float64 arrays of one shape, `[features, outputs]` in a report; NaN where the
    measure is not defined, and in the errors where a single example leaves them open.

    Attributes:
        value: The measure over the examples used.
        stderr: Its standard error.
        low: Lower end of the confidence interval.
        high: Upper end.

    Example: `SensitivityReport`.
    """

    value: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Estimate":
        """The estimate with `function` of each of the four arrays."""
        return Estimate(*(function(getattr(self, f.name)) for f in dataclasses.fields(Estimate)))


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Measures of several features together.

    Attributes:
        names: One for each group.
        members: For each group the indices of its features.
        measures: `"standardized_rms"` and `"total_index_bound"`, each an `Estimate`
            `[groups, outputs]`.

    Example: `SensitivityReport`.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    measures: dict[str, Estimate]


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """How strongly pairs of features act together, the strongest first.

    Attributes:
        pairs: Indices of the two features of each pair, `[pairs, 2]`.
        measures: `"rms"`, √E[(∂²y/∂xᵢ∂xⱼ)²], and `"standardized_rms"`, that times the spreads of
            both features over that of the output; each an `Estimate` `[pairs, outputs]`.
        examples: How many examples they were computed from.

    Example: `SensitivityReport`.
    """

    pairs: np.ndarray
    measures: dict[str, Estimate]
    examples: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The derivatives of some examples, drawn uniformly from all: their distribution.

    Attributes:
        features: `[sample, features]`, float64; NaN for features that are no numbers.
        derivatives: `[sample, features, outputs]`, float64.

    Example: `SensitivityReport`.
    """

    features: np.ndarray
    derivatives: np.ndarray


@dataclasses.dataclass(frozen=True)
class InputShape:
    """Where the features of one input of the model stand.

    Attributes:
        name: Name of the input.
        shape: Its shape without the batch.
        start: Index of its first feature; the others follow in C order.

    Example: `SensitivityReport`.
    """

    name: str
    shape: tuple[int, ...]
    start: int


@dataclasses.dataclass(frozen=True, eq=False)
class Evolution:
    """How measures changed while a model was trained.

    Attributes:
        epochs: The epochs (from 1) at whose end they were taken, `[times]`; 0 is before training,
            and a fraction is a part of an epoch.
        examples: How many examples each was computed from, `[times]`.
        measures: `"mean"` and `"standardized_rms"`, each an `Estimate`
            `[times, features, outputs]`.

    Example: `SensitivityReport`.
    """

    epochs: np.ndarray
    examples: np.ndarray
    measures: dict[str, Estimate]
