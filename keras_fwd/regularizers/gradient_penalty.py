"""`GradientPenalty`: of critics in Wasserstein GANs."""

from typing import Any

import keras
import tensorflow as tf

from keras_fwd._checks import check_number
from keras_fwd._derivatives import double_gradient, example_jacobians
from keras_fwd._models.serializable import serializable
from keras_fwd._spaces import given, nest
from keras_fwd.errors import StructureError
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch, Replay
from keras_fwd.regularizers.examples import root, scale_examples, squared_norms
from keras_fwd.typing import Nest, Strength, Tensor, TensorLike


@serializable
class GradientPenalty(SensitivityRegularizer):
    """`(‖∂D/∂x̂‖ − target)²` of a critic D with one output, at interpolates; the mean.

    `x̂ = ε a + (1 − ε) b` with a random ε in [0, 1] for each pair of examples. In `fit` the pairs
    are the examples of a batch half a batch apart: a batch of real examples, and then as many
    generated ones, pairs every real one with a generated one. In a loop of one's own call
    `between(critic, real, generated)`.

    Args:
        strength: As in `SensitivityRegularizer`; 10 in the paper.
        target: The length that the gradient should have, at least 0; default 1.0.
        name: As in `SensitivityRegularizer`.

    Raises:
        ConfigurationError: a bad argument.
        StructureError: the critic has more than one output for an example.

    Cost: A forward pass and a gradient at the interpolates, and their derivative.

    References:
        Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville (2017), Improved Training of
        Wasserstein GANs, arXiv:1704.00028.

    Example:

    >>> critic = keras.layers.Dense(1, kernel_initializer="ones")
    >>> real, generated = tf.ones([4, 9]), tf.zeros([4, 9])
    >>> float(GradientPenalty(10.0).between(critic, real, generated))
    40.0
    """

    def __init__(
        self, strength: Strength, target: float = 1.0, name: str = "gradient_penalty"
    ) -> None:
        super().__init__(strength, name)
        check_number(type(self).__name__, "target", target)
        self.target: float = float(target)

    def between(
        self,
        critic: keras.layers.Layer,
        real: Nest,
        generated: Nest,
        training: bool = True,
        seed: TensorLike | None = None,
    ) -> Tensor:
        """Strength times the penalty at interpolates of two batches.

        Args:
            critic: Keras layer or model with one output for each example.
            real: Nest of tensors with the batch on axis 0.
            generated: The same.
            training: How the critic is called.
            seed: Pair of integers for ε, another one in every step; default: drawn.
        """
        call = type(self).__name__
        if seed is None:
            seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        replay = Replay(critic, training)
        value = self._penalty(call, replay.again, real, generated, seed)
        return tf.cast(self.factor(0), value.dtype) * value

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples."""
        half = batch.size // 2
        # In one batch the partner of an example is the one half a batch away.
        other = nest.map_live(lambda x: tf.roll(x, half, axis=0), batch.inside)
        others = tf.nest.map_structure(lambda x, o: x if o is None else o, batch.inputs, other)
        return self._penalty(batch.call, batch.replay.again, batch.inputs, others, batch.seed(0))

    def _penalty(self, call, function, a, b, seed):
        """At random points between two nests of tensors."""
        a, b = (tf.nest.map_structure(tf.convert_to_tensor, tensors) for tensors in (a, b))
        live = nest.map_live(lambda x: x if nest.is_differentiable(x.dtype) else None, a)
        first = nest.live(live)[0]
        epsilon = tf.random.stateless_uniform([tf.shape(first)[0]], seed, dtype=first.dtype)
        shift = scale_examples(
            epsilon,
            tf.nest.map_structure(lambda x, y, on: None if on is None else y - x, a, b, live),
        )
        outputs, pull = double_gradient.pullback(function, nest.moved(a, shift), call=call)
        if example_jacobians.example_size(outputs) != 1:
            raise StructureError(
                f"{call}: the critic must have one output for each example. Received: outputs "
                f"{given.describe(outputs)}."
            )
        gradient = pull(tf.nest.map_structure(tf.ones_like, outputs))
        lengths = root(squared_norms(gradient))
        return tf.reduce_mean(tf.square(lengths - self.target))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "target": self.target}
