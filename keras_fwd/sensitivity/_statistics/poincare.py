"""Poincaré constants: what turns a derivative-based measure into a bound on a Sobol index.

The constant C of a distribution is the least number with Var f(X) ≤ C · E[f'(X)²] for every smooth
f. A normal distribution has C = σ², a uniform one (b − a)² / π².

For a distribution known by examples only, the density ρ is estimated by a Gaussian kernel
(Silverman's width) on the range of the examples, reflected at both ends. With q = ρ f' the best f
solves −(q'/ρ)' = q / (C ρ), q = 0 at both ends: in linear finite elements `K q = M q / C`. The
largest eigenvalue of `K⁻¹ M` is found by power iteration; `K⁻¹` takes two sums.

References:
    Roustant, Barthe and Iooss, Poincaré inequalities on intervals - application to sensitivity
    analysis, Electronic Journal of Statistics 11 (2017).
"""

import numpy as np

from keras_fwd.errors import ConfigurationError

_BINS = 100  # of the density; the elements are then exact to 0.1 %
_ITERATIONS, _TOLERANCE = 100, 1e-9
_PRIOR = 0.05  # examples in each bin before any is seen: no gap between outliers is empty
FORMS = '"empirical", "uniform", "normal", ("uniform", low, high) or ("normal", std)'


def empirical_constants(sample):
    """The Poincaré constants of distributions known by examples.

    Args:
        sample: `[examples, features]`, finite.

    Returns:
        `(constants, errors)`, `[features]` each: 0 for a constant feature; and the relative
        standard errors that come of the examples, to first order.

    Cost: A histogram of 100 bins of each feature, and a few iterations over these.

    Example:

    >>> x = np.linspace(0.0, 1.0, 2001)[:, None]
    >>> (empirical_constants(x)[0] * np.pi**2).round(2)
    array([1.])
    """
    counts, bandwidth, widths = _histogram(sample)
    density = _smooth(counts, bandwidth)
    density = (np.maximum(density, 0.0) * len(sample) + _PRIOR) / (len(sample) + _PRIOR * _BINS)
    weight = widths**2 / density
    # The start is the solution for a uniform density.
    q = np.sin(np.pi * np.arange(1, _BINS) / _BINS)[:, None] * np.ones(sample.shape[1])
    largest = np.zeros(sample.shape[1])
    for _ in range(_ITERATIONS):
        mass = _mass(weight, q)
        image = _solve(density, mass)
        # Rayleigh's quotient: its error is the square of that of q.
        before, below = largest, np.sum(q * mass, axis=0)
        largest = np.divide(
            np.sum(image * mass, axis=0), below, out=np.zeros_like(below), where=below > 0
        )
        if np.all(np.abs(largest - before) <= _TOLERANCE * largest):
            break
        norm = np.max(np.abs(image), axis=0)
        q = np.where(norm > 0, image / np.where(norm > 0, norm, 1.0), 1.0)
    influence = _smooth(_influence(density, widths, q, largest), bandwidth)
    mean = np.sum(counts * influence, axis=0)
    variance = np.sum(counts * np.square(influence - mean), axis=0)
    return largest, np.sqrt(variance / len(sample))


def _influence(density, widths, q, constant):
    """What a little more probability in a bin does to log C: that of λ = 1 / C, reversed.

    With ∫ f'² ρ = λ ∫ f² ρ for the best f, λ changes by ∫ (f'² − λ f²) δρ / ∫ f² ρ.
    """
    padded = np.concatenate([np.zeros_like(q[:1]), q, np.zeros_like(q[:1])])
    slope = (padded[1:] + padded[:-1]) / 2 * widths / density
    value = -constant * np.diff(padded, axis=0) / density
    below = np.sum(density * np.square(value), axis=0)
    below = np.where(below > 0, below, np.inf)
    return (np.square(value) - constant * np.square(slope)) / below


