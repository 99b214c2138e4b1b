"""Solvers of damped least-squares systems `(C + λ I) x = g`, each behind one call: `solve(λ)`.

`C` is the curvature, `AᵀA + diag(h)` or any symmetric matrix. What does not depend on `λ` is done
once, when the system is made, so that several dampings can be tried.

Nothing here raises inside a graph: how a solve ended is its `Status`.
"""

import enum
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.linear_map import identity


class Status(enum.IntEnum):
    """How a solve ended; `Status(code).message` says it in words."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    NEGATIVE_CURVATURE = 2
    NOT_FINITE = 3

    @property
    def message(self):
        """What happened, the usual cause, and the way out."""
        return {
            Status.CONVERGED: "the residual reached the tolerance",
            Status.MAX_ITERATIONS: "the iterations ran out before the residual reached the "
            "tolerance; raise `max_iterations` or the damping",
            Status.NEGATIVE_CURVATURE: "a direction of negative curvature ended the solve early; "
            "the loss is not convex in the outputs, and more damping helps",
            Status.NOT_FINITE: "NaN or infinity appeared; the inputs or weights are too large",
        }[self]


class Solution(NamedTuple):
    """The result of a solve, all tensors.

    Attributes:
        value: The solution `x`, a nest like `g`.
        status: int32 scalar, a `Status`.
        iterations: int32 scalar; 1 for a direct solver.
        residual_norm: Norm of `g − (C + λ I) x`, relative to that of `g`; NaN if not measured.
    """

    value: Any
    status: tf.Tensor
    iterations: tf.Tensor
    residual_norm: tf.Tensor


def cg(A, b, tolerance=1e-3, max_iterations=100):
    """Conjugate gradients for a symmetric positive definite `A x = b`, started at zero.

    Stops when `‖b − A x‖ ≤ tolerance · ‖b‖`. Where a direction `p` with `⟨p, A p⟩ ≤ 0` is met, the
    iterate so far is returned (`b` itself in the first iteration: then it is a descent direction).

    Args:
        A: Symmetric `LinearMap`.
        b: Vector of its space.
        tolerance: Relative residual to stop at.
        max_iterations: Bound on the products with `A`.

    Returns:
        `Solution`.

    Cost: One product with `A` an iteration, four vectors of memory.

    References:
        Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49 (1952); Nocedal and Wright, Numerical
        Optimization (2006), algorithms 5.2 and 7.2.

    Example:

    >>> from keras_fwd.linear_map import diagonal
    >>> solution = cg(diagonal(tf.constant([1.0, 4.0])), tf.constant([2.0, 4.0]))
    >>> solution.value.numpy().round(5), Status(int(solution.status)).name
    (array([2., 1.], dtype=float32), 'CONVERGED')
    """
    start = nest.squared_norm(b)

    def step(i, x, r, p, rr):
        Ap = A._mv(p)
        curvature = nest.dot(p, Ap)
        alpha, good = _step_length(i, rr, curvature)
        r = nest.add_scaled(r, -alpha, Ap)
        new_rr = nest.squared_norm(r)
        vectors = nest.add_scaled(x, alpha, p), r, nest.add_scaled(r, new_rr / rr, p)
        return vectors, new_rr, curvature, good

    zeros = nest.map_live(tf.zeros_like, b)
    (x, _, _), *end = _iterate(step, (zeros, b, b), start, tolerance, max_iterations)
    return Solution(x, *end)


def range_space_cg(J, H, c, damping, tolerance=1e-3, max_iterations=100):
    """Conjugate gradients for `(Jᵀ H J + λ I) x = Jᵀ c`, run in the space of the outputs.

    Every vector of `cg` on this system is `Jᵀ` of an output vector, so those are kept instead. The
    iterates are the same; the vector algebra, which costs a large net a third of a gradient an
    iteration, and the memory for four vectors of weights are saved.

    Args:
        J: `LinearMap` from the weights to the outputs.
        H: Symmetric `LinearMap` on the outputs.
        c: Vector of outputs.
        damping: `λ`.
        tolerance: As in `cg`.
        max_iterations: As in `cg`.

    Returns:
        `Solution`, its value in the space of the weights.

    Cost: One product with `Jᵀ`, `J` and `H` an iteration, and two more of the first.

    Example:

    >>> from keras_fwd.linear_map import diagonal
    >>> A, c = diagonal(tf.constant([1.0, 2.0])), tf.constant([3.0, 5.0])
    >>> range_space_cg(A, identity(A.out_spec), c, damping=1.0).value.numpy().round(4)
    array([1.5, 2. ], dtype=float32)
    """

    def squared(rho):
        u = J._mv(J._transpose_mv(rho))
        return u, tf.maximum(nest.dot(rho, u), 0.0)

    def step(i, y, rho, pi, q, rr):
        image = nest.add_scaled(H._mv(q), damping, pi)  # Jᵀ of it is the product with p = Jᵀ pi
        curvature = nest.dot(q, image)
        alpha, good = _step_length(i, rr, curvature)
        rho = nest.add_scaled(rho, -alpha, image)
        u, new_rr = squared(rho)
        beta = new_rr / rr
        y, pi = nest.add_scaled(y, alpha, pi), nest.add_scaled(rho, beta, pi)
        return (y, rho, pi, nest.add_scaled(u, beta, q)), new_rr, curvature, good

    u, start = squared(c)
    zeros = nest.map_live(tf.zeros_like, c)
    (y, *_), *end = _iterate(step, (zeros, c, c, u), start, tolerance, max_iterations)
    return Solution(J._transpose_mv(y), *end)


def _step_length(i, rr, curvature):
    """`α`, and whether the curvature allows a step."""
    good = tf.logical_and(tf.math.is_finite(curvature), curvature > 0)
    # Without curvature to scale it, the first direction, which is b, is returned as it is.
    alone = tf.where(tf.equal(i, 0), tf.ones_like(rr), tf.zeros_like(rr))
    return tf.where(good, rr / curvature, alone), good


def _iterate(step, vectors, start, tolerance, max_iterations):
    """The loop of conjugate gradients; returns vectors, status, iterations, residual norm."""
    target = tf.cast(tolerance, start.dtype) ** 2 * start
    running = tf.constant(-1)

    def body(i, vectors, rr, _):
        vectors, new_rr, curvature, good = step(i, *vectors, rr)
        bad = tf.where(
            tf.math.is_finite(curvature), int(Status.NEGATIVE_CURVATURE), int(Status.NOT_FINITE)
        )
        done = tf.where(new_rr <= target, int(Status.CONVERGED), running)
        return i + 1, vectors, tf.where(good, new_rr, rr), tf.where(good, done, bad)

    status = tf.where(
        tf.math.is_finite(start),
        tf.where(start > 0, running, int(Status.CONVERGED)),
        int(Status.NOT_FINITE),
    )
    i, vectors, rr, status = tf.while_loop(
        lambda i, vectors, rr, status: tf.logical_and(status < 0, i < max_iterations),
        body,
        (tf.constant(0), vectors, start, status),
        parallel_iterations=1,
    )
    status = tf.where(status < 0, int(Status.MAX_ITERATIONS), status)
    return vectors, status, i, tf.sqrt(tf.math.divide_no_nan(rr, start))


class ConjugateGradient:
    """Matrix-free: `C` is only known by its products."""

    def __init__(self, curvature, gradient, tolerance, max_iterations):
        self._curvature = curvature
        self._gradient = gradient
        self._tolerance = tolerance
        self._max_iterations = max_iterations

    def solve(self, damping):
        """`Solution` of `(C + damping · I) x = g`, by `cg`."""
        damped = self._curvature + damping * identity(self._curvature.in_spec)
        return cg(damped, self._gradient, self._tolerance, self._max_iterations)


class RangeSpaceConjugateGradient:
    """Matrix-free, for a gradient that is all `Jᵀ c`: no term acts on the weights alone."""

    def __init__(self, jacobian, hessian, cotangent, tolerance, max_iterations):
        self._parts = jacobian, hessian, cotangent
        self._limits = tolerance, max_iterations

    def solve(self, damping):
        """`Solution` of `(Jᵀ H J + damping · I) x = Jᵀ c`, by `range_space_cg`."""
        return range_space_cg(*self._parts, damping, *self._limits)


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
