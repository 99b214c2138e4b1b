"""Poincaré constants: what turns a derivative-based measure into a bound on a Sobol index.

The constant C of a distribution is the least number with Var f(X) ≤ C · E[f'(X)²] for every smooth
f. A normal distribution has C = σ², a uniform one (b − a)² / π².

For a distribution known by examples only, the density is taken as constant between quantiles at
equal steps of probability, where it holds a mass of 1/m each. With q = ρ f' the best f solves
−(q'/ρ)' = q / (C ρ), q = 0 at both ends. In linear finite elements on the m bins, of widths h,
that is `K q = M q / C` with the stiffness `K = m · tridiag(−1, 2, −1)` and the mass matrix M of the
weights m h². The largest eigenvalue of `K⁻¹ M` is found by power iteration, and `K⁻¹` takes two
sums.

References:
    Roustant, Barthe and Iooss, Poincaré inequalities on intervals - application to sensitivity
    analysis, Electronic Journal of Statistics 11 (2017).
"""

import numpy as np

from keras_fwd.errors import ConfigurationError

_BINS = 40  # with 2000 examples 50 in each; the elements are then exact to 0.1 %
_ITERATIONS = 60
FORMS = '"empirical", "uniform", "normal", ("uniform", low, high) or ("normal", std)'


def empirical_constants(sample):
    """The Poincaré constants of distributions known by examples.

    Args:
        sample: `[examples, features]`, finite.

    Returns:
        `[features]`; 0 for a constant feature.

    Cost: Two sorts; no more than 40 bins of each feature.

    Example:

    >>> x = np.linspace(0.0, 1.0, 2001)[:, None]
    >>> (empirical_constants(x) * np.pi**2).round(2)
    array([1.])
    """
    count = len(sample)
    bins = int(np.clip(count // 8, 1, _BINS))
    edges = np.quantile(sample, np.linspace(0, 1, bins + 1), axis=0)
    widths = np.diff(edges, axis=0)
    if bins < 3:
        return (edges[-1] - edges[0]) ** 2 / np.pi**2  # too few to tell more than a range
    weight = widths**2
    q = np.sin(np.pi * np.arange(1, bins) / bins)[:, None] * np.ones(sample.shape[1])
    largest = np.zeros(sample.shape[1])
    for _ in range(_ITERATIONS):
        image = _solve(_mass(weight, q))
        largest = np.sqrt(np.sum(image**2, axis=0) / np.sum(q**2, axis=0))
        norm = np.max(np.abs(image), axis=0)
        q = np.where(norm > 0, image / np.where(norm > 0, norm, 1.0), 1.0)
    return largest


def _mass(weight, q):
    """M q / m for the bins' weights h², `[bins, features]`."""
    padded = np.concatenate([np.zeros_like(q[:1]), q, np.zeros_like(q[:1])])
    left = weight[:-1] * (padded[:-2] + 2 * q) / 6
    right = weight[1:] * (2 * q + padded[2:]) / 6
    return left + right


def _solve(b):
    """tridiag(−1, 2, −1)⁻¹ b, along axis 0."""
    n = len(b)
    place = np.arange(1, n + 1)[:, None]
    # The solution with a slope that makes it end in 0: minus the second sum of b, plus a line.
    second = np.cumsum(np.cumsum(b, axis=0), axis=0)
    shifted = np.concatenate([np.zeros_like(b[:1]), second[:-1]])
    return place * second[-1] / (n + 1) - shifted


def constants(marginals, names, sample, low, high, std):
    """The Poincaré constant of each feature.

    Args:
        marginals: One of `FORMS` for all features, or a dict of them by names, `"empirical"` for
            the others.
        names: Of the features.
        sample: Examples, `[examples, features]`.
        low: Smallest value of each feature.
        high: Largest value.
        std: Standard deviation.

    Raises:
        ConfigurationError: `marginals` has no meaning.
    """
    values = np.full(len(names), np.nan)
    if any(_form(marginals, name) == "empirical" for name in names):
        values = empirical_constants(sample)
    for i, name in enumerate(names):
        form = _form(marginals, name)
        if form == "uniform":
            values[i] = (high[i] - low[i]) ** 2 / np.pi**2
        elif form == "normal":
            values[i] = std[i] ** 2
        elif form[0] == "uniform":
            values[i] = (form[2] - form[1]) ** 2 / np.pi**2
        elif form[0] == "normal":
            values[i] = form[1] ** 2
    return values


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
