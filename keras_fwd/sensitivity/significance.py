"""How sure a difference is: p-values, and how many of many are false."""

import math
import statistics

import numpy as np

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
    adjusted[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    q[known] = adjusted
    return q


def normal_quantile(confidence):
    """z with a share `confidence` of the normal distribution between −z and z.

    >>> round(normal_quantile(0.95), 4)
    1.96
    """
    return statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