def _histogram(sample):
    """The shares in equal bins over the range, the kernel's width in ranges, and a bin's width."""
    count, features = sample.shape
    low, high = sample.min(axis=0), sample.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    places = np.clip(((sample - low) / width * _BINS).astype(int), 0, _BINS - 1)
    counts = np.zeros((_BINS, features))
    np.add.at(counts, (places, np.arange(features)[None]), 1.0 / count)
    middle = np.subtract(*np.quantile(sample, [0.75, 0.25], axis=0)) / 1.349
    spread = np.where(middle > 0, np.minimum(sample.std(axis=0), middle), sample.std(axis=0))
    bandwidth = 0.9 * spread * count**-0.2 / width
    return counts, bandwidth, np.where(high > low, high - low, 0.0) / _BINS


def _smooth(values, bandwidth):
    """Values in bins under the kernel: reflected at the ends, it damps cosine waves."""
    k = np.arange(_BINS)[:, None]
    waves = np.cos(np.pi * k * (np.arange(_BINS) + 0.5) / _BINS)  # [wave, bin]
    waves *= np.where(k == 0, np.sqrt(1 / _BINS), np.sqrt(2 / _BINS))
    return waves.T @ (np.exp(-0.5 * np.square(np.pi * k * bandwidth)) * (waves @ values))


def _mass(weight, q):
    """M q, for the bins' weights (width² over probability), `[bins, features]`."""
    padded = np.concatenate([np.zeros_like(q[:1]), q, np.zeros_like(q[:1])])
    left = weight[:-1] * (padded[:-2] + 2 * q) / 6
    right = weight[1:] * (2 * q + padded[2:]) / 6
    return left + right


def _solve(density, b):
    """K⁻¹ b: the slope over the density falls by b at each node, and q ends in 0."""
    fallen = np.concatenate([np.zeros_like(b[:1]), np.cumsum(b, axis=0)])
    start = np.sum(density * fallen, axis=0) / np.sum(density, axis=0)
    return np.cumsum(density * (start - fallen), axis=0)[:-1]


def constants(marginals, names, sample, low, high, std, count):
    """The Poincaré constant of each feature, and its relative standard error.

    Args:
        marginals: One of `FORMS` for all features, or a dict of them by names, `"empirical"` for
            the others.
        names: Of the features.
        sample: Examples, `[examples, features]`.
        low: Smallest value of each feature.
        high: Largest value.
        std: Standard deviation.
        count: How many examples these three come from.

    Returns:
        `(constants, errors)`, `[features]` each.

    Raises:
        ConfigurationError: `marginals` has no meaning.
    """
    values, errors = np.full(len(names), np.nan), np.zeros(len(names))
    if any(_form(marginals, name) == "empirical" for name in names):
        values, errors = empirical_constants(sample)
    for i, name in enumerate(names):
        form = _form(marginals, name)
        if form == "uniform":  # the range of n examples is off by √2 / n of itself
            values[i], errors[i] = (high[i] - low[i]) ** 2 / np.pi**2, 2 * np.sqrt(2) / count
        elif form == "normal":
            values[i], errors[i] = std[i] ** 2, np.sqrt(2 / count)
        elif form[0] == "uniform":
            values[i], errors[i] = (form[2] - form[1]) ** 2 / np.pi**2, 0.0
        elif form[0] == "normal":
            values[i], errors[i] = form[1] ** 2, 0.0
    return values, errors


def check(call, marginals):
    """Raise `ConfigurationError` for marginals that have no meaning."""
    forms = marginals.values() if isinstance(marginals, dict) else [marginals]
    for form in forms:
        named = form in ("empirical", "uniform", "normal") if isinstance(form, str) else False
        lengths = {"uniform": 3, "normal": 2}
        given = (
            isinstance(form, tuple | list)
            and len(form) == lengths.get(str(form[0]) if form else "")
            and all(isinstance(v, int | float) and np.isfinite(v) for v in form[1:])
        )
        if not (named or given):
            raise ConfigurationError(
                f"{call}: `marginals` must be {FORMS}, for all features or in a dict by names. "
                f"Received: {form!r}."
            )


def _form(marginals, name):
    return marginals.get(name, "empirical") if isinstance(marginals, dict) else marginals
