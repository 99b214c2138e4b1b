"""Direct solvers of damped systems `(C + λ D²) x = g`: for few weights, and for few residuals.

A system has one call, `solve(λ)`. `C` is the curvature, `AᵀA + diag(h)` or any symmetric matrix.
What does not depend on `λ` is done once, when the system is made, so that several dampings can be
tried. Nothing here raises inside a graph: how a solve ended is its `Status`.
"""

import numpy as np
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.damped_spectrum import DampedSpectrum
from keras_fwd.solvers import direct_solution, rounding


def dense_least_squares(rows, residual, curvature_diagonal, gradient_rest, scale=None, damping=0.0):
    """`DampedSpectrum` of few weights: `C = AᵀA + diag(h)`, `g = Aᵀ b + r`.

    From the eigenvalues of `AᵀA` where its condition, or the damping that is expected, shows that
    they lose nothing; else by QR of `[A; √diag(h)]`, whose condition is not squared, and the
    singular values of its triangle.

    Args:
        rows: `A`, `[m, n]`.
        residual: `b`, `[m]`.
        curvature_diagonal: `h`, `[n]`, not negative.
        gradient_rest: `r`, `[n]`: what of the gradient is not in the residual.
        scale: `D`, `[n]`, not negative; zeros count as ones. None for ones.
        damping: About what the system will be solved with.

    References:
        Björck, Numerical Methods for Least Squares Problems (1996), sections 2.7 and 6.6.
    """
    dtype = rows.dtype
    A, b, h, r = (_double(x) for x in (rows, residual, curvature_diagonal, gradient_rest))
    scale = _positive(scale, r)
    A, h, r = A / scale, h / scale**2, r / scale
    gram = tf.linalg.matmul(A, A, transpose_a=True) + tf.linalg.diag(h)
    diagonal = tf.linalg.diag_part(gram)
    # A weight on which nothing depends would make the matrix singular.
    unused = tf.equal(diagonal, 0) & tf.equal(r, 0)
    gram = tf.linalg.set_diag(gram, tf.where(unused, tf.ones_like(diagonal), diagonal))
    values, vectors = _eigh(gram)
    noise = 1e6 * rounding(values)
    harmless = tf.reduce_min(values) + tf.cast(damping, values.dtype) > noise
    # What single precision tells from zero is far above what squaring loses in double precision.
    harmless |= tf.reduce_max(values) * _least_square(dtype, tf.size(r)) > 1e3 * rounding(values)

    slopes = tf.linalg.matvec(A, b, transpose_a=True) + r

    def from_gram():
        turned = tf.linalg.matvec(vectors, slopes, transpose_a=True)
        return tf.sqrt(tf.maximum(values, 0.0)), vectors, tf.zeros_like(turned), turned

    def from_triangle():
        Q, R = tf.linalg.qr(tf.concat([A, tf.linalg.diag(tf.sqrt(h))], axis=0))
        right = tf.linalg.matvec(Q[: tf.shape(A)[0]], b, transpose_a=True)
        finite = tf.reduce_all(tf.math.is_finite(R))
        roots, U, V = tf.linalg.svd(tf.where(finite, R, tf.zeros_like(R)))
        roots = tf.where(finite, roots, _nan(roots.dtype))
        rooted = tf.linalg.matvec(U, right, transpose_a=True)
        return roots, V, rooted, tf.linalg.matvec(V, r, transpose_a=True)

    parts = tf.cond(harmless, from_gram, from_triangle)
    refined = gram, slopes, tf.cast(harmless, gram.dtype)
    return DampedSpectrum(*parts, scale, dtype, refined=refined)


def normal_equations(matrix, gradient, scale=None):
    """`DampedSpectrum` of few weights and any symmetric curvature, whose negative part is left out.

    Args:
        matrix: `C`, `[n, n]`.
        gradient: `g`, `[n]`.
        scale: As in `dense_least_squares`.
    """
    dtype, gradient = gradient.dtype, _double(gradient)
    scale = _positive(scale, gradient)
    values, vectors = _eigh(_double(matrix) / scale / scale[:, None])
    turned = tf.linalg.matvec(vectors, gradient / scale, transpose_a=True)
    zero = rounding(values, dtype)
    roots = tf.sqrt(tf.where(values <= zero, tf.zeros_like(values), values))
    convex = tf.reduce_min(values) >= -zero
    return DampedSpectrum(roots, vectors, tf.zeros_like(turned), turned, scale, dtype, convex)


