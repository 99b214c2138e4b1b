"""Kronecker factors: the mathematics of K-FAC, apart from networks and optimizers.

A block of curvature that belongs to a matrix of weights `X`, `[b, n, m]`, is approximated by
`X ↦ L X R` with a *left* factor `L`, `[b, n, n]`, the second moment of what the matrix is
multiplied with, and a *right* factor `R`, `[b, m, m]`, that of the gradients of its outputs; `b`
counts groups that do not mix (1 for a dense layer). A factor may be diagonal: `[b, n]`.

References:
    Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate curvature,
    ICML (2015); George et al., Fast approximate natural gradient descent in a Kronecker-factored
    eigenbasis, NeurIPS (2018).
"""

from typing import NamedTuple

import tensorflow as tf

#: A factor is never inverted with less damping than this many roundings of its trace, for the
#: factorization of a singular one would fail.
ROUNDING = 16.0


def is_diagonal(factor):
    """Whether a factor is given by its diagonal, `[b, n]`."""
    return factor.shape.rank == 2


def second_moment(rows, diagonal=False):
    """`Σ r rᵀ` over the rows.

    Args:
        rows: `[count, b, n]`.
        diagonal: Compute the diagonal alone.

    Returns:
        `[b, n, n]`, or `[b, n]`.
    """
    if diagonal:
        return tf.reduce_sum(rows**2, axis=0)
    if rows.shape[1] == 1:
        # One group: a plain product is faster than a batch of one.
        flat = tf.squeeze(rows, 1)
        return tf.linalg.matmul(flat, flat, transpose_a=True)[None]
    rows = tf.transpose(rows, [1, 0, 2])
    return tf.linalg.matmul(rows, rows, transpose_a=True)


def mean_eigenvalue(factor):
    """Trace over size, `[b]`."""
    entries = factor if is_diagonal(factor) else tf.linalg.diag_part(factor)
    return tf.reduce_mean(entries, axis=-1)


def split_damping(left, right, damping):
    """Damping for each factor, `(π √λ, √λ / π)`, each `[b]`.

    `π² = (tr L / n) / (tr R / m)` makes what is lost of `L ⊗ R + λ I` smallest; 1 where a factor
    is zero.

    References:
        Martens and Grosse (2015), section 6.3.
    """
    ratio = tf.math.divide_no_nan(mean_eigenvalue(left), mean_eigenvalue(right))
    pi = tf.sqrt(tf.where((ratio > 0) & tf.math.is_finite(ratio), ratio, tf.ones_like(ratio)))
    root = tf.sqrt(_as(damping, pi.dtype))
    return pi * root, root / pi


def _as(number, dtype):
    # tf.cast would take a Python number through float32.
    return tf.cast(number, dtype) if tf.is_tensor(number) else tf.constant(number, dtype)


def _rounding(factor):
    return ROUNDING * (2.0**-52 if factor.dtype == tf.float64 else 2.0**-23)


def _floor(factor):
    """Least damping that a factor can be inverted with, `[b]`."""
    trace = mean_eigenvalue(factor) * factor.shape[-1]
    # Of a factor of zeros nothing is known: its inverse becomes the identity.
    return tf.where(trace > 0, _rounding(factor) * trace, tf.ones_like(trace))


def damped_inverse(factor, damping):
    """`(F + δ I)⁻¹`, by Cholesky for a dense factor.

    Args:
        factor: Symmetric, positive semi-definite, `[b, n, n]` or `[b, n]`.
        damping: `δ`, `[b]`. Raised to what rounding needs where the factor is singular.

    Returns:
        Like the factor.

    Example:

    >>> damped_inverse(tf.constant([[[3.0, 0.0], [0.0, 1.0]]]), tf.constant([1.0])).numpy().round(3)
    array([[[0.25, 0.  ],
            [0.  , 0.5 ]]], dtype=float32)
    """
    damping = tf.maximum(damping, _floor(factor))
    if is_diagonal(factor):
        return 1 / (factor + damping[:, None])
    diagonal = tf.linalg.diag_part(factor) + damping[:, None]
    root = tf.linalg.cholesky(tf.linalg.set_diag(factor, diagonal))
    unit = tf.eye(factor.shape[-1], batch_shape=[factor.shape[0]], dtype=factor.dtype)
    # F⁻¹ = L⁻ᵀ L⁻¹: as a product with its own transpose it stays symmetric.
    inverse = tf.linalg.triangular_solve(root, unit)
    return tf.linalg.matmul(inverse, inverse, transpose_a=True)


def damped_inverses(left, right, damping):
    """`(L + π √λ I)⁻¹` and `(R + √λ / π I)⁻¹`: the damping `λ` split between both factors."""
    of_left, of_right = split_damping(left, right, damping)
    inverse = damped_inverse(left, of_left)
    with tf.control_dependencies([inverse]):  # so that memory for both is not needed at once
        return [inverse, damped_inverse(right, of_right)]


class Eigen(NamedTuple):
    """A factor in its eigenbasis: `F = Q diag(values) Qᵀ`; `basis` is None for a diagonal one."""

    values: tf.Tensor
    basis: tf.Tensor | None


def eigen(factor):
    """The eigendecomposition of a factor, without eigenvalues below zero.

    The basis of one that is not finite is NaN: there, some kernels raise and others return numbers.
    """
    if is_diagonal(factor):
        return Eigen(tf.maximum(factor, 0.0), None)
    finite = tf.reduce_all(tf.math.is_finite(factor))
    values, basis = tf.linalg.eigh(tf.where(finite, factor, tf.zeros_like(factor)))
    nan = tf.constant(float("nan"), factor.dtype)
    return Eigen(tf.maximum(values, 0.0), tf.where(finite, basis, nan))


def _on_rows(factor, x):
    """`F x`."""
    return factor[..., None] * x if is_diagonal(factor) else tf.linalg.matmul(factor, x)


def _on_columns(x, factor):
    """`x F`."""
    return x * factor[:, None, :] if is_diagonal(factor) else tf.linalg.matmul(x, factor)


def sandwich(left, x, right):
    """`L X R`, `[b, n, m]`."""
    return _on_columns(_on_rows(left, x), right)


def solve_eigen(left, x, right, damping):
    """`(L ⊗ R + λ I)⁻¹ X`, exactly, from the factors' eigendecompositions.

    Args:
        left: `Eigen` of `L`.
        x: `[b, n, m]`.
        right: `Eigen` of `R`.
        damping: `λ`, a scalar.
    """
    if left.basis is not None:
        x = tf.linalg.matmul(left.basis, x, transpose_a=True)
    if right.basis is not None:
        x = tf.linalg.matmul(x, right.basis)
    values = left.values[:, :, None] * right.values[:, None, :]
    largest = tf.reduce_max(values, axis=[1, 2], keepdims=True)
    floor = tf.where(largest > 0, _rounding(x) * largest, tf.ones_like(largest))
    x = x / (values + tf.maximum(_as(damping, x.dtype), floor))
    if right.basis is not None:
        x = tf.linalg.matmul(x, right.basis, transpose_b=True)
    if left.basis is not None:
        x = tf.linalg.matmul(left.basis, x)
    return x
