"""Direct solvers of damped systems `(C + λ I) x = g`: QR, eigenvalues, and the dual form.

A system has one call, `solve(λ)`. `C` is the curvature, `AᵀA + diag(h)` or any symmetric matrix.
What does not depend on `λ` is done once, when the system is made, so that several dampings can be
tried. Nothing here raises inside a graph: how a solve ended is its `Status`.
"""

import numpy as np
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.solvers import Solution, Status


class DenseLeastSquares:
    """Few weights: QR of the stacked `[A; √(diag(h) + λ)]`, whose condition is not squared.

    Args:
        rows: `A`, `[m, n]`.
        residual: `b`, `[m]`.
        curvature_diagonal: `h`, `[n]`, not negative.
        gradient_rest: `r`, `[n]`: what of the gradient `g = Aᵀ b + r` is not in the residual.

    References:
        Björck, Numerical Methods for Least Squares Problems (1996), sections 2.7 and 6.6.
    """

    def __init__(self, rows, residual, curvature_diagonal, gradient_rest):
        Q, self._R = tf.linalg.qr(rows)
        self._residual = tf.linalg.matvec(Q, residual, transpose_a=True)
        self._diagonal = curvature_diagonal
        self._rest = gradient_rest

    def solve(self, damping):
        """`Solution` of `(AᵀA + diag(h) + damping · I) x = Aᵀ b + r`."""
        extra = tf.sqrt(self._diagonal + tf.cast(damping, self._R.dtype))
        Q, R = tf.linalg.qr(tf.concat([self._R, tf.linalg.diag(extra)], axis=0))
        right = tf.linalg.matvec(Q[: tf.shape(self._R)[0]], self._residual, transpose_a=True)
        diagonal = tf.abs(tf.linalg.diag_part(R))
        regular = tf.reduce_all(diagonal > _rounding(diagonal))
        value = tf.cond(
            regular,
            lambda: _back_substitution(R, right, self._rest),
            lambda: _least_norm(R, right, self._rest),
        )
        return _direct(value)


class NormalEquations:
    """Few weights, any symmetric curvature: eigenvalues of `C`, negative ones set to zero."""

    def __init__(self, matrix, gradient):
        values, self._vectors = _eigh(matrix)
        self._values = tf.maximum(values, 0.0)
        self._gradient = tf.linalg.matvec(self._vectors, gradient, transpose_a=True)

    def solve(self, damping):
        """`Solution` of `(C₊ + damping · I) x = g`; of least norm where that is singular."""
        shifted = self._values + tf.cast(damping, self._values.dtype)
        return _direct(tf.linalg.matvec(self._vectors, _pseudo_inverse(shifted) * self._gradient))


class DualLeastSquares:
    """Few residuals: a system of their number instead of the weights' (Woodbury's identity).

    `x = D'⁻¹ (r + Aᵀ y)` with `(I + A D'⁻¹ Aᵀ) y = b − A D'⁻¹ r` and `D' = diag(h) + λ I`.

    Args: As `DenseLeastSquares`.
    """

    def __init__(self, rows, residual, curvature_diagonal, gradient_rest):
        self._rows = rows
        self._residual = residual
        self._diagonal = curvature_diagonal
        self._rest = gradient_rest

    def solve(self, damping):
        """`Solution` of `(AᵀA + diag(h) + damping · I) x = Aᵀ b + r`."""
        A = self._rows
        inverse = self._diagonal + tf.cast(damping, A.dtype)
        # Without damping the limit is the solution of least norm; a hair of it stands for zero.
        scale = tf.reduce_sum(A * A) / tf.cast(tf.size(self._rest), A.dtype)
        inverse = 1 / tf.maximum(inverse, _epsilon(A.dtype) * scale + _tiny(A.dtype))
        gram = tf.linalg.matmul(A * inverse, A, transpose_b=True)
        values, vectors = _eigh(gram)
        right = self._residual - tf.linalg.matvec(A, inverse * self._rest)
        right = tf.linalg.matvec(vectors, right, transpose_a=True)
        # Aᵀ takes the directions of the smallest eigenvalues to zero, up to rounding.
        right = tf.where(values > _rounding(values), right / (1.0 + values), tf.zeros_like(right))
        y = tf.linalg.matvec(vectors, right)
        value = inverse * (self._rest + tf.linalg.matvec(A, y, transpose_a=True))
        return _direct(value + 0 * scale)  # NaN where the squares overflow


def on_nests(system, spec):
    """A system of vectors as one of nests: its solutions are unraveled to `spec`."""

    class OnNests:
        def solve(self, damping):
            solution = system.solve(damping)
            return solution._replace(value=nest.unravel(solution.value, spec))

    return OnNests()


def _direct(value):
    finite = tf.reduce_all(tf.math.is_finite(value))
    status = tf.where(finite, int(Status.CONVERGED), int(Status.NOT_FINITE))
    return Solution(value, status, tf.constant(1), _nan(value.dtype))


def _back_substitution(R, right, rest):
    """`x` with `RᵀR x = Rᵀ right + rest`."""
    half = tf.linalg.triangular_solve(R, rest[:, None], lower=False, adjoint=True)
    return tf.linalg.triangular_solve(R, right[:, None] + half, lower=False)[:, 0]


def _least_norm(R, right, rest):
    """The same for a singular R: the solution of least norm; NaN if R is not finite."""
    finite = tf.reduce_all(tf.math.is_finite(R))
    s, U, V = tf.linalg.svd(tf.where(finite, R, tf.zeros_like(R)))
    s = _pseudo_inverse(s)
    half = s * tf.linalg.matvec(V, rest, transpose_a=True)
    value = tf.linalg.matvec(V, s * (tf.linalg.matvec(U, right, transpose_a=True) + half))
    return tf.where(finite, value, _nan(R.dtype))


def _eigh(matrix):
    """Eigenvalues and vectors of the symmetric part; vectors of NaN if it is not finite.

    There, some kernels raise and others return numbers.
    """
    matrix = (matrix + tf.transpose(matrix)) / 2
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    values, vectors = tf.linalg.eigh(tf.where(finite, matrix, tf.zeros_like(matrix)))
    return values, tf.where(finite, vectors, _nan(matrix.dtype))


def _pseudo_inverse(values):
    """1 / values, and zero where they are zero to rounding."""
    large = values > _rounding(values)
    return tf.where(large, 1 / tf.where(large, values, tf.ones_like(values)), tf.zeros_like(values))


def _rounding(values):
    """What counts as zero beside the largest of some values."""
    size = tf.cast(tf.size(values), values.dtype)
    return size * _epsilon(values.dtype) * tf.reduce_max(tf.abs(values))


def _nan(dtype):
    return tf.constant(float("nan"), dtype)


def _epsilon(dtype):
    return np.finfo(dtype.as_numpy_dtype).eps


def _tiny(dtype):
    return np.finfo(dtype.as_numpy_dtype).tiny
