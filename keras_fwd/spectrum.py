"""Eigenvalues, trace and spectral density of symmetric maps, from products alone.

Lanczos' method for the ends of the spectrum, Hutchinson's for the trace, and stochastic Lanczos
quadrature for all of it. Nothing here raises inside a graph: a map with NaN has NaN eigenvalues.
"""

from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._linear_algebra.lanczos import check_map, lanczos, random_key, tridiagonalize
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError, StructureError

__all__ = [
    "Density",
    "Eigenvalues",
    "Estimate",
    "ritz_values",
    "spectral_density",
    "top_eigenvalues",
    "trace",
]


class Eigenvalues(NamedTuple):
    """Approximate eigenvalues, and how far off they can be.

    Attributes:
        values: `[k]`, float64.
        errors: `[k]`, float64: within that distance of each value there is an eigenvalue.

    Example: `top_eigenvalues` and `ritz_values`.
    """

    values: tf.Tensor
    errors: tf.Tensor


class Estimate(NamedTuple):
    """A random estimate.

    Attributes:
        value: Scalar, float64.
        stderr: Its standard error; 0 where the value is exact.

    Example: `trace`.
    """

    value: tf.Tensor
    stderr: tf.Tensor


class Density(NamedTuple):
    """A distribution of eigenvalues: `tr f(A) / n ≈ Σ weights · f(nodes)`.

    Attributes:
        nodes: `[probes, m]`, float64, ascending in each row.
        weights: `[probes, m]`, float64, not negative, with sum 1.

    Example: `spectral_density`.
    """

    nodes: tf.Tensor
    weights: tf.Tensor


@tf.autograph.experimental.do_not_convert
def ritz_values(A: LinearMap, iterations: int, seed: int = 0) -> Eigenvalues:
    """The eigenvalues of a symmetric `A` as seen by `iterations` of Lanczos' method, ascending.

    The ends of the spectrum are right first, and from inside: no value lies outside of it. The
    error of a value is at most `|β_m s_m|`, with `s_m` the last component of its eigenvector in
    the basis of Lanczos, and the rounding of the dtype that the products are computed in.

    Args:
        A: Symmetric `LinearMap` from a space of known size n to itself, such as a `hessian`.
        iterations: m, the number of products with `A`; no more than n are made.
        seed: Whole number for the vector that Lanczos' method starts from; default 0.

    Returns:
        `Eigenvalues`, `[min(iterations, n)]`.

    Raises:
        ConfigurationError: `iterations` is not a whole number of at least 1.
        StructureError: `A` is not square, or of unknown size.

    Cost: m products with `A`, 8 m² n operations beside them, and the memory of m vectors.

    References:
        Golub and Van Loan, Matrix Computations (2013), section 10.3; Parlett, The Symmetric
        Eigenvalue Problem (1998), section 13.2.

    Example:

    >>> from keras_fwd import hessian
    >>> A = hessian(lambda x: 2 * x[0] ** 2 - x[1] ** 2 / 2 + x[2] ** 2, tf.zeros([3]))
    >>> ritz_values(A, iterations=3).values.numpy().round(4)
    array([-1.,  2.,  4.])
    """
    T = lanczos(A, iterations, seed=seed)
    values, vectors, residuals = _eigh(T)
    outside = tf.cast(T.off_diagonal[-1], tf.float64) * vectors[-1]
    rounding = np.finfo(T.diagonal.dtype.as_numpy_dtype).eps * tf.reduce_max(tf.abs(values))
    return Eigenvalues(values, tf.sqrt(tf.square(outside) + tf.square(residuals)) + rounding)


@tf.autograph.experimental.do_not_convert
def top_eigenvalues(
    A: LinearMap,
    count: int = 1,
    iterations: int = 40,
    end: Literal["largest", "smallest"] = "largest",
    seed: int = 0,
) -> Eigenvalues:
    """The eigenvalues at one end of the spectrum of a symmetric `A`.

    Args:
        A: Symmetric `LinearMap` from a space of known size n to itself, such as a `hessian`.
        count: How many; default 1.
        iterations: Products with `A`, at least `count`; default 40. The errors say whether that
            was enough.
        end: `"largest"` (default), algebraically: of −3 and 2 that is 2; or `"smallest"`.
        seed: Whole number for the vector that Lanczos' method starts from; default 0.

    Returns:
        `Eigenvalues`, from that end inwards.

    Raises:
        ConfigurationError: An argument is out of range.
        StructureError: `A` is not square, of unknown size, or has fewer than `count` eigenvalues.

    Cost: As `ritz_values`.

    Example:

    >>> from keras_fwd import hessian
    >>> A = hessian(lambda x: x[0] ** 2 - 1.5 * x[1] ** 2 + x[2] ** 2 / 2, tf.zeros([3]))
    >>> top_eigenvalues(A, 2).values.numpy().round(4)
    array([2., 1.])
    >>> top_eigenvalues(A, end="smallest").values.numpy().round(4)
    array([-3.])
    """
    size, _ = check_map("top_eigenvalues", A, iterations)
    check_count("top_eigenvalues", "count", count, most=iterations)
    if end not in ("largest", "smallest"):
        raise ConfigurationError(
            f'top_eigenvalues: `end` must be "largest" or "smallest". Received: end={end!r}.'
        )
    if count > size:
        raise StructureError(
            f"top_eigenvalues: `A` must have at least `count` eigenvalues. Received: count={count} "
            f"and a map of size {size}."
        )
    found = ritz_values(A, iterations, seed)
    if end == "smallest":
        return Eigenvalues(*(part[:count] for part in found))
    return Eigenvalues(*(part[::-1][:count] for part in found))


