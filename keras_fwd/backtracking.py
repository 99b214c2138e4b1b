"""Iterates of conjugate gradients that are kept, and the best of them by another measure.

Later iterates are better for the quadratic, not always for the function that it is a model of.
"""

import bisect
import math

import tensorflow as tf

from keras_fwd._spaces import nest

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
