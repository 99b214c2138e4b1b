"""Where a step on a batch leads, and the loss there."""

import tensorflow as tf

from keras_fwd._spaces import nest
from keras_fwd.optimizers._steps import bounds
from keras_fwd.optimizers._steps.expansion import Expansion
from keras_fwd.optimizers._steps.parts import Pass, Solved, Values


class WholeBatch:
    """Steps are tried on the batch that they were built from.

    Args:
        model_pass: The `TrainingPass` of the batch.
        expansion: Its `Expansion`.
    """

    def __init__(self, model_pass: Pass, expansion: Expansion) -> None:
        self._pass = model_pass
        self._expansion = expansion

    def moved(self, step: Values) -> Values:
        """The weights after a step, inside their constraints."""
        reached = nest.add(self._expansion.values, step)
        pairs = zip(self._pass.variables, reached, strict=True)
        return [value if v.constraint is None else v.constraint(value) for v, value in pairs]

    def taken(self, step: Values, values: Values) -> Values:
        """The step to these values, where a constraint cut it short."""
        return bounds.taken(self._pass.variables, self._expansion.values, step, values)

    def loss(self, values: Values) -> tf.Tensor:
        """On this replica's share of the batch."""
        return self._pass(values)["loss"]

    def beyond(self, solution: Solved) -> tf.Tensor:
        """Nothing is left out."""
        del solution
        return tf.zeros_like(self._expansion.loss)


class HandedOn(WholeBatch):
    """No step of one's own: what is found goes to another optimizer, as it is."""

    def moved(self, step: Values) -> Values:
        """The step itself: the other optimizer moves the weights."""
        return step
