"""Lanczos' method: an orthonormal basis in which a symmetric map is tridiagonal."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._spaces import given, nest
from keras_fwd.errors import StructureError


class Tridiagonal(NamedTuple):
    """`V A Vᵀ = T` and `A Vᵀ = Vᵀ T + β_m v eᵀ_m`, with the Lanczos vectors as the rows of `V`.

    Attributes:
        diagonal: `[m]`, the diagonal of `T`.
        off_diagonal: `[m]`; its first m − 1 entries stand beside the diagonal of `T`, the last one
            is `β_m`, what leads out of the space: 0 if nothing does.
        vectors: `V`, `[m, n]`, orthonormal rows in the order of `nest.ravel`.
    """

    diagonal: tf.Tensor
    off_diagonal: tf.Tensor
    vectors: tf.Tensor


@tf.autograph.experimental.do_not_convert
def lanczos(A, iterations, start=None, seed=0):
    """An orthonormal basis in which a symmetric `A` is tridiagonal, by Lanczos' method.

    Every new vector is made orthogonal to all before it, twice. Where the space spanned so far is
    invariant (`β = 0`), a random vector outside of it goes on, so that multiple eigenvalues are
    found as often as they are there.

    Args:
        A: Symmetric `LinearMap` from a space of known size n to itself.
        iterations: `m`, the number of products with `A`; no more than n are made.
        start: Vector of the space to begin with, not normalized; default random.
        seed: Whole number for the random vectors.

    Returns:
        `Tridiagonal`, in the accumulator dtype of the space (float64 if a leaf is, else float32).

    Raises:
        ConfigurationError: `iterations` is not a whole number of at least 1.
        StructureError: `A` is not square, or of unknown size; `start` is not of its space.

    Cost: m products with `A`, 8 m² n operations beside them, and the memory of m vectors.

    References:
        Golub and Van Loan, Matrix Computations (2013), section 10.3; Parlett, The Symmetric
        Eigenvalue Problem (1998), chapter 13.

    Example:

    >>> from keras_fwd._spaces.linear_map import diagonal
    >>> A = diagonal(tf.constant([1.0, 3.0]))
    >>> T = lanczos(A, 2, start=tf.constant([1.0, 1.0]))
    >>> T.diagonal.numpy().round(4), T.off_diagonal.numpy().round(4)
    (array([2., 2.], dtype=float32), array([1., 0.], dtype=float32))
    """
    count, dtype = check_map("lanczos", A, iterations)
    key = random_key(seed, 0)
    if start is None:
        vector = tf.random.stateless_normal([count], key, dtype=dtype)
    else:
        vector = nest.ravel(given.match("lanczos", "start", start, A.in_spec), dtype)
    return tridiagonalize(A, min(iterations, count), vector, key)


def tridiagonalize(A, steps, start, key):
    """`lanczos` from a raveled vector, with `steps` no larger than its size.

    Args:
        A: The map.
        steps: `m`.
        start: `[n]`, of the accumulator dtype.
        key: What `random_key` returns, for the vectors that go on from an invariant space.
    """
    dtype, size = start.dtype, start.shape[0]
    epsilon = np.finfo(dtype.as_numpy_dtype).eps

    def step(j, w, norm, scale, T, V):
        # Below that there is no direction left in w, only rounding.
        ended = norm <= epsilon * scale
        v = tf.cond(ended, lambda: _elsewhere(V, key, j), lambda: w / norm)
        V = tf.tensor_scatter_nd_update(V, [[j]], v[None])
        image = nest.ravel(A._mv(nest.unravel(v, A.in_spec)), dtype)
        w = _outside(V, tf.reshape(image, [size]))
        norm, scale = tf.norm(w), tf.maximum(scale, tf.norm(image))
        beta = tf.where(norm <= epsilon * scale, tf.zeros_like(norm), norm)
        entries = tf.stack([tf.tensordot(v, image, 1), beta])
        return j + 1, w, norm, scale, tf.tensor_scatter_nd_update(T, [[j]], entries[None]), V

    *_, T, V = tf.while_loop(
        lambda j, *_: j < steps,
        step,
        (
            tf.constant(0),
            start,
            tf.norm(start),
            tf.zeros([], dtype),
            tf.zeros([steps, 2], dtype),
            tf.zeros([steps, size], dtype),
        ),
        parallel_iterations=1,
    )
    return Tridiagonal(T[:, 0], T[:, 1], V)


def _outside(V, w):
    """What of `w` is orthogonal to the rows of `V`, which are orthonormal or zero."""
    for _ in range(2):  # "twice is enough" (Parlett, section 6.9)
        w = w - tf.linalg.matvec(V, tf.linalg.matvec(V, w), transpose_a=True)
    return w


def _elsewhere(V, key, j):
    """A random unit vector orthogonal to the rows of `V`."""
    # Not the key itself, which drew the start.
    key = tf.random.experimental.stateless_fold_in(key, j + 1)
    w = _outside(V, tf.random.stateless_normal(V.shape[1:], key, dtype=V.dtype))
    return w / tf.norm(w)


def random_key(seed, stream):
    """A key for stateless random numbers: those of one stream of a seed."""
    return tf.stack([tf.cast(seed, tf.int32), tf.cast(stream, tf.int32)])


def check_map(call, A, iterations):
    """The size and the accumulator dtype of the space that `A` maps to itself."""
    check_count(call, "iterations", iterations)
    rows, columns = A.shape
    if rows is None or rows != columns or rows == 0:
        raise StructureError(
            f"{call}: `A` must map a space of known size to itself. Received: {A!r}. In a "
            "tf.function give tensors of fixed shapes; of a map that is not square take `A.T @ A`."
        )
    return rows, nest.accumulator_dtype(A.in_spec)
