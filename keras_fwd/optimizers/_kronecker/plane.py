"""The quadratic model of the loss on the plane of a direction and the last step."""

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Solution, Status
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import replicas


class Plane:
    """Solves for the step `−α d + μ s` that makes the damped quadratic model smallest.

    The curvature on the plane is the exact GGN of the sub-batch, from two pushforwards; the slope
    is that of the whole batch.

    Attributes:
        part: The `SubBatch`.
        predicted_change: Of the loss, by the undamped model, for the step solved for last.
        step_size: `α` of that step.
        slope_elsewhere: What the slope of the whole batch adds to that of the part, along it.

    Args:
        part: The `SubBatch`, of this replica's share.
        ridge: Curvature of the weights' regularizers, or None: list like the weights.
        gradient: Of the loss, a list like the weights.
        vectors: `(d, s)`, the direction and the last step, each a list like the weights; or the
            one step `d` that is to be taken as it is.
        damping: `λ`.

    References:
        Martens and Grosse (2015), section 7.
    """

    def __init__(self, part, ridge, gradient, vectors, damping):
        self.part = part
        self._vectors = vectors
        self._damping = damping
        count = len(vectors)
        self._pairs = [(i, j) for i in range(count) for j in range(i, count)]
        pairs = [(gradient, v) for v in vectors]
        pairs += [(vectors[i], vectors[j]) for i, j in self._pairs]
        # Equal but for rounding in all replicas; made equal, for decisions hang on them.
        both = replicas.means(nest.dots(pairs))
        self._slope, self._lengths = both[:count], both[count:]
        self._push(part.jacobian, part.hessian)
        if ridge is not None:
            ridged = [nest.map_live(tf.multiply, ridge, v) for v in vectors]
            extra = [nest.dot(vectors[i], ridged[j]) for i, j in self._pairs]
            self._curvature = [c + e for c, e in zip(self._curvature, extra, strict=True)]
        zero = tf.zeros_like(self._slope[0])
        self.predicted_change = self.step_size = self.slope_elsewhere = zero

    def _push(self, jacobian, hessian):
        """`⟨J v, H J w⟩` for each pair of vectors, and the slope of the part along each."""
        vectors, lengths = self._vectors, [1.0] * len(self._vectors)
        if any(leaf.dtype.size < 4 for leaf in nest.live(jacobian.out_spec)):
            # At length one: in half precision the products of a short step would be zero.
            lengths = [tf.maximum(nest.norm(v), 1e-30) for v in vectors]
            vectors = [nest.scale(1 / n, v) for n, v in zip(lengths, vectors, strict=True)]
        pushed = [jacobian._mv(v) for v in vectors]
        curved = [hessian._mv(p["outputs"]) for p in pushed]
        curvature = [
            lengths[i] * lengths[j] * nest.dot(pushed[i]["outputs"], curved[j])
            for i, j in self._pairs
        ]
        slope = [
            n * tf.cast(p["loss"], self._slope[0].dtype)
            for n, p in zip(lengths, pushed, strict=True)
        ]
        both = replicas.sums([*curvature, *slope])
        self._curvature, self._part_slope = both[: len(curvature)], both[len(curvature) :]

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
        slope, of_part = (
            tf.add_n([p * x for p, x in zip(slopes, shares, strict=True)])
            for slopes in (self._slope, self._part_slope)
        )
        self.predicted_change = slope + tf.add_n(curved) / 2
        self.slope_elsewhere = slope - of_part
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
