"""Direct solvers of damped systems `(C + λ D²) x = g`: for few weights, and for few residuals.

A system has one call, `solve(λ)`. `C` is the curvature, `AᵀA + diag(h)` or any symmetric matrix.
What does not depend on `λ` is done once, when the system is made, so that several dampings can be
tried. Nothing here raises inside a graph: how a solve ended is its `Status`.
"""

import numpy as np
import tensorflow as tf

from keras_fwd._linear_algebra.damped_spectrum import DampedSpectrum
from keras_fwd._linear_algebra.solution import direct_solution, rounding


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
        scale: `D`, `[n]`, not negative; zeros count as ones. None for ones. Or a function of the
            norms of the columns of `[A; √diag(h)]`, `[n]` in double precision, that returns it.
        damping: About what the system will be solved with.

    References:
        Björck, Numerical Methods for Least Squares Problems (1996), sections 2.7 and 6.6.
    """
    dtype = rows.dtype
    A, b, h, r = (_double(x) for x in (rows, residual, curvature_diagonal, gradient_rest))
    gram = tf.linalg.matmul(A, A, transpose_a=True) + tf.linalg.diag(h)
    norms, visible = _column_norms(A, h, tf.linalg.diag_part(gram), dtype)
    scale = _positive(scale(norms) if callable(scale) else scale, r)
    # The product is scaled, not its factors: these are as long as the batch.
    gram, slopes = gram / scale / scale[:, None], tf.linalg.matvec(A, b, transpose_a=True) / scale
    h, r = h / scale**2, r / scale
    slopes += r
    diagonal = tf.linalg.diag_part(gram)
    # A weight on which nothing depends would make the matrix singular.
    unused = tf.equal(diagonal, 0) & tf.equal(r, 0)
    gram = tf.linalg.set_diag(gram, tf.where(unused, tf.ones_like(diagonal), diagonal))
    values, vectors = _eigh(gram)
    # The least damped eigenvalue then has six right digits at least.
    noise = 1e6 * rounding(values)
    harmless = tf.reduce_min(values) + tf.cast(damping, values.dtype) > noise
    # What single precision tells from zero is far above what squaring loses in double precision.
    harmless |= tf.reduce_max(values) * _least_square(dtype, tf.size(r)) > 1e3 * rounding(values)
    harmless &= visible

    def from_gram():
        turned = tf.linalg.matvec(vectors, slopes, transpose_a=True)
        return tf.sqrt(tf.maximum(values, 0.0)), vectors, tf.zeros_like(turned), turned

    def from_triangle():
        Q, R = tf.linalg.qr(tf.concat([A / scale, tf.linalg.diag(tf.sqrt(h))], axis=0))
        # Below b there are zeros, beside the rows of √diag(h).
        right = tf.linalg.matvec(Q[: tf.shape(A)[0]], b, transpose_a=True)
        finite = tf.reduce_all(tf.math.is_finite(R))
        # Kernels of svd raise, or never end, on NaN.
        roots, U, V = tf.linalg.svd(tf.where(finite, R, tf.zeros_like(R)))
        roots = tf.where(finite, roots, _nan(roots.dtype))
        rooted = tf.linalg.matvec(U, right, transpose_a=True)
        return roots, V, rooted, tf.linalg.matvec(V, r, transpose_a=True)

    parts = tf.cond(harmless, from_gram, from_triangle)
    refined = gram, slopes, tf.cast(harmless, gram.dtype)
    loose = tf.linalg.matvec(parts[1], r, transpose_a=True)
    return DampedSpectrum(*parts, scale, dtype, loose=loose, refined=refined)


def normal_equations(matrix, gradient, scale=None):
    """`DampedSpectrum` of few weights and any symmetric curvature, whose negative part is left out.

    Args:
        matrix: `C`, `[n, n]`.
        gradient: `g`, `[n]`.
        scale: `D`, `[n]`, not negative; zeros count as ones. None for ones.
    """
    dtype, gradient = gradient.dtype, _double(gradient)
    scale = _positive(scale, gradient)
    values, vectors = _eigh(_double(matrix) / scale / scale[:, None])
    turned = tf.linalg.matvec(vectors, gradient / scale, transpose_a=True)
    zero = rounding(values, dtype)
    roots = tf.sqrt(tf.where(values <= zero, tf.zeros_like(values), values))
    nothing = tf.zeros_like(turned)
    return DampedSpectrum(roots, vectors, nothing, turned, scale, dtype, values, loose=turned)


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
        if curvature_diagonal is None:
            self._gram = tf.linalg.matmul(rows, rows, transpose_b=True)
            self._squares = tf.linalg.trace(self._gram)
        else:
            self._squares = tf.reduce_sum(rows * rows)

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
            damped = tf.maximum(damping, least)
            gram = self._gram / damped
        else:
            damped = tf.maximum(self._diagonal + damping, least)
            gram = tf.linalg.matmul(A / damped, A, transpose_b=True)

        def with_shares(shares_of, rest, residual):
            y = shares_of(residual - tf.linalg.matvec(A, rest / damped))
            return (rest + tf.linalg.matvec(A, y, transpose_a=True)) / damped

        def by_cholesky():
            solved = _shifted_cholesky(gram)

            def left_by(value):
                """What of the gradient a solution leaves, and its norm."""
                left = residual - tf.linalg.matvec(A, value)
                left = tf.linalg.matvec(A, left, transpose_a=True) + rest - damped * value
                return left, tf.norm(left)

            def correct(i, value, left, norm, _):
                value += with_shares(solved, left, tf.zeros_like(residual))
                return i + 1, value, *left_by(value), norm

            def worthwhile(i, value, left, norm, before):
                del value, left
                # Until corrections no longer halve what is left: then it is rounding.
                return tf.equal(i, 0) | ((i < _CORRECTIONS) & (norm > target) & (2 * norm < before))

            whole = left_by(tf.zeros_like(rest))
            target = tf.sqrt(tf.constant(_epsilon(A.dtype), A.dtype)) * whole[1]
            value = with_shares(solved, rest, residual)
            start = tf.constant(0), value, *left_by(value), whole[1]
            return tf.while_loop(worthwhile, correct, start)[1]

        def by_eigenvalues():
            return with_shares(_shifted_eigenvalues(gram), rest, residual)

        value = tf.cond(_rounding_of(gram) < _VISIBLE, by_cholesky, by_eigenvalues)
        return direct_solution(value + 0 * scale)  # NaN where the squares overflow

    def bend(self, vector):
        """`⟨x, C x⟩`."""
        bend = tf.reduce_sum(tf.linalg.matvec(self._rows, vector) ** 2)
        if self._diagonal is None:
            return bend
        return bend + tf.reduce_sum(self._diagonal * vector**2)

    def length(self, vector):
        """`‖x‖`."""
        return tf.norm(vector)


#: Of the 1 in `I + K`: what the rounding of `K` may be for the directions that `K` does not see,
#: along which the residual is taken to the weights uncurbed, to be told from the others.
_VISIBLE = 1.0
#: How often a solution is corrected at most; each takes away all but what `K` is rounded by.
_CORRECTIONS = 6


def _rounding_of(gram):
    """A bound of what rounding may have made of a `K = B Bᵀ`, by the digits of its dtype."""
    return _epsilon(gram.dtype) * tf.linalg.trace(gram)


def _shifted_cholesky(gram):
    """The function `(I + K)⁻¹` of vectors, to the rounding of `K`, by Cholesky.

    In double precision. That rounding is added to the 1, for the matrix might else have negative
    eigenvalues, for which kernels raise.
    """
    dtype = gram.dtype
    noise = 4 * _double(_rounding_of(gram))
    gram = _double(gram)
    finite = tf.math.is_finite(noise)
    gram = tf.where(finite, gram, tf.zeros_like(gram))
    shifted = tf.linalg.diag_part(gram) + tf.where(finite, 1 + noise, tf.ones_like(noise))
    root = tf.linalg.cholesky(tf.linalg.set_diag(gram, shifted))

    def solved(vector):
        y = tf.linalg.cholesky_solve(root, _double(vector)[:, None])[:, 0]
        return tf.cast(y, dtype)

    return solved


def _shifted_eigenvalues(gram):
    """The same, without the directions that `K` does not see: `Aᵀ` takes those to zero."""
    values, vectors = _eigh(gram)
    zero = values <= rounding(values)

    def solved(vector):
        turned = tf.linalg.matvec(vectors, vector, transpose_a=True)
        shares = tf.where(zero, tf.zeros_like(turned), turned / (1.0 + values))
        return tf.linalg.matvec(vectors, shares)

    return solved


def _column_norms(A, h, squares, dtype):
    """The norms of the columns of `[A; √diag(h)]`, and whether their `squares` hold them.

    Squares of single precision, in double precision, always do.
    """
    if dtype != tf.float64:
        return tf.sqrt(squares), tf.constant(True)

    def without_squares():
        largest = tf.reduce_max(tf.abs(A), axis=0)
        unit = tf.where(largest > 0, largest, tf.ones_like(largest))
        norms = unit * tf.norm(A / unit, axis=0)
        return tf.where(h > 0, tf.sqrt(norms**2 + h), norms)

    inside = tf.math.is_finite(squares) & (squares > _FAINT)
    norms = tf.cond(tf.reduce_all(inside), lambda: tf.sqrt(squares), without_squares)
    return norms, tf.reduce_all(inside | tf.equal(norms, 0))


#: A square below may have lost digits, or be zero without its root being zero.
_FAINT = 1e-280


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
