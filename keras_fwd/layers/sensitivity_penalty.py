"""`SensitivityPenalty`: a layer that adds a penalty on its derivatives to the loss."""

from collections.abc import Mapping
from typing import Any, Self

import keras
import tensorflow as tf

from keras_fwd._checks import check_count
from keras_fwd._models.serializable import serializable
from keras_fwd._models.wrapping import DerivativeLayer
from keras_fwd.errors import ConfigurationError
from keras_fwd.regularizers.base import SensitivityRegularizer
from keras_fwd.regularizers.batch import Batch, LossBatch, Replay
from keras_fwd.typing import Nest, Variable


@serializable
class SensitivityPenalty(DerivativeLayer):
    """A layer as it is, with a penalty on its derivatives by its inputs in training.

    Outputs, weights and updates are those of the layer. When it is called with `training=True`,
    the penalty is added to the losses of the model, and averaged over the epoch in a metric of
    the regularizer's name, without the factor `strength`. In `evaluate` and `predict` nothing is
    added, and the metric is NaN: it was not measured.

    Args:
        layer: A Keras layer or model.
        regularizer: From `keras_fwd.regularizers`, one that is not of the loss.
        seed: Whole number from 0 to 2³² − 1; what the penalty draws at random depends on it and
            on the step alone.
        **kwargs: As of `keras.layers.Layer`.

    Raises:
        ConfigurationError: `regularizer` is none of this package, or needs the loss.
        StructureError: no input is a floating-point tensor.
        LeakError: TensorFlow would get a derivative wrong; names the op and the layer. Raised
            when the training step is traced.

    Cost: That of the regularizer in training; none otherwise.

    Example:

    >>> from keras_fwd.regularizers import JacobianNorm
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input([3]),
    ...         SensitivityPenalty(keras.layers.Dense(4, "tanh"), JacobianNorm(1e-2)),
    ...         keras.layers.Dense(1),
    ...     ]
    ... )
    >>> model.compile("adam", "mse")
    >>> history = model.fit(tf.ones([8, 3]), tf.ones([8, 1]), verbose=0)
    >>> sorted(history.history)
    ['jacobian_norm', 'loss']
    """

    _takes_losses = False

    def __init__(
        self,
        layer: keras.layers.Layer,
        regularizer: SensitivityRegularizer,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        # Derivatives are by the inputs as they come; the layer casts them to its own precision.
        super().__init__(layer, autocast=False, **kwargs)
        call = type(self).__name__
        if not isinstance(regularizer, SensitivityRegularizer):
            raise ConfigurationError(
                f"{call}: `regularizer` must be one of `keras_fwd.regularizers`. "
                f"Received: regularizer={regularizer!r}."
            )
        if regularizer.of_the_loss and not self._takes_losses:
            raise ConfigurationError(
                f"{call}: {type(regularizer).__name__} is a penalty on the loss, which a layer "
                "does not see: use `keras_fwd.regularize(model, regularizer)`. Received: "
                f"regularizer={regularizer!r}."
            )
        self.regularizer = regularizer
        check_count(call, "seed", seed, least=0, most=2**32 - 1)
        self.seed: int = int(seed)
        self.metric: PenaltyMean = PenaltyMean(name=regularizer.name)
        self.pending: Any = None  # the batch whose loss is still to come, of a penalty on it
        self._memory = {}
        self._step: Any = None

    def build(self, input_shape: Any) -> None:
        """Build the layer, and what the penalty carries from step to step."""
        super().build(input_shape)
        # All replicas count the same steps: a sum would count each several times.
        options = {"trainable": False, "aggregation": "only_first_replica"}
        self._step = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", name="step", autocast=False, **options
        )
        sizes = [tf.TensorShape(shape[1:]).num_elements() for shape in _shapes(input_shape)]
        for name, shape in self.regularizer.memory(sizes).items():
            normal = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
            dtype = "float64" if self.variable_dtype == "float64" else "float32"
            self._memory[name] = self.add_weight(
                shape=shape, dtype=dtype, initializer=normal, name=name, autocast=False, **options
            )

    @property
    def weights(self) -> list[Variable]:
        """Those of the layer. The state of the penalty counts as its random seed does."""
        return self.layer.weights

    def call(self, inputs: Nest, training: bool | None = None, mask: Nest | None = None) -> Nest:
        """The outputs of the layer."""
        if not training:
            return self.function(training, mask)(inputs)
        return self.penalized(inputs, training, mask, learning=True)

    def penalized(
        self, inputs: Nest, training: bool | None, mask: Nest | None, learning: bool
    ) -> Any:
        """The outputs, and the penalty among the losses."""
        kind = LossBatch if self.regularizer.of_the_loss else Batch
        memory = self._memory if learning else None
        replay = Replay(self.layer, training, mask)
        batch = kind(type(self.regularizer).__name__, replay, inputs, self._seed(), memory)
        if self.regularizer.of_the_loss:
            self.pending = batch, learning
        else:
            self.add_loss(self.settle(batch, learning))
        return batch.outputs

    def settle(self, batch: Any, learning: bool) -> None:
        """Strength times the penalty of a batch; the metric and the step are updated."""
        value = self.regularizer.penalty(batch)
        # The mean is over examples: the last batch of an epoch may be smaller.
        count = tf.cast(batch.size, self.metric.dtype)
        self.metric.update_state(tf.stop_gradient(value), sample_weight=count)
        factor = tf.cast(self.regularizer.factor(self._step.value), value.dtype)
        if learning:
            self._step.assign(self._step.value + 1)
        return factor * value

    def _seed(self):
        # Two whole numbers in one: seeds that differ by less than the number of steps of a
        # training do not meet.
        return self.seed * 2**20 + tf.cast(self._step.value, tf.int64)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the layer."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """With the regularizer."""
        regularizer = keras.saving.serialize_keras_object(self.regularizer)
        return {**super().get_config(), "regularizer": regularizer, "seed": self.seed}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """The inverse of `get_config`."""
        regularizer = config["regularizer"]
        regularizer = keras.saving.deserialize_keras_object(regularizer, custom_objects)
        return super().from_config({**config, "regularizer": regularizer}, custom_objects)


class PenaltyMean(keras.metrics.Mean):
    """A mean that is NaN, not 0, where nothing was measured."""

    def result(self) -> Any:
        """The mean so far."""
        mean = tf.convert_to_tensor(super().result())
        return tf.where(tf.equal(self.count.value, 0), tf.cast(float("nan"), mean.dtype), mean)


def _shapes(input_shape):
    """The shapes in a nest of shapes."""
    if isinstance(input_shape, dict):
        return [s for key in sorted(input_shape) for s in _shapes(input_shape[key])]
    if any(isinstance(part, (list, tuple, dict)) for part in input_shape):
        return [s for part in input_shape for s in _shapes(part)]
    return [input_shape]
