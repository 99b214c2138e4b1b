"""The Kronecker factors of one batch as the preconditioner of a linear system on that batch."""

import tensorflow as tf

from keras_fwd._curvature import fisher
from keras_fwd._curvature.blocks import blocks, kronecker
from keras_fwd._curvature.blocks import statistics as block_statistics
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap


class BatchPreconditioner:
    """Function of the damping `λ`: a `LinearMap` near `(C + λ I)⁻¹`, symmetric positive definite.

    `C` is the damped system's own: the GGN of the batch and the curvature of the regularizers. The
    factors are those of this batch alone: averages over steps, as K-FAC keeps them, are further
    from the system that is to be solved, and need more iterations (up to twice as many on an
    autoencoder). So there is no state.

    Args:
        model_pass: The `keras_fwd._models.training_pass.TrainingPass` of the batch.
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
