"""How one measure changed between two reports, with the error of the difference."""

import dataclasses

import numpy as np

from keras_fwd.sensitivity import significance
from keras_fwd.sensitivity._statistics.estimates import Estimate


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
        stderr = np.hypot(before.stderr, after.stderr)
    else:
        stderr = np.std(resamples[1] - resamples[0], axis=0, ddof=1)
    reach = significance.normal_quantile(confidence) * stderr
    scale = np.maximum(np.abs(before.value), np.abs(after.value))
    p = significance.p_values(difference, stderr, scale)
    q = significance.q_values(p)
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
