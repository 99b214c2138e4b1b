"""The quadratic model of the loss on the plane of a direction and the last step."""

import tensorflow as tf

from keras_fwd import nest
from keras_fwd.solvers import Solution, Status


class Plane:
    """Solves for the step `−α d + μ s` that makes the damped quadratic model smallest.

    The curvature on the plane is the exact GGN on the batch, from two pushforwards.

    Args:
        expansion: The `Expansion` of the loss; its curvature is not used.
        hessian: The loss's Hessian in the outputs.
        ridge: Curvature of the weights' regularizers, or None: list like the weights.
        direction: `d`, a list like the weights.
        last: `s`, the last step.
        damping: `λ`.
        length: A given multiple of `d` to step by, instead of the best one.

    References:
        Martens and Grosse (2015), section 7.
    """

    def __init__(self, expansion, hessian, ridge, direction, last, damping, length=None):
        self._vectors = direction, last
        self._damping = damping
        self._length = length
        pairs = [(0, 0), (0, 1), (1, 1)]
        pushed = [expansion.jacobian._mv(v) for v in self._vectors]
        curved = [hessian._mv(p) for p in pushed]
        self._slope = [nest.dot(expansion.gradient, v) for v in self._vectors]
        self._lengths = [nest.dot(self._vectors[i], self._vectors[j]) for i, j in pairs]
        self._curvature = [nest.dot(pushed[i], curved[j]) for i, j in pairs]
        if ridge is not None:
            ridged = [nest.map_live(tf.multiply, ridge, v) for v in self._vectors]
            extra = [nest.dot(self._vectors[i], ridged[j]) for i, j in pairs]
            self._curvature = [c + e for c, e in zip(self._curvature, extra, strict=True)]
        self.predicted_change = self.step_size = tf.zeros_like(self._slope[0])  # of the last solve

    def solve(self, damping):
        """`Solution`: the negative of the step, shorter by as much as the damping was raised."""
        least = 1e-8  # see `damping.adapt`
        shorter = tf.maximum(damping, least) / tf.maximum(self._damping, least)
        pairs = zip(self._curvature, self._lengths, strict=True)
        a, b, c = (
            tf.cast(shorter, curved.dtype)
            * (curved + tf.cast(self._damping, curved.dtype) * square)
            for curved, square in pairs
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
        x, y = x * first, y * second
        if self._length is not None:
            x, y = self._length / tf.cast(shorter, one.dtype), zero
        self.step_size = tf.abs(x)
        u, v, w = self._curvature
        slope = self._slope[0] * x + self._slope[1] * y
        self.predicted_change = slope + (u * x * x + 2 * v * x * y + w * y * y) / 2
        step = nest.add_scaled(nest.scale(x, self._vectors[0]), y, self._vectors[1])
        return Solution(
            nest.scale(-1.0, step), tf.constant(int(Status.CONVERGED)), tf.constant(1), zero
        )
