"""What "sensitivity" means here: statistics of ∂y/∂x over a data set, defined once.

With d = ∂y/∂x at one example, for one feature x and one output y, over n examples:

| measure | formula | reads as |
|---|---|---|
| mean | Σ d / n | the average effect; effects of opposite sign cancel |
| mean_abs | Σ abs(d) / n | the average strength, whatever the sign |
| rms | √(Σ d² / n) | the strength, with large effects counting more |

Their unit is that of y per unit of x. The *standardized* ones are multiplied by the standard
deviation of x over the same examples: the unit is that of y, per standard deviation of x, and
features of different units can be compared.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """The three measures and their standard errors, each `[features, outputs]`, float64.

    The standard errors say how far a figure may lie from that of infinitely many examples drawn
    alike: σ(d)/√n for the mean, σ(abs(d))/√n for the mean absolute, and, by the delta method,
    σ(d²)/√n / (2·rms) for the root mean square, with σ the sample standard deviation. They are
    NaN for a single example.

    Attributes:
        mean: Mean of ∂y/∂x.
        mean_abs: Mean of its absolute value.
        rms: Root of the mean of its square.
        mean_stderr: Standard error of `mean`.
        mean_abs_stderr: Standard error of `mean_abs`.
        rms_stderr: Standard error of `rms`.
    """

    mean: np.ndarray
    mean_abs: np.ndarray
    rms: np.ndarray
    mean_stderr: np.ndarray
    mean_abs_stderr: np.ndarray
    rms_stderr: np.ndarray

    def scaled(self, factor):
        """The measures of `factor · ∂y/∂x`, for a factor ≥ 0 that is taken as known exactly."""
        names = [field.name for field in dataclasses.fields(Measures)]
        return Measures(**{name: factor * getattr(self, name) for name in names})


class Moments:
    """Mean and variance of arrays that arrive in batches, in float64.

    Each batch is centered and merged (Chan, Golub and LeVeque's pairwise update), all relative to
    the first value seen: a constant has a variance of exactly 0, and a large mean does not eat
    the digits of a small spread.

    Example:

    >>> moments = Moments()
    >>> moments.update(np.array([[1.0], [2.0]]))
    >>> moments.update(np.array([[6.0]]))
    >>> moments.mean, moments.variance, moments.stderr.round(4)
    (array([3.]), array([4.66666667]), array([1.5275]))
    """

    def __init__(self):
        self.count = 0
        self._origin = self._mean = self._scatter = np.zeros(())

    def update(self, values):
        """Take in a batch, `[examples, …]`, which may be empty."""
        if not len(values):
            return
        if not self.count:
            self._origin = np.array(values[0], np.float64)
        values = values - self._origin
        mean = values.mean(axis=0)
        total = self.count + len(values)
        shift = mean - self._mean
        self._scatter = self._scatter + np.square(values - mean).sum(axis=0)
        self._scatter = self._scatter + shift**2 * (self.count * len(values) / total)
        self._mean = self._mean + shift * (len(values) / total)
        self.count = total

    @property
    def mean(self):
        """Mean over all examples."""
        return self._origin + self._mean

    @property
    def variance(self):
        """Mean squared distance from the mean (divided by n, as `np.var` does)."""
        return self._scatter / self.count

    @property
    def stderr(self):
        """Standard error of the mean, √(scatter / (n (n − 1))); NaN for one example."""
        if self.count < 2:
            return np.full_like(self._scatter, np.nan)
        return np.sqrt(self._scatter / (self.count * (self.count - 1)))


class Accumulator:
    """Measures of derivatives that arrive batch by batch; the memory does not grow with the data.

    Attributes:
        examples: How many were taken in.
        left_out: How many were not, because an input or a derivative was not finite.
    """

    def __init__(self):
        self.left_out = 0
        self._signed, self._absolute, self._squared = Moments(), Moments(), Moments()
        self._features = Moments()

    @property
    def examples(self):
        """How many examples were taken in."""
        return self._signed.count

    def update(self, features, derivatives):
        """Take in a batch.

        Args:
            features: `[examples, features]`.
            derivatives: ∂y/∂x, `[examples, features, outputs]`.
        """
        features = np.asarray(features, np.float64)
        derivatives = np.asarray(derivatives, np.float64)
        finite = np.isfinite(features).all(axis=1) & np.isfinite(derivatives).all(axis=(1, 2))
        self.left_out += int((~finite).sum())
        features, derivatives = features[finite], derivatives[finite]
        self._features.update(features)
        self._signed.update(derivatives)
        self._absolute.update(np.abs(derivatives))
        self._squared.update(np.square(derivatives))

    @property
    def feature_std(self):
        """Standard deviation of each feature (divided by n), `[features]`."""
        return np.sqrt(self._features.variance)

    def measures(self):
        """The `Measures` so far."""
        rms = np.sqrt(self._squared.mean)
        spread = self._squared.stderr
        return Measures(
            mean=self._signed.mean,
            mean_abs=self._absolute.mean,
            rms=rms,
            mean_stderr=self._signed.stderr,
            mean_abs_stderr=self._absolute.stderr,
            rms_stderr=np.divide(spread, 2 * rms, out=0 * spread, where=rms > 0),
        )