@tf.autograph.experimental.do_not_convert
def trace(A: LinearMap, probes: int = 16, seed: int = 0) -> Estimate:
    """The trace of a square `A`, by Hutchinson's estimator `zᵀ A z` with random signs `z`.

    Unbiased; exact for a diagonal `A`, and for one that is no larger than `probes`, as the sum
    over a basis.

    Args:
        A: `LinearMap` from a space of known size to itself; symmetry is not used.
        probes: How many `z`, at least 2; default 16.
        seed: Whole number for the signs.

    Returns:
        `Estimate`.

    Raises:
        ConfigurationError: `probes` is not a whole number of at least 2.
        StructureError: `A` is not square, or of unknown size.

    Cost: One product with `A` a probe, one after the other.

    References:
        Hutchinson, Communications in Statistics 18 (1989).

    Example:

    >>> from keras_fwd import hessian
    >>> A = hessian(lambda x: tf.reduce_sum(tf.range(100.0) * x**2) / 2, tf.zeros([100]))
    >>> estimate = trace(A)
    >>> float(estimate.value), float(estimate.stderr)
    (4950.0, 0.0)
    """
    check_count("trace", "probes", probes, least=2)
    size, dtype = check_map("trace", A, probes)

    def form(z):
        image = nest.ravel(A._mv(nest.unravel(z, A.in_spec)), dtype)
        return tf.cast(tf.tensordot(z, image, 1), tf.float64)

    if size <= probes:
        basis = tf.eye(size, dtype=dtype)
        diagonal = tf.map_fn(form, basis, fn_output_signature=tf.float64)
        return Estimate(tf.reduce_sum(diagonal), tf.zeros([], tf.float64))
    values = tf.map_fn(
        lambda probe: form(_signs(size, dtype, random_key(seed, probe))),
        tf.range(probes),
        fn_output_signature=tf.float64,
    )
    # Of the mean; `reduce_variance` divides by n and not by n − 1.
    variance = tf.math.reduce_variance(values) / (probes - 1)
    return Estimate(tf.reduce_mean(values), tf.sqrt(variance))


@tf.autograph.experimental.do_not_convert
def spectral_density(A: LinearMap, iterations: int = 40, probes: int = 8, seed: int = 0) -> Density:
    """The distribution of the eigenvalues of a symmetric `A`, by stochastic Lanczos quadrature.

    Lanczos' method from a random unit vector `z` gives a Gauss quadrature of `zᵀ f(A) z`, exact
    for polynomials of degree up to 2 m − 1; its mean over random `z` is `tr f(A) / n`.

    Args:
        A: Symmetric `LinearMap` from a space of known size n to itself, such as a `hessian`.
        iterations: `m`, products with `A` for each probe; default 40.
        probes: How many `z`, with random signs; default 8.
        seed: Whole number for the signs.

    Returns:
        `Density`. To draw it, sum normal densities of a small width at the nodes, times the
        weights.

    Raises:
        ConfigurationError: An argument is no whole number of at least 1.
        StructureError: `A` is not square, or of unknown size.

    Cost: `probes` times that of `ritz_values`, one after the other.

    References:
        Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38 (2017); Ghorbani, Krishnan and Xiao,
        An investigation into neural net optimization via Hessian eigenvalue density, ICML (2019).

    Example:

    >>> from keras_fwd import hessian
    >>> A = hessian(lambda x: x[3] ** 2 / 2, tf.zeros([4]))
    >>> density = spectral_density(A)
    >>> above = density.nodes > 0.5
    >>> round(float(tf.reduce_sum(density.weights[above])), 4)
    0.25
    """
    size, dtype = check_map("spectral_density", A, iterations)
    check_count("spectral_density", "probes", probes)

    def quadrature(probe):
        key = random_key(seed, probe)
        T = tridiagonalize(A, min(iterations, size), _signs(size, dtype, key), key)
        values, vectors, _ = _eigh(T)
        # The weights of Gauss' quadrature: z is the first vector of the basis.
        return values, tf.square(vectors[0]) / probes

    signature = (tf.float64, tf.float64)
    return Density(*tf.map_fn(quadrature, tf.range(probes), fn_output_signature=signature))


def _eigh(T):
    """Eigenvalues `[m]`, eigenvectors in columns and their residuals `[m]`, float64; NaN if `T` is.

    XLA's own solver stops early: Rayleigh quotients mend its values, the residuals say how far.
    """
    diagonal, beside = tf.cast(T.diagonal, tf.float64), tf.cast(T.off_diagonal, tf.float64)
    finite = tf.reduce_all(tf.math.is_finite(diagonal + beside))
    matrix = tf.linalg.diag(diagonal)
    matrix += tf.linalg.diag(beside[:-1], k=1) + tf.linalg.diag(beside[:-1], k=-1)
    # The kernels of eigh raise, or never end, on NaN.
    _, vectors = tf.linalg.eigh(tf.where(finite, matrix, tf.zeros_like(matrix)))
    images = matrix @ vectors
    values = tf.reduce_sum(vectors * images, axis=0)
    return values, vectors + 0 * values, tf.norm(images - vectors * values, axis=0)


def _signs(size, dtype, key):
    return tf.cast(2 * tf.random.stateless_uniform([size], key, 0, 2, tf.int32) - 1, dtype)
