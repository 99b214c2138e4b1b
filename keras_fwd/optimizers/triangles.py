"""Rows of a least-squares problem made fewer, so that parts of it can be put together."""

import tensorflow as tf

from keras_fwd.optimizers._steps import replicas


def triangle(rows, residual):
    """As many rows as columns, with the same `AᵀA` and `Aᵀb`: `R` and `Qᵀ b` of `A = Q R`.

    Args:
        rows: `A`, `[m, n]`; `m` may be 0.
        residual: `b`, `[m]`.

    Returns:
        `[n, n]` and `[n]`, their last rows zero if m is less than n. Computed in double precision.
    """
    n, dtype = rows.shape[1], rows.dtype
    rows, residual = tf.cast(rows, tf.float64), tf.cast(residual, tf.float64)
    Q, R = tf.linalg.qr(rows)
    short = tf.linalg.matvec(Q, residual, transpose_a=True)
    missing = n - tf.shape(R)[0]
    R, short = tf.pad(R, [[0, missing], [0, 0]]), tf.pad(short, [[0, missing]])
    R, short = tf.ensure_shape(R, [n, n]), tf.ensure_shape(short, [n])
    return tf.cast(R, dtype), tf.cast(short, dtype)


def of_all_replicas(rows, residual, reduced):
    """The rows and residuals of all replicas.

    Args:
        rows: `A`, `[m, n]`, of this replica's share of the batch.
        residual: `b`, `[m]`.
        reduced: Whether each replica may send a triangle in the place of its rows.

    References:
        Demmel et al., Communication-optimal parallel and sequential QR and LU factorizations,
        SIAM J. Sci. Comput. 34 (2012).
    """
    if replicas.count() == 1:
        return rows, residual
    if reduced:
        rows, residual = triangle(rows, residual)
    both = replicas.gather(tf.concat([rows, residual[:, None]], axis=1))
    return both[:, :-1], both[:, -1]
