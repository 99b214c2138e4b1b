"""The Kronecker factors of one batch as the preconditioner of a linear system on that batch."""

import tensorflow as tf

from keras_fwd._curvature import fisher
from keras_fwd._curvature.blocks import blocks, kronecker
from keras_fwd._curvature.blocks import statistics as block_statistics
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError


class BatchPreconditioner:
    """Function of the damping `λ`: a `LinearMap` near `(C + λ I)⁻¹`, symmetric positive definite.

    `C` is the damped system's own: the GGN of the batch and the curvature of the regularizers. The
    factors are those of this batch alone: averages over steps, as K-FAC keeps them, are further
    from the system that is to be solved, and need more iterations (up to twice as many on an
    autoencoder). So there is no state.

    Args:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`, in a graph.
        hessian: The loss's Hessian in the outputs.
        ridge: Curvature of the weights' regularizers, a list like the weights.
        step: Number of the step, int32 scalar: the seed of the random signs.

    Raises:
        ConfigurationError: a loss of unknown form, and too many outputs to decompose its Hessian.

    Cost: A pullback and the second moments; for each damping the inverses.
    """

    def __init__(self, model_pass, expansion, hessian, ridge, step):
        self._spec = nest.spec(expansion.gradient)
        self._blocks = blocks.of_forward_pass(expansion.forward, expansion.leaves, "expand")
        cotangents = fisher.Cotangents(
            "monte-carlo", model_pass, expansion.leaves, hessian, tf.stack([0, step])
        )
        found = block_statistics.of_batch(self._blocks, expansion.forward, cotangents)
        finite = expansion.finite & nest.all_finite(found)
        # Zeros stand for factors that are not finite: their inverse does no harm.
        self._statistics = nest.map_live(lambda t: tf.where(finite, t, tf.zeros_like(t)), found)
        self._ridge = ridge

    def __call__(self, damping):
        """The preconditioner of the system with this damping."""
        inverses = [
            _inverse(block, statistics, self._damping_of(block, damping))
            for block, statistics in zip(self._blocks, self._statistics, strict=True)
        ]

        def product(vector):
            result = list(vector)
            for block, inverse in zip(self._blocks, inverses, strict=True):
                mine = inverse([vector[i] for i in block.places])
                for i, value in zip(block.places, mine, strict=True):
                    result[i] = tf.cast(value, vector[i].dtype)
            return result

        return LinearMap(product, product, self._spec, self._spec)

    def _damping_of(self, block, damping):
        """With the regularizers of its weights, in the mean: without, those would be overstated."""
        ridges = [tf.cast(self._ridge[i], block.dtype) for i in block.places]
        total = tf.add_n([tf.reduce_sum(ridge) for ridge in ridges])
        return tf.cast(damping, block.dtype) + total / block.size


def _inverse(block, statistics, damping):
    """The function that multiplies the values of a block's weights with its damped inverse."""
    if block.kind == "Kronecker":
        left, right = kronecker.damped_inverses(*statistics, damping)
        return lambda values: block.values(kronecker.sandwich(left, block.matrix(values), right))
    inverse = kronecker.damped_inverse(tf.reshape(statistics[0], [1, -1]), damping[None])
    inverse = tf.reshape(inverse, block.shape)
    return lambda values: [tf.cast(values[0], block.dtype) * inverse]


# The diagonal of the curvature of one batch as the preconditioner of a system on that batch.

#: How many probes the diagonal is estimated from. With one, a badly scaled net needs more
#: iterations than without a preconditioner; more than four save few.
PROBES = 4
#: Martens' choice. With 1, the factors by which the estimate errs at single weights show in full.
EXPONENT = 0.75
#: What counts as zero, beside the largest entry.
SMALLEST = 1e-7


class DiagonalPreconditioner:
    """Function of the damping `λ`: `(diag(C) + λ)^(−0.75)`, a `LinearMap`, positive definite.

    `C` is the damped system's own. Where the loss's Hessian has a root `SᵀS = H` the mean of the
    `(Jᵀ Sᵀ z)²` over random signs `z` is the diagonal of the GGN `Jᵀ H J`, and each is positive;
    else that of the `z ⊙ (Jᵀ H J z)`, `z` random signs of weights, which are cut off at zero.

    Args:
        model_pass: The `TrainingPass` that the curvature is taken from.
        leaves: Its curvature leaves.
        hessian: The loss's Hessian in them.
        jacobian: `LinearMap` from the weights to the leaves, which may be wider than these.
        products: The GGN, a `LinearMap` on the weights.
        ridge: Curvature of the weights' regularizers, a list like the weights.
        step: Number of the step, int32 scalar: the seed of the random signs.

    Cost: A pullback for each of four probes; without a root a product.

    References:
        Martens, Deep learning via Hessian-free optimization, ICML (2010), section 4.7; Martens,
        Sutskever and Swersky, Estimating the Hessian by back-propagating curvature, ICML (2012).
    """

    def __init__(self, model_pass, leaves, hessian, jacobian, products, ridge, step):
        self._spec = jacobian.in_spec
        self._ridge = ridge

        def from_root(seed):
            random = cotangents.random(seed)
            wide = nest.map_live(lambda s, c: tf.cast(c, s.dtype), jacobian.out_spec, random)
            return nest.map_live(tf.square, jacobian._transpose_mv(wide))

        def from_products(seed):
            signs = fisher.random_signs(model_pass.variables, seed)
            return nest.map_live(tf.multiply, signs, products._mv(signs))

        def mean(sample):
            samples = [sample(tf.stack([probe, step])) for probe in range(PROBES)]
            return nest.scale(1 / PROBES, nest.map_live(lambda *s: tf.add_n(s), *samples))

        try:
            seed = tf.stack([0, step])
            cotangents = fisher.Cotangents("monte-carlo", model_pass, leaves, hessian, seed)
            diagonal = mean(from_root)
        except ConfigurationError:  # no root of an unknown loss with many outputs
            diagonal = mean(from_products)
        self.diagonal = nest.map_live(
            lambda d: tf.where(tf.math.is_finite(d), tf.maximum(d, 0.0), 0.0), diagonal
        )

    def __call__(self, damping):
        """The preconditioner of the system with this damping."""
        sums = nest.map_live(
            lambda d, ridge: d + tf.cast(ridge, d.dtype) + tf.cast(damping, d.dtype),
            self.diagonal,
            self._ridge,
        )
        largest = tf.reduce_max([tf.cast(tf.reduce_max(s), tf.float32) for s in nest.live(sums)])
        least = tf.where(largest > 0, SMALLEST * largest, 1.0)
        factors = nest.map_live(lambda s: tf.maximum(s, tf.cast(least, s.dtype)) ** -EXPONENT, sums)

        def product(vector):
            return nest.map_live(tf.multiply, factors, vector)

        return LinearMap(product, product, self._spec, self._spec)
