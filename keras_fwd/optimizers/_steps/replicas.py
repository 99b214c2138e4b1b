"""Training on several devices: what replicas send each other, and how they share work.

Under a `tf.distribute` strategy the training step runs once in each replica, on its share of the
batch. Keras scales a replica's loss so that the loss of the whole batch, and all that is linear in
it, is the sum over the replicas. What follows from such sums is the same in all of them, so that
each can assign its own copy of a variable. With one replica, all functions here do nothing.

TensorFlow lets replicas communicate at the top level of the step only, not in a branch or a loop.
What is not always due is therefore sent as a vector that is empty when it is not.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


def count():
    """How many replicas run this step."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def index():
    """Which of them this one is."""
    if count() == 1:
        return 0
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    return int(tf.get_static_value(number)) if tf.is_tensor(number) else number


def sums(tensors):
    """Of each tensor of a list, over the replicas."""
    return tensors if count() == 1 else _all_reduce("sum", tensors)


def means(tensors):
    """The same tensors in all replicas, where they were equal but for rounding."""
    return tensors if count() == 1 else _all_reduce("mean", tensors)


def first(tensors):
    """The tensors of the first replica, in all of them."""
    if count() == 1:
        return tensors
    mine = index() == 0
    return sums([tensor if mine else tf.zeros_like(tensor) for tensor in tensors])


def gather(tensor):
    """Those of all replicas, one after the other along the first axis; it may differ in length."""
    if count() == 1:
        return tensor
    return tf.distribute.get_replica_context().all_gather(tensor, axis=0)


def _all_reduce(how, tensors):
    result = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # packed together if they agree
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        context = tf.distribute.get_replica_context()
        reduced = context.all_reduce(how, [tensors[i] for i in places])
        for i, tensor in zip(places, reduced, strict=True):
            result[i] = tensor
    return result


def own_seed(seed):
    """A pair of integers for random numbers that must differ from replica to replica."""
    return seed if count() == 1 else tf.random.experimental.stateless_fold_in(seed, index())


def once(make):
    """Call a function that makes variables, once for all replicas, outside of any graph."""
    if count() == 1:
        with tf.init_scope(), tf.variable_creator_scope(_outside):
            make()
        return

    def across(strategy):
        with tf.init_scope(), strategy.scope(), tf.variable_creator_scope(_outside):
            make()

    tf.distribute.get_replica_context().merge_call(across)


def _outside(create, **arguments):
    """Make a variable that does not count as made in a trace: TensorFlow would trace once more."""
    return create(**{**arguments, "experimental_enable_variable_lifting": False})


class Job(NamedTuple):
    """Work that is not due in each step.

    Attributes:
        due: Boolean scalar, the same in all replicas.
        measure: Function without arguments; returns a list of tensors.
        use: Function of their sums over the replicas, which assigns variables.
        like: List of tensors or variables with the dtypes and shapes of what is measured.
        owner: The replica that does the work for all, or None if each has a part in it.
    """

    due: tf.Tensor
    measure: Callable
    use: Callable
    like: list
    owner: int | None = None


def carry_out(jobs):
    """Do what is due of a list of `Job`s; what all of them send goes together."""
    if count() == 1:
        done = []
        for job in jobs:  # one after the other, so that their memory is not needed at once
            with tf.control_dependencies(done):
                done = [_use_if_due(job, job.measure)]
        return
    parts = [_flat_if_due(job) for job in jobs]
    received = iter(sums([tensor for part in parts for tensor in part]))
    for job, part in zip(jobs, parts, strict=True):
        vectors = [next(received) for _ in part]

        def shaped(job=job, vectors=vectors):
            pairs = zip(vectors, job.like, strict=True)
            return [tf.reshape(vector, like.shape) for vector, like in pairs]

        _use_if_due(job, shaped)


def _use_if_due(job, tensors):
    def use():
        job.use(tensors())
        return tf.constant(0)

    return tf.cond(job.due, use, lambda: tf.constant(0))


def _flat_if_due(job):
    """What this replica measures, as vectors; empty ones if the job is not due."""

    def measured():
        return [tf.reshape(tensor, [-1]) for tensor in job.measure()]

    def zeros():
        return [tf.zeros([like.shape.num_elements()], like.dtype) for like in job.like]

    def empty():
        return [tf.zeros([0], like.dtype) for like in job.like]

    mine = job.owner is None or job.owner == index()
    vectors = tf.nest.flatten(tf.cond(job.due, measured if mine else zeros, empty))
    for vector in vectors:
        vector.set_shape([None])
    return vectors


# Rows of a least-squares problem made fewer, so that parts of it can be put together.


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
    if count() == 1:
        return rows, residual
    if reduced:
        rows, residual = triangle(rows, residual)
    both = gather(tf.concat([rows, residual[:, None]], axis=1))
    return both[:, :-1], both[:, -1]
