"""`regularize`: a Keras model that trains with a penalty on its derivatives by its inputs."""

import keras

from keras_fwd._models import nested_layers
from keras_fwd._models.serializable import serializable
from keras_fwd.errors import ConfigurationError
from keras_fwd.layers.sensitivity_penalty import SensitivityPenalty
from keras_fwd.regularizers.base import SensitivityRegularizer


def regularize(
    model: keras.Model, regularizer: SensitivityRegularizer, seed: int = 0
) -> keras.Model:
    """A model like `model` that trains with a penalty on its derivatives.

    Compile the result and call `fit`. It shares layers and weights with `model`, returns the same
    outputs, and is saved and loaded as `.keras`. The penalty is part of the loss in `fit` and
    `evaluate`, and shown as a metric of the regularizer's name, without the factor `strength`;
    `predict` costs nothing more. Several penalties: `regularize(regularize(model, a), b)`.

    Args:
        model: A Keras model; compiled or not, the result is to be compiled.
        regularizer: From `keras_fwd.regularizers`.
        seed: Whole number from 0 to 2³² − 1; what the penalty draws at random depends on it and
            on the step alone.

    Returns:
        A `keras.Model`. Its `model` is the one given.

    Raises:
        ConfigurationError: `model` is no Keras model, or has a `train_step` or `compute_loss` of
            its own, which could not be kept: put a `SensitivityPenalty` inside it instead. In the
            first step: a model with a penalty on the loss is inside another model.
        StructureError: in the first step: no input is a floating-point tensor.
        LeakError: when the first step is traced: TensorFlow would get a derivative wrong.

    Cost: That of the regularizer in every training step.

    Example:

    >>> import numpy as np
    >>> from keras_fwd.regularizers import JacobianNorm
    >>> model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    >>> regularized = regularize(model, JacobianNorm(1e-2))
    >>> regularized.compile("adam", "mse")
    >>> history = regularized.fit(np.ones([8, 3]), np.ones([8, 1]), verbose=0)
    >>> sorted(history.history)
    ['jacobian_norm', 'loss']
    """
    if not isinstance(model, keras.Model):
        raise ConfigurationError(
            "regularize: `model` must be a Keras model; a layer is wrapped in "
            f"`keras_fwd.layers.SensitivityPenalty`. Received: model={model!r}."
        )
    if isinstance(model, LossRegularizedModel):
        raise ConfigurationError(
            "regularize: a penalty on the loss must be the outermost one, and there can be only "
            f"one. Received: a model that already has {type(model.regularizer).__name__}; "
            "regularize the model inside it first."
        )
    # Ours go on to those of the model inside.
    kept = () if isinstance(model, RegularizedModel) else ("train_step", "compute_loss")
    for method in kept:
        if getattr(type(model), method) is not getattr(_stock(model), method):
            raise ConfigurationError(
                f"regularize: `model` must not override `{method}`, which would be passed over: "
                "put `keras_fwd.layers.SensitivityPenalty(layer, regularizer)` inside the model "
                f"instead. Received: {type(model).__name__}."
            )
    of_the_loss = getattr(regularizer, "of_the_loss", False)
    kind = LossRegularizedModel if of_the_loss else RegularizedModel
    return kind(model, regularizer, seed, name=model.name)


def _stock(model):
    """The class of Keras that a model is derived from."""
    return next(k for k in type(model).__mro__ if k.__module__.split(".")[0] == "keras")


@serializable
class RegularizedModel(keras.Model):
    """What `regularize` returns.

    Attributes:
        model: The model inside.
        regularizer: The penalty.
    """

    _penalty_layer = SensitivityPenalty

    def __init__(self, model, regularizer, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.penalty = self._penalty_layer(model, regularizer, seed=seed)
        self.supports_masking = True
        # Keras calls a model alike in `evaluate` and `predict`: `test_step` says which of them it
        # is.
        self._evaluating = False
        if model.built and getattr(model, "input_shape", None) is not None:
            self.build(model.input_shape)

    @property
    def model(self) -> keras.Model:
        """The model inside."""
        return self.penalty.layer

    @property
    def regularizer(self) -> SensitivityRegularizer:
        """The penalty."""
        return self.penalty.regularizer

    @property
    def layers(self):
        """Those of the model inside."""
        return self.model.layers

    def build(self, input_shape):
        """Build the model and the penalty."""
        if not self.penalty.built:
            self.penalty.build(input_shape)
        self.built = True

    def call(self, inputs, training=None, mask=None):
        """The outputs of the model."""
        if self._evaluating and not training:
            return self.penalty.penalized(inputs, training, mask, learning=False)
        return self.penalty(inputs, training=training, mask=mask)

    def compute_output_shape(self, input_shape):
        """That of the model."""
        return self.model.compute_output_shape(input_shape)

    def compute_output_spec(self, *args, **kwargs):
        """That of the model."""
        return self.model.compute_output_spec(*args, **kwargs)

    def test_step(self, data):
        """As of `keras.Model`, with the penalty."""
        within = [self]
        while isinstance(within[-1].model, RegularizedModel):
            within.append(within[-1].model)
        for model in within:
            model._evaluating = True
        try:
            return super().test_step(data)
        finally:
            for model in within:
                model._evaluating = False

    def get_config(self):
        """With the model and the regularizer."""
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "regularizer": keras.saving.serialize_keras_object(self.regularizer),
            "seed": self.penalty.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        config = dict(config)
        for name in ("model", "regularizer"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)


@serializable
class LossPenalty(SensitivityPenalty):
    """The part of a `LossRegularizedModel` that holds the model and the penalty."""

    _takes_losses = True


@serializable
class LossRegularizedModel(RegularizedModel):
    """What `regularize` returns for a penalty on the loss."""

    _penalty_layer = LossPenalty

    def call(self, inputs, training=None, mask=None):
        """The outputs of the model."""
        if training and not nested_layers.is_outermost(self):
            raise ConfigurationError(
                f"regularize: a model with {type(self.regularizer).__name__}, a penalty on the "
                "loss, must be the outermost one: within another model it never sees the loss. "
                f"Received: {self.name!r} inside of another layer. Regularize the model around it."
            )
        return super().call(inputs, training, mask)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """As of `keras.Model`, with the penalty."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.penalty.pending is None:
            return loss
        # Taken out, so that no later loss meets a batch that is gone.
        (batch, learning), self.penalty.pending = self.penalty.pending, None
        batch.take_loss(self, y, sample_weight)
        return loss + self.penalty.settle(batch, learning)
