"""Matrix-free solvers of damped systems `(C + λ I) x = g`.

A system has one call, `solve(λ)`. `C` is the curvature, only known by its products. The direct
solvers of the same systems are in `least_squares.py`.

Nothing here raises inside a graph: how a solve ended is its `Status`.
"""

import tensorflow as tf

from keras_fwd._linear_algebra.cg_loop import Loop, step_length
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap


def cg(
    A,
    b,
    tolerance=1e-3,
    max_iterations=100,
    preconditioner=None,
    x0=None,
    progress_tolerance=None,
    objective=None,
):
    """Conjugate gradients for a symmetric positive definite `A x = b`.

    Stops when `‖b − A x‖ ≤ tolerance · ‖b‖`, with a preconditioner `M` too. Where a direction `p`
    with `⟨p, A p⟩ ≤ 0` is met, the iterate so far is returned (`b`, or `M b`, in the first
    iteration from zero: then it is a descent direction).

    Args:
        A: Symmetric `LinearMap`.
        b: Vector of its space.
        tolerance: Relative residual to stop at.
        max_iterations: Bound on the products with `A`.
        preconditioner: Symmetric positive definite `LinearMap` `M` of the same space, the nearer to
            the inverse of `A` the better; None for none.
        x0: Vector whose multiple with the least `φ(x) = ½⟨x, A x⟩ − ⟨b, x⟩` is the start: of any
            length or sign, and never a worse start than zero, which None (default) is.
        progress_tolerance: Also stop when `φ` falls by less than this share of it an iteration, in
            the mean of the last tenth of the iterations, at least ten; Martens takes 5e-4. None
            (default) for no such test.
        objective: Function of `x`, a scalar, for back-tracking: of the last iterate and those after
            `⌈1.3ʲ⌉` iterations, the last from which going back one raises it is returned. None
            (default) for the last iterate.

    Returns:
        `Solution`.

    Cost: One product with `A`, and with the preconditioner, an iteration, and one more of it; four
        vectors of memory, five with a preconditioner. With `x0` one more product. With `objective`
        a vector for each iterate that is kept (14 of 50, 17 of 100), and two calls or more.

    References:
        Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49 (1952); Nocedal and Wright, Numerical
        Optimization (2006), algorithms 5.2, 5.3 and 7.2; Martens, Deep learning via Hessian-free
        optimization, ICML (2010), sections 4.4 and 4.6.

    Example:

    >>> from keras_fwd._linear_algebra.solution import Status
    >>> from keras_fwd._spaces.linear_map import diagonal
    >>> solution = cg(diagonal(tf.constant([1.0, 4.0])), tf.constant([2.0, 4.0]))
    >>> solution.value.numpy().round(5), Status(int(solution.status)).name
    (array([2., 1.], dtype=float32), 'CONVERGED')
    """
    start = nest.squared_norm(b)
    x, r, phi = _started(A, b, x0)
    from_zero = tf.equal(phi, 0)

    def conditioned(r, rr):
        """`M r`, and its product with `r`."""
        if preconditioner is None:
            return r, rr
        z = preconditioner._mv(r)
        return z, nest.dot(r, z)

    def step(i, x, r, p, rz):
        Ap = A._mv(p)
        alpha, ending = step_length(rz, nest.dot(p, Ap), tf.equal(i, 0) & from_zero)
        r = nest.add_scaled(r, -alpha, Ap)
        rr = nest.squared_norm(r)
        z, new_rz = conditioned(r, rr)
        vectors = nest.add_scaled(x, alpha, p), r, nest.add_scaled(z, new_rz / rz, p), new_rz
        # Along p the slope of φ is −⟨r, z⟩ and α its minimum, so it falls by half of their product.
        return vectors, rr, alpha * rz / 2, ending

    rr = start if x0 is None else nest.squared_norm(r)
    loop = Loop(tolerance, max_iterations, progress_tolerance, objective)
    solution = loop.run(step, (x, r, *conditioned(r, rr)), (start, rr, phi), lambda x: x)
    if x0 is None:
        return solution
    # Of an indefinite matrix a start that is not zero can lead uphill.
    downhill = nest.dot(b, solution.value) > 0
    return solution._replace(
        value=nest.map_live(lambda x, b: tf.where(downhill, x, b), solution.value, b)
    )


def _started(A, b, x0):
    """The first iterate, its residual, and `φ` there."""
    if x0 is None:
        zero = tf.zeros([], nest.accumulator_dtype(b))
        return nest.map_live(tf.zeros_like, b), b, zero
    Ax = A._mv(x0)
    slope, curvature = nest.dots([(b, x0), (x0, Ax)])
    # Zero where φ has no minimum along x0, or x0 is zero.
    factor = tf.where(curvature > 0, tf.math.divide_no_nan(slope, curvature), 0)
    return nest.scale(factor, x0), nest.add_scaled(b, -factor, Ax), -factor * slope / 2


