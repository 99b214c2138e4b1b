"""Matrix-free solvers of damped systems `(C + λ I) x = g`, and how every solver here reports.

A system has one call, `solve(λ)`. `C` is the curvature, only known by its products. The direct
solvers of the same systems are in `least_squares.py`.

Nothing here raises inside a graph: how a solve ended is its `Status`.
"""

import enum
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_fwd import nest
from keras_fwd.linear_map import LinearMap


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


def direct_solution(value):
    """The `Solution` of a direct solver, for its vector."""
    finite = tf.reduce_all(tf.math.is_finite(value))
    status = tf.where(finite, int(Status.CONVERGED), int(Status.NOT_FINITE))
    return Solution(value, status, tf.constant(1), tf.constant(float("nan"), value.dtype))


def rounding(values, dtype=None):
    """What counts as zero beside the largest of some values, that are known to a dtype's digits."""
    epsilon = np.finfo((dtype or values.dtype).as_numpy_dtype).eps
    return tf.cast(tf.size(values), values.dtype) * epsilon * tf.reduce_max(tf.abs(values))


def cg(A, b, tolerance=1e-3, max_iterations=100, preconditioner=None):
    """Conjugate gradients for a symmetric positive definite `A x = b`, started at zero.

    Stops when `‖b − A x‖ ≤ tolerance · ‖b‖`, with a preconditioner `M` too. Where a direction `p`
    with `⟨p, A p⟩ ≤ 0` is met, the iterate so far is returned (`b`, or `M b`, in the first
    iteration: then it is a descent direction).

    Args:
        A: Symmetric `LinearMap`.
        b: Vector of its space.
        tolerance: Relative residual to stop at.
        max_iterations: Bound on the products with `A`.
        preconditioner: Symmetric positive definite `LinearMap` `M` of the same space, the nearer to
            the inverse of `A` the better; None for none.

    Returns:
        `Solution`.

    Cost: One product with `A`, and with the preconditioner, an iteration, and one more of it; four
        vectors of memory, five with a preconditioner.

    References:
        Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49 (1952); Nocedal and Wright, Numerical
        Optimization (2006), algorithms 5.2, 5.3 and 7.2.

    Example:

    >>> from keras_fwd.linear_map import diagonal
    >>> solution = cg(diagonal(tf.constant([1.0, 4.0])), tf.constant([2.0, 4.0]))
    >>> solution.value.numpy().round(5), Status(int(solution.status)).name
    (array([2., 1.], dtype=float32), 'CONVERGED')
    """
    start = nest.squared_norm(b)

    def conditioned(r, rr):
        """`M r`, and its product with `r`."""
        if preconditioner is None:
            return r, rr
        z = preconditioner._mv(r)
        return z, nest.dot(r, z)

    def step(i, x, r, p, rz, rr):
        del rr
        Ap = A._mv(p)
        curvature = nest.dot(p, Ap)
        alpha, good = _step_length(i, rz, curvature)
        r = nest.add_scaled(r, -alpha, Ap)
        new_rr = nest.squared_norm(r)
        z, new_rz = conditioned(r, new_rr)
        vectors = nest.add_scaled(x, alpha, p), r, nest.add_scaled(z, new_rz / rz, p), new_rz
        return vectors, new_rr, curvature, good

    zeros = nest.map_live(tf.zeros_like, b)
    p, rz = conditioned(b, start)
    (x, *_), *end = _iterate(step, (zeros, b, p, rz), start, tolerance, max_iterations)
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

    >>> from keras_fwd.linear_map import diagonal, identity
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
    """Matrix-free: `C` is only known by its products.

    Args:
        curvature: `C`, a `LinearMap`.
        gradient: `g`.
        tolerance: As in `cg`.
        max_iterations: As in `cg`.
        preconditioner: Function of the damping: a `LinearMap` near `(C + damping · I)⁻¹`; or None.
    """

    def __init__(self, curvature, gradient, tolerance, max_iterations, preconditioner=None):
        self._curvature = curvature
        self._gradient = gradient
        self._limits = tolerance, max_iterations
        self._preconditioner = preconditioner

    def solve(self, damping):
        """`Solution` of `(C + damping · I) x = g`, by `cg`."""
        C = self._curvature

        def product(x):
            return nest.add_scaled(C._mv(x), damping, x)

        damped = LinearMap(product, product, C.in_spec, C.out_spec)
        near = None if self._preconditioner is None else self._preconditioner(damping)
        return cg(damped, self._gradient, *self._limits, near)


class RangeSpaceConjugateGradient:
    """Matrix-free, for a gradient that is all `Jᵀ c`: no term acts on the weights alone."""

    def __init__(self, jacobian, hessian, cotangent, tolerance, max_iterations):
        self._parts = jacobian, hessian, cotangent
        self._limits = tolerance, max_iterations

    def solve(self, damping):
        """`Solution` of `(Jᵀ H J + damping · I) x = Jᵀ c`, by `range_space_cg`."""
        return range_space_cg(*self._parts, damping, *self._limits)
