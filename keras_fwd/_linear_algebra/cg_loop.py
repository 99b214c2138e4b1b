"""The loop of conjugate gradients: when it ends, what it keeps, how it reports."""

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution, Status
from keras_fwd.backtracking import Iterates
from keras_fwd.stopping import Progress

#: In the place of a status, as long as there is none.
RUNNING = -1


def step_length(rz, curvature, alone):
    """`α`, and `RUNNING`, or the status if the curvature allows no step."""
    finite = tf.math.is_finite(curvature)
    bad = tf.where(finite, int(Status.NEGATIVE_CURVATURE), int(Status.NOT_FINITE))
    good = finite & (curvature > 0)
    # Without curvature to scale it, the first direction, which is b, is returned as it is.
    unscaled = tf.where(alone, tf.ones_like(rz), tf.zeros_like(rz))
    return tf.where(good, rz / curvature, unscaled), tf.where(good, RUNNING, bad)


class Loop:
    """The loop of conjugate gradients; for the arguments see `cg`."""

    def __init__(self, tolerance, max_iterations, progress_tolerance, objective):
        self._tolerance, self._most = tolerance, max_iterations
        self._objective = objective
        no_test = progress_tolerance is None
        self._progress = None if no_test else Progress(progress_tolerance, max_iterations)
        self._iterates = None if objective is None else Iterates(max_iterations)

    def run(self, step, vectors, scalars, value):
        """The `Solution`.

        Args:
            step: Function of the number of iterations made and the vectors: the next vectors, the
                squared norm of the residual, by how much `φ` fell, and a status or `RUNNING`.
            vectors: Tuple of them at the start, the iterate first.
            scalars: Squared norm of the right-hand side; of the residual at the start; `φ` there.
            value: Function of an iterate: the solution.
        """
        start, rr, phi = scalars
        target = tf.cast(self._tolerance, start.dtype) ** 2 * start

        def body(i, vectors, rr, _, past, kept):
            vectors, new_rr, fall, ending = step(i, *vectors)
            good = tf.equal(ending, RUNNING)
            if self._progress is not None:
                past, stop = self._progress.after(i + 1, fall, past)
                ending = tf.where(good & stop, int(Status.LITTLE_PROGRESS), ending)
            ending = tf.where(good & (new_rr <= target), int(Status.CONVERGED), ending)
            if self._iterates is not None:
                kept = self._iterates.after(i + 1, vectors[0], kept)
            return i + 1, vectors, tf.where(good, new_rr, rr), ending, past, kept

        solved = (start <= 0) | (rr < start) & (rr <= target)
        status = tf.where(solved, int(Status.CONVERGED), RUNNING)
        status = tf.where(tf.math.is_finite(start), status, int(Status.NOT_FINITE))
        past = () if self._progress is None else self._progress.start(phi)
        kept = () if self._iterates is None else self._iterates.start(vectors[0])
        i, vectors, rr, status, _, kept = tf.while_loop(
            lambda i, vectors, rr, status, past, kept: (status < 0) & (i < self._most),
            body,
            (tf.constant(0), vectors, rr, status, past, kept),
            parallel_iterations=1,
        )
        status = tf.where(status < 0, int(Status.MAX_ITERATIONS), status)
        if self._iterates is None:
            x = value(vectors[0])
        else:
            x = self._iterates.best(i, kept, value, self._objective)
        return Solution(x, status, i, tf.sqrt(tf.math.divide_no_nan(rr, start)))
