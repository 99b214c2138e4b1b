"""Conjugate gradients over several replicas: the products first, the iterations after."""

import tensorflow as tf

from keras_fwd import nest
from keras_fwd.linear_map import LinearMap
from keras_fwd.optimizers import replicas
from keras_fwd.solvers import cg


class KrylovSystem:
    """`(C + λ I) x = g`, with a `C` that is the sum of what the replicas have of it.

    Replicas communicate outside of loops and branches only, and all dampings of a step have one
    Krylov space. So an orthonormal basis `V` of it is made when the system is, by Lanczos' method:
    one product with `C` and one sum over the replicas for each vector. There `C` is tridiagonal,
    and `cg` on its coordinates makes the same iterates, and stops by the same rules, as it does
    on the system itself.

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
        self._limits = tf.cast(tolerance, self._dtype), min(max_iterations, self._count)
        self._space = self._built(self._start(vector))

    def solve(self, damping):
        """`Solution` of `(C + damping · I) x = g`, as `cg` finds it."""
        alphas, betas, vectors = (self._space[name] for name in ("alphas", "betas", "vectors"))
        damping, none = tf.cast(damping, self._dtype), tf.zeros([1], self._dtype)
        diagonal = tf.concat([alphas, none], 0) + damping  # its last entry is never asked for

        def product(x):
            above, below = betas * x[1:], betas * x[:-1]
            return diagonal * x + tf.concat([above, none], 0) + tf.concat([none, below], 0)

        spec = tf.TensorSpec([None], self._dtype)
        right = tf.concat([self._norm[None], tf.zeros_like(alphas)], 0)
        T = LinearMap(product, product, spec, spec)
        solution = cg(T, right, self._limits[0], tf.size(alphas))
        value = tf.linalg.matvec(vectors, solution.value, transpose_a=True)
        value.set_shape([self._count])
        return solution._replace(value=nest.unravel(value, self._curvature.in_spec))

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
        alpha = tf.tensordot(vectors[-1], product, 1)
        for _ in range(2):  # once does not suffice where most of the product is in the space
            shares = tf.linalg.matvec(vectors, product)
            product -= tf.linalg.matvec(vectors, shares, transpose_a=True)
        beta = tf.norm(product)
        before = tf.concat([tf.zeros([1], self._dtype), space["betas"]], 0)[-1]
        squared = tf.math.divide_no_nan(before**2, space["pivot"])
        pivot = alpha + self._damping - squared
        return {
            "vectors": tf.concat([vectors, tf.math.divide_no_nan(product, beta)[None]], 0),
            "alphas": tf.concat([space["alphas"], alpha[None]], 0),
            "betas": tf.concat([space["betas"], beta[None]], 0),
            "pivot": pivot,
            "residual": space["residual"] * beta / pivot,
            "due": sent[-1] > 0.5,
        }
