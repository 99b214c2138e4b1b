"""Conjugate gradients over several replicas: the products first, the iterations after."""

import numpy as np
import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution, Status
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import replicas


class KrylovSystem:
    """`(C + λ I) x = g`, with a `C` that is the sum of what the replicas have of it.

    Replicas communicate outside of loops and branches only, and all dampings of a step have one
    Krylov space. So an orthonormal basis `V` of it is made when the system is, by Lanczos' method:
    one product with `C` and one sum over the replicas for each vector. There `C` is tridiagonal,
    and the iterate of `cg` with that many iterations solves its leading part. It stops by the same
    rules. The vectors stay orthogonal, which those of `cg` do not: where these have lost it, `cg`
    on one device needs more iterations to the same residual.

    The basis ends where the residual at the present damping is within the tolerance; more damping
    needs no more of it.

    Args:
        curvature: This replica's share of `C`, a symmetric `LinearMap`.
        gradient: `g`, the same in all replicas.
        damping: `λ` at present.
        tolerance: As in `cg`.
        max_iterations: As in `cg`.

    Cost: At most one product more than the iterations of `cg`, the memory of as many vectors.

    References:
        Golub and Van Loan, Matrix Computations (2013), sections 10.1 and 11.3.
    """

    def __init__(self, curvature, gradient, damping, tolerance, max_iterations):
        self._curvature = curvature
        vector = nest.ravel(gradient)
        self._count, self._dtype = vector.shape[0], vector.dtype
        self._norm = tf.norm(vector)
        self._damping = tf.cast(damping, self._dtype)
        self._rounding = np.finfo(self._dtype.as_numpy_dtype).eps
        self._limits = tf.cast(tolerance, self._dtype), min(max_iterations, self._count)
        self._space = self._built(self._start(vector))

    def solve(self, damping):
        """`Solution` of `(C + damping · I) x = g`: the iterate at which `cg` would stop."""
        alphas, betas, vectors = (self._space[name] for name in ("alphas", "betas", "vectors"))
        alphas, betas = (tf.pad(entries, [[0, 1]]) for entries in (alphas, betas))
        count, pivots, residual, status = self._factored(alphas, betas, damping)
        # From `T = L D Lᵀ`. Where not even the first pivot is positive, `g` itself, as in `cg`.
        places = tf.range(tf.size(pivots))
        below = tf.where(places < count, betas / pivots, 0.0)
        right = self._norm * tf.math.cumprod(-below, exclusive=True)
        right = tf.where(places < tf.maximum(count, 1), right / pivots, 0.0)
        none = tf.zeros([], self._dtype)
        shares = tf.scan(lambda y, row: row[0] - row[1] * y, (right, below), none, reverse=True)
        value = tf.linalg.matvec(vectors, shares, transpose_a=True)
        value = nest.unravel(tf.ensure_shape(value, [self._count]), self._curvature.in_spec)
        return Solution(value, status, count, residual)

    def _factored(self, alphas, betas, damping):
        """The iterations of `cg`, the pivots `D`, the relative residual, and the status."""
        diagonal, running = alphas + tf.cast(damping, self._dtype), tf.constant(-1)

        def step(count, last, pivots, residual, status):
            del status
            before = tf.where(count > 0, betas[tf.maximum(count - 1, 0)], 0.0)
            pivot = diagonal[count] - before**2 / last
            finite = tf.math.is_finite(pivot)
            good = finite & (pivot > 0)
            bad = tf.where(finite, int(Status.NEGATIVE_CURVATURE), int(Status.NOT_FINITE))
            pivot = tf.where(good, pivot, tf.ones_like(pivot))
            residual = tf.where(good, residual * betas[count] / pivot, residual)
            done = tf.where(residual <= self._limits[0], int(Status.CONVERGED), running)
            pivots = tf.tensor_scatter_nd_update(pivots, [[count]], [pivot])
            return (
                tf.where(good, count + 1, count),
                pivot,
                pivots,
                residual,
                tf.where(good, done, bad),
            )

        due = tf.where(self._norm > 0, running, int(Status.CONVERGED))
        start = tf.where(tf.math.is_finite(self._norm), due, int(Status.NOT_FINITE))
        one = tf.ones([], self._dtype)
        count, _, pivots, residual, status = tf.while_loop(
            lambda count, last, pivots, residual, status: (
                (status < 0) & (count < tf.size(diagonal) - 1)
            ),
            step,
            (tf.constant(0), one, tf.ones_like(diagonal), one, start),
        )
        return count, pivots, residual, tf.where(status < 0, int(Status.MAX_ITERATIONS), status)

    def _start(self, vector):
        """The space of one vector; `pivot` and relative `residual` are those of `cg`."""
        nothing, one = tf.zeros([0], self._dtype), tf.ones([], self._dtype)
        usable = tf.math.is_finite(self._norm) & (self._norm > 0)
        return {
            "vectors": tf.math.divide_no_nan(vector, self._norm)[None],
            "alphas": nothing,
            "betas": nothing,
            "pivot": one,
            "residual": one,
            "scale": tf.zeros([], self._dtype),
            "due": usable,
        }

    def _built(self, space):
        """The space as large as it is needed."""
        shapes = {"vectors": [None, self._count], "alphas": [None], "betas": [None]}
        spec = {
            name: tf.TensorSpec(shapes.get(name, []), tensor.dtype)
            for name, tensor in space.items()
        }
        sent = tf.TensorSpec([None], self._dtype)
        multiply, extend = (  # traced once for all iterations
            tf.function(function, autograph=False, reduce_retracing=True)
            for function in (self._multiply, self._extend)
        )
        multiply = multiply.get_concrete_function(spec)
        extend = extend.get_concrete_function(spec, sent)
        for _ in range(self._limits[1]):
            due = space["due"]
            part = tf.cond(due, lambda s=space: multiply(s), lambda: tf.zeros([0], self._dtype))
            part.set_shape([None])
            (product,) = replicas.sums([part])
            space = tf.cond(due, lambda s=space, p=product: extend(s, p), lambda s=space: s)
        return space

    def _multiply(self, space):
        """The share of `C v` for the last `v`; whether to go on after it, as one replica says."""
        product = self._curvature._mv(nest.unravel(space["vectors"][-1], self._curvature.in_spec))
        more = (tf.abs(space["residual"]) > self._limits[0]) & (replicas.index() == 0)
        return tf.concat([nest.ravel(product, self._dtype), tf.cast(more, self._dtype)[None]], 0)

    def _extend(self, space, sent):
        """The space with another vector: of the product, orthogonal to all that are there."""
        vectors, product = space["vectors"], tf.reshape(sent[:-1], [self._count])
        scale = tf.maximum(space["scale"], tf.norm(product))
        alpha = tf.tensordot(vectors[-1], product, 1)
        for _ in range(2):  # once does not suffice where most of the product is in the space
            shares = tf.linalg.matvec(vectors, product)
            product -= tf.linalg.matvec(vectors, shares, transpose_a=True)
        beta = tf.norm(product)
        # Below that nothing leads out of the space, and only rounding is left.
        beta = tf.where(beta <= self._rounding * scale, tf.zeros_like(beta), beta)
        before = tf.concat([tf.zeros([1], self._dtype), space["betas"]], 0)[-1]
        squared = tf.math.divide_no_nan(before**2, space["pivot"])
        pivot = alpha + self._damping - squared
        return {
            "vectors": tf.concat([vectors, tf.math.divide_no_nan(product, beta)[None]], 0),
            "alphas": tf.concat([space["alphas"], alpha[None]], 0),
            "betas": tf.concat([space["betas"], beta[None]], 0),
            "pivot": pivot,
            "residual": space["residual"] * beta / pivot,
            "scale": scale,
            "due": sent[-1] > 0.5,
        }
