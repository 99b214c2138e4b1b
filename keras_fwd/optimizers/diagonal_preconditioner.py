"""The diagonal of the curvature of one batch as the preconditioner of a system on that batch."""

import tensorflow as tf

from keras_fwd._curvature import fisher
from keras_fwd._spaces import nest
from keras_fwd._spaces.linear_map import LinearMap
from keras_fwd.errors import ConfigurationError

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
        model_pass: The `keras_fwd._models.training_pass.TrainingPass` that the curvature is taken from.
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
