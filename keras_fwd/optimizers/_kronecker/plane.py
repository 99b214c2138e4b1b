"""The quadratic model of the loss on the plane of a direction and the last step."""

from typing import NamedTuple

import tensorflow as tf

from keras_fwd._linear_algebra.solution import Status
from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import replicas
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Pass, Values
from keras_fwd.optimizers._steps.sub_batch import SubBatch
from keras_fwd.optimizers._steps.trial import WholeBatch


class Point(NamedTuple):
    """A step on the plane, and what the model knows of it.

    Attributes:
        value: As of `Solution`, the descent: minus the step, like the weights.
        status: As of `Solution`: found, without iterations.
        iterations: One.
        predicted_change: Of the loss, by the undamped model.
        step_size: `α`, or the learning rate that is given.
        slope_elsewhere: What the slope of the whole batch adds to that of the part, along the step.
    """

    value: Values
    status: tf.Tensor
    iterations: tf.Tensor
    predicted_change: tf.Tensor
    step_size: tf.Tensor
    slope_elsewhere: tf.Tensor


class Plane:
    """Solves for the step `−α d + μ s` that makes the damped quadratic model smallest.

    The curvature on the plane is the exact GGN of the sub-batch, from two pushforwards; the slope
    is that of the whole batch.

    Args:
        part: The `SubBatch`, of this replica's share.
        ridge: Curvature of the weights' regularizers, or None: list like the weights.
        gradient: Of the loss, a list like the weights.
        vectors: `(d, s)`, the direction and the last step, each a list like the weights; or the
            one step `d` that is to be taken as it is.
        damping: `λ`.
        rate: The learning rate that the one step was made with.

    References:
        Martens and Grosse (2015), section 7.
    """

    def __init__(self, part, ridge, gradient, vectors, damping, rate):
        self._vectors = vectors
        self._rate = rate
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

    def solve(self, damping: tf.Tensor) -> Point:
        """The `Point` of the plane, nearer by as much as the damping was raised."""
        least = 1e-8  # see `damping.adapt`
        shorter = tf.maximum(damping, least) / tf.maximum(self._damping, least)
        shorter = tf.cast(shorter, self._slope[0].dtype)
        shares = self._best(shorter) if len(self._vectors) == 2 else [1 / shorter]
        curved = [
            c * shares[i] * shares[j] * (1 if i == j else 2)
            for c, (i, j) in zip(self._curvature, self._pairs, strict=True)
        ]
        slope, of_part = (
            tf.add_n([p * x for p, x in zip(slopes, shares, strict=True)])
            for slopes in (self._slope, self._part_slope)
        )
        step = nest.scale(shares[0], self._vectors[0])
        for share, vector in zip(shares[1:], self._vectors[1:], strict=True):
            step = nest.add_scaled(step, share, vector)
        return Point(
            nest.scale(-1.0, step),
            tf.constant(int(Status.CONVERGED)),
            tf.constant(1),
            predicted_change=slope + tf.add_n(curved) / 2,
            step_size=tf.abs(shares[0]) if len(shares) == 2 else self._rate,
            slope_elsewhere=slope - of_part,
        )

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
    """A step that is taken as it is.

    Args:
        step: The step.
        rate: The learning rate that it was made with.
    """

    def __init__(self, step: Values, rate: tf.Tensor) -> None:
        self._step = step
        self._rate = rate

    def solve(self, damping: tf.Tensor) -> Point:
        """The step, whatever the damping; nothing is expected of it."""
        del damping
        none = tf.zeros([])
        done = tf.constant(int(Status.CONVERGED)), tf.constant(1)
        return Point(nest.scale(-1.0, self._step), *done, none, self._rate, none)


class Decayed:
    """The step to a point, and the decay of weights along with it.

    Args:
        expansion: The `Expansion` of the batch.
        decay: Share of each weight that decays at a step size of 1, a list of floats.
    """

    def __init__(self, expansion: Expansion, decay: list[float]) -> None:
        self._expansion = expansion
        self._decay = decay

    def step(self, solution: Point) -> Values:
        """With the decay in proportion to the step size."""
        shares = [tf.cast(solution.step_size, tf.float32) * decay for decay in self._decay]
        step = nest.scale(-1.0, solution.value)
        triples = zip(step, self._expansion.values, shares, self._decay, strict=True)
        return [s - tf.cast(share, s.dtype) * w if decay else s for s, w, share, decay in triples]

    def curved(self, step: Values, damping: tf.Tensor) -> tuple[Values, tf.Tensor]:
        """The step as it is."""
        del damping
        return step, tf.constant(False)

    def predicted_change(self, step: Values, solution: Point) -> tf.Tensor:
        """Of the loss by the exact Gauss-Newton matrix on the batch; the decay is not counted."""
        del step
        return solution.predicted_change / replicas.count()


class OnPart(WholeBatch):
    """Steps are tried on the sub-batch that told their curvature.

    Args:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
        part: The `SubBatch`.
    """

    def __init__(self, model_pass: Pass, expansion: Expansion, part: SubBatch) -> None:
        super().__init__(model_pass, expansion)
        self._part = part

    def loss(self, values: Values) -> tf.Tensor:
        """On this replica's share of the part."""
        return self._part.loss_at(values)

    def beyond(self, solution: Point) -> tf.Tensor:
        """The slope is known from the whole batch; all else that a step does, from the part."""
        loss = self._expansion.loss
        return loss - self._part.loss + tf.cast(solution.slope_elsewhere, loss.dtype)
