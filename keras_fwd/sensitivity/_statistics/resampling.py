"""Errors and confidence intervals of functions of sums, by a bootstrap over groups of examples.

Examples are resampled in random groups (of one each, if there are few): the sums of a resample are
weighted sums over the groups, so that no example need be kept. Intervals are bias-corrected and
accelerated (BCa), with the acceleration from a jackknife over the same groups: second-order
accurate also where the sampling distribution is skewed, as that of squared derivatives is.

References:
    Efron, Better bootstrap confidence intervals, JASA 82 (1987); Efron and Tibshirani, An
    Introduction to the Bootstrap (1993), chapter 14. For shares: Wilson, JASA 22 (1927). For
    quantiles: David and Nagaraja, Order Statistics (2003), section 7.1.
"""

import math
import statistics

import numpy as np
import tensorflow as tf

from keras_fwd.sensitivity._statistics.estimates import Estimate

#: Resamples of few features; of more than 50 000 numbers fewer, but never below 200.
RESAMPLES, MIN_RESAMPLES, _NUMBERS = 1000, 200, 5e7
_BYTES = 2**25  # of the resampled values of one measure at a time


class Bootstrap:
    """Weights of resamples over groups, the same for all measures of a report.

    Args:
        groups: How many groups there are.
        seed: Of the draws.
        confidence: Of the intervals.
        resamples: How many; 0 leaves the errors to the jackknife alone, which is rougher and much
            cheaper, with intervals of the normal distribution.
    """

    def __init__(self, groups, seed, confidence, resamples):
        self.groups = groups
        self._seed = seed
        random = np.random.default_rng([seed, 3])
        draws = random.integers(groups, size=(resamples, groups))
        # A range of bins for each resample: one `bincount` counts them all.
        draws += groups * np.arange(resamples)[:, None]
        counts = np.bincount(draws.reshape(-1), minlength=resamples * groups)
        self.weights = counts.reshape(resamples, groups).astype(np.float64)
        self._tail = normal_quantile((1 + confidence) / 2)

    def three(self, sums):
        """The sums of all examples, of each resample, and of all but one group, `[n, …]` each."""
        total = {name: array.sum(axis=0, keepdims=True) for name, array in sums.items()}
        resampled = {name: _weighted(self.weights, array) for name, array in sums.items()}
        return total, resampled, {name: total[name] - array for name, array in sums.items()}

    def noisy(self, values, errors):
        """Numbers from elsewhere, known with relative errors, for the three sets of sums.

        Log-normal in the resamples. Without these, the jackknife's variance sees them: signs of
        each group, of a size that gives the error.

        Returns:
            `(values, of the resamples, of all but one group)`.
        """
        random, count = np.random.default_rng([self._seed, 5]), len(values)
        resamples = len(self.weights)
        if resamples or self.groups < 2:
            noise = random.normal(size=(resamples, count))
            return values, values * np.exp(errors * noise), values
        signs = np.where(np.arange(self.groups) % 2, 1.0, -1.0)[:, None] * np.ones(count)
        signs = random.permuted(signs, axis=0) / np.sqrt(self.groups - 1)
        return values, np.zeros((0, count)), values * np.exp(errors * signs)

    def estimates(self, three):
        """The `Estimate`s of measures from their values for the three sets of sums.

        Args:
            three: Dicts of arrays `[n, …]` by name: of all examples, of each resample, and of all
                but one group.

        Returns:
            Dict of `Estimate`s `[…]`.
        """
        shapes = [value.shape[1:] for value in three[0].values()]
        sizes = [math.prod(shape) for shape in shapes]
        ends = np.cumsum(sizes)
        value, replicates, left_out = (_side_by_side(list(v.values()), sizes, ends) for v in three)
        estimate = self._estimate(value[:, 0], replicates, left_out)
        return {
            name: estimate.map(lambda a, e=end, n=size, s=shape: a[e - n : e].reshape(s))
            for name, end, size, shape in zip(three[0], ends, sizes, shapes, strict=True)
        }

    def _estimate(self, value, replicates, left_out):
        """The `Estimate` of numbers.

        Args:
            value: `[numbers]`.
            replicates: `[numbers, resamples]`; they are sorted in place.
            left_out: `[numbers, groups]`.
        """
        if not replicates.shape[-1]:
            return self._by_jackknife(value, left_out)
        replicates.sort(axis=-1)  # NaN last
        bias = normal_quantile(np.mean(replicates < value[:, None], axis=-1))
        shift = np.mean(left_out, axis=-1, keepdims=True) - left_out
        square = np.square(shift)
        spread, third = np.sum(square, axis=-1), np.sum(square * shift, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            skew = np.where(spread > 0, third / (6 * spread**1.5), 0.0)
        ends, last = [], replicates.shape[-1] - 1
        for sign in (-1, 1):
            # BCa: the end is the quantile Φ(z₀ + (z₀ + z) / (1 − a (z₀ + z))) of the resamples.
            moved = bias + sign * self._tail
            place = normal_share(bias + moved / (1 - skew * moved)) * (last + 1) - 0.5
            ends.append(_at(replicates, np.nan_to_num(np.clip(place, 0, last))))
        stderr = np.std(replicates, axis=-1, ddof=1)
        open_ = np.isnan(value) | np.isnan(stderr)
        low, high = (np.where(open_, np.nan, end) for end in ends)
        # An interval holds its value, also where all resamples lie on one side of it.
        return Estimate(value, stderr, np.minimum(low, value), np.maximum(high, value))

    def _by_jackknife(self, value, left_out):
        shift = np.mean(left_out, axis=-1, keepdims=True) - left_out
        stderr = np.sqrt(np.sum(shift**2, axis=-1) * (self.groups - 1) / self.groups)
        return Estimate(value, stderr, value - self._tail * stderr, value + self._tail * stderr)


def _side_by_side(arrays, sizes, ends):
    """Arrays `[n, …]` as one of `[all numbers, n]`: along the last axis, sorting is fast."""
    count = len(arrays[0])
    beside = np.empty((ends[-1], count))
    for array, size, end in zip(arrays, sizes, ends, strict=True):
        beside[end - size : end] = array.reshape(count, size).T
    return beside


def share_estimate(positive, count, confidence):
    """The share of examples, with Wilson's interval."""
    z = normal_quantile((1 + confidence) / 2)
    p = positive / count
    center = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    return Estimate(p, half / z, np.maximum(center - half, 0.0), np.minimum(center + half, 1.0))


def quantile_estimate(ordered, level, confidence):
    """A quantile with the interval between two order statistics, free of any distribution.

    Args:
        ordered: A sample, sorted along the last axis.
        level: Of the quantile, between 0 and 1.
        confidence: Of the interval.
    """
    z = normal_quantile((1 + confidence) / 2)
    count = ordered.shape[-1]
    half = z * np.sqrt(count * level * (1 - level))
    center = level * (count - 1)
    low, high = (_at(ordered, np.clip(center + side * half, 0, count - 1)) for side in (-1, 1))
    return Estimate(_at(ordered, center), (high - low) / (2 * z), low, high)


def normal_quantile(share):
    """Φ⁻¹, of a number or an array; kept within ±6."""
    if np.ndim(share) == 0:
        return statistics.NormalDist().inv_cdf(float(share))
    return tf.math.ndtri(np.clip(share, 1e-9, 1 - 1e-9)).numpy()


def normal_share(value):
    """Φ of an array."""
    return 0.5 * (1 + tf.math.erf(np.asarray(value) / np.sqrt(2.0)).numpy())


def resample_count(rows, outputs):
    """How many resamples a report of that size has."""
    return int(np.clip(_NUMBERS // (rows * outputs), MIN_RESAMPLES, RESAMPLES))


def chunks(rows, outputs, resamples):
    """Slices of rows, few enough that one measure of all resamples fits into memory."""
    step = max(1, _BYTES // (8 * outputs * max(1, resamples)))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _at(ordered, place):
    """Values at fractional places along the last axis: one place, or one for each other entry."""
    place = np.broadcast_to(place, ordered.shape[:-1])
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, ordered.shape[-1] - 1)
    low, high = (np.take_along_axis(ordered, i[..., None], axis=-1)[..., 0] for i in (below, above))
    # Equal infinities have no difference.
    return np.where(low == high, low, low + (place - below) * (high - low))


def _weighted(weights, array):
    flat = weights @ array.reshape(len(array), -1)
    return flat.reshape(len(weights), *array.shape[1:])
