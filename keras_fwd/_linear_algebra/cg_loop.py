"""The loop of conjugate gradients: when it ends, what it keeps, how it reports."""

import bisect
import math

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution, Status
from keras_fwd._spaces import nest

# Iterates of conjugate gradients that are kept, and the best of them by another measure.
#
# Later iterates are better for the quadratic, not always for the function that it is a model of.

#: Distances between the iterates that are kept grow by this factor.
GROWTH = 1.3


class Iterates:
    """Those after `⌈1.3ʲ⌉` iterations, and the last.

    The state is one tensor for each leaf, with a slot for each iterate along a new first axis. An
    iterate is written to the slot of the next one that is to be kept, so that the last is there
    wherever the iterations end.

    Args:
        max_iterations: Bound on the iterations, an integer.

    References:
        Martens, Deep learning via Hessian-free optimization, ICML (2010), section 4.6.
    """

    def __init__(self, max_iterations):
        kept, j = {max_iterations}, 0
        while (place := math.ceil(GROWTH**j)) < max_iterations:
            kept.add(place)
            j += 1
        places = sorted(kept)
        self.count = len(places)
        self._slots = [bisect.bisect_left(places, i) for i in range(max_iterations + 1)]

    def start(self, x):
        """The state before the first iteration."""

        def slots(leaf):
            filled = tf.repeat(leaf[None], self.count, axis=0)
            return tf.ensure_shape(filled, [self.count, *leaf.shape])

        return nest.map_live(slots, x)

    def after(self, i, x, kept):
        """The state with the iterate after iteration `i`, from 1."""
        place = [[self._slot(i)]]
        return nest.map_live(
            lambda slots, leaf: tf.tensor_scatter_nd_update(slots, place, leaf[None]), kept, x
        )

    def best(self, i, kept, value, objective):
        """Of the iterates kept in `i` iterations, from the last on back as long as they get better.

        Args:
            i: Number of iterations.
            kept: The state.
            value: Function of an iterate: what is judged and returned.
            objective: Function of that, a scalar: the smaller the better.
        """

        def judged(slot):
            found = value(nest.map_live(lambda slots: tf.gather(slots, slot), kept))
            loss = objective(found)
            worst = tf.constant(float("inf"), loss.dtype)
            # One that is not finite loses against any other.
            return found, tf.where(tf.math.is_finite(loss), loss, worst)

        def body(slot, best, least, _):
            found, loss = judged(slot)
            better = (loss < least) | tf.math.is_inf(least)
            best = nest.map_live(lambda new, old: tf.where(better, new, old), found, best)
            return slot - 1, best, tf.where(better, loss, least), better

        last = self._slot(i)
        _, best, *_ = tf.while_loop(
            lambda slot, best, least, better: better & (slot >= 0),
            body,
            (last - 1, *judged(last), tf.constant(True)),
            parallel_iterations=1,
        )
        return best

    def _slot(self, i):
        return tf.gather(tf.constant(self._slots), i)


# When conjugate gradients should stop though their residual is still large: by their progress.
#
# They lower `φ(x) = ½⟨x, A x⟩ − ⟨b, x⟩` in each iteration, the residual only in the end.

#: Progress is measured over this many iterations at least, and over this share of all.
SPAN = 10
SHARE = 10


class Progress:
    """Whether the last iterations lowered `φ` by too little.

    After iteration `i`, with `k = max(10, i / 10)`: `i > k`, `φ(xᵢ) < 0` and
    `(φ(xᵢ) − φ(xᵢ₋ₖ)) / φ(xᵢ) < k ε`. Its state are the last values of `φ`, a tensor.

    Args:
        tolerance: `ε`.
        max_iterations: Bound on the iterations, an integer: it tells how many values are kept.

    References:
        Martens, Deep learning via Hessian-free optimization, ICML (2010), section 4.4.
    """

    def __init__(self, tolerance, max_iterations):
        self._tolerance = tolerance
        self._size = 1 + max(SPAN, -(-max_iterations // SHARE))

    def start(self, phi):
        """The state before the first iteration."""
        return tf.fill([self._size], phi)

    def after(self, i, fall, past):
        """The state after iteration `i`, from 1, in which `φ` fell; and whether to stop."""
        # The state is a ring: the value after iteration i stands at i modulo its size.
        phi = tf.gather(past, (i - 1) % self._size) - fall
        past = tf.where(tf.equal(tf.range(self._size), i % self._size), phi, past)
        k = tf.maximum(SPAN, -(-i // SHARE))
        change = phi - tf.gather(past, (i - k) % self._size)
        bound = tf.cast(k, phi.dtype) * tf.cast(self._tolerance, phi.dtype) * phi
        return past, (i > k) & (phi < 0) & (change > bound)


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
    """The loop of conjugate gradients, whatever space its vectors live in.

    Args:
        tolerance: Relative residual to stop at.
        max_iterations: Bound on the iterations.
        progress_tolerance: Share of `φ` by which it must fall an iteration, or None.
        objective: Function of a solution, a scalar, that chooses among the iterates kept, or None
            for the last.
    """

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
            # Last, for it outranks little progress.
            ending = tf.where(good & (new_rr <= target), int(Status.CONVERGED), ending)
            if self._iterates is not None:
                kept = self._iterates.after(i + 1, vectors[0], kept)
            # A step along a bad direction has not been made: the residual is the one before it.
            return i + 1, vectors, tf.where(good, new_rr, rr), ending, past, kept

        # From zero (rr is start) one step is made even if the tolerance is 1: a solution of zero
        # would be no direction.
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