def range_space_cg(
    J,
    H,
    c,
    damping,
    tolerance=1e-3,
    max_iterations=100,
    progress_tolerance=None,
    objective=None,
):
    """Conjugate gradients for `(Jᵀ H J + λ I) x = Jᵀ c`, run in the space of the outputs.

    Every vector of `cg` on this system is `Jᵀ` of an output vector, so those are kept instead. The
    iterates are the same; the vector algebra, which costs a large net a third of a gradient an
    iteration, and the memory for four vectors of weights are saved.

    Args:
        J: `LinearMap` from the weights to the outputs.
        H: Symmetric `LinearMap` on the outputs.
        c: Vector of outputs.
        damping: `λ`.
        tolerance: Relative residual to stop at.
        max_iterations: Bound on the iterations.
        progress_tolerance: Share of `φ` by which it must fall an iteration, or None.
        objective: Function of weights, a scalar, that chooses among the iterates, or None; what is
            kept are vectors of outputs.

    Returns:
        `Solution`, its value in the space of the weights.

    Cost: One product with `Jᵀ`, `J` and `H` an iteration, and two more of the first.

    Example:

    >>> from keras_fwd._spaces.linear_map import diagonal, identity
    >>> A, c = diagonal(tf.constant([1.0, 2.0])), tf.constant([3.0, 5.0])
    >>> range_space_cg(A, identity(A.out_spec), c, damping=1.0).value.numpy().round(4)
    array([1.5, 2. ], dtype=float32)
    """

    def squared(rho):
        u = J._mv(J._transpose_mv(rho))
        # It is ‖Jᵀ ρ‖², which rounding may make negative near the solution.
        return u, tf.maximum(nest.dot(rho, u), 0.0)

    def step(i, y, rho, pi, q, rr):
        image = nest.add_scaled(H._mv(q), damping, pi)  # Jᵀ of it is the product with p = Jᵀ pi
        alpha, ending = step_length(rr, nest.dot(q, image), tf.equal(i, 0))
        rho = nest.add_scaled(rho, -alpha, image)
        u, new_rr = squared(rho)
        beta = new_rr / rr
        y, pi = nest.add_scaled(y, alpha, pi), nest.add_scaled(rho, beta, pi)
        vectors = y, rho, pi, nest.add_scaled(u, beta, q), new_rr
        return vectors, new_rr, alpha * rr / 2, ending

    u, start = squared(c)
    zeros = nest.map_live(tf.zeros_like, c)
    loop = Loop(tolerance, max_iterations, progress_tolerance, objective)
    scalars = start, start, tf.zeros_like(start)
    return loop.run(step, (zeros, c, c, u, start), scalars, J._transpose_mv)


class ConjugateGradient:
    """Matrix-free: `C` is only known by its products.

    Args:
        curvature: `C`, a `LinearMap`.
        gradient: `g`.
        tolerance: Relative residual to stop at.
        max_iterations: Bound on the iterations.
        preconditioner: Function of the damping: a `LinearMap` near `(C + damping · I)⁻¹`; or None.
        **options: The start, the test of progress and the objective of `cg`.
    """

    def __init__(
        self, curvature, gradient, tolerance, max_iterations, preconditioner=None, **options
    ):
        self._curvature = curvature
        self._gradient = gradient
        self._limits = tolerance, max_iterations
        self._preconditioner = preconditioner
        self._options = options

    def solve(self, damping):
        """`Solution` of `(C + damping · I) x = g`, by `cg`."""
        C = self._curvature

        def product(x):
            return nest.add_scaled(C._mv(x), damping, x)

        damped = LinearMap(product, product, C.in_spec, C.out_spec)
        near = None if self._preconditioner is None else self._preconditioner(damping)
        return cg(damped, self._gradient, *self._limits, near, **self._options)


class RangeSpaceConjugateGradient:
    """Matrix-free, for a gradient that is all `Jᵀ c`: no term acts on the weights alone."""

    def __init__(self, jacobian, hessian, cotangent, tolerance, max_iterations, **options):
        self._parts = jacobian, hessian, cotangent
        self._limits = tolerance, max_iterations
        self._options = options

    def solve(self, damping):
        """`Solution` of `(Jᵀ H J + damping · I) x = Jᵀ c`, by `range_space_cg`."""
        return range_space_cg(*self._parts, damping, *self._limits, **self._options)
