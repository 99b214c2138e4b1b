"""`Curvature`: how much the gradient of the loss changes along the direction of an attack."""

from typing import Any

import tensorflow as tf

from keras_fwd._checks import check_number
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import nest
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import root, scale_examples, squared_norms, steepest
from keras_fwd.typing import Strength, Tensor


@serializable
class Curvature(SensitivityRegularizer):
    """`‖∇ℓ(x + h z) − ∇ℓ(x)‖²` of each example's loss ℓ, averaged over the batch.

    z is the sign of the gradient `∇ℓ(x)`, with length 1: the direction in which the loss rises
    fastest under a bound on every input.

    Args:
        strength: As in `SensitivityRegularizer`.
        step: h, a length in input space above 0; default 1.0. Not a step to zero: a network of
            ReLUs is flat inside its pieces, and the gradient changes from piece to piece.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument; a model without a loss.

    Cost: Two gradients by the inputs, one of them at another point, and their derivatives.

    References:
        Moosavi-Dezfooli, Fawzi, Uesato and Frossard (2019), Robustness via Curvature
        Regularization, and Vice Versa, arXiv:1811.09716 (CURE).

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, None, False, "ones")])
    >>> model.compile(loss="mse")
    >>> float(Curvature(1.0, step=0.5)(model, tf.ones([1, 1]), tf.zeros([1, 1])))
    1.0
    """

    of_the_loss = True

    def __init__(self, strength: Strength, step: float = 1.0, name: str = "curvature") -> None:
        super().__init__(strength, name)
        check_number(type(self).__name__, "step", step, above=True)
        self.step: float = float(step)

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        signs = steepest(batch.gradient)
        length = root(squared_norms(signs))
        # No step for an example whose gradient is zero: it has no direction.
        factors = tf.math.divide_no_nan(self.step * tf.ones_like(length), length)
        shift = scale_examples(factors, signs)
        change = nest.add_scaled(
            batch.gradient_at(nest.moved(batch.inputs, shift)), -1.0, batch.gradient
        )
        return tf.reduce_mean(squared_norms(change))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "step": self.step}
