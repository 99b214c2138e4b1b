"""`LocalLinearity`: how far the loss is from linear within a box around each example."""

from typing import Any

import tensorflow as tf

from keras_fwd._checks import check_count, check_number
from keras_fwd._derivatives import double_gradient
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import nest
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import dots, steepest
from keras_fwd.typing import Strength, Tensor


@serializable
class LocalLinearity(SensitivityRegularizer):
    """`γ + gradient_weight · |δᵀ∇ℓ|`, γ the local linearity measure; the mean over the batch.

    `γ = max |ℓ(x + δ) − ℓ(x) − δᵀ∇ℓ(x)|` over `|δᵢ| ≤ epsilon`, of each example's loss ℓ, and δ is
    where the maximum was found: from a random start by steps along the sign of the gradient.

    Args:
        strength: As in `SensitivityRegularizer`; λ in the paper.
        epsilon: Half the width of the box, in units of the inputs, above 0; default 0.1.
        num_steps: How many steps look for the maximum, each as long as `epsilon`; default 2.
        gradient_weight: Factor of the second term, at least 0; μ/λ in the paper, default 0.75.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument; a model without a loss.

    Cost: A forward pass and a gradient for each step; then a gradient by the inputs and a forward
        pass at the point found, and their derivatives.

    References:
        Qin et al. (2019), Adversarial Robustness through Local Linearization, arXiv:1907.02610.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, None, False, "ones")])
    >>> model.compile(loss="mse")
    >>> penalty = LocalLinearity(1.0, epsilon=0.5, gradient_weight=0.0)
    >>> float(penalty(model, tf.ones([1, 1]), tf.zeros([1, 1])))
    0.25
    """

    of_the_loss = True

    def __init__(
        self,
        strength: Strength,
        epsilon: float = 0.1,
        num_steps: int = 2,
        gradient_weight: float = 0.75,
        name: str = "local_linearity",
    ) -> None:
        super().__init__(strength, name)
        call = type(self).__name__
        check_number(call, "epsilon", epsilon, above=True)
        check_count(call, "num_steps", num_steps)
        check_number(call, "gradient_weight", gradient_weight)
        self.epsilon: float = float(epsilon)
        self.num_steps = num_steps
        self.gradient_weight: float = float(gradient_weight)

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""

        def deviation(shift):
            linear = batch.losses + dots(shift, batch.gradient)
            return tf.abs(batch.losses_at(nest.moved(batch.inputs, shift)) - linear)

        def clipped(delta):
            return nest.map_live(lambda d: tf.clip_by_value(d, -self.epsilon, self.epsilon), delta)

        delta = nest.random_like(batch.inside, batch.seed(0))
        delta = clipped(nest.map_live(lambda d: self.epsilon * d, delta))
        for _ in range(self.num_steps):
            live = nest.map_live(tf.stop_gradient, delta)
            _, slope = double_gradient.vjp(
                lambda leaves: deviation(nest.fill(batch.inside, leaves)),
                nest.live(live),
                tf.ones_like(batch.losses),
            )
            slope = nest.fill(batch.inside, slope)
            delta = clipped(nest.add_scaled(live, self.epsilon, steepest(slope)))
        # The point found is held: at a maximum its own movement does not change the value.
        delta = nest.map_live(tf.stop_gradient, delta)
        slope = tf.abs(dots(delta, batch.gradient))
        return tf.reduce_mean(deviation(delta) + self.gradient_weight * slope)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "num_steps": self.num_steps,
            "gradient_weight": self.gradient_weight,
        }
