"""How one measure changed between two reports, with the error of the difference."""

import dataclasses
import math
import statistics

import numpy as np

from keras_fwd.sensitivity._statistics.estimates import Estimate

# How sure a difference is: p-values, and how many of many are false.

ROUNDING = 1e-6  # of the values: what float32 leaves of two equal numbers


def p_values(difference, stderr, scale):
    """Two-sided p-values of differences that are normal with mean 0 if nothing changed.

    p = erfc(abs(difference)/(stderr·√2)). A difference below a millionth of the values is rounding
    of float32, p = 1. One above it with an error of 0 has p = 0; one of unknown error has NaN.

    Args:
        difference: Any shape, float64.
        stderr: Standard errors of the differences.
        scale: Size of the values that were subtracted.

    Example:

    >>> p_values(np.array([1.96, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]), np.ones(3)).round(3)
    array([0.05, 1.  , 0.  ])
    """
    difference, stderr, scale = np.broadcast_arrays(difference, stderr, scale)
    known = np.isfinite(difference) & np.isfinite(stderr)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(difference) / stderr / math.sqrt(2.0)
    changed = np.abs(difference) > ROUNDING * scale
    p = np.vectorize(math.erfc, otypes=[float])(np.where(known & changed, ratio, 0.0))
    return np.where(known, p, np.nan)


def q_values(p):
    """Benjamini and Hochberg's adjusted p-values over all entries.

    Those with q below α hold, on average, at most a share α of differences that are none. NaN
    stays NaN and does not count.

    Args:
        p: p-values, any shape.

    References:
        Benjamini, Hochberg (1995), Controlling the false discovery rate, J. R. Stat. Soc. B 57.

    Example:

    >>> q_values(np.array([0.01, 0.04, 0.03, 0.005])).round(3)
    array([0.02, 0.04, 0.04, 0.02])
    """
    p = np.asarray(p, np.float64)
    known = np.isfinite(p)
    values = p[known]
    order = np.argsort(values)
    stepped = values[order] * len(values) / np.arange(1, len(values) + 1)
    q = np.full(p.shape, np.nan)
    adjusted = np.empty(len(values))
    # From the largest p down, so that q never falls while p grows.
    adjusted[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    q[known] = adjusted
    return q


def normal_quantile(confidence):
    """z with a share `confidence` of the normal distribution between −z and z.

    >>> round(normal_quantile(0.95), 4)
    1.96
    """
    return statistics.NormalDist().inv_cdf(0.5 + confidence / 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """How one measure changed: arrays `[features, outputs]`, float64, NaN where not defined.

    Attributes:
        before: The measure in the first report, an `Estimate`.
        after: In the second.
        difference: After less before.
        stderr: Standard error of the difference.
        low: Lower end of its confidence interval, normal.
        high: Upper end.
        p_value: Two-sided: how often chance alone makes a difference as large.
        q_value: p-value after Benjamini and Hochberg over all features and outputs.
        significant: Whether the q-value is below 1 − confidence.
        paired: Whether the error is that of differences on the same examples.

    Example: `SensitivityComparison`.
    """

    before: Estimate
    after: Estimate
    difference: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    significant: np.ndarray
    paired: bool


def change_of(reports, places, name, confidence):
    """The `Change` of one measure.

    Args:
        reports: The first and the second `SensitivityReport`.
        places: For each its (features, outputs) that are compared, as `numpy.ix_` gives them.
        name: The measure.
        confidence: Of the intervals; 1 − confidence bounds the false discoveries.
    """
    before, after = (
        report.measures[name].map(lambda array, place=place: np.asarray(array)[place])
        for report, place in zip(reports, places, strict=True)
    )
    resamples = _paired_replicates(reports, places, name)
    difference = after.value - before.value
    if resamples is None:
        # Other examples in each report: the variances add.
        stderr = np.hypot(before.stderr, after.stderr)
    else:
        stderr = np.std(resamples[1] - resamples[0], axis=0, ddof=1)
    reach = normal_quantile(confidence) * stderr
    scale = np.maximum(np.abs(before.value), np.abs(after.value))
    p = p_values(difference, stderr, scale)
    q = q_values(p)
    return Change(
        before=before,
        after=after,
        difference=difference,
        stderr=stderr,
        low=difference - reach,
        high=difference + reach,
        p_value=p,
        q_value=q,
        significant=q < 1 - confidence,
        paired=resamples is not None,
    )


def _paired_replicates(reports, places, name):
    """The measure in every resample of both, `[resamples, …]`; None if not the same examples."""
    keys = [getattr(report, "resampling_key", None) for report in reports]
    if keys[0] is None or keys[0] != keys[1]:
        return None
    replicates = [report.replicates(name) for report in reports]
    if any(array is None for array in replicates):
        return None
    if len(replicates[0]) != len(replicates[1]) or len(replicates[0]) < 2:
        return None
    return [
        np.asarray(array)[(slice(None), *place)]
        for array, place in zip(replicates, places, strict=True)
    ]


def columns(change, flat):
    """The arrays of a `Change` by name, each as `flat` makes it."""
    found = {
        "before": change.before.value,
        "before_stderr": change.before.stderr,
        "after": change.after.value,
        "after_stderr": change.after.stderr,
    }
    for name in ("difference", "stderr", "low", "high", "p_value", "q_value", "significant"):
        found[name] = getattr(change, name)
    return {name: flat(array) for name, array in found.items()}