class DualLeastSquares:
    """Few residuals: a system of their number instead of the weights' (Woodbury's identity).

    `x = D'⁻¹ (r + Aᵀ y)` with `(I + A D'⁻¹ Aᵀ) y = b − A D'⁻¹ r` and `D' = diag(h) + λ I`.

    Args:
        rows: `A`, `[m, n]`.
        residual: `b`, `[m]`.
        curvature_diagonal: `h`, `[n]`, not negative; None for zeros, with which one product of `A`
            with itself serves all dampings.
        gradient_rest: `r`, `[n]`: what of the gradient is not in the residual.
    """

    def __init__(self, rows, residual, curvature_diagonal, gradient_rest):
        self._rows = rows
        self._residual = residual
        self._diagonal = curvature_diagonal
        self._rest = gradient_rest
        self._squares = tf.reduce_sum(rows * rows)
        if curvature_diagonal is None:
            self._gram = tf.linalg.matmul(rows, rows, transpose_b=True)

    def solve(self, damping, gradient=None):
        """`Solution` of `(AᵀA + diag(h) + damping · I) x = Aᵀ b + r`, or of another gradient."""
        A, rest, residual = self._rows, self._rest, self._residual
        if gradient is not None:
            rest, residual = gradient, tf.zeros_like(residual)
        # Without damping the limit is the solution of least norm; a hair of it stands for zero.
        scale = self._squares / tf.cast(tf.size(rest), A.dtype)
        least = _epsilon(A.dtype) * scale + _tiny(A.dtype)
        damping = tf.cast(damping, A.dtype)
        if self._diagonal is None:
            inverse = 1 / tf.maximum(damping, least)
            gram = self._gram * inverse
        else:
            inverse = 1 / tf.maximum(self._diagonal + damping, least)
            gram = tf.linalg.matmul(A * inverse, A, transpose_b=True)
        right = residual - tf.linalg.matvec(A, inverse * rest)
        y = _solve_shifted(gram, right)
        value = inverse * (rest + tf.linalg.matvec(A, y, transpose_a=True))
        return direct_solution(value + 0 * scale)  # NaN where the squares overflow


def _solve_shifted(gram, right):
    """`(I + K)⁻¹` of a vector; by Cholesky where `K` leaves the 1 its digits."""
    small = tf.linalg.trace(gram) * _epsilon(gram.dtype) < 1e-4

    def by_cholesky():
        diagonal = tf.linalg.diag_part(gram)
        root = tf.linalg.cholesky(tf.linalg.set_diag(gram, 1 + diagonal))
        return tf.linalg.cholesky_solve(root, right[:, None])[:, 0]

    def by_eigenvalues():
        values, vectors = _eigh(gram)
        turned = tf.linalg.matvec(vectors, right, transpose_a=True)
        # Aᵀ takes the directions of the smallest eigenvalues to zero, up to rounding.
        zero = values <= rounding(values)
        shares = tf.where(zero, tf.zeros_like(turned), turned / (1.0 + values))
        return tf.linalg.matvec(vectors, shares)

    return tf.cond(small, by_cholesky, by_eigenvalues)


class OnNests:
    """A system of vectors as one of nests: what goes in is raveled, what comes out unraveled.

    Args:
        system: The system.
        spec: The space of its vectors.
    """

    def __init__(self, system, spec):
        self._system, self._spec = system, spec

    def solve(self, damping, gradient=None):
        """As that of the system."""
        vector = None if gradient is None else nest.ravel(gradient)
        solution = self._system.solve(damping, vector)
        return solution._replace(value=nest.unravel(solution.value, self._spec))

    def length(self, vector):
        """As `DampedSpectrum.length`."""
        return self._system.length(nest.ravel(vector))

    def __getattr__(self, name):
        return getattr(self._system, name)


def _double(tensor):
    return tf.cast(tensor, tf.float64)


def _positive(scale, like):
    """`D` with ones in the place of zeros, or of None."""
    if scale is None:
        return tf.ones_like(like)
    scale = _double(scale)
    return tf.where(scale > 0, scale, tf.ones_like(scale))


def _eigh(matrix):
    """Eigenvalues and vectors of the symmetric part; vectors of NaN if it is not finite.

    There, some kernels raise and others return numbers.
    """
    matrix = (matrix + tf.transpose(matrix)) / 2
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    values, vectors = tf.linalg.eigh(tf.where(finite, matrix, tf.zeros_like(matrix)))
    return values, tf.where(finite, vectors, _nan(matrix.dtype))


def _least_square(dtype, size):
    """The square of what counts as zero beside a largest singular value of 1."""
    return (tf.cast(size, tf.float64) * _epsilon(dtype)) ** 2


def _nan(dtype):
    return tf.constant(float("nan"), dtype)


def _epsilon(dtype):
    return np.finfo(dtype.as_numpy_dtype).eps


def _tiny(dtype):
    return np.finfo(dtype.as_numpy_dtype).tiny
