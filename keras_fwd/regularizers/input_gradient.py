"""`InputGradient`: double backpropagation."""

import tensorflow as tf

from keras_fwd._models.serializable import serializable
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch
from keras_fwd.regularizers.examples import squared_norms
from keras_fwd.typing import Strength, Tensor


@serializable
class InputGradient(SensitivityRegularizer):
    """`‖∂ℓ/∂x‖²` of each example's loss ℓ, averaged over the batch.

    Args:
        strength: As in `SensitivityRegularizer`.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument; a model without a loss.

    Cost: A gradient by the inputs, and its derivative.

    References:
        Drucker and LeCun (1992), Improving generalization performance using double
        backpropagation, IEEE Transactions on Neural Networks 3.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, None, False, "ones")])
    >>> model.compile(loss="mse")
    >>> float(InputGradient(1.0)(model, tf.ones([1, 1]), tf.zeros([1, 1])))
    4.0
    """

    of_the_loss = True

    def __init__(self, strength: Strength, name: str = "input_gradient") -> None:
        super().__init__(strength, name)

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        return tf.reduce_mean(squared_norms(batch.gradient))
