"""The quadratic model of the loss on the plane of a direction and the last step."""

import tensorflow as tf

from keras_fwd import nest
from keras_fwd.optimizers import replicas
from keras_fwd.solvers import Solution, Status


class Plane:
    """Solves for the step `−α d + μ s` that makes the damped quadratic model smallest.

    The curvature on the plane is the exact GGN on the batch, from two pushforwards.

    Args:
        jacobian: `LinearMap` from the weights to the outputs, of this replica's share.
        hessian: The loss's Hessian in the outputs.
        ridge: Curvature of the weights' regularizers, or None: list like the weights.
        gradient: Of the loss, a list like the weights.
        vectors: `(d, s)`, the direction and the last step, each a list like the weights; or the
            one step `d` that is to be taken as it is.
        damping: `λ`.

    References:
        Martens and Grosse (2015), section 7.
    """

    def __init__(self, jacobian, hessian, ridge, gradient, vectors, damping):
        self._vectors = vectors
        self._damping = damping
        count = len(vectors)
        self._pairs = [(i, j) for i in range(count) for j in range(i, count)]
        pushed = [jacobian._mv(v) for v in vectors]
        curved = [hessian._mv(p) for p in pushed]
        slope = [nest.dot(gradient, v) for v in vectors]
        lengths = [nest.dot(vectors[i], vectors[j]) for i, j in self._pairs]
        # Equal but for rounding in all replicas; made equal, for decisions hang on them.
        both = replicas.means([*slope, *lengths])
        self._slope, self._lengths = both[:count], both[count:]
        of_share = [nest.dot(pushed[i], curved[j]) for i, j in self._pairs]
        self._curvature = replicas.sums(of_share)
        if ridge is not None:
            ridged = [nest.map_live(tf.multiply, ridge, v) for v in vectors]
            extra = [nest.dot(vectors[i], ridged[j]) for i, j in self._pairs]
            self._curvature = [c + e for c, e in zip(self._curvature, extra, strict=True)]
        self.predicted_change = self.step_size = tf.zeros_like(self._slope[0])  # of the last solve

    def solve(self, damping):
        """`Solution`: the negative of the step, shorter by as much as the damping was raised."""
        least = 1e-8  # see `damping.adapt`
        shorter = tf.maximum(damping, least) / tf.maximum(self._damping, least)
        shorter = tf.cast(shorter, self._slope[0].dtype)
        shares = self._best(shorter) if len(self._vectors) == 2 else [1 / shorter]
        self.step_size = tf.abs(shares[0])
        curved = [
            c * shares[i] * shares[j] * (1 if i == j else 2)
            for c, (i, j) in zip(self._curvature, self._pairs, strict=True)
        ]
        slopes = [p * x for p, x in zip(self._slope, shares, strict=True)]
        self.predicted_change = tf.add_n(slopes) + tf.add_n(curved) / 2
        step = nest.scale(shares[0], self._vectors[0])
        for share, vector in zip(shares[1:], self._vectors[1:], strict=True):
            step = nest.add_scaled(step, share, vector)
        done = tf.constant(int(Status.CONVERGED)), tf.constant(1), tf.zeros_like(shares[0])
        return Solution(nest.scale(-1.0, step), *done)

    def _best(self, shorter):
        """Shares of both vectors where the damped model, its curvature times a factor, is least."""
        a, b, c = (
            shorter * (curved + tf.cast(self._damping, curved.dtype) * square)
            for curved, square in zip(self._curvature, self._lengths, strict=True)
        )
        p, q = self._slope
        one, zero = tf.ones_like(a), tf.zeros_like(a)
        # In units of each vector's own length in the curvature; a zero vector takes no part.
        first = tf.where(a > 0, tf.math.rsqrt(tf.where(a > 0, a, one)), zero)
        second = tf.where(c > 0, tf.math.rsqrt(tf.where(c > 0, c, one)), zero)
        cosine = b * first * second
        p, q = p * first, q * second
        determinant = 1 - cosine**2
        apart = determinant > 1e-4  # else the two are one direction, to rounding
        x = tf.where(apart, -(p - cosine * q) / tf.where(apart, determinant, one), -p)
        y = tf.where(apart, -(q - cosine * p) / tf.where(apart, determinant, one), zero)
        return [x * first, y * second]


class Given:
    """A step that is taken as it is."""

    def __init__(self, step):
        self._step = step

    def solve(self, damping):
        """`Solution`: the negative of the step."""
        del damping
        done = tf.constant(int(Status.CONVERGED)), tf.constant(1), tf.constant(float("nan"))
        return Solution(nest.scale(-1.0, self._step), *done)
