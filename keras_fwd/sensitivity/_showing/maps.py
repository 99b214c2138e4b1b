"""Sensitivities where they stand in an input: maps of images, profiles of sequences."""

import math

import numpy as np

from keras_fwd.errors import ConfigurationError
from keras_fwd.sensitivity._statistics.estimates import Estimate

# How a measure of several channels together follows from theirs; the others do not.
ROOT = ("rms", "standardized_rms")
SUM = (
    "mean mean_abs standardized_mean standardized_mean_abs elasticity dgsm total_index_bound"
).split()


def check_measure(call, measure, choices):
    """Raise `ConfigurationError` unless `measure` is among `choices`."""
    if not isinstance(measure, str) or measure not in choices:
        raise ConfigurationError(
            f"{call}: `measure` must be one of {', '.join(choices)}. Received: {measure!r}."
        )


def maps(report, measure="standardized_rms"):
    """A measure in the shape of each input.

    Args:
        report: `SensitivityReport`.
        measure: Name of a measure.

    Returns:
        Dict from the name of each floating-point input that is in the report as a whole to an
        array, float64, of the input's shape with the outputs as a last axis.

    Raises:
        ConfigurationError: Unknown measure.
    """
    check_measure("SensitivityReport.maps", measure, report.measures)
    return {i.name: located(report, i, measure).value for i in report.inputs}


def profiles(report, measure="rms"):
    """A measure over the steps of each sequence, its channels taken together.

    Root mean squares are pooled over the channels as the root of the sum of squares: the norm of
    the derivative in all channels of a step. Means, DGSM and total indices are summed. The ends
    of the intervals are pooled alike, which makes them too wide rather than too narrow.

    Args:
        report: `SensitivityReport`.
        measure: Name of a measure; quantiles and `"positive"` only where there is one channel.

    Returns:
        Dict from the name of each input of shape `[T, C]` to `(value, low, high)`, each
        `[T, outputs]`, float64.

    Raises:
        ConfigurationError: Unknown measure, or one that has no value for channels together.
    """
    check_measure("SensitivityReport.profiles", measure, report.measures)
    found = {}
    for item in report.inputs:
        if len(item.shape) == 2:
            pooled = over_channels("SensitivityReport.profiles", report, item, measure)
            found[item.name] = (pooled.value, pooled.low, pooled.high)
    return found


def layout(shape):
    """How an input of this shape is drawn: "image", "sequence" or "table".

    Of two axes alone it is not known whether they are height and width or steps and channels:
    what is at most three times as long as wide, and at least six wide, is taken for an image.

    >>> [layout(shape) for shape in ((28, 28), (32, 32, 3), (48, 1), (100, 16), (7,), ())]
    ['image', 'image', 'sequence', 'sequence', 'table', 'table']
    """
    if len(shape) == 3 and min(shape[:2]) > 1:
        return "image"
    if len(shape) != 2 or shape[0] < 2:
        return "table"
    return "image" if min(shape) >= 6 and max(shape) <= 3 * min(shape) else "sequence"


def located(report, item, measure):
    """The `Estimate` of one input's features in its shape, `[*shape, outputs]`."""
    size = math.prod(item.shape)
    shape = (*item.shape, len(report.output_names))
    return report.measures[measure].map(
        lambda array: np.asarray(array)[item.start : item.start + size].reshape(shape)
    )


def over_channels(call, report, item, measure):
    """The `Estimate` of one input with its last axis, the channels, pooled: `[…, outputs]`."""
    estimate = located(report, item, measure)
    if item.shape[-1] == 1:
        return estimate.map(lambda array: array[..., 0, :])
    if measure in ROOT:
        value, stderr, low, high = vars(estimate).values()
        norm = np.sqrt(np.square(value).sum(axis=-2))
        return Estimate(
            norm,
            # ∂norm/∂value = value / norm; errors of neighboring channels go together, so they add
            # up.
            (value * stderr).sum(axis=-2) / np.where(norm > 0, norm, 1.0),
            *(np.sqrt(np.square(np.maximum(end, 0.0)).sum(axis=-2)) for end in (low, high)),
        )
    check_measure(f"{call} of the channels of {item.name!r} together", measure, (*ROOT, *SUM))
    return estimate.map(lambda array: array.sum(axis=-2))
