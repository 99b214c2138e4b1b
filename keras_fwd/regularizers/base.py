"""`SensitivityRegularizer`: what all penalties on derivatives by the inputs share."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from keras_fwd._checks import check_number
from keras_fwd.errors import ConfigurationError
from keras_fwd.regularizers.batch import Batch, measure
from keras_fwd.typing import Nest, Strength, Tensor, TensorLike


class SensitivityRegularizer(keras.regularizers.Regularizer):
    """Base class of penalties on the derivatives of a model by its inputs.

    A subclass gives `penalty(batch)`, the mean over the examples of a batch, and `get_config`.
    Attach one with `keras_fwd.regularize` or `keras_fwd.layers.SensitivityPenalty`; called as a
    function it returns `strength` times the penalty of one batch, for a loop of one's own.

    Args:
        strength: Factor of the penalty in the loss: a finite number of at least 0, a
            `keras.optimizers.schedules.LearningRateSchedule` of the training step, or a scalar
            `keras.Variable`, which a callback may change during training.
        name: Name of the metric that shows the penalty, without the factor.

    Raises:
        ConfigurationError: `strength` is negative, not finite, or no number.
    """

    #: Whether the penalty needs the loss of each example, and so `keras_fwd.regularize`.
    of_the_loss = False

    def __init__(self, strength: Strength, name: str) -> None:
        self.strength: Strength = checked_strength(type(self).__name__, strength)
        self.name = name

    def penalty(self, batch: Batch) -> Tensor:
        """The mean over the examples of a `Batch` (a `LossBatch` if `of_the_loss`): a scalar."""
        raise NotImplementedError

    def memory(self, sizes: Sequence[int | None]) -> dict[str, Any]:
        """Shapes of the vectors that are carried from step to step.

        Args:
            sizes: Components of one example at each input leaf, None where unknown.

        Returns:
            Dict from names to shapes; the values are `batch.memory`.
        """
        del sizes
        return {}

    def factor(self, step: TensorLike) -> Tensor:
        """The strength at a training step, a scalar tensor."""
        strength = self.strength(step) if callable(self.strength) else self.strength
        return tf.convert_to_tensor(strength)

    def __call__(
        self,
        model: keras.layers.Layer,
        inputs: Nest = None,
        targets: Nest = None,
        training: bool = False,
        seed: TensorLike = 0,
    ) -> Tensor:
        """Strength times the penalty of one batch.

        Args:
            model: Keras layer or model; compiled with its loss if the penalty is one of the loss.
            inputs: Nest of tensors with the batch on axis 0.
            targets: As in `fit`, for a penalty of the loss.
            training: How the model is called.
            seed: Whole number, or a scalar integer tensor: what is drawn at random.

        Returns:
            Scalar tensor; differentiable, by the weights for one.
        """
        if inputs is None:
            raise ConfigurationError(
                f"{type(self).__name__} is a penalty on derivatives by the inputs, not on weights: "
                "attach it with `keras_fwd.regularize(model, regularizer)`. Received: a call with "
                f"{model!r} alone."
            )
        call = type(self).__name__
        batch = measure(call, model, inputs, training, seed, self.of_the_loss)
        if self.of_the_loss:
            batch.resolve_losses(model, targets)
            batch.take_loss(model, targets)
        value = self.penalty(batch)
        return tf.cast(self.factor(0), value.dtype) * value

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; a variable becomes the number that it holds."""
        strength = self.strength
        if isinstance(strength, keras.optimizers.schedules.LearningRateSchedule):
            strength = keras.saving.serialize_keras_object(strength)
        elif not isinstance(strength, float):
            strength = float(strength)
        return {"strength": strength, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `get_config`."""
        if isinstance(config.get("strength"), dict):
            schedule = keras.saving.deserialize_keras_object(config["strength"])
            config = {**config, "strength": schedule}
        return cls(**config)


def checked_strength(call, strength):
    """The strength as a float, a schedule or a variable."""
    if isinstance(strength, keras.optimizers.schedules.LearningRateSchedule):
        return strength
    variable = isinstance(strength, (keras.Variable, tf.Variable))
    # A variable that is no scalar is refused by the check, as whatever else is no number.
    number = float(strength) if variable and not tuple(strength.shape) else strength
    check_number(call, "strength", number)
    return strength if variable else float(strength)
